"""Images without labels: the labels they are given, and the bound over all labels."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import vaeaug
from vaeaug.models import CVAE, SmallClassifier
from vaeaug.stages import SplitStages
from vaeaug.training import train
from vaeaug.training._augmentation import strongly_augmented
from vaeaug.training._batches import Batches
from vaeaug.training._semi_supervised import (
    ClassifierObjective,
    ConsistencyObjective,
    M2Objective,
    aligned,
    shifted,
)
from vaeaug.training._state import Stage, StageRecord, TrainState

QUICK = [
    "model.width=8",
    "model.latent_dim=8",
    "model.grouping=shared",
    "training.steps=40",
    "training.eval_every=20",
    "training.batch_size=32",
    "semi_supervised.classifier_steps=150",
    "semi_supervised.threshold=0.8",
]


def quick(*overrides: str) -> vaeaug.AugmentConfig:
    return vaeaug.load_config(None, [*QUICK, *overrides])


@pytest.fixture(scope="module")
def pooled():
    """Digits, 300 of them without labels, and the labels that were taken away."""
    data = vaeaug.read("digits").imbalanced([60] * 10, seed=0)
    labelled, rest = data.split_off(0.49, seed=3)
    return labelled.with_unlabelled(rest.images[:200]), rest.labels[:200]


@pytest.fixture(scope="module")
def labelled_pool(pooled):
    return train(pooled[0], quick(), device="cpu")


def test_sure_labels_are_mostly_right_and_the_rest_is_unknown(labelled_pool, pooled):
    _, truth = pooled
    found = labelled_pool.pool_labels
    assert found.shape == truth.shape
    known = found >= 0
    assert 0.3 < known.mean() < 1
    assert found[~known].tolist() == [-1] * int((~known).sum())
    assert (found[known] == truth[known]).mean() > 0.9
    assert any(
        line == f"unlabelled pool: {known.sum()} of 200 images were given a label (probability 0.8 "
        "or more, classes as frequent as the labelled ones)"
        for line in labelled_pool.summary()
    )


def test_what_got_a_label_is_trained_on(labelled_pool, pooled):
    batches = Batches(pooled[0], quick(), torch.device("cpu"))
    n, n_rows = len(batches.images), sum(map(len, batches.rows))
    rows = np.flatnonzero(labelled_pool.pool_labels >= 0)
    batches.adopt(rows, labelled_pool.pool_labels[rows])
    assert len(batches.images) == len(batches.labels) == n + len(rows)
    for label, own in enumerate(batches.rows):
        assert torch.all(batches.labels[torch.from_numpy(own)] == label)
    assert sum(map(len, batches.rows)) == n_rows + len(rows)
    np.testing.assert_array_equal(batches.images[n:].numpy(), pooled[0].unlabelled[rows])


def test_the_gate_may_train_on_the_labels_of_the_pool_without_samples(
    labelled_pool, pooled, tmp_path
):
    data, _ = pooled
    pool = labelled_pool.pool_labels
    vaeaug.Synthesizer.from_training(labelled_pool.model, data, seed=0, pool_labels=pool).save(
        tmp_path / "generator"
    )
    more = SplitStages(quick(), "cpu").with_pseudo_labels(data, tmp_path)
    known = pool >= 0
    assert more.unlabelled is None
    np.testing.assert_array_equal(more.labels, np.concatenate([data.labels, pool[known]]))
    np.testing.assert_array_equal(more.images[len(data) :], data.unlabelled[known])
    grouped = replace(data, groups=np.arange(len(data)) // 2)
    groups = SplitStages(quick(), "cpu").with_pseudo_labels(grouped, tmp_path).groups
    assert len(np.unique(groups[len(data) :])) == known.sum()
    assert not np.isin(groups[len(data) :], grouped.groups).any()


def test_no_sampler_starts_from_an_image_of_unknown_class(labelled_pool, pooled):
    data, _ = pooled
    pool = labelled_pool.pool_labels
    generator = vaeaug.Synthesizer.from_training(
        labelled_pool.model, data, seed=0, pool_labels=pool
    ).attach(data)
    assert generator.n_real == len(data)
    assert len(generator.labels) == len(data) + len(pool)
    unknown = len(data) + np.flatnonzero(pool < 0)
    known = len(data) + np.flatnonzero(pool >= 0)
    used = set()
    for label in range(10):
        for sampler in ("posterior", "interpolate", "transfer"):
            residual = sampler != "transfer"
            batch = generator.sample(label, 100, seed=0, sampler=sampler, residual=residual)
            used |= set(batch.source_index.tolist())
            assert (sampler == "transfer") ^ np.all(generator.labels[batch.source_index] == label)
    assert used.isdisjoint(unknown.tolist())
    assert used & set(known.tolist())
    # A residual of an image of the pool is taken from the pool.
    row = int(known[0])
    keys = {"sampler": "posterior", "source": [row], "temperature": 0.0, "residual": True}
    batch = generator.sample(int(generator.labels[row]), 1, seed=0, **keys)
    np.testing.assert_array_equal(batch.images[0], data.unlabelled[row - len(data)])
    with pytest.raises(vaeaug.SamplingError, match="expects sources of class"):
        generator.sample(0, 1, seed=0, sampler="posterior", source=[int(unknown[0])])


# -- M2 ------------------------------------------------------------------------------------------


@pytest.fixture
def m2(pooled):
    """An objective with a classifier that is neither sure nor clueless."""
    config = quick("semi_supervised.mode=m2", "model.beta=1.5", "training.kl_warmup=0")
    batches = Batches(pooled[0], config, torch.device("cpu"))
    stage = Stage("trunk", 40, tuple(range(10)))
    torch.manual_seed(0)
    model = CVAE((8, 8, 1), 10, latent_dim=8, width=8)
    classifier = SmallClassifier((8, 8, 1), 10, width=8).eval()
    with torch.no_grad():
        classifier.linear.weight.mul_(4)
    objective = M2Objective(batches, config, stage, classifier)
    optimiser = torch.optim.SGD(model.parameters())
    return objective, TrainState(model, model, {}, optimiser, StageRecord(), objective)


def test_the_unlabelled_bound_is_the_sum_over_classes(m2):
    objective, train_state = m2
    model, batches = train_state.model, objective.batches
    x = batches.scale(batches.pool[:1])
    with torch.no_grad():
        sigma = torch.tensor(-3.0)
        found = objective._unlabelled(train_state, x, 7, 0.5, sigma)
        q = torch.softmax(objective.classifier(x), dim=1)[0]
        assert 0.11 < float(q.max()) < 0.99
        order = q.argsort(descending=True)
        noise = batches.noise("trunk/unlabelled", 7, (10, 8))
        model.likelihood.log_sigma2.copy_(sigma)
        prior = np.array([len(rows) + 1 for rows in batches.rows], dtype=float)
        prior /= prior.sum()
        expected = 0.0
        for place, label in enumerate(order.tolist()):
            terms = model.elbo(x, torch.tensor([label]), noise=noise[place : place + 1])
            negative = float(terms.reconstruction) + 1.5 * float(terms.kl.sum())
            negative -= np.log(prior[label])
            expected += float(q[label]) * (negative + np.log(float(q[label])))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_a_sure_classifier_makes_it_the_labelled_bound(m2):
    objective, train_state = m2
    x = objective.batches.scale(objective.batches.pool[:1])
    with torch.no_grad():
        objective.classifier.linear.weight.zero_()
        objective.classifier.linear.bias.copy_(200.0 * F.one_hot(torch.tensor(3), 10))
        sigma = torch.tensor(-3.0)
        found = objective._unlabelled(train_state, x, 7, 0.5, sigma)
        noise = objective.batches.noise("trunk/unlabelled", 7, (10, 8))
        order = F.log_softmax(objective.classifier(x), dim=1).topk(10).indices[0]
        assert order[0] == 3
        train_state.model.likelihood.log_sigma2.copy_(sigma)
        terms = train_state.model.elbo(x, torch.tensor([3]), noise=noise[:1])
        expected = terms.reconstruction + 1.5 * terms.kl.sum() - objective.log_class[3]
    assert float(found) == pytest.approx(float(expected), rel=1e-3)


def test_the_unlabelled_bound_teaches_model_and_classifier(m2):
    objective, train_state = m2
    trained = objective.trained(train_state.model)
    assert any(name.startswith("classifier.") for name in trained)
    assert any(name.startswith("decoder.") for name in trained)
    x = objective.batches.scale(objective.batches.pool[:4])
    objective._unlabelled(train_state, x, 0, 0.5, torch.tensor(-3.0)).backward()
    assert objective.classifier.linear.weight.grad.abs().max() > 0
    assert train_state.model.decoder.out.weight.grad.abs().max() > 0


def test_m2_learns_and_labels_the_pool(pooled):
    data, truth = pooled
    alone = train(data, quick("semi_supervised.mode=m2"), device="cpu")
    state = alone.stages["trunk"]
    assert state.best[0] > state.first[0] + 5
    known = alone.pool_labels >= 0
    assert known.mean() > 0.2
    assert (alone.pool_labels[known] == truth[known]).mean() > 0.85


def test_the_pool_matters_to_m2(pooled):
    data, _ = pooled
    labelled = vaeaug.LabelledImages(data.images, data.labels, data.class_names, data.value_range)
    keys = ("semi_supervised.mode=m2", "semi_supervised.classifier_steps=2", "training.steps=2")
    first, second = (
        train(labelled.with_unlabelled(pool), quick(*keys), device="cpu").model.state_dict()
        for pool in (data.unlabelled, 255 - data.unlabelled)
    )
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_the_judge_of_likeness_does_not_learn_with_m2(pooled, monkeypatch):
    seen = []

    class Watched(M2Objective):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            before = {name: each.clone() for name, each in self.judge.state_dict().items()}
            seen.append((self, before))

    monkeypatch.setattr("vaeaug.training._train.M2Objective", Watched)
    keys = ("semi_supervised.mode=m2", "training.feature_matching=1.0", "training.steps=6")
    train(pooled[0], quick("semi_supervised.classifier_steps=10", *keys), device="cpu")
    [(objective, before)] = seen
    judge, classifier = objective.judge.state_dict(), objective.classifier.state_dict()
    assert all(torch.equal(judge[name], before[name]) for name in before)
    assert any(not torch.equal(classifier[name], before[name]) for name in before)


def test_m2_of_separate_models_is_refused(pooled):
    config = quick("semi_supervised.mode=m2", "model.grouping=separate")
    with pytest.raises(vaeaug.ConfigError) as error:
        train(pooled[0], config, device="cpu")
    assert str(error.value) == (
        "semi_supervised.mode m2: expected model.grouping adapted or shared, got separate"
    )


# -- Small shifts --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 9), (2, 6, 7), (1, 5, 6, 7)])
def test_shifted_images_are_moved_whole_with_edges_repeated(shape, pooled):
    batches = Batches(pooled[0], quick(), torch.device("cpu"))
    x = torch.rand(40, *shape)
    moved = shifted(batches, "classifier", 5, x)
    assert torch.equal(moved, shifted(batches, "classifier", 5, x))
    seen = set()
    for before, after in zip(x, moved, strict=True):
        candidates = []
        for shift in np.ndindex(*[5] * (len(shape) - 1)):
            rolled = before
            for axis, by in enumerate(shift, start=1):
                index = (torch.arange(before.shape[axis]) + by - 2).clamp(0, before.shape[axis] - 1)
                rolled = rolled.index_select(axis, index)
            if torch.equal(rolled, after):
                candidates.append(shift)
        assert len(candidates) == 1
        seen.add(candidates[0])
    assert len(seen) > 3


# -- Consistency ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 2, 40), (5, 3, 16, 16), (5, 1, 8, 8, 8)])
def test_strong_views_differ_and_stay_in_range(pooled, shape):
    batches = Batches(pooled[0], quick(), torch.device("cpu"))
    x = torch.rand(shape)
    one, other = (strongly_augmented(batches, "a", step, x) for step in (0, 1))
    assert one.shape == x.shape
    assert 0 <= one.min() <= one.max() <= 1
    assert not torch.allclose(one, other)
    assert not torch.allclose(one, x, atol=0.05)
    torch.testing.assert_close(one, strongly_augmented(batches, "a", 0, x))


def test_only_sure_images_of_the_pool_are_learned_from(pooled):
    batches = Batches(pooled[0], quick(), torch.device("cpu"))
    stage = Stage("classifier", 10, tuple(range(10)), class_power=0.0)
    torch.manual_seed(0)
    model = SmallClassifier((8, 8, 1), 10, width=8)
    average = copy.deepcopy(model)
    losses = {}
    for threshold in (0.999999, 1e-6):
        objective = ConsistencyObjective(
            batches, stage, weight=1.0, threshold=threshold, is_aligned=False
        )
        state = TrainState(
            model, average, {}, torch.optim.SGD(model.parameters()), StageRecord(), objective
        )
        losses[threshold] = objective.loss(state, 0, 0.0)
    none, all_ = losses.values()
    alone = ClassifierObjective(batches, stage).loss(state, 0, 0.0)
    assert none.metrics["sure"] == 0
    assert none.loss.item() == pytest.approx(alone.loss.item())
    assert all_.metrics["sure"] == 1
    assert all_.loss.item() > alone.loss.item()


def test_aligned_predictions_are_as_frequent_as_they_should_be():
    probability = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.7, 0.3]])
    even = torch.tensor([0.5, 0.5])
    better = aligned(probability, probability.mean(dim=0), even)
    torch.testing.assert_close(better.sum(dim=1), torch.ones(3))
    # Bayes' rule for another prior: 0.8 / 0.7 against 0.2 / 0.3.
    assert better[0, 0].item() == pytest.approx(0.8 / 0.7 / (0.8 / 0.7 + 0.2 / 0.3))
    assert better[:, 0].argmax() == probability[:, 0].argmax()
    assert abs(better.mean(dim=0)[0] - 0.5) < 0.01 < probability.mean(dim=0)[0] - 0.5
    # A class of no labelled image is never predicted.
    assert aligned(probability, even, torch.tensor([0.0, 1.0]))[:, 0].tolist() == [0.0] * 3


def test_a_pool_makes_a_better_classifier_of_a_few_labels():
    """Eight labels a class and nine hundred images without; the truth is known to the test."""
    data = vaeaug.read("digits")
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(data.labels == label))[:8] for label in range(10)]
    )
    rest = np.setdiff1d(np.arange(len(data)), rows)[:900]
    few = data.subset(rows).with_unlabelled(data.images[rest])
    right = {}
    for weight in (0.0, 1.0):
        config = quick(
            f"semi_supervised.consistency={weight}",
            "semi_supervised.classifier_steps=150",
            "semi_supervised.threshold=0.6",
            "training.steps=2",
        )
        found = train(few, config, device="cpu").pool_labels
        right[weight] = (found == data.labels[rest]).mean()  # a label that was not given is wrong
    assert right[1.0] > right[0.0] + 0.01
