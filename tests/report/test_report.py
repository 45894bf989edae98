"""The report and the card: well formed, offline, honest about what is missing, and safe to open."""

import base64
import copy
import io
import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from vaeaug.report import COLUMNS, ClassPanel, gate_view, write_card, write_report
from vaeaug.report.charts import Scale, draw_curves
from vaeaug.report.document import Document
from vaeaug.report.gate_view import MAX_ARMS
from vaeaug.report.words import num, pct, points

PARTS = (
    "gate",
    "prediction",
    "recipe",
    "search",
    "plan",
    "samplers",
    "fidelity",
    "privacy",
    "shortcut",
    "diagnostics",
    "curves",
)
VOID = {"meta", "link", "img", "br", "hr", "input"}
HOSTILE = ("<script>alert(1)</script>", "\"&'", "$x_1$", "a|b`c*[d](e)", "snow ☃ 雪")


def interval(value, width):
    return {"mean": value, "low": value - width, "high": value + width}


def figure(title, better, value, real):
    return {
        "name": title.lower(),
        "title": title,
        "meaning": f"what {title} means",
        "better": better,
        "value": value,
        "low": value - 0.02,
        "high": value + 0.02,
        "real": real,
        "real_low": real - 0.01,
        "real_high": real + 0.01,
    }


def arm(name, kind, accuracy, names):
    return {
        "name": name,
        "kind": kind,
        "metrics": {
            "balanced_accuracy": interval(accuracy, 0.01),
            "macro_f1": interval(accuracy - 0.01, 0.01),
            "geometric_mean": interval(accuracy - 0.02, 0.01),
            "recall_many": interval(0.97, 0.01),
            "recall_medium": interval(0.92, 0.02),
            "recall_few": interval(accuracy - 0.1, 0.04),
            "calibration_error": interval(1 - accuracy, 0.01),
        },
        "recall": [
            {"class": each, "value": accuracy, "low": accuracy - 0.1, "high": 1.0, "n": 12}
            for each in names
        ],
    }


def whole(names=("cat", "dog", "eel")):
    """A document with every part."""
    classes = [
        {
            "name": name,
            "real": 100 // (number + 1),
            "target_count": 120,
            "n_synthetic": 120 - 100 // (number + 1),
            "accepted": 120 - 100 // (number + 1) - (number == 1),
            "candidates": 150,
            "rejected": {"duplicate": 3, "near-copy": number, "not finite": 0},
        }
        for number, name in enumerate(names)
    ]
    baseline = "oversampling + classic"
    return {
        "title": "animals",
        "out": "runs/animals",
        "gate": {
            "verdict": "helps",
            "sentence": "Synthetic data helps: +1.4 points of balanced accuracy",
            "metric": "balanced accuracy",
            "confidence": 0.95,
            "interval": "corrected resampled t",
            "min_effect": 0.005,
            "comparisons": [
                {
                    "name": "equal steps",
                    "arm": "merged",
                    "baseline": baseline,
                    "difference": 0.014,
                    "low": 0.006,
                    "high": 0.022,
                    "verdict": "helps",
                    "p_value": 0.003,
                }
            ],
            "arms": [
                arm("none", "baseline", 0.8, names),
                arm(baseline, "baseline", 0.85, names),
                arm("merged", "merged", 0.864, names),
                arm("synthetic only", "check", 0.99, names),
            ],
            "n_splits": 5,
            "folds": 5,
            "steps": 600,
            "probe": "small CNN",
            "seconds": 212.0,
            "warnings": ["few images of the rarest class"],
            "converged": False,
        },
        "prediction": {
            "sentence": "Prediction from one split, no verdict: +2.3 points",
            "limits": "It does not see how splits differ.",
            "interval": "paired by held-out image",
            "confidence": 0.95,
            "gain": interval(0.023, 0.04),
            "rare_gain": interval(0.07, 0.09),
            "baseline": baseline,
            "classes": [
                {
                    "class": name,
                    "rare": number == len(names) - 1,
                    "n": 11 + number,
                    "baseline": interval(0.71, 0.1),
                    "merged": interval(0.79, 0.1),
                }
                for number, name in enumerate(names)
            ],
            "warnings": ["a class has 2 held-out images"],
        },
        "recipe": {
            "name": "all classes 30 %",
            "share": 0.3,
            "classes": "all",
            "sampler": "auto",
            "temperature": 1.0,
            "soft": False,
            "weight": 1.0,
            "separate_batch_norm": False,
            "real_only_last": 0.2,
            "origin": "search",
        },
        "search": {
            "rounds": [
                {
                    "round": 0,
                    "steps": 150,
                    "splits": 2,
                    "candidates": [
                        {"name": "none", "score": 0.8, "low": 0.79, "high": 0.81, "kept": False},
                        {"name": "thirty", "score": 0.9, "low": 0.89, "high": 0.91, "kept": True},
                    ],
                }
            ],
            "chosen": "thirty",
            "sentence": "Two recipes were tried",
        },
        "classes": classes,
        "plan": [{"name": name, "reason": f"because of {name}"} for name in names],
        "samplers": dict.fromkeys(names, "interpolate+residual"),
        "fidelity": {
            "features": "a small classifier",
            "n_synthetic": 400,
            "n_held_out": 122,
            "figures": [figure("Coverage", "higher", 0.9, 0.95)],
            "notes": ["weak features"],
        },
        "privacy": {
            "figures": [figure("Membership", "half", 0.53, 0.5)],
            "near_copies": 0,
            "verdict": "no sign of copying",
            "warning": "look at the sources",
            "notes": [],
        },
        "shortcut": {
            "mutual_information": 0.03,
            "low": 0.01,
            "high": 0.05,
            "real_only": 0.01,
            "excess": 0.02,
            "p_value": 0.04,
            "label_entropy": 1.05,
            "detector_auc": 0.7,
            "synthetic_share": dict.fromkeys(names, 0.3),
            "warning": "rare classes look synthetic",
            "remedy": "the same share for every class",
        },
        "diagnostics": {
            "fit": {"unit": "nats", "elbo_held_out": 38.8, "elbo_held_out_error": 3.1},
            "latents": {"active": 30, "units": 32, "class_information": [0.1, 0.2]},
            "label_control": {
                "control": 0.42,
                "real": 0.93,
                "source": 0.5,
                "probe": 0.88,
                "probe_chance": 0.25,
            },
            "classes": {
                names[0]: {
                    "coverage": 0.9,
                    "coverage_of_real": 0.95,
                    "spread": 0.81,
                    "sharpness": 0.57,
                }
            },
            "training": ["rescued once"],
            "warnings": ["overfitting"],
        },
        "curves": [
            {"stage": "trunk", "step": step, "reconstruction": -step, "kl": 3.0, **more}
            for step, more in ((1, {"held_out_elbo": 0.0}), (2, {"held_out_elbo": 0.5}), (3, {}))
        ],
        "provenance": {
            "command": "vaeaug augment animals --out runs/animals",
            "seed": 7,
            "data": {
                "source": "my animals",
                "split": "train",
                "fingerprint": "f" * 64,
                "counts": [100, 50, 33],
                "image_shape": [8, 8, 3],
            },
            "model_sha256": "a" * 64,
            "config_sha256": "b" * 64,
            "versions": {"vaeaug": "0.1.0"},
            "config": {"seed": 7, "model": {"latent": "vector", "likelihood": "gaussian"}},
        },
    }


def bare(names=("cat", "dog", "eel")):
    return whole(names) | dict.fromkeys(PARTS)


def panels_of(names, shape=(8, 8, 3), n=COLUMNS):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, n, *shape), dtype=np.uint8)
    return [ClassPanel(name, "some", *images) for name in names]


def page_of(folder, document, panels=(), traversals=None):
    folder.mkdir(exist_ok=True)
    path = write_report(
        folder, document, panels=panels, value_range=(0, 255), traversals=traversals
    )
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Every element with its attributes, and whether each one opened is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.wrong, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs, _ in self.elements if name == tag]


@pytest.fixture
def traversals(tmp_path):
    path = tmp_path / "traversals.png"
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("document", [whole(), bare(), whole(HOSTILE)])
def test_the_page_is_well_formed_and_needs_nothing_else(tmp_path, document, traversals):
    names = [each["name"] for each in document["classes"]]
    page = Page(page_of(tmp_path / "out", document, panels_of(names), traversals))
    assert page.wrong == []
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("script") == page.all("iframe") == page.all("object") == []
    for tag, attrs, _ in page.elements:
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
        assert "://" not in attrs.get("style", "")
    ids = [attrs["id"] for _, attrs, _ in page.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    targets = [attrs["href"] for attrs in page.all("a")] + [
        attrs["xlink:href"] for _, attrs, _ in page.elements if "xlink:href" in attrs
    ]
    assert {target.removeprefix("#") for target in targets} <= set(ids)


def test_the_style_sheet_loads_nothing(tmp_path):
    style = re.search("<style>(.*?)</style>", page_of(tmp_path, bare()), re.DOTALL)
    assert style is not None
    assert "@import" not in style[1]
    assert "url(" not in style[1]
    assert "prefers-color-scheme: dark" in style[1]
    assert "@media print" in style[1]


def test_every_picture_and_chart_says_what_it_shows(tmp_path, traversals):
    document = whole()
    page = Page(page_of(tmp_path / "out", document, panels_of(["cat", "dog", "eel"]), traversals))
    images = page.all("img")
    assert len(images) == 3 + 1
    assert all(len(attrs["alt"]) > 20 for attrs in images)
    outer = [
        (attrs, parents)
        for tag, attrs, parents in page.elements
        if tag == "svg" and "svg" not in parents
    ]
    assert len(outer) > 15
    for attrs, _ in outer:
        named = attrs.get("role") == "img" and attrs.get("aria-label", "").strip()
        assert named or attrs.get("aria-hidden") == "true", attrs
    labels = [attrs["aria-label"] for _, attrs, _ in page.elements if attrs.get("role") == "img"]
    assert "equal steps: +1.4 points, interval from +0.6 to +2.2; helps" in labels
    assert (
        "Recall of class dog: oversampling + classic 85.0 %; merged 86.4 %" in labels
    )  # the better baseline, and not the check
    assert any("ELBO" in label and "held out ends at 0.5" in label for label in labels)


def test_headings_and_tables_have_their_order(tmp_path):
    page = Page(page_of(tmp_path, whole()))
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) > 5
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))


@pytest.mark.parametrize(
    ("verdict", "reason", "outlook", "line", "detail", "look"),
    [
        (
            "helps",
            "",
            None,
            "Helps: +1.4 points (0.6 to 2.2)",
            "Balanced accuracy against oversampling + classic, the best training without synthetic "
            "data, over 5 splits.",
            "helps",
        ),
        (
            "does not help",
            "",
            None,
            "Does not help: −0.4 points (−1.2 to 0.3)",
            "Balanced accuracy against oversampling + classic, the best training",
            "harms",
        ),
        (
            "unsure",
            "",
            {"splits": 12, "limit": 100, "seconds": 1490.0},
            "Cannot tell yet: 5 splits are too few; about 25 minutes more would do",
            "So far +0.4 points (−1.2 to 2.0): balanced accuracy against oversampling + classic, "
            "the best training without synthetic data, over 5 splits. With --splits 12 it gets",
            "unsure",
        ),
        (
            "unsure",
            "",
            {"splits": None, "limit": 100},
            "Cannot tell yet: no number of splits up to 100 would do; more images would",
            "So far +0.4 points",
            "unsure",
        ),
        (
            "unsure",
            "too few: a class has 2 held-out images",
            None,
            "Cannot tell yet: too few: a class has 2 held-out images",
            "So far +0.4 points",
            "unsure",
        ),
    ],
)
def test_the_verdict_comes_first_and_the_number_second(
    tmp_path, verdict, reason, outlook, line, detail, look
):
    ends = {"helps": (0.014, 0.006, 0.022), "does not help": (-0.004, -0.012, 0.003)}
    difference = dict(
        zip(("difference", "low", "high"), ends.get(verdict, (0.004, -0.012, 0.02)), strict=True)
    )
    document = whole()
    document["gate"] |= {"verdict": verdict, "reason": reason, "outlook": outlook}
    document["gate"]["comparisons"][0] |= difference | {"verdict": verdict}
    text = page_of(tmp_path, document)
    top = text[: text.index("<table")]
    heading = re.search(r"<h1><svg.*?<path.*?</svg>(.*?)</h1>", top, re.DOTALL)[1]
    assert re.sub("<.*?>", "", heading) == line
    assert detail in top
    assert f'<header class="verdict {look}">' in top
    assert line in write_card(tmp_path, document).read_text(encoding="utf-8")
    assert "had not converged" in top
    assert "few images of the rarest class" in top
    for warning in ("copying: look at the sources", "shortcut: rare classes look", "overfitting"):
        assert warning in top
    icons = {
        re.search('<h1>.*?<path d="(.*?)"', page, re.DOTALL)[1]
        for page in (text, page_of(tmp_path, bare()))
    }
    assert len(icons) == 2


def test_without_a_measurement_it_says_that_nobody_knows(tmp_path):
    page = Page(page_of(tmp_path, bare()))
    top = page.text[: page.text.index("Images before and after")]
    assert "Not evaluated: it is not known whether this data helps" in top
    assert "vaeaug.evaluate(data, 'runs/animals')" in top
    assert "Not measured: the effect on a classifier, likeness to real images, copies, short" in (
        page.text
    )
    assert [attrs["id"] for attrs in page.all("section")] == [
        "counts",
        "recipe",
        "generator",
        "provenance",
        "terms",
    ]
    for part in PARTS:
        (tmp_path / part).mkdir()
        without = {key: value for key, value in whole().items() if key != part}
        assert Page(page_of(tmp_path / part, without)).wrong == []
        write_card(tmp_path / part, without)


def test_the_verdict_of_an_earlier_version_is_said_as_it_was(tmp_path):
    document = whole()
    assert "reason" not in document["gate"]
    text = Page(page_of(tmp_path, document)).text
    assert "Synthetic data helps: +1.4 points of balanced accuracy." in text


def test_a_gate_without_figures_is_shown(tmp_path):
    document = whole()
    document["gate"] = {
        "verdict": "unsure",
        "sentence": "too few images",
        "n_splits": 0,
        "comparisons": [],
        "arms": [],
    }
    page = Page(page_of(tmp_path, document))
    assert page.wrong == []
    assert "Too few images." in page.text
    assert "so none was left to measure." in page.text


def test_many_warnings_are_folded_after_the_first_four(tmp_path):
    document = whole()
    document["diagnostics"]["warnings"] = [f"class {number} fell back" for number in range(9)]
    html = page_of(tmp_path, document)
    assert Page(html).wrong == []
    shown, _, folded = html.partition("more warnings</summary>")
    assert html.count('class="caution"') == shown.count('class="caution"') + folded.count(
        'class="caution"'
    )
    assert shown.count('<p class="caution">') == 4
    assert all(f"class {number} fell back" in html for number in range(9))
    assert int(re.search(r"(\d+) $", shown)[1]) == folded.count('<li><p class="caution">')


def test_a_prediction_stands_beside_the_gate_and_is_no_verdict(tmp_path):
    document = whole()
    text = re.sub(r"\s+", " ", Page(page_of(tmp_path / "both", document)).text)
    for wanted in (
        "Prediction from one split, no verdict: +2.3 points",
        "+2.3[−1.7, +6.3]no verdict",
        "+7.0[−2.0, +16.0]no verdict",
        "Lines are the 95 % interval, paired by held-out image.",
        "eel1371.0[61.0, 81.0]79.0[69.0, 89.0]",
        "Warning: a class has 2 held-out images",
        "It does not see how splits differ.",
    ):
        assert wanted in text, wanted
    assert "cat11" not in text, "only the rare class"
    assert page_of(tmp_path / "both", document).count("<title>Helps") == 1
    document["gate"] = None
    alone = Page(page_of(tmp_path / "alone", document))
    assert alone.wrong == []
    assert alone.text.count("no verdict: +2.3 points") == 2
    assert "Not evaluated: it is not known whether this data helps" in alone.text
    assert "there is no verdict, only a prediction" in alone.text
    assert "nothing on this page shows that it is useful" not in alone.text
    document["prediction"] = {"sentence": "Nothing to predict."}
    nothing = Page(page_of(tmp_path / "nothing", document))
    assert nothing.wrong == []
    assert "Nothing to predict." in nothing.text
    assert "Recall of the rare classes in %" not in nothing.text


def test_numbers_of_every_part_are_on_the_page(tmp_path):
    page = Page(page_of(tmp_path, whole()))
    text = re.sub(r"\s+", " ", page.text)
    for wanted in (
        "86.4[85.4, 87.4]",  # balanced accuracy of the merged arm
        "+1.4[+0.6, +2.2]helps",
        "smallest effect that counts, +0.5 points",
        "0.900[0.880, 0.920] 0.950[0.940, 0.960]",  # fidelity beside real against real
        "0.530[0.510, 0.550] 0.500[0.490, 0.510]",
        "No sign of copying. Near-copies found: 0.",
        "merged = vaeaug.merge(real, 'runs/animals') # as counted above",
        "from 183 images to 359".capitalize(),
        "of 70 planned",
        "because of eel",
        "None was rejected as: not finite.",
        "model.likelihoodgaussian",
        "0.030 nats",
        "overfitting",
    ):
        assert wanted in text, wanted


def test_a_recipe_without_synthetic_images_is_not_merged(tmp_path):
    document = whole()
    document["recipe"] |= {"share": 0.0, "name": "none"}
    page = Page(page_of(tmp_path, document))
    assert "Recipe: none, the best that the search found. No synthetic images" in page.text
    assert "vaeaug.merge(" not in page.text


def test_the_best_of_a_column_is_bold_and_no_check_is(tmp_path):
    text = page_of(tmp_path, whole())
    table = text[text.index('<table class="arms">') :].split("</table>")[0]
    assert "<b>86.4</b>" in table  # highest of those one would choose
    assert "<b>13.6</b>" in table  # lowest calibration error of them
    assert "99.0" in table
    assert "<b>99.0</b>" not in table
    assert "<b>97.0</b>" not in table  # all the same


def test_recall_stands_beside_the_baseline_that_the_gate_compared_with():
    document = whole()

    def recall(**keys):
        parsed = Document.parse(document | keys)
        return gate_view.recall(parsed.gate, parsed.classes)

    compared = recall()
    assert compared["series"] == ["oversampling + classic", "merged"]
    assert compared["arms"] == ["none", "oversampling + classic", "merged", "synthetic only"]
    document["gate"]["comparisons"][0]["baseline"] = "none"
    assert recall(classes=[])["series"] == ["none", "merged"]
    document["gate"]["comparisons"] = []
    assert recall(classes=[])["series"] == compared["series"]


def test_names_are_text_and_never_markup(tmp_path):
    document = whole(HOSTILE)
    document["title"] = HOSTILE[0]
    document["gate"]["sentence"] = HOSTILE[0]
    document["gate"]["arms"][2]["name"] = HOSTILE[0]
    document["curves"] = [dict(row, stage=HOSTILE[0]) for row in document["curves"]]
    document["provenance"]["config"][HOSTILE[0]] = HOSTILE[1]
    text = page_of(tmp_path, document, panels_of(HOSTILE))
    assert "<script" not in text
    page = Page(text)
    for name in HOSTILE:
        rows = [attrs for attrs in page.all("img") if f"Class {name}," in attrs["alt"]]
        assert len(rows) == 1
        assert page.text.count(name) >= 4
    # The template itself never lifts the escaping; only what is drawn here is markup.
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_same_document_gives_the_same_bytes(tmp_path, traversals):
    document = whole()
    before = copy.deepcopy(document)
    names = ["cat", "dog", "eel"]
    first = page_of(tmp_path / "a", document, panels_of(names), traversals)
    write_card(tmp_path / "a", document)
    code = (
        "import json, sys, pathlib; sys.path.insert(0, sys.argv[3]);"
        "from test_report import *;"
        "out = pathlib.Path(sys.argv[1]); document = whole();"
        "page_of(out, document, panels_of(['cat', 'dog', 'eel']), pathlib.Path(sys.argv[2]));"
        "write_card(out, document)"
    )
    subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            str(tmp_path / "b"),
            str(traversals),
            str(Path(__file__).parent),
        ],
        check=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
    )
    for name in ("report.html", "report.json", "README.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert first.startswith("<!DOCTYPE html>")
    assert document == before
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "README.md",
        "report.html",
        "report.json",
    ]


def test_report_json_is_the_document(tmp_path):
    document = whole(HOSTILE)
    document["gate"]["seconds"] = float("nan")
    document["gate"]["arms"][0]["recall"][0]["value"] = float("inf")
    assert Page(page_of(tmp_path, document)).wrong == []
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    document["gate"]["seconds"] = None
    document["gate"]["arms"][0]["recall"][0]["value"] = None
    assert json.loads(text) == document
    assert "NaN" not in text


@pytest.mark.parametrize(
    ("part", "wrong", "place"),
    [
        ("gate", {"verdict": "helps", "arms": ["none"]}, "gate.arms.0"),
        ("gate", {"comparisons": {"name": "equal steps"}}, "gate.comparisons"),
        ("search", {"rounds": [{"candidates": "many"}]}, "search.rounds.0.candidates"),
        ("shortcut", {"synthetic_share": [0.3]}, "shortcut.synthetic_share"),
        ("diagnostics", {"classes": {"cat": 3}}, "diagnostics.classes.cat"),
        ("merged", [["cat", 3]], "merged.0"),
    ],
)
def test_a_part_that_is_none_is_left_out_and_named(tmp_path, caplog, part, wrong, place):
    document = whole() | {part: wrong}
    page = Page(page_of(tmp_path, document))
    assert f"report: {place}: " in caplog.text
    assert f"{part} is left out" in caplog.text
    assert "cat" in page.text
    assert write_card(tmp_path, document).exists()


def test_large_runs_stay_below_five_megabytes(tmp_path):
    names = [f"class {number}" for number in range(20)]
    noise = Image.fromarray(
        np.random.default_rng(1).integers(0, 256, (1600, 700, 3), dtype=np.uint8)
    )
    noise.save(tmp_path / "traversals.png")
    # Noise does not compress: real images take less.
    page = page_of(
        tmp_path / "few", whole(names), panels_of(names, (64, 64, 3)), tmp_path / "traversals.png"
    )
    assert len(page.encode()) < 5_000_000
    shown = Page(page).all("img")
    assert len(shown) == 20 + 1
    assert "3 real, 3 synthetic" in shown[0]["alt"]  # fewer columns for want of room
    assert all(int(attrs["width"]) >= 64 for attrs in shown)

    many = [f"a class with a long name, number {number}" for number in range(1200)]
    document = whole(many)
    document["gate"]["arms"] = [
        arm(f"arm {number}", "merged" if number % 2 else "baseline", 0.8, many)
        for number in range(MAX_ARMS + 4)
    ]
    document["curves"] = [
        {"stage": f"class-{stage}", "step": step, "loss": 1 / step}
        for stage in range(30)
        for step in range(1, 400)
    ]
    page = page_of(
        tmp_path / "many", document, panels_of(many[:24], (64, 64, 3)), tmp_path / "traversals.png"
    )
    assert len(page.encode()) < 5_000_000
    assert "4 larger classes are not shown" in page
    assert "1,050 larger classes are in report.json" in page
    counts = page[page.index('<section id="counts">') : page.index('<section id="samples">')]
    assert f">{many[100]}<" in counts  # the first without a real image
    assert f">{many[99]}<" not in counts
    assert "22 more stages are in report.json" in page


@pytest.mark.parametrize(
    ("shape", "columns", "pixels"),
    [((8, 8, 1), 8, True), ((64, 64, 3), 6, False), ((500, 200, 3), 8, False), ((90, 1), 4, False)],
)
def test_panels_fit_beside_each_other(tmp_path, shape, columns, pixels):
    panel = panels_of(["a"], shape)[0]
    (image,) = Page(page_of(tmp_path, bare(), [panel])).all("img")
    assert f"{columns} real, {columns} synthetic" in image["alt"]
    assert int(image["width"]) <= 420
    assert int(image["height"]) <= 3 * 66
    assert (image.get("class") == "pixels") is pixels
    header = "data:image/png;base64,"
    picture = Image.open(io.BytesIO(base64.b64decode(image["src"].removeprefix(header))))
    assert picture.size == (int(image["width"]), int(image["height"]))
    if shape == (8, 8, 1):  # the tiles are the samples, in their order
        alpha = np.asarray(picture.convert("LA"))
        for row, images in enumerate((panel.real, panel.synthetic, panel.nearest)):
            for column in range(columns):
                tile = alpha[50 * row : 50 * row + 48 : 6, 50 * column : 50 * column + 48 : 6, 0]
                np.testing.assert_array_equal(tile, images[column, :, :, 0])
        assert (alpha[48:50, :, 1] == 0).all()


@pytest.mark.parametrize("shape", [(50, 2), (4, 8, 8, 1), (100, 30, 1)])
def test_samples_of_each_rank_are_shown(tmp_path, shape):
    some = panels_of(["a"], shape)[0]
    empty = ClassPanel("b", "none", *3 * [some.real[:0]])
    half = ClassPanel("c", "real only", some.real[:2], some.real[:0], some.real[:0])
    page = Page(page_of(tmp_path, bare(), [some, empty, half]))
    assert page.wrong == []
    assert [attrs["alt"][:8] for attrs in page.all("img")] == ["Class a,", "Class c,"]


# -- Scales, curves and numbers --------------------------------------------------------------------


def test_a_scale_holds_its_values_and_its_ticks():
    scale = Scale.over([0.2, None, 0.9, float("nan")], within=(0.0, 1.0))
    assert 0 <= scale.low < 0.2
    assert 0.9 < scale.high <= 1
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
    assert len(scale.ticks) >= 3
    assert scale.at(scale.low) == "0.00"
    assert scale.at(scale.high) == "100.00"
    middle = (scale.low + scale.high) / 2
    assert scale.at(middle) == "50.00"
    assert scale.at(99) == "100.00"
    assert Scale.over([None, float("nan")]) is None
    for values in ([0.0], [1.0, 1.0], [0.5]):
        one = Scale.over(values, within=(0.0, 1.0))
        assert one.low <= values[0] <= one.high
        assert one.low < one.high


def test_the_training_elbo_is_drawn_beside_the_held_out_one():
    rows = [
        {"stage": "trunk", "step": step, "reconstruction": -10.0 * step, "kl": 2.0, "loss": 1.0}
        for step in range(1, 6)
    ]
    rows += [{"stage": "flow", "step": step, "loss": 1.0 / step} for step in range(1, 4)]
    rows += [{"stage": "short", "step": 1, "loss": 1.0}]
    curves, left_out = draw_curves(rows)
    assert left_out == 0
    assert [(curve.stage, curve.title) for curve in curves] == [
        ("trunk", "training ELBO, nats (higher is better)"),
        ("trunk", "training KL, nats"),
        ("flow", "training loss"),
    ]
    assert "training ends at 48" in curves[0].label
    for curve in curves:
        # Nothing of it is fixed to a white or a black page, and nothing styles the rest of it.
        assert "var(--c0)" in curve.svg
        assert "<style" not in curve.svg
        assert "<metadata" not in curve.svg
        assert not re.search(r"#0102|#0101|#000000|#ffffff|DejaVu", curve.svg)
    # The loss falls from 1 to 1/3, and SVG counts downwards.
    places = re.search(r'<polyline points="([^"]+)"', curves[2].svg)[1].split()
    across, down = zip(*(map(float, place.split(",")) for place in places), strict=True)
    assert len(places) == 3
    assert sorted(across) == list(across)
    assert sorted(down) == list(down)
    assert (down[1] - down[0]) / (down[2] - down[0]) == pytest.approx(3 / 4, abs=0.01)
    assert re.findall(r'text-anchor="end"[^>]*>([^<]+)<', curves[2].svg) == [
        *("0.4", "0.6", "0.8", "1.0")
    ]
    assert draw_curves([]) == ([], 0)


def test_drawing_leaves_the_users_matplotlib_alone():
    import matplotlib as mpl

    rows = [{"stage": "a", "step": step, "loss": float(step)} for step in (1, 2)]
    plain = draw_curves(rows)
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "lines.linestyle": ":"}):
        before = dict(mpl.rcParams)
        assert draw_curves(rows) == plain
        assert dict(mpl.rcParams) == before


def test_numbers_as_text():
    assert [pct(0.9149), pct(1), pct(None), pct(True)] == ["91.5", "100.0", "–", "–"]
    assert [points(0.004), points(-0.0126), points(-0.0001), points(None)] == [
        "+0.4",
        "−1.3",
        "0.0",
        "–",
    ]
    assert [num(1234), num(38.81), num(0.5), num(0.00004), num(float("nan"))] == [
        "1,234",
        "38.81",
        "0.500",
        "4e−05",
        "–",
    ]


# -- The card --------------------------------------------------------------------------------------


def front_matter(text):
    head, separator, body = text.removeprefix("---\n").partition("\n---\n")
    assert text.startswith("---\n")
    assert separator
    return yaml.safe_load(head), body


@pytest.mark.parametrize(
    ("shape", "layout", "task"),
    [
        ([8, 8, 3], None, "image-classification"),
        ([50, 2], None, "other"),
        ([4, 8, 8, 1], "NDHWC", "other"),
    ],
)
def test_the_cards_metadata(tmp_path, shape, layout, task):
    document = whole()
    document["provenance"]["data"] |= {"image_shape": shape}
    document["provenance"] |= {"layout": layout}
    path = write_card(tmp_path, document)
    assert path == tmp_path / "README.md"
    metadata, body = front_matter(path.read_text(encoding="utf-8"))
    assert metadata["tags"][:3] == ["synthetic", "vaeaug", "augmentation"]
    assert metadata["task_categories"] == [task]
    assert metadata["size_categories"] == ["n<1K"]
    assert metadata["annotations_creators"] == ["machine-generated"]
    assert metadata["pretty_name"] == "animals, augmented"
    assert "license" not in metadata
    assert "# license: choose one" in path.read_text(encoding="utf-8")
    assert "## Licence" in body
    assert "**Helps.** Synthetic data helps: +1.4 points of balanced accuracy." in body
    assert "| equal steps | merged | oversampling + classic | +1.4 | +0.6 to +2.2 | helps |" in body
    assert "| dog | 50 | 69 | 70 |" in body
    assert "vaeaug.merge(real, folder)" in body
    assert "synthetic share of a batch: 30.0 %" in body
    assert "Fewer than planned: dog." in body


@pytest.mark.parametrize(
    ("accepted", "size"), [(999, "n<1K"), (1000, "1K<n<10K"), (250_000, "100K<n<1M")]
)
def test_the_cards_size_is_that_of_the_synthetic_data(tmp_path, accepted, size):
    document = bare(["a"])
    document["classes"][0]["accepted"] = accepted
    metadata, _ = front_matter(write_card(tmp_path, document).read_text(encoding="utf-8"))
    assert metadata["size_categories"] == [size]


def test_the_card_of_a_run_that_nobody_evaluated(tmp_path):
    _, body = front_matter(write_card(tmp_path, bare()).read_text(encoding="utf-8"))
    assert "Not evaluated: it is not known whether this data helps" in body
    assert "<code>vaeaug.evaluate(data, 'runs/animals')</code>" in body


def test_names_do_not_break_the_card(tmp_path):
    document = whole([*HOSTILE, "two\nlines"])
    document["title"] = 'tricky: "title" # --- \n- [x'
    text = write_card(tmp_path, document).read_text(encoding="utf-8")
    metadata, body = front_matter(text)
    assert metadata["pretty_name"] == document["title"] + ", augmented"
    assert "<script" not in body
    assert "| &lt;script&gt;alert(1)&lt;/script&gt; | 100 | 20 | 20 | – | – |" in body
    assert r"| a\|b\`c\*\[d\](e) | 25 | 95 | 95 | – | – |" in body
    table = body[body.index("## Counts") : body.index("## How it was made")].strip()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(document["classes"])
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 7 for row in rows)


def test_importing_the_room_loads_no_template_engine_and_no_plots():
    code = (
        "import sys, vaeaug.report;"
        "print([m for m in ('jinja2', 'markupsafe', 'matplotlib', 'yaml', 'PIL') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("layout", "many"), [("NLC", "signals"), ("NDHWC", "volumes")])
def test_signals_and_volumes_are_called_what_they_are(tmp_path, layout, many):
    document = whole(["images", "an image", "b"])
    document["provenance"]["data"]["layout"] = layout
    text = Page(page_of(tmp_path, document)).text
    one = many.removesuffix("s")
    assert f"Real {many}" in text
    assert f"Synthetic {many} carry the biases of the real {many}" in re.sub(r"\s+", " ", text)
    assert f"Shape of a {one}" in text
    # Classes keep their names, whatever these are.
    assert "an image" in text
    ours = text.replace("an image", "").replace("images", "", 3)
    assert "synthetic image" not in ours
    card = write_card(tmp_path, document).read_text(encoding="utf-8")
    assert f"real {many} learned from" in card
    assert "| an image |" in card
