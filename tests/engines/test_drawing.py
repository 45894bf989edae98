"""A run is the same bytes wherever its classes are drawn, and when workers or the driver die."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_job import TINY, contents, digits, tiny_config

import vaeaug
from vaeaug.cli import main
from vaeaug.engines import Engine, EngineError
from vaeaug.job import class_tasks
from vaeaug.job.class_tasks import DrawClass
from vaeaug.job.pipeline import train_only
from vaeaug.shards import Manifest, sha256_file

# Small shards, so that classes take several.
TOTALS = {"zero": 1100, "one": 600, "two": 40, "three": 300}
CONFIG = tiny_config(**{"shards.max_bytes": 65_536, "plan.sampling_strategy": TOTALS})
TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "trained"
    return train_only(digits(), out, CONFIG, device="cpu", progress=False)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """Drawn here, one class after another."""
    return drawn(model, tmp_path_factory.mktemp("here") / "run")


def drawn(model, out, engine=None, config=CONFIG):
    vaeaug.generate(model, digits(), out, config, device="cpu", progress=False, engine=engine)
    return out


def test_processes_draw_the_same_bytes(run, model, tmp_path):
    assert len(Manifest.load(run).shards) > 4
    out = drawn(model, tmp_path / "run", Engine("process", workers=2))
    assert contents(out) == contents(run)
    assert not (out / "checkpoints" / "drawn").exists()


def test_shards_are_numbered_as_they_would_have_been(run, model, tmp_path, monkeypatch):
    """Numbers that turn out otherwise than expected are changed in the files."""
    real = DrawClass.__call__
    firsts = []

    def from_far_away(self, job):
        firsts.append(job.first_shard)
        return real(self, class_tasks.replace(job, first_shard=job.first_shard + 500))

    monkeypatch.setattr(DrawClass, "__call__", from_far_away)
    assert contents(drawn(model, tmp_path / "run", Engine("process", workers=1))) == contents(run)
    assert firsts[0] == 0


def test_a_worker_that_is_killed_changes_no_byte(run, model, tmp_path):
    """The signal reaches a worker while it writes its class."""
    out, stop = tmp_path / "run", threading.Event()
    killed = []

    def kill_one_worker():
        while not stop.is_set():
            for place in out.glob("checkpoints/drawn/*/shards/*"):
                pids = children()
                if pids and place.exists():
                    os.kill(pids[0], signal.SIGKILL)
                    killed.append(pids[0])
                    return
            time.sleep(0.001)

    thread = threading.Thread(target=kill_one_worker)
    thread.start()
    try:
        drawn(model, out, Engine("process", workers=2))
    finally:
        stop.set()
        thread.join()
    assert killed
    assert contents(out) == contents(run)


def test_a_driver_that_is_killed_goes_on_with_what_is_drawn(run, model, tmp_path):
    """Classes that tasks had drawn, and the driver had not recorded, are not drawn again."""
    script = """
import sys
sys.path.insert(0, sys.argv[4])
import vaeaug
from small_job import digits, tiny_config
if __name__ == "__main__":
    import test_drawing
    test_drawing.drawn(sys.argv[1], sys.argv[2], vaeaug.Engine("process", workers=2))
"""
    (tmp_path / "script.py").write_text(script)
    out = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(TESTS / "engines")])}
    command = [sys.executable, tmp_path / "script.py", model, out, "", str(TESTS)]
    with subprocess.Popen(command, env=environment) as driver:
        while driver.poll() is None and not any(out.glob("checkpoints/drawn/*/class.json")):
            time.sleep(0.005)
        driver.send_signal(signal.SIGKILL)
    assert not (out / "manifest.json").exists()
    places = [path.parent for path in out.glob("checkpoints/drawn/*/class.json")]
    left = {path.stat().st_ino for place in places for path in place.glob("shards/*.h5")}
    drawn(model, out, Engine("process", workers=1))
    assert contents(out) == contents(run)
    # Renamed, not made again.
    assert left <= {path.stat().st_ino for path in (out / "shards").iterdir()}


def test_what_another_job_left_is_not_taken(run, model, tmp_path):
    out = tmp_path / "run"
    work = {}
    real = class_tasks.run_tasks

    def keep(task, jobs, engine):
        work.update(task=task, jobs=jobs)
        yield from real(task, jobs, engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_tasks, "run_tasks", keep)
        drawn(model, out, Engine("process", workers=1))
    task, job = work["task"], work["jobs"][1]
    first = task(job)
    shard = task.place(job.plan.label) / first["shards"][0]["path"]
    before = shard.stat().st_mtime_ns
    assert task(job) == first
    assert shard.stat().st_mtime_ns == before
    # Of another plan, and then damaged: drawn again.
    other = class_tasks.replace(job, plan=class_tasks.replace(job.plan, n_synthetic=3))
    assert task(other)["class"]["accepted"] == 3
    assert task(job) == first
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    assert task(job) == first
    assert sha256_file(shard) == first["shards"][0]["sha256"]
    elsewhere = class_tasks.replace(task, folder=tmp_path / "elsewhere")
    with pytest.raises(EngineError, match=r"elsewhere: expected the run folder on every machine"):
        elsewhere(job)


def test_what_is_added_is_drawn_in_processes_too(tmp_path):
    """A class that goes on where it was: workers read its earlier samples."""
    more = CONFIG.changed(**{"plan.sampling_strategy": {**TOTALS, "zero": 1500, "two": 90}})
    for name, engine in (("here", None), ("there", Engine("process", workers=2))):
        vaeaug.augment(digits(), tmp_path / name, CONFIG, device="cpu", progress=False)
        settings = {"device": "cpu", "progress": False, "add": True, "engine": engine}
        vaeaug.augment(digits(), tmp_path / name, more, **settings)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_ray_draws_the_same_bytes(run, model, ray, tmp_path):
    out = drawn(model, tmp_path / "run", Engine("ray", workers=2))
    assert contents(out) == contents(run)


def test_the_command_line_takes_an_engine(tmp_path):
    options = ["--no-timing", *(f"--set={key}={value}" for key, value in TINY.items())]
    for name in ("here", "there"):
        engine = [] if name == "here" else ["--engine", "process", "--workers", "2"]
        command = ["augment", "digits", "--out", str(tmp_path / name), *options, *engine]
        assert CliRunner().invoke(main, command).exit_code == 0
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    for wrong in (["--task-gpus=0.5"], ["--engine=process", "--address=auto"]):
        refused = CliRunner().invoke(main, [*command, *wrong])
        assert refused.exit_code == 2
        assert "expected with 'ray' alone" in refused.output


def children():
    listed = Path(f"/proc/{os.getpid()}/task")
    pids = [p for task in listed.iterdir() for p in (task / "children").read_text().split()]
    # Not the process that looks after shared memory.
    return [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
