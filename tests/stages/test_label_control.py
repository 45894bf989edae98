"""Who decides the class of a decoded sample: the label or the latent."""

import numpy as np
import pytest

import vaeaug
from vaeaug.stages.label_control import LabelControl, measure_label_control


class Decodes:
    """A generator whose decoder is known: latents are rows of the data, in their first unit."""

    def __init__(self, data, *, obeys_label):
        self.data, self.obeys_label = data, obeys_label
        self.image_shape = data.image_shape
        rng = np.random.default_rng(0)
        self.means = rng.standard_normal((len(data), 6)).astype(np.float32)
        self.means[:, 0] = np.arange(len(data))
        if not obeys_label:
            self.means[:, 1] += 50 * data.labels  # a linear probe reads the class

    def decode(self, z, labels):
        rows = z[:, 0].astype(np.int64)
        if self.obeys_label:
            first = [np.flatnonzero(self.data.labels == label)[0] for label in labels]
            rows = np.array(first)
        return self.data.images[rows]


@pytest.fixture(scope="module")
def screener(digits):
    config = vaeaug.load_config(None, ["screening.classifier_steps=150"])
    return vaeaug.Screener.for_job(digits, config)


@pytest.mark.usefixtures("unchecked")
def test_a_decoder_that_ignores_the_label_has_none(digits, screener):
    control = measure_label_control(Decodes(digits, obeys_label=False), digits, screener, seed=0)
    assert control.control < 0.1
    assert control.source > 0.8
    assert control.probe > 0.95
    assert control.is_low
    assert "label control" in control.summary()


@pytest.mark.usefixtures("unchecked")
def test_a_decoder_that_obeys_the_label_has_all(digits, screener):
    control = measure_label_control(Decodes(digits, obeys_label=True), digits, screener, seed=0)
    assert control.control > 0.9
    assert control.source < 0.1
    assert control.real > 0.7
    assert not control.is_low


@pytest.mark.usefixtures("unchecked")
def test_nothing_is_learned_of_the_class_from_latents_without_it(digits, screener):
    generator = Decodes(digits, obeys_label=True)
    generator.means[:, 0] = np.random.default_rng(1).permutation(len(digits))
    control = measure_label_control(generator, digits, screener, seed=0)
    assert control.probe == pytest.approx(control.probe_chance, abs=0.06)


@pytest.mark.usefixtures("unchecked")
def test_one_class_has_no_other_label(digits, screener):
    only = digits.subset(np.flatnonzero(digits.labels == 3))
    found = measure_label_control(Decodes(only, obeys_label=True), only, screener, seed=0)
    assert found is None


def test_a_sampler_that_needs_the_label_is_warned_of(digits, small_config):
    generator = vaeaug.fit(digits, small_config, device="cpu")
    screener = vaeaug.Screener.for_job(digits, small_config)
    config = small_config.changed(**{"recipe.sampler": "transfer"})
    diagnostics = vaeaug.diagnose(generator, digits, config, screener=screener)
    control = LabelControl(**diagnostics.metrics["label_control"])
    warned = any("label control is low" in warning for warning in diagnostics.warnings)
    assert warned == control.is_low
    assert control.summary() in diagnostics.summary()
    plain = vaeaug.diagnose(generator, digits, small_config, screener=screener)
    assert not any("label control is low" in warning for warning in plain.warnings)
