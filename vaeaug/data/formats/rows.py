"""Rows of a table, each with a file, its label and perhaps its split, become labelled files."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Shaped

from vaeaug.data.checks import DataError, data_errors
from vaeaug.data.finish import RawData
from vaeaug.data.formats.media import decode_media
from vaeaug.data.labels import is_whole
from vaeaug.data.metadata import NO_METADATA, SourceMetadata
from vaeaug.data.request import Request
from vaeaug.data.split_names import select_split
from vaeaug.data.stack import Faults
from vaeaug.memory import TEXT_FACTOR, require_memory


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        table: The table's path.
        place: Where in the table, for messages, such as "line 3".
        path: The file that the row names.
        label: As it is written: a text, or a number where the table has types.
        split: The split that it belongs to, where one is stated.
        problem: Why the file cannot be read, or None.
    """

    table: Path
    place: str
    path: str
    label: Any
    split: str | None
    problem: str | None = None


@contextmanager
def open_table(path: Path, *, whole: bool = True) -> Iterator[TextIO]:
    """Open a table in UTF-8.

    Args:
        path: The file.
        whole: Whether all of its rows will be held in memory.

    Returns:
        The open file, for the `with` block.

    Raises:
        DataError: If memory cannot hold its rows, or it is not CSV or text in UTF-8.
    """
    if whole:
        require_memory(TEXT_FACTOR * path.stat().st_size, str(path), "rows", DataError)
    with (
        data_errors(str(path), "a table in UTF-8", UnicodeDecodeError, csv.Error),
        # utf-8-sig: spreadsheets write a byte order mark, which would become part of a name.
        open(path, newline="", encoding="utf-8-sig") as file,
    ):
        yield file


def labelled_files(
    rows: Sequence[Row],
    where: str,
    request: Request,
    *,
    notes: tuple[str, ...] = (),
    more_notes: tuple[str, ...] = (),
    metadata: SourceMetadata = NO_METADATA,
) -> RawData:
    """Select the rows of the requested split, and prepare to decode their files.

    Args:
        rows: All rows, at least one.
        where: The source, for messages.
        request: The options of `read`.
        notes: Notes before that on the split.
        more_notes: Notes after it.
        metadata: What the source states of itself.

    Returns:
        The labels, and the files, which are decoded later.

    Raises:
        DataError: If the split is not there, files are missing, or labels are no texts or whole
            numbers.
    """
    splits = {row.split for row in rows if row.split is not None}
    split, split_notes = select_split(request.split, splits, where)
    selected = [row for row in rows if not splits or row.split == split]
    faults = Faults(where, request.on_error)
    for row in selected:
        if row.problem is not None:
            faults.add(f"{row.table}, {row.place}: {row.problem}")
    fault_notes = faults.settle(len(selected))
    selected = [row for row in selected if row.problem is None]
    training = [row for row in rows if row.split == "train"] if split != "train" else []
    labels = _label_array([row.label for row in [*selected, *training]], where, request)
    paths = [row.path for row in selected]
    return RawData(
        source=where,
        split=split,
        images=partial(decode_media, paths, where, request),
        labels=labels[: len(selected)],
        reference=labels[len(selected) :] if training else None,
        metadata=metadata,
        notes=(*notes, *split_notes, *more_notes, *fault_notes),
        names=paths,
        place=lambda i: f"in {selected[i].place}",
    )


def _label_array(labels: list[Any], where: str, request: Request) -> Shaped[np.ndarray, " n"]:
    """Labels as numbers or texts: a table without types has whole numbers as texts."""
    texts = [str(label) for label in labels]
    is_typed = all(type(label) is int for label in labels)
    names_fit = request.class_names is not None and {*texts} <= {*request.class_names}
    if all(map(is_whole, texts)) and (is_typed or not names_fit):
        return np.array([int(text) for text in texts], dtype=np.int64)
    if is_typed:
        odd = next(text for text in texts if not is_whole(text))
        raise DataError(f"{where}: expected labels that number the classes, got {odd}")
    for label in labels:
        if not isinstance(label, str):
            raise DataError(f"{where}: expected labels as texts or whole numbers, got {label!r}")
    return np.array(texts)
