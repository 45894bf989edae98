"""What a notebook shows of each object: escaped, self-contained, and true."""

import base64
import io
import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import vaeaug
from vaeaug.config import Recipe
from vaeaug.evaluation import GateResult
from vaeaug.evaluation.gate.prediction import PredictedClass
from vaeaug.evaluation.gate.result import ArmResult, Comparison
from vaeaug.evaluation.statistics import Interval
from vaeaug.notebook import MAX_ROWS, Card, Table, counted, strip
from vaeaug.tiles import draw_tile, tile_size

TAGS = ("div", "style", "p", "b", "table", "thead", "tbody", "tr", "th", "td", "img", "i", "span")
HOSTILE = '<script>alert("1")</script>\u202e'


class Page(HTMLParser):
    """Tags, cells and pictures of some HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.rows, self.pictures, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == [], "tags that are not closed"

    def handle_starttag(self, tag, attributes):
        assert tag in TAGS, tag
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "img":
            self.pictures.append(dict(attributes))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if "style" not in self.open:
            self.text += data


def opened(picture: dict) -> Image.Image:
    head, content = picture["src"].split(",", 1)
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def shown(thing) -> Page:
    text = thing._repr_html_()
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert len(text) < 500_000
    return Page(text)


def gate() -> GateResult:
    mean = Interval(0.8, 0.7, 0.9)
    arms = tuple(
        ArmResult(
            name,
            kind,
            {"balanced_accuracy": mean},
            (Interval(recall, 0.1, 0.95), None),
            (12, 0),
            (0.8, 0.8),
        )
        for name, kind, recall in (("plain", "baseline", 0.5), ("merged", "merged", 0.75))
    )
    difference = Interval(0.1, 0.02, 0.18)
    compared = Comparison("equal steps", "merged", "plain", difference, "helps")
    sentence = "Synthetic data helps: +10 points."
    names = ("cat", HOSTILE)
    return GateResult(
        "helps", sentence, (compared,), arms, Recipe(), {}, ("few images",), class_names=names
    )


def test_a_dataset_shows_its_classes_and_their_samples(digits):
    page = shown(digits)
    assert "55 images of 4 classes" in page.text
    assert [row[:2] for row in page.rows[1:]] == [
        [name, str(count)] for name, count in zip(digits.class_names, digits.counts, strict=True)
    ]
    first = np.asarray(opened(page.pictures[3]).convert("RGBA"))[:48, :48]
    image = digits.images[np.flatnonzero(digits.labels == 3)[0]]
    expected = np.asarray(draw_tile(image, (0, 255), tile_size(image.shape)))
    np.testing.assert_array_equal(first[..., :3], expected)
    assert "LabelledImages(55 images" in repr(digits)


def test_names_are_escaped_and_rows_are_limited(digits):
    names = [HOSTILE, "b", "c", "d"]
    data = vaeaug.LabelledImages(
        digits.images, digits.labels, tuple(names), (0, 255), source=HOSTILE, notes=(HOSTILE,)
    )
    page = shown(data)
    assert page.rows[1][0] == '<script>alert("1")</script>\\u202e'
    many = vaeaug.LabelledImages(
        digits.images[:20], np.arange(20), tuple(map(str, range(20))), (0, 255)
    )
    page = shown(many)
    assert len(page.rows) == 1 + MAX_ROWS
    assert "8 more rows are not shown" in page.text


def test_signals_are_plots_and_features_have_no_pictures():
    rng = np.random.default_rng(0)
    signals = rng.random((6, 40, 2), np.float32)
    assert len(shown(vaeaug.read((signals, np.repeat([0, 1], 3)))).pictures) == 2
    rows = rng.random((6, 1, 7), np.float32)
    features = vaeaug.LabelledImages(rows, np.repeat([0, 1], 3), ("a", "b"), (0, 1))
    page = shown(features)
    assert page.pictures == []
    assert "6 feature vectors of 2 classes" in page.text


def test_a_plan_shows_the_parts_of_each_class(digits):
    plan = vaeaug.make_plan(digits.labels)
    page = shown(plan)
    assert f"Plan of {plan.n_synthetic} synthetic samples" in page.text
    for row, part in zip(page.rows[1:], plan, strict=True):
        assert row[1:5] == [
            str(n) for n in (part.real, part.repeated, part.n_synthetic, part.target_count)
        ]
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", plan._repr_html_())]
    assert sum(widths) == pytest.approx(400, abs=1), "all classes are as large as the largest"


def test_a_generator_and_its_batches(synthesizer, digits, capsys):
    page = shown(synthesizer)
    assert "Generator of 4 classes" in page.text
    assert page.rows[1][:3] == ["zero", "24", synthesizer.default_sampler(0)]
    batch = synthesizer.sample("three", 5)
    assert (batch.class_names, batch.value_range) == (digits.class_names, (0, 255))
    page = shown(batch.select(np.array([0, 2])))
    assert page.rows[1][:2] == ["three", "2"]
    assert opened(page.pictures[0]).size == (2 * 48 + 2, 48)
    path = synthesizer.show("three", 4, sampler="interpolate")
    assert str(path) in capsys.readouterr().out
    assert path.read_text(encoding="utf-8").count("<img") == 1
    with pytest.raises(vaeaug.SamplingError, match="unknown class 'x'"):
        synthesizer.show("x")


def test_samples_are_shown_above_what_they_were_drawn_around(synthesizer, digits):
    attached = vaeaug.Synthesizer.attach(synthesizer, digits)
    from vaeaug.generator.presentation import samples_card

    page = Page(samples_card(attached, 3, 4, seed=0, sampler="interpolate").to_html())
    assert [row[1] for row in page.rows[1:]] == ["synthetic", "drawn around"]
    source = attached.sample(3, 4, sampler="interpolate").source_index[0]
    real = np.asarray(opened(page.pictures[1]).convert("RGBA"))[:48, :48, :3]
    np.testing.assert_array_equal(real, draw_tile(digits.images[source], (0, 255), (48, 48)))


def test_a_verdict_shows_each_training_and_the_recall_of_each_class():
    page = shown(gate())
    assert "Verdict: helps" in page.text
    assert "few images" in page.text
    assert ["merged", "merged", "80.0 % (70.0 to 90.0)"] in page.rows
    assert page.rows[-2] == ["cat", "12", "50.0 % (10.0 to 95.0)", "75.0 % (10.0 to 95.0)"]
    assert page.rows[-1][2:] == ["never held out"] * 2


def test_a_prediction_shows_its_trainings_and_that_it_is_no_verdict():
    interval = Interval(0.75, 0.5, 0.9, 0.5)
    classes = (
        PredictedClass("cat", True, 12, None, interval),
        PredictedClass(HOSTILE, False, 0, None, None),
    )
    prediction = vaeaug.Prediction(
        "Synthetic data is likely to help.",
        Recipe(),
        gain=interval,
        balanced_accuracy={"oversampling": 0.7, "merged": 0.8123},
        classes=classes,
        warnings=("few images",),
    )
    page = shown(prediction)
    assert "Prediction, no verdict" in page.text
    assert "few images" in page.text
    assert ["merged", "81.2 %"] in page.rows
    assert ["cat", "rare", "12", "never held out", "75.0 % (50.0 to 90.0)"] in page.rows
    nothing = shown(vaeaug.Prediction("Nothing to predict.", Recipe()))
    assert nothing.rows == []


def test_a_run_shows_its_samples_and_says_where_they_are_missing(finished, tmp_path):
    page = shown(finished)
    entries = finished.manifest.classes
    assert [row[:3] for row in page.rows[1:]] == [
        [entry.name, str(entry.real), str(entry.accepted)] for entry in entries
    ]
    assert len(page.pictures) == sum(entry.accepted > 0 for entry in entries)
    assert "Whether they help: not evaluated" in page.text
    gone = vaeaug.AugmentResult(tmp_path / "moved", finished.manifest)
    page = shown(gone)
    assert page.pictures == []
    assert "cannot be read" in page.text


def test_outside_of_a_notebook_a_page_is_written(digits, capsys):
    path = digits.show(3)
    assert capsys.readouterr().out == f"55 images of 4 classes: {path}\n"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.count("<img") == 4
    with pytest.raises(vaeaug.DataError, match="n of at least 1, got 0"):
        digits.show(0)


def test_in_a_notebook_it_is_displayed(digits, monkeypatch, capsys):
    IPython = pytest.importorskip("IPython", reason="notebooks need IPython")
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    displayed = []
    monkeypatch.setattr(sys.modules["IPython.display"], "display", displayed.append)
    assert digits.show(6) is None
    assert displayed[0].data == digits._card(6).to_html()
    assert capsys.readouterr().out == ""


def test_rows_of_tiles():
    images = np.zeros((5, 8, 8, 1), np.uint8)
    picture = strip(images, (0, 255), alt="a", columns=2, n=5)
    assert (picture.width, picture.height) == (2 * 48 + 2, 3 * 48 + 4)
    assert np.asarray(opened({"src": picture.source}).convert("RGBA"))[-1, -1, 3] == 0, "no tile"
    assert strip(images[:0], (0, 255), alt="a") is None


def test_words():
    assert [counted(1, noun) for noun in ("classes", "images", "feature vectors")] == [
        "1 class",
        "1 image",
        "1 feature vector",
    ]
    assert counted(1234, "classes") == "1,234 classes"
    assert Table(("a", "b"), [("x", 1), ("y", 2)]).right == {1}
    assert "&lt;b&gt;" in Card("<b>").to_html()


def test_a_line_each_where_there_is_no_html(finished, digits):
    """What a console prints: no arrays, no hashes."""
    generator = vaeaug.load(finished.out_dir)
    batch = generator.sample(label=0, n=3, sampler="gmm")
    plan = vaeaug.make_plan(digits.labels)
    n = finished.manifest.n_images
    assert repr(finished.manifest) == f"Manifest({n} samples of 4 classes in 3 shards)"
    assert repr(batch) == "SampleBatch(3 samples of 8x8x1 uint8, 1 class, sampler='gmm')"
    assert repr(plan) == f"Plan(4 classes, {plan.n_synthetic} synthetic samples)"
    assert repr(generator) == "Synthesizer(4 classes, 8x8x1 uint8, 4 latents, on cpu)"
    attached = repr(generator.attach(digits))
    assert attached == "Synthesizer(4 classes, 8x8x1 uint8, 4 latents, on cpu, with its data)"
    assert repr(finished) == (
        f"AugmentResult({str(finished.out_dir)!r}, {finished.manifest!r}, complete)"
    )
