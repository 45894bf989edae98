"""The command in two processes, started as torchrun starts them: Ctrl-C, resumption, refusals."""

import os
import signal
import socket
import subprocess
import sys
import time

import vaeaug
from tests.small_job import as_options, contents
from tests.training.test_processes import two_processes
from vaeaug.job.folder import read_run
from vaeaug.job.pipeline import train_only
from vaeaug.job.state import state_of

JOB = {
    "training.steps": 40,
    "training.eval_every": 20,
    "training.checkpoint_every": 1000,
    "restoration.steps": 4,
}


def start(*arguments: str) -> list[subprocess.Popen]:
    """Start both processes of a command."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "vaeaug", *arguments],
            env=os.environ | place | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]


def end_of(processes) -> tuple[str, str]:
    """Stdout and stderr of the first process; the second one says nothing and ends the same."""
    try:
        (stdout, stderr), other = (each.communicate(timeout=120) for each in processes)
    finally:
        for each in processes:
            each.kill()
    assert other == ("", "")
    assert processes[0].returncode == processes[1].returncode
    return stdout, stderr


def test_interrupted_and_resumed(tmp_path, caplog):
    """Both end with the code of the first; a run that goes on has the bytes of an untouched one."""
    out = tmp_path / "run"
    command = ["train", "digits", "--out", str(out), *as_options(**JOB)]
    processes = start(*command)
    log = out / "metrics.jsonl"
    while not (log.exists() and '"trunk"' in log.read_text()) and processes[0].poll() is None:
        time.sleep(0.02)
    for process in processes:
        process.send_signal(signal.SIGINT)
    _, stderr = end_of(processes)
    assert processes[0].returncode == 130, stderr
    resume = "resume with: torchrun --standalone --nproc-per-node=2 -m vaeaug train digits"
    assert stderr.count("vaeaug: ") == 1
    assert resume in stderr
    assert read_run(out)["processes"] == 2
    assert state_of(out)["next"].startswith("torchrun --standalone --nproc-per-node=2 -m vaeaug")

    processes = start(*command)
    stdout, stderr = end_of(processes)
    assert processes[0].returncode == 0, stderr
    assert str(out / "model") in stdout
    config = vaeaug.load_config(
        None, [option.removeprefix("--set=") for option in as_options(**JOB)]
    )
    data = vaeaug.read("digits", split="train")
    with two_processes():
        train_only(data, tmp_path / "untouched", config, device="cpu", progress=False)
    found, expected = contents(out), contents(tmp_path / "untouched")
    assert {name for name in expected if found[name] != expected[name]} <= {"run.json"}

    # A run of two that goes on alone says so.
    (out / "model" / "config.json").unlink()
    train_only(data, out, config, device="cpu", progress=False)
    assert "the run began with 2 processes and goes on with 1" in caplog.text


def test_a_command_that_is_not_divided_is_refused_once():
    processes = start("plan", "digits")
    _, stderr = end_of(processes)
    assert processes[0].returncode == 2
    assert "plan: expected one process, got 2 by torchrun" in stderr
