"""The probe: a small classifier, trained as a careful user would, with or without synthetic data.

An `Arm` says how; `train_probe` does it. Arms differ in nothing else: same network, same steps,
same schedule, and the same random numbers as far as they draw the same.
"""

import runpy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.memory import blocks
from vaeaug.models import scale_images
from vaeaug.randomness import seeded_torch
from vaeaug.strata import rare_classes
from vaeaug.training.classifier import class_probabilities, fit_network

Balance = Literal["none", "oversampling", "logit adjustment", "effective number"]
Mix = Literal["mixup", "cutmix"]
ProbeFactory = Callable[[tuple[int, ...], int], nn.Module]

# Beta of the effective number of samples (Cui et al. 2019, arXiv:1901.05555).
EFFECTIVE_BETA = 0.999
MIXUP_ALPHA, CUTMIX_ALPHA = 0.4, 1.0
# Classic augmentation: degrees, fraction of the side, fraction of the size.
ROTATION, SHIFT, ZOOM = 10.0, 0.08, 0.1
# Images with a longer side get torchvision's ResNet-18.
LARGE_SIDE = 64
WEIGHT_DECAY = 1e-2
DROPOUT = 0.3
_BLOCK = 500


@dataclass(frozen=True)
class FileProbe:
    """A `ProbeFactory` that is a function in a file of the user's; pickles by its place.

    Attributes:
        path: A Python file, which is run with all the rights of the user.
        name: A function (image_shape, n_classes) -> torch Module in it.
    """

    path: str
    name: str

    @property
    def __name__(self) -> str:
        return f"{self.path}:{self.name}"

    def __call__(self, image_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """Build the network.

        Raises:
            ValueError: If there is no such file or function.
        """
        if not Path(self.path).is_file():
            raise ProbeError(f"--probe: expected a Python file, got {self.path!r}, which is none")
        found = runpy.run_path(self.path).get(self.name)
        if not callable(found):
            raise ProbeError(
                f"--probe: expected a function {self.name!r} in {self.path}, got "
                f"{type(found).__name__}"
            )
        network = found(image_shape, n_classes)
        if not isinstance(network, nn.Module):
            raise ProbeError(
                f"--probe: expected {self.name!r} to give a torch Module, got "
                f"{type(network).__name__}"
            )
        return network


class ProbeError(ValueError):
    """The user's classifier cannot be used."""


@dataclass(frozen=True)
class Arm:
    """How one probe is trained.

    Attributes:
        balance: Against unequal classes: class-balanced draws, logit adjustment (Menon et al.
            2021, arXiv:2007.07314) or weights by the effective number of samples.
        classic: Random shift, and for images rotation and zoom.
        flip: Random horizontal flip (images).
        mix: Mixup (arXiv:1710.09412) or CutMix (arXiv:1905.04899) of the batch.
        recipe: How synthetic samples are used; None: real images alone.
        beside: Synthetic samples stand beside a whole batch of real draws; else they take the
            place of real draws.
        length: Steps, as a multiple of the configured ones.
    """

    balance: Balance = "none"
    classic: bool = False
    flip: bool = False
    mix: Mix | None = None
    recipe: Recipe | None = None
    beside: bool = False
    length: float = 1.0

    @property
    def name(self) -> str:
        """Words for tables, the same for equal arms."""
        parts: list[str] = [] if self.balance == "none" else [self.balance]
        parts += ["classic"] * self.classic + ["flip"] * self.flip
        parts += [{"mixup": "Mixup", "cutmix": "CutMix"}[self.mix]] if self.mix else []
        if self.recipe is not None:
            parts.append(f"synthetic ({self.recipe}{', beside' if self.beside else ''})")
        if self.length != 1:
            parts.append(f"{self.length:g} x the steps")
        return " + ".join(parts) or "none"

    def with_recipe(self, recipe: Recipe, *, beside: bool = False) -> "Arm":
        """The same training on merged data."""
        return replace(self, recipe=recipe, beside=beside)


@dataclass(frozen=True)
class SyntheticSet:
    """Synthetic samples in memory.

    Attributes:
        images: Like the real ones, (m, *space, c).
        labels: In the order of the real classes, (m,).
        soft_labels: Class probabilities, (m, k); None: one-hot.
    """

    images: Shaped[np.ndarray, "m *space c"]
    labels: Int64[np.ndarray, " m"]
    soft_labels: Float32[np.ndarray, "m k"] | None = None


def default_steps(n_images: int) -> int:
    """Steps after which the probe of so many images hardly gains, as measured on our data sets."""
    return int(min(6000, max(400, 16 * n_images**0.5)))


def small_cnn(image_shape: tuple[int, ...], n_classes: int, *, width: int) -> nn.Module:
    """Three convolutions with batch norm, of stride 2 where there is room, and a linear layer.

    Args:
        image_shape: (*space, c), one to three axes in space.
        n_classes: Logits.
        width: Channels of the first convolution, doubled twice.
    """
    rank = len(image_shape) - 1
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[rank - 1]
    large = min(image_shape[:-1]) >= 16
    layers: list[nn.Module] = []
    n_in = image_shape[-1]
    for number in range(3):
        n_out = width * 2**number
        size, stride = (5, 2) if large and number == 0 else (3, 2 if number else 1)
        layers += [
            conv(n_in, n_out, size, stride=stride, padding=size // 2, bias=False),
            norm(n_out),
            nn.ReLU(),
        ]
        n_in = n_out
    side = 4 if rank < 3 else 2
    flat = n_in * side**rank
    return nn.Sequential(
        *layers, pool(side), nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(flat, n_classes)
    )


def build_probe(
    image_shape: tuple[int, ...], n_classes: int, *, width: int, factory: ProbeFactory | None = None
) -> nn.Module:
    """The user's network, or ResNet-18 for large images, or the small one."""
    if factory is not None:
        return factory(image_shape, n_classes)
    if len(image_shape) == 3 and max(image_shape[:2]) > LARGE_SIDE:
        from torchvision.models import resnet18

        network = resnet18(num_classes=n_classes)
        network.conv1 = nn.Conv2d(image_shape[-1], 64, 7, stride=2, padding=3, bias=False)
        return network
    return small_cnn(image_shape, n_classes, width=width)


def probe_name(image_shape: tuple[int, ...], *, width: int, factory: ProbeFactory | None) -> str:
    """What `build_probe` builds, in words."""
    if factory is not None:
        return str(getattr(factory, "__name__", type(factory).__name__))
    large = len(image_shape) == 3 and max(image_shape[:2]) > LARGE_SIDE
    return "ResNet-18" if large else f"small CNN, {width} to {4 * width} channels"


def train_probe(
    train: LabelledImages,
    synthetic: SyntheticSet | None,
    arm: Arm,
    config: EvaluationConfig,
    *,
    seed: int,
    steps: int,
    factory: ProbeFactory | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Train one probe.

    Args:
        train: Real training images.
        synthetic: Synthetic samples; needed where the arm has a recipe.
        arm: How.
        config: Batch size, learning rate and width.
        seed: Of the weights and the draws; arms with the same seed are paired.
        steps: Of an arm of length 1.
        factory: Builds another network: ``factory(image_shape, n_classes)``.
        device: Where to train.

    Returns:
        The network, in evaluation mode: (n, c, *space) in [0, 1] to logits (n, k).
    """
    device = torch.device(device)
    steps = max(1, round(steps * arm.length))
    with seeded_torch(seed % 2**63, foreign=factory is not None):
        model = build_probe(
            train.image_shape, train.n_classes, width=config.width, factory=factory
        ).to(device)
        batches = _Batches(train, synthetic, arm, config.batch_size, seed, device)
        fit_network(
            model,
            (batches.draw(step / steps) for step in range(steps)),
            _Loss(model, arm, train, device),
            steps=steps,
            learning_rate=config.learning_rate,
            fused=None,
        )
    return model


def predict(
    model: nn.Module, data: LabelledImages, *, device: torch.device | str = "cpu"
) -> Float[np.ndarray, "n k"]:
    """Class probabilities of every image."""
    parts = blocks(len(data), data.images[:1].size, _BLOCK)
    probabilities = class_probabilities(
        model, data.images, data.value_range, device=device, parts=parts
    )
    return probabilities.astype(np.float64)


class _Loss:
    """The loss of a batch: what the arm does to images, classes, logits and batch norm."""

    def __init__(
        self, model: nn.Module, arm: Arm, train: LabelledImages, device: torch.device
    ) -> None:
        self.model = model
        self.augment, self.mix = _augmentation(arm, train), _mixing(arm, train)
        self.cross_entropy = _class_terms(arm, train, device)
        self.norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.apart = arm.recipe is not None and arm.recipe.separate_batch_norm and bool(self.norms)

    def __call__(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, target, synthetic = batch
        x = self.augment(x)
        if not (self.apart and synthetic.any()):
            return self._sum(x, target) / len(x)
        loss = x.new_zeros(())
        if not synthetic.all():
            loss = loss + self._sum(x[~synthetic], target[~synthetic])
        with _frozen_statistics(self.norms):
            loss = loss + self._sum(x[synthetic], target[synthetic])
        return loss / len(x)

    def _sum(self, x: Tensor, target: Tensor) -> Tensor:
        x, target = self.mix(x, target)
        return self.cross_entropy(self.model(x), target)


class _Batches:
    """What each step draws: scaled images, weighted class probabilities, and what is synthetic."""

    def __init__(
        self,
        train: LabelledImages,
        synthetic: SyntheticSet | None,
        arm: Arm,
        size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.arm, self.size, self.device = arm, size, device
        self.value_range = train.value_range
        # Draws of real images do not depend on whether synthetic ones are drawn too.
        self.rng, self.other_rng = (np.random.default_rng([seed, stream]) for stream in (11, 12))
        self.images = torch.from_numpy(train.images).to(device)
        self.targets = F.one_hot(torch.from_numpy(train.labels), train.n_classes).float().to(device)
        self.labels = train.labels
        self.rows = _ByClass(train.labels, np.ones(train.n_classes, bool))
        self.present = np.flatnonzero(train.counts)
        recipe = arm.recipe
        self.share = 0.0 if recipe is None or recipe.is_none else recipe.share
        if recipe is None or not self.share:
            return
        if synthetic is None:
            raise ValueError(f"probe: expected synthetic samples for the arm {arm.name!r}")
        k = train.n_classes
        self.made_images = torch.from_numpy(synthetic.images).to(device)
        one_hot = F.one_hot(torch.from_numpy(synthetic.labels), k).float()
        soft = synthetic.soft_labels if recipe.soft else None
        found = one_hot if soft is None else torch.from_numpy(soft)
        self.made_targets = (found * recipe.weight).to(device)
        taken = np.ones(k, bool) if recipe.classes == "all" else rare_classes(train.counts)
        self.made_rows = _ByClass(synthetic.labels, taken)

    def draw(self, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """A batch at this point of the training, 0 to 1."""
        rows = self._real_rows()
        x, target = self.images[rows], self.targets[rows]
        made = np.zeros(len(rows), bool)
        recipe = self.arm.recipe
        if recipe is None or not self.share or progress >= 1 - recipe.real_only_last:
            return scale_images(x, self.value_range), target, torch.from_numpy(made).to(self.device)
        if self.arm.beside:
            extra = round(self.size * self.share / (1 - self.share))
            classes = self.other_rng.choice(self.labels[rows], extra)
            where = np.arange(len(rows), len(rows) + extra)
        else:
            where = np.flatnonzero(self.other_rng.random(len(rows)) < self.share)
            classes = self.labels[rows[where]]
        has = self.made_rows.counts[classes] > 0
        chosen = self.made_rows.draw(classes[has], self.other_rng)
        if self.arm.beside:
            x = torch.cat([x, self.made_images[chosen]])
            target = torch.cat([target, self.made_targets[chosen]])
            made = np.concatenate([made, np.ones(len(chosen), bool)])
        else:
            x[where[has]] = self.made_images[chosen]
            target[where[has]] = self.made_targets[chosen]
            made[where[has]] = True
        return scale_images(x, self.value_range), target, torch.from_numpy(made).to(self.device)

    def _real_rows(self) -> np.ndarray:
        if self.arm.balance != "oversampling":
            return self.rng.integers(len(self.labels), size=self.size)
        classes = self.rng.choice(self.present, self.size)
        return self.rows.draw(classes, self.rng)


class _ByClass:
    """Rows by class, to draw at random from any of them at once."""

    def __init__(self, labels: Int64[np.ndarray, " n"], taken: Bool[np.ndarray, " k"]) -> None:
        self.order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels, minlength=len(taken))
        self.starts = np.cumsum(counts) - counts
        self.counts = np.where(taken, counts, 0)

    def draw(
        self, classes: Int64[np.ndarray, " m"], rng: np.random.Generator
    ) -> Int64[np.ndarray, " m"]:
        """A row of each of these classes, which have some."""
        return self.order[self.starts[classes] + rng.integers(self.counts[classes])]


@torch.no_grad()
def _affine(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Each image rotated, zoomed and shifted by itself, its border continued."""
    n = len(x)
    angle = (torch.rand(n) * 2 - 1) * ROTATION * torch.pi / 180
    zoom = 1 + (torch.rand(n) * 2 - 1) * ZOOM
    shift = (torch.rand(n, 2) * 2 - 1) * 2 * SHIFT  # the sides go from -1 to 1
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    theta = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1
    ).to(x)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _shifted(x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
    """Each sample shifted by itself along every axis, its border continued."""
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        most = max(1, round(SHIFT * size)) if size > 1 else 0
        by = torch.randint(-most, most + 1, (len(x), 1), device=x.device)
        index = (torch.arange(size, device=x.device)[None] + by).clamp(0, size - 1)
        shape = [len(x)] + [1] * (x.ndim - 1)
        shape[axis] = size
        x = x.gather(axis, index.view(shape).expand_as(x))
    return x


def _augmentation(arm: Arm, train: LabelledImages) -> Callable[[Tensor], Tensor]:
    images = len(train.image_shape) == 3

    def augment(x: Tensor) -> Tensor:
        if arm.flip and images:
            flipped = torch.rand(len(x), device=x.device) < 0.5
            x = torch.where(flipped[:, None, None, None], x.flip(-1), x)
        if arm.classic:
            x = _affine(x) if images else _shifted(x)
        return x

    return augment


def _mixing(arm: Arm, train: LabelledImages) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Of images and weighted class probabilities alike, so that weights are mixed with them."""
    if arm.mix is None:
        return lambda x, target: (x, target)
    from torchvision.transforms import v2

    k = train.n_classes
    if arm.mix == "mixup":
        return v2.MixUp(alpha=MIXUP_ALPHA, num_classes=k)
    return v2.CutMix(alpha=CUTMIX_ALPHA, num_classes=k)


def _class_terms(
    arm: Arm, train: LabelledImages, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """The summed cross-entropy with what the arm does to logits or classes."""
    counts = torch.from_numpy(train.counts).double().to(device)
    shift = torch.zeros_like(counts)
    weight = torch.ones_like(counts)
    if arm.balance == "logit adjustment":
        shift = (counts.clamp(min=1) / counts.sum()).log()
    if arm.balance == "effective number":
        present = counts > 0
        weight = torch.where(present, (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**counts), 0.0)
        # Mean 1 over draws, so that the learning rate keeps its meaning.
        weight = weight * counts.sum() / (weight * counts).sum()
    shift, weight = shift.float(), weight.float()

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return -(weight * target * F.log_softmax(logits + shift, dim=1)).sum()

    return loss


@contextmanager
def _frozen_statistics(norms: list[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Batch norm normalises by the batch and remembers nothing of it (cf. arXiv:2112.08810)."""
    tracked = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm, before in zip(norms, tracked, strict=True):
            norm.track_running_stats = before


def fixed_arms(train: LabelledImages) -> Iterator[Arm]:
    """The baselines that are always run, in the order of the table."""
    images = len(train.image_shape) == 3
    yield Arm()
    yield Arm("oversampling")
    classic = Arm("oversampling", classic=True)
    yield classic
    if images:
        yield replace(classic, flip=True)
    yield replace(classic, mix="mixup")
    if images:
        yield replace(classic, mix="cutmix")
    yield Arm("logit adjustment", classic=True)
    yield Arm("effective number", classic=True)
    if images:
        # Together they were the best of all on long-tailed Fashion-MNIST; each alone was not.
        yield Arm("logit adjustment", mix="cutmix")
