"""A new linear layer on frozen features: real ones alone, with SMOTE's, with TailCalib's."""

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.usefulness.small_cnn import Pool, Training, as_tensor, augment
from vaeaug import LabelledImages

ROWS = 400  # feature vectors of a class, where views of its images and synthetic ones suffice
VIEWS = 20  # of an image, at most
SAMPLES = 200  # synthetic ones of a class
AT_ONCE = 1000
STEPS, BATCH, RATE = 400, 512, 1e-2


def views_of(
    model: nn.Sequential,
    images: Float32[Tensor, "n c *space"],
    how: Training | None,
    random: torch.Generator,
    *,
    bfloat16: bool,
) -> Float32[np.ndarray, "n d"]:
    """What the network says of images before its last layer.

    Args:
        model: A trained network.
        images: What the network takes.
        how: Its classic augmentations; None: images as they are.
        random: Source of their randomness.
        bfloat16: Convolve in bfloat16.

    Returns:
        Vectors of length 1.
    """
    found, device = [], next(model.parameters()).device
    for some in images.split(AT_ONCE):
        part = some.to(device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            vectors = model[:-1](part if how is None else augment(part, how, random))
        found.append(F.normalize(vectors.float(), dim=1).cpu())
    return torch.cat(found).numpy()


def features_of_samples(
    model: nn.Sequential,
    pool: Pool,
    data: LabelledImages,
    how: Training,
    *,
    seed: int,
    bfloat16: bool = False,
) -> tuple[Float32[np.ndarray, "n d"], Int64[np.ndarray, " n"]]:
    """Features of up to `SAMPLES` synthetic samples of each class.

    Args:
        model: A trained network.
        pool: The samples.
        data: The training images, for their units.
        how: Its classic augmentations.
        seed: Of those.
        bfloat16: Convolve in bfloat16.

    Returns:
        Vectors of length 1, and their labels.
    """
    taken = np.minimum(pool.made, SAMPLES)
    images = np.concatenate([pool.images[c, :n] for c, n in enumerate(taken.tolist())])
    random = torch.Generator().manual_seed(seed)
    vectors = views_of(model, as_tensor(images, data), how, random, bfloat16=bfloat16)
    return vectors, np.repeat(np.arange(len(taken)), taken)


def features(
    model: nn.Sequential,
    data: LabelledImages,
    how: Training | None,
    *,
    seed: int,
    bfloat16: bool = False,
) -> tuple[Float32[np.ndarray, "n d"], Int64[np.ndarray, " n"]]:
    """What the network says before its last layer.

    Args:
        model: A trained network.
        data: Images.
        how: Its classic augmentations: rare classes get several views of an image; None: one view
            of each image, as it is.
        seed: Of the views.
        bfloat16: Convolve in bfloat16.

    Returns:
        Vectors of length 1, and their labels.
    """
    rows = np.arange(len(data))
    if how is not None:
        views = np.clip(ROWS // np.maximum(data.counts, 1), 1, VIEWS)
        rows = np.repeat(rows, views[data.labels])
    random = torch.Generator().manual_seed(seed)
    x = as_tensor(data.images, data)[torch.from_numpy(rows)]
    return views_of(model, x, how, random, bfloat16=bfloat16), data.labels[rows]


def smote(
    x: Float32[np.ndarray, "n d"], n: int, *, neighbours: int, rng: np.random.Generator
) -> Float32[np.ndarray, "m d"]:
    """Points between vectors of a class and their nearest neighbours in it (arXiv:1106.1813).

    Args:
        x: Vectors of one class.
        n: How many to make.
        neighbours: Among how many.
        rng: Source of randomness.

    Returns:
        n vectors; none where the class has one.
    """
    if len(x) < 2:
        return x[:0]
    squares = (x**2).sum(1)
    distances = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, : min(neighbours, len(x) - 1)]
    first = rng.integers(len(x), size=n)
    other = nearest[first, rng.integers(nearest.shape[1], size=n)]
    part = rng.random((n, 1), dtype=np.float32)
    return x[first] + part * (x[other] - x[first])


def tail_calibrated(
    x: Float32[np.ndarray, "n d"],
    y: Int64[np.ndarray, " n"],
    counts: Int64[np.ndarray, " k"],
    *,
    neighbours: int,
    alpha: float,
    rng: np.random.Generator,
) -> tuple[Float32[np.ndarray, "m d"], Int64[np.ndarray, " m"]]:
    """TailCalib (arXiv:2111.05956): normals around tail features, as wide as near head classes.

    Of a tail feature the mean is that of itself and the means of the nearest head classes, the
    covariance the mean of theirs plus alpha.

    Args:
        x: Feature vectors.
        y: Their classes.
        counts: Training images of each class; head is at least half of the largest.
        neighbours: Head classes that lend.
        alpha: Added to the variances.
        rng: Source of randomness.

    Returns:
        New vectors and their classes, as many as bring each tail class to the largest number.
    """
    head = np.flatnonzero(counts >= counts.max() / 2)
    means = np.stack([x[y == c].mean(0) for c in head])
    centred = [x[y == c] - means[i] for i, c in enumerate(head)]
    most = np.bincount(y).max()
    made, labels = [], []
    for c in np.setdiff1d(np.flatnonzero(counts), head):
        own = x[y == c]
        n = most - len(own)
        if n <= 0:
            continue
        source = own[rng.integers(len(own), size=n)]
        distances = ((source[:, None] - means) ** 2).sum(2)
        near = np.argsort(distances, axis=1)[:, :neighbours]
        mean = (source + means[near].sum(1)) / (near.shape[1] + 1)
        # Noise of a covariance that is a mean of sample covariances, without factorising it: random
        # combinations of the centred vectors of these classes.
        noise = np.zeros_like(source)
        for column in near.T:
            for h in np.unique(column):
                chosen, vectors = column == h, centred[h]
                weights = rng.standard_normal((int(chosen.sum()), len(vectors)), dtype=np.float32)
                noise[chosen] += weights @ vectors / np.sqrt(max(1, len(vectors) - 1))
        noise /= np.sqrt(near.shape[1])
        noise += np.sqrt(alpha) * rng.standard_normal(noise.shape, dtype=np.float32)
        made.append(mean + noise)
        labels.append(np.full(n, c))
    if not made:
        return x[:0], y[:0]
    return np.concatenate(made).astype(np.float32), np.concatenate(labels)


def smote_all(
    x: Float32[np.ndarray, "n d"],
    y: Int64[np.ndarray, " n"],
    *,
    neighbours: int,
    rng: np.random.Generator,
) -> tuple[Float32[np.ndarray, "m d"], Int64[np.ndarray, " m"]]:
    """SMOTE for every class that has fewer vectors than the largest.

    Args:
        x: Feature vectors.
        y: Their classes.
        neighbours: Among how many.
        rng: Source of randomness.

    Returns:
        New vectors and their classes.
    """
    counts = np.bincount(y)
    made = {
        c: smote(x[y == c], counts.max() - counts[c], neighbours=neighbours, rng=rng)
        for c in np.flatnonzero(counts)
        if counts[c] < counts.max()
    }
    if not made:
        return x[:0], y[:0]
    labels = np.concatenate([np.full(len(new), c) for c, new in made.items()])
    return np.concatenate(list(made.values())), labels


def fit_head(
    x: Float32[np.ndarray, "n d"],
    y: Int64[np.ndarray, " n"],
    n_classes: int,
    *,
    scheme: str,
    weight_decay: float,
    seed: int,
    counts: Int64[np.ndarray, " k"],
    neighbours: int = 0,
    alpha: float = 0.0,
    samples: tuple[np.ndarray, np.ndarray] | None = None,
    rows: tuple[np.ndarray, np.ndarray] | None = None,
) -> nn.Sequential:
    """Train a linear layer on class-balanced draws of vectors, real ones and a scheme's.

    Args:
        x: Feature vectors of the training images.
        y: Their classes.
        n_classes: Outputs.
        scheme: "none", "smote" or "tailcalib".
        weight_decay: Of AdamW.
        seed: Of everything random.
        counts: Training images of each class.
        neighbours: Of the scheme.
        alpha: Of TailCalib.
        samples: Feature vectors of synthetic samples and their classes, around which TailCalib
            puts its normals too.
        rows: The same, taken as if they were of real images.

    Returns:
        Feature vectors (n, d) to logits (n, k).

    Raises:
        ValueError: For an unknown scheme.
    """
    rng = np.random.default_rng([seed, 4])
    if rows is not None:
        x, y = np.concatenate([x, rows[0]]), np.concatenate([y, rows[1]])
    mean, deviation = x.mean(0), x.std(0) + 1e-4
    x = (x - mean) / deviation
    if scheme == "smote":
        new = smote_all(x, y, neighbours=neighbours, rng=rng)
    elif scheme == "tailcalib":
        around = x, y
        if samples is not None:
            made = (samples[0] - mean) / deviation
            around = np.concatenate([x, made]), np.concatenate([y, samples[1]])
        new = tail_calibrated(*around, counts, neighbours=neighbours, alpha=alpha, rng=rng)
    elif scheme == "none":
        new = x[:0], y[:0]
    else:
        raise ValueError(f"fit_head: expected none, smote or tailcalib, got {scheme!r}")
    x, y = np.concatenate([x, new[0]]), np.concatenate([y, new[1]])
    rows = [np.flatnonzero(y == c) for c in range(n_classes)]
    present = [c for c in range(n_classes) if len(rows[c])]
    vectors = torch.from_numpy(x)
    linear = nn.Linear(x.shape[1], n_classes)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    optimiser = torch.optim.AdamW(linear.parameters(), RATE, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)
    draws = np.random.default_rng([seed, 5])
    starts = np.cumsum([0, *map(len, rows)])
    order, sizes = np.concatenate(rows), np.array([len(r) for r in rows])
    for _ in range(STEPS):
        classes = draws.choice(present, BATCH)
        chosen = order[starts[classes] + draws.integers(sizes[classes])]
        loss = F.cross_entropy(linear(vectors[chosen]), torch.from_numpy(classes))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return nn.Sequential(_Standardise(mean, deviation), linear).eval()


class _Standardise(nn.Module):
    """Mean 0 and deviation 1 by the training vectors."""

    def __init__(self, mean: np.ndarray, deviation: np.ndarray) -> None:
        super().__init__()
        self.mean, self.deviation = torch.from_numpy(mean), torch.from_numpy(deviation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.deviation
