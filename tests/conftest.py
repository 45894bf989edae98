"""Shared pieces: real digits, one small trained generator, one finished run."""

import gc
import os
import signal
from pathlib import Path

# A shell that starts the tests in the background has them ignore Ctrl-C, `nohup` the end of the
# terminal, and what they start too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# One thread here and in the processes that tests start: sums in another order round otherwise.
os.environ["OMP_NUM_THREADS"] = "1"
# Threads that wait sleep: several processes of tests share the cores.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
# Jobs are timed in advance where that is tested.
os.environ["VAEAUG_TIMING"] = "0"

import jaxtyping
import pytest
import torch
from jaxtyping import config as jaxtyping_config
from typechecked import contract

# Annotations are contracts on shapes and types; in the tests they bind, but where a warning names
# the caller's line, which the frames of the checks would hide. The hook sees later imports alone.
PACKAGE = Path(__file__).parent.parent / "vaeaug"
UNCHECKED = (
    *("_verdict", "_merge", "_merged_dataset", "_slots", "_export"),
    *("_artefacts", "torchvision", "_torchvision_base", "albumentations", "_resampling"),
)
jaxtyping.install_import_hook(
    [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if path.stem not in (*UNCHECKED, "__init__")
    ],
    "typechecked.typechecked",
)
# The hook has modules look this up.
jaxtyping.jaxtyped = contract

import vaeaug
from vaeaug.training._loop import Loop

# Checks of annotations take longer than the steps of these small networks, all of which are alike:
# those of the first steps are enough.
CHECKED_STEPS = 3
_step = Loop._with_memory


def _step_with_few_checks(self, step, number, done):
    before = jaxtyping_config.jaxtyping_disable
    jaxtyping_config.update("jaxtyping_disable", before or number >= CHECKED_STEPS)
    try:
        return _step(self, step, number, done)
    finally:
        jaxtyping_config.update("jaxtyping_disable", before)


Loop._with_memory = _step_with_few_checks

# A fixed number of threads: sums in another order would round otherwise.
torch.set_num_threads(1)

# Files of tests that take longest: they begin first, so that none of them is left at the end.
LONGEST = (
    *("test_torture", "test_evaluate", "test_style", "test_pipelines", "test_job", "test_loader"),
    *("test_gate", "test_variants", "test_notebooks", "test_tape", "test_semi_supervised"),
)


def pytest_collection_finish() -> None:
    # Modules and tests stay to the end: not looked at again in every full collection.
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


COUNTS = [60, 50, 40, 35, 30, 30, 25, 20, 16, 12]
SMALL = [
    "model.width=8",
    "training.steps=120",
    "training.adapt_steps=40",
    "training.eval_every=40",
    "screening.classifier_steps=40",
    "restoration.steps=20",
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


@pytest.fixture
def unchecked():
    """Annotations do not bind: for deliberately wrong arguments, and for the line of a warning."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)
