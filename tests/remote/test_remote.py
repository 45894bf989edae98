"""A run in an object store: whole or not there, sent once, and read from there by its hashes."""

import json

import fsspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_job import contents, digits, tiny_config

import vaeaug
from vaeaug.cli import main
from vaeaug.files.json_text import seal_of
from vaeaug.remote import RemoteError, Store, _store, cache_of
from vaeaug.shards import ShardError, _remote, fetch

CONFIG = tiny_config()
# Every class has enough images for synthetic ones.
DATA = digits((24, 16, 12, 9))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("here") / "run"
    vaeaug.augment(DATA, out, CONFIG, device="cpu", progress=False)
    return out


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEAUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(params=["memory", "s3"])
def url(request):
    """An empty place in a store of fsspec's own, and in one that speaks S3."""
    if request.param == "s3":
        return request.getfixturevalue("bucket")
    files = fsspec.filesystem("memory")
    if files.exists("/runs"):
        files.rm("/runs", recursive=True)
    return "memory://runs/one"


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("s3fs", reason="s3fs is not installed (vaeaug[s3])")
    moto = pytest.importorskip("moto.server", reason="moto, a local S3 server, is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "anyone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "anything")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        running = moto.ThreadedMotoServer(port=0, verbose=False)
        running.start()
        host, port = running.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        yield
        running.stop()


@pytest.fixture
def bucket(server):
    import s3fs

    files = s3fs.S3FileSystem(use_listings_cache=False)
    if files.exists("bucket"):
        files.rm("bucket", recursive=True)
    files.mkdir("bucket")
    return "s3://bucket/runs/one"


def test_what_is_sent_is_what_is_read(run, url, cache):
    pushed = vaeaug.push(run, url)
    assert pushed.n_sent == pushed.n_files - 1 == len(_remote.digests(vaeaug.Manifest.load(run)))
    copied = fetch(url)
    assert copied.is_relative_to(cache)
    manifest = vaeaug.Manifest.load(run)
    names = {"manifest.json", *_remote.digests(manifest)}
    assert contents(copied) == {name: (run / name).read_bytes() for name in names}
    assert vaeaug.verify(url).ok
    assert vaeaug.verify(copied).ok
    # A merged dataset, and a generator, are those of the run folder.
    here, there = (vaeaug.merge(DATA, place, seed=3) for place in (run, url))
    assert len(here) == len(there)
    assert all(torch.equal(here[i][0], there[i][0]) for i in range(0, len(here), 7))
    assert vaeaug.load(url).sha256 == vaeaug.load(run).sha256
    again = vaeaug.push(run, url)
    assert (again.n_sent, again.n_bytes) == (0, pushed.n_bytes)


def test_an_interrupted_push_publishes_nothing_and_goes_on(run, url, monkeypatch):
    real, sent = Store.send, []

    def interrupted(self, path, name):
        if len(sent) == 4:
            raise RemoteError("the connection is lost")
        sent.append(name)
        real(self, path, name)

    monkeypatch.setattr(_remote, "AT_ONCE", 1)
    monkeypatch.setattr(Store, "send", interrupted)
    with pytest.raises(RemoteError, match="connection is lost"):
        vaeaug.push(run, url)
    with pytest.raises(ShardError, match="no manifest: nothing is published there"):
        fetch(url)
    assert not vaeaug.verify(url).ok
    monkeypatch.setattr(Store, "send", real)
    pushed = vaeaug.push(run, url)
    assert pushed.n_sent == pushed.n_files - 1 - 4
    assert vaeaug.verify(url).ok
    assert "sending.json" not in Store(url).sizes()


def test_what_is_changed_there_is_found(run, url):
    vaeaug.push(run, url)
    store, name = Store(url), vaeaug.Manifest.load(run).shards[0].path
    data = (run / name).read_bytes()
    store.write(name, data[:-1] + bytes([data[-1] ^ 1]))
    store.delete("model/config.json")
    store.write("shards/shard-00099.h5", b"?")
    found = {(problem.kind, problem.path) for problem in vaeaug.verify(url).problems}
    assert found == {
        ("changed", name),
        ("missing", "model/config.json"),
        ("foreign", "shards/shard-00099.h5"),
    }
    with pytest.raises(RemoteError, match=r"expected sha256 [0-9a-f]{64} as in the manifest, got"):
        fetch(url, only=("shards/",))
    assert not (cache_of(url) / name).exists()


def test_a_run_that_has_grown_is_sent_in_what_is_new(run, tmp_path):
    url = "memory://runs/grown"
    out = tmp_path / "run"
    config = CONFIG.changed(**{"plan.sampling_strategy": {"zero": 40}})
    vaeaug.augment(digits(), out, config, device="cpu", progress=False)
    vaeaug.push(out, url)
    first = fetch(url)
    more = config.changed(**{"plan.sampling_strategy": {"zero": 60}})
    vaeaug.augment(digits(), out, more, device="cpu", progress=False, add=True)
    vaeaug.push(out, url)
    assert vaeaug.verify(url).ok
    assert fetch(url) == first
    assert vaeaug.verify(first).ok
    assert len(vaeaug.ShardDataset(url)) == len(vaeaug.ShardDataset(out)) == 36
    with pytest.raises(RemoteError, match=r"or an earlier state of .*, got another dataset"):
        vaeaug.push(run, url)


def test_the_cache_copies_only_what_is_missing(run, url, monkeypatch):
    vaeaug.push(run, url)
    real, copied = Store.fetch, []

    def counted(self, name, path, sha256):
        copied.append(name)
        real(self, name, path, sha256)

    monkeypatch.setattr(Store, "fetch", counted)
    vaeaug.load(url)
    assert all(name == "run.json" or name.startswith("model/") for name in copied)
    n = len(copied)
    folder = fetch(url)
    assert len(set(copied)) == len(copied) > n
    # A copy without its manifest, as an interrupted one leaves it, is looked at and kept.
    (folder / "manifest.json").unlink()
    (folder / "report.html").write_text("half")
    n = len(copied)
    fetch(url)
    assert copied[n:] == ["report.html"]


def test_what_is_not_the_runs_own_is_not_touched(run):
    url = "memory://runs/other"
    Store(url).write("important.txt", b"mine")
    with pytest.raises(RemoteError, match=r"expected nothing, or files of .* got important\.txt"):
        vaeaug.push(run, url)
    assert Store(url).sizes() == {"important.txt": 4}


def test_a_damaged_run_is_not_published(run, tmp_path):
    url = "memory://runs/damaged"
    out = fetch_copy(run, tmp_path)
    shard = out / vaeaug.Manifest.load(out).shards[0].path
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ShardError, match=r"as in the manifest, got .*; nothing is published"):
        vaeaug.push(out, url)
    assert "manifest.json" not in Store(url).sizes()


def test_a_manifest_cannot_lead_out_of_the_cache_or_fill_memory(run, monkeypatch):
    url = "memory://runs/hostile"
    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["files"]["../../outside"] = "0" * 64
    manifest["manifest_sha256"] = seal_of(manifest, "manifest_sha256")
    Store(url).write("manifest.json", json.dumps(manifest).encode())
    with pytest.raises(ShardError, match=r"inside the run folder, got '\.\./\.\./outside'"):
        fetch(url)
    monkeypatch.setattr(_store, "MOST_BYTES", 100)
    with pytest.raises(RemoteError, match="expected at most 100 bytes, got"):
        fetch(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///tmp/x", "expected an object store such as s3:// or gs://, got a folder"),
        ("nosuch://x/y", "expected an address that fsspec knows"),
        ("memory://runs/nothing", "no manifest: nothing is published there"),
    ],
)
def test_addresses_of_nothing_are_refused(url, message):
    with pytest.raises((RemoteError, ShardError), match=message):
        vaeaug.Manifest.load(url)


def test_a_missing_library_names_the_extra(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(RemoteError, match=r"pip install 'vaeaug\[s3\]'"):
        Store("s3://bucket/run")


def test_the_command_line_takes_addresses(run, url, tmp_path):
    def called(*words):
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.stdout

    pushed = json.loads(called("push", run, url, "--json"))
    assert pushed["url"] == url
    assert json.loads(called("verify", url, "--json"))["ok"]
    assert json.loads(called("inspect", url, "--json"))["run"] == url
    called("export", url, "--to", tmp_path / "there.npz")
    called("export", run, "--to", tmp_path / "here.npz")
    with np.load(tmp_path / "there.npz") as there, np.load(tmp_path / "here.npz") as here:
        assert np.array_equal(there["images"], here["images"])
    store = Store(url)
    store.delete(vaeaug.Manifest.load(run).shards[0].path)
    assert CliRunner().invoke(main, ["verify", url]).exit_code == 1


def fetch_copy(run, tmp_path):
    import shutil

    return shutil.copytree(run, tmp_path / "copy")
