"""Shared pieces: real digits, one small trained generator, one finished run."""

import os
import signal

# A shell that starts the tests in the background has them ignore Ctrl-C, and what they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# One thread here and in the processes that tests start: sums in another order round otherwise.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from jaxtyping import install_import_hook

# The annotations of these are contracts on shapes and types; in the tests they bind. The hook sees
# what is imported after it.
install_import_hook("vaeaug", "typechecked.typechecked")


import vaeaug

# A fixed number of threads: sums in another order would round otherwise.
torch.set_num_threads(1)

COUNTS = [60, 50, 40, 35, 30, 30, 25, 20, 16, 12]
SMALL = [
    "model.width=8",
    "training.steps=120",
    "training.adapt_steps=40",
    "training.eval_every=40",
    "screening.classifier_steps=40",
]


@pytest.fixture(scope="session")
def digits() -> vaeaug.LabelledImages:
    """Digits, long-tailed."""
    return vaeaug.read("digits").imbalanced(COUNTS, seed=0)


@pytest.fixture(scope="session")
def small_config() -> vaeaug.AugmentConfig:
    """A job of seconds."""
    return vaeaug.load_config(None, SMALL)


@pytest.fixture(scope="session")
def synthesizer(digits, small_config) -> vaeaug.Synthesizer:
    """A generator trained on the long-tailed digits."""
    return vaeaug.fit(digits, small_config, device="cpu")


@pytest.fixture(scope="session")
def finished(digits, small_config, tmp_path_factory) -> vaeaug.AugmentResult:
    """A whole run."""
    out = tmp_path_factory.mktemp("finished") / "run"
    return vaeaug.augment(digits, out, small_config, device="cpu")
