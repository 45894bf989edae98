"""Hugging Face's "imagefolder": image files with a table of their labels beside them."""

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vaeaug.data.dataset import DataError, LabelledImages
from vaeaug.data.decode import ENDINGS as PICTURES
from vaeaug.data.formats.audio import ENDINGS as SOUNDS
from vaeaug.data.formats.image_files import is_file
from vaeaug.data.formats.media import read_media
from vaeaug.data.formats.walk import safe, walk
from vaeaug.data.labels import is_whole, labelled, normalise_labels
from vaeaug.data.metadata import names_beside, parse_json
from vaeaug.data.request import Request
from vaeaug.data.splits import canonical, require_split, without_splits
from vaeaug.data.stack import Faults
from vaeaug.data.vocabulary import LABELS, find
from vaeaug.memory import TEXT_FACTOR, require_memory

_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_PATH = "file_name"


@dataclass(frozen=True)
class _Row:
    line: int  # in the table, from 1, its header not counted
    table: Path
    path: Path
    label: Any
    split: str | None


def has_metadata(root: Path, keys: Mapping[str, str] | None = None) -> bool:
    """Whether the folder, or each of its split folders, has a table of file names and labels.

    A table without labels leaves the folder to the reader of class folders, unless keys name some.
    """
    tables = _tables(root)
    if keys is not None:
        return bool(tables)
    return bool(tables) and all(_label_name(_columns(table)) for table in tables.values())


def read_metadata(root: Path, request: Request) -> LabelledImages:
    """Read the images that `metadata.csv`, `.jsonl` or `.parquet` lists, with their labels.

    Splits are the column `split`, the folders that the tables lie in, or those that all files do.
    """
    where = str(root)
    rows = [
        row for split, table in _tables(root).items() for row in _rows(table, split, request.keys)
    ]
    splits = {row.split for row in rows if row.split is not None}
    notes: tuple[str, ...] = ()
    if splits:
        split = require_split(request.split, splits, where)
    else:
        split, notes = request.split, without_splits(request.split, where)
    notes += _unlisted(rows, root)
    mine = [row for row in rows if not splits or row.split == split]
    training = [row for row in rows if row.split == "train"]
    faults = Faults(where, request.on_error)
    there = []
    for row in mine:
        if is_file(row.path):
            there.append(row)
        else:
            faults.add(f"{row.table}, row {row.line}: expected an image file, got no {row.path}")
    notes += faults.settle(len(mine))
    mine = there
    labels, class_names, label_notes = normalise_labels(
        _values(mine, where),
        where,
        request,
        stated=None if request.class_names else names_beside(root),
        reference=_values(training, where) if training and split != "train" else None,
    )
    paths = [str(row.path) for row in mine]
    images, value_range, kept, media_notes = read_media(paths, where, request)
    return labelled(
        images=images,
        labels=labels[kept],
        class_names=class_names,
        value_range=value_range,
        split=split,
        source=where,
        notes=(*notes, *label_notes, *media_notes),
        names=[path for path, k in zip(paths, kept, strict=True) if k],
    )


def _unlisted(rows: list[_Row], root: Path) -> tuple[str, ...]:
    """A note on images that no table names."""
    listed = {os.path.realpath(row.path) for row in rows}
    found = walk(str(root), (*PICTURES, *SOUNDS)).paths
    others = [path for path in found if os.path.realpath(path) not in listed]
    if not others:
        return ()
    first = safe(os.path.relpath(others[0], root))
    return (f"{len(others)} files that the table does not list left out (one is {first})",)


def _tables(root: Path) -> dict[str | None, Path]:
    """The table of the folder, under None, or those of its split folders."""
    own = _table(root)
    if own is not None:
        return {None: own}
    found: dict[str | None, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        split, table = canonical(folder.name), _table(folder)
        if split is not None and table is not None:
            if split in found:
                raise DataError(f"{root}: expected one folder for the split {split!r}, got two")
            found[split] = table
    return found


def _table(folder: Path) -> Path | None:
    tables = [folder / name for name in _FILES if (folder / name).is_file()]
    if len(tables) > 1:
        raise DataError(
            f"{folder}: expected one of {', '.join(_FILES)}, got "
            f"{', '.join(table.name for table in tables)}"
        )
    return tables[0] if tables else None


def _label_name(columns: list[str]) -> str | None:
    if _PATH not in columns:
        return None
    return find(LABELS, columns)


def _columns(table: Path) -> list[str]:
    if table.suffix == ".parquet":
        with _parquet(table) as file:
            return list(file.schema_arrow.names)
    if table.suffix == ".csv":
        return _header(table)
    records = _records(table, first_only=True)
    return list(records[0]) if records else []


def _rows(table: Path, split: str | None, keys: Mapping[str, str] | None) -> list[_Row]:
    records = _records(table)
    columns = _columns(table)
    path_in, label_in = _PATH, _label_name(columns)
    if keys is not None:
        path_in, label_in = keys["images"], keys["labels"]
    if label_in is None or not {path_in, label_in} <= set(columns):
        raise DataError(
            f"{table}: expected the columns {path_in} and {label_in or '|'.join(LABELS[:8])}, got "
            f"{', '.join(columns) or 'no rows'}"
        )
    if not records:
        raise DataError(f"{table}: expected at least one row, got none")
    rows = []
    for i, record in enumerate(records):
        at = f"{table}, row {i + 1}"
        name, label = record.get(path_in), record.get(label_in)
        path = _inside(table.parent, name, at)
        if label is None or label == "":
            raise DataError(f"{at}: expected a label, got none; -1 marks an unlabelled image")
        if isinstance(label, list | dict):
            raise DataError(
                f"{at}: expected one label, got {label!r}; multi-label and one-hot labels are not "
                f"read"
            )
        cell = record.get("split")
        of_row = split if cell is None else canonical(str(cell))
        if cell is not None and of_row is None:
            raise DataError(f"{at}: expected a split (train, val or test), got {cell!r}")
        rows.append(_Row(i + 1, table, path, label, of_row))
    return _split_by_folder(rows)


def _split_by_folder(rows: list[_Row]) -> list[_Row]:
    """Rows with the split that the first folder of their path names, where all are in such."""
    if any(row.split is not None for row in rows):
        return rows
    below = [row.path.relative_to(row.table.parent).parts for row in rows]
    splits = [canonical(parts[0]) if len(parts) > 1 else None for parts in below]
    if None in splits:
        return rows
    return [
        _Row(row.line, row.table, row.path, row.label, split)
        for row, split in zip(rows, splits, strict=True)
    ]


def _inside(folder: Path, name: Any, at: str) -> Path:
    """The file of this name in the folder, which it may not leave."""
    pure = PurePosixPath(name.replace("\\", "/")) if isinstance(name, str) else PurePosixPath()
    odd = not pure.parts or pure.is_absolute() or ".." in pure.parts
    if odd or "://" in str(name) or "\0" in str(name):
        raise DataError(f"{at}: expected {_PATH} as a path inside {folder}, got {name!r}")
    return folder.joinpath(*pure.parts)


def _values(rows: list[_Row], where: str) -> np.ndarray:
    labels = [row.label for row in rows]
    if all(isinstance(label, int) and not isinstance(label, bool) for label in labels):
        if odd := [label for label in labels if not is_whole(str(label))]:
            raise DataError(f"{where}: expected labels that number the classes, got {odd[0]}")
        return np.array(labels, dtype=np.int64)
    texts = [str(label) for label in labels]
    # A CSV file has no types: whole numbers in every row are class indices.
    if all(map(is_whole, texts)):
        return np.array([int(text) for text in texts], dtype=np.int64)
    if not all(isinstance(label, str) for label in labels):
        odd = next(label for label in labels if not isinstance(label, str))
        raise DataError(f"{where}: expected labels as texts or whole numbers, got {odd!r}")
    return np.array(texts)


def _records(table: Path, *, first_only: bool = False) -> list[dict[str, Any]]:
    """The rows of a table as mappings from column to value."""
    if table.suffix == ".parquet":
        return _parquet_rows(table)
    require_memory(TEXT_FACTOR * table.stat().st_size, str(table), "rows", DataError)
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            if table.suffix == ".jsonl":
                return _json_lines(file, table, first_only)
            return _csv_rows(file, table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: expected a table in UTF-8, got: {error}") from error


def _header(table: Path) -> list[str]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            return next(csv.reader(file, strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: expected a table in UTF-8, got: {error}") from error


def _csv_rows(file: Any, table: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    reader = csv.DictReader(file, strict=True)
    for record in reader:
        if None in record or None in record.values():
            raise DataError(
                f"{table}, line {reader.line_num}: expected {len(reader.fieldnames or ())} "
                f"columns, got another number"
            )
        records.append(record)
    return records


def _json_lines(file: Any, table: Path, first_only: bool) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for i, line in enumerate(file):
        if not line.strip():
            continue
        record = parse_json(line, f"{table}, line {i + 1}")
        if not isinstance(record, dict):
            raise DataError(f"{table}, line {i + 1}: expected a JSON object, got {line[:80]!r}")
        records.append(record)
        if first_only:
            break
    return records


def _parquet_rows(table: Path) -> list[dict[str, Any]]:
    with _parquet(table) as file:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        declared = sum(group.total_byte_size for group in groups)
        # A column of one repeated value takes no bytes in the file, and some in Python.
        cells = file.metadata.num_rows * file.metadata.num_columns
        needed = TEXT_FACTOR * max(declared, 8 * cells)
        require_memory(needed, str(table), f"{file.metadata.num_rows:,} rows", DataError)
        return file.read().to_pylist()


@contextmanager
def _parquet(table: Path) -> Iterator[Any]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(
            f"{table}: a Parquet file needs pyarrow: pip install 'vaeaug[huggingface]'"
        ) from None
    try:
        with pyarrow.parquet.ParquetFile(table) as file:
            yield file
    except DataError:
        raise
    except Exception as error:  # of Arrow, of its decompressors: none of them can be listed
        raise DataError(f"{table}: expected a Parquet file, got: {error}") from error
