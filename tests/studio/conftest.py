"""A finished run with its data, and a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vaeaug
from tests.small_job import digits, tiny_config
from vaeaug.studio import Collection, Studio

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def data() -> vaeaug.LabelledImages:
    return digits((60, 50, 12, 8))


@pytest.fixture(scope="session")
def small_run(
    data: vaeaug.LabelledImages, tmp_path_factory: pytest.TempPathFactory
) -> vaeaug.AugmentResult:
    """240 samples of four classes, and some that were rejected."""
    config = tiny_config(
        **{
            "screening.near_copy_factor": 1.0,
            "screening.duplicate_factor": 0.25,
            "screening.max_near_share": 0.5,
            "plan.share": 0.5,
        }
    )
    out = tmp_path_factory.mktemp("studio") / "run"
    return vaeaug.augment(data, out, config, device="cpu", progress=False)


@pytest.fixture
def run(small_run: vaeaug.AugmentResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run.out_dir, tmp_path / "run"))


@pytest.fixture
def collection(run: Path, data: vaeaug.LabelledImages) -> Collection:
    return Collection(run, data)


@pytest.fixture
def studio(collection: Collection) -> Iterator[Studio]:
    with Studio(collection) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser of the system without a window; nothing is downloaded."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()
