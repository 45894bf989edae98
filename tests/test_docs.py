"""The pages say what the code does."""

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from pydantic import BaseModel

import vaeaug
from vaeaug.config import AugmentConfig

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def keys() -> list[tuple[str, str, str]]:
    found = []
    for name, field in AugmentConfig.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            for key, inner in part.model_fields.items():
                found.append((f"{name}.{key}", str(inner.default), inner.description or ""))
        else:
            found.append((name, str(field.default), field.description or ""))
    return found


@pytest.mark.parametrize(("key", "default", "meaning"), keys())
def test_every_key_is_documented_with_its_default(key: str, default: str, meaning: str) -> None:
    assert meaning, f"{key} has no description"
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert f"| `{key}` | `{default}` | {meaning} |" in page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as `make docs` builds them: a warning is an error."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_the_reference_describes_every_public_name(site: Path) -> None:
    page = unescape((site / "api" / "index.html").read_text(encoding="utf-8"))
    described = set(re.findall(r'id="vaeaug\.(\w+)"', page))
    assert set(vaeaug.__all__) - {"__version__"} <= described
    transforms = unescape((site / "api" / "transforms" / "index.html").read_text(encoding="utf-8"))
    for name in ("VAEMix", "LatentAugment", "SyntheticPool", "worker_init_fn", "MergedDataModule"):
        assert f'.{name}"' in transforms


def test_every_page_is_in_the_site_and_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in DOCS.rglob("*.md"):
        inside = page.relative_to(DOCS).with_suffix("")
        where = site if inside.name == "index" else site / inside
        where = site / inside.parent if inside.name == "index" else where
        text = (where / "index.html").read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]+)"', text)
        assert loaded == [], page


def test_the_python_of_the_pages_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order of the pages, which say that they go on from one another."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    n_blocks = 0
    for page in ("uses.md", "loaders.md"):
        text = (DOCS / page).read_text(encoding="utf-8")
        for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
            n_blocks += 1
            try:
                exec(compile(block, f"{page}, block {n_blocks}", "exec"), names)
            except Exception as error:
                pytest.fail(f"{page}, block {n_blocks}: {type(error).__name__}: {error}")
    assert n_blocks == 10
    assert (tmp_path / "more.npz").exists()
    assert len(names["arrow"]) == len(vaeaug.merge(names["data"], "runs/rare", 0.3))  # type: ignore
    assert "ok" in capsys.readouterr().out.lower()


def test_the_commands_of_the_pages_exist() -> None:
    from vaeaug.cli import main

    for page in DOCS.rglob("*.md"):
        verbs = re.findall(r"^vaeaug (?:-q )?(\w+)", page.read_text(encoding="utf-8"), re.M)
        assert set(verbs) <= main.commands.keys(), page
