"""Runs of earlier versions are read, merged, reported and resumed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import vaeaug
from vaeaug.config import load_config, make_config
from vaeaug.job.finished import report
from vaeaug.job.folder import read_run
from vaeaug.job.inspection import describe
from vaeaug.shards import ShardDataset

# A finished run with a search and a gate, of before the recipe was part of the configuration.
ARCHIVE = Path(__file__).parent / "archives" / "searched-run"
COUNTS = [60, 40, 30, 25, 20, 16, 14, 12, 10, 6]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ARCHIVE, tmp_path / "run"))


@pytest.fixture(scope="module")
def data() -> vaeaug.LabelledImages:
    return vaeaug.read("digits", split="train").imbalanced(COUNTS, seed=3)


def test_it_is_whole_and_merges(run, data):
    assert vaeaug.verify(run).ok
    with (
        pytest.warns(UserWarning, match="does not help"),
        pytest.warns(UserWarning, match=r"no synthetic samples of the classes \['9'\]"),
    ):
        merged = vaeaug.merge(data, run, share=0.3)
    assert int(merged.is_synthetic.sum()) > 200
    # Its search found that no recipe helps: the default merge is of real images alone.
    assert not vaeaug.merge(data, run).is_synthetic.any()


def test_its_generator_draws(run, data):
    generator = vaeaug.load(run).attach(data)
    shards = ShardDataset(run)
    for label, options in (
        (1, {"sampler": "interpolate", "residual": True}),
        (2, {"sampler": "gmm"}),
    ):
        rows = np.flatnonzero(shards.labels == label)
        seeds = shards.seed[rows].astype(int)
        batch = generator.sample(label, int(seeds.max()) + 1, seed=3, **options)
        np.testing.assert_allclose(batch.latents[seeds], shards.latents[rows], atol=1e-5)
        # Rounding may differ on another machine, by a gray level.
        difference = batch.images[seeds].astype(int) - shards.images_at(rows)
        assert np.abs(difference).max() <= 1


def test_its_report_is_written_again_with_what_was_measured(run, data):
    before = (run / "manifest.json").read_bytes()
    page = report(data, run).read_text(encoding="utf-8")
    assert "of all recipes tried" in page
    assert "Round 3" in page
    assert vaeaug.verify(run).ok
    assert (run / "evaluation" / "measures.json").exists()
    assert (run / "manifest.json").read_bytes() != before  # it names the new report
    again = (run / "manifest.json").read_bytes()
    report(data, run)
    assert (run / "manifest.json").read_bytes() == again


def test_the_same_job_finds_it_complete_and_another_is_refused(run, data):
    keys = [
        "seed=3",
        f"data.class_counts={COUNTS}",
        *("training.steps=60", "training.adapt_steps=20", "training.batch_size=32"),
        *("training.eval_every=30", "training.checkpoint_every=30", "training.bound_samples=5"),
        *("model.width=8", "model.max_width=16", "model.latent_dim=6", "model.class_embedding=4"),
        *("screening.classifier_steps=40", "screening.folds=2"),
        # The defaults of that version.
        *("plan.min_class_count=8", "training.weight_decay=0.0001", "training.learning_rate=0.002"),
        *("density.depth=4", "density.learning_rate=0.001"),
    ]
    result = vaeaug.augment(data, run, load_config(None, keys), search_first=True, progress=False)
    assert result.resumed
    changed = load_config(None, [*keys, "recipe.temperature=0.8"])
    with pytest.raises(vaeaug.ConfigError, match=r"changed: recipe.temperature: 1.0 -> 0.8\."):
        vaeaug.augment(data, run, changed, search_first=True, progress=False)


def test_it_grows(run, data):
    before = {path.name: path.read_bytes() for path in (run / "shards").iterdir()}
    old = read_run(run)["config"]
    job = make_config(old, warn=False).changed(
        seed=4, **{"data.seed": 3, "plan.sampling_strategy": {"0": 62}}
    )
    result = vaeaug.augment(data, run, job, add=True, device="cpu", progress=False)
    assert vaeaug.verify(run).ok
    assert [(e.name, e.accepted) for e in result.manifest.generations[1].classes] == [("0", 2)]
    assert all((run / "shards" / name).read_bytes() == data for name, data in before.items())
    assert result.manifest.n_images == 236
    assert result.manifest.extra["recipe"]["origin"] == "search"


def test_it_is_described(run):
    document = describe(run)
    assert document["n"] == 234
    assert document["recipe"]["origin"] == "search"


def test_a_generator_of_a_newer_version_is_refused(run):
    path = run / "model" / "config.json"
    content = json.loads(path.read_text()) | {"format_version": 99}
    path.write_text(json.dumps(content))
    with pytest.raises(vaeaug.SamplingError, match=r"expected format .* got .* version 99"):
        vaeaug.load(run)
