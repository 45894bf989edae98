"""Hugging Face's "imagefolder": image files with a table of their labels beside them."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from vaeaug.data.checks import DataError, data_errors, encodable
from vaeaug.data.finish import RawData
from vaeaug.data.formats.extras import import_extra
from vaeaug.data.formats.media import MEDIA_ENDINGS
from vaeaug.data.formats.rows import Row, labelled_files, open_table
from vaeaug.data.formats.walk import walk
from vaeaug.data.metadata import SourceMetadata, class_names_beside, parse_json
from vaeaug.data.request import Request
from vaeaug.data.split_names import canonical
from vaeaug.data.vocabulary import LABELS, find
from vaeaug.memory import TEXT_FACTOR, require_memory

_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_PATH = "file_name"

# The columns of a table, and its rows as mappings from column to value.
_Table = tuple[list[str], list[dict[str, Any]]]


def has_metadata(root: Path, keys: Mapping[str, str] | None = None) -> bool:
    """Whether a folder, or each of its split folders, has a table of file names and labels.

    A table without labels leaves the folder to the reader of class folders, unless keys name some.

    Args:
        root: The folder.
        keys: As for `read`.

    Returns:
        True where it has.

    Raises:
        DataError: If a table is damaged, or there are two.
    """
    tables = _tables(root).values()
    if not tables or keys is not None:
        return bool(tables)
    headers = [_load(table, header_only=True)[0] for table in tables]
    return all(_PATH in columns and find(LABELS, columns) for columns in headers)


def read_metadata(root: Path, request: Request) -> RawData:
    """Read the images that `metadata.csv`, `.jsonl` or `.parquet` lists, with their labels.

    Splits are the column `split`, the folders that the tables lie in, or those that all files do.

    Args:
        root: The folder.
        request: The options of `read`.

    Returns:
        The files of the requested split, which are decoded later, with their labels.

    Raises:
        DataError: If a table is damaged, or a row has no label or leads out of the folder.
    """
    rows = [
        row for split, table in _tables(root).items() for row in _rows(table, split, request.keys)
    ]
    class_names = None if request.class_names else class_names_beside(root)
    return labelled_files(
        rows,
        str(root),
        request,
        more_notes=_note_unlisted(rows, root),
        metadata=SourceMetadata(class_names=class_names),
    )


def _note_unlisted(rows: list[Row], root: Path) -> tuple[str, ...]:
    """A note on images that no table names."""
    listed = {os.path.realpath(row.path) for row in rows}
    paths = walk(str(root), MEDIA_ENDINGS).paths
    others = [path for path in paths if os.path.realpath(path) not in listed]
    if not others:
        return ()
    first = encodable(os.path.relpath(others[0], root))
    return (f"skipped {len(others)} files that the table does not list (for example {first})",)


def _tables(root: Path) -> dict[str | None, Path]:
    """The table of the folder, under None, or those of its split folders."""
    if (table := _table(root)) is not None:
        return {None: table}
    tables: dict[str | None, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        split, table = canonical(folder.name), _table(folder)
        if split is not None and table is not None:
            if split in tables:
                raise DataError(f"{root}: expected one folder for the split {split!r}, got two")
            tables[split] = table
    return tables


def _table(folder: Path) -> Path | None:
    tables = [folder / name for name in _TABLES if (folder / name).is_file()]
    if len(tables) > 1:
        raise DataError(
            f"{folder}: expected one of {', '.join(_TABLES)}, got "
            f"{', '.join(table.name for table in tables)}"
        )
    return tables[0] if tables else None


def _rows(table: Path, split: str | None, keys: Mapping[str, str] | None) -> list[Row]:
    columns, records = _load(table)
    path_in, label_in = _PATH, find(LABELS, columns) if _PATH in columns else None
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
        path, label = _inside(table.parent, record.get(path_in), at), record.get(label_in)
        if label is None or label == "":
            raise DataError(f"{at}: expected a label, got none; -1 marks an unlabelled image")
        if isinstance(label, list | dict):
            raise DataError(
                f"{at}: expected one label, got {label!r}; multi-label and one-hot labels are not "
                f"read"
            )
        cell = record.get("split")
        row_split = split if cell is None else canonical(str(cell))
        if cell is not None and row_split is None:
            raise DataError(f"{at}: expected a split (train, val or test), got {cell!r}")
        # No text is too long or too odd for this function.
        is_file = os.path.isfile(path)  # noqa: PTH113
        problem = None if is_file else f"expected an image file, got no {path}"
        rows.append(Row(table, f"row {i + 1}", str(path), label, row_split, problem))
    return _split_by_folder(rows)


def _split_by_folder(rows: list[Row]) -> list[Row]:
    """Rows with the split that the first folder of their path names, where all are in such."""
    if any(row.split is not None for row in rows):
        return rows
    parts = [Path(row.path).relative_to(row.table.parent).parts for row in rows]
    splits = [canonical(names[0]) if len(names) > 1 else None for names in parts]
    if None in splits:
        return rows
    return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)]


def _inside(folder: Path, name: Any, at: str) -> Path:
    """The file of this name in the folder, which it may not leave."""
    pure = PurePosixPath(name.replace("\\", "/")) if isinstance(name, str) else PurePosixPath()
    is_odd = not pure.parts or pure.is_absolute() or ".." in pure.parts
    if is_odd or "://" in str(name) or "\0" in str(name):
        raise DataError(f"{at}: expected {_PATH} as a path inside {folder}, got {name!r}")
    return folder.joinpath(*pure.parts)


def _load(table: Path, *, header_only: bool = False) -> _Table:
    if table.suffix == ".parquet":
        return _load_parquet(table, header_only)
    with open_table(table, whole=not header_only) as file:
        if table.suffix == ".jsonl":
            lines = _json_lines(file, table)
            first = next(lines, None)
            if first is None or header_only:
                return list(first or ()), []
            return list(first), [first, *lines]
        reader = csv.reader(file, strict=True)
        columns = next(reader, [])
        records = []
        for row in () if header_only else filter(None, reader):
            if len(row) != len(columns):
                raise DataError(
                    f"{table}, line {reader.line_num}: expected {len(columns)} columns, got "
                    f"{len(row)}"
                )
            records.append(dict(zip(columns, row, strict=True)))
        return columns, records


def _json_lines(lines: Iterable[str], table: Path) -> Iterator[dict[str, Any]]:
    for i, line in enumerate(lines):
        if not line.strip():
            continue
        record = parse_json(line, f"{table}, line {i + 1}")
        if not isinstance(record, dict):
            raise DataError(f"{table}, line {i + 1}: expected a JSON object, got {line[:80]!r}")
        yield record


def _load_parquet(table: Path, header_only: bool) -> _Table:
    parquet = import_extra("pyarrow.parquet", "huggingface", str(table), "Parquet files")
    # The errors of Arrow and of its decompressors cannot be listed.
    with data_errors(str(table), "a Parquet file"), parquet.ParquetFile(table) as file:
        columns, n_rows = list(file.schema_arrow.names), file.metadata.num_rows
        if header_only:
            return columns, []
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        declared = sum(group.total_byte_size for group in groups)
        # A column of one repeated value takes no bytes in the file, and some in Python.
        needed = TEXT_FACTOR * max(declared, 8 * n_rows * file.metadata.num_columns)
        require_memory(needed, str(table), f"{n_rows:,} rows", DataError)
        return columns, file.read().to_pylist()
