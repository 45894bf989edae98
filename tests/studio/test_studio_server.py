"""What the server gives, to whom, and what it saves."""

import http.client
import io
import json
import re
import signal
import struct
import subprocess
import sys
import urllib.request
import wave
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import vaeaug
from tests.shards.example_run import make_run
from vaeaug.cli import main
from vaeaug.shards import Manifest, ShardError, read_list, read_rejected, save_list
from vaeaug.studio import Collection, Studio, StudioError
from vaeaug.studio.server import MOST_BYTES, MOST_TILES


def ask(
    studio: Studio,
    path: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    token: str | None = None,
) -> tuple[int, bytes, Mapping[str, str]]:
    where = urlsplit(studio.url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=10)
    try:
        folder = where.path if token is None else f"/{token}/"
        connection.request("GET" if body is None else "POST", folder + path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def opened(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture)


def unpacked(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """As the page does it."""
    (length,) = struct.unpack_from("<I", content)
    header = json.loads(content[4 : 4 + length])
    n = header["n"] + header["n_rejected"]
    columns, offset = {}, 4 + length
    assert offset % 4 == 0
    for name, dtype in header["columns"]:
        columns[name] = np.frombuffer(content, dtype, n, offset)
        offset += columns[name].nbytes
    assert offset == len(content)
    return header, columns


# --- who may ask


@pytest.mark.parametrize("token", ["", "wrong", "x" * 43])
def test_nobody_without_the_token_gets_anything(studio: Studio, token: str) -> None:
    for path in ("", "columns", "page.js"):
        status, content, _ = ask(studio, path, token=token)
        assert (status, b"expected the address" in content) == (403, True)
    assert ask(studio, "excluded", body=b'{"excluded": [0]}', token=token)[0] == 403
    assert urlsplit(studio.url).hostname == "127.0.0.1"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", ""])
def test_a_name_of_another_site_is_refused(studio: Studio, host: str) -> None:
    status, content, _ = ask(studio, "columns", headers={"Host": host})
    assert (status, b"as host" in content) == (403, True)


def test_a_tunnel_may_have_another_port(studio: Studio) -> None:
    assert ask(studio, "columns", headers={"Host": "localhost:9999"})[0] == 200


def test_the_page_loads_nothing_from_elsewhere(studio: Studio) -> None:
    for path in ("", "page.css", "page.js", "map.js", "detail.js"):
        status, content, headers = ask(studio, path)
        assert status == 200
        outside = set(re.findall(rb"https?://[^\s'\"]+", content)) - {b"http://www.w3.org/2000/svg"}
        assert not outside
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("other", 404, "there is no such page"),
        ("../server.py", 404, "there is no such page"),
        ("tiles?of=", 404, "expected a whole number, got ''"),
        ("tiles?of=1,99999", 404, "expected a sample in [0, "),
        ("tiles?of=" + ",".join(["1"] * (MOST_TILES + 1)), 404, f"at most {MOST_TILES} tiles"),
        ("picture/other/0", 404, "expected one of sample, source, nearest, got 'other'"),
        ("picture/sample/0?place=0", 404, "expected a slice in [0, 0), got 0"),
        ("curves/sample/0", 404, "expected a signal, got an image"),
        ("sound/sample/0", 404, "expected a sound of a known rate"),
        ("facts/-1", 404, "expected a whole number, got '-1'"),
        ("facts/" + "9" * 19, 404, "expected a whole number"),
    ],
)
def test_a_wrong_question_is_answered(studio: Studio, path: str, status: int, message: str) -> None:
    got, content, _ = ask(studio, path)
    assert got == status
    assert message in content.decode()


# --- what is shown


def test_the_columns_are_those_of_the_shards(studio: Studio, run: Path) -> None:
    dataset = vaeaug.ShardDataset(run)
    header, columns = unpacked(ask(studio, "columns")[1])
    n = header["n"]
    assert n == len(dataset)
    assert header["class_names"] == list(dataset.class_names)
    assert header["excluded"] == []
    np.testing.assert_array_equal(columns["label"][:n], dataset.labels)
    np.testing.assert_array_equal(columns["p_label"][:n], dataset.p_label)
    np.testing.assert_array_equal(columns["distance"][:n], dataset.nn_distance)
    np.testing.assert_array_equal(columns["source"][:n], dataset.source_index)
    named = {header["samplers"][i] for i in set(columns["sampler"][:n].tolist())}
    assert named == set(dataset.samplers)
    assert (columns["reason"][:n] == -1).all()
    # Two principal components: uncorrelated, the first the wider one.
    x, y = columns["x"][:n].astype(float), columns["y"][:n].astype(float)
    assert abs(np.corrcoef(x, y)[0, 1]) < 1e-3
    assert x.std() >= y.std() > 0
    assert np.isnan(columns["x"][n:]).all()


def test_pictures_are_pixel_by_pixel(
    studio: Studio, run: Path, data: vaeaug.LabelledImages
) -> None:
    dataset = vaeaug.ShardDataset(run)
    numbers = [5, 0, *range(20, 38)]
    sheet = opened(ask(studio, f"tiles?of={','.join(map(str, numbers))}")[1])
    assert sheet.shape == (2 * 8, 16 * 8)
    for i, number in enumerate(numbers):
        row, column = divmod(i, 16)
        tile = sheet[8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        np.testing.assert_array_equal(tile, dataset.image_at(number)[..., 0])
    for kind, rows in (("source", dataset.source_index), ("nearest", dataset.nn_index)):
        status, content, headers = ask(studio, f"picture/{kind}/7")
        if rows[7] >= 0:
            np.testing.assert_array_equal(opened(content), data.images[rows[7], ..., 0])
            assert "max-age" in headers["Cache-Control"]
        else:
            assert status == 404
    facts = json.loads(ask(studio, "facts/7")[1])
    assert facts["seed"] == str(dataset.seed[7])
    assert (facts["shard"], facts["row"]) == ("shards/shard-00000.h5", 7)


def test_rejected_samples_are_shown_after_the_others(studio: Studio, run: Path) -> None:
    header, columns = unpacked(ask(studio, "columns")[1])
    n = header["n"]
    parts = [read_rejected(path) for path in sorted((run / "checkpoints").glob("rejected-*.h5"))]
    assert header["n_rejected"] == sum(map(len, parts)) > 0
    reasons = np.concatenate([part.reason for part in parts])
    assert [header["reasons"][i] for i in columns["reason"][n:]] == reasons.tolist()
    counted = {entry.label: entry.rejected for entry in Manifest.load(run).classes}
    keep = vaeaug.AugmentConfig().screening.keep_rejected
    for part in parts:
        for reason, count in counted[part.label].items():
            assert (part.reason == reason).sum() == min(keep, count)
    picture = opened(ask(studio, f"picture/sample/{n}")[1])
    np.testing.assert_array_equal(picture, parts[0].images[0, ..., 0])
    assert json.loads(ask(studio, f"facts/{n}")[1])["reason"] == parts[0].reason[0]


def test_a_damaged_file_of_rejected_samples_is_told(run: Path) -> None:
    path = min((run / "checkpoints").glob("rejected-*.h5"))
    other = path.with_name("rejected-00003.h5")
    content = path.read_bytes()
    other.write_bytes(content)
    with pytest.raises(ShardError, match=r"expected samples of class 3, uint8 .* got class"):
        Collection(run)
    other.unlink()
    path.write_bytes(content[:-200])
    with pytest.raises(ShardError, match=path.name):
        Collection(run)
    path.write_bytes(b"something else")
    with pytest.raises(ShardError, match=path.name):
        Collection(run)


def test_without_data_the_page_goes_on_without_real_images(run: Path) -> None:
    collection = Collection(run)
    with Studio(collection) as studio:
        assert not unpacked(ask(studio, "columns")[1])[0]["has_data"]
        assert ask(studio, "picture/sample/0")[0] == 200
        status, content, _ = ask(studio, "picture/nearest/0")
        assert (status, b"which was not found" in content) == (404, True)


def test_signals_have_curves_and_sounds_can_be_heard(tmp_path: Path) -> None:
    manifest = make_run(tmp_path, layout="NLC", dtype="float32", shape=(5000, 2))
    replace(manifest, extra={"sample_rate": 8000}).save(tmp_path)
    dataset = vaeaug.ShardDataset(tmp_path)
    with Studio(Collection(tmp_path)) as studio:
        curves = json.loads(ask(studio, "curves/sample/3")[1])
        signal = dataset.image_at(3)
        assert (curves["length"], len(curves["channels"])) == (5000, 2)
        for channel, values in zip(signal.T, curves["channels"], strict=True):
            assert len(values) == 4000
            assert max(values) == pytest.approx(channel.max())
            assert values[:2] == pytest.approx([channel[:3].min(), channel[:3].max()])
        with wave.open(io.BytesIO(ask(studio, "sound/sample/3")[1])) as sound:
            assert (sound.getframerate(), sound.getnframes()) == (8000, 5000)
            heard = np.frombuffer(sound.readframes(5000), "<i2")
        np.testing.assert_allclose(heard / 32767, 2 * signal.mean(axis=1) - 1, atol=1e-4)
        assert opened(ask(studio, "tiles?of=0,1")[1]).shape == (96, 352)


def test_volumes_are_shown_slice_by_slice(tmp_path: Path) -> None:
    make_run(tmp_path, layout="NDHWC", shape=(3, 5, 4, 1))
    volume = vaeaug.ShardDataset(tmp_path).image_at(2)
    with Studio(Collection(tmp_path)) as studio:
        for place in range(3):
            picture = opened(ask(studio, f"picture/sample/2?place={place}")[1])
            np.testing.assert_array_equal(picture, volume[place, ..., 0])
        assert b"expected a slice in [0, 3), got 3" in ask(studio, "picture/sample/2?place=3")[1]


def test_a_hundred_thousand_samples_take_a_few_megabytes(tmp_path: Path) -> None:
    make_run(tmp_path, counts=[40_000, 40_000, 20_000], shape=(2, 2, 1))
    with Studio(Collection(tmp_path)) as studio:
        content = ask(studio, "columns")[1]
        assert unpacked(content)[0]["n"] == 100_000
        assert len(content) < 4_000_000
        assert ask(studio, "tiles?of=99999,50000")[0] == 200


# --- what is saved


def save(studio: Studio, document: Any) -> tuple[int, bytes]:
    if isinstance(document, dict):
        document = {"after": unpacked(ask(studio, "columns")[1])[0]["state"]} | document
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return ask(studio, "excluded", body=body)[:2]


def test_the_list_is_saved_and_shown_again(
    studio: Studio, collection: Collection, run: Path
) -> None:
    sizes = [entry.n for entry in collection.manifest.shards]
    last, n = collection.manifest.shards[-1], collection.n
    assert save(studio, {"excluded": [n - 1, 2, 2, sizes[0]]})[0] == 200
    paths = [entry.path for entry in collection.manifest.shards]
    expected = {paths[0]: [2], paths[1]: [0], last.path: [last.n - 1]}
    assert read_list(run / "excluded.json", collection.manifest) == expected
    header, _ = unpacked(ask(studio, "columns")[1])
    assert header["excluded"] == [2, sizes[0], n - 1]
    assert header["published"] == []

    vaeaug.exclude(run, run / "excluded.json")
    again = Collection(run)
    assert again.n == n
    assert again.thrown_out() == [2, sizes[0], n - 1]
    (run / "excluded.json").unlink()
    assert again.thrown_out() == [2, sizes[0], n - 1]
    assert unpacked(ask(studio, "columns")[1])[0]["published"] == [2, sizes[0], n - 1]
    assert save(studio, {"excluded": []})[0] == 200
    assert Collection(run).thrown_out() == []


def test_two_pages_do_not_overwrite_each_other(studio: Studio, collection: Collection) -> None:
    before = collection.state
    assert save(studio, {"excluded": [1], "after": before})[0] == 200
    status, content = save(studio, {"excluded": [2], "after": before})
    assert (status, b"changed elsewhere; load the page again" in content) == (404, True)
    assert collection.thrown_out() == [1]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", "expected JSON"),
        ([], "expected a list of sample numbers"),
        ({"excluded": "0"}, "expected a list of sample numbers"),
        ({"excluded": [True]}, "expected a list of sample numbers"),
        ({"excluded": [0], "after": None}, "expected the state of the list before"),
        ({"excluded": [-1]}, "expected samples in [0, "),
        ({"excluded": [10**6]}, "expected samples in [0, "),
    ],
)
def test_a_wrong_list_is_refused_and_nothing_is_written(
    studio: Studio, run: Path, document: Any, message: str
) -> None:
    status, content = save(studio, document)
    assert (status, message in content.decode()) == (404, True)
    assert not (run / "excluded.json").exists()


def test_too_long_a_list_is_not_read(studio: Studio) -> None:
    status, content, _ = ask(
        studio, "excluded", body=b"", headers={"Content-Length": str(MOST_BYTES + 1)}
    )
    assert (status, b"bytes, got" in content) == (404, True)


def test_a_list_of_another_run_is_refused(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other")
    save_list(run / "excluded.json", other, {"shards/shard-00000.h5": [1]})
    with pytest.raises(ShardError, match="expected the list of this run"):
        Collection(run)


def test_a_port_that_is_taken_is_told(studio: Studio, collection: Collection) -> None:
    port = urlsplit(studio.url).port
    assert port is not None
    with pytest.raises(StudioError, match=f"port {port}: expected a free one"):
        Studio(collection, port=port)


# --- the command


def test_the_command_prints_an_address_and_ends_with_ctrl_c(run: Path) -> None:
    command = [sys.executable, "-m", "vaeaug", "studio", str(run)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", url)
            with urllib.request.urlopen(url) as answer:
                assert b"<title>vaeaug studio</title>" in answer.read()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    # Part of the digits alone: the built-in data is another split.
    assert "goes on without the real images of the run" in said
    assert f"`vaeaug exclude {run}` publishes it" in said


def test_the_command_refuses_a_run_that_is_not_finished_and_a_damaged_list(run: Path) -> None:
    (run / "excluded.json").write_text("{}")
    done = CliRunner().invoke(main, ["studio", str(run), "--data", "digits"])
    assert done.exit_code == 1
    assert "expected the training split that the run was made from" in done.stderr
    done = CliRunner().invoke(main, ["studio", str(run)])
    assert done.exit_code == 1
    assert "excluded.json: expected a list of excluded samples" in done.stderr
    (run / "manifest.json").unlink()
    done = CliRunner().invoke(main, ["studio", str(run)])
    assert done.exit_code == 1
    assert "the run has not finished" in done.stderr
