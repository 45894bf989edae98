"""How far long work has come is said, on a terminal and off it."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_job import digits, tiny_config

import vaeaug
from vaeaug import progress as room
from vaeaug.progress import shown


def test_a_line_now_and_then_where_no_one_watches(monkeypatch, caplog):
    monkeypatch.setattr(room, "EVERY", 0.05)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, logger="vaeaug")

    def wait_for(beginning):
        deadline = time.monotonic() + 30
        while not any(line.startswith(beginning) for line in caplog.messages):
            assert time.monotonic() < deadline, caplog.messages
            time.sleep(0.01)

    with shown(None) as report:
        wait_for("at work for ")
        report("trunk", 7, 20, {})
        wait_for("trunk: 7 of 20 (")
        report("trunk", 20, 20, {})
        wait_for("trunk: 20 of 20, what follows it is under way (")
    said = list(caplog.messages)
    time.sleep(0.2)
    assert caplog.messages == said, "nothing is said afterwards"


def test_the_time_left_is_that_of_all_stages(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    expected = {"classifier": 10.0, "trunk": 60.0, "screening": 20.0, "drawing": 10.0}
    whole = room.Whole(expected)
    assert whole.seconds_left == 100
    whole.report("classifier", 5, 10)
    assert whole.done == pytest.approx(0.05)
    whole.report("trunk", 30, 60)
    assert whole.done == pytest.approx(0.4)
    now[0] += 80  # twice as slow as it was expected to be
    assert whole.seconds_left == pytest.approx(120)
    assert str(whole) == "about 2 min left"
    # The classifiers of screening report by the name of that of training.
    whole.report("classifier", 10, 20)
    assert whole.done == pytest.approx(0.8)
    whole.report("drawing [/b]", 1, 3)
    assert 0.9 < whole.done < 1
    assert whole.is_known
    whole.report("probes", 1, 30)
    assert not whole.is_known


def test_lines_say_the_time_left(monkeypatch, caplog):
    monkeypatch.setattr(room, "EVERY", 0.05)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, logger="vaeaug")
    with shown(None, expected={"trunk": 600.0}) as report:
        report("trunk", 5, 20, {})
        deadline = time.monotonic() + 30
        while not any("trunk: 5 of 20 (" in line for line in caplog.messages):
            assert time.monotonic() < deadline, caplog.messages
            time.sleep(0.01)
    assert any(
        "in all; about 7 min left)" in line or "8 min left" in line for line in caplog.messages
    )


def test_false_is_silent_and_a_function_is_itself(monkeypatch, caplog):
    monkeypatch.setattr(room, "EVERY", 0.02)
    caplog.set_level(logging.INFO, logger="vaeaug")
    with shown(False) as report:
        assert report is None
        time.sleep(0.1)
    calls = []
    with shown(lambda *each: calls.append(each)) as report:
        report("adapt", 1, 2, {})
        time.sleep(0.1)
    assert calls == [("adapt", 1, 2, {})]
    assert not caplog.messages


@pytest.mark.parametrize("quiet", [False, True])
def test_bars_on_a_terminal(tmp_path, quiet):
    """In a real terminal, with a class whose name is markup."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from small_job import digits, tiny_config\n"
        "from dataclasses import replace\n"
        "import vaeaug\n"
        "data = replace(digits(), class_names=('[/b]', 'one', '[red]two', 'three'))\n"
        "vaeaug.augment(data, sys.argv[1], tiny_config(), progress=sys.argv[3] == 'False' and None,"
        " expected={'trunk': 5.0, 'adapt': 2.0, 'screening': 1.0, 'drawing': 1.0})"
    )
    leader, follower = pty.openpty()
    arguments = [str(tmp_path / "out"), str(Path(__file__).parent), str(quiet)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stderr=follower,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(follower)
        seen = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            seen += piece
    os.close(leader)
    text = seen.decode(errors="replace")
    assert process.returncode == 0, text
    assert vaeaug.verify(tmp_path / "out").ok
    if quiet:
        assert "trunk" not in text
    else:
        assert "trunk" in text
        assert "drawing [/b]" in text
        assert "10/10" in text
        assert "100 %" in text
        assert "in all" in text
        assert re.search(r"about \d+ s left", text)


@pytest.mark.parametrize("how", ["mapping", "yaml", "path"])
def test_a_configuration_may_be_a_mapping_or_a_file(tmp_path, how):
    given = {"model.width": 8, "training.steps": 9, "restoration.steps": 0}
    if how != "mapping":
        path = tmp_path / "job.yaml"
        path.write_text("model: {width: 8}\ntraining: {steps: 9}\nrestoration: {steps: 0}\n")
        given = str(path) if how == "yaml" else path
    steps = []
    vaeaug.fit(digits(), given, progress=lambda what, done, total, _: steps.append((what, total)))
    assert ("trunk", 9) in steps


def test_a_configuration_may_be_the_mapping_of_another(tmp_path):
    nested = tiny_config().model_dump()
    result = vaeaug.augment(digits(), tmp_path / "out", nested, progress=False)
    assert result.manifest.config_sha256 == tiny_config().sha256


@pytest.mark.usefixtures("unchecked")
def test_other_configurations_are_refused():
    with pytest.raises(vaeaug.ConfigError, match="the path of a YAML file or None, got int"):
        vaeaug.fit(digits(), 3)
    with pytest.raises(vaeaug.ConfigError, match=r"training\.step"):
        vaeaug.fit(digits(), {"training.step": 3})
