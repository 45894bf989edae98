"""Real signals from the wheel of `aeon`, made unbalanced.

The seven sets lie inside the wheel as `.ts` files: nothing is downloaded at run time, and nothing
of the package is imported. `pip install --no-deps aeon` is enough.
"""

import importlib.util
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from vaeaug import LabelledImages

NAMES = (
    "GunPoint",
    "ArrowHead",
    "ItalyPowerDemand",
    "OSULeaf",
    "ACSF1",
    "BasicMotions",
    "JapaneseVowels",
)
LONGEST = 128  # longer signals are resampled to this
RARE = 3  # signals of a rare class
DEVELOPMENT = 0.25  # of the training signals of the other classes
MARGIN = 0.25  # of the training signals' range, on either side


class MissingSignalsError(RuntimeError):
    """The package that carries the signals is not installed."""


def folder() -> Path:
    """Where the package `aeon` keeps its data sets.

    Returns:
        The folder.

    Raises:
        MissingSignalsError: If the package is not installed.
    """
    spec = importlib.util.find_spec("aeon")
    if spec is None or spec.origin is None:
        raise MissingSignalsError(
            "signals: expected the package aeon, found none (pip install --no-deps aeon, or "
            "pip install --target FOLDER --no-deps aeon and PYTHONPATH=FOLDER)"
        )
    return Path(spec.origin).parent / "datasets" / "data"


def read_ts(path: Path) -> tuple[Float32[np.ndarray, "n length channels"], list[str]]:
    """Read a `.ts` file whose signals are of one length.

    Args:
        path: A line for each signal after ``@data``: channels separated by colons, values by
            commas, the class last.

    Returns:
        The signals and the classes' names.

    Raises:
        ValueError: If lengths differ or there is no ``@data``.
    """
    lines = path.read_text().splitlines()
    starts = [i for i, line in enumerate(lines) if line.strip().lower() == "@data"]
    if not starts:
        raise ValueError(f"{path}: expected a line @data, found none")
    rows, labels = [], []
    for line in filter(None, map(str.strip, lines[starts[0] + 1 :])):
        *channels, label = line.split(":")
        rows.append([np.array(channel.split(","), np.float32) for channel in channels])
        labels.append(label.strip())
    lengths = {len(channel) for row in rows for channel in row}
    if len(lengths) != 1:
        raise ValueError(f"{path}: expected signals of one length, got {sorted(lengths)}")
    return np.array(rows, np.float32).transpose(0, 2, 1), labels


def resampled(
    x: Float32[np.ndarray, "n length channels"], longest: int = LONGEST
) -> Float32[np.ndarray, "n shorter channels"]:
    """Signals of at most this length, by linear interpolation of a moving mean.

    Args:
        x: Signals.
        longest: Their greatest length.

    Returns:
        Signals, or the same where they are short enough.
    """
    length = x.shape[1]
    if length <= longest:
        return x
    # The mean over a step of the new grid keeps what lies between its points from aliasing.
    edges = np.linspace(0, length, longest + 1)
    sums = np.concatenate([np.zeros_like(x[:, :1]), np.cumsum(x, axis=1, dtype=np.float64)], axis=1)
    low = np.floor(edges).astype(int)
    high = np.minimum(low + 1, length)
    part = (edges - low)[:, None]
    at_edges = (1 - part) * sums[:, low] + part * sums[:, high]
    return (np.diff(at_edges, axis=1) / (length / longest)).astype(np.float32)


def rare_and_rest(
    labels: Int64[np.ndarray, " n"], n_classes: int, seed: int
) -> tuple[Int64[np.ndarray, " t"], Int64[np.ndarray, " d"]]:
    """Training and development rows: half of the classes keep `RARE` signals for training.

    Args:
        labels: Classes of the official training signals.
        n_classes: How many classes there are.
        seed: Of the order of the classes and of the signals.

    Returns:
        Rows for training, rows for development.
    """
    rng = np.random.default_rng(seed)
    rare = set(rng.permutation(n_classes)[: n_classes // 2].tolist())
    train, development = [], []
    for c in range(n_classes):
        rows = rng.permutation(np.flatnonzero(labels == c))
        keep = RARE if c in rare else len(rows) - max(2, round(DEVELOPMENT * len(rows)))
        train.append(rows[:keep])
        development.append(rows[keep:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(development))


def parts(name: str, seed: int) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """Training, development and test signals of a seed; test is the official test split.

    Channels are standardised by the training signals. Values beyond their range, with a margin of
    a quarter on either side, are cut off there.

    Args:
        name: One of `NAMES`.
        seed: Of the rare classes, and of the signals that they keep.

    Returns:
        Training, development and test signals.

    Raises:
        MissingSignalsError: If the package that carries them is not installed.
    """
    equal = "_eq" if name == "JapaneseVowels" else ""
    read = {
        split: read_ts(folder() / name / f"{name}{equal}_{split}.ts") for split in ("TRAIN", "TEST")
    }
    class_names = sorted(set(read["TRAIN"][1]))
    index = {c: i for i, c in enumerate(class_names)}
    x, x_test = (resampled(read[split][0]) for split in ("TRAIN", "TEST"))
    y, y_test = (np.array([index[c] for c in read[split][1]], np.int64) for split in read)
    train, development = rare_and_rest(y, len(class_names), seed)
    mean = x[train].mean(axis=(0, 1))
    deviation = x[train].std(axis=(0, 1)) + 1e-6
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    low, high = float(x[train].min()), float(x[train].max())
    low, high = low - MARGIN * (high - low), high + MARGIN * (high - low)

    def data(values: np.ndarray, labels: np.ndarray, split: str) -> LabelledImages:
        cut = np.clip(values, low, high).astype(np.float32)
        return LabelledImages(cut, labels, tuple(class_names), (low, high), split, source=name)

    return (
        data(x[train], y[train], "train"),
        data(x[development], y[development], "val"),
        data(x_test, y_test, "test"),
    )
