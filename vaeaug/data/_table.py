"""CSV files that list an image path and a label in each row."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vaeaug.data._arrays import normalise_pixels
from vaeaug.data._files import is_file, read_files
from vaeaug.data._images import DataError, LabelledImages
from vaeaug.data._labels import UNLABELLED, labelled
from vaeaug.data._request import Request
from vaeaug.data._splits import canonical, require_split, without_splits
from vaeaug.memory import TEXT_FACTOR, require_memory

_PATH_NAMES = ("path", "file", "filename", "image")
_LABEL_NAMES = ("label", "class", "target")


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: str
    split: str | None


def read_table(path: Path, request: Request) -> LabelledImages:
    """Read the images that a CSV (or .tsv) file lists; see `read` for its columns."""
    where = str(path)
    rows, duplicates = _distinct(_rows(path), where)
    notes: tuple[str, ...] = ()
    if duplicates:
        notes = (f"{duplicates} rows that repeat an earlier one left out",)
    splits = {row.split for row in rows if row.split is not None}
    if splits:
        split = require_split(request.split, splits, where)
        mine = [row for row in rows if row.split == split]
        naming = [row for row in rows if row.split == "train"] or mine
    else:
        split, mine, naming = request.split, rows, rows
        notes += without_splits(split, where)
    for row in mine:
        if not is_file(row.path):
            raise DataError(f"{where}, line {row.line}: expected an image file, got no {row.path}")
    index, class_names, label_notes = _classes(naming, request.class_names, where)
    for row in mine:
        if row.label not in index:
            raise DataError(
                f"{where}, line {row.line}: expected one of the labels "
                f"{', '.join(list(index)[:20])}, got {row.label!r}"
            )
    if all(index[row.label] == UNLABELLED for row in mine):
        raise DataError(
            f"{where}: expected at least one image with a label, got label -1 (unlabelled) for all "
            f"{len(mine)}"
        )
    images, decode_notes = read_files(
        [row.path for row in mine],
        where,
        size=request.size,
        alpha=request.alpha,
        workers=request.workers,
        progress=request.progress,
    )
    images, value_range, value_notes = normalise_pixels(images, where)
    return labelled(
        images=images,
        labels=np.array([index[row.label] for row in mine], dtype=np.int64),
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=where,
        notes=(*notes, *label_notes, *decode_notes, *value_notes),
    )


def _rows(path: Path) -> list[_Row]:
    where = str(path)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    require_memory(TEXT_FACTOR * path.stat().st_size, where, "rows", DataError)
    try:
        # utf-8-sig: spreadsheets write a byte order mark, which would become part of a name.
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
            cells = [(reader.line_num, [c.strip() for c in row]) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: expected a CSV file in UTF-8, got: {error}") from error
    if not cells:
        raise DataError(f"{where}: expected rows of path,label, got an empty file")
    columns = _columns(cells[0][1], where)
    if columns is None:
        if len(cells[0][1]) != 2:
            raise DataError(
                f"{where}, line {cells[0][0]}: expected two columns, path and label, or a header "
                f"with one of {'|'.join(_PATH_NAMES)} and one of {'|'.join(_LABEL_NAMES)} (and "
                f"split, if wanted), got {cells[0][1]}"
            )
        columns, width = (0, 1, None), 2
    else:
        width = len(cells[0][1])
        del cells[0]
    if not cells:
        raise DataError(f"{where}: expected rows of path,label, got only a header")
    at_path, at_label, at_split = columns
    rows = []
    for line, row in cells:
        if len(row) != width:
            raise DataError(f"{where}, line {line}: expected {width} columns, got {len(row)}")
        for what, at in (("path", at_path), ("label", at_label)):
            if not row[at]:
                raise DataError(f"{where}, line {line}: expected a {what}, got an empty cell")
        split = None
        if at_split is not None:
            split = canonical(row[at_split])
            if split is None:
                raise DataError(
                    f"{where}, line {line}: expected a split (train, val or test), got "
                    f"{row[at_split]!r}"
                )
        # Relative to the CSV file, so that a folder with its CSV can be moved.
        full = os.path.normpath(path.parent / row[at_path])
        rows.append(_Row(line, full, row[at_label], split))
    return rows


def _columns(first: list[str], where: str) -> tuple[int, int, int | None] | None:
    """Positions of path, label and split in a header; None if the row is no header."""
    names = [cell.lower() for cell in first]
    paths = [i for i, name in enumerate(names) if name in _PATH_NAMES]
    labels = [i for i, name in enumerate(names) if name in _LABEL_NAMES]
    splits = [i for i, name in enumerate(names) if name == "split"]
    if not paths or not labels:
        return None
    if len(paths) > 1 or len(labels) > 1 or len(splits) > 1:
        raise DataError(
            f"{where}: expected one column of paths, one of labels and at most one of splits, "
            f"got {first}"
        )
    return paths[0], labels[0], splits[0] if splits else None


def _distinct(rows: list[_Row], where: str) -> tuple[list[_Row], int]:
    """Rows with each path once, and how many were left out."""
    first: dict[str, _Row] = {}
    for row in rows:
        before = first.setdefault(row.path, row)
        if before.label != row.label:
            raise DataError(
                f"{where}, line {row.line}: expected one label for {row.path}, got {row.label!r} "
                f"here and {before.label!r} on line {before.line}"
            )
        if before.split != row.split:
            raise DataError(
                f"{where}, line {row.line}: expected {row.path} in one split, got {row.split!r} "
                f"here and {before.split!r} on line {before.line}"
            )
    return list(first.values()), len(rows) - len(first)


def _classes(
    rows: list[_Row], class_names: tuple[str, ...] | None, where: str
) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
    """Index of each label text, the class names, and notes; -1 is unlabelled among numbers."""
    texts = {row.label for row in rows}
    whole = all(_is_whole(text) for text in texts)
    if class_names is not None:
        index = {name: c for c, name in enumerate(class_names)}
        if whole and not texts <= set(index):
            index = {str(c): c for c in range(UNLABELLED, len(class_names))}
        return index, class_names, ()
    if whole:
        _refuse_negative(rows, where)
        texts.discard(str(UNLABELLED))
    ordered = sorted(texts, key=int) if whole else sorted(texts)
    index = {text: c for c, text in enumerate(ordered)}
    if whole:
        index[str(UNLABELLED)] = UNLABELLED
    notes: tuple[str, ...] = ()
    if whole and ordered and ordered != [str(c) for c in range(len(ordered))]:
        notes = (
            f"integer labels {ordered[0]}..{ordered[-1]} renumbered 0..{len(ordered) - 1} in "
            f"their order; the class names are the original ones",
        )
    return index, tuple(ordered), notes


def _refuse_negative(rows: list[_Row], where: str) -> None:
    for row in rows:
        if int(row.label) < UNLABELLED:
            raise DataError(
                f"{where}, line {row.line}: expected labels of at least 0, or -1 for unlabelled, "
                f"got {row.label}"
            )


def _is_whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()
