"""Signals and short videos for the tests: generated from physics, and from real digits moving."""

import numpy as np

import vaeaug

SIGNAL_CLASSES = ("underdamped", "critical", "overdamped", "beating")


def oscillators(counts=(60, 40, 30, 24), length: int = 64, seed: int = 0) -> vaeaug.LabelledImages:
    """Displacement and velocity of a mass on a damped spring after a push, shape (n, length, 2).

    Exact solutions of x'' + 2 d x' + w^2 x = 0 with x(0) = 0, x'(0) = v in the three regimes of
    damping, and two weakly coupled masses that hand their energy to and fro; sensor noise of 2 %.
    """
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 10, length)
    signals, labels = [], []
    for label, count in enumerate(counts):
        for _ in range(count):
            omega, push = rng.uniform(1.5, 3.0), rng.uniform(0.7, 1.3)
            if label == 3:
                split = rng.uniform(0.15, 0.35)
                x = push / omega * np.cos(split * t) * np.sin(omega * t)
            else:
                damping = omega * (rng.uniform(0.05, 0.2), 1.0, rng.uniform(1.5, 2.5))[label]
                root = np.sqrt(abs(damping**2 - omega**2))
                shape = (np.sin, lambda s: s, np.sinh)[label](root * t if label != 1 else t)
                x = push * np.exp(-damping * t) * shape / (root if label != 1 else 1.0)
            signal = np.stack([x, np.gradient(x, t)], axis=1)
            signals.append(signal + 0.02 * rng.standard_normal(signal.shape))
            labels.append(label)
    return vaeaug.read(
        (np.array(signals, np.float32), np.array(labels)),
        layout="NLC",
        class_names=SIGNAL_CLASSES,
    )


def moving_digits(counts=(40, 30, 24), frames: int = 4, seed: int = 0) -> vaeaug.LabelledImages:
    """Real digits that slide across a 12 x 12 frame, shape (n, frames, 12, 12, 1), uint8."""
    rng = np.random.default_rng(seed)
    digits = vaeaug.read("digits")
    videos, labels = [], []
    for label, count in enumerate(counts):
        rows = rng.permutation(np.flatnonzero(digits.labels == label))[:count]
        for image in digits.images[rows]:
            start, velocity = rng.integers(0, 5, size=2), rng.integers(-2, 3, size=2)
            video = np.zeros((frames, 12, 12, 1), np.uint8)
            for frame in range(frames):
                y, x = np.abs((start + frame * velocity) % 8 - 4) if frame else start
                video[frame, y : y + 8, x : x + 8] = image
            videos.append(video)
            labels.append(label)
    return vaeaug.read((np.array(videos), np.array(labels)), class_names=("zero", "one", "two"))
