"""docs/inputs.md describes what the readers do."""

import re
from pathlib import Path

import vaeaug
from vaeaug.data import decode, split_names, vocabulary
from vaeaug.data.formats import audio

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")


def test_every_ending_is_listed():
    for ending in (*decode.ENDINGS, *audio.ENDINGS):
        assert f"`{ending}`" in PAGE, ending


def test_names_on_the_page_are_known():
    names = re.search(r"^Names of splits are (.*?)and their like", PAGE, re.M | re.S)
    assert names is not None
    for name in re.findall(r"`(\w+)`", names[1]):
        assert split_names.canonical(name) is not None, name
    columns = re.search(r"found by their names, in any case: (.*?) Others by `keys`", PAGE, re.S)
    assert columns is not None
    words = {*vocabulary.PATHS, *vocabulary.IDS, *vocabulary.LABELS, *vocabulary.SPLITS}
    assert set(re.findall(r"`(\w+)`", columns[1])) <= words


def test_every_option_of_read_is_on_the_page():
    import inspect

    options = set(inspect.signature(vaeaug.read).parameters) - {"source", "workers", "progress"}
    assert {name for name in options if f"`{name}" not in PAGE} == set()


def test_every_refusal_on_the_page_is_in_the_code():
    files = sorted((ROOT / "vaeaug").rglob("*.py"))
    code = "".join(path.read_text() for path in files)
    # Texts that go on in the next line.
    code = re.sub(r'"\s*f?"', "", code)
    table = PAGE.split("## What refusals say")[1]
    rows = re.findall(r"^\| (`.*?) \|", table, re.M)
    assert len(rows) > 12
    for row in rows:
        for message in re.findall(r"`(.*?)`", row):
            for part in re.split(r"\.\.\.|k of n", message):
                words = part.strip()
                assert words in code or words.startswith("of labels"), words
