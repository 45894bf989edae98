"""Large images and long signals: geometry, the whole job, and what is refused before it begins."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import vaeaug
from vaeaug.cli import main
from vaeaug.memory import blocks, kept_memory
from vaeaug.models import CVAE, Discriminator, Geometry, SizeError, SmallClassifier
from vaeaug.models.blocks import OverlappingWindows
from vaeaug.stages import plan_of

LARGE = [
    (129, 129, 3),
    (224, 224, 3),
    (225, 225, 1),
    (180, 320, 3),
    (8, 300, 1),
    (512, 512, 1),
    (4097, 2),
    (16_000, 1),
    (160_000, 1),
    (17, 65, 40, 1),
]
# (network, digest of the names and shapes of its weights) by shape of a sample: what runs hold that
# were made before there were large samples.
PINNED = {
    (8, 8, 1): ("ff7b56c030489281", "5b69ca67ab5349bb", "c4a8006500870c8e", "d6a4450fa184dd87"),
    (28, 28, 1): ("9b12d4271baef09e", "797022ec735a453f", "4602ba616a22b31c", "392fa73ff419f682"),
    (64, 48, 4): ("9075434f3ae63658", "46f781a0c373a941", "be9cf01a739fda41", "4bc7ddd0a19db848"),
    (128, 128, 3): ("ce29617347fe5796", "6faf35a7e3aaf7fd", "0a3455f52924e0fd", "a2cbf2f595c34ca9"),
    (65, 2): ("3fefb1afb17160a1", "a49bd8e0e78e8f62", "84d3d808c53a2a95", "52145dd3f9e056ae"),
    (4096, 1): ("20c63f28e3849817", "045b68e987d32b43", "44422036787f73a3", "72ce9ff48e52fd3b"),
    (9, 12, 7, 2): ("a6aafb188b68adc1", "355d21a4103fd542", "94123077abc6550e", "d66d6dd62a395f31"),
}
TINY = [
    "model.width=8",
    "training.steps=6",
    "training.adapt_steps=2",
    "training.eval_every=3",
    "training.batch_size=8",
    "training.bound_samples=2",
    "restoration.width=8",
    "screening.classifier_steps=4",
    "screening.folds=2",
    "recipe.min_label_probability=0",
]


def digest(network: torch.nn.Module) -> str:
    shapes = [[name, list(each.shape)] for name, each in network.state_dict().items()]
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]


# -- Geometry ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", LARGE)
def test_large_samples_enter_and_leave_in_their_shape(shape):
    geometry = Geometry.of(shape)
    *space, channels = shape
    assert geometry.is_large
    assert max(geometry.grids[-1]) <= 7
    assert all(
        cells == math.ceil(side / fold)
        for cells, side, fold in zip(geometry.grids[0], space, geometry.fold, strict=True)
    )
    x = torch.rand(2, channels, *space)
    assert torch.equal(geometry.unfolded(geometry.folded(x)), x)
    first = geometry.first_layer(4)
    with torch.no_grad():
        assert first(geometry.entering(x)).shape == (2, 4, *geometry.grids[0])
        torch.manual_seed(0)
        model = CVAE(shape, 3, width=8)
        y = torch.arange(2)
        mean, _ = model.posterior(x, y)
        assert model.decode(mean, y).shape == x.shape
        assert SmallClassifier(shape, 3, width=8)(x).shape == (2, 3)
        score, features = Discriminator(shape, 3, width=8)(x, y)
    assert score.shape == (2,)
    assert len(features) == len(geometry.grids)


@pytest.mark.parametrize("latent", ["spatial", "hierarchical"])
def test_grids_of_latents_of_a_large_image(latent):
    model = CVAE((180, 320, 3), 2, latent=latent, levels=3, width=8)
    x, y = torch.rand(1, 3, 180, 320), torch.zeros(1, dtype=torch.long)
    terms = model.elbo(x, y, noise=torch.randn(1, model.latent_dim))
    assert terms.mean.shape == x.shape
    assert torch.isfinite(terms.elbo).all()


def test_large_folds_by_hand():
    assert Geometry.of((224, 224, 3)).grids == ((56, 56), (28, 28), (14, 14), (7, 7))
    assert Geometry.of((512, 512, 3)).fold == (8, 8)
    assert Geometry.of((160_000, 1)).grids[0] == (1250,)
    assert Geometry.of((8, 300, 1)).fold == (1, 8)  # a short side is folded as it would be alone


@pytest.mark.parametrize("stride", [(4,), (8, 8), (1, 4), (2, 2, 2)])
def test_windows_start_as_an_interpolation_without_seams(stride):
    torch.manual_seed(0)
    windows = OverlappingWindows(3, 2, stride)
    h = torch.rand(1, 3, 1, 1, 1)[(..., *(0,) * (3 - len(stride)))].expand(
        -1, -1, *(5,) * len(stride)
    )
    with torch.no_grad():
        x = windows(h)
    assert x.shape == (1, 2, *(5 * each for each in stride))
    torch.testing.assert_close(
        x, x.flatten(2)[..., :1].view(1, 2, *(1 for _ in stride)).expand_as(x)
    )


def test_every_value_of_a_large_sample_is_seen_and_made():
    """Windows overlap and leave no gap: each value moves the latent and is moved by it."""
    model = CVAE((225, 130, 1), 2, width=8, latent_dim=4)
    x = torch.rand(1, 1, 225, 130).requires_grad_()
    y = torch.zeros(1, dtype=torch.long)
    mean, _ = model.posterior(x, y)
    mean.square().sum().backward()
    assert x.grad is not None
    assert (x.grad != 0).all()
    with torch.no_grad():
        moved = model.decode(mean + 1, y) - model.decode(mean, y)
    assert (moved != 0).float().mean() > 0.99


@pytest.mark.parametrize("shape", PINNED)
def test_weights_of_ordinary_sizes_are_what_they_were(shape):
    assert not Geometry.of(shape).is_large
    networks = (
        CVAE(shape, 3),
        CVAE(shape, 3, latent="spatial"),
        Discriminator(shape, 3),
        SmallClassifier(shape, 3),
    )
    assert tuple(map(digest, networks)) == PINNED[shape]


# -- Memory --------------------------------------------------------------------------------------


def test_blocks_are_smaller_for_large_samples_alone():
    assert [*blocks(1000, 28 * 28, 512)] == [slice(0, 512), slice(512, 1000)]
    assert [*blocks(1000, 128 * 128 * 3, 512)] == [slice(0, 512), slice(512, 1000)]
    assert max(rows.stop - rows.start for rows in blocks(1000, 512 * 512 * 3, 512)) == 10
    assert [*blocks(2, 2**40, 512)] == [slice(0, 1), slice(1, 2)]
    assert not [*blocks(0, 10, 512)]


def test_kept_memory_computes_the_same():
    x = torch.rand(3 * 2**20, generator=torch.Generator().manual_seed(0))
    with kept_memory(x.numel() * 4 * 4):
        inside = [float((x * k).sum()) for k in range(3)]
    assert inside == [float((x * k).sum()) for k in range(3)]


# -- The whole job -------------------------------------------------------------------------------


def patches(shape: tuple[int, ...]) -> vaeaug.LabelledImages:
    """Smooth samples of two classes: a bright upper or a bright lower half, and noise."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [16, 10])
    images = rng.integers(0, 60, (26, *shape), dtype=np.uint8)
    half = shape[0] // 2
    images[labels == 0, :half] += 120
    images[labels == 1, half:] += 120
    return vaeaug.LabelledImages(images, labels, ("upper", "lower"), (0.0, 255.0))


@pytest.mark.parametrize("shape", [(144, 136, 3), (20_000, 1)], ids=["image", "signal"])
def test_the_whole_job(shape, tmp_path):
    data = patches(shape)
    result = vaeaug.augment(data, tmp_path / "run", vaeaug.load_config(None, TINY), device="cpu")
    assert vaeaug.verify(result.out_dir).ok
    assert sum(each.accepted for each in result.manifest.classes) > 0
    sample, _ = vaeaug.merge(data, result.out_dir, 0.3)[0]
    assert tuple(sample.shape) == (shape[-1], *shape[:-1])
    assert (tmp_path / "run" / "report.html").stat().st_size < 2 * 2**20
    generator = vaeaug.load(result.out_dir)
    again = generator.sample(0, 2, seed=5)
    np.testing.assert_array_equal(again.images, generator.sample(0, 3, seed=5).images[:2])


# -- Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((513, 100, 1), "images: expected sides of 8 to 512 pixels, got 513x100; --size 512x100 "),
        ((1080, 1920, 3), "got 1080x1920; --size 288x512 (size= in Python) resizes them"),
        ((7, 14, 1), "got 7x14; --size 8x16 "),
        ((160_001, 1), "signals: expected 8 to 160,000 values, got 160,001; cut them into pieces"),
        ((7, 1), "signals: expected 8 to 160,000 values, got 7; pad them"),
        ((4, 3, 4, 1), "volumes: expected sides of 4 to 128 voxels, got 4x3x4; resample them"),
    ],
)
def test_sizes_out_of_bounds(shape, message):
    with pytest.raises(SizeError) as caught:
        Geometry.of(shape)
    assert message in str(caught.value)


@pytest.fixture
def wide(tmp_path):
    """Class folders of images that are too wide."""
    for name in ("cat", "dog"):
        (tmp_path / "wide" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("L", (600, 300), number).save(tmp_path / "wide" / name / f"{number}.png")
    return tmp_path / "wide"


@pytest.mark.parametrize("command", ["dry run", "augment", "train", "plan"])
def test_a_size_that_is_not_taken_is_one_line_before_anything_is_written(command, wide, tmp_path):
    out = tmp_path / "out"
    words = {
        "dry run": ["augment", wide, "--out", out, "--dry-run"],
        "augment": ["augment", wide, "--out", out],
        "train": ["train", wide, "--out", out],
        "plan": ["plan", wide],
    }[command]
    result = CliRunner().invoke(main, [str(each) for each in words])
    assert result.exit_code == 2, result.output
    last = result.stderr.strip().splitlines()[-1]
    assert last == (
        "vaeaug: images: expected sides of 8 to 512 pixels, got 300x600; --size 256x512 "
        "(size= in Python) resizes them"
    )
    assert "Traceback" not in result.output
    assert not out.exists()


def test_the_size_in_the_message_is_taken(wide):
    result = CliRunner().invoke(main, ["plan", str(wide), "--size", "256x512", "--workers", "1"])
    assert result.exit_code == 0, result.output


def test_a_batch_that_memory_cannot_hold_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("vaeaug.training._train.available_memory", lambda: 64 * 2**20)
    data = patches((224, 224, 3))
    with pytest.raises(vaeaug.ConfigError, match=r"training.batch_size: expected a batch that"):
        vaeaug.augment(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    plan_of(data, vaeaug.load_config(None, ["training.batch_size=8"]))
