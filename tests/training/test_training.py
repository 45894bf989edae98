"""The loop: resuming, early stopping, bad steps, what each grouping may change."""

import contextlib
import copy
import io
import itertools
import json
import math
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import vaeaug
from vaeaug.models import CVAE, LatentFlow, is_faster_in_bfloat16
from vaeaug.training import TrainingError, _state, _train, default_steps, resolve_device, train
from vaeaug.training._batches import Batches, mix
from vaeaug.training._elbo import ElboObjective, calibrate_sigma, held_out_terms
from vaeaug.training._flow import FlowObjective
from vaeaug.training._loop import Loop
from vaeaug.training._loss_scale import LossScale
from vaeaug.training._restoration import restoration_steps
from vaeaug.training._scores import still_rising
from vaeaug.training._state import Stage, StageRecord, TrainState
from vaeaug.training._train import training_steps

TINY = [
    "model.width=8",
    "training.steps=24",
    "training.adapt_steps=12",
    "training.eval_every=6",
    "training.checkpoint_every=5",
    "training.batch_size=16",
]


def run(loop: Loop, stage: Stage, model: CVAE) -> StageRecord:
    """The ELBO's stage."""
    return loop.run(stage, model, ElboObjective(loop.batches, loop.config, stage))


class Killed(Exception):  # noqa: N818 - an event, not a fault
    """Stands for a process that ends."""


def tiny(*overrides: str) -> vaeaug.AugmentConfig:
    return vaeaug.load_config(None, [*TINY, *overrides])


@pytest.fixture(scope="module")
def few(digits):
    return digits.imbalanced([20, 15, 12, 10, 8, 8, 6, 6, 5, 4], seed=1)


# Every kind of stage there is: trunk, adapt, class-###, classifier, sharpen, flow, prior, and m2's
# trunk.
KINDS = {
    "adapted": ["model.grouping=adapted"],
    # Separate models take at least as many steps each: fewer of them will do.
    "separate": ["model.grouping=separate", "training.steps=8"],
    "flow": ["model.latent=spatial", "density.kind=flow", "density.width=8", "training.steps=12"],
    "sharpen": ["model.grouping=shared", "adversarial.steps=20"],
    "separate sharpen": ["model.grouping=separate", "training.steps=4", "adversarial.steps=4"],
    "codes": ["model.latent=discrete", "model.codes=16", "density.width=32", "density.steps=12"],
    "feature matching": [
        "model.grouping=shared",
        "training.feature_matching=1.0",
        "semi_supervised.classifier_steps=12",
    ],
    "float16": [
        "model.grouping=shared",
        "training.precision=float16",
        "training.steps=24",
        "adversarial.steps=6",
    ],
    "pseudo_label": [
        "model.grouping=shared",
        "semi_supervised.classifier_steps=12",
        "semi_supervised.threshold=0.15",
    ],
    "m2": ["semi_supervised.mode=m2", "semi_supervised.classifier_steps=12"],
    "m2 with feature matching": [
        "semi_supervised.mode=m2",
        "semi_supervised.classifier_steps=12",
        "training.feature_matching=1.0",
    ],
    "everything": [
        "model.latent=hierarchical",
        "model.likelihood=logistic_mixture",
        "training.denoise=0.1",
        "training.steps=12",
        "adversarial.steps=12",
        "density.kind=flow",
        "density.width=8",
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_killed_anywhere_and_started_again_ends_with_the_same_weights(
    kind, few, digits, tmp_path, monkeypatch
):
    monkeypatch.setattr("vaeaug.training._loss_scale.START", 2.0**20)
    monkeypatch.setattr("vaeaug.training._loss_scale.GROWTH", 4)  # so that it changes
    if kind.startswith(("pseudo", "m2")):
        few = few.with_unlabelled(digits.images[:50])
    if kind.startswith("separate"):
        few = few.subset(np.flatnonzero(few.labels < 4))
    config = tiny(*KINDS[kind])
    whole = train(few, config, device="cpu")
    calls, deaths = 0, set()

    def die_now_and_then(stage: str, *_: object) -> None:
        nonlocal calls
        calls += 1
        if calls % 11 == 0:
            deaths.add(stage)
            raise Killed

    starts = 0
    while True:
        starts += 1
        try:
            again = train(few, config, device="cpu", folder=tmp_path, progress=die_now_and_then)
            break
        except Killed:
            continue
    assert starts >= 3
    assert kind.startswith("separate") or deaths == set(whole.stages)
    first, second = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    if whole.flow is not None:
        assert same_weights(whole.flow, again.flow)
    np.testing.assert_array_equal(whole.pool_labels, again.pool_labels)
    assert whole.summary() == again.summary()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    places = [(line["stage"], line["step"]) for line in lines]
    assert len(places) == len(set(places))


def test_training_raises_the_held_out_elbo(synthesizer, digits, small_config):
    trained = train(digits, small_config, device="cpu")
    trunk = trained.stages["trunk"]
    assert trunk.best[0] > trunk.first[0] + 20


def test_a_stage_is_scored_before_its_first_step(few):
    """What the summary calls the start is the start, not the first evaluation after it."""
    config = tiny(
        "model.latent=spatial", "model.class_embedding=32", "density.kind=flow", "density.width=8"
    )
    batches = Batches(few, config, CPU)
    trained = train(few, config, device="cpu")
    torch.manual_seed(mix(config.seed, "weights", 0))
    model = CVAE(few.image_shape, 10, latent="spatial", width=8, class_embedding=32).eval()
    stage = Stage("trunk", 24, tuple(range(10)))
    calibrate_sigma(batches, stage, model)
    with torch.no_grad():
        elbo, _ = held_out_terms(batches, model, *batches.held_out(stage))
    assert trained.stages["trunk"].first == [pytest.approx(float(elbo.mean()), rel=1e-5)]
    torch.manual_seed(mix(config.seed, "weights/flow", 0))
    flow = LatentFlow(model.groups[0].shape, 10, width=8, depth=4)
    objective = FlowObjective(batches, config, Stage("flow", 24, tuple(range(10))), trained.model)
    optimiser = torch.optim.SGD(flow.parameters())
    train_state = TrainState(flow, copy.deepcopy(flow), {}, optimiser, StageRecord(), objective)
    objective.start(train_state)
    assert trained.stages["flow"].first == train_state.record.first
    assert train_state.record.best == train_state.record.first
    # It starts from standardised latents, which is kept even if nothing better comes.
    fit = objective.mean[batches.all_rows]
    assert torch.equal(train_state.best["mean"], fit.mean(dim=0))


def test_adapting_leaves_the_trunk_and_no_class_worse(few, tmp_path):
    config = tiny()
    adapted = train(few, config, device="cpu", folder=tmp_path)
    shared = train(few, tiny("model.grouping=shared"), device="cpu")
    before = shared.model.trunk_parameters()
    after = adapted.model.trunk_parameters()
    assert all(torch.equal(before[name], after[name]) for name in before)
    state = adapted.stages["adapt"]
    assert all(best >= first for best, first in zip(state.best, state.first, strict=True))
    rows = adapted.model.class_parameters()
    assert any(
        not torch.equal(each, shared.model.class_parameters()[name]) for name, each in rows.items()
    )


def test_many_classes_adapt_in_blocks_and_each_alone(few, tmp_path, monkeypatch):
    """What a class learns is of its own images, so that a block is what it would be alone."""
    monkeypatch.setattr(_train, "ADAPTED_TOGETHER", 4)
    blocks = train(few, tiny("model.grouping=adapted"), device="cpu", folder=tmp_path)
    names = [name for name in blocks.stages if name.startswith("adapt")]
    batches = Batches(few, tiny(), CPU)
    scored = sorted(set(batches.held_labels.tolist()))
    assert 4 < len(scored) < few.n_classes  # a class that is not scored keeps what it has
    assert names == [f"adapt-{number:03d}" for number in range(math.ceil(len(scored) / 4))]
    gained = []
    for name in names:
        record = blocks.stages[name]
        gained += [now > first for first, now in zip(record.first, record.best, strict=True)]
    assert any(gained)
    trunk = train(few, tiny("model.grouping=shared"), device="cpu").model.class_parameters()
    for name, rows in blocks.model.class_parameters().items():
        if ".rows." in name:  # priors are matched to the posteriors of every class
            same = [torch.equal(rows[k], trunk[name][k]) for k in range(few.n_classes)]
            assert all(same[k] for k in range(few.n_classes) if k not in scored)
            assert not all(same)


def test_no_held_out_image_is_trained_on(few):
    config = tiny("training.held_out=0.2")
    batches = Batches(few, config, torch.device("cpu"))
    fit, held_out = few.split_off(0.2, seed=config.seed)
    assert sum(map(len, batches.rows)) == len(fit)
    assert len(batches.held_images) == len(held_out) > 0
    assert np.array_equal(few.images[batches.all_rows], fit.images)
    stage = Stage("trunk", 24, tuple(range(10)))
    seen = {
        image.tobytes() for step in range(24) for image in few.images[batches.rows_of(stage, step)]
    }
    assert not seen & {image.tobytes() for image in held_out.images}


def test_classes_are_drawn_by_the_root_of_their_count(few):
    config = tiny("training.batch_size=1000")
    batches = Batches(few, config, torch.device("cpu"))
    stage = Stage("trunk", 10, tuple(range(10)))
    drawn = np.concatenate([batches.rows_of(stage, step) for step in range(10)])
    counts = np.bincount(batches.labels.numpy()[drawn], minlength=10)
    roots = np.sqrt([len(rows) for rows in batches.rows])
    expected = roots / roots.sum()
    # Five standard deviations of a binomial: one in a million for each class.
    bound = 5 * np.sqrt(expected * (1 - expected) * len(drawn))
    assert np.all(np.abs(counts - expected * len(drawn)) < bound)


def test_bad_steps_are_skipped_and_counted_and_training_goes_on(few, tmp_path):
    config = tiny("model.grouping=shared", "training.max_bad_steps=5")
    data = vaeaug.LabelledImages(
        few.images.astype(np.float32) / 255, few.labels, few.class_names, (0.0, 1.0)
    )
    batches_hit = []

    original = Batches.draw

    class Poisoned(Batches):
        def draw(self, stage, step, size=None):
            x, y = original(self, stage, step, size)
            if step in (3, 4, 9):
                batches_hit.append(step)
                x = x * math.nan
            return x, y

    loop = Loop(Poisoned(data, config, torch.device("cpu")), config, tmp_path, None)
    torch.manual_seed(0)
    model = CVAE((8, 8, 1), 10, width=8)
    state = run(loop, Stage("trunk", 24, tuple(range(10))), model)
    assert batches_hit == [3, 4, 9]
    assert state.skipped == 3
    assert state.step == 24
    assert all(torch.isfinite(each).all() for each in model.state_dict().values())


def test_a_loss_that_stays_broken_is_a_clear_failure(few):
    with pytest.raises(
        TrainingError,
        match=r"stage 'classifier', step \d+: the loss was not finite or exploding for 4 steps in "
        r"a row.*lower training.learning_rate \(now 1e\+15\)",
    ):
        train(
            few,
            tiny(
                "training.learning_rate=1.0e+15",
                "training.max_bad_steps=4",
                "training.lr_warmup=0",
                "training.steps=60",
            ),
            device="cpu",
        )


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", pickle.dumps({"state": print})])
def test_a_damaged_or_pickled_checkpoint_is_refused_by_name(content, few, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "trunk.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"trunk\.pt: expected a checkpoint of stage 'trunk'"):
        train(few, tiny(), device="cpu", folder=tmp_path)


def test_early_stop_keeps_the_best(few):
    trained = train(
        few,
        tiny(
            "training.steps=400",
            "training.eval_every=2",
            "training.patience=3",
            "training.learning_rate=0.05",
            "model.grouping=shared",
        ),
        device="cpu",
    )
    assert trained.stages["trunk"].step < 400
    assert trained.stages["trunk"].evaluations_without_gain == 3


def test_devices():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda")
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match="--device cuda: torch finds no CUDA device"):
            resolve_device("cuda")
    else:
        with pytest.raises(TrainingError, match="--device cuda:99: expected one of"):
            resolve_device("cuda:99")
    with pytest.raises(TrainingError, match="expected auto, cpu, cuda or cuda:N, got 'tpu-like'"):
        resolve_device("tpu-like")


def test_default_steps_grow_with_the_root_of_the_images_within_bounds():
    assert default_steps(100, 64) == 500
    assert default_steps(40_000, 64) == 5_625
    assert default_steps(10_000, 64) == pytest.approx(5_625 / 2, abs=1)
    assert default_steps(10_000, 128) == pytest.approx(default_steps(10_000, 64) / 2, abs=1)
    assert default_steps(10**7, 64) == 20_000


CPU = torch.device("cpu")


def same_weights(model, other) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture(scope="module")
def whole(few, tmp_path_factory):
    """The folder of a run that nothing interrupted, and what it trained."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(few, tiny(), device="cpu", folder=folder)


def stop_at(stage: str, step: int):
    """A progress callback that ends training there."""

    def progress(at: str, now: int, *_: object) -> None:
        if (at, now) == (stage, step):
            raise Killed

    return progress


def test_ctrl_c_in_the_middle_of_a_step_leaves_no_half_step(few, whole, tmp_path):
    steps = itertools.count(1)

    def interrupt(*_: object) -> None:
        if next(steps) == 12:
            raise KeyboardInterrupt

    # After the weights have moved, before their average has.
    hook = register_optimizer_step_post_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(few, tiny(), device="cpu", folder=tmp_path)
    finally:
        hook.remove()
    again = train(few, tiny(), device="cpu", folder=tmp_path)
    assert same_weights(again.model, whole[1].model)


def test_a_process_that_is_killed_goes_on_from_its_checkpoint(few, whole, tmp_path):
    np.savez(tmp_path / "few.npz", images=few.images, labels=few.labels)
    code = """
import os, pathlib, signal, sys
import torch
import vaeaug
from vaeaug.training import train

torch.set_num_threads(1)
folder, *overrides = sys.argv[1:]

def kill(stage, step, *_):
    if stage == "trunk" and step == 8:
        os.kill(os.getpid(), signal.SIGKILL)

few = vaeaug.read(folder + "/few.npz")
config = vaeaug.load_config(None, overrides)
train(few, config, device="cpu", folder=pathlib.Path(folder), progress=kill)
"""
    command = [sys.executable, "-c", code, str(tmp_path), *TINY]
    assert subprocess.run(command, timeout=300, check=False).returncode == -signal.SIGKILL
    steps = []
    again = train(
        few,
        tiny(),
        device="cpu",
        folder=tmp_path,
        progress=lambda stage, step, *_: steps.append((stage, step)),
    )
    assert steps[0] == ("trunk", 6)
    assert same_weights(again.model, whole[1].model)
    assert (tmp_path / "metrics.jsonl").read_text() == (whole[0] / "metrics.jsonl").read_text()


def test_the_log_is_that_of_an_uninterrupted_run_even_after_a_torn_line(few, whole, tmp_path):
    with pytest.raises(Killed):
        train(few, tiny(), device="cpu", folder=tmp_path, progress=stop_at("adapt", 8))
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"stage": "adapt", "st')
    train(few, tiny(), device="cpu", folder=tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == (whole[0] / "metrics.jsonl").read_text()


def test_what_is_done_is_loaded_and_not_trained_again(few, whole):
    steps = []
    again = train(few, tiny(), device="cpu", folder=whole[0], progress=lambda *at: steps.append(at))
    assert not steps
    assert same_weights(again.model, whole[1].model)
    assert again.summary() == whole[1].summary()


def test_training_leaves_the_global_generator_alone(few):
    before = torch.random.get_rng_state()
    train(few, tiny("training.steps=2", "model.grouping=shared"), device="cpu")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.fixture
def stopped(few, tmp_path) -> Path:
    """The checkpoint of a trunk that was stopped on its way."""
    with pytest.raises(Killed):
        train(few, tiny(), device="cpu", folder=tmp_path, progress=stop_at("trunk", 6))
    return tmp_path / "checkpoints" / "trunk.pt"


class Evil:
    """A pickle that runs code of its own when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(stopped, few, tmp_path):
    content = torch.load(stopped, weights_only=True)
    torch.save(content | {"evil": Evil(tmp_path / "ran")}, stopped)
    with pytest.raises(TrainingError, match=r"trunk\.pt: expected a checkpoint .*UnpicklingError"):
        train(few, tiny(), device="cpu", folder=tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("done", [False, True])
def test_a_checkpoint_of_another_model_is_refused(done, stopped, few, tmp_path):
    if done:
        train(few, tiny(), device="cpu", folder=tmp_path)
    with pytest.raises(TrainingError, match=r"trunk\.pt: expected a checkpoint of stage 'trunk'"):
        train(few, tiny("model.width=16"), device="cpu", folder=tmp_path)


def test_no_space_for_a_checkpoint_keeps_the_one_before(stopped, few, tmp_path):
    before = stopped.read_bytes()
    # A limit on the size of files is an error of the system as a full disk is.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(
            TrainingError, match=r"trunk\.pt: the checkpoint cannot be written .*kept"
        ):
            train(few, tiny(), device="cpu", folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert set(stopped.parent.iterdir()) == {stopped, stopped.with_name("classifier.pt")}
    assert stopped.read_bytes() == before


def test_ctrl_c_while_a_checkpoint_is_written_is_no_failure(stopped, few, tmp_path, monkeypatch):
    before = stopped.read_bytes()

    class Interrupted(io.BytesIO):
        def write(self, data):
            if self.tell():
                raise KeyboardInterrupt
            return super().write(bytes(data)[:10])

    monkeypatch.setattr(_state, "new_file", lambda path: contextlib.nullcontext(Interrupted()))
    with pytest.raises(KeyboardInterrupt):
        train(few, tiny(), device="cpu", folder=tmp_path)
    assert stopped.read_bytes() == before


def test_a_log_that_cannot_be_written_is_named(few, tmp_path):
    (tmp_path / "elsewhere").touch()
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: the log cannot be written: "):
        train(few, tiny(), device="cpu", folder=tmp_path)
    assert (tmp_path / "elsewhere").read_text() == ""


def test_a_bad_step_that_is_also_evaluated_is_one_line(few, tmp_path):
    floats = vaeaug.LabelledImages(
        few.images.astype(np.float32) / 255, few.labels, few.class_names, (0.0, 1.0)
    )
    batches = Batches(floats, tiny("training.max_bad_steps=5"), CPU)
    images = batches.images.clone()

    def progress(_: str, step: int, *__: object) -> None:
        if step == 4:
            batches.images.fill_(math.nan)
        if step == 8:
            batches.images.copy_(images)

    model = CVAE((8, 8, 1), 10, width=8)
    loop = Loop(batches, batches.config, tmp_path, progress)
    state = run(loop, Stage("trunk", 24, tuple(range(10))), model)
    assert (state.skipped, state.bad_in_a_row) == (4, 0)
    assert math.isfinite(state.best[0])
    assert all(each.isfinite().all() for each in model.state_dict().values())
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    # Steps 5 to 8 are bad, and every sixth is evaluated.
    assert [entry["step"] for entry in log] == list(range(1, 25))
    assert [entry["step"] for entry in log if entry["loss"] == "nan"] == [5, 6, 7, 8]
    assert [entry["step"] for entry in log if "held_out_elbo" in entry] == [6, 12, 18, 24]
    assert [entry["skipped"] for entry in log] == [0, 0, 0, 0, 1, 2, 3] + [4] * 17


@pytest.mark.parametrize(
    ("scores", "rise"),
    [
        ([10, 60, 80, 100], 0.2),  # of 200 from -100, 40 after step 2 of 4
        ([50, 99, 100, 100], 0.0),
        ([50, 100, 90, 80], 0.0),
        ([50, 100], 0.0),
    ],
)
def test_a_stage_stopped_on_a_slope_is_told(scores, rise):
    history = [[float(step), float(score)] for step, score in enumerate(scores, start=1)]
    assert still_rising(-100.0, history) == pytest.approx(rise)


def test_a_score_that_is_not_a_number_is_never_the_best(few):
    stage = Stage("trunk", 10, tuple(range(10)))
    model = CVAE(few.image_shape, 10, width=8)
    before = model.decoder.out.bias.detach().clone()
    objective = ElboObjective(Batches(few, tiny(), CPU), tiny(), stage)
    optimiser = torch.optim.SGD(model.parameters())
    train_state = TrainState(model, model, {}, optimiser, StageRecord(), objective)
    objective.evaluate(train_state, 0.1)
    [first] = train_state.record.best
    with torch.no_grad():
        model.decoder.out.bias.fill_(math.nan)
    objective.evaluate(train_state, 0.1)
    assert train_state.record.best == [first]
    assert train_state.record.evaluations_without_gain == 1
    assert torch.equal(train_state.best["decoder.out.bias"], before)


@pytest.mark.parametrize("rate", [2e-3, 3.0])
def test_no_class_is_worse_for_adapting_when_scored_again(rate, few):
    """Whatever the learning rate: a class that only gets worse keeps what it started with."""
    config = tiny(f"training.learning_rate={rate}", "training.max_bad_steps=99")
    batches = Batches(few, config, CPU)
    torch.manual_seed(0)
    model = CVAE(few.image_shape, 10, latent_dim=6, width=8)
    stage = Stage("adapt", 12, tuple(range(10)), adapt=True, learning_rate=rate)
    state = run(Loop(batches, config, None, None), stage, model)
    # From the weights that were kept, not from what the loop has noted.
    optimiser = torch.optim.SGD(model.parameters())
    objective = ElboObjective(batches, config, stage)
    again = TrainState(model, model, dict(model.state_dict()), optimiser, StageRecord(), objective)
    objective.evaluate(again, 1.0)
    held = sorted(set(batches.held_labels.tolist()))
    assert len(held) > 3
    for label in held:
        assert again.record.best[label] == pytest.approx(state.best[label], abs=1e-3)
        assert state.best[label] >= state.first[label]


def test_separate_trains_only_classes_that_have_images(few):
    some = few.subset(np.flatnonzero(few.labels != 1))
    config = tiny("model.grouping=separate", "training.steps=2", "training.checkpoint_every=99")
    stages = train(some, config, device="cpu").stages
    assert list(stages) == [f"class-{label:03d}" for label in range(10) if label != 1]


def test_adapting_draws_all_classes_alike(few):
    batches = Batches(few, tiny(), CPU)
    _, labels = batches.draw(Stage("adapt", 10, tuple(range(10)), adapt=True), 3)
    assert np.bincount(labels.numpy(), minlength=10).tolist() == [4] * 10


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 65535)])
def test_images_are_scaled_to_the_unit_interval(low, high, few):
    images = (low + (high - low) * (few.images / 255)).astype(np.float32).clip(low, high)
    floats = vaeaug.LabelledImages(images, few.labels, few.class_names, (low, high))
    stage = Stage("trunk", 10, tuple(range(10)))
    got, expected = (Batches(each, tiny(), CPU).draw(stage, 0)[0] for each in (floats, few))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
        ("auto", torch.float32),
    ],
)
def test_steps_are_in_the_precision_asked_for(few, precision, expected):
    """By default digits are in float32, whatever the processor: they are too small to gain."""
    batches = Batches(few, tiny(f"training.precision={precision}"), torch.device("cpu"))
    with batches.precision():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_large_samples_are_in_bfloat16_where_the_processor_computes_in_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert is_faster_in_bfloat16(torch.device("cpu"), 28 * 28)
    assert not is_faster_in_bfloat16(torch.device("cpu"), 8 * 8)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert not is_faster_in_bfloat16(torch.device("cpu"), 28 * 28)


def test_float16_is_as_good_as_float32_and_scales_the_loss(few, monkeypatch):
    def score(precision):
        config = tiny("training.steps=60", f"training.precision={precision}")
        record = train(few, config, device="cpu").stages["trunk"]
        assert not record.skipped
        return record.best[0] - record.first[0]

    exact = score("float32")
    # A factor that is far too large is halved until gradients fit; those steps are not bad ones.
    monkeypatch.setattr("vaeaug.training._loss_scale.START", 2.0**24)
    assert exact > 10
    assert score("float16") == pytest.approx(exact, rel=0.1)


def test_the_factor_of_the_loss_follows_what_overflows(monkeypatch):
    monkeypatch.setattr("vaeaug.training._loss_scale.GROWTH", 3)
    scale = LossScale(CPU)
    loss, finite, infinite = (torch.tensor(value) for value in (2.0, 3.0, math.inf))
    gradient = torch.full((2,), 2.0) * scale.factor
    scale.unscale([gradient])
    assert gradient.tolist() == [2.0, 2.0]
    assert scale.overflows(loss, infinite)
    assert scale.factor == 2.0**11
    assert not any(scale.overflows(loss, finite) for _ in range(3))
    assert scale.factor == 2.0**12
    # The loss itself is not finite: no factor helps, and it is left as it is.
    assert not scale.overflows(infinite, infinite)
    other = LossScale(CPU)
    other.load_state_dict(scale.state_dict())
    assert (other.factor, other.good_steps) == (scale.factor, scale.good_steps)
    scale.factor.fill_(1.0)
    assert not scale.overflows(loss, infinite)


def test_small_samples_with_a_style_take_three_quarters_of_the_steps(digits):
    config = vaeaug.load_config(None, [])
    usual = default_steps(len(digits), config.training.batch_size)
    assert training_steps(digits, config) == round(0.75 * usual)
    assert training_steps(digits, config.changed(**{"model.style_dim": 0})) == usual
    assert restoration_steps(digits, config) == math.ceil(usual / 2)
    large = vaeaug.LabelledImages(
        np.zeros((len(digits), 28, 28, 1), np.uint8), digits.labels, digits.class_names, (0, 255)
    )
    assert training_steps(large, config) == usual
