"""Two processes train what one does: the same loss in every step, and the same samples."""

import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import vaeaug
from tests.small_job import digits as few_digits
from tests.small_job import tiny_config
from vaeaug.generator import draws_divided, sample_configured, sample_divided
from vaeaug.ranks import Ranks, RanksError, current, joined
from vaeaug.training import train, train_restorer
from vaeaug.training._loop import Loop

STEPS = {"training.steps": 20, "training.adapt_steps": 8, "training.eval_every": 6}
# Batches of 13 do not divide by two.
JOBS = {
    "style, exemplars and swaps": {"training.batch_size": 24},
    "an odd batch, a matched judge, noise": {
        "training.batch_size": 13,
        "training.feature_matching": 1.0,
        "training.denoise": 0.1,
    },
    "free bits and a sigma that is fixed half-way": {
        "model.style_dim": 0,
        "model.free_bits": 0.1,
        "training.fixed_sigma_from": 0.5,
    },
    "a capacity": {"model.style_dim": 0, "model.capacity": 4.0},
    "a model of each class": {"model.grouping": "separate"},
    "a grid and a flow": {
        "model.latent": "spatial",
        "density.kind": "flow",
        "density.steps": 8,
        "density.width": 16,
        "density.depth": 2,
    },
    "codes and their prior": {
        "model.latent": "discrete",
        "model.codes": 16,
        "density.width": 32,
        "density.steps": 8,
    },
    "sharpened by one process alone": {"adversarial.steps": 6, "model.style_dim": 0},
}


@contextmanager
def two_processes(**environment):
    """This process leads another one, which is the command as torchrun starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    follower = subprocess.Popen(
        [sys.executable, "-m", "vaeaug", "augment", "not read"],
        env=os.environ | place | {"RANK": "1", "LOCAL_RANK": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (place | {"RANK": "0", "LOCAL_RANK": "0"}).items():
                patch.setenv(name, value)
            ranks = Ranks.from_environment()
        with joined(ranks):
            yield ranks, follower
        ranks.end(7)
        assert follower.communicate(timeout=30)[0] == ""  # only one process speaks
    finally:
        follower.kill()
        follower.communicate()


@pytest.fixture(scope="class")
def second():
    """Another process, for the tests of a class."""
    with two_processes() as (ranks, follower), joined(Ranks()):
        yield ranks
    assert follower.returncode == 7


def losses_of(training):
    """The loss of every step, by stage and step."""
    losses = {}

    def note(stage, step, steps, metrics):
        losses[stage, step] = metrics["loss"]

    return training(note), losses


def weights_of(model):
    return np.concatenate([each.detach().flatten().numpy() for each in model.parameters()])


class TestTwoProcesses:
    @pytest.mark.parametrize("name", JOBS)
    def test_the_losses_of_one_process(self, name, second):
        data, job = few_digits(), tiny_config(**(STEPS | JOBS[name]))

        def training(progress):
            return train(data, job, device="cpu", progress=progress)

        alone, expected = losses_of(training)
        with joined(second):
            assert current().size == 2
            divided, found = losses_of(training)
        assert found.keys() == expected.keys()
        np.testing.assert_allclose(
            list(found.values()), list(expected.values()), rtol=1e-4, atol=1e-5, err_msg=name
        )
        ours, theirs = weights_of(divided.model), weights_of(alone.model)
        assert np.abs(ours - theirs).mean() < 1e-3 * np.abs(theirs).mean()
        assert divided.stages.keys() == alone.stages.keys()

    def test_each_process_computes_half_of_a_batch(self, second, monkeypatch):
        """The network of this process sees its own rows only, as many as the other's."""
        seen = []
        data, job = few_digits(), tiny_config(**(STEPS | {"training.batch_size": 13}))
        forward = vaeaug.models.networks.Encoder.forward
        steps = Loop._take_step

        def counted(self, x, *arguments):
            seen.append(len(x))
            return forward(self, x, *arguments)

        def only_in_steps(self, *arguments):
            with monkeypatch.context() as patch:
                patch.setattr(vaeaug.models.networks.Encoder, "forward", counted)
                return steps(self, *arguments)

        monkeypatch.setattr(Loop, "_take_step", only_in_steps)
        with joined(second):
            train(data, job, device="cpu")
        assert set(seen) == {7, 8}  # of 13, and of 16 while the classes adapt

    def test_pool(self, second):
        """Images without labels, by the bound summed over labels and by pseudo-labels."""
        data = few_digits().with_unlabelled(few_digits((20, 20, 20, 20)).images)
        for mode in ("m2", "pseudo_label"):
            keys = {"semi_supervised.mode": mode, "semi_supervised.classifier_steps": 6}
            job = tiny_config(**(STEPS | {"training.steps": 6} | keys))

            def training(progress, job=job):
                return train(data, job, device="cpu", progress=progress)

            alone, expected = losses_of(training)
            with joined(second):
                divided, found = losses_of(training)
            np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4)
            np.testing.assert_array_equal(divided.pool_labels, alone.pool_labels)

    def test_restorer(self, second):
        data, job = few_digits(), tiny_config(**{"restoration.steps": 20})

        def training(progress):
            return train_restorer(data, job, device="cpu", progress=progress)

        (alone, _), expected = losses_of(training)
        with joined(second):
            (divided, _), found = losses_of(training)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-3)
        np.testing.assert_allclose(divided.weights, alone.weights, atol=1e-2)

    def test_draws_have_the_same_bytes(self, second, synthesizer, digits, small_config, tmp_path):
        generator = synthesizer.with_choices().attach(digits)
        generator.save(tmp_path)
        for label, n, start, sampler in ((0, 300, 0, "interpolate"), (3, 130, 70, "gmm")):
            expected = sample_configured(
                generator, small_config, label, n, sampler=sampler, seed=1, start=start
            )
            with joined(second), draws_divided(generator, tmp_path, digits, small_config):
                found = sample_divided(
                    generator, small_config, label, n, sampler=sampler, seed=1, start=start
                )
            for name in ("images", "labels", "latents", "source_index", "seed"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_an_error_of_the_other_process_is_told_here():
    data = few_digits()
    generator = vaeaug.fit(data, tiny_config(), device="cpu").attach(data)
    with two_processes() as (_, follower):

        def draw():
            with draws_divided(generator, Path("/nowhere"), data, tiny_config()):
                sample_divided(generator, tiny_config(), 0, 128, sampler="gmm", seed=0)

        with pytest.raises(RanksError, match="process 1 of 2: /nowhere: expected a generator"):
            draw()
        follower.wait(30)
    assert follower.returncode == 1


def test_a_process_that_is_killed_ends_the_other(monkeypatch):
    data, job = few_digits(), tiny_config(**(STEPS | {"training.steps": 10**6}))
    with two_processes() as (_, follower):

        def kill(stage, step, steps, metrics):
            if step == 5:
                follower.kill()
                follower.wait()

        with pytest.raises(RanksError, match="ended from outside"):
            train(data, job, device="cpu", progress=kill)


def test_machines(monkeypatch):
    for name, value in {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RanksError, match="expected processes of one machine, got 4 of them, 2"):
        Ranks.from_environment()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Ranks.from_environment() is None


@pytest.mark.parametrize("n", [1, 2, 7])
def test_rows(n):
    whole = torch.arange(3 * n).view(n, 3)
    rows = torch.cat([Ranks(rank, 3).own(whole) for rank in range(3)])
    assert len(rows) % 3 == 0
    np.testing.assert_array_equal(rows[:n], whole)
