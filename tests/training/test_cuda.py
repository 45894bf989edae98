"""Training and drawing on a card: as on the CPU but for rounding, and always the same."""

import hashlib
import logging

import numpy as np
import pytest
import torch

import vaeaug
from vaeaug.training import train
from vaeaug.training._loop import Loop

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CUDA = "cuda"
TINY = [
    "training.steps=60",
    "training.adapt_steps=20",
    "training.eval_every=20",
    "semi_supervised.classifier_steps=30",
    "restoration.steps=30",
    "screening.classifier_steps=30",
    "model.width=8",
]
SETTINGS = {
    "style": [],
    "plain": ["model.style_dim=0"],
    "grid and flow": ["model.latent=spatial", "density.steps=30"],
    "adversarial": ["adversarial.steps=8"],
}


@pytest.fixture(scope="module")
def data() -> vaeaug.LabelledImages:
    return vaeaug.read("digits").imbalanced([60, 50, 40, 35, 30, 30, 25, 20, 16, 12], seed=0)


@pytest.fixture(scope="module")
def generator(data) -> vaeaug.Synthesizer:
    config = vaeaug.load_config(None, TINY)
    return vaeaug.fit(data, config, device=CUDA, progress=False)


def digest(*modules: torch.nn.Module) -> str:
    found = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            found.update(name.encode() + tensor.cpu().numpy().tobytes())
    return found.hexdigest()


def test_the_steps_are_replayed_as_a_graph(data, caplog, monkeypatch):
    config = vaeaug.load_config(None, TINY)
    replays, replay = [0], torch.cuda.CUDAGraph.replay

    def counted(graph):
        replays[0] += 1
        return replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    with caplog.at_level(logging.INFO, logger="vaeaug"):
        train(data, config, device=CUDA)
    assert "one by one" not in caplog.text
    assert replays[0] >= 60 + 20 + 30 - 5 * 3


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["model.style_dim=0"],
        ["model.latent=spatial", "density.steps=30"],
        ["adversarial.steps=8"],
    ],
    ids=["style", "plain", "grid and flow", "adversarial"],
)
def test_a_replayed_stage_is_the_stage(settings, data, monkeypatch):
    config = vaeaug.load_config(None, [*TINY, *settings])
    replayed = train(data, config, device=CUDA)

    def eager(self, stage, state):
        return lambda step, done: self._take_step(stage, state, step, done)

    monkeypatch.setattr(Loop, "_stepper", eager)
    plain = train(data, config, device=CUDA)
    assert plain.stages.keys() == replayed.stages.keys()
    for stage, record in plain.stages.items():
        theirs = replayed.stages[stage]
        assert theirs.step == record.step
        assert theirs.skipped == record.skipped
        # Sums in another order; what a stage learns is the same.
        np.testing.assert_allclose(theirs.best, record.best, rtol=0.05, atol=3.0)


def test_the_same_seed_gives_the_same_weights(data, generator):
    config = vaeaug.load_config(None, TINY)
    again = vaeaug.fit(data, config, device=CUDA, progress=False)
    assert digest(again.model, again.restorer) == digest(generator.model, generator.restorer)


def test_what_is_drawn_differs_from_the_cpu_by_rounding_alone(data, generator, tmp_path):
    generator.save(tmp_path / "generator")
    on_cpu = vaeaug.load(tmp_path / "generator").attach(data)
    generator.attach(data)
    for sampler in ("prior", "posterior", "interpolate", "gmm", "transfer"):
        ours, theirs = (
            each.sample(2, 200, seed=1, sampler=sampler).images.astype(int)
            for each in (generator, on_cpu)
        )
        assert np.abs(ours - theirs).max() <= 1
        assert np.mean(ours != theirs) < 2e-3


def test_a_sample_does_not_depend_on_its_batch(data, generator):
    generator.attach(data)
    whole = generator.sample(3, 150, seed=7, sampler="gmm")
    for start, n in ((0, 1), (63, 3), (70, 64)):
        part = generator.sample(3, n, seed=7, start=start, sampler="gmm")
        np.testing.assert_array_equal(part.images, whole.images[start : start + n])


def test_a_run_is_the_same_twice(data, tmp_path):
    config = vaeaug.load_config(None, TINY)
    for name in ("one", "two"):
        vaeaug.augment(data, tmp_path / name, config, device=CUDA, progress=False)
    one, two = (vaeaug.ShardDataset(tmp_path / name) for name in ("one", "two"))
    np.testing.assert_array_equal(
        one.images_at(np.arange(len(one))), two.images_at(np.arange(len(two)))
    )
    files = {
        name: {p.name: p.read_bytes() for p in sorted((tmp_path / name).glob("shards/*.h5"))}
        for name in ("one", "two")
    }
    assert files["one"] == files["two"]


def test_a_stage_that_began_on_a_card_goes_on_without(data, tmp_path):
    config = vaeaug.load_config(None, [*TINY, "training.checkpoint_every=10"])

    def stop(what, step, steps, metrics):
        if what == "trunk" and step == 35:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, config, device=CUDA, folder=tmp_path, progress=stop)
    trained = train(data, config, device="cpu", folder=tmp_path)
    assert trained.stages["trunk"].step == 60
    assert trained.stages["trunk"].skipped == 0
