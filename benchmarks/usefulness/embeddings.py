"""Do synthetic features help a head on a frozen backbone? Long-tailed glyphs, paired over seeds.

    python benchmarks/usefulness/embeddings.py glyphs.npz --seeds 0 1 2 --out results.jsonl

The file has `images` (N, 28, 28) uint8, `labels` and `family` (of the typeface). Of 56 characters 28
keep 400 images, 14 keep 40 and 14 keep 5; one font of each of 300 families is held out for the test.
A small CNN is trained on the 28 frequent classes and frozen; five views of each image are embedded.
All heads are trained by the gate's own code: class-balanced draws, the weight decay chosen on a part
of the training features. A line of JSON per head goes to --out.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import vaeaug
from vaeaug.config import EvaluationConfig, Recipe
from vaeaug.embedding import Views
from vaeaug.evaluation import SyntheticSet
from vaeaug.evaluation.gate.arms import Arm
from vaeaug.evaluation.gate.probe import train_and_predict

COUNTS = [400] * 28 + [40] * 14 + [5] * 14
# The classic augmentation of the views, and of the training of the backbone.
VIEWS = Views(5, rotation=11.5, zoom=0.15, shift=0.054)


def task(path: Path, seed: int) -> tuple[vaeaug.LabelledImages, vaeaug.LabelledImages]:
    """Long-tailed training images, and test images of families that training never sees."""
    with np.load(path) as file:
        images, labels, family = file["images"], file["labels"].astype(int), file["family"]
    rng = np.random.default_rng(seed)
    k = len(COUNTS)
    is_test = np.isin(family, rng.permutation(family.max() + 1)[:300])
    counts = np.zeros(k, int)
    counts[rng.permutation(k)] = COUNTS
    train, test = [], []
    for c in range(k):
        train.append(rng.permutation(np.flatnonzero((labels == c) & ~is_test))[: counts[c]])
        rows = np.flatnonzero((labels == c) & is_test)
        test.append(rows[np.unique(family[rows], return_index=True)[1]])
    names = [f"{c:02d}" for c in range(k)]

    def part(rows: list[np.ndarray]) -> vaeaug.LabelledImages:
        chosen = np.concatenate(rows)
        return vaeaug.read(
            (images[chosen], labels[chosen]), class_names=names, value_range=(0, 255)
        )

    return part(train), part(test)


def block(n_in: int, n_out: int, stride: int) -> nn.Module:
    """A convolution with batch norm."""
    conv = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())


def backbone(data: vaeaug.LabelledImages, seed: int, steps: int, width: int = 16) -> nn.Module:
    """Train a CNN on the frequent classes, and leave out its last layer: 512 features."""
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 1])
    frequent = np.flatnonzero(data.counts >= max(COUNTS))
    w = width
    body = nn.Sequential(
        *(block(1, w, 1), block(w, 2 * w, 2), block(2 * w, 4 * w, 1), block(4 * w, 4 * w, 2)),
        *(block(4 * w, 8 * w, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
    )
    model = nn.Sequential(body, nn.Linear(32 * w, len(frequent)))
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=5e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps)
    rows = np.stack([np.flatnonzero(data.labels == c) for c in frequent])
    for step in range(steps):
        y = rng.integers(len(frequent), size=128)
        chosen = rows[y, rng.integers(rows.shape[1], size=128)]
        x = torch.from_numpy(data.images[chosen]).movedim(-1, 1).float() / 255
        x = VIEWS.of(x, chosen, np.full(128, step + 1), seed=seed)
        loss = F.cross_entropy(model(x), torch.from_numpy(y))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return body.eval()
