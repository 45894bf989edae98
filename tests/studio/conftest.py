"""A finished run with its data, and a browser."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vaeaug
from vaeaug.studio import Collection, Studio

sys.path.insert(0, str(Path(__file__).parents[1] / "shards"))

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture
def run(finished: vaeaug.AugmentResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.out_dir, tmp_path / "run"))


@pytest.fixture
def collection(run: Path, digits: vaeaug.LabelledImages) -> Collection:
    return Collection(run, digits)


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
