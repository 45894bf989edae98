"""Files of coders: safetensors with a head of JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vaeaug.compression.errors import CompressionError
from vaeaug.files import named, new_file


def write_coder(
    path: str | Path, tensors: Mapping[str, np.ndarray], head: str, **told: Any
) -> Path:
    """Write a coder.

    Args:
        path: The file, replaced whole.
        tensors: Its arrays.
        head: JSON of what it is: its format, and what decides about the bits.
        **told: What else it says, as JSON values.

    Returns:
        The path.
    """
    from safetensors.numpy import save

    path = Path(path)
    metadata = {"head": head} | {key: json.dumps(value) for key, value in told.items()}
    with new_file(path) as file:
        file.write(save(dict(tensors), metadata))
    return path


def read_coder(
    path: str | Path,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
    """Read what `write_coder` wrote.

    Args:
        path: The file.

    Returns:
        (head, what else it says, arrays).

    Raises:
        CompressionError: If it is no such file.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with named(path), safe_open(path, framework="numpy") as file:
            told = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        head = told.pop("head")
        head["format"], head["format_version"], head["generator_sha256"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CompressionError(f"{path}: not a coder ({error})") from error
    return head, told, tensors


def check_head(
    path: str | Path, head: Mapping[str, Any], expected: tuple[str, int], sha256: str | None
) -> None:
    """Refuse a coder of another format or another generator.

    Args:
        path: Its file.
        head: From `read_coder`.
        expected: Format and version.
        sha256: Of the generator at hand; None for none.

    Raises:
        CompressionError: If it is another one.
    """
    kind = (head["format"], head["format_version"])
    if kind != expected:
        raise CompressionError(
            f"{path}: expected {expected[0]} version {expected[1]}, got {kind[0]} version {kind[1]}"
        )
    maker = head["generator_sha256"]
    if maker is not None and maker != sha256:
        raise CompressionError(
            f"{path}: expected the generator {str(maker)[:12]} that the coder was trained with, "
            f"got {'none' if sha256 is None else sha256[:12]}"
        )
