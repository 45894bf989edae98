"""Writes: whole or not at all, through no link, by one process at a time."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vaeaug.files import (
    Claim,
    InUseError,
    append,
    claim_target,
    leftovers,
    new_file,
    new_folder,
    publish,
    recover,
)
from vaeaug.files import _writes as files

HEX = "0123456789abcdef"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere" / "precious"
    path.parent.mkdir()
    path.write_text("precious")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "here"
    path.mkdir()
    return path


# -- Files -------------------------------------------------------------------------------------


def test_a_file_is_there_when_it_is_whole(folder: Path) -> None:
    path = folder / "a"
    path.write_text("before")
    with new_file(path) as file:
        file.write(b"af")
        file.flush()
        assert path.read_text() == "before"
        [temporary] = set(names(folder)) - {"a"}
        assert temporary.startswith(".a.")
        assert temporary.endswith(".tmp")
        file.write(b"ter")
    assert path.read_text() == "after"
    assert names(folder) == ["a"]


def test_two_temporary_names_are_never_the_same(folder: Path) -> None:
    assert len({files.temporary_name("a") for _ in range(100)}) == 100


def test_an_error_leaves_what_was_there(folder: Path) -> None:
    path = folder / "a"
    path.write_text("before")

    def write() -> None:
        with new_file(path) as file:
            file.write(b"half")
            raise KeyError("b")

    with pytest.raises(KeyError):
        write()
    assert path.read_text() == "before"
    assert names(folder) == ["a"]


def test_a_link_is_replaced_and_not_followed(folder: Path, precious: Path) -> None:
    (folder / "a").symlink_to(precious)
    publish(folder / "a", b"new")
    assert precious.read_text() == "precious"
    assert not (folder / "a").is_symlink()
    assert (folder / "a").read_bytes() == b"new"


def test_appending_follows_no_link(folder: Path, precious: Path) -> None:
    append(folder / "log", b"one\n")
    append(folder / "log", b"two\n", sync=True)
    assert (folder / "log").read_bytes() == b"one\ntwo\n"
    (folder / "link").symlink_to(precious)
    with pytest.raises(OSError, match="link"):
        append(folder / "link", b"three\n")
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("write", [publish, append])
def test_errors_name_the_file_that_was_wanted(folder: Path, write) -> None:
    path = folder / "missing" / "a"
    with pytest.raises(FileNotFoundError) as error:
        write(path, b"x")
    assert error.value.filename == str(path)
    if Path("/proc/self").exists():
        with pytest.raises(OSError, match="'/proc/vaeaug'"):
            write(Path("/proc/vaeaug"), b"x")


def test_the_longest_names_are_written(folder: Path) -> None:
    for name in ("x" * 255, "ç" * 127):
        publish(folder / name, b"x")
        with claim_target(folder / name):
            pass
    assert len(names(folder)) == 2


# -- Folders -----------------------------------------------------------------------------------


def test_a_folder_takes_the_place_of_another_at_once(folder: Path) -> None:
    target = folder / "export"
    with new_folder(target) as new:
        (new / "one").touch()
        assert not target.exists()
    with new_folder(target) as new:
        (new / "two").touch()
        assert names(target) == ["one"]
    assert names(target) == ["two"]
    assert names(folder) == ["export"]


def test_a_folder_that_fails_leaves_the_old_one(folder: Path) -> None:
    target = folder / "export"
    with new_folder(target) as new:
        (new / "one").touch()

    def write() -> None:
        with new_folder(target):
            raise KeyError("b")

    with pytest.raises(KeyError):
        write()
    assert names(target) == ["one"]
    assert names(folder) == ["export"]


def test_two_folders_are_swapped_at_once_where_the_system_can(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / name).touch()
    if not files._exchange(folder / "a", folder / "b"):
        pytest.skip("this file system swaps no names")
    assert (names(folder / "a"), names(folder / "b")) == (["b"], ["a"])
    assert not files._exchange(folder / "a", folder / "missing")


def test_a_pipe_is_no_file_to_read(folder: Path) -> None:
    os.mkfifo(folder / "a")
    for read in (files.read_whole, files.open_regular):
        with pytest.raises(OSError, match="expected a file, got something else"):
            read(folder / "a")
    publish(folder / "b", b"x")
    assert files.read_whole(folder / "b") == b"x"
    os.truncate(folder / "b", files.MOST_BYTES + 1)
    with pytest.raises(OSError, match="expected at most"):
        files.read_whole(folder / "b")


KILLED = """
import os, signal, sys
from pathlib import Path
from vaeaug.files import _writes as files
files._exchange = lambda a, b: False  # a system that cannot swap two names
rename = Path.rename
def killed(self, to):
    done = rename(self, to)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = killed
with files.new_folder(Path(sys.argv[1])) as new:
    (new / "new").touch()
"""


def test_the_old_folder_comes_back_after_a_kill_between_the_renames(folder: Path) -> None:
    target = folder / "export"
    with new_folder(target) as new:
        (new / "old").touch()
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    assert len(leftovers(folder, "export")) == 2
    recover(target)
    assert names(folder) == ["export"]
    assert names(target) == ["old"]


def test_leftovers_of_other_names_stay(folder: Path) -> None:
    for name in (f".a.{HEX}.tmp", f".ab.{HEX}.tmp", ".a.tmp", f"a.{HEX}.tmp", f".a.{HEX}x.tmp"):
        (folder / name).touch()
    (folder / f".a.{HEX}.old").mkdir()
    (folder / "a").touch()
    recover(folder / "a")
    assert names(folder) == sorted(
        [f".ab.{HEX}.tmp", ".a.tmp", f"a.{HEX}.tmp", f".a.{HEX}x.tmp", "a"]
    )


# -- Claims ------------------------------------------------------------------------------------


def test_one_claim_at_a_time(folder: Path) -> None:
    with Claim(folder / ".lock"):
        with pytest.raises(InUseError):
            Claim(folder / ".lock")
        assert names(folder) == [".lock"]
    with Claim(folder / ".lock"):
        pass
    assert names(folder) == []


def test_a_planted_lock_is_not_written_through(folder: Path, precious: Path) -> None:
    (folder / ".lock").symlink_to(precious)
    with pytest.raises(OSError, match="lock"):
        Claim(folder / ".lock")
    (folder / ".lock").unlink()
    (folder / ".lock").symlink_to(folder / "not there")
    with pytest.raises(OSError, match="lock"):
        Claim(folder / ".lock")
    assert names(folder) == [".lock"]
    (folder / ".lock").unlink()
    os.mkfifo(folder / ".lock")
    with pytest.raises(OSError, match="expected no file or a lock"):
        Claim(folder / ".lock")
    assert precious.read_text() == "precious"


def _claim_and_write(path: Path, text: bytes, start: object) -> None:
    start.wait()
    try:
        with claim_target(path):
            if path.exists():
                sys.exit(3)
            publish(path, text)
    except InUseError:
        sys.exit(2)


def test_of_writers_at_once_one_writes_and_the_others_are_refused(folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        start = context.Barrier(3)
        writers = [
            context.Process(target=_claim_and_write, args=(folder / "a", b"%d" % i * 10**6, start))
            for i in range(3)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        codes = [writer.exitcode for writer in writers]
        assert codes.count(0) == 1
        assert set(codes) <= {0, 2, 3}
        assert (folder / "a").read_bytes() == b"%d" % codes.index(0) * 10**6
        assert names(folder) == ["a"]
        (folder / "a").unlink()
