"""Files that would hang a reader, crash it, or take all memory: each gets a clear error."""

import contextlib
import gzip
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from vaeaug.data import DataError, read, read_pool
from vaeaug.data.formats import hdf5_process
from vaeaug.memory import available_memory, memory_errors, require_memory, sized

N = 6
LABELS = np.arange(N) % 2
TIB = 2**40


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (N, 5, 4), dtype=np.uint8)


def refused(path, *parts, **keys):
    with pytest.raises(DataError) as error:
        read(path, **keys)
    for part in (str(path), *parts):
        assert part in str(error.value)
    return str(error.value)


# -- HDF5 --------------------------------------------------------------------------------------


@pytest.fixture
def endless(tmp_path, images):
    """A heap of texts that keeps HDF5 busy: an object of it begins where the one before does."""
    path = tmp_path / "endless.h5"
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = images, LABELS
        file.attrs["class_names"] = ["cat", "dog"]
    assert read(path).class_names == ("cat", "dog")
    data = bytearray(path.read_bytes())
    # "GCOL", a version and three bytes, 8 bytes of size; an object's number, references and four
    # bytes before its own size.
    at = data.index(b"GCOL") + 16 + 8
    assert data[at : at + 8] == (3).to_bytes(8, "little")
    # Eight less than its head: the next object begins where this one does.
    data[at : at + 8] = (2**64 - 16).to_bytes(8, "little")
    path.write_bytes(data)
    return path


def test_a_file_that_hdf5_never_ends_reading_is_an_error(endless, monkeypatch):
    monkeypatch.setattr(hdf5_process, "SECONDS", 2.0)
    refused(endless, "expected an HDF5 file that can be read, got no answer within 2 seconds of")


def test_a_disk_that_does_not_answer_is_an_error(tmp_path, images, monkeypatch):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = images, LABELS
    monkeypatch.setattr(hdf5_process, "SECONDS", 0.1)
    with hdf5_process.ForeignHDF5(path) as file:
        file._process.send_signal(signal.SIGSTOP)
        with pytest.raises(DataError, match=r"within 1 seconds of .*: its disk does not answer"):
            file.names()


ORPHAN = """
import sys
from pathlib import Path
from vaeaug.data.formats import hdf5_process
hdf5_process.SECONDS = 1.0
with hdf5_process.ForeignHDF5(Path(sys.argv[1])) as file:
    file.names()
    print(file._process.pid, flush=True)
    file.attribute(None, "class_names")
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_reader_without_a_parent_ends_as_well(endless):
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(endless)], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = Path("/proc") / parent.stdout.readline().strip()
        time.sleep(0.3)
        parent.kill()
    assert child.exists()
    until = time.monotonic() + 10
    while child.exists() and (child / "stat").read_text().rpartition(") ")[2][0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.1)


def test_hdf5_of_very_many_arrays_says_how_to_name_two(tmp_path, images):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for i in range(20_001):
            file.create_group(f"{i}")
        file["pixels"], file["kinds"] = images, LABELS
    refused(path, "expected images in one array, got more than 20,000 names", "keys=")
    data = read(path, keys={"images": "pixels", "labels": "kinds"})
    np.testing.assert_array_equal(data.images[..., 0], images)


def test_hdf5_that_declares_what_was_never_written(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (10**12, 5, 4), "uint8")
        file.create_dataset("labels", (10**12,), "int64")
    assert path.stat().st_size < 4096
    refused(
        path,
        "expected the values of 'images' in the file, got 20,000,000,000,000 bytes that are "
        "declared and were never written; HDF5 would give zeros for them",
    )


def test_hdf5_whose_chunks_were_never_written(tmp_path, images):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("images", (N, 5, 4), "uint8", chunks=(2, 5, 4))
        dataset[:4] = images[:4]
        file["labels"] = LABELS
    refused(path, "expected all of 'images' in the file, got 2 of 3 chunks")


def test_hdf5_larger_than_memory(tmp_path):
    path = tmp_path / "a.h5"
    n = 2 * TIB // 64
    with h5py.File(path, "w") as file:
        # Its storage is a hole in the file, which is as long as it says.
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        for name, shape, kind in (
            (b"images", (n, 8, 8), h5py.h5t.STD_U8LE),
            (b"labels", (n,), h5py.h5t.STD_I8LE),
        ):
            h5py.h5d.create(file.id, name, kind, h5py.h5s.create_simple(shape), plist)
    said = refused(path, "expected what memory can hold, got")
    assert "are available" in said
    with pytest.raises(DataError, match=r"\[images\]: .*, which take 2\.0 TiB; [\d.,]+ GiB are av"):
        read_pool(path, like=read("digits"))


def test_hdf5_texts_of_one_fixed_length_are_read(tmp_path, images):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["images"] = images
        file["labels"] = np.array([("çat", "dog")[c] for c in LABELS], dtype=h5py.string_dtype())
        file.create_dataset("y", data=np.array([b"cat", b"dog"])[LABELS])
    assert read(path).class_names == ("dog", "çat")
    fixed = read(path, keys={"images": "images", "labels": "y"})
    assert fixed.class_names == ("cat", "dog")
    np.testing.assert_array_equal(fixed.labels, LABELS)


def test_hdf5_whose_reader_ends_is_an_error(tmp_path, images):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["images"], file["labels"] = images, LABELS
    with hdf5_process.ForeignHDF5(path) as file:
        assert file.names() == {"images": "dataset", "labels": "dataset"}
        file._process.kill()
        with pytest.raises(DataError, match=r"ended the process reading it \(exit code -9\)"):
            file.load("images")


# -- Sizes that a file declares ----------------------------------------------------------------


def npy_head(shape, dtype="|u1"):
    head = io.BytesIO()
    about = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, about)
    return head.getvalue()


def test_npz_that_would_expand_beyond_memory(tmp_path):
    """Its sizes agree: only what is there to hold them can say that it cannot be read."""
    path = tmp_path / "a.npz"
    head, n = npy_head((2 * TIB // 64, 8, 8)), 2 * TIB
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", head + bytes(1000))
        archive.writestr("labels.npy", npy_head((2,), "<i8") + bytes(16))
    declared_in_directory(path, "images.npy", len(head) + n)
    refused(path, "[images]: expected what memory can hold", "which take 2.0 TiB")


def declared_in_directory(path, name, size):
    """Write an archive again whose directory says another size of a member."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.getinfo(name).file_size = size
        archive._didModify = True


def test_npz_header_of_gigabytes(tmp_path):
    head = b"\x93NUMPY\x02\x00" + (2**32 - 1).to_bytes(4, "little")
    path = tmp_path / "a.npy"
    path.write_bytes(head + b"{" * 100)
    with pytest.raises(DataError, match="a header of at most 10000 bytes, got 4,294,967,295"):
        read_pool(path, like=read("digits"))


@pytest.mark.parametrize("declared", [2**31, N])
def test_gzipped_idx_is_read_as_far_as_it_declares(tmp_path, images, declared):
    def idx(array, first):
        shape = (first, *array.shape[1:])
        head = (0x0800 + array.ndim).to_bytes(4, "big")
        return head + b"".join(n.to_bytes(4, "big") for n in shape) + array.tobytes()

    folder = tmp_path
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS.astype(np.uint8), N))
    data = idx(np.repeat(np.repeat(images, 40, 1), 40, 2), declared)
    # 200 MB of zeros after it, in 200 kB.
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(data + bytes(2 * 10**8)))
    said = (
        ("expected what memory can hold", "which take 62.5 TiB")
        if declared == 2**31
        else (f"expected {len(data)} bytes for shape (6, 200, 160), got more than {len(data)}",)
    )
    refused(folder, *said)


def test_a_tar_of_a_sparse_terabyte(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo("0.png")
        member.size = 512
        archive.addfile(member, io.BytesIO(bytes(512)))
    raw = bytearray(path.read_bytes())
    # An old GNU header: type S, one block of data at 0, and the whole size.
    raw[156:157] = b"S"
    raw[257:265] = b"ustar  \0"
    raw[386:398], raw[398:410] = b"%011o\0" % 0, b"%011o\0" % 512
    raw[483:495] = b"\x80" + TIB.to_bytes(11, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    path.write_bytes(raw)
    refused(path, "expected members that are stored whole, got '0.png', a sparse one")


def test_a_tar_member_that_declares_terabytes(tmp_path):
    path = tmp_path / "a.tar"
    member = tarfile.TarInfo("0.png")
    member.size = TIB * 64
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refused(path, "a member '0.png', which take 64.0 TiB")


def test_image_files_are_counted_before_they_are_decoded(tmp_path):
    """A picture of 243 MB, and 20,000 names of it: 4.4 TiB."""
    rows = ["path,label"]
    Image.fromarray(np.zeros((9000, 9000, 3), np.uint8)).save(tmp_path / "0.png")
    for i in range(1, 20_000):
        (tmp_path / f"{i}.png").hardlink_to(tmp_path / "0.png")
    rows += [f"{i}.png,{i % 2}" for i in range(20_000)]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    refused(tmp_path / "a.csv", "got 20,000 images of uint8", "which take 4.4 TiB", workers=0)


def test_names_of_files_that_no_system_takes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"{'x' * 5000}.png,cat\n")
    refused(path, "line 1: expected an image file, got no ")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(DataError, match="got a pipe or a device"):
        read_pool(tmp_path / "a.npz", like=read("digits"))
    refused(tmp_path / "a.npz", "expected a file or a folder, got a pipe or a device")


@pytest.mark.parametrize("name", ["metadata.csv", "a.csv"])
def test_a_zero_byte_in_a_path_is_refused(tmp_path, images, name):
    Image.fromarray(images[0]).save(tmp_path / "0.png")
    (tmp_path / name).write_bytes(b"file_name,label\n0.png,cat\n0\0.png,dog\n")
    in_table = name == "metadata.csv"
    refused(tmp_path if in_table else tmp_path / name, "row 2" if in_table else "line 3")


def test_parquet_that_is_damaged(tmp_path, images):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    rows = [{"file_name": f"{i}.png", "label": int(c)} for i, c in enumerate(LABELS)]
    path = tmp_path / "metadata.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, compression="snappy")
    assert read(tmp_path).class_names == ("0", "1")
    data = path.read_bytes()
    seen = 0
    for at in range(4, 300, 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        with contextlib.suppress(DataError):
            read(tmp_path)
            continue
        seen += 1
    assert seen > 5


# -- Numbers that are none ------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [19, 20, 5000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_numbers_too_long_for_a_label(tmp_path, images, digits, sign):
    long = sign + "9" * digits
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    texts = ["0", "1", long, "0", "1", long]
    rows = "".join(f"{i}.png,{text}\n" for i, text in enumerate(texts))
    (tmp_path / "a.csv").write_text(f"path,label\n{rows}")
    # In a table of texts they are what any other text is, a name.
    assert read(tmp_path / "a.csv").class_names == tuple(sorted(set(texts)))
    (tmp_path / "metadata.csv").write_text(f"file_name,label\n{rows}")
    assert read(tmp_path).class_names == tuple(sorted(set(texts)))
    (tmp_path / "metadata.csv").unlink()
    lines = [f'{{"file_name": "{i}.png", "label": {text}}}' for i, text in enumerate(texts)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    refused(tmp_path, "Exceeds the limit" if digits == 5000 else "expected labels that number")


# -- What memory there is ----------------------------------------------------------------------


def test_memory_is_what_the_machine_says():
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":") for line in file)
    left = int(lines["MemAvailable"].split()[0]) * 1024
    there = available_memory()
    assert there is not None
    assert 0 < there < 1.1 * left


def test_a_limit_on_the_address_space_counts():
    script = (
        "import resource\n"
        "from vaeaug.memory import available_memory\n"
        "pages = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (pages + 2**28, pages + 2**28))\n"
        "print(available_memory())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0.9 * 2**28 < int(done.stdout) <= 2**28


def test_what_was_not_declared_and_does_not_fit_is_an_error_too(tmp_path):
    # More than any machine addresses: Python itself refuses it.
    said = r"a\.npz: expected what memory can hold, got more: "
    with pytest.raises(DataError, match=said), memory_errors(tmp_path / "a.npz", DataError):
        bytearray(2**62)


def test_the_sentence_has_both_numbers():
    require_memory(10**6, "a.npz", "an array", DataError)
    with pytest.raises(DataError) as error:
        require_memory(3 * 2**60, "a.npz", "an array of uint8", DataError)
    there = sized(available_memory())
    assert str(error.value).startswith(
        "a.npz: expected what memory can hold, got an array of uint8, which take 3,145,728.0 TiB; "
    )
    assert str(error.value).endswith(f"{there.split()[1]} are available")


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1536, "1.5 KiB"), (5 * 2**40, "5.0 TiB")],
)
def test_sizes_are_written_as_people_say_them(n_bytes, text):
    assert sized(n_bytes) == text
