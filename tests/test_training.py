"""The loop: resuming, early stopping, bad steps, what each grouping may change."""

import json
import math
import pickle

import numpy as np
import pytest
import torch

import vaeaug
from vaeaug.training import TrainingError, default_steps, resolve_device, train
from vaeaug.training._batches import Batches
from vaeaug.training._state import Stage

TINY = [
    "model.width=8",
    "training.steps=24",
    "training.adapt_steps=12",
    "training.eval_every=6",
    "training.checkpoint_every=5",
    "training.batch_size=16",
]


class Killed(Exception):  # noqa: N818 - an event, not a fault
    """Stands for a process that ends."""


def tiny(*overrides: str) -> vaeaug.AugmentConfig:
    return vaeaug.load_config(None, [*TINY, *overrides])


@pytest.fixture(scope="module")
def few(digits):
    return digits.imbalanced([20, 15, 12, 10, 8, 8, 6, 6, 5, 4], seed=1)


@pytest.mark.parametrize("grouping", ["adapted", "shared", "separate"])
def test_killed_anywhere_and_started_again_ends_with_the_same_weights(grouping, few, tmp_path):
    # Separate models take at least as many steps each: fewer of them will do.
    steps = 8 if grouping == "separate" else 24
    config = tiny(f"model.grouping={grouping}", f"training.steps={steps}")
    whole = train(few, config, device="cpu")
    calls = 0

    def die_now_and_then(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls % 11 == 0:
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
    first, second = whole.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole.summary() == again.summary()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    places = [(line["stage"], line["step"]) for line in lines]
    assert len(places) == len(set(places))


def test_training_raises_the_held_out_elbo(synthesizer, digits, small_config):
    trained = train(digits, small_config, device="cpu")
    trunk = trained.stages["trunk"]
    assert trunk.best[0] > trunk.first[0] + 20


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


def test_no_held_out_image_is_trained_on(few):
    config = tiny("training.held_out=0.2")
    batches = Batches(few, config, torch.device("cpu"))
    fit, held_out = few.split_off(0.2, seed=config.seed)
    assert len(batches.images) == len(fit)
    assert len(batches.held_images) == len(held_out) > 0
    stage = Stage("trunk", 24, tuple(range(10)))
    seen = {
        image.tobytes() for step in range(24) for image in fit.images[batches.rows_of(stage, step)]
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
        def draw(self, stage, step):
            x, y = original(self, stage, step)
            if step in (3, 4, 9):
                batches_hit.append(step)
                x = x * math.nan
            return x, y

    from vaeaug.models import CVAE
    from vaeaug.training._loop import Loop

    loop = Loop(Poisoned(data, config, torch.device("cpu")), config, tmp_path, None)
    torch.manual_seed(0)
    model = CVAE((8, 8, 1), 10, width=8)
    state = loop.run(Stage("trunk", 24, tuple(range(10))), model)
    assert batches_hit == [3, 4, 9]
    assert state.skipped == 3
    assert state.step == 24
    assert all(torch.isfinite(each).all() for each in model.state_dict().values())


def test_a_loss_that_stays_broken_is_a_clear_failure(few):
    with pytest.raises(
        TrainingError,
        match=r"stage 'trunk', step \d+: the loss was not finite or exploding for 4 steps in a row"
        r".*lower training.learning_rate \(now 1e\+15\)",
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


def test_default_steps_are_about_20_passes_within_bounds():
    assert default_steps(100, 64) == 2_000
    assert default_steps(32_000, 64) == 10_000
    assert default_steps(10**7, 64) == 20_000
