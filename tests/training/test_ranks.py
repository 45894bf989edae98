"""Signals and volumes through the whole job."""

import json

import numpy as np
import pytest
from PIL import Image

import vaeaug
from tests.physical import moving_digits, oscillators

QUICK = [
    "model.width=8",
    "training.steps=30",
    "training.adapt_steps=10",
    "training.eval_every=15",
    "training.bound_samples=5",
    "density.steps=30",
    "density.width=16",
    "density.depth=2",
    "sampling.solver_steps=4",
    "screening.classifier_steps=20",
    "restoration.steps=4",
]


@pytest.mark.parametrize(
    ("data", "overrides"),
    [
        (oscillators(), []),
        (oscillators(), ["model.latent=spatial", "density.kind=flow"]),
        (moving_digits(), []),
        (moving_digits(), ["model.latent=hierarchical", "model.likelihood=logistic_mixture"]),
    ],
    ids=["signals", "signals, spatial flow", "volumes", "volumes, hierarchical mixture"],
)
def test_the_whole_job(data, overrides, tmp_path):
    config = vaeaug.load_config(None, [*QUICK, *overrides])
    result = vaeaug.augment(data, tmp_path / "run", config, device="cpu")
    made = {each.name: each.accepted for each in result.manifest.classes}
    assert sum(made.values()) > 0
    assert vaeaug.verify(result.out_dir).ok
    merged = vaeaug.merge(data, result.out_dir, 0.3)
    sample, _ = merged[0]
    *space, channels = data.image_shape
    assert tuple(sample.shape) == (channels, *space)
    generator = vaeaug.load(result.out_dir)
    assert generator.layout == data.layout
    again = generator.sample(0, 3, seed=5)
    np.testing.assert_array_equal(again.images, generator.sample(0, 7, seed=5).images[:3])
    with Image.open(result.out_dir / "traversals.png") as picture:
        assert picture.size[0] > 200
    document = json.loads((result.out_dir / "diagnostics.json").read_text())
    assert (document["fit"]["bits_per_dimension"] is None) == (data.images.dtype == np.float32)


def test_longer_training_learns_the_physics():
    """Reconstructions keep the frequency of each mass, which the mean signal does not have."""
    data = oscillators((80, 1, 1, 1)).imbalanced([80, 0, 0, 0], seed=0)
    keys = ["training.steps=200", "model.grouping=shared", "restoration.steps=0", "model.width=16"]
    config = vaeaug.load_config(None, keys)
    generator = vaeaug.fit(data, config, device="cpu")
    rebuilt = generator.reconstruct(data.images, data.labels)

    def frequency(signals):
        return np.abs(np.fft.rfft(signals[:, :, 1], axis=1))[:, 1:].argmax(axis=1)

    assert (np.abs(frequency(rebuilt) - frequency(data.images)) <= 1).mean() > 0.9
