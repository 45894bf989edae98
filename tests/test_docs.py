"""The pages say what the code does."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from vaeaug.config import AugmentConfig

DOCS = Path(__file__).parent.parent / "docs"


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
