import errno
import hashlib
import itertools
import multiprocessing
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from example_run import CLASS_NAMES, PROVENANCE, SHAPES, make_run, samples, writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaeaug.shards import Shard, ShardDataset, ShardError, ShardWriter, verify

COLUMNS = ("latents", "source_index", "seed", "weight", "p_label", "nn_distance", "nn_index")


def test_import_loads_neither_h5py_nor_torch():
    code = (
        "import sys, types; m = types.ModuleType('vaeaug'); m.__path__ = [sys.argv[1]]; "
        "sys.modules['vaeaug'] = m; import vaeaug.shards; "
        "assert not {'h5py', 'torch'} & sys.modules.keys()"
    )
    package = Path(__file__).parents[2] / "vaeaug"
    subprocess.run([sys.executable, "-c", code, str(package)], check=True, timeout=60)


@pytest.mark.parametrize("compress", [None, "gzip"])
@pytest.mark.parametrize("soft_labels", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("layout", list(SHAPES))
def test_what_is_written_is_read(tmp_path, layout, dtype, soft_labels, compress):
    given = samples(1, 9, layout=layout, dtype=dtype, soft_labels=soft_labels)
    with writer(tmp_path, 1, layout=layout, dtype=dtype, compress=compress) as shard_writer:
        shard_writer.append(**given)
    [entry] = shard_writer.entries
    with Shard(tmp_path / entry.path) as shard:
        np.testing.assert_array_equal(np.asarray(shard.images[...]), given["images"])
        for name in COLUMNS:
            got = getattr(shard, name)
            np.testing.assert_array_equal(got, given[name])
        assert (shard.labels == 1).all()
        assert len(shard) == entry.n == 9
        if soft_labels:
            np.testing.assert_array_equal(shard.soft_labels, given["soft_labels"])
        else:
            assert shard.soft_labels is None
        assert shard.layout == layout
        assert shard.dtype == dtype
        assert shard.sha256_decoded() == entry.sha256_decoded
        assert isinstance(shard.images, np.memmap) == (compress is None)


def test_stored_types_and_attributes_are_those_of_the_format(tmp_path):
    make_run(tmp_path, soft_labels=True)
    with h5py.File(tmp_path / "shards/shard-00001.h5") as file:
        assert {name: file[name].dtype.str for name in file if name != "quality"} == {
            "images": "|u1",
            "labels": "<i8",
            "latents": "<f4",
            "seed": "<u8",
            "soft_labels": "<f4",
            "source_index": "<i8",
            "weight": "<f4",
        }
        assert {name: dset.dtype.str for name, dset in file["quality"].items()} == {
            "nn_distance": "<f4",
            "nn_index": "<i8",
            "p_label": "<f4",
        }
        assert file["images"].chunks is None
        attributes = {
            name: value.decode() if isinstance(value, bytes) else value
            for name, value in file.attrs.items()
        }
    assert [name.decode() for name in attributes.pop("class_names")] == list(CLASS_NAMES)
    assert attributes.pop("image_value_range").tolist() == [0, 255]
    assert attributes == {
        "format": "vaeaug-shard",
        "format_version": 1,
        "synthetic": True,
        "layout": "NHWC",
        "label": 1,
        "sampler": "posterior",
        "model_sha256": PROVENANCE.model_sha256,
        "config_sha256": PROVENANCE.config_sha256,
        "data_fingerprint": PROVENANCE.data_fingerprint,
        "run_seed": 7,
        "shard_index": 1,
        "vaeaug_version": "0.1.0",
        "h5py_version": h5py.version.version,
        "hdf5_version": h5py.version.hdf5_version,
        "numpy_version": np.__version__,
    }


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump (hdf5-tools) is not installed")
@pytest.mark.parametrize("compress", [None, "gzip"])
def test_h5dump_reads_a_shard(tmp_path, compress):
    make_run(tmp_path, compress=compress)
    shard = tmp_path / "shards/shard-00000.h5"
    header = subprocess.run(
        ["h5dump", "-H", str(shard)], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert 'ATTRIBUTE "class_names"' in header
    assert "DATASPACE  SIMPLE { ( 5, 4, 3, 2 ) / ( 5, 4, 3, 2 ) }" in header
    values = subprocess.run(
        ["h5dump", "-y", "-d", "/images", str(shard)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    listed = re.search(r"DATA \{(.*?)\}", values, re.DOTALL)[1]
    images = np.array([int(v) for v in listed.replace(",", " ").split()], dtype=np.uint8)
    np.testing.assert_array_equal(images.reshape(5, 4, 3, 2), samples(0, 5)["images"])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, 40), max_size=6))
def test_batch_sizes_change_no_byte(tmp_path, cuts):
    given = samples(0, 40)
    bounds = [0, *sorted(cuts), 40]
    digests = []
    for name, edges in (("whole", [0, 40]), ("cut", bounds)):
        with writer(tmp_path / name, 0, max_bytes=10_000) as shard_writer:
            for a, b in itertools.pairwise(edges):
                batch = {k: None if v is None else v[a:b] for k, v in given.items()}
                shard_writer.append(**batch)
        digests.append([entry.sha256 for entry in shard_writer.entries])
    assert digests[0] == digests[1]


def test_same_input_gives_same_bytes_a_second_later(tmp_path):
    first = make_run(tmp_path / "a")
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, time; time.sleep(1.1); sys.path.insert(0, sys.argv[1]); "
            "import example_run; example_run.make_run(sys.argv[2])",
            str(Path(__file__).parent),
            str(tmp_path / "b"),
        ],
        check=True,
        timeout=60,
    )
    for relative in [*(entry.path for entry in first.shards), "manifest.json"]:
        assert (tmp_path / "a" / relative).read_bytes() == (tmp_path / "b" / relative).read_bytes()


@pytest.mark.parametrize("compress", [None, "gzip"])
def test_shards_stay_under_max_bytes_and_are_numbered_on(tmp_path, compress):
    max_bytes = 40_000
    with writer(
        tmp_path, 0, max_bytes=max_bytes, compress=compress, image_shape=(16, 16, 3), first_index=3
    ) as shard_writer:
        shard_writer.append(**samples(0, 150, shape=(16, 16, 3)))  # noise: deflate cannot shrink it
    entries = shard_writer.entries
    assert [entry.path for entry in entries] == [
        f"shards/shard-{3 + i:05d}.h5" for i in range(len(entries))
    ]
    assert len(entries) > 3
    for entry in entries:
        assert entry.bytes == (tmp_path / entry.path).stat().st_size <= max_bytes
    assert sum(entry.n for entry in entries) == 150
    if compress is None:  # nor are they much smaller
        assert all(entry.bytes > 0.8 * max_bytes for entry in entries[:-1])
    images = np.concatenate([Shard(tmp_path / entry.path).images[...] for entry in entries])
    np.testing.assert_array_equal(images, samples(0, 150, shape=(16, 16, 3))["images"])


def test_max_bytes_too_small_for_one_sample(tmp_path):
    with (
        pytest.raises(ShardError, match=r"max_bytes: expected at least \d+ .*, got 1000"),
        writer(tmp_path, 0, max_bytes=1000) as shard_writer,
    ):
        shard_writer.append(**samples(0, 1))


def test_memmap_equals_h5py_equals_gzip(tmp_path):
    plain = make_run(tmp_path / "plain")
    packed = make_run(tmp_path / "packed", compress="gzip")
    for a, b in zip(plain.shards, packed.shards, strict=True):
        assert a.sha256 != b.sha256
        assert a.sha256_decoded == b.sha256_decoded
        with h5py.File(tmp_path / "plain" / a.path) as file:
            through_h5py = file["images"][...]
        mapped = Shard(tmp_path / "plain" / a.path)
        chunked = Shard(tmp_path / "packed" / b.path)
        np.testing.assert_array_equal(mapped.images, through_h5py)
        np.testing.assert_array_equal(chunked.images[...], through_h5py)
        rows = [2, 0, 2, 1]
        np.testing.assert_array_equal(mapped.images_at(rows), through_h5py[rows])
        np.testing.assert_array_equal(chunked.images_at(rows), through_h5py[rows])
        chunked.close()
    with pytest.raises(ValueError, match="read-only"):
        mapped.images[0] = 0


def test_mapped_floats_are_aligned(tmp_path):
    make_run(tmp_path, layout="NLC", dtype="float32")
    with Shard(tmp_path / "shards/shard-00000.h5") as shard:
        assert shard.images.flags.aligned
        assert shard.store.offset % 64 == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: b | {"images": b["images"][:, :3]},
            r"images: expected an array of shape \(4, 4",
        ),
        (lambda b: b | {"images": b["images"] / 255}, "images: expected dtype uint8, got float64"),
        (lambda b: b | {"latents": b["latents"][:3]}, r"latents: expected shape \(4, 3\), got"),
        (lambda b: b | {"seed": -np.ones(4, int)}, r"seed: expected values of uint64, got \[-1"),
        (lambda b: b | {"nn_index": np.ones(4)}, "nn_index: expected values of int64, got float64"),
        (lambda b: b | {"soft_labels": np.ones((4, 2))}, r"soft_labels: expected shape \(4, 3\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_batches_are_refused(tmp_path, change, message):
    with pytest.raises(ShardError, match=message), writer(tmp_path, 0) as shard_writer:
        shard_writer.append(**change(samples(0, 4)))
    assert list((tmp_path / "shards").iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5, -0.1])
def test_float_images_outside_the_range_are_refused(tmp_path, value):
    batch = samples(0, 4, dtype="float32")
    batch["images"][1, 2, 1, 0] = value
    with (
        pytest.raises(ShardError, match=r"images: expected values in \[0.0, 1.0\], got"),
        writer(tmp_path, 0, dtype="float32") as shard_writer,
    ):
        shard_writer.append(**batch)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label": 3}, r"label: expected an index in \[0, 3\), got 3"),
        ({"layout": "NCHW"}, "expected a layout of"),
        ({"image_shape": (4, 3)}, "expected 3 positive image dimensions"),
        ({"dtype": "float64"}, "expected a dtype of"),
        ({"class_names": ("a", "a", "b")}, "expected each class name once, got"),
        ({"compress": "lzf"}, "expected None or 'gzip', got 'lzf'"),
        ({"value_range": (1, 0)}, "the first the smaller"),
        ({"provenance": {"run_seed": 1}}, "provenance: expected the fields"),
    ],
)
def test_bad_writers_are_refused(tmp_path, arguments, message):
    usual = {
        "label": 0,
        "class_names": CLASS_NAMES,
        "sampler": "prior",
        "image_shape": (4, 3, 2),
        "value_range": (0, 255),
        "n_latents": 3,
        "provenance": PROVENANCE,
    }
    with pytest.raises(ShardError, match=message):
        ShardWriter(tmp_path, **(usual | arguments))


def test_an_exception_publishes_nothing_unfinished(tmp_path):
    def stopped():
        with writer(tmp_path, 0, max_bytes=10_000) as shard_writer:
            shard_writer.append(**samples(0, 60))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    published = sorted((tmp_path / "shards").iterdir())
    assert 0 < sum(len(Shard(path)) for path in published) < 60
    assert {path.suffix for path in published} == {".h5"}
    with pytest.raises(ShardError, match="no manifest: the run has not finished; run the same"):
        ShardDataset(tmp_path)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from example_run import samples, writer
import h5py
w = writer(sys.argv[2], 0)
w.append(**samples(0, 20))
create = h5py.Group.create_dataset
def killed(self, name, *args, **kwargs):
    made = create(self, name, *args, **kwargs)
    if name == "images" and len(made) == 20:
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return made
h5py.Group.create_dataset = killed
w.close()
"""


def test_a_killed_writer_leaves_no_visible_shard(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path)],
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    [left] = (tmp_path / "shards").iterdir()
    assert re.fullmatch(r"\.shard-00000\.h5\.[0-9a-f]{16}\.tmp", left.name)

    make_run(tmp_path)  # the same job again
    assert not left.exists()
    assert verify(tmp_path).ok


def test_shards_behind_a_link_are_not_written(tmp_path):
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    out.mkdir()
    (elsewhere / "shard-00000.h5").write_text("precious")
    (out / "shards").symlink_to(elsewhere)
    with pytest.raises(ShardError, match=r"shards: expected a folder for the shards, got a link"):
        writer(out, 0)
    assert (elsewhere / "shard-00000.h5").read_text() == "precious"


FULL = """
import pickle, resource, signal, sys
sys.path.insert(0, sys.argv[1])
from example_run import samples, writer
from vaeaug.shards import ShardError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
w = writer(sys.argv[2], 0, image_shape=(16, 16, 3), max_bytes=100_000, compress=sys.argv[3] or None)
w.append(**samples(0, 125, shape=(16, 16, 3)))
assert len(w.entries) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    w.append(**samples(0, 100, shape=(16, 16, 3)))
    w.close()
except ShardError as error:
    assert isinstance(error.__cause__, OSError), error.__cause__
    print(error.errno, error)
"""


@pytest.mark.parametrize("compress", ["", "gzip"])
def test_no_room_removes_the_unfinished_file_and_says_so(tmp_path, compress):
    # A limit on the size of files is an error of the system as a full disk is, without a mount.
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(Path(__file__).parent), str(tmp_path), compress],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    number, _, message = done.stdout.partition(" ")
    assert int(number) == errno.EFBIG
    assert re.search(
        r"shard-00001.h5: cannot be written: File too large. It needs [\d,]+ bytes and [\d,]+ "
        r"bytes are free there; finished shards are kept \(1 of this class\)",
        message,
    )
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["shard-00000.h5"]
    assert len(Shard(tmp_path / "shards/shard-00000.h5")) > 0


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "shards").write_text("in the way")
    with pytest.raises(ShardError, match="shards: cannot be written: File exists"):
        writer(tmp_path, 0)


def _sum_of(shard):
    return int(np.asarray(shard.images[...]).sum())


@pytest.mark.parametrize("compress", [None, "gzip"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_shard_in_use_goes_to_another_process(tmp_path, method, compress):
    make_run(tmp_path, compress=compress)
    with Shard(tmp_path / "shards/shard-00000.h5") as shard:
        expected = _sum_of(shard)  # now it has handles
        assert len(pickle.dumps(shard)) < 20_000
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(_sum_of, (shard,)) == expected


def test_published_files_are_hashed_as_they_are(tmp_path):
    for entry in make_run(tmp_path).shards:
        data = (tmp_path / entry.path).read_bytes()
        assert entry.sha256 == hashlib.sha256(data).hexdigest()


SMALL = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from example_run import samples, writer
import h5py
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + 2**25, pages + 2**25))
with writer(sys.argv[2], 0, max_bytes=2**28) as w:
    w.append(**samples(0, 7))
print(w.entries[0].n)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_seven_samples_take_no_room_for_a_whole_shard(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SMALL, str(Path(__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
