"""A manifest that somebody made up: `verify` reports it, nothing else goes by it."""

import json
import os

import numpy as np
import pytest

import vaeaug
from tests.shards.example_run import make_run
from vaeaug.files.json_text import JSONTextError, parse_strict, seal_of, sealed, unsealed
from vaeaug.shards import Manifest, ShardError, verify

DEEP = "[" * 900 + "]" * 900


def resealed(folder, change):
    """Change a manifest and seal it again, as somebody with an aim would."""
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    document["manifest_sha256"] = seal_of(document, "manifest_sha256")
    path.write_text(json.dumps(document, indent=2, sort_keys=True))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"extra": {}', '"extra": {"a": "\\ud800"}', "expected text in UTF-8"),
        ('"extra": {}', '"extra": {"\\udfff": 1}', "expected text in UTF-8"),
        ('"extra": {}', '"extra": {"a": 1e999}', "expected finite numbers"),
        ('"extra": {}', '"extra": {"a": NaN}', "NaN is not JSON"),
        (
            '"extra": {}',
            f'"extra": {{"a": {DEEP}}}',
            "expected at most 100 nested lists and objects",
        ),
        ('"extra": {}', '"extra": {"a": ' + "[" * 10**5, "nested too deeply"),
        ('"extra": {}', '"extra": {"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('"run_seed": 7', '"run_seed": 1e400', "expected finite numbers"),
        ('"run_seed": 7', f'"run_seed": {DEEP}', "expected at most 100 nested lists"),
    ],
    ids=lambda text: text[:24],
)
def test_verify_reports_what_is_no_json_of_ours(tmp_path, old, new, message):
    make_run(tmp_path)
    path = tmp_path / "manifest.json"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    [problem] = verify(tmp_path).problems
    assert (problem.kind, problem.path) == ("manifest", "manifest.json")
    assert message in problem.message
    assert len(problem.message) < 1000
    for shown in (str(verify(tmp_path)), verify(tmp_path).to_json()):
        assert shown.encode()
    with pytest.raises(ShardError, match=r"manifest\.json: expected JSON, got: "):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nowhere", "link to itself"])
def test_verify_reports_a_manifest_that_is_no_file(tmp_path, kind):
    path = tmp_path / "manifest.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("manifest.json" if kind == "link to itself" else "nowhere")
    report = verify(tmp_path)
    assert [problem.path for problem in report.problems] == ["manifest.json"]
    assert str(report)


@pytest.mark.parametrize("name", ["shards/shard-00001.h5", "shards/.a.h5.0123456789abcdef.tmp"])
def test_a_pipe_in_a_run_folder_is_reported_and_not_waited_for(tmp_path, name):
    make_run(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    assert [problem.path for problem in verify(tmp_path).problems] == [name]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("recipe", 3, "extra.recipe: expected an object, got '3'"),
        ("recipe", {"share": "all"}, r"recipe.share: expected a number in \[0, 1\), got 'all'"),
        ("recipe", {"share": 1.0}, r"recipe.share: expected a number in \[0, 1\), got '1.0'"),
        ("recipe", {"share": True}, "recipe.share: expected a number"),
        ("recipe", {"weight": -1}, r"recipe.weight: expected a number in \(0, 1\], got '-1'"),
        ("recipe", {"classes": ["cat"]}, "recipe.classes: expected all or rare"),
        ("recipe", {"soft": "no"}, "recipe.soft: expected true or false, got 'no'"),
        ("recipe", {"real_only_last": 2}, "recipe.real_only_last: expected a number"),
        ("plan", {"a": 1}, "extra.plan: expected a list of objects"),
        ("plan", [{"share": None}], r"extra.plan\[0\].share: expected a number in \[0, 1\), got"),
        ("plan", [{"target_count": -1}], r"plan\[0\].target_count: expected an integer >= 0"),
        ("plan", [{"target_count": 2**50}], "expected what memory can hold, got extra.plan of"),
        ("recipe", None, "extra.recipe: expected an object, got 'None'"),
        ("samplers", {"cat": 3}, "extra.samplers: expected an object of strings"),
        ("search", {"seed": "x"}, "extra.search.seed: expected an integer, got 'x'"),
    ],
)
def test_what_is_gone_by_is_checked(tmp_path, name, value, message):
    make_run(tmp_path)
    resealed(tmp_path, lambda document: document["extra"].update({name: value}))
    with pytest.raises(ShardError, match=message):
        vaeaug.merge((np.zeros((9, 8, 8), np.uint8), np.arange(9) % 3), tmp_path)
    [problem] = verify(tmp_path).problems
    assert problem.kind == "manifest"


def test_a_verdict_that_is_none_is_refused(tmp_path):
    make_run(tmp_path)
    resealed(tmp_path, lambda document: document.update(gate={"verdict": ["helps"]}))
    with pytest.raises(ShardError, match=r"gate\.verdict: expected one of helps, does not help"):
        Manifest.load(tmp_path)


def test_numbers_beyond_floats_are_no_range(tmp_path):
    make_run(tmp_path)
    resealed(tmp_path, lambda document: document.update(value_range=[0, 10**400]))
    with pytest.raises(ShardError, match="value_range: expected two finite numbers"):
        Manifest.load(tmp_path)


# -- Seals -------------------------------------------------------------------------------------


def test_what_is_sealed_comes_back_and_no_changed_byte_does():
    document = {"a": [1, 2.5, None, True], "ç": "\n", "b": {"c": ""}}
    data = sealed(document)
    assert unsealed(data) == document
    for at in range(len(data)):
        for bit in (1, 64):
            changed = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            try:
                found = unsealed(changed)
            except JSONTextError:
                continue
            # White space is no content.
            assert found == document
            assert chr(data[at]).isspace()


@pytest.mark.parametrize("text", ["[]", "3", '"a"', "{}", '{"sha256": 3}', "", "\ufeff{}"])
def test_what_has_no_seal_is_refused(text):
    with pytest.raises(JSONTextError):
        unsealed(text.encode())


def test_a_hundred_levels_are_read():
    text = "[" * 100 + "1.5" + "]" * 100
    assert json.dumps(parse_strict(text)) == text
