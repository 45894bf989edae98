"""What a run says of its generator."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import vaeaug
from tests.small_job import faint
from vaeaug.stages.diagnosis import class_information


def test_information_of_known_units():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, size=4000)
    knows_all = labels + 0.01 * rng.standard_normal(4000)
    knows_half = (labels >= 2) + 0.01 * rng.standard_normal(4000)
    knows_nothing = rng.standard_normal(4000)
    found = class_information(np.stack([knows_all, knows_half, knows_nothing], axis=1), labels)
    # Quarters and halves fall on the borders of ten bins only nearly: a little is lost.
    assert math.log(4) * 0.85 < found[0] < math.log(4) + 0.01
    assert math.log(2) * 0.9 < found[1] < math.log(2) + 0.02
    # The plug-in estimate's own error is about 0.003 here.
    assert found[2] < 0.01


def test_every_run_has_them(finished):
    document = json.loads((finished.out_dir / "diagnostics.json").read_text())
    keys = {"training", "fit", "latents", "label_control", "classes", "warnings", "sha256"}
    assert set(document) == keys
    control = document["label_control"]
    assert 0 <= control["control"] <= 1
    assert 0 <= control["source"] <= 1
    assert control["control"] + control["source"] <= 1 + 1e-9
    assert control["probe_chance"] == 0.1
    assert control["real"] > 0.1
    assert document["latents"]["units"] == 32
    assert len(document["latents"]["kl_per_unit"]) == 32
    assert 0 < document["latents"]["active"] <= 32
    fit = document["fit"]
    assert fit["gap"] == pytest.approx(fit["elbo_train"] - fit["elbo_held_out"])
    assert fit["bound"] > fit["elbo_held_out"] - 4 * fit["elbo_held_out_error"]
    assert all(each["why"] for each in document["classes"].values())
    assert {"diagnostics.json", "traversals.png"} <= set(finished.manifest.files)
    assert vaeaug.verify(finished.out_dir).ok


def test_a_class_that_has_collapsed_gets_another_sampler(digits, small_config):
    config = small_config.changed(
        **{"sampling.residual": False, "model.style_dim": 0, "model.class_embedding": 32}
    )
    generator = vaeaug.fit(digits, config, device="cpu")
    broken = generator.densities[0]
    point = type(broken)(broken.weights, broken.means * 0, broken.choleskys * 1e-6, broken.kind)
    generator.densities = (point, *generator.densities[1:])
    assert generator.default_sampler(0) == "gmm"
    screener = vaeaug.Screener.for_job(digits, config)
    found = vaeaug.diagnose(generator, digits, config, screener=screener)
    assert any(each.startswith("class '0': mode collapse? samples") for each in found.warnings)
    assert generator.default_sampler(0) == "gmm"
    generator = found.choices.apply(generator)
    assert generator.default_sampler(0) != "gmm"
    assert "mode collapse?" in generator.sampler_reason(0)
    assert generator.default_sampler(0) == found.metrics["classes"]["0"]["sampler"]


def test_a_sampler_that_screening_turns_away_is_not_used(digits, small_config):
    """Edits between images that share one latent change nothing: all are near-copies."""
    generator = vaeaug.fit(digits, small_config, device="cpu")
    means = np.broadcast_to(generator.means.mean(axis=0), generator.means.shape)
    generator.latents = replace(generator.latents, means=means, _neighbours={})
    screener = vaeaug.Screener.for_job(digits, small_config)
    found = vaeaug.diagnose(generator, digits, small_config, screener=screener)
    assert any("screening rejects 100% of the samples" in each for each in found.warnings)
    generator = found.choices.apply(generator)
    assert generator.default_sampler(0, residual=True) != "interpolate"


def test_the_choice_is_saved(digits, small_config, synthesizer, tmp_path):
    synthesizer.save(tmp_path)
    again = vaeaug.load(tmp_path)
    again.preferred[2] = ("posterior", "covers more")
    again.save(tmp_path)
    assert vaeaug.load(tmp_path).default_sampler(2) == "posterior"
    assert vaeaug.load(tmp_path).sampler_reason(2) == "posterior: covers more"


def test_collapse_is_named(digits, small_config):
    config = small_config.changed(**{"model.beta": 300.0, "training.rescue": False})
    generator = vaeaug.fit(digits, config, device="cpu")
    found = vaeaug.diagnose(generator, digits, config)
    assert any(each.startswith("posterior collapse:") for each in found.warnings)


def test_what_training_did_about_a_collapse_is_told(digits, small_config):
    data = faint(digits)
    config = small_config.changed(**{"model.style_dim": 0, "training.eval_every": 20})
    generator = vaeaug.fit(data, config, device="cpu")
    assert any("beta was lowered to 0.25" in note for note in generator.notes)
    found = vaeaug.diagnose(generator, data, config)
    assert found.metrics["training"] == list(generator.notes)


def test_no_coverage_without_features_or_images(digits, small_config, synthesizer):
    found = vaeaug.diagnose(synthesizer, digits, small_config)
    assert all("coverage" not in each for each in found.metrics["classes"].values())
    assert "held-out ELBO" in found.summary()[0]


def test_what_edits_fall_short_of_a_density_makes(digits, small_config, tmp_path):
    """As many candidates as are wanted, and near-copies among the edits: they run out."""
    config = small_config.changed(
        **{
            "plan.sampling_strategy": {0: 160},
            "screening.max_candidates_ratio": 1.0,
            "screening.near_copy_factor": 0.5,
            "training.steps": 500,
        }
    )
    result = vaeaug.augment(digits, tmp_path / "run", config, device="cpu")
    (entry,) = [each for each in result.manifest.classes if each.n_synthetic]
    assert entry.rejected["near-copy"] > 0
    samplers = json.loads(result.manifest.to_bytes())["extra"]["samplers"]
    assert samplers["0"] == "interpolate+residual, gmm"
    seeds = vaeaug.ShardDataset(result.out_dir).seed
    assert len(np.unique(seeds)) == len(seeds) == entry.accepted
    assert vaeaug.verify(result.out_dir).ok
