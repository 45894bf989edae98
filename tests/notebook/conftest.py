"""A run of real digits of four classes that takes a second or two."""

import pytest
from small_job import digits as small_digits
from small_job import tiny_config

import vaeaug


@pytest.fixture(scope="session")
def digits() -> vaeaug.LabelledImages:
    return small_digits()


@pytest.fixture(scope="session")
def finished(digits, tmp_path_factory) -> vaeaug.AugmentResult:
    out = tmp_path_factory.mktemp("shown") / "run"
    return vaeaug.augment(digits, out, tiny_config(), device="cpu")


@pytest.fixture
def synthesizer(finished) -> vaeaug.Synthesizer:
    return vaeaug.load(finished.out_dir)
