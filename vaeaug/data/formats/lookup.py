"""Where the images are that a table names: beside it or in a folder beside it."""

import os
from pathlib import Path

from vaeaug.data.checks import encodable
from vaeaug.data.formats.media import MEDIA_ENDINGS
from vaeaug.data.formats.walk import ending_of
from vaeaug.data.split_names import canonical


class Lookup:
    """Finds files by the cells of a table.

    A cell is a path relative to the table; else the name of a file in a folder that lies beside it,
    such as `images` or `train`; the ending may be missing in both.

    Args:
        table: The table's path.
    """

    def __init__(self, table: Path) -> None:
        self._folder = table.parent
        self._split = canonical(table.stem)
        # For each folder that was looked into: the files, and those by their names without ending.
        self._listed: dict[str, tuple[set[str], dict[str, list[str]]]] = {}
        self._beside: list[str] | None = None
        self._used: set[str] = set()

    def find(self, cell: str, split: str | None) -> tuple[str, str | None]:
        """Find the file that a cell names.

        Args:
            cell: A path, a name or an id.
            split: The split of the row, where there is one.

        Returns:
            The path of the file, or of where it was expected; and what is wrong with it, or None.
        """
        # Relative to the table, so that a folder with its table can be moved.
        path = os.path.normpath(self._folder / cell)
        files = self._files(path)
        if not files and "\\" in cell:
            # Written on Windows.
            return self.find(cell.replace("\\", "/"), split)
        if not files:
            files = self._files_in_folders_beside(cell, split)
            self._used |= {os.path.dirname(file) for file in files}  # noqa: PTH120
        if len(files) == 1:
            return files[0], None
        if files:
            candidates = " and ".join(map(encodable, files[:3]))
            return path, f"expected one image file, got {candidates}"
        return path, f"expected an image file, got no {encodable(path)}"

    def notes(self) -> tuple[str, ...]:
        """Describe what was looked up.

        Returns:
            A note on the folders beside the table that held files, if there are any.
        """
        names = {os.path.relpath(folder, self._folder) for folder in self._used}
        return (f"images found in {', '.join(map(encodable, sorted(names)))}",) if names else ()

    def _files_in_folders_beside(self, cell: str, split: str | None) -> list[str]:
        if self._beside is None:
            self._beside = sorted(
                entry.name
                for entry in os.scandir(self._folder)
                if entry.is_dir() and not entry.name.startswith(".")
            )
        by_folder = {
            folder: self._files(os.path.normpath(self._folder / folder / cell))
            for folder in self._beside
        }
        matches = {folder: files for folder, files in by_folder.items() if files}
        row_split = split or self._split
        if len(matches) > 1 and row_split is not None:
            of_split = {f: files for f, files in matches.items() if canonical(f) == row_split}
            matches = of_split or matches
        return [path for files in matches.values() for path in files]

    def _files(self, path: str) -> list[str]:
        """The file of this path, or those that have it before their ending."""
        folder, name = os.path.split(path)
        names, by_stem = self._list(folder)
        if name in names:
            return [path]
        return [os.path.join(folder, file) for file in by_stem.get(name, ())]  # noqa: PTH118

    def _list(self, folder: str) -> tuple[set[str], dict[str, list[str]]]:
        if folder not in self._listed:
            names: set[str] = set()
            by_stem: dict[str, list[str]] = {}
            try:
                with os.scandir(folder or ".") as entries:
                    names = {entry.name for entry in entries if entry.is_file()}
            except (OSError, ValueError):
                # A folder that is not there, may not be read or cannot be named has no files.
                names = set()
            for name in sorted(names):
                ending = ending_of(name)
                if ending in MEDIA_ENDINGS:
                    by_stem.setdefault(name[: -len(ending)], []).append(name)
            self._listed[folder] = names, by_stem
        return self._listed[folder]
