"""Any class name that is read comes out at the end, as it is, and harms no place that shows it."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import vaeaug
from tests.small_job import as_options, tiny_config
from vaeaug.files.names import for_cell, for_code, for_markdown, for_stream, printable
from vaeaug.integrations.hub import write_for_hub

# Each breaks what does not know of it.
NAMES = (
    "a\nb",
    "[/b]",
    "$x_{\\frac",
    "<script>alert(1)<|script>",
    "=1+1",
    "\x1b[31mred\x07",
    "|pi`pe|",
    "'\"q",
    "名前 e\u0301",
    "\u202eabc",
    "#h\n---\nlicense: x",
    "x" * 120,
)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return vaeaug.LabelledImages(
        images=rng.integers(0, 256, (10 * len(NAMES), 8, 8, 1), dtype=np.uint8),
        labels=np.repeat(np.arange(len(NAMES)), 10),
        class_names=NAMES,
        value_range=(0, 255),
        split="train",
        source="pets <b>\n\udcff",
    )


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("names") / "run"
    vaeaug.augment(data, out, tiny_config(**{"plan.sampling_strategy": "all"}), device="cpu")
    return out


# -- A whole run -------------------------------------------------------------------------------


def test_names_come_out_as_they_are(run, data):
    assert vaeaug.verify(run).ok
    assert vaeaug.Manifest.load(run).class_names == NAMES
    assert vaeaug.ShardDataset(run).class_names == NAMES
    assert vaeaug.load(run).class_names == NAMES
    assert vaeaug.merge(data, run).class_names == NAMES
    assert json.loads((run / "run.json").read_text())["data"]["source"] == "pets <b>\n\\udcff"


def test_pages_and_cards_have_no_html_of_a_name(run):
    page = (run / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    card = (run / "README.md").read_text()
    assert "<script" not in card
    assert "&lt;script&gt;alert(1)" in card
    for text in (page, card):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    # Its front matter is the one we wrote, and every row of the table is one line.
    assert card.count("\n---\n") == 1
    assert sum(line.startswith("| ") and line.endswith(" |") for line in card.splitlines()) >= 12


@pytest.mark.parametrize("name", ["imagefolder", "webdataset", "huggingface"])
def test_exported_cards_have_no_html_of_a_name(run, tmp_path, name):
    if name == "huggingface":
        pytest.importorskip("datasets")
    path = tmp_path / "export"
    vaeaug.export_dataset(run, path, format=name)
    card = (path / "README.md").read_text()
    assert "<script" not in card
    assert "&lt;script&gt;alert(1)" in card
    assert not {"\x1b", "\x07", "\u202e"} & set(card)
    rows = [line for line in card.splitlines() if line.startswith("| ") and line.count("|") >= 5]
    assert len(rows) == 1 + len(NAMES)
    assert vaeaug.read(path).class_names == NAMES


def test_no_cell_is_a_formula(run, tmp_path):
    vaeaug.export_dataset(run, tmp_path / "export", format="imagefolder")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "export/metadata.csv").read_text())))
    assert {row["class_name"] for row in rows} == {*NAMES} - {"=1+1"} | {"'=1+1"}
    assert not any(cell.startswith(("=", "+", "@")) for row in rows for cell in row.values())


def test_the_card_of_the_hub_has_no_html_of_a_name(run, tmp_path):
    write_for_hub(vaeaug.load(run), tmp_path, 'me/x"\n')
    card = (tmp_path / "README.md").read_text()
    assert "<script" not in card
    assert "\x1b" not in card
    assert 'from_hub("me/x\\"\\n")' in card


def test_a_terminal_shows_names_and_obeys_none(tmp_path):
    rng = np.random.default_rng(0)
    with open(tmp_path / "pets.csv", "w", newline="") as file:
        for i in range(10 * len(NAMES)):
            image = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
            image.save(tmp_path / f"{i}.png")
            csv.writer(file).writerow([f"{i}.png", NAMES[i % len(NAMES)]])
    options = as_options(**{"plan.sampling_strategy": "all"})
    command = [sys.executable, "-m", "vaeaug", "augment", "pets.csv", "--out", "run", *options]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, **PLAIN}
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 2**16)
            except OSError:  # the other end is closed
                break
        stdout = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode in (0, 4), shown.decode()
    assert "drawing [/b]" in shown.decode()
    assert "drawing a\\nb" in shown.decode()
    assert b"\x1b[31mred" not in shown
    for name in ("[/b]", "a\\nb", "\\x1b[31mred\\x07", "\\u202eabc", "名前 e\u0301"):
        assert name in stdout
    assert not {"\x1b", "\x07", "\u202e"} & set(stdout)


PLAIN = {"TERM": "xterm", "COLUMNS": "200", "LINES": "100", "PYTHONIOENCODING": "utf-8"}


def test_a_stream_of_another_encoding_gets_escapes():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert for_stream("名 \udcff\x1b\n", stream) == "\\u540d \\udcff\\x1b\n"


# -- What is refused before anything is made of it -----------------------------------------------


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "caf\udce9"])
def test_names_that_could_not_be_written_are_refused_when_read(name):
    images = np.zeros((4, 8, 8), np.uint8)
    with pytest.raises(
        vaeaug.DataError, match="text in UTF-8 without zero bytes, not empty"
    ) as error:
        vaeaug.read((images, np.array([0, 1, 0, 1])), class_names=[name, "dog"])
    assert repr(name) in str(error.value)


def test_a_folder_whose_name_is_no_utf_8_is_refused(tmp_path):
    for name in (b"caf\xe9", b"dog"):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        folder.mkdir()
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "0.png")
    with pytest.raises(vaeaug.DataError, match=r"named in UTF-8, .* got .caf.*rename"):
        vaeaug.read(tmp_path)


# -- Each place --------------------------------------------------------------------------------


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_printable_is_one_line_of_what_is_seen(text):
    shown = printable(text)
    assert shown.encode().decode() == shown
    assert len(shown.splitlines()) <= 1
    unseen = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert not any(unicodedata.category(c) in unseen for c in set(shown) - set("\u200c\u200d"))
    assert printable(shown) == shown


@given(st.text())
def test_markdown_has_no_html_and_no_cell_in_a_cell(text):
    shown = for_markdown(text)
    assert not {"<", ">", "\n"} & set(shown)
    assert all(shown[i - 1] == "\\" for i, c in enumerate(shown) if c in "|[]`*_#")


@pytest.mark.parametrize(
    ("place", "text", "shown"),
    [
        (printable, "plain", "plain"),
        (printable, "a\tb\x85\u2028", "a\\tb\\x85\\u2028"),
        (printable, "\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        (for_markdown, "a|b <i>`x` & $y$", r"a\|b &lt;i&gt;\`x\` &amp; \$y\$"),
        (for_code, "<b>", "<code>&lt;b&gt;</code>"),
        (for_cell, "=1", "'=1"),
        (for_cell, "-", "'-"),
        (for_cell, "a=1", "a=1"),
    ],
)
def test_each_place_has_its_own_escape(place, text, shown):
    assert place(text) == shown
