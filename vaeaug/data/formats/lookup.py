"""Where the images are that a table names: beside it or in a folder beside it, by ending or not."""

import os
from pathlib import Path

from vaeaug.data.decode import ENDINGS as PICTURES
from vaeaug.data.formats.audio import ENDINGS as SOUNDS
from vaeaug.data.formats.walk import ending_of, safe
from vaeaug.data.splits import canonical

_ENDINGS = (*PICTURES, *SOUNDS)


class Lookup:
    """Finds files by what a cell of a table says of them.

    A cell is a path relative to the table; else the name of a file in a folder that lies beside it,
    such as `images` or `train`; the ending may be missing in both.

    Args:
        table: the table's path.
    """

    def __init__(self, table: Path) -> None:
        self._folder = table.parent
        self._split = canonical(table.stem)
        # For each folder that was looked into: the files, and those by their names without ending.
        self._listed: dict[str, tuple[set[str], dict[str, list[str]]]] = {}
        self._beside: list[str] | None = None
        self._used: set[str] = set()

    def find(self, cell: str, split: str | None) -> tuple[str, str | None]:
        """The file that a cell names.

        Args:
            cell: a path, a name or an id.
            split: of the row, where there is one.

        Returns:
            The path of the file, or of where it was expected; and what is wrong with it, or None.
        """
        # Relative to the table, so that a folder with its table can be moved.
        path = os.path.normpath(self._folder / cell)
        folder, name = os.path.split(path)
        found = self._in(folder, name)
        if not found and "\\" in cell:
            # Written on Windows.
            return self.find(cell.replace("\\", "/"), split)
        if not found:
            found = self._in_folders_beside(cell, split)
            self._used |= {os.path.dirname(each) for each in found}  # noqa: PTH120
        if len(found) == 1:
            return found[0], None
        if found:
            return path, f"expected one image file, got {' and '.join(map(safe, found[:3]))}"
        return path, f"expected an image file, got no {safe(path)}"

    def notes(self) -> tuple[str, ...]:
        """A note on the folders beside the table in which files lie that were named without."""
        names = {os.path.relpath(folder, self._folder) for folder in self._used}
        return (f"images found in {', '.join(map(safe, sorted(names)))}",) if names else ()

    def _in_folders_beside(self, cell: str, split: str | None) -> list[str]:
        if self._beside is None:
            self._beside = sorted(
                entry.name
                for entry in os.scandir(self._folder)
                if entry.is_dir() and not entry.name.startswith(".")
            )
        found: dict[str, list[str]] = {}
        for beside in self._beside:
            folder, name = os.path.split(os.path.normpath(self._folder / beside / cell))
            if there := self._in(folder, name):
                found[beside] = there
        wanted = split or self._split
        if len(found) > 1 and wanted is not None:
            found = {b: there for b, there in found.items() if canonical(b) == wanted} or found
        return [path for there in found.values() for path in there]

    def _in(self, folder: str, name: str) -> list[str]:
        files, by_stem = self._list(folder)
        if name in files:
            return [os.path.join(folder, name)]  # noqa: PTH118 - may be no valid Unicode
        return [os.path.join(folder, each) for each in by_stem.get(name, ())]  # noqa: PTH118

    def _list(self, folder: str) -> tuple[set[str], dict[str, list[str]]]:
        if folder not in self._listed:
            files: set[str] = set()
            by_stem: dict[str, list[str]] = {}
            try:
                with os.scandir(folder or ".") as entries:
                    files = {entry.name for entry in entries if entry.is_file()}
            except (OSError, ValueError):
                # No such folder, none that may be read, or no name of one: it has no files for us.
                files = set()
            for name in sorted(files):
                ending = ending_of(name)
                if ending in _ENDINGS:
                    by_stem.setdefault(name[: -len(ending)], []).append(name)
            self._listed[folder] = files, by_stem
        return self._listed[folder]
