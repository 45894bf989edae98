"""Who decides the class of a decoded sample: the label or the latent."""

from types import SimpleNamespace

import numpy as np
import pytest

import vaeaug
from vaeaug.job.folder import RunError
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

    def style_of(self, z):
        return z

    def sample(self, label, n, *, seed, sampler):
        assert sampler == "prior"
        rows = np.random.default_rng([seed, label]).choice(len(self.data), n)
        labels = np.full(n, label)
        return SimpleNamespace(images=self.decode(self.means[rows], labels), labels=labels)

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
    assert control.prior < 0.3
    assert f"{control.control:.0%}" in control.refusal("transfer")
    assert f"{control.prior:.0%}" in control.refusal("prior")
    assert control.refusal("interpolate") == ""
    assert "label control" in control.summary()


@pytest.mark.usefixtures("unchecked")
def test_a_decoder_that_obeys_the_label_has_all(digits, screener):
    control = measure_label_control(Decodes(digits, obeys_label=True), digits, screener, seed=0)
    assert control.control > 0.9
    assert control.source < 0.1
    assert control.real > 0.7
    assert control.prior > 0.9
    assert control.refusal("transfer") == control.refusal("prior") == ""


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


def test_a_run_is_refused_where_its_samples_would_be_mislabelled(digits, small_config, tmp_path):
    config = small_config.changed(
        **{
            "recipe.sampler": "transfer",
            "model.style_dim": 0,
            "model.beta": 1e-3,
            "model.class_embedding": 1,
            "training.steps": 150,
            "screening.classifier_steps": 150,
        }
    )
    with pytest.raises(RunError, match=r"recipe.sampler transfer: label control is low: \d+% of"):
        vaeaug.augment(digits, tmp_path / "run", config, device="cpu")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_the_label_decides_by_default(digits, small_config):
    config = small_config.changed(**{"recipe.sampler": "transfer", "training.steps": 300})
    config = config.changed(**{"screening.classifier_steps": 150})
    generator = vaeaug.fit(digits, config, device="cpu")
    screener = vaeaug.Screener.for_job(digits, config)
    diagnostics = vaeaug.diagnose(generator, digits, config, screener=screener)
    control = LabelControl(**diagnostics.metrics["label_control"])
    assert control.control > control.real - 0.05
    assert diagnostics.refusal == ""
    assert control.summary() in diagnostics.summary()
