"""Displays keep what they show, and draw it into axes that are theirs or the caller's."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from small_job import digits as small_digits
from small_job import tiny_config

import vaeaug
from vaeaug.config import Recipe
from vaeaug.evaluation import EvaluationError, GateResult
from vaeaug.evaluation.gate.result import ArmResult, Comparison
from vaeaug.evaluation.statistics import Interval
from vaeaug.plot import (
    BeforeAfterDisplay,
    LatentMapDisplay,
    RecallDisplay,
    SamplesDisplay,
    TrainingCurvesDisplay,
    TraversalDisplay,
)
from vaeaug.tiles import draw_tile


@pytest.fixture(scope="module")
def data() -> vaeaug.LabelledImages:
    return small_digits()


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> vaeaug.AugmentResult:
    out = tmp_path_factory.mktemp("plotted") / "run"
    return vaeaug.augment(data, out, tiny_config(), device="cpu")


@pytest.fixture(scope="module")
def generator(run) -> vaeaug.Synthesizer:
    return vaeaug.load(run.out_dir)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def gate() -> GateResult:
    arms = tuple(
        ArmResult(name, kind, {}, (Interval(recall, recall - 0.2, recall + 0.1), None), (9, 0), ())
        for name, kind, recall in (
            ("plain", "baseline", 0.5),
            ("mixup", "baseline", 0.6),
            ("merged", "merged", 0.8),
        )
    )
    compared = Comparison("equal steps", "merged", "mixup", Interval(0.2, 0.1, 0.3), "helps")
    names = ("cat$^2$", "dog")
    return GateResult("helps", "It helps.", (compared,), arms, Recipe(), {}, class_names=names)


def test_recalls_of_the_trainings_that_are_compared():
    display = RecallDisplay.from_result(gate())
    assert list(display.recall) == ["mixup", "merged"]
    np.testing.assert_allclose(display.recall["merged"][0], [0.8, 0.6, 0.9])
    assert np.isnan(display.recall["merged"][1]).all(), "never held out"
    points = [line.get_xdata()[0] for line in display.ax_.lines if line.get_marker() == "o"]
    assert points == [0.6, 0.8]
    assert display.ax_.get_yticklabels()[0].get_text() == r"cat\$^2\$"
    display.figure_.canvas.draw()
    both = RecallDisplay.from_result(gate().to_json(), arms=["plain"])
    assert list(both.recall) == ["plain"]
    with pytest.raises(EvaluationError, match="expected some of plain, mixup, merged; got none"):
        RecallDisplay.from_result(gate(), arms=["none"])
    alone = gate().to_json() | {"comparisons": []}
    with pytest.raises(EvaluationError, match="expected a verdict that compares two trainings"):
        RecallDisplay.from_result(alone)


def test_recalls_need_an_evaluation(run):
    with pytest.raises(EvaluationError, match="expected a run that was evaluated"):
        RecallDisplay.from_run(run)


def test_class_sizes_before_and_after(run, data):
    display = BeforeAfterDisplay.from_run(run.out_dir)
    np.testing.assert_array_equal(display.before, data.counts)
    with pytest.warns(UserWarning, match="no synthetic samples of the classes"):
        merged = vaeaug.merge(data, run.out_dir)
    np.testing.assert_array_equal(display.after.sum(axis=1).sum(), len(merged))
    widths = [[bar.get_width() for bar in bars] for bars in display.ax_.containers]
    np.testing.assert_array_equal(widths, [display.before, *display.after.T])


def test_the_latents_of_each_class(generator, data):
    _, ax = plt.subplots()
    display = LatentMapDisplay.from_generator(generator, ax=ax, s=3)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    drawn = [collection.get_offsets() for collection in ax.collections]
    assert [len(points) for points in drawn] == data.counts.tolist()
    np.testing.assert_allclose(drawn[1], display.points[data.labels == 1])
    assert display.points.std(axis=0)[0] >= display.points.std(axis=0)[1], "widest first"


def test_traversals(generator):
    display = TraversalDisplay.from_generator(generator, "two", n_units=3, steps=5)
    assert display.samples.shape[:2] == (3, 5)
    assert len({display.samples[unit, 2].tobytes() for unit in range(3)}) == 1, "the class's mean"
    assert [tick.get_text() for tick in display.ax_.get_yticklabels()] == list(display.names)
    assert display.ax_.get_title() == "two"
    with pytest.raises(vaeaug.SamplingError, match="unknown class 'nine'"):
        TraversalDisplay.from_generator(generator, "nine")


def test_samples_of_data_and_batches(generator, data):
    display = SamplesDisplay.from_data(data, n=4)
    assert display.names == data.class_names
    sheet = display.ax_.images[0].get_array()
    image = data.images[np.flatnonzero(data.labels == 1)[2]]
    drawn = sheet[50:98, 100:148, :3]  # second row, third column
    np.testing.assert_array_equal(drawn, draw_tile(image, (0, 255), (48, 48)))
    batch = generator.sample("one", 3)
    display = SamplesDisplay.from_batch(batch)
    assert display.names == ("one",)
    np.testing.assert_array_equal(display.rows[0], batch.images)
    with pytest.raises(vaeaug.DataError, match="got none"):
        SamplesDisplay.from_batch(batch.select(np.array([], np.int64)))
    with pytest.raises(vaeaug.DataError, match="n of at least 1, got 0"):
        SamplesDisplay.from_data(data, n=0)
    features = data.images.reshape(len(data), 1, -1)
    features = vaeaug.LabelledImages(features, data.labels, data.class_names, (0, 255))
    with pytest.raises(vaeaug.DataError, match="got feature vectors"):
        SamplesDisplay.from_data(features)


def test_training_curves(run, tmp_path):
    display = TrainingCurvesDisplay.from_run(run)
    assert len(display.axes_) == len(display.curves) >= 1
    curve, ax = display.curves[0], display.axes_[0]
    assert ax.get_title() == curve.stage
    for line, points in zip(ax.lines, curve.lines.values(), strict=True):
        np.testing.assert_allclose(line.get_xydata(), points)
    with pytest.raises(ValueError, match=f"expected {len(display.curves)}, one for each chart"):
        display.plot([])
    with pytest.raises(vaeaug.RunError, match="got no such file"):
        TrainingCurvesDisplay.from_run(tmp_path)
