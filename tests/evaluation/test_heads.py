"""Linear heads of the gate: they classify, choose their weight decay, and differ as arms say."""

import numpy as np
import pytest
import torch

import vaeaug
from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.evaluation import Arm, Bench, SyntheticSet, default_candidates, run_gate
from vaeaug.evaluation.gate.arms import fixed_arms
from vaeaug.evaluation.gate.heads import LinearHead, _inner_split, _normalised
from vaeaug.evaluation.gate.probe import predict, train_probe
from vaeaug.evaluation.gate.probe_networks import probe_name

CONFIG = EvaluationConfig(batch_size=64)


def blobs(counts, seed, *, apart=3.0, features=8):
    """Normal classes whose means lie on the axes."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    x = rng.normal(size=(len(labels), features))
    x[np.arange(len(labels)), labels] += apart
    return vaeaug.LabelledImages(
        images=x.astype(np.float32)[:, None],
        labels=labels.astype(np.int64),
        class_names=tuple(f"class {c}" for c in range(len(counts))),
        value_range=(-20.0, 20.0),
    )


@pytest.fixture(scope="module")
def train():
    return blobs([300, 300, 12, 12], 0)


@pytest.fixture(scope="module")
def test():
    return blobs([400] * 4, 1)


def recalls(head, data):
    called = predict(head, data).argmax(axis=1)
    return np.array([(called[data.labels == c] == c).mean() for c in range(data.n_classes)])


def head_of(train, arm, *, synthetic=None, seed=0, steps=300):
    return train_probe(train, synthetic, arm, CONFIG, seed=seed, steps=steps)


def test_every_baseline_classifies(train, test):
    arms = list(fixed_arms(train))
    assert {arm.balance for arm in arms} >= {"none", "oversampling", "logit adjustment"}
    assert {arm.balance for arm in arms} >= {"tau-norm", "nearest mean"}
    assert not any(arm.classic or arm.flip or arm.mix == "cutmix" for arm in arms)
    by_arm = {arm.name: recalls(head_of(train, arm), test) for arm in arms}
    # By chance 0.25; of equal class shares the best classifier is right in 0.94 of the cases.
    assert min(found.mean() for found in by_arm.values()) > 0.6
    assert max(found.mean() for found in by_arm.values()) > 0.9
    # What is done against unequal classes helps the rare ones.
    for name in ("oversampling", "logit adjustment", "tau-norm", "nearest mean"):
        assert by_arm[name][2:].mean() > by_arm["none"][2:].mean() + 0.05, name


def test_the_nearest_mean_is_that_of_scikit_learn(train, test):
    from sklearn.neighbors import NearestCentroid

    head = head_of(train, Arm("nearest mean"))
    spread = head.spread.numpy()
    x, other = ((d.images[:, 0] + 20) / 40 / spread for d in (train, test))
    expected = NearestCentroid().fit(x, train.labels).predict(other)
    assert (predict(head, test).argmax(axis=1) == expected).mean() > 0.999


def test_samples_count_in_the_nearest_mean_by_their_share(train):
    spot = np.full((5, 1, 8), 10, np.float32)
    samples = SyntheticSet(spot, np.full(5, 2))
    arm = Arm("nearest mean", recipe=Recipe(share=0.25))
    plain, moved = head_of(train, Arm("nearest mean")), head_of(train, arm, synthetic=samples)
    means = [(head.weight * head.spread + head.centre).numpy() * 40 - 20 for head in (plain, moved)]
    np.testing.assert_allclose(means[1][2], 0.75 * means[0][2] + 0.25 * 10, atol=1e-4)
    np.testing.assert_allclose(means[1][[0, 1, 3]], means[0][[0, 1, 3]], atol=1e-5)


def test_weight_decay_is_stronger_where_features_are_noise(test):
    noisy = blobs([6] * 4, 2, features=400)
    clear = blobs([600] * 4, 3, features=8)
    weights = [head_of(data, Arm("oversampling")).weight.norm() for data in (noisy, clear)]
    assert weights[0] < weights[1]


def test_tau_normalisation_makes_norms_alike():
    torch.manual_seed(0)
    weight = torch.randn(4, 8) * torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    head = LinearHead(torch.zeros(8), torch.ones(8), weight, torch.ones(4))
    norms = _normalised(head, 1.0).weight.norm(dim=1)
    torch.testing.assert_close(norms, norms.mean().expand(4))
    assert not _normalised(head, 1.0).bias.any()
    half = _normalised(head, 0.5).weight.norm(dim=1)
    expected = weight.norm(dim=1).sqrt()
    torch.testing.assert_close(half / half.sum(), expected / expected.sum())
    assert _normalised(head, 0.0) is head


def test_the_inner_split_keeps_groups_and_small_classes_whole():
    data = blobs([40, 10, 1], 0)
    groups = np.arange(51) // 2
    grouped = vaeaug.LabelledImages(
        data.images, data.labels, data.class_names, data.value_range, groups=groups.astype(np.int64)
    )
    fitted, inner = _inner_split(grouped, 0)
    assert set(np.unique(fitted.labels)) == set(np.unique(inner.labels)) == {0, 1, 2}
    larger = {int(g) for g in groups[:50]}
    assert not set(fitted.groups) & set(inner.groups) & larger


def test_samples_move_the_head(train, test):
    """Samples of the classes' true distributions help the rare ones; of others' they harm."""
    few, right = blobs([300, 300, 2, 2], 4), blobs([300] * 4, 5)
    arm = Arm("oversampling")
    recipe = Recipe(share=0.5)
    samples = SyntheticSet(right.images, right.labels)
    helped = recalls(head_of(few, arm.with_recipe(recipe), synthetic=samples), test)
    assert helped[2:].mean() > recalls(head_of(few, arm), test)[2:].mean() + 0.1
    plain = recalls(head_of(train, arm), test)
    wrong = SyntheticSet(right.images, (right.labels + 1) % 4)
    harmed = recalls(head_of(train, arm.with_recipe(recipe), synthetic=wrong), test)
    assert harmed.mean() < plain.mean() - 0.1
    with pytest.raises(ValueError, match="expected synthetic samples"):
        head_of(train, arm.with_recipe(recipe))


def test_the_same_seed_gives_the_same_head(train):
    mixed = Arm("oversampling", mix="mixup")
    one, same, other = (head_of(train, mixed, seed=seed, steps=40) for seed in (3, 3, 4))
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)


def test_scale_of_the_features_does_not_matter(train, test):
    def scaled(data):
        return vaeaug.LabelledImages(
            1000 * data.images, data.labels, data.class_names, (-20000.0, 20000.0)
        )

    one = predict(head_of(train, Arm()), test)
    other = predict(head_of(scaled(train), Arm()), scaled(test))
    np.testing.assert_allclose(one, other, atol=1e-3)


class Right:
    """Samples of the true classes in place of a generator's."""

    def samples(self, train, folder, recipes):
        data = blobs([400] * 4, 9, apart=2.0, features=60)
        return [SyntheticSet(data.images, data.labels) for _ in recipes]

    def with_pseudo_labels(self, train, folder):
        raise AssertionError("this data has no pool")


def test_the_gate_sees_that_true_samples_help():
    data = blobs([60, 60, 6, 6], 0, apart=2.0, features=60)
    config = EvaluationConfig(budget=1, min_splits=4, max_splits=4, steps=150, workers=1)
    result = run_gate(Bench(data, Right(), config), Recipe(share=0.5))
    assert result.settings["probe"] == "linear head on 60 features"
    assert result.comparisons[0].difference.mean > 0.02
    assert {arm.name for arm in result.arms} >= {"tau-norm", "nearest mean", "logit adjustment"}


def test_the_search_offers_differences_and_normals_for_features():
    recipes = default_candidates(Recipe(), features=True)
    assert {recipe.sampler for recipe in recipes} >= {"auto", "gmm", "delta", "calibrated"}
    assert not any(recipe.separate_batch_norm for recipe in recipes)
    images = {recipe.sampler for recipe in default_candidates(Recipe())}
    assert "delta" in images
    assert "calibrated" not in images


def test_a_network_of_the_user_takes_the_place_of_the_head(train):
    def factory(image_shape, n_classes):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(image_shape[-1], n_classes))

    network = train_probe(train, None, Arm(), CONFIG, seed=0, steps=5, factory=factory)
    assert isinstance(network, torch.nn.Sequential)
    assert probe_name(train.image_shape, width=16, factory=factory) == "factory"
