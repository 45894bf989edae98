"""Everything that differs from step to step goes through the tape, so a step can be replayed."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import vaeaug
from vaeaug.training import train, train_restorer
from vaeaug.training._loop import Loop
from vaeaug.training._tape import WARM_UP, Repeated, Tape

TINY = [
    "training.steps=10",
    "training.adapt_steps=8",
    "training.eval_every=5",
    "training.batch_size=12",
    "semi_supervised.classifier_steps=6",
    "restoration.steps=8",
    "model.width=8",
]
# Settings whose objectives ask the tape for something of their own.
JOBS = {
    "style and detail": [],
    "noise at the input, features matched": ["training.denoise=0.2", "training.feature_matching=1"],
    "capacity": ["model.capacity=9", "model.style_dim=0"],
    "cycles": ["training.kl_cycles=3", "training.kl_warmup=0.4"],
    "sigma fixed half-way": ["training.fixed_sigma_from=0.5"],
    "a model of each class": ["model.grouping=separate"],
    "a grid with a flow": ["model.latent=spatial", "density.kind=flow", "density.steps=7"],
    "a hierarchy": ["model.latent=hierarchical"],
    "codes": ["model.latent=discrete", "density.width=32", "density.steps=7"],
}
NEW_STATE = Loop._new_state


class Rerun:
    """Stands for a captured graph: the work is done again, with the step's number of the capture.

    Whatever does not go through the tape is then that of the captured step, as in a graph.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self.replay = work
        Rerun.made += 1

    made = 0


def with_steps(monkeypatch, stepper):
    """Train with another way of taking steps, with rates that are tensors as on a card."""

    def with_tensor_rate(self, *arguments):
        state = NEW_STATE(self, *arguments)
        for group in state.optimiser.param_groups:
            group["lr"] = torch.tensor(group["lr"])
        return state

    def _stepper(self, stage, state):
        def take(step, done):
            return self._take_step(stage, state, step, done)

        return stepper(self.batches.tape, take) if state.objective.is_repeatable else take

    monkeypatch.setattr(Loop, "_new_state", with_tensor_rate)
    monkeypatch.setattr(Loop, "_stepper", _stepper)


def recorded(tape: Tape, take):
    """Every step is made anew; numbers are tensors, as in a recording."""
    return lambda step, done: tape.record(lambda: take(step, done))


def replayed(tape: Tape, take):
    repeated = Repeated(tape, take, capture=Rerun)

    def step(number, done):
        # The steps of the warm-up too have numbers that are tensors.
        if repeated._taken < WARM_UP:
            return tape.record(lambda: repeated(number, done))
        return repeated(number, done)

    return step


def few_digits(digits):
    return digits.imbalanced([20, 9, 6, 5, 4, 3, 3, 2, 2, 1], seed=0)


@pytest.mark.parametrize("job", JOBS)
def test_a_replayed_step_is_the_step(job, digits, monkeypatch):
    data, config = few_digits(digits), vaeaug.load_config(None, [*TINY, *JOBS[job]])
    with_steps(monkeypatch, recorded)
    plain = train(data, config, device="cpu")
    Rerun.made = 0
    with_steps(monkeypatch, replayed)
    again = train(data, config, device="cpu")
    assert Rerun.made >= len(plain.stages)
    for name, record in plain.stages.items():
        assert record.history == again.stages[name].history
        assert record.skipped == again.stages[name].skipped == 0
    for ours, theirs in zip(plain.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_so_it_is_for_pools_of_unlabelled_images(digits, monkeypatch):
    pool = digits.images[::3]
    data = few_digits(digits).with_unlabelled(pool)
    config = vaeaug.load_config(None, [*TINY, "semi_supervised.mode=m2"])
    weights = []
    for stepper in (recorded, replayed):
        with_steps(monkeypatch, stepper)
        weights.append(list(train(data, config, device="cpu").model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.parametrize("side", [8, 40])  # the latter is cut in training
def test_so_it_is_for_the_restorer(side, monkeypatch):
    rng = np.random.default_rng(0)
    data = vaeaug.LabelledImages(
        images=rng.integers(0, 256, (20, side, side, 1), dtype=np.uint8),
        labels=np.arange(20) % 2,
        class_names=("a", "b"),
        value_range=(0.0, 255.0),
    )
    config, weights = vaeaug.load_config(None, [*TINY, "restoration.batch_size=4"]), []
    for stepper in (recorded, replayed):
        with_steps(monkeypatch, stepper)
        restorer, _ = train_restorer(data, config, device="cpu")
        weights.append(list(restorer.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_what_decides_what_a_step_does_ends_a_recording():
    tape, limit, log = Tape(torch.device("cpu")), [1.0], []

    def work(step, done):
        at_least = tape.constant(lambda *_: limit[0])
        draw = tape.tensor(lambda step, _: torch.tensor([float(step)]), step=step)
        share = tape.number(lambda _, done: done, done=done)
        log.append(float(draw.clamp(min=at_least) * share))
        return {}

    repeated = Repeated(tape, work, capture=Rerun)
    for step in range(12):
        if step == 8:
            limit[0] = 100.0
        repeated(step, step / 10)
    expected = [max(s, 1 if s < 8 else 100) * s / 10 for s in range(12)]
    np.testing.assert_allclose(log, expected, rtol=1e-6)


def test_steps_that_cannot_be_captured_are_taken_one_by_one(caplog):
    tape, taken = Tape(torch.device("cpu")), []

    def work(step, done):
        taken.append(float(tape.tensor(lambda step, _: torch.tensor([float(step)]), step=step)))
        return {}

    def fails(work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    repeated = Repeated(tape, work, capture=fails)
    with caplog.at_level("INFO", logger="vaeaug"):
        for step in range(8):
            repeated(step, 0.0)
    assert taken == list(range(8))
    (message,) = [record.message for record in caplog.records]
    assert "one by one" in message
    assert "operation not permitted" in message
