"""CSV files that list an image path and a label in each row."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vaeaug.data.checks import DataError
from vaeaug.data.finish import RawData
from vaeaug.data.foreign_arrays import table_error
from vaeaug.data.formats.lookup import Lookup
from vaeaug.data.formats.media import MEDIA_ENDINGS
from vaeaug.data.formats.rows import Row, labelled_files, open_table
from vaeaug.data.formats.walk import ending_of
from vaeaug.data.labels import is_whole
from vaeaug.data.request import Request
from vaeaug.data.split_names import canonical
from vaeaug.data.vocabulary import IDS, LABELS, PATHS, SPLITS, find_all, plain

_DELIMITERS = (",", ";", "\t")
_EXAMPLES = (
    f"a header with one of {'|'.join(PATHS[:9])}|image|{'|'.join(IDS[:4])}, ... and one of "
    f"{'|'.join(LABELS[:7])}, ..."
)
# A row that is not empty, after its line in the file.
_Cells = tuple[int, list[str]]


@dataclass(frozen=True)
class _Columns:
    """Where in a row the path, the label and, if it has one, the split are."""

    path: int = 0
    label: int = 1
    split: int | None = None
    width: int = 2
    # Other columns than "split" may be called a fold or a set and mean something else.
    is_surely_split: bool = False


def read_table(path: Path, request: Request) -> RawData:
    """Read the images that a CSV (or .tsv) file lists; see `read` for its columns.

    Args:
        path: The table.
        request: The options of `read`.

    Returns:
        The files of the requested split, which are decoded later, with their labels.

    Raises:
        DataError: If the columns are not known, or rows contradict each other.
    """
    where = str(path)
    cells, notes = _read_cells(path)
    columns, cells, column_notes = _columns(cells, request.keys, where)
    lookup = Lookup(path)
    rows = []
    for line, row in cells:
        split = None if columns.split is None else canonical(row[columns.split])
        file, problem = lookup.find(row[columns.path], split)
        rows.append(Row(path, f"line {line}", file, row[columns.label], split, problem))
    if _is_numbers(cells[-1][1]) and all(row.problem for row in rows):
        raise table_error(where, "rows of numbers, and no image beside it of any of their names")
    _refuse_header(rows, cells[0][1][columns.path], where)
    rows, n_repeated = _distinct(rows, where)
    notes += column_notes
    if n_repeated:
        notes += (f"skipped {n_repeated} rows that repeat an earlier one",)
    raw = labelled_files(rows, where, request, notes=notes, more_notes=lookup.notes())
    if request.class_names is not None or raw.labels.dtype.kind != "i":
        return raw
    # Zero-padded numbers name their classes as they are written, by preference in training rows.
    ordered = sorted(rows, key=lambda row: row.split == "train")
    spelling = {str(int(row.label)): row.label for row in ordered if is_whole(row.label)}
    return replace(raw, spelling=spelling)


def _read_cells(path: Path) -> tuple[list[_Cells], tuple[str, ...]]:
    """The rows that are not empty, and notes."""
    expected = "\t" if path.suffix.lower() == ".tsv" else ","
    with open_table(path) as file:
        first = file.readline()
        file.seek(0)
        delimiter = expected if expected in first else max(_DELIMITERS, key=first.count)
        reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=True)
        cells = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    if not cells:
        raise DataError(f"{path}: expected rows of path,label, got an empty file")
    notes = (f"columns taken as separated by {delimiter!r}",) if delimiter != expected else ()
    return cells, notes


def _columns(
    cells: list[_Cells], keys: Mapping[str, str] | None, where: str
) -> tuple[_Columns, list[_Cells], tuple[str, ...]]:
    """The columns, the rows without the header, and notes."""
    line, first = cells[0]
    columns, notes = _header_columns(first, keys, where)
    if columns is None:
        if _is_numbers(cells[-1][1]) and not find_all((*PATHS, *IDS), first):
            raise table_error(where, f"rows of {len(first)} columns of numbers")
        if len(first) != 2:
            raise DataError(
                f"{where}, line {line}: expected two columns, path and label, or "
                f"{_EXAMPLES} (and split, if wanted), got {first}; pass keys={{'images': "
                f"..., 'labels': ...}} to name the columns of another header"
            )
        columns = _Columns()
    else:
        cells = cells[1:]
    if not cells:
        raise DataError(f"{where}: expected rows of path,label, got only a header")
    for line, row in cells:
        if len(row) != columns.width:
            raise DataError(
                f"{where}, line {line}: expected {columns.width} columns, got {len(row)}"
            )
        for what, column in (("path", columns.path), ("label", columns.label)):
            if not row[column]:
                raise DataError(f"{where}, line {line}: expected a {what}, got an empty cell")
    return _check_split(columns, cells, where), cells, notes


def _header_columns(
    first: list[str], keys: Mapping[str, str] | None, where: str
) -> tuple[_Columns | None, tuple[str, ...]]:
    """The columns that a header names, and notes; None if the row is no header."""
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
        for what, names in (("images", paths), ("labels", labels)):
            if len(names) > 1:
                raise DataError(
                    f"{where}: expected one column of {what}, got {' and '.join(names)}; pass "
                    f"keys={{'images': {paths[0]!r}, 'labels': {labels[0]!r}}} to choose "
                    f"(--set 'data.keys={{images: {paths[0]}, labels: {labels[0]}}}')"
                )
    splits = find_all(SPLITS, first)
    columns = _Columns(
        path=first.index(paths[0]),
        label=first.index(labels[0]),
        split=first.index(splits[0]) if splits else None,
        width=len(first),
        is_surely_split=bool(splits) and plain(splits[0]) == SPLITS[0],
    )
    used = {paths[0], labels[0]}
    if used <= {"path", "label", "file", "filename", "image"} or keys is not None:
        return columns, ()
    return columns, (f"images by the column {paths[0]!r}, labels by {labels[0]!r}",)


def _check_split(columns: _Columns, cells: Sequence[_Cells], where: str) -> _Columns:
    """The columns without that of the split, where it names none and may mean something else."""
    if columns.split is None:
        return columns
    odd = [(line, row) for line, row in cells if canonical(row[columns.split]) is None]
    if not odd:
        return columns
    if len(odd) < len(cells) or columns.is_surely_split:
        line, row = odd[0]
        raise DataError(
            f"{where}, line {line}: expected a split (train, val or test), got "
            f"{row[columns.split]!r}"
        )
    return replace(columns, split=None)


def _is_numbers(row: list[str]) -> bool:
    """Whether a row is of numbers, but for a label perhaps: no list of images, but a table."""
    if len(row) < 3:
        return False
    n_texts = 0
    for cell in row:
        try:
            float(cell)
        except ValueError:
            n_texts += 1
    return n_texts <= 1


def _refuse_header(rows: list[Row], cell: str, where: str) -> None:
    """A first row whose file is missing, although the next one's is there, is an unknown header."""
    first = rows[0]
    is_likely = first.problem is not None and ending_of(cell) not in MEDIA_ENDINGS
    if is_likely and len(rows) > 1 and rows[1].problem is None:
        raise DataError(
            f"{where}, {first.place}: expected a path and a label, or {_EXAMPLES}, got "
            f"{cell!r} and {first.label!r}, which look like a header of other names; pass "
            f"keys={{'images': {cell!r}, 'labels': {first.label!r}}} (--set "
            f"'data.keys={{images: {cell}, labels: {first.label}}}')"
        )


def _distinct(rows: list[Row], where: str) -> tuple[list[Row], int]:
    """Rows with each path once, and how many were left out."""
    first: dict[str, Row] = {}
    for row in rows:
        earlier = first.setdefault(row.path, row)
        if earlier.label != row.label:
            raise DataError(
                f"{where}, {row.place}: expected one label for {row.path}, got {row.label!r} "
                f"here and {earlier.label!r} on {earlier.place}"
            )
        if earlier.split != row.split:
            raise DataError(
                f"{where}, {row.place}: expected {row.path} in one split, got {row.split!r} "
                f"here and {earlier.split!r} on {earlier.place}"
            )
    return list(first.values()), len(rows) - len(first)
