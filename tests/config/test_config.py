"""The configuration: what is refused, what the messages say, and that it survives the disk."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaeaug.config import (
    AugmentConfig,
    ConfigError,
    Recipe,
    changed_keys,
    json_schema,
    load_config,
    make_config,
)
from vaeaug.config.job import RENAMED

# A valid value other than the default, for every key.
OTHER: dict[str, Any] = {
    "seed": 7,
    "data.split": "val",
    "data.size": (16, 16),
    "data.frames": 16,
    "data.frame_step": 2,
    "data.resize": "pad",
    "data.value_range": (0.0, 4095.0),
    "data.mode": "RGB",
    "data.alpha": "drop",
    "data.keys": {"images": "x", "labels": "y"},
    "data.class_names": ["cat", "dog"],
    "data.on_error": "skip",
    "data.layout": "NLC",
    "data.sample_rate": 8000,
    "data.front_end": "stft",
    "data.class_counts": {0: 20, 1: 10},
    "data.seed": 5,
    "plan.sampling_strategy": {0: 30, "cat": 40},
    "plan.target_ratio": 0.5,
    "plan.max_synthetic_ratio": 2.0,
    "plan.min_class_count": 4,
    "plan.share": 0.1,
    "model.grouping": "shared",
    "model.conditional": False,
    "model.network": "mlp",
    "model.latent": "spatial",
    "model.latent_dim": 8,
    "model.latent_channels": 4,
    "model.levels": 3,
    "model.codes": 32,
    "model.commitment": 0.5,
    "model.likelihood": "bernoulli",
    "model.convolution": "full",
    "model.width": 16,
    "model.max_width": 64,
    "model.codec": "autoencoder.py:codec",
    "model.class_embedding": 8,
    "model.style_dim": 4,
    "model.style_beta": 2.0,
    "model.beta": 2.0,
    "model.free_bits": 0.5,
    "model.capacity": 20.0,
    "model.capacity_weight": 10.0,
    "training.steps": 10,
    "training.init": "runs/similar",
    "training.adapt_steps": 10,
    "training.batch_size": 8,
    "training.learning_rate": 1e-3,
    "training.precision": "float32",
    "training.weight_decay": 0.0,
    "training.lr_warmup": 0,
    "training.kl_warmup": 0.5,
    "training.kl_cycles": 4,
    "training.fixed_sigma_from": 0.5,
    "training.clip": 1.0,
    "training.ema_decay": 0.9,
    "training.class_power": 1.0,
    "training.held_out": 0.2,
    "training.eval_every": 10,
    "training.patience": 2,
    "training.checkpoint_every": 10,
    "training.max_bad_steps": 3,
    "training.budget_seconds": 60.0,
    "training.label_swap": 5.0,
    "training.denoise": 0.1,
    "training.feature_matching": 1.0,
    "training.rescue": False,
    "training.bound_samples": 10,
    "adversarial.steps": 10,
    "adversarial.weight": 0.1,
    "adversarial.features": 0.5,
    "adversarial.r1": 0.0,
    "adversarial.learning_rate": 1e-4,
    "semi_supervised.mode": "m2",
    "semi_supervised.threshold": 0.8,
    "semi_supervised.classifier_steps": 10,
    "semi_supervised.consistency": 0.5,
    "semi_supervised.alignment": False,
    "semi_supervised.classifier_weight": 0.5,
    "semi_supervised.unlabelled_share": 1.0,
    "density.kind": "flow",
    "density.steps": 10,
    "density.batch_size": 32,
    "density.width": 16,
    "density.depth": 2,
    "density.learning_rate": 1e-4,
    "restoration.steps": 10,
    "restoration.batch_size": 8,
    "restoration.width": 16,
    "restoration.learning_rate": 1e-4,
    "recipe.share": 0.1,
    "recipe.classes": "rare",
    "recipe.sampler": "prior",
    "recipe.temperature": 0.5,
    "recipe.min_label_probability": 0.1,
    "recipe.soft": True,
    "recipe.weight": 0.5,
    "recipe.separate_batch_norm": True,
    "recipe.real_only_last": 0.4,
    "sampling.guidance": 2.0,
    "sampling.redrawn": 0.25,
    "sampling.solver_steps": 4,
    "sampling.residual": True,
    "screening.near_copy_quantile": 0.1,
    "screening.near_copy_factor": 1.0,
    "screening.max_near_share": 0.5,
    "screening.duplicate_factor": 1.0,
    "screening.max_candidates_ratio": 2.0,
    "screening.folds": 2,
    "screening.classifier_steps": 10,
    "screening.keep_rejected": 0,
    "shards.max_bytes": 2**20,
    "shards.compress": "gzip",
}


def every_key() -> list[str]:
    keys = []
    for name, field in AugmentConfig.model_fields.items():
        part = field.annotation
        inner = getattr(part, "model_fields", None)
        keys.extend([name] if inner is None else [f"{name}.{key}" for key in inner])
    return keys


def nested(key: str, value: Any) -> dict[str, Any]:
    *parents, last = key.split(".")
    document = {last: value}
    for parent in reversed(parents):
        document = {parent: document}
    return document


def refused(document: dict[Any, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        make_config(document)
    return str(error.value)


def test_nothing_is_a_complete_job() -> None:
    assert load_config() == AugmentConfig() == make_config({})


def test_other_values_are_for_every_key() -> None:
    assert list(OTHER) == every_key()


# -- Wrong keys and values ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("traning.steps", "training.steps"),
        ("model.betta", "model.beta"),
        ("screening.fold", "screening.folds"),
        ("sampling_strategy", "plan.sampling_strategy"),
        ("betta", "model.beta"),
        ("sed", "seed"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_right_one(wrong: str, right: str) -> None:
    assert refused(nested(wrong, 3)) == (
        f"configuration: unknown key {wrong!r}; did you mean {right!r}?"
    )


def test_a_key_like_no_other_lists_the_known_ones() -> None:
    message = refused({"qqqq": 1})
    assert message.startswith("configuration: unknown key 'qqqq'; known keys: seed, data.split")
    assert all(key in message for key in every_key())


def test_every_wrong_key_is_named_at_once() -> None:
    message = refused({"traning": {"steps": 1, "patiance": 2}, "model": {"beta": -1}})
    assert "did you mean 'training.steps'?" in message
    assert "did you mean 'training.patience'?" in message
    assert "model.beta: Input should be greater than 0, got -1" in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("model.beta", 0, "greater than 0"),
        ("model.beta", math.inf, "finite number"),
        ("model.beta", math.nan, "finite number"),
        ("model.width", 7, "greater than or equal to 8"),
        ("training.held_out", 0.5, "less than 0.5"),
        ("training.steps", 0, "greater than or equal to 1"),
        ("training.steps", "many", "valid integer"),
        ("seed", -1, "greater than or equal to 0"),
        ("seed", 2**63, "less than 9223372036854775808"),
        ("seed", True, "a seed is a whole number"),
        ("recipe.sampler", "best", "'auto', 'prior', 'posterior', 'interpolate', 'gmm', 'flow'"),
        (
            "model.latent",
            "grid",
            "Input should be 'vector', 'spatial', 'hierarchical' or 'discrete'",
        ),
        ("model.likelihood", "poisson", "'gaussian', 'gaussian_per_pixel', 'bernoulli' or"),
        ("model.levels", 4, "Input should be 2 or 3"),
        ("training.denoise", 1.5, "less than or equal to 1"),
        ("training.budget_seconds", 0, "greater than 0"),
        ("semi_supervised.threshold", 1.0, "less than 1"),
        ("density.kind", "kde", "'auto', 'normal', 'gmm' or 'flow'"),
        ("data.size", [1, 2, 3], "at most 2 items"),
        ("data.value_range", [1.0, 1.0], "expected (low, high), low < high"),
        ("data.resize", "fit", "'crop', 'pad' or 'stretch'"),
        ("plan.share", 1.0, "less than 1"),
        ("plan.sampling_strategy", "most", "expected a rule (auto, minority, not minority"),
        ("plan.sampling_strategy", {"0:50": None}, "a mapping {class: total}"),
        ("plan.sampling_strategy", True, "a list of classes"),
        ("model", 3, "valid dictionary"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(key: str, value: Any, expected: str) -> None:
    message = refused(nested(key, value))
    assert message.startswith(f"configuration: {key}: ")
    assert expected in message
    assert message.endswith(f", got {value!r}")


def test_changed_refuses_what_make_config_refuses() -> None:
    assert AugmentConfig().changed(**{"model.beta": 2}).model.beta == 2
    with pytest.raises(ConfigError, match=r"did you mean 'model\.beta'\?"):
        AugmentConfig().changed(**{"model.betta": 2})


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        AugmentConfig().model.beta = 2.0


# -- Overrides ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("model.beta=2", lambda c: c.model.beta, 2.0),
        ("training.learning_rate=1.0e-3", lambda c: c.training.learning_rate, 1e-3),
        (" model.beta =2", lambda c: c.model.beta, 2.0),
        ("data.size=[16, 24]", lambda c: c.data.size, (16, 24)),
        ("data.class_counts=[3, 2]", lambda c: c.data.class_counts, [3, 2]),
        ("data.class_counts={0: 3}", lambda c: c.data.class_counts, {0: 3}),
        (
            "plan.sampling_strategy={0: 30, cat: 9}",
            lambda c: c.plan.sampling_strategy,
            {0: 30, "cat": 9},
        ),
        ("plan.sampling_strategy=[0, cat]", lambda c: c.plan.sampling_strategy, [0, "cat"]),
        ("plan.sampling_strategy=0.5", lambda c: c.plan.sampling_strategy, 0.5),
        ("plan.sampling_strategy=not majority", lambda c: c.plan.sampling_strategy, "not majority"),
        ("training.steps=null", lambda c: c.training.steps, None),
        ("shards.compress=", lambda c: c.shards.compress, None),
        ("data.keys={images: a=b, labels: y}", lambda c: c.data.keys["images"], "a=b"),
    ],
)
def test_an_override_is_a_yaml_value(override: str, read: Any, value: Any) -> None:
    assert read(load_config(None, [override])) == value


def test_later_overrides_win_and_keywords_win_over_them() -> None:
    assert load_config(None, ["seed=1", "seed=2"]).seed == 2
    assert load_config(None, ["seed=1"], seed=3).seed == 3
    assert load_config(None, ["seed=1"], seed=None).seed == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.beta", "--set: expected key=value such as model.beta=2, got 'model.beta'"),
        ("=2", "--set: expected key=value such as model.beta=2, got '=2'"),
        ("model.beta=[1", "--set model.beta: '[1' is not a YAML value"),
        ("seed.x=1", "configuration: seed: Input should be a valid integer, got {'x': 1}"),
        ("model.betta=1", "configuration: unknown key 'model.betta'; did you mean 'model.beta'?"),
    ],
)
def test_a_wrong_override_says_which(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(None, [override])
    assert str(error.value) == message


def test_an_override_inside_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^model\.beta: 'model' is a value, not a group of keys"):
        load_config(None, ["model=3", "model.beta=1"])


# -- Files -------------------------------------------------------------------------------------


def test_a_file_is_read_and_overrides_go_over_it(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("seed: 3\nmodel:\n  beta: 2\n  width: 16\n", encoding="utf-8")
    config = load_config(path, ["model.beta=4"])
    assert (config.seed, config.model.beta, config.model.width) == (3, 4.0, 16)


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("# nothing\n", encoding="utf-8")
    assert load_config(path) == AugmentConfig()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- 1\n- 2\n", "expected a mapping of keys, got list"),
        (b"just words", "expected a mapping of keys, got str"),
        (b"model:\n\tbeta: 1\n", "not valid YAML"),
        (b"model: {beta: 1\n", "not valid YAML"),
        (b"seed: 1 # \xff\n", "expected a UTF-8 text file of YAML"),
        (b"seed: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        (b"traning:\n  steps: 1\n", "unknown key 'traning.steps'; did you mean 'training.steps'?"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot read .*: No such file"):
        load_config(tmp_path / "absent.yaml")


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = tmp_path / "job.yaml"
    path.write_text(f"seed: !!python/object/apply:os.mkdir ['{witness}']\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(path)
    assert not witness.exists()


# -- Identity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", OTHER)
def test_every_key_changes_the_hash_and_is_named(key: str) -> None:
    usual, other = AugmentConfig(), AugmentConfig().changed(**{key: OTHER[key]})
    assert other.sha256 != usual.sha256
    line, *others = changed_keys(usual.to_json(), other.to_json())
    # The share of the plan is that of the recipe, too.
    assert others == (["recipe.share: 0.3 -> 0.1"] if key == "plan.share" else [])
    old, new = usual.to_json(), other.to_json()
    for part in key.split("."):
        old, new = old[part], new[part]
    assert line == f"{key}: {old!r} -> {new!r}"


@given(st.permutations(list(OTHER)))
def test_the_order_of_keys_changes_nothing(keys: list[str]) -> None:
    def build(names: list[str]) -> AugmentConfig:
        return load_config(None, (), **{name: OTHER[name] for name in names})

    assert build(keys).sha256 == build(list(OTHER)).sha256


@given(st.sets(st.sampled_from(list(OTHER))))
def test_a_trip_through_json_changes_nothing(keys: set[str]) -> None:
    config = AugmentConfig().changed(**{key: OTHER[key] for key in keys})
    back = make_config(json.loads(json.dumps(config.to_json())))
    assert back == config
    assert back.sha256 == config.sha256
    assert changed_keys(config.to_json(), back.to_json()) == []


def test_a_callable_strategy_is_written_by_its_name() -> None:
    def doubled(labels: Any) -> dict[int, int]:
        return {}

    config = AugmentConfig().changed(**{"plan.sampling_strategy": doubled})
    written = json.loads(json.dumps(config.to_json()))["plan"]["sampling_strategy"]
    assert written.startswith("callable:")
    assert written.endswith("doubled")


def test_changed_keys_of_keys_that_are_not_there() -> None:
    assert changed_keys({"a": {"b": 1}}, {"a": {"c": 2}}) == [
        "a.b: 1 -> '(absent)'",
        "a.c: '(absent)' -> 2",
    ]
    assert changed_keys({"a": {"b": [1, 2]}}, {"a": {"b": [1, 2]}}) == []


def test_the_schema_accepts_what_a_file_may_say_and_refuses_the_rest() -> None:

    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for keys in ({}, *({key: value} for key, value in OTHER.items())):
        config = AugmentConfig().changed(**keys)
        if not callable(config.plan.sampling_strategy):
            assert list(validator.iter_errors(config.to_json())) == []
    wrong: dict[str, Any] = {"model": {"bta": 1}}
    assert [error.validator for error in validator.iter_errors(wrong)] == ["additionalProperties"]
    assert list(validator.iter_errors({"model": {"beta": 0}}))
    assert list(validator.iter_errors({"model": {"grouping": "none"}}))


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    for name, part in schema["properties"].items():
        inner = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else None
        if inner is None:
            assert part["description"]
            continue
        assert inner["description"], name
        for key, each in inner["properties"].items():
            assert each.get("description"), f"{name}.{key}"


# -- Hostile files -----------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in itertools.pairwise("abcdefghijkl")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, r"line \d+: expected at most 200,000 values, got [\d,]+ or more"),
        ("seed: &a [*a]", "line 1: expected values, got one that contains itself"),
        ("seed: 2024-99-99", "not valid YAML: month must be in 1..12"),
        ("seed: " + "9" * 5000, "not valid YAML: Exceeds the limit"),
        ("seed: " + "[" * 5000, "not valid YAML: nested too deeply"),
        ("seed: " + "[" * 100 + "]" * 100, "expected at most 64 levels of nested values"),
        ("seed: 1\nmodel: {}\nseed: 2\n", "line 3: expected each key once, got 'seed' twice"),
        ("seed: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("? [1]\n: 2\n", "found unhashable key"),
        ("seed: \0", "not valid YAML"),
        ("#" + "x" * 2**20, "expected at most 1,048,576 characters of YAML"),
    ],
    ids=lambda text: text[:12],
)
def test_yaml_that_is_hostile_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000
    with pytest.raises(ConfigError) as error:
        load_config(None, [f"plan.sampling_strategy={text}"])
    assert "plan.sampling_strategy" in str(error.value)


def test_a_wrong_value_is_shown_in_part() -> None:
    with pytest.raises(ConfigError) as error:
        make_config({"seed": list(range(10**5))})
    assert str(error.value).startswith("configuration: seed: ")
    assert len(str(error.value)) < 400


def test_references_that_stand_for_little_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("model: {latent_dim: &n 8, width: *n}\n")
    assert load_config(path).model.width == 8


# -- Keys of earlier versions ------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), sorted(RENAMED.items()))
def test_a_key_of_an_earlier_version_has_the_place_of_the_present_one(old: str, new: str) -> None:
    value = OTHER[new]
    with pytest.warns(DeprecationWarning, match=f"configuration: {old} is now {new}"):
        config = make_config(nested(old, value))
    assert config == AugmentConfig().changed(**{new: value})
    with pytest.warns(DeprecationWarning, match="is now"):
        assert AugmentConfig().changed(**{old: value}) == config


def test_the_recipe_of_a_job_is_part_of_its_configuration() -> None:
    config = load_config(None, ["plan.share=0.2", "recipe.sampler=gmm"])
    assert config.recipe == Recipe(share=0.2, sampler="gmm")
    with pytest.warns(DeprecationWarning, match="use config.recipe"):
        assert Recipe.of(config, weight=0.5) == Recipe(share=0.2, sampler="gmm", weight=0.5)
    other = config.with_recipe(Recipe(share=0.4))
    assert (other.recipe.share, other.plan.share) == (0.4, 0.4)
    assert config.changed(**Recipe(soft=True).settings()).recipe == Recipe(share=0.2, soft=True)
