"""OUT: who may write there, what may go on there, and what is never touched."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vaeaug.config import AugmentConfig, ConfigError
from vaeaug.job.folder import CONTENTS, RunError, RunFolder, read_run, run_versions

DATA = {"fingerprint": "a" * 64, "source": "cats"}
needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")


def enter(path: Path, *, data: dict[str, Any] = DATA, more: Any = (), **keys: Any) -> RunFolder:
    return RunFolder(path, config=AugmentConfig().changed(**keys), data=data, **dict(more))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(kind: type[Exception], *arguments: Any, **keys: Any) -> str:
    with pytest.raises(kind) as error:
        enter(*arguments, **keys)
    return str(error.value)


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """A run that has begun and left a model."""
    out = tmp_path / "deep" / "out"
    with enter(out):
        (out / "model").mkdir()
        (out / "model" / "config.json").write_text("{}")
    return out


# -- Going on ----------------------------------------------------------------------------------


def test_a_new_folder_is_made_and_described(started: Path) -> None:
    run = read_run(started)
    assert run["config"] == json.loads(json.dumps(AugmentConfig().to_json()))
    assert run["data"] == DATA
    assert run["versions"] == run_versions()
    assert names(started) == ["model", "run.json"]


def test_the_same_run_goes_on_and_changes_nothing(started: Path) -> None:
    before = (started / "run.json").read_bytes()
    with enter(started) as run:
        assert (run.model / "config.json").read_text() == "{}"
        assert not run.is_complete
    assert (started / "run.json").read_bytes() == before


def test_a_mapping_strategy_is_the_same_after_a_trip_to_disk(tmp_path: Path) -> None:
    keys = {"plan.sampling_strategy": {3: 100, "cat": 20}, "data.class_counts": {0: 5}}
    with enter(tmp_path / "out", **keys):
        pass
    with enter(tmp_path / "out", **keys) as run:
        assert read_run(run.path)["config"]["plan"]["sampling_strategy"] == {"3": 100, "cat": 20}


def test_another_configuration_is_refused_naming_every_key(started: Path) -> None:
    before = (started / "run.json").read_bytes()
    message = refused(ConfigError, started, **{"model.beta": 2.0, "seed": 4})
    assert message == (
        f"{started}: a run of another configuration is here; changed: model.beta: 1.0 -> 2.0; "
        "seed: 0 -> 4. Give the old values, another --out, or --no-resume to delete that run and "
        "start again"
    )
    assert (started / "run.json").read_bytes() == before
    assert names(started) == ["model", "run.json"]


def test_other_data_is_refused(started: Path) -> None:
    message = refused(ConfigError, started, data={"fingerprint": "b" * 64, "source": "dogs"})
    assert "changed: data: 'cats' of fingerprint aaaaaaaaaaaa -> 'dogs' of bbbbbbbbbbbb" in message


def test_another_generator_is_refused(started: Path) -> None:
    message = refused(ConfigError, started, data={**DATA, "generator": "c" * 64})
    assert f"changed: generator: trained here -> {'c' * 64}" in message


@pytest.mark.parametrize("leftover", [".lock", ".run.json.0123456789abcdef.tmp"])
def test_what_a_killed_process_left_does_not_stop_the_next(tmp_path: Path, leftover: str) -> None:
    (tmp_path / leftover).write_text("half")
    with enter(tmp_path):
        pass
    assert names(tmp_path) == ["run.json"]


def test_what_killed_trainings_of_splits_left_is_removed(tmp_path: Path) -> None:
    with enter(tmp_path):
        pass
    left = tmp_path / "evaluation" / "search" / "split-00" / ".samples.npz.0123456789abcdef.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    (left.parent / "samples.npz").write_text("whole")
    with enter(tmp_path):
        pass
    assert [path.name for path in left.parent.iterdir()] == ["samples.npz"]


# -- What is not ours --------------------------------------------------------------------------


def test_a_folder_of_something_else_is_refused_and_untouched(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"thesis-{number}.tex").write_text("precious")
    message = refused(RunError, tmp_path)
    assert message == (
        f"{tmp_path}: expected an empty folder or a run of vaeaug, got thesis-0.tex, thesis-1.tex, "
        "thesis-2.tex, thesis-3.tex, thesis-4.tex, ...; nothing was changed"
    )
    assert refused(RunError, tmp_path, more={"resume": False}) == message
    assert names(tmp_path) == [f"thesis-{number}.tex" for number in range(7)]


def test_starting_again_deletes_what_a_run_writes_and_nothing_else(started: Path) -> None:
    for name in CONTENTS:
        path = started / name
        if "." not in name:
            path.mkdir(exist_ok=True)
            (path / "old").write_text("old")
        elif name != "run.json":
            path.write_text("old")
    (started / "notes.txt").write_text("mine")
    with enter(started, more={"resume": False}, **{"seed": 4}):
        pass
    assert names(started) == ["notes.txt", "run.json"]
    assert read_run(started)["config"]["seed"] == 4


def test_starting_again_does_not_follow_a_link(started: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    (started / "shards").symlink_to(elsewhere)
    with enter(started, more={"resume": False}):
        pass
    assert names(elsewhere) == ["precious"]
    assert not (started / "shards").exists()


@pytest.mark.parametrize("name", ["shards", "checkpoints", "model", "evaluation"])
def test_a_linked_folder_is_refused_before_anything_is_touched(
    started: Path, tmp_path: Path, name: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "shard-00000.h5").write_text("precious")
    if (started / name).exists():
        shutil.rmtree(started / name)
    (started / name).symlink_to(elsewhere)
    before = (started / "run.json").read_bytes()
    message = refused(RunError, started)
    assert message.startswith(f"{started / name}: expected a folder of this run, got a link to ")
    assert "nothing was changed" in message
    assert (elsewhere / "shard-00000.h5").read_text() == "precious"
    assert (started / "run.json").read_bytes() == before
    assert ".lock" not in names(started)


def test_planted_links_are_not_written_through(tmp_path: Path) -> None:
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.write_text("precious")
    out.mkdir()
    (out / ".lock").symlink_to(precious)
    assert "expected a folder that can be written, got: " in refused(RunError, out)
    (out / ".lock").unlink()
    (out / ".lock").symlink_to(tmp_path / "made")
    refused(RunError, out)
    (out / ".lock").unlink()
    with enter(out):
        (out / "run.json").unlink()
    (out / "run.json").symlink_to(tmp_path / "made")
    with enter(out):
        pass
    assert not (tmp_path / "made").exists()
    assert precious.read_text() == "precious"
    assert read_run(out)["data"] == DATA


def test_what_killed_writers_left_is_deleted(started: Path) -> None:
    left = [
        started / ".manifest.json.0123456789abcdef.tmp",
        started / "shards" / ".shard-00003.h5.0123456789abcdef.tmp",
        started / "checkpoints" / ".trunk.pt.0123456789abcdef.tmp",
    ]
    mine = started / ".notes.0123456789abcdef.tmp"
    for path in (*left, mine):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with enter(started):
        assert not any(path.exists() for path in left)
    assert mine.exists()


# -- The lock ----------------------------------------------------------------------------------

HOLDER = """
import sys
from vaeaug.config import AugmentConfig
from vaeaug.job.folder import RunFolder
with RunFolder(sys.argv[1], config=AugmentConfig(), data={"fingerprint": "a" * 64}):
    print("in", flush=True)
    sys.stdin.readline()
"""


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        for resume in (True, False):
            assert refused(RunError, tmp_path, more={"resume": resume}) == (
                f"{tmp_path}: the folder is locked by another vaeaug process; wait for it or stop "
                "it"
            )
        assert names(tmp_path) == [".lock", "run.json"]
        holder.communicate("\n")
    assert holder.returncode == 0
    with enter(tmp_path):
        assert names(tmp_path) == [".lock", "run.json"]
    assert names(tmp_path) == ["run.json"]


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "in\n"
        holder.kill()
    assert (tmp_path / ".lock").exists()
    with enter(tmp_path):
        pass
    assert names(tmp_path) == ["run.json"]


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), enter(tmp_path):
        _ = 1 / 0
    with enter(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


# -- The disk ----------------------------------------------------------------------------------


def test_out_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("precious")
    message = refused(RunError, path)
    assert message == f"{path}: expected a folder for the run, got a file"
    assert "cannot make the folder: Not a directory" in refused(RunError, path / "inside")
    assert path.read_text() == "precious"


@needs_proc
def test_out_cannot_be_made_or_written() -> None:
    assert refused(RunError, Path("/proc/vaeaug")).startswith(
        "/proc/vaeaug: cannot make the folder: "
    )
    assert refused(RunError, Path("/proc")).startswith(
        "/proc: expected a folder that can be written, got: "
    )


def test_what_the_disk_cannot_hold_is_not_started(tmp_path: Path) -> None:
    needed = shutil.disk_usage(tmp_path).free + 2**50
    message = refused(RunError, tmp_path / "out", more={"needed": needed})
    assert message.startswith(f"{tmp_path / 'out'}: no space: expected at least ")
    wanted, free = (text.split(" MiB")[0] for text in message.split("least ")[1].split("got "))
    assert int(wanted.replace(",", "")) >= int(free.replace(",", "")) + 2**29
    assert "plan.max_synthetic_ratio" in message
    assert names(tmp_path / "out") == []
    # With a smaller plan it goes on: a run that never began is no other configuration.
    with enter(tmp_path / "out", **{"plan.max_synthetic_ratio": 0.5}):
        pass


def test_shards_that_are_there_need_no_space(started: Path) -> None:
    shard = started / "shards" / "shard-00000.h5"
    shard.parent.mkdir()
    shard.touch()
    os.truncate(shard, 2**40)  # sparse
    needed = shutil.disk_usage(started).free + 2**39
    with enter(started, more={"needed": needed}):
        pass


def test_a_finished_run_needs_no_space(started: Path) -> None:
    (started / "manifest.json").touch()
    with enter(started, more={"needed": 2**60}) as run:
        assert run.is_complete


# -- Reading run.json --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a run of vaeaug, but run.json is missing"),
        (b"{", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[]", "expected the description of a run of vaeaug, got something else"),
        (b'{"format": "x"}', "expected the description of a run of vaeaug, got something else"),
        (
            b'{"format": "vaeaug-run", "format_version": 2}',
            "expected format version 1, got 2; a newer vaeaug wrote it",
        ),
    ],
)
def test_a_wrong_description_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError) as error:
        read_run(tmp_path)
    assert str(error.value).startswith(str(tmp_path))
    assert message in str(error.value)


# A disk without locks, which few machines have at hand: the kernel itself is told to refuse `flock`
# (a seccomp filter of four instructions: load the number of the call, compare, refuse or allow).
NO_LOCKS = """
import ctypes, errno, logging, os, pathlib, platform, socket, struct, sys
from vaeaug.config import AugmentConfig
from vaeaug.files import is_claimed
from vaeaug.job.folder import RunError, RunFolder
number = {"x86_64": 73, "aarch64": 32}[platform.machine()]
refused = 0x00050000 | errno.ENOLCK
program = b"".join(
    struct.pack("HBBI", *each)
    for each in ((0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, refused), (6, 0, 0, 0x7FFF0000))
)
code = ctypes.create_string_buffer(program)
head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, head, 0, 0):
    sys.exit(77)
def enter():
    return RunFolder(sys.argv[1], config=AugmentConfig(), data={"fingerprint": "a" * 64})

logging.basicConfig(stream=sys.stdout, format="%(message)s")
held = pathlib.Path(sys.argv[1], ".lock.held")
with enter():
    assert held.read_text() == f"{os.getpid()} {socket.gethostname()}"
    assert is_claimed(held.with_suffix(""))
    try:
        enter()
    except RunError as error:
        print(error)
assert not held.exists()
ended = os.fork()
if not ended:
    os._exit(0)
os.waitpid(ended, 0)
held.write_text(f"{ended} {socket.gethostname()}")
assert not is_claimed(held.with_suffix(""))
with enter():
    pass
held.write_text("1 elsewhere")
try:
    enter()
except RunError as error:
    print(error)
"""


@needs_proc
def test_on_a_disk_without_locks_a_file_keeps_others_away(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_LOCKS, str(tmp_path)], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("this kernel takes no filter of calls")
    assert done.returncode == 0, done.stderr
    said, refused, again, elsewhere = done.stdout.splitlines()
    assert said == again
    assert said.startswith(f"{tmp_path}: this disk has no file locks; .lock.held keeps other")
    mine = f"{tmp_path}: the folder is locked by another vaeaug process (process "
    assert refused.startswith(mine)
    assert elsewhere == (
        f"{mine}1 of elsewhere has claimed it; if that has ended, delete {tmp_path}/.lock.held); "
        "wait for it or stop it"
    )
