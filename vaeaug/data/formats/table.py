"""CSV files that list an image path and a label in each row."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.decode import ENDINGS as PICTURES
from vaeaug.data.foreign_arrays import table
from vaeaug.data.formats.audio import ENDINGS as SOUNDS
from vaeaug.data.formats.lookup import Lookup
from vaeaug.data.formats.media import read_media
from vaeaug.data.formats.walk import ending_of
from vaeaug.data.labels import UNLABELLED, is_sign, is_whole, labelled, renumbered
from vaeaug.data.request import Request
from vaeaug.data.splits import canonical, require_split, without_splits
from vaeaug.data.stack import Faults
from vaeaug.data.vocabulary import IDS, LABELS, PATHS, SPLITS, find_all, plain
from vaeaug.memory import TEXT_FACTOR, require_memory

_DELIMITERS = (",", ";", "\t")
_EXAMPLES = (
    f"a header with one of {'|'.join(PATHS[:9])}|image|{'|'.join(IDS[:4])}, ... and one of "
    f"{'|'.join(LABELS[:7])}, ..."
)


@dataclass(frozen=True)
class _Row:
    line: int
    path: str
    label: str
    split: str | None


@dataclass(frozen=True)
class _Columns:
    path: int
    label: int
    split: int | None
    width: int
    says_split: bool = False


def read_table(path: Path, request: Request) -> LabelledImages:
    """Read the images that a CSV (or .tsv) file lists; see `read` for its columns."""
    where = str(path)
    listed, notes, numbers = _rows(path, request.keys)
    lookup = Lookup(path)
    problems: dict[int, str] = {}
    found = []
    for row in listed:
        file, problem = lookup.find(row.path, row.split)
        found.append(replace(row, path=file))
        if problem is not None:
            problems[row.line] = problem
    if numbers and len(problems) == len(listed):
        raise table(where, "rows of numbers, and no image beside it of any of their names")
    _refuse_header(listed, problems, where)
    rows, duplicates = _distinct(found, where)
    if duplicates:
        notes += (f"{duplicates} rows that repeat an earlier one left out",)
    splits = {row.split for row in rows if row.split is not None}
    if splits:
        split = require_split(request.split, splits, where)
        mine = [row for row in rows if row.split == split]
        naming = [row for row in rows if row.split == "train"] or mine
    else:
        split, mine, naming = request.split, rows, rows
        notes += without_splits(split, where)
    faults = Faults(where, request.on_error)
    for row in mine:
        if row.line in problems:
            faults.add(f"{where}, line {row.line}: {problems[row.line]}")
    notes += faults.settle(len(mine))
    mine = [row for row in mine if row.line not in problems]
    notes += lookup.notes()
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
    paths = [row.path for row in mine]
    images, value_range, kept, media_notes = read_media(paths, where, request)
    return labelled(
        images=images,
        labels=np.array([index[row.label] for row in mine], dtype=np.int64)[kept],
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=where,
        notes=(*notes, *label_notes, *media_notes),
        names=[row.path for row, k in zip(mine, kept, strict=True) if k],
    )


def _rows(path: Path, keys: Mapping[str, str] | None) -> tuple[list[_Row], tuple[str, ...], bool]:
    """The rows as they are written, paths included; notes; whether they are of numbers."""
    where = str(path)
    cells, notes = _cells(path)
    if not cells:
        raise DataError(f"{where}: expected rows of path,label, got an empty file")
    columns, more = _columns(cells[0][1], keys, where)
    notes += more
    if columns is None:
        if _is_numbers(cells[-1][1]) and not find_all((*PATHS, *IDS), cells[0][1]):
            raise table(where, f"rows of {len(cells[0][1])} columns of numbers")
        if len(cells[0][1]) != 2:
            raise DataError(
                f"{where}, line {cells[0][0]}: expected two columns, path and label, or "
                f"{_EXAMPLES} (and split, if wanted), got {cells[0][1]}; pass keys={{'images': "
                f"..., 'labels': ...}} to name the columns of another header"
            )
        columns = _Columns(0, 1, None, 2)
    else:
        del cells[0]
    if not cells:
        raise DataError(f"{where}: expected rows of path,label, got only a header")
    for line, row in cells:
        if len(row) != columns.width:
            raise DataError(
                f"{where}, line {line}: expected {columns.width} columns, got {len(row)}"
            )
        for what, at in (("path", columns.path), ("label", columns.label)):
            if not row[at]:
                raise DataError(f"{where}, line {line}: expected a {what}, got an empty cell")
    columns = _checked_split(columns, cells, where)
    rows = [
        _Row(
            line,
            row[columns.path],
            row[columns.label],
            None if columns.split is None else canonical(row[columns.split]),
        )
        for line, row in cells
    ]
    return rows, notes, _is_numbers(cells[-1][1])


def _is_numbers(row: list[str]) -> bool:
    """Whether a row is of numbers, but for a label perhaps: no list of images, but a table."""
    if len(row) < 3:
        return False
    texts = 0
    for cell in row:
        try:
            float(cell)
        except ValueError:
            texts += 1
    return texts <= 1


def _cells(path: Path) -> tuple[list[tuple[int, list[str]]], tuple[str, ...]]:
    """Each row that is not empty, with its line, and notes."""
    where = str(path)
    require_memory(TEXT_FACTOR * path.stat().st_size, where, "rows", DataError)
    try:
        # utf-8-sig: spreadsheets write a byte order mark, which would become part of a name.
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            if delimiter not in first:
                delimiter = max(_DELIMITERS, key=first.count)
            reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
            cells = [(reader.line_num, [c.strip() for c in row]) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: expected a CSV file in UTF-8, got: {error}") from error
    expected = delimiter == ("\t" if path.suffix.lower() == ".tsv" else ",")
    return cells, () if expected else (f"columns taken as separated by {delimiter!r}",)


def _columns(
    first: list[str], keys: Mapping[str, str] | None, where: str
) -> tuple[_Columns | None, tuple[str, ...]]:
    """The columns that a header names, and notes; None if the row is no header."""
    splits = find_all(SPLITS, first)
    if keys is not None:
        for name in keys.values():
            if first.count(name) != 1:
                raise DataError(
                    f"{where}: expected one column {name!r} (from keys), got {', '.join(first)}"
                )
        paths, labels = [keys["images"]], [keys["labels"]]
    else:
        # A column of paths is surer than one of ids beside it.
        paths, labels = find_all(PATHS, first) or find_all(IDS, first), find_all(LABELS, first)
        if not paths or not labels:
            return None, ()
        for what, found in (("images", paths), ("labels", labels)):
            if len(found) > 1:
                raise DataError(
                    f"{where}: expected one column of {what}, got {' and '.join(found)}; pass "
                    f"keys={{'images': {paths[0]!r}, 'labels': {labels[0]!r}}} to say which "
                    f"(--set 'data.keys={{images: {paths[0]}, labels: {labels[0]}}}')"
                )
    split = first.index(splits[0]) if splits else None
    columns = _Columns(
        first.index(paths[0]),
        first.index(labels[0]),
        split,
        len(first),
        says_split=bool(splits) and plain(splits[0]) == SPLITS[0],
    )
    used = {paths[0], labels[0]}
    if used <= {"path", "label", "file", "filename", "image"} or keys is not None:
        return columns, ()
    return columns, (f"images by the column {paths[0]!r}, labels by {labels[0]!r}",)


def _checked_split(columns: _Columns, cells: list[tuple[int, list[str]]], where: str) -> _Columns:
    """The columns without that of the split, where it names none and may mean something else."""
    if columns.split is None:
        return columns
    for line, row in cells:
        if canonical(row[columns.split]) is None:
            # Other columns may be called a fold or a set.
            any_split = any(canonical(other[columns.split]) is not None for _, other in cells)
            if any_split or columns.says_split:
                raise DataError(
                    f"{where}, line {line}: expected a split (train, val or test), got "
                    f"{row[columns.split]!r}"
                )
            return replace(columns, split=None)
    return columns


def _refuse_header(rows: list[_Row], problems: Mapping[int, str], where: str) -> None:
    """A first row whose file is not there, although all others are, is a header of other names."""
    first = rows[0]
    looks = first.line in problems and ending_of(first.path) not in (*PICTURES, *SOUNDS)
    if looks and len(rows) > 1 and rows[1].line not in problems:
        raise DataError(
            f"{where}, line {first.line}: expected a path and a label, or {_EXAMPLES}, got "
            f"{first.path!r} and {first.label!r}, which look like a header of other names; pass "
            f"keys={{'images': {first.path!r}, 'labels': {first.label!r}}} (--set "
            f"'data.keys={{images: {first.path}, labels: {first.label}}}')"
        )


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
    whole = all(is_whole(text) for text in texts)
    if class_names is not None:
        index = {name: c for c, name in enumerate(class_names)}
        numbers = sorted({int(text) for text in texts} - {UNLABELLED}) if whole else []
        if not whole or texts <= set(index):
            return index, class_names, ()
        # As normalise_labels has it: -1 and 1, or 1 to K, can be numbered in one way.
        if texts == {"-1", "1"} and len(class_names) == 2:
            return {"-1": 0, "1": 1}, class_names, renumbered([-1, 1])
        first = int(numbers == list(range(1, len(class_names) + 1)))
        index = {str(c + first): c for c in range(len(class_names))}
        notes = renumbered(numbers) if first else ()
        return index | {str(UNLABELLED): UNLABELLED}, class_names, notes
    sign = whole and is_sign(np.array([int(text) for text in texts]))
    if whole and not sign:
        _refuse_negative(rows, where)
        texts.discard(str(UNLABELLED))
    ordered = sorted(texts, key=int) if whole else sorted(texts)
    index = {text: c for c, text in enumerate(ordered)}
    if whole and not sign:
        index[str(UNLABELLED)] = UNLABELLED
    notes = renumbered([int(text) for text in ordered]) if whole else ()
    return index, tuple(ordered), notes


def _refuse_negative(rows: list[_Row], where: str) -> None:
    for row in rows:
        if int(row.label) < UNLABELLED:
            raise DataError(
                f"{where}, line {row.line}: expected labels of at least 0, or -1 for unlabelled, "
                f"got {row.label}"
            )
