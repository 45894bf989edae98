"""What a command says before torch is imported, and interrupts that compiled code swallows."""

import contextlib
import os
import pty
import signal
import subprocess
import sys

import pytest

from vaeaug.cli._group import _interrupts_behind_errors

TRAIN = [sys.executable, "-m", "vaeaug", "train", "digits", "--out"]


@pytest.fixture
def without_torch(tmp_path):
    """An environment in which a program ends where it imports torch."""
    (tmp_path / "torch.py").write_text("raise SystemExit(7)\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}


def test_a_log_says_that_it_starts(tmp_path, without_torch):
    done = subprocess.run(
        [*TRAIN, str(tmp_path / "run")], stderr=subprocess.PIPE, env=without_torch
    )
    assert done.returncode == 7
    assert done.stderr == b"starting\n"


def test_a_spinner_turns_on_a_terminal(tmp_path, without_torch):
    ours, theirs = pty.openpty()
    done = subprocess.run([*TRAIN, str(tmp_path / "run")], stderr=theirs, env=without_torch)
    os.close(theirs)
    assert done.returncode == 7
    assert b"starting" in os.read(ours, 4096)
    os.close(ours)


@pytest.mark.parametrize("words", [["config"], ["--version"]])
def test_what_needs_no_torch_says_nothing(words, without_torch):
    command = [sys.executable, "-m", "vaeaug", *words]
    done = subprocess.run(command, capture_output=True, check=True, env=without_torch)
    assert done.stderr == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_became_an_error_is_an_interrupt(number):
    def interrupted(*_):
        raise KeyboardInterrupt(number)

    def compiled():
        with contextlib.suppress(KeyboardInterrupt):  # as compiled code forgets it
            signal.raise_signal(number)
        raise ValueError("what became of it")

    def mistaken():
        raise ValueError("its own")

    before = signal.signal(number, interrupted)
    try:
        with pytest.raises(KeyboardInterrupt, match=str(int(number))), _interrupts_behind_errors():
            compiled()
        assert signal.getsignal(number) is interrupted
        with pytest.raises(ValueError, match="its own"), _interrupts_behind_errors():
            mistaken()
    finally:
        signal.signal(number, before)
