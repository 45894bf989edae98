"""Tasks give the same wherever they run, also where a worker is killed in the middle of one."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import chores
import numpy as np
import pytest

from vaeaug.engines import Engine, EngineError, Tasks, run_tasks
from vaeaug.engines._payload import Payload
from vaeaug.engines._processes import _undisturbed
from vaeaug.mapping import mapped

PROCESSES = Engine("process", workers=2)


def products():
    return chores.Products(np.random.default_rng(0).standard_normal((200, 200)).astype(np.float32))


def in_order(outcomes):
    return [outcome for _, outcome in sorted(outcomes, key=lambda pair: pair[0])]


def test_processes_give_what_this_process_gives():
    here = in_order(run_tasks(products(), range(3)))
    assert len({outcome["digest"] for outcome in here}) == 3
    with Tasks(products(), PROCESSES) as tasks:
        assert in_order(tasks.run(range(3))) == here
        # The same workers go on with other tasks.
        pids = {worker._process.pid for worker in tasks._runner._idle}
        assert in_order(tasks.run([2])) == here[2:]
        assert {worker._process.pid for worker in tasks._runner._idle} == pids
    assert {outcome["threads"] for outcome in here} == {1}


def test_a_task_whose_worker_is_killed_is_done_again(tmp_path):
    work = chores.Killed(str(tmp_path), victim=1, times=2)
    assert in_order(run_tasks(work, range(4), PROCESSES)) == ["0: 1", "1: 3", "2: 1", "3: 1"]


def test_a_task_that_always_ends_its_worker_is_named(tmp_path):
    work = chores.Killed(str(tmp_path), victim=2, times=99)
    with pytest.raises(EngineError, match=r"task 3 of 3.* ended 3 times: it was killed, as the sy"):
        list(run_tasks(work, range(3), PROCESSES))
    assert (tmp_path / "begun-2").read_text() == "xxx"


@pytest.mark.parametrize("engine", [Engine(), PROCESSES])
def test_the_error_of_a_task_is_the_error_of_the_run(engine):
    with pytest.raises(ValueError, match="expected no 1") as caught:
        list(run_tasks(chores.refuse, range(3), engine))
    if engine is PROCESSES:
        assert any("in refuse" in note for note in caught.value.__notes__)


def test_nothing_is_left_when_it_is_over(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEAUG_CACHE", str(tmp_path))
    with Tasks(products(), PROCESSES) as tasks:
        list(tasks.run([0]))
        (file,) = tmp_path.iterdir()
        assert file.stat().st_size >= 200 * 200 * 4
        (worker,) = tasks._runner._idle
    assert not list(tmp_path.iterdir())
    assert not worker._process.is_alive()


def test_work_that_cannot_be_sent_is_refused():
    with pytest.raises(EngineError, match=r"expected work that can be sent .* no lambda"):
        list(run_tasks(lambda job: job, range(2), PROCESSES))


def test_workers_end_with_a_driver_that_is_killed(tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import chores
from vaeaug.engines import Engine, run_tasks
if __name__ == "__main__":
    list(run_tasks(chores.report_and_sleep, sys.argv[1:], Engine("process", workers=2)))
"""
    (tmp_path / "script.py").write_text(script)
    marks = [tmp_path / "first", tmp_path / "second"]
    with subprocess.Popen([sys.executable, tmp_path / "script.py", *marks]) as driver:
        wait_until(lambda: all(mark.exists() and mark.read_text() for mark in marks))
        driver.send_signal(signal.SIGKILL)
    pids = [int(mark.read_text()) for mark in marks]
    wait_until(lambda: not any(is_running(pid) for pid in pids))


def test_a_script_without_a_main_part_is_told_so(tmp_path):
    script = """
import math
from vaeaug.engines import Engine, run_tasks
list(run_tasks(math.sqrt, [1, 4], Engine("process", workers=2)))
"""
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert 'needs its main part under `if __name__ == "__main__":`' in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "slurm"}, "expected one of local, process, ray, got 'slurm'"),
        ({"name": "process", "workers": 0}, "workers: expected 1 or more, got 0"),
        ({"name": "process", "gpus": 0.5}, "expected with 'ray' alone"),
        ({"name": "ray", "gpus": -1}, "gpus: expected 0 or more, got -1"),
        ({"name": "ray", "cpus": 0}, "cpus: expected more than 0, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(EngineError, match=message):
        Engine(**settings)


def test_ray_gives_what_this_process_gives(ray, tmp_path):
    engine = Engine("ray", workers=2)
    here = in_order(run_tasks(products(), range(3)))
    assert in_order(run_tasks(products(), range(3), engine)) == here
    # Who connected to Ray before stays connected.
    assert ray.is_initialized()
    killed = chores.Killed(str(tmp_path), victim=1, times=1)
    assert in_order(run_tasks(killed, range(3), engine)) == ["0: 1", "1: 2", "2: 1"]
    with pytest.raises(ValueError, match="expected no 1"):
        list(run_tasks(chores.refuse, range(3), engine))
    with pytest.raises(EngineError, match=r"expected a machine with 1 cores and 0.5 GPUs"):
        list(run_tasks(chores.refuse, range(3), Engine("ray", workers=2, gpus=0.5)))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'vaeaug\[ray\]'"):
        list(run_tasks(chores.refuse, range(3), Engine("ray")))


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_running(pid):
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_signal_during_the_start_of_a_worker_comes_after_it():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("handled"))
    try:
        with _undisturbed():
            # To this thread: others of the process, which runs tests, would take it in their time.
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            # What begins here has it blocked, until it has said what it does with it.
            assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
            assert not seen
        assert seen == ["handled"]
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_workers_share_lies_where_large_files_do(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEAUG_CACHE", str(tmp_path / "not" / "yet"))
    array = np.arange(100_000)
    payload = Payload.of(array)
    assert Path(payload.path).parent == tmp_path / "not" / "yet"
    np.testing.assert_array_equal(payload.load(), array)
    payload.discard()
    assert list((tmp_path / "not" / "yet").iterdir()) == []


def test_what_is_mapped_from_a_file_is_not_written_again(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEAUG_CACHE", str(tmp_path / "shared"))
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (500, 300), dtype=np.uint8)
    (tmp_path / "rows.bin").write_bytes(b"head" + rows.tobytes())
    images = mapped(tmp_path / "rows.bin", rows.shape, rows.dtype, offset=4)
    view = np.asarray(np.memmap(tmp_path / "rows.bin", np.uint8, "r", 4, rows.shape)[40:])
    written = np.asarray(np.memmap(tmp_path / "changes.bin", np.uint8, "w+", shape=rows.shape))
    written[:] = rows
    payload = Payload.of({"images": images[7:], "view": view, "own": rows, "written": written})
    size = Path(payload.path).stat().st_size
    assert 2 * rows.nbytes <= size < 3 * rows.nbytes  # what is in memory, and what may change
    found = payload.load()
    for name, expected in {"images": rows[7:], "view": rows[40:]}.items():
        np.testing.assert_array_equal(found[name], expected)
    np.testing.assert_array_equal(found["own"], rows)
    np.testing.assert_array_equal(found["written"], rows)
    payload.discard()
    # Without a name there is nothing to map.
    (tmp_path / "rows.bin").unlink()
    payload = Payload.of(images)
    assert Path(payload.path).stat().st_size >= rows.nbytes
    payload.discard()
