"""Score labelled synthetic images against real ones, or real ones against real ones (the ceiling).

python -m benchmarks.quality.score --data data.npz --samples samples.npz --name NAME \
    --results results.jsonl --seed 0
"""

import argparse
import json
from functools import cached_property
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors

from vaeaug.data import LabelledImages
from vaeaug.evaluation import (
    coverage,
    density,
    real_features,
    real_or_synthetic_auc,
    train_on_synthetic,
)
from vaeaug.models import SmallClassifier
from vaeaug.training.classifier import train_classifier

CLASSIFIER_STEPS = 600
DISCRIMINATOR_STEPS = 300
NEIGHBOURS = 5
# A near-copy is nearer to a training image than all but this share of real test images are.
COPY_QUANTILE = 0.05


class Judge:
    """Judges samples of one data set; what it learns from real images is learnt once.

    Samples are brought to the gray levels that the training images have (17 of the digits), or a
    discriminator would look at nothing else.

    Args:
        train: Real images that the generators learn from.
        test: Real images that they never see.
        seed: Of every choice and every network here.
    """

    def __init__(self, train: LabelledImages, test: LabelledImages, *, seed: int) -> None:
        self.train, self.test, self.seed = train, test, seed
        levels = np.unique(train.images).astype(np.int64)
        nearest = np.abs(np.arange(256)[:, None] - levels).argmin(axis=1)
        self._level = levels[nearest].astype(np.uint8)

    def score(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """All metrics; classes are brought to equal numbers where two sets are compared."""
        auc = self.auc(images, labels)
        images = self._level[images]
        synthetic, real = self._matched(labels, self.test.labels)
        features = real_features(self._classifier, images[synthetic], self.train.value_range)
        spaces = self._test_features[real], features
        return {
            "train_on_synthetic": self.usefulness(images, labels),
            "auc": auc,
            "coverage": coverage(*spaces, k=NEIGHBOURS),
            "density": density(*spaces, k=NEIGHBOURS),
            "near_copies": float((self._distance(images) < self._copy_distance).mean()),
        }

    def auc(self, images: np.ndarray, labels: np.ndarray) -> float:
        """How well a discriminator tells these from training images; 0.5: not at all."""
        synthetic, real = self._matched(labels, self.train.labels)
        return real_or_synthetic_auc(
            self.train.images[real],
            self._level[images][synthetic],
            value_range=self.train.value_range,
            seed=self.seed,
            steps=DISCRIMINATOR_STEPS,
        )

    def usefulness(
        self, images: np.ndarray, labels: np.ndarray, *, steps: int = CLASSIFIER_STEPS
    ) -> float:
        """Balanced accuracy, on the real test images, of a classifier trained on these alone."""
        return train_on_synthetic(
            self._level[images], labels, self.test, seed=self.seed, steps=steps
        )

    def ceiling(self, n_per_class: int) -> dict[str, float]:
        """The same metrics for real images in place of synthetic ones.

        Training images serve where synthetic ones are set against test images; where they are set
        against training images, test images do.
        """
        rows = self._per_class(self.train.labels, np.full(self.train.n_classes, n_per_class))
        metrics = self.score(self.train.images[rows], self.train.labels[rows])
        metrics["near_copies"] = COPY_QUANTILE
        test, real = self._matched(self.test.labels, self.train.labels)
        metrics["auc"] = real_or_synthetic_auc(
            self.train.images[real],
            self.test.images[test],
            value_range=self.train.value_range,
            seed=self.seed,
            steps=DISCRIMINATOR_STEPS,
        )
        return metrics

    def _distance(self, images: np.ndarray) -> np.ndarray:
        """In pixels, to the nearest training image."""
        return self._search.kneighbors(images.reshape(len(images), -1).astype(np.float32))[0][:, 0]

    @cached_property
    def _search(self) -> NearestNeighbors:
        flat = self.train.images.reshape(len(self.train), -1).astype(np.float32)
        return NearestNeighbors(n_neighbors=1, algorithm="brute").fit(flat)

    @cached_property
    def _copy_distance(self) -> float:
        return float(np.quantile(self._distance(self.test.images[:2000]), COPY_QUANTILE))

    @cached_property
    def _classifier(self) -> SmallClassifier:
        return train_classifier(self.train, steps=CLASSIFIER_STEPS, seed=self.seed)

    @cached_property
    def _test_features(self) -> np.ndarray:
        return real_features(self._classifier, self.test.images, self.test.value_range)

    def _matched(self, labels: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of both with the same number of each class: as many as both have."""
        n_classes = self.train.n_classes
        n = np.minimum(*(np.bincount(column, minlength=n_classes) for column in (labels, others)))
        return self._per_class(labels, n), self._per_class(others, n)

    def _per_class(self, labels: np.ndarray, n: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([self.seed, 6])
        rows = [
            rng.permutation(np.flatnonzero(labels == label))[:most] for label, most in enumerate(n)
        ]
        return np.sort(np.concatenate(rows))


def read_data(path: Path) -> tuple[LabelledImages, LabelledImages, int]:
    """Training images, held-out images and the number of samples per class of a data file."""
    with np.load(path) as file:
        names = tuple(str(label) for label in range(int(file["train_labels"].max()) + 1))
        train, held = (
            LabelledImages(file[f"{part}_images"], file[f"{part}_labels"], names, (0, 255))
            for part in ("train", "held")
        )
        return train, held, int(file["n_per_class"])


def read_samples(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a file of samples."""
    with np.load(path) as file:
        return file["images"], file["labels"].astype(np.int64)


def append(results: Path, line: dict) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    with open(results, "a") as file:
        file.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--samples", type=Path, help="left out: real images against real ones")
    parser.add_argument("--name", required=True, help="of the generator, for the results")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    train, held, n_per_class = read_data(args.data)
    judge = Judge(train, held, seed=args.seed)
    if args.samples is None:
        metrics = judge.ceiling(n_per_class)
    else:
        metrics = judge.score(*read_samples(args.samples))
    line = {"data": args.data.stem, "generator": args.name, "seed": args.seed, **metrics}
    append(args.results, line)
    print(json.dumps(line))


if __name__ == "__main__":
    main()
