"""The whole job on real digits: what it makes, that it is whole, and that nothing stops it."""

import errno
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from small_job import NAMES, as_options, contents, digits, tiny_config

import vaeaug
from vaeaug.cli import main
from vaeaug.config import ConfigError
from vaeaug.data import LabelledImages
from vaeaug.files import Claim
from vaeaug.files.json_text import sealed
from vaeaug.generator import Synthesizer
from vaeaug.job.finished import report
from vaeaug.job.folder import RunError
from vaeaug.job.inspection import describe, rescreen
from vaeaug.job.pipeline import augment, generate, train_only
from vaeaug.job.result import AugmentResult
from vaeaug.plan import PlanError
from vaeaug.shards import Manifest, ShardDataset, verify
from vaeaug.stages import fit, plan_of
from vaeaug.threads import torch_threads

BIG = {"plan.sampling_strategy": {0: 150, 1: 150, 2: 150}}


@pytest.fixture(scope="module")
def data() -> LabelledImages:
    return digits()


@pytest.fixture(scope="module")
def finished(data: LabelledImages, tmp_path_factory: pytest.TempPathFactory) -> AugmentResult:
    """An uninterrupted run of the tiny job."""
    return augment(data, tmp_path_factory.mktemp("job") / "out", tiny_config())


# -- What it makes -----------------------------------------------------------------------------


def test_every_class_gets_what_was_planned(finished: AugmentResult, data: LabelledImages) -> None:
    plan = plan_of(data, tiny_config())
    dataset = ShardDataset(finished.out_dir)
    assert [each.accepted for each in finished.manifest.classes] == [10, 10, 10, 0]
    assert np.bincount(dataset.labels, minlength=4).tolist() == [p.n_synthetic for p in plan]
    assert dataset.class_names == NAMES
    assert finished.complete
    assert finished.shortfalls == []
    assert not finished.resumed


def test_it_is_whole_and_bound_to_its_data(finished: AugmentResult, data: LabelledImages) -> None:
    report = verify(finished.out_dir)
    assert report.ok, str(report)
    assert report.n_images == 30
    manifest = Manifest.load(finished.out_dir)
    assert manifest == finished.manifest
    assert manifest.data_fingerprint == data.fingerprint
    assert manifest.real_counts == (24, 16, 10, 5)
    assert manifest.config_sha256 == tiny_config().sha256
    assert not (finished.out_dir / ".lock").exists()


def test_the_samples_are_the_generators_own(finished: AugmentResult, data: LabelledImages) -> None:
    generator = vaeaug.load(finished.out_dir).attach(data)
    dataset = ShardDataset(finished.out_dir)
    assert isinstance(generator, Synthesizer)
    samplers = describe(finished.out_dir)["samplers"]
    for label in range(3):
        sampler, _, residual = samplers[dataset.class_names[label]].partition("+")
        rows = np.flatnonzero(dataset.labels == label)
        drawn = generator.sample(label, len(rows), seed=0, sampler=sampler, residual=bool(residual))
        np.testing.assert_array_equal(dataset.images_at(rows), drawn.images)


def test_a_report_that_is_written_again_has_the_same_bytes(
    finished: AugmentResult, data: LabelledImages, tmp_path: Path
) -> None:
    """A command that is killed half-way leaves nothing that the manifest does not know."""
    out = tmp_path / "out"
    shutil.copytree(finished.out_dir, out)
    report(data, out)
    assert contents(out) == contents(finished.out_dir)


def test_a_class_with_too_few_images_gets_none_and_says_why(finished: AugmentResult) -> None:
    three = finished.to_json()["plan"][3]
    assert three["n_synthetic"] == 0
    assert three["reason"].startswith("too few real images (5 of at least 8)")
    assert "three" not in {each.class_name for each in finished.manifest.shards}


def test_the_picture(finished: AugmentResult) -> None:
    with Image.open(finished.out_dir / "samples.png") as picture:
        pixels = np.asarray(picture)
    # Four panels of three rows of twelve tiles: 8 x 8 pixels, six times as large, and a gap.
    assert pixels.shape == (4 * (22 + 3 * 50 + 8) + 4, 100 + 12 * 50 + 8, 3)
    tiles = pixels[:, 100:]
    assert len(np.unique(tiles)) > 20
    real, synthetic = tiles[22:70, :48], tiles[72:120, :48]
    assert real.std() > 20
    assert synthetic.std() > 1
    assert not np.array_equal(real, synthetic)


def test_the_picture_shows_real_images_enlarged(
    finished: AugmentResult, data: LabelledImages
) -> None:
    with Image.open(finished.out_dir / "samples.png") as picture:
        tile = np.asarray(picture)[22:70, 100:148, 0][::6, ::6]
    of_class = data.images[data.labels == 0, :, :, 0]
    assert (of_class == tile).all(axis=(1, 2)).any()


def test_a_finished_run_returns_at_once(finished: AugmentResult, data: LabelledImages) -> None:
    before = contents(finished.out_dir)

    def never(*_: Any) -> None:
        raise AssertionError("nothing is left to do")

    again = augment(data, finished.out_dir, tiny_config(), progress=never)
    assert again.resumed
    assert again.manifest == finished.manifest
    assert contents(finished.out_dir) == before


def test_it_merges(finished: AugmentResult, data: LabelledImages) -> None:
    with pytest.warns(UserWarning, match=r"no synthetic samples of the classes \['three'\]"):
        merged = vaeaug.merge(data, finished.out_dir, share=0.25)
    labels = np.array([int(merged[index][1]) for index in range(len(merged))])
    for label, share in enumerate((0.25, 0.25, 0.25, 0)):
        assert np.mean(merged.is_synthetic[labels == label]) == pytest.approx(share, abs=0.03)
    assert merged.class_names == NAMES


# -- The seed ----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_others(
    finished: AugmentResult, data: LabelledImages, tmp_path: Path
) -> None:
    augment(data, tmp_path / "same", tiny_config())
    assert contents(tmp_path / "same") == contents(finished.out_dir)
    augment(data, tmp_path / "other", tiny_config(seed=1))
    same, other = contents(finished.out_dir), contents(tmp_path / "other")
    assert same.keys() == other.keys()
    assert [name for name in same if same[name] == other[name]] == []
    # What the architecture is has no seed; the hashes of its files and of itself have, and what
    # was seen in training.
    one, two = (json.loads(each["model/config.json"]) for each in (same, other))
    assert [name for name in one if one[name] != two[name]] == ["files", "notes", "sha256"]


# -- Interrupted -------------------------------------------------------------------------------


def stop_at(what: str, done: int, error: BaseException) -> Callable[..., None]:
    def progress(now: str, step: int, total: int, figures: dict[str, float]) -> None:
        if (now, step) == (what, done):
            raise error

    return progress


@pytest.mark.parametrize(
    ("what", "done", "error"),
    [
        ("trunk", 3, KeyboardInterrupt()),
        ("trunk", 8, KeyboardInterrupt()),
        ("adapt", 6, RuntimeError("power")),
        ("classifier", 3, KeyboardInterrupt()),
        ("drawing one", 10, MemoryError()),
        ("drawing two", 10, KeyboardInterrupt()),
    ],
)
def test_stopped_anywhere_it_ends_with_the_same_bytes(
    finished: AugmentResult,
    data: LabelledImages,
    tmp_path: Path,
    what: str,
    done: int,
    error: BaseException,
) -> None:
    with pytest.raises(type(error)):
        augment(data, tmp_path, tiny_config(), progress=stop_at(what, done, error))
    assert not (tmp_path / "manifest.json").exists()
    assert not (tmp_path / ".lock").exists()
    assert not verify(tmp_path).ok
    result = augment(data, tmp_path, tiny_config())
    assert not result.resumed
    assert contents(tmp_path) == contents(finished.out_dir)


def test_a_resumed_run_computes_with_the_threads_it_began_with(
    data: LabelledImages, tmp_path: Path
) -> None:
    with torch_threads(2):
        augment(data, tmp_path / "whole", tiny_config())
        stop = stop_at("trunk", 8, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            augment(data, tmp_path / "out", tiny_config(), progress=stop)
    threads = set()
    with torch_threads(1):
        augment(
            data,
            tmp_path / "out",
            tiny_config(),
            progress=lambda what, *_: threads.add(
                (what.startswith("drawing"), torch.get_num_threads())
            ),
        )
        assert torch.get_num_threads() == 1
    # Classes are drawn with one thread everywhere.
    assert threads == {(False, 2), (True, 1)}
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_run_resumed_with_other_versions_says_so(
    data: LabelledImages, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        augment(data, tmp_path, tiny_config(), progress=stop_at("trunk", 3, KeyboardInterrupt()))
    run = json.loads((tmp_path / "run.json").read_text())
    now = run["versions"]["numpy"]
    run["versions"]["numpy"] = "1.0"
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert augment(data, tmp_path, tiny_config()).complete
    assert f"the run began with other versions: numpy 1.0 -> {now}" in caplog.text
    caplog.clear()
    assert augment(data, tmp_path, tiny_config()).resumed  # nothing is made
    assert "versions" not in caplog.text


@pytest.fixture
def unfinished(finished: AugmentResult, tmp_path: Path) -> Path:
    """A run that has written every shard and no manifest."""
    shutil.copytree(finished.out_dir, tmp_path / "out")
    for name in ("manifest.json", "samples.png"):
        (tmp_path / "out" / name).unlink()
    return tmp_path / "out"


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kept", [(), ("samples.png", "traversals.png"), ("latents.png",)])
def test_pictures_that_a_killed_process_did_not_come_to_are_drawn(
    unfinished: Path, finished: AugmentResult, data: LabelledImages, kept: tuple[str, ...]
) -> None:
    for name in ("samples.png", "traversals.png", "latents.png", "styles.png"):
        if name not in kept:
            (unfinished / name).unlink(missing_ok=True)
    augment(data, unfinished, tiny_config())
    assert contents(unfinished) == contents(finished.out_dir)


@pytest.mark.parametrize(
    "harm",
    [
        lambda out: damage(out / "shards" / "shard-00001.h5"),
        lambda out: (out / "shards" / "shard-00000.h5").unlink(),
        lambda out: (out / "shards" / "shard-00007.h5").write_bytes(b"of a process that ended"),
        lambda out: (out / "checkpoints" / "classes.json").write_text("{"),
        lambda out: (out / "checkpoints" / "classes.json").unlink(),
        lambda out: damage(out / "checkpoints" / "classes.json"),
        lambda out: (out / "checkpoints" / "classes.json").write_bytes(sealed({"classes": [3]})),
        lambda out: damage(out / "diagnostics.json"),
    ],
    ids=[
        *("changed", "missing", "left over", "no record", "record missing", "record damaged"),
        *("record made up", "diagnostics damaged"),
    ],
)
def test_a_damaged_shard_of_an_unfinished_run_is_made_again(
    unfinished: Path,
    finished: AugmentResult,
    data: LabelledImages,
    harm: Callable[[Path], None],
) -> None:
    harm(unfinished)
    augment(data, unfinished, tiny_config())
    assert contents(unfinished) == contents(finished.out_dir)


# Real signals, to a real process of the command line.

# Samples enough that a signal comes while they are drawn, also to a process that had to wait.
MANY = {"plan.sampling_strategy": {0: 800, 1: 800, 2: 800}}
COMMAND = [
    "augment",
    "digits",
    *as_options(**{"data.class_counts": [24, 16, 10] + [0] * 7}, **MANY),
]


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command gives when it is left alone."""
    out = tmp_path_factory.mktemp("command") / "out"
    result = CliRunner().invoke(main, [*COMMAND, "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize(
    ("number", "when", "code"),
    [
        # While the trunk trains: in test_cli.py. At random moments: in test_torture.py.
        (signal.SIGINT, "checkpoints/adapt.pt", 130),
        (signal.SIGHUP, "checkpoints/adapt.pt", -signal.SIGHUP),
    ],
)
def test_a_signal_loses_nothing(
    by_command: Path, tmp_path: Path, number: signal.Signals, when: str, code: int
) -> None:
    out = tmp_path / "out"
    command = [*COMMAND, "--out", str(out)]
    with subprocess.Popen(
        [sys.executable, "-m", "vaeaug", *command, "--no-resume"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As many threads as this process has: a run keeps their number.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        give_up = time.monotonic() + 60
        while not (out / when).exists() and process.poll() is None:
            assert time.monotonic() < give_up, "the job never came so far"
            time.sleep(0.001)
        process.send_signal(number)
        printed, log = process.communicate(timeout=60)
    assert process.returncode == code, log
    assert printed == ""
    assert not (out / "manifest.json").exists()
    if number in (signal.SIGINT, signal.SIGTERM):
        assert log.splitlines()[-1].startswith("vaeaug: interrupted")
        assert "Traceback" not in log
        # Going on is what the command below does, and --no-resume would not.
        assert log.splitlines()[-1].endswith(f"--out {out}")
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert contents(out) == contents(by_command)


def test_a_disk_that_is_full_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of a file stands for the disk: the system refuses the same write."""
    command = [
        "augment",
        "digits",
        *as_options(
            **{
                "data.class_counts": [12, 12] + [0] * 8,
                "plan.sampling_strategy": {0: 1012},
                "training.checkpoint_every": 1000,
                "model.style_dim": 0,  # no classifier, whose checkpoint would be the first to fail
                "screening.max_candidates_ratio": 1.5,
            }
        ),
        "--out",
        str(tmp_path),
    ]
    limited = subprocess.run(
        [sys.executable, "-m", "vaeaug", *command],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000)),
    )
    assert limited.returncode == 1, limited.stderr
    message = limited.stderr.splitlines()[-1]
    shard = tmp_path / "shards" / "shard-00000.h5"
    reason = re.escape(os.strerror(errno.EFBIG))
    assert re.fullmatch(
        rf"vaeaug: {shard}: cannot be written: {reason}\. It needs [\d,]+ bytes and [\d,]+ bytes "
        r"are free there; finished shards are kept \(0 of this class\)\.",
        message,
    )
    assert "Traceback" not in limited.stderr
    assert not list(tmp_path.rglob("*.tmp"))
    assert not (tmp_path / "manifest.json").exists()
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert verify(tmp_path).ok


def test_an_absurd_plan_is_refused_and_a_sensible_one_goes_on(
    data: LabelledImages, tmp_path: Path
) -> None:
    absurd = tiny_config(**{"plan.sampling_strategy": {0: 10**14}})
    with pytest.raises(RunError, match=r"no space: expected at least [\d,]+ MiB free .* got [\d,]"):
        augment(data, tmp_path, absurd)
    assert list(tmp_path.iterdir()) == []
    assert augment(data, tmp_path, tiny_config()).complete


# -- Fewer than planned ------------------------------------------------------------------------


def test_a_shortfall_is_stated_and_never_padded(data: LabelledImages, tmp_path: Path) -> None:
    config = tiny_config(
        **{
            "screening.near_copy_factor": 1,
            "screening.duplicate_factor": 1,
            "recipe.sampler": "interpolate",
        }
    )
    result = augment(data, tmp_path, config)
    short = [each for each in result.manifest.classes if each.accepted < each.n_synthetic]
    assert short, "the thresholds are meant to be tight"
    assert not result.complete
    assert not Manifest.load(tmp_path).complete
    for each, line in zip(short, result.shortfalls, strict=True):
        # The whole budget was spent, and every candidate is accounted for.
        assert each.candidates == 5 * each.n_synthetic
        assert each.accepted + sum(each.rejected.values()) == each.candidates
        assert line == (
            f"class {each.name!r}: {each.accepted} of {each.n_synthetic} made, after "
            f"{each.candidates} candidates"
        )
    made = np.bincount(ShardDataset(tmp_path).labels, minlength=4)
    assert made.tolist() == [each.accepted for each in result.manifest.classes]
    report = verify(tmp_path)
    assert report.ok, str(report)


def test_nothing_to_make(data: LabelledImages, tmp_path: Path) -> None:
    with pytest.raises(RunError) as error:
        augment(data, tmp_path / "out", tiny_config(**{"plan.min_class_count": 100}))
    assert str(error.value).startswith("nothing to make: class 'zero': too few real images (24 of")
    assert not (tmp_path / "out").exists()


def test_a_strategy_that_cannot_be_satisfied(data: LabelledImages, tmp_path: Path) -> None:
    with pytest.raises(
        PlanError, match="class 'zero' has 24 real images and a total of 3 is requested"
    ):
        augment(data, tmp_path / "out", tiny_config(**{"plan.sampling_strategy": {"zero": 3}}))
    assert not (tmp_path / "out").exists()


# -- Other ways in -----------------------------------------------------------------------------


def test_training_first_is_the_same_run(
    finished: AugmentResult, data: LabelledImages, tmp_path: Path
) -> None:
    assert train_only(data, tmp_path, tiny_config()) == tmp_path / "model"
    assert describe(tmp_path)["model"] == "CVAE"
    assert not (tmp_path / "shards").exists()
    augment(data, tmp_path, tiny_config())
    assert contents(tmp_path) == contents(finished.out_dir)


def test_generate_gives_the_samples_that_augment_gives(
    finished: AugmentResult, data: LabelledImages, tmp_path: Path
) -> None:
    result = generate(finished.out_dir, data, tmp_path / "out", tiny_config())
    assert [each.sha256 for each in result.manifest.shards] == [
        each.sha256 for each in finished.manifest.shards
    ]
    assert verify(tmp_path / "out").ok
    again = generate(finished.out_dir, data, tmp_path / "out", tiny_config())
    assert again.resumed


def test_generate_refuses_other_data(finished: AugmentResult, tmp_path: Path) -> None:
    other = digits((20, 16, 10, 5))
    with pytest.raises(RunError) as error:
        generate(finished.out_dir, other, tmp_path / "out", tiny_config())
    assert str(error.value) == (
        "generate: expected the images that the generator was trained on (fingerprint "
        f"{finished.manifest.data_fingerprint[:12]}), got 'four digits' of fingerprint "
        f"{other.fingerprint[:12]}"
    )
    assert not (tmp_path / "out").exists()


def test_generate_does_not_mix_generators(
    finished: AugmentResult, data: LabelledImages, tmp_path: Path
) -> None:
    other = fit(data, tiny_config(seed=1))
    with pytest.raises(KeyboardInterrupt):
        generate(
            other,
            data,
            tmp_path,
            tiny_config(),
            progress=stop_at("drawing one", 10, KeyboardInterrupt()),
        )
    with pytest.raises(ConfigError, match=r"changed: generator: [0-9a-f]{64} -> [0-9a-f]{64}\."):
        generate(finished.out_dir, data, tmp_path, tiny_config())


def test_generate_with_nothing_to_make(
    finished: AugmentResult, data: LabelledImages, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"^nothing to make: class 'zero'"):
        generate(
            finished.out_dir, data, tmp_path / "out", tiny_config(**{"plan.min_class_count": 99})
        )
    assert not (tmp_path / "out").exists()


def test_a_callable_strategy_is_written_as_totals(data: LabelledImages, tmp_path: Path) -> None:
    def ten_more(labels: np.ndarray) -> dict[int, int]:
        return {label: int((labels == label).sum()) + 10 for label in (1, 2)}

    config = tiny_config(**{"plan.sampling_strategy": ten_more})
    result = augment(data, tmp_path, config)
    assert [each.accepted for each in result.manifest.classes] == [0, 10, 10, 0]
    # A lambda of the same totals is the same run.
    same = tiny_config(**{"plan.sampling_strategy": lambda y: {1: 26, 2: 20}})
    assert augment(data, tmp_path, same).resumed


@pytest.mark.parametrize(
    ("keys", "how"),
    [
        ({}, {"dtype": "float32"}),
        ({}, {"channels": 3}),
        ({"shards.compress": "gzip"}, {}),
        ({"model.grouping": "separate"}, {}),
        (
            {
                "model.grouping": "shared",
                "model.latent_dim": 8,
                "model.class_embedding": 16,
                "training.steps": 400,
                "screening.classifier_steps": 60,
                "recipe.sampler": "transfer",
            },
            {},
        ),
        ({"shards.max_bytes": 2**16, "plan.sampling_strategy": {2: 800}}, {}),
    ],
    ids=["float32", "rgb", "gzip", "separate", "transfer", "many shards"],
)
def test_other_jobs_are_whole_too(
    keys: dict[str, Any], how: dict[str, Any], tmp_path: Path
) -> None:
    data = digits((12, 12, 10), **how)
    result = augment(data, tmp_path, tiny_config(**keys))
    assert result.complete, result.shortfalls
    report = verify(tmp_path)
    assert report.ok, str(report)
    dataset = ShardDataset(tmp_path)
    images = dataset.images_at(np.arange(len(dataset)))
    assert images.dtype == data.images.dtype
    assert images.shape[1:] == data.image_shape
    assert data.value_range[0] <= images.min() < images.max() <= data.value_range[1]
    made = [each.n_synthetic for each in plan_of(data, tiny_config(**keys))]
    assert np.bincount(dataset.labels, minlength=3).tolist() == made
    if "shards.max_bytes" in keys:
        assert len(result.manifest.shards) > 1
        assert all(each.bytes <= 2**16 for each in result.manifest.shards)


# -- Looking at it -----------------------------------------------------------------------------


def test_describe(finished: AugmentResult) -> None:
    run = describe(finished.out_dir)
    assert (run["n"], run["complete"]) == (30, True)
    assert run["classes"] == {"zero": 10, "one": 10, "two": 10, "three": 0}
    assert run["samplers"] == {
        "zero": "interpolate+residual",
        "one": "interpolate+residual",
        "two": "interpolate+residual",
        "three": "",
    }
    generator = describe(finished.out_dir / "model")
    assert (generator["model"], generator["latent_dim"]) == ("CVAE", 4)
    shard = describe(finished.out_dir / "shards" / "shard-00002.h5")
    assert (shard["n"], shard["label"], shard["sampler"]) == (10, 2, "interpolate+residual")


def test_an_unfinished_run_says_what_it_lacks_and_the_command_that_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "my out"
    keys = {"data.class_counts": [24, 16, 10] + [0] * 7, "plan.sampling_strategy": {"1": 30}}
    command = ["digits", *as_options(**keys), "--seed", "3", "--out", str(out)]
    assert CliRunner().invoke(main, ["train", *command]).exit_code == 0
    state = describe(out)
    assert state["state"] == "not finished"
    assert (state["stage"], state["step"]) == ("adapt", 6)
    assert state["done"] == ["training"]
    assert state["missing"][0] == "diagnostics"
    assert state["missing"][-1] == "report and manifest"
    assert state["threads"] == 1
    assert state["latent_dim"] == 4
    with Claim(out / ".lock"):
        assert describe(out)["state"] == "running"
    program, *arguments = shlex.split(state["next"])
    assert program == "vaeaug"
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "trunk" not in result.output
    assert describe(out)["state"] == "complete"
    assert describe(out)["classes"]["1"] == 14


def test_describe_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a run folder, a generator or a shard"):
        describe(tmp_path)


def test_screening_again_gives_the_same_verdicts_and_changes_nothing(
    finished: AugmentResult, data: LabelledImages
) -> None:
    before = contents(finished.out_dir)
    reports = rescreen(data, finished.out_dir, tiny_config())
    assert {name: each.accepted for name, each in reports.items()} == {
        "zero": 10,
        "one": 10,
        "two": 10,
    }
    strict = tiny_config(**{"screening.near_copy_factor": 1e6})
    reports = rescreen(data, finished.out_dir, strict)
    assert all(each.accepted == 0 for each in reports.values())
    assert reports["two"].rejected == {"near-copy": 10}
    assert contents(finished.out_dir) == before


def test_screening_again_refuses_other_data(finished: AugmentResult) -> None:
    with pytest.raises(RunError, match=r"^screen: expected the images that .* was made from"):
        rescreen(digits((20, 16, 10, 5)), finished.out_dir)


@pytest.fixture(autouse=True)
def terminate_as_before() -> Iterator[None]:
    """The command line sets a handler of SIGTERM; pytest's own comes back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_what_generate_gives_does_not_depend_on_calls_before_it(
    synthesizer: vaeaug.Synthesizer,
    digits: vaeaug.LabelledImages,
    small_config: vaeaug.AugmentConfig,
    tmp_path: Path,
) -> None:
    """The trial of samplers belongs to a run: another seed's must not stay in the generator."""
    before = dict(synthesizer.preferred)
    shards = {}
    for name, seed in (("first", 4), ("other", 3), ("again", 4)):
        config = small_config.changed(seed=seed, **{"plan.target_ratio": 0.7, "plan.share": 0})
        done = vaeaug.generate(synthesizer, digits, tmp_path / name, config, device="cpu")
        shards[name] = [(each.label, each.sha256) for each in done.manifest.shards]
    assert shards["first"] == shards["again"] != shards["other"]
    assert synthesizer.preferred == before
    assert synthesizer.data is None


def test_generate_that_was_stopped_goes_on_to_the_same_bytes(
    synthesizer: vaeaug.Synthesizer,
    digits: vaeaug.LabelledImages,
    small_config: vaeaug.AugmentConfig,
    tmp_path: Path,
) -> None:
    """The samplers that the diagnostics chose are those of the run, also when it goes on."""
    config = small_config.changed(**{"plan.target_ratio": 0.7, "plan.share": 0})
    whole = vaeaug.generate(synthesizer, digits, tmp_path / "whole", config, device="cpu")

    def stop(what: str, done: int, total: int, figures: dict[str, float]) -> None:
        if what == "drawing 7":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vaeaug.generate(
            synthesizer, digits, tmp_path / "stopped", config, device="cpu", progress=stop
        )
    assert (tmp_path / "stopped" / "diagnostics.json").exists()
    resumed = vaeaug.generate(synthesizer, digits, tmp_path / "stopped", config, device="cpu")
    assert [each.sha256 for each in resumed.manifest.shards] == [
        each.sha256 for each in whole.manifest.shards
    ]
