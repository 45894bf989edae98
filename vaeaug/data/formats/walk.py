"""The image and sound files below a folder, each once, and a note on what else lies there."""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from vaeaug.data.checks import encodable

# What operating systems leave in folders of pictures.
_LITTER = frozenset({"thumbs.db", "desktop.ini"})
_LISTED = 5


@dataclass
class Walk:
    """The files below one folder.

    Attributes:
        paths: The files, in the order of their folders and then of their names, as torchvision
            lists them.
        left_out: The number of other files by their ending.
        example: The path of one of these.
        links: Folders that are links back to what is read already.
        n_repeated: The number of files that are links to others of `paths`.
    """

    paths: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    example: str = ""
    links: list[str] = field(default_factory=list)
    n_repeated: int = 0


def walk(start: str, endings: Collection[str], apart: Iterable[str] = ()) -> Walk:
    """List the files below a folder by the endings of their names, without hidden ones.

    Folders that are links are followed, but no folder is entered twice, nor one that holds `start`
    or one of those `apart`: a link may lead back.

    Args:
        start: The folder.
        endings: In lower case, with their dots.
        apart: Folders that are read by themselves, such as those of other classes.

    Returns:
        The files, and what was left out.
    """
    result = Walk()
    entered = {os.path.realpath(start)}
    closed = entered | {os.path.realpath(folder) for folder in apart}
    has_links = False
    files: list[tuple[str, str]] = []
    todo = [start]
    while todo:
        folder = todo.pop()
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
        for entry in visible:
            is_link = entry.is_symlink()
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                inside = real.rstrip(os.sep) + os.sep
                leads_back = any(path == real or path.startswith(inside) for path in closed)
                if real in entered or (is_link and leads_back):
                    result.links.append(entry.path)
                    continue
                entered.add(real)
                todo.append(entry.path)
            elif ending_of(entry.name) in endings:
                files.append((folder, entry.name))
            elif entry.name.lower() not in _LITTER:
                result.left_out[ending_of(entry.name) or "(no ending)"] += 1
                result.example = min(result.example or entry.path, entry.path)
            has_links |= is_link
    # By folder and then by name, as sorted(os.walk()) does.
    files.sort()
    paths = [os.path.join(folder, name) for folder, name in files]  # noqa: PTH118 - no Unicode
    if has_links:
        first: dict[str, str] = {}
        for path in paths:
            first.setdefault(os.path.realpath(path), path)
        result.n_repeated = len(paths) - len(first)
        paths = list(first.values())
    result.paths = paths
    result.links.sort()
    return result


def ending_of(name: str) -> str:
    """The ending of a file's name.

    Args:
        name: The name, or a path.

    Returns:
        The ending in lower case, with its dot.
    """
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name may be no valid Unicode


def walk_notes(walks: Iterable[Walk], root: str) -> tuple[str, ...]:
    """Describe what was left out.

    Args:
        walks: Several walks below one folder.
        root: That folder.

    Returns:
        Notes for the user.
    """
    left_out: Counter[str] = Counter()
    examples, links, n_repeated = [], [], 0
    for result in walks:
        left_out += result.left_out
        examples += [result.example] if result.example else []
        links += result.links
        n_repeated += result.n_repeated
    notes: tuple[str, ...] = ()
    if left_out:
        kinds = ", ".join(f"{n} {ending}" for ending, n in left_out.most_common(_LISTED))
        kinds += ", ..." if len(left_out) > _LISTED else ""
        notes += (
            f"skipped {sum(left_out.values())} files of other types: {kinds} "
            f"(for example {encodable(os.path.relpath(min(examples), root))})",
        )
    if links:
        shown = ", ".join(encodable(os.path.relpath(link, root)) for link in links[:_LISTED])
        notes += (
            f"skipped {len(links)} links to folders that are already read: {shown}"
            + (", ..." if len(links) > _LISTED else ""),
        )
    if n_repeated:
        notes += (f"skipped {n_repeated} links to files that are already read",)
    return notes
