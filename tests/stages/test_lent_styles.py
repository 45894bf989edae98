"""The rule by which all classes are drawn in the styles of the frequent ones."""

from dataclasses import replace

import pytest

import vaeaug
from tests.small_job import tiny_config
from vaeaug.stages import new_screener
from vaeaug.stages.choices import LENT, RARE, choices_of, lent_styles, trials_of
from vaeaug.stages.drawing import _samplers
from vaeaug.stages.label_control import LabelControl

GOOD = LabelControl(control=0.9, prior=0.9, real=0.92, source=0.0, probe=0.5, probe_chance=0.1)


@pytest.fixture(scope="module")
def data():
    return vaeaug.read("digits").imbalanced([120] * 7 + [RARE - 20] * 3, seed=0)


@pytest.fixture(scope="module")
def generator(data):
    return vaeaug.fit(data, tiny_config(), device="cpu")


def test_every_class_takes_the_styles_of_the_frequent_ones(data, generator):
    trials = list(trials_of(generator.with_choices().attach(data), data, tiny_config(), None, GOOD))
    choices = choices_of(trials)
    assert choices.preferred.keys() == set(range(10))
    assert {sampler for sampler, _ in choices.preferred.values()} == {"transfer"}
    reason = choices.preferred[9][1]
    assert reason.startswith("3 of 10 classes have fewer than 50 images, and label control is 90%")
    assert all("styles" in trial.metrics["why"] for trial in trials)
    chosen = choices.apply(generator)
    # Where styles run out, no class gets another look.
    assert _samplers(chosen, 9, tiny_config()) == ["transfer", "prior"]


def test_a_sampler_that_the_job_names_is_kept(data, generator):
    config = tiny_config(**{"recipe.sampler": "gmm"})
    trials = list(trials_of(generator.with_choices().attach(data), data, config, None, GOOD))
    assert choices_of(trials).preferred == {}


@pytest.mark.parametrize(
    ("control", "counts"),
    [
        (replace(GOOD, control=0.5), [120] * 7 + [RARE - 20] * 3),
        (None, [120] * 7 + [RARE - 20] * 3),
        (GOOD, [120] * 7 + [RARE] * 3),
        (GOOD, [120] * 8 + [RARE - 20] * 2),
        (GOOD, [LENT // 12] * 7 + [10] * 3),
    ],
    ids=[
        "the label does not decide",
        "not measured",
        "no rare class",
        "few rare ones",
        "few to learn from",
    ],
)
def test_else_each_class_has_its_own_default(control, counts):
    data = vaeaug.read("digits").imbalanced(counts, seed=0)
    generator = vaeaug.fit(data, tiny_config(), device="cpu")
    assert lent_styles(generator, data, control) is None


def test_a_generator_without_a_style_lends_none(data):
    plain = vaeaug.fit(data, tiny_config(**{"model.style_dim": 0}), device="cpu")
    assert lent_styles(plain, data, GOOD) is None


@pytest.fixture(scope="module")
def screener(data):
    return new_screener(data, tiny_config(**{"screening.classifier_steps": 150}), device="cpu")


@pytest.mark.parametrize("control", [0.9, 0.4], ids=["styles", "no styles"])
def test_a_rare_class_whose_styled_samples_are_not_recognised_is_drawn_by_differences(
    data, generator, screener, control
):
    # A generator of a few steps: hardly any of its decodes shows a label, but real images that are
    # moved by a small difference do.
    control = replace(GOOD, control=control)
    attached = generator.with_choices().attach(data)
    trials = list(trials_of(attached, data, tiny_config(), screener, control))
    borrowing = [trial for trial in trials if trial.metrics["sampler"] == "delta"]
    assert borrowing
    for trial in borrowing:
        assert data.counts[trial.label] < RARE
        assert trial.metrics["agreement"] >= 0.5 * control.real
        assert trial.preferred is not None
        assert "show the label" in trial.preferred[1]


def test_differences_that_are_not_recognised_are_not_borrowed(data, generator, screener):
    unreachable = replace(GOOD, control=2.5, real=2.5)
    attached = generator.with_choices().attach(data)
    trials = trials_of(attached, data, tiny_config(), screener, unreachable)
    assert all(trial.metrics["sampler"] != "delta" for trial in trials)
