"""Arms do what they say: draws, weights, statistics, and the same result from the same seed."""

import numpy as np
import pytest
import torch
from torch import nn

import vaeaug
from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.evaluation import Arm, FileProbe, ProbeError, SyntheticSet
from vaeaug.evaluation.gate.arms import fixed_arms
from vaeaug.evaluation.gate.augmentation import random_affine, random_shift
from vaeaug.evaluation.gate.probe import (
    _Batches,
    _cross_entropy,
    _frozen_statistics,
    predict,
    train_probe,
)
from vaeaug.evaluation.gate.probe_networks import build_probe

CONFIG = EvaluationConfig(batch_size=200, width=8)
COUNTS = [60, 30, 20, 10, 8, 8, 8, 8, 8, 8]


@pytest.fixture(scope="module")
def data() -> vaeaug.LabelledImages:
    return vaeaug.read("digits").imbalanced(COUNTS, seed=0)


@pytest.fixture(scope="module")
def black(data) -> SyntheticSet:
    """Synthetic samples that are told from all real ones: black; none of class 9."""
    labels = np.repeat(np.arange(9), 5)
    soft = np.full((45, 10), 0.05, np.float32)
    soft[np.arange(45), labels] = 0.55
    return SyntheticSet(np.zeros((45, 8, 8, 1), np.uint8), labels, soft)


def drawn(data, synthetic, arm, *, progress=0.0, n=20):
    batches = _Batches(data, synthetic, arm, size=200, seed=0, device=torch.device("cpu"))
    parts = [batches.draw(progress) for _ in range(n)]
    return [torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True)]


def test_oversampling_draws_classes_alike_and_none_by_their_counts(data):
    for arm, share in ((Arm("oversampling"), np.full(10, 0.1)), (Arm(), data.counts / len(data))):
        _, target, is_synthetic = drawn(data, None, arm)
        assert not is_synthetic.any()
        n = len(target)
        error = np.sqrt(share * (1 - share) / n)
        assert (np.abs(target.mean(axis=0) - share) < 4.5 * error).all()


def test_the_share_is_synthetic_within_every_class_that_has_some(data, black):
    arm = Arm("oversampling", recipe=Recipe(share=0.3))
    x, target, is_synthetic = drawn(data, black, arm)
    assert (x.reshape(len(x), -1).sum(axis=1) == 0).tolist() == is_synthetic.tolist()
    labels = target.argmax(axis=1)
    for label in range(9):
        of_class = is_synthetic[labels == label]
        assert abs(of_class.mean() - 0.3) < 4.5 * np.sqrt(0.21 / len(of_class))
    assert not is_synthetic[labels == 9].any(), "there are none of class 9: its draws stay real"


def test_rare_only_leaves_frequent_classes_real(data, black):
    arm = Arm("oversampling", recipe=Recipe(share=0.5, classes="rare"))
    _, target, is_synthetic = drawn(data, black, arm)
    labels = target.argmax(axis=1)
    rare = data.counts < data.counts.mean()
    assert not is_synthetic[~rare[labels]].any()
    assert is_synthetic[rare[labels] & (labels < 9)].mean() > 0.4


def test_beside_keeps_every_real_draw(data, black):
    recipe = Recipe(share=0.2)
    alone, *_ = drawn(data, None, Arm("oversampling"))
    x, _, is_synthetic = drawn(data, black, Arm("oversampling", recipe=recipe, beside=True))
    assert np.array_equal(x[~is_synthetic], alone), (
        "the same real draws as without synthetic samples"
    )
    # 200 real draws call for 50 beside them; those of class 9, a tenth, are missing.
    assert is_synthetic.sum() / (~is_synthetic).sum() == pytest.approx(0.25 * 0.9, abs=0.03)


def test_labels_are_soft_and_weighted_as_the_recipe_says(data, black):
    recipe = Recipe(share=0.5, soft=True, weight=0.5)
    _, target, is_synthetic = drawn(data, black, Arm("oversampling", recipe=recipe))
    assert np.allclose(target[is_synthetic].sum(axis=1), 0.5)
    assert np.allclose(target[is_synthetic].max(axis=1), 0.275)
    assert np.allclose(target[~is_synthetic].max(axis=1), 1)


def test_the_end_is_real(data, black):
    arm = Arm("oversampling", recipe=Recipe(share=0.5, real_only_last=0.4))
    assert drawn(data, black, arm, progress=0.59)[2].any()
    assert not drawn(data, black, arm, progress=0.6)[2].any()


def test_synthetic_samples_are_needed_where_a_recipe_asks_for_them(data):
    with pytest.raises(ValueError, match="expected synthetic samples for the arm"):
        train_probe(data, None, Arm(recipe=Recipe()), CONFIG, seed=0, steps=1)


def test_logit_adjustment_and_effective_number_by_hand(data):
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    target = torch.eye(10)[[0, 1, 2, 3, 9, 9]]
    prior = torch.from_numpy(data.counts / len(data)).float()
    loss = _cross_entropy(Arm("logit adjustment"), data, torch.device("cpu"))(logits, target)
    expected = nn.functional.cross_entropy(logits + prior.log(), target.argmax(1), reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    weight = (1 - 0.999) / (1 - 0.999 ** torch.from_numpy(data.counts).double())
    weight = (weight / (weight * prior).sum()).float()
    loss = _cross_entropy(Arm("effective number"), data, torch.device("cpu"))(logits, target)
    expected = nn.functional.cross_entropy(logits, target.argmax(1), weight=weight, reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_batch_norm_forgets_what_it_sees_apart():
    norm = nn.BatchNorm2d(2).train()
    before = norm.running_mean.clone()
    x = torch.full((4, 2, 3, 3), 5.0) + torch.randn(4, 2, 3, 3)
    with _frozen_statistics([norm]):
        normalised = norm(x)
    assert torch.equal(norm.running_mean, before)
    assert normalised.mean().abs() < 1e-5, "it is normalised by its own batch"
    norm(x)
    assert not torch.equal(norm.running_mean, before)


def test_augmentation_moves_little_and_keeps_the_range():
    torch.manual_seed(0)
    x = torch.zeros(64, 1, 21, 21)
    x[:, :, 10, 10] = 1
    y = random_affine(x)
    assert y.shape == x.shape
    assert y.min() >= 0
    assert y.max() <= 1
    where = y.flatten(1).argmax(1)
    rows, columns = where // 21 - 10, where % 21 - 10
    assert rows.abs().max() <= 2
    assert columns.abs().max() <= 2
    assert len(set(where.tolist())) > 3, "each image moves by itself"
    signal = torch.arange(40.0).repeat(8, 1, 1)
    moved = random_shift(signal)
    assert moved.shape == signal.shape
    assert (moved[:, 0, 20] - 20).abs().max() <= 3
    assert moved[:, 0, 20].unique().numel() > 1


@pytest.mark.parametrize("shape", [(40, 2), (8, 8, 1), (28, 28, 3), (6, 9, 9, 1), (96, 80, 3)])
def test_a_network_for_every_shape(shape):
    network = build_probe(shape, 4, width=8).eval()
    x = torch.rand(2, shape[-1], *shape[:-1])
    assert network(x).shape == (2, 4)


def test_training_is_a_function_of_the_seed_and_leaves_global_randomness_alone(data, black):
    arm = Arm("oversampling", classic=True, mix="mixup", recipe=Recipe())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = predict(train_probe(data, black, arm, CONFIG, seed=5, steps=3), data)
    again = predict(train_probe(data, black, arm, CONFIG, seed=5, steps=3), data)
    other = predict(train_probe(data, black, arm, CONFIG, seed=6, steps=3), data)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.allclose(first.sum(axis=1), 1)


def test_every_arm_trains(data, black):
    config = CONFIG.model_copy(update={"batch_size": 32})
    arms = list(fixed_arms(data))
    arms += [arms[4].with_recipe(Recipe(separate_batch_norm=True), beside=True)]
    assert len({arm.name for arm in arms}) == len(arms) == 10
    for arm in arms:
        probabilities = predict(train_probe(data, black, arm, config, seed=0, steps=2), data)
        assert np.isfinite(probabilities).all(), arm.name


@pytest.mark.parametrize("shape", [(20, 2), (6, 7, 8, 1)])
def test_every_arm_trains_on_signals_and_volumes(shape):
    rng = np.random.default_rng(0)
    images = rng.random((30, *shape)).astype(np.float32)
    data = LabelledImages(images, np.repeat([0, 1, 2], 10), ("a", "b", "c"), (0, 1), source="noise")
    config = CONFIG.model_copy(update={"batch_size": 8})
    for arm in fixed_arms(data):
        probabilities = predict(train_probe(data, None, arm, config, seed=0, steps=2), data)
        assert np.isfinite(probabilities).all(), arm.name


def test_the_probe_learns(data):
    test = vaeaug.read("digits", split="test")
    arm = Arm("oversampling", classic=True)
    model = train_probe(data, None, arm, CONFIG, seed=0, steps=150)
    assert (predict(model, test).argmax(axis=1) == test.labels).mean() > 0.8


def test_a_probe_from_a_file(tmp_path, data):
    file = tmp_path / "mine.py"
    file.write_text(
        "from torch import nn\n"
        "def net(shape, k):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], k))\n"
        "def number(shape, k):\n    return 3\n"
    )
    probe = FileProbe(str(file), "net")
    model = train_probe(data, None, Arm(), CONFIG, seed=0, steps=2, factory=probe)
    assert predict(model, data).shape == (len(data), 10)
    for name, message in (("nothing", "expected a function"), ("number", "torch Module, got int")):
        with pytest.raises(ProbeError, match=message):
            FileProbe(str(file), name)((8, 8, 1), 10)
    with pytest.raises(ProbeError, match="expected a Python file"):
        FileProbe(str(tmp_path / "none.py"), "net")((8, 8, 1), 10)
