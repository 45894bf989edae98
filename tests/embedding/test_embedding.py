"""Backbones are loaded offline, and images become features that the rest of the house reads."""

import hashlib
import sys
import types

import h5py
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import get_model

import vaeaug
from vaeaug.embedding import Views, load_backbone


def flat(x):
    return x.flatten(1)


@pytest.fixture(scope="module")
def few():
    return vaeaug.read("digits").subset(np.arange(24))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of weights of a network, as a wrapper saved it, with a classifier of 7 classes."""
    torch.manual_seed(0)
    network = get_model("resnet18", weights=None, num_classes=7)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, path)
    return path, network.eval()


# --- features


def test_features_are_what_the_backbone_gives(few):
    embedded = vaeaug.embed(few, flat, progress=False)
    expected = few.images.reshape(24, -1).astype(np.float32) / 255
    assert embedded.are_features
    assert embedded.noun == "feature vectors"
    np.testing.assert_allclose(embedded.images[:, 0], expected, rtol=0, atol=1e-6)
    assert np.array_equal(embedded.labels, few.labels)
    assert embedded.class_names == few.class_names


def test_the_last_linear_layer_is_left_out_and_the_input_is_prepared(few, weights):
    path, network = weights
    size = (32, 48)
    embedded = vaeaug.embed(few, f"torchvision:resnet18:{path}", size=size, progress=False)
    x = torch.from_numpy(few.images).movedim(-1, 1).float() / 255
    x = nn.functional.interpolate(x.expand(-1, 3, -1, -1), size, mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (x - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        logits = network(x)
        ours = network.fc(torch.from_numpy(embedded.images[:, 0].copy()))
    torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)


def test_maps_are_averaged_over_space(few):
    maps = vaeaug.embed(few, lambda x: torch.cat([x, 2 * x], dim=1), progress=False)
    mean = few.images.reshape(24, -1).mean(axis=1) / 255
    expected = np.stack([mean, 2 * mean], axis=1)
    np.testing.assert_allclose(maps.images[:, 0], expected, rtol=1e-5)


def test_a_network_is_frozen_and_not_in_training(few):
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 5))
    network.train()
    once = vaeaug.embed(few, network, progress=False)
    again = vaeaug.embed(few, network, progress=False, batch_size=5)
    np.testing.assert_allclose(once.images, again.images, rtol=0, atol=1e-6)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


# --- views


def test_the_first_view_is_the_image_and_the_others_are_not(few):
    embedded = vaeaug.embed(few, flat, views=3, progress=False)
    plain = vaeaug.embed(few, flat, progress=False)
    by_image = embedded.images.reshape(24, 3, -1)
    assert np.array_equal(by_image[:, 0], plain.images[:, 0])
    apart = np.abs(by_image[:, 1:] - by_image[:, :1]).max(axis=2)
    assert (apart > 0.01).all()
    assert np.array_equal(embedded.groups, np.repeat(np.arange(24), 3))
    assert np.array_equal(embedded.labels, np.repeat(few.labels, 3))


def test_a_view_depends_on_seed_image_and_number_alone(few):
    whole = vaeaug.embed(few, flat, views=4, seed=5, progress=False)
    by_threes = vaeaug.embed(few, flat, views=4, seed=5, progress=False, batch_size=3)
    assert np.array_equal(whole.images, by_threes.images)
    fewer = vaeaug.embed(few, flat, views=2, seed=5, progress=False)
    assert np.array_equal(whole.images.reshape(24, 4, -1)[:, :2], fewer.images.reshape(24, 2, -1))
    other = vaeaug.embed(few, flat, views=4, seed=6, progress=False)
    assert not np.array_equal(whole.images, other.images)


def test_a_view_without_moves_is_the_image_or_its_mirror():
    x = torch.rand(40, 1, 6, 6)
    rows, ones = np.arange(40), np.ones(40, np.int64)
    still = Views(2, rotation=0, zoom=0, shift=0)
    torch.testing.assert_close(still.of(x, rows, ones, seed=0), x)
    flipped = Views(2, rotation=0, zoom=0, shift=0, flip=True).of(x, rows, ones, seed=0)
    is_same = (flipped - x).abs().amax(dim=(1, 2, 3)) < 1e-5
    is_mirror = (flipped - x.flip(-1)).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert (is_same ^ is_mirror).all()
    assert 5 < int(is_mirror.sum()) < 35  # 40 fair coins: outside with probability below 1e-5


def test_views_move_no_farther_than_they_say():
    views = Views(2, rotation=90, zoom=0.5, shift=0.25)
    maps = views._maps(np.array([[0, 0, 1, -1, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], float))
    np.testing.assert_allclose(maps[0], [[1, 0, 0.5], [0, 1, -0.5]], atol=1e-12)
    np.testing.assert_allclose(maps[1], [[0, -1, 0], [1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(maps[2], [[1.5, 0, 0], [0, 1.5, 0]], atol=1e-12)


# --- the file


def test_the_file_is_read_as_features_with_its_groups_and_says_where_it_comes_from(
    few, weights, tmp_path
):
    path, _ = weights
    name, out = f"torchvision:resnet18:{path}", tmp_path / "E.h5"
    embedded = vaeaug.embed(few, name, out, views=2, size=(32, 32), seed=3, progress=False)
    back = vaeaug.read(out)
    assert np.array_equal(back.images, embedded.images)
    assert np.array_equal(back.groups, embedded.groups)
    assert np.array_equal(back.labels, embedded.labels)
    assert back.value_range == embedded.value_range
    assert back.class_names == few.class_names
    assert back.fingerprint == embedded.fingerprint
    with h5py.File(out) as file:
        said = dict(file.attrs)
    assert said["weights_sha256"].decode() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert said["data_fingerprint"].decode() == few.fingerprint
    assert said["backbone"].decode() == name
    assert (said["n_views"], said["seed"]) == (2, 3)
    assert said["input_size"].decode() == "32x32"


def test_the_same_job_gives_the_same_bytes(few, tmp_path):
    for name in ("a.h5", "b.h5"):
        vaeaug.embed(few, flat, tmp_path / name, views=3, seed=1, progress=False)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_what_is_there_is_kept_where_the_backbone_fails(few, tmp_path):
    out = tmp_path / "E.h5"
    vaeaug.embed(few, flat, out, progress=False)
    before = out.read_bytes()
    with pytest.raises(vaeaug.EmbeddingError, match="expected finite features, got NaN"):
        vaeaug.embed(few, lambda x: flat(x) * torch.nan, out, progress=False)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["E.h5"]


# --- names of backbones


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("flat", flat),
        ("Network", None),
        ("make", None),
        ("ready", None),
    ],
)
def test_a_file_gives_a_function_a_network_or_a_factory(few, tmp_path, text, found):
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def flat(x): return x.flatten(1)\n"
        "class Network(torch.nn.Module):\n"
        "    input_size = (4, 4)\n"
        "    mean, std = (0.5,), (0.25,)\n"
        "    def forward(self, x): return x.flatten(1)\n"
        "def make(): return Network()\n"
        "ready = Network()\n"
    )
    embedded = vaeaug.embed(few, f"{tmp_path / 'own.py'}:{text}", progress=False)
    if text == "flat":
        expected = vaeaug.embed(few, found, progress=False).images
    else:
        x = torch.from_numpy(few.images).movedim(-1, 1).float() / 255
        x = nn.functional.interpolate(x, (4, 4), mode="bilinear", antialias=True)
        expected = ((x - 0.5) / 0.25).flatten(1)[:, None].numpy()
    np.testing.assert_allclose(embedded.images, expected, rtol=0, atol=1e-5)


def test_nothing_is_downloaded(weights):
    with pytest.raises(vaeaug.EmbeddingError, match=r"got none; nothing is downloaded"):
        load_backbone("torchvision:resnet18")
    untrained = load_backbone("torchvision:resnet18", random_weights=True)
    assert untrained.weights_sha256 is None
    again = load_backbone("torchvision:resnet18", random_weights=True)
    pairs = zip(untrained.network.parameters(), again.network.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet18", r"expected torchvision:NAME:WEIGHTS, .* got 'resnet18'"),
        ("torchvision:resnet0:w.pth", r"expected a model of torchvision \(alexnet, .*'resnet0'"),
        ("torchvision:resnet18:none.pth", r"expected a file of weights, got no file none.pth"),
        ("none.py:f", r"got no Python file 'none.py'"),
    ],
)
def test_a_wrong_name_is_explained(text, message):
    with pytest.raises(vaeaug.EmbeddingError, match=message):
        load_backbone(text)


def test_weights_of_another_network_are_refused(weights):
    path, _ = weights
    with pytest.raises(vaeaug.EmbeddingError, match=r"expected the weights of this network in .*"):
        load_backbone(f"torchvision:resnet34:{path}")


def test_a_pickle_is_not_executed(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": {"fc.weight": torch.zeros(1)}, "made by": print}, path)
    with pytest.raises(vaeaug.EmbeddingError, match="cannot be read as weights"):
        load_backbone(f"torchvision:resnet18:{path}")


def test_a_file_without_the_named_function_is_explained(tmp_path):
    (tmp_path / "own.py").write_text("one = 1\n")
    with pytest.raises(vaeaug.EmbeddingError, match=r"a class 'two' in .*, got NoneType"):
        load_backbone(f"{tmp_path / 'own.py'}:two")


class _Timm(types.ModuleType):
    """What of timm is used, with networks of its own: a norm in the head is no classifier."""

    class Network(nn.Module):
        def __init__(self, n_classes):
            super().__init__()
            self.body = nn.Conv2d(3, 4, 1)
            self.head = nn.ModuleDict({"norm": nn.LayerNorm(4)})
            if n_classes:
                self.head["fc"] = nn.Linear(4, n_classes)

        def forward(self, x):
            return self.head["norm"](self.body(x).mean(dim=(2, 3)))

    def is_model(self, name):
        return name == "tiny"

    def list_models(self):
        return ["tiny"]

    def create_model(self, name, *, pretrained, num_classes):
        assert not pretrained
        return self.Network(num_classes)


def test_a_network_of_timm_gets_all_its_weights_but_those_of_the_classifier(
    few, monkeypatch, tmp_path
):
    timm, data = _Timm("timm"), types.ModuleType("timm.data")
    config = {"input_size": (3, 8, 8), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    data.resolve_data_config = lambda _, model: config
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    trained = timm.Network(7)
    nn.init.normal_(trained.head["norm"].weight)
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    embedded = vaeaug.embed(few, f"timm:tiny:{tmp_path / 'w.pth'}", progress=False)
    x = torch.from_numpy(few.images).movedim(-1, 1).float() / 255
    with torch.no_grad():
        expected = trained(((x - 0.5) / 0.5).expand(-1, 3, -1, -1))
    np.testing.assert_allclose(embedded.images[:, 0], expected.numpy(), rtol=0, atol=1e-5)
    with pytest.raises(vaeaug.EmbeddingError, match=r"expected a model of timm \(tiny\), got 'no'"):
        load_backbone("timm:no", random_weights=True)


def test_timm_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(vaeaug.EmbeddingError, match=r"pip install 'vaeaug\[timm\]'"):
        load_backbone("timm:tiny", random_weights=True)


# --- data that cannot be embedded


def test_what_cannot_be_embedded_is_explained(few):
    signals = vaeaug.read((np.random.default_rng(0).random((8, 32)), np.arange(8) % 2), layout="NL")
    with pytest.raises(vaeaug.EmbeddingError, match="expected images, got signals"):
        vaeaug.embed(signals, flat, progress=False)
    with pytest.raises(vaeaug.EmbeddingError, match="expected views of at least 1, got 0"):
        vaeaug.embed(few, flat, views=0, progress=False)
    with pytest.raises(vaeaug.EmbeddingError, match=r"expected features of shape \(24, f\)"):
        vaeaug.embed(few, lambda x: x.sum(), progress=False)
    with pytest.raises(vaeaug.EmbeddingError, match="expected features that differ, got 0 alone"):
        vaeaug.embed(few, lambda x: 0 * flat(x), progress=False)
    colour = vaeaug.read((np.zeros((4, 8, 8, 4), np.uint8), [0, 1, 0, 1]), layout="NHWC")
    with pytest.raises(vaeaug.EmbeddingError, match="expected images of 3 channels, got 4"):
        vaeaug.embed(colour, "torchvision:resnet18", random_weights=True, progress=False)
