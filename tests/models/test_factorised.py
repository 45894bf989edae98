"""Factorised convolutions: what they compute, where they are used, and files from before them."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import vaeaug
from tests.small_job import tiny_config
from vaeaug.files.json_text import sealed
from vaeaug.models import CVAE, Geometry, Restorer
from vaeaug.models.blocks import FactorisedConv

SHAPE = (5, 9, 11, 2)


def clips(n=6, shape=SHAPE):
    images = np.random.default_rng(0).integers(0, 256, (2 * n, *shape), dtype=np.uint8)
    return vaeaug.read((images, [0, 1] * n), value_range=(0, 255))


@pytest.mark.parametrize("time_first", [False, True])
@pytest.mark.parametrize("stride", [1, (2, 2, 2), (1, 2, 2)])
def test_it_is_a_full_convolution_whose_kernel_is_a_product(time_first, stride):
    torch.manual_seed(0)
    factorised = FactorisedConv(3, 4, stride, time_first=time_first)
    full = nn.Conv3d(3, 4, 3, stride, padding=1)
    for bias in (factorised.frames.bias, factorised.time.bias, full.bias):
        nn.init.zeros_(bias)
    frames, time = factorised.frames.weight[:, :, 0], factorised.time.weight[..., 0, 0]
    product = "oiyx,ijt->ojtyx" if time_first else "oit,ijyx->ojtyx"
    pair = (frames, time) if time_first else (time, frames)
    with torch.no_grad():
        full.weight.copy_(torch.einsum(product, *pair))
    x = torch.randn(2, 3, *SHAPE[:3])
    torch.testing.assert_close(factorised(x), full(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("latent", ["vector", "spatial", "hierarchical"])
def test_every_parameter_of_a_factorised_model_has_a_gradient(latent):
    torch.manual_seed(0)
    keys = {"latent": latent, "width": 8, "max_width": 16, "class_embedding": 4}
    model = CVAE(SHAPE, 2, convolution="factorised", **keys)
    full = CVAE(SHAPE, 2, **keys)
    x, y = torch.rand(4, SHAPE[-1], *SHAPE[:3]), torch.tensor([0, 1, 0, 1])
    terms = model.elbo(x, y, noise=torch.randn(4, model.latent_dim))
    assert terms.mean.shape == x.shape
    # Rows of classes start at zero and learn from what multiplies them: a second step.
    terms.loss().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert without == []
    n, n_full = (sum(p.numel() for p in each.parameters()) for each in (model, full))
    assert n < n_full
    assert model.architecture["convolution"] == "factorised"
    assert full.architecture["convolution"] == "full"


def test_a_factorised_restorer_starts_as_a_wiener_filter_and_learns():
    torch.manual_seed(0)
    restorer = Restorer(SHAPE, width=8, convolution="factorised")
    y = torch.rand(2, SHAPE[-1], *SHAPE[:3])
    sigma = torch.full_like(y, 0.2)
    gain = 1 / (1 + (sigma / restorer.scale) ** 2)
    torch.testing.assert_close(restorer(y, sigma), restorer.mean + gain * (y - restorer.mean))
    optimiser = torch.optim.SGD(restorer.parameters(), lr=0.1)
    before = restorer(y, sigma).square().mean()
    for _ in range(2):
        optimiser.zero_grad()
        restorer(y, sigma).square().mean().backward()
        optimiser.step()
    assert restorer(y, sigma).square().mean() < before
    assert restorer.leave.frames.weight.abs().max() > 0


def test_images_have_none():
    with pytest.raises(ValueError, match=r"expected samples of three spatial axes, got shape"):
        Geometry.of((16, 16, 1), "factorised")
    with pytest.raises(ValueError, match="expected one of full, factorised, got 'half'"):
        CVAE(SHAPE, 2, convolution="half")
    images = vaeaug.read("digits")
    with pytest.raises(vaeaug.ConfigError, match=r"convolution factorised: expected volumes"):
        vaeaug.fit(images, tiny_config(**{"model.convolution": "factorised"}), progress=False)


def test_clips_have_them_by_default_and_a_model_from_before_is_full(tmp_path):
    data = clips()
    for setting, kind in (("auto", "factorised"), ("full", "full")):
        config = tiny_config(**{"model.convolution": setting, "restoration.steps": 2})
        generator = vaeaug.fit(data, config, device="cpu", progress=False)
        assert generator.model.architecture["convolution"] == kind
        assert generator.restorer.architecture["convolution"] == kind
        generator.save(tmp_path / kind)
        again = vaeaug.load(tmp_path / kind)
        assert np.array_equal(again.sample(0, n=3).images, generator.sample(0, n=3).images)
    # As written by earlier versions: without the keys.
    path = tmp_path / "full" / "config.json"
    config = json.loads(path.read_text())
    for part in ("architecture", "restorer"):
        del config[part]["convolution"]
    path.write_bytes(sealed({key: value for key, value in config.items() if key != "seal"}))
    again = vaeaug.load(tmp_path / "full")
    assert again.model.architecture["convolution"] == "full"
    assert np.array_equal(again.sample(0, n=3).images, generator.sample(0, n=3).images)
