"""The image and sound files below a folder, each once, and what else lies there."""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

# What operating systems leave in folders of pictures.
_LITTER = frozenset({"thumbs.db", "desktop.ini"})
_LISTED = 5


@dataclass
class Found:
    """What a walk has found.

    Attributes:
        paths: the files, in the order of their folders and then of their names, as torchvision
            lists them.
        left_out: how many other files there are of each ending.
        example: one of them.
        links: folders that are links back to what is read already.
        twice: files that are links to others found here.
    """

    paths: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    example: str = ""
    links: list[str] = field(default_factory=list)
    twice: int = 0


def walk(start: str, endings: Collection[str], apart: Iterable[str] = ()) -> Found:
    """Find the files below a folder whose names end so; hidden files and folders are left out.

    Folders that are links are followed, but no folder is entered twice, nor one that holds `start`
    or one of those `apart`: a link may lead back.

    Args:
        start: the folder.
        endings: in lower case, with their dots.
        apart: folders that are read by themselves, such as those of other classes.
    """
    found = Found()
    seen = {os.path.realpath(start)}
    closed = seen | {os.path.realpath(each) for each in apart}
    linked = False
    files: list[tuple[str, str]] = []
    todo = [start]
    while todo:
        folder = todo.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir():
                    linked |= entry.is_symlink()
                    _sort(entry, folder, endings, files, found)
                    continue
                real = os.path.realpath(entry.path)
                is_link = entry.is_symlink()
                leads_back = any(
                    each == real or each.startswith(real.rstrip(os.sep) + os.sep) for each in closed
                )
                if real in seen or (is_link and leads_back):
                    found.links.append(entry.path)
                    continue
                linked |= is_link
                seen.add(real)
                todo.append(entry.path)
    # By folder and then by name, as sorted(os.walk()) does.
    files.sort()
    paths = [os.path.join(folder, name) for folder, name in files]  # noqa: PTH118 - no Unicode
    if linked:
        once: dict[str, str] = {}
        for path in paths:
            once.setdefault(os.path.realpath(path), path)
        found.twice = len(paths) - len(once)
        paths = list(once.values())
    found.paths = paths
    found.links.sort()
    return found


def _sort(
    entry: "os.DirEntry[str]",
    folder: str,
    endings: Collection[str],
    files: list[tuple[str, str]],
    found: Found,
) -> None:
    ending = ending_of(entry.name)
    if ending in endings:
        files.append((folder, entry.name))
    elif entry.name.lower() not in _LITTER:
        found.left_out[ending or "(no ending)"] += 1
        found.example = min(found.example or entry.path, entry.path)


def ending_of(name: str) -> str:
    """The ending of a file's name, in lower case, with its dot."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a name may be no valid Unicode


def notes_on(found: Iterable[Found], root: str) -> tuple[str, ...]:
    """What the user should know of several walks below a folder."""
    left_out: Counter[str] = Counter()
    examples, links, twice = [], [], 0
    for each in found:
        left_out += each.left_out
        examples += [each.example] if each.example else []
        links += each.links
        twice += each.twice
    notes: tuple[str, ...] = ()
    if left_out:
        kinds = ", ".join(f"{n} {ending}" for ending, n in left_out.most_common(_LISTED))
        kinds += ", ..." if len(left_out) > _LISTED else ""
        notes += (
            f"{sum(left_out.values())} files left out, which are none that is read here: {kinds} "
            f"(one is {safe(os.path.relpath(min(examples), root))})",
        )
    if links:
        shown = ", ".join(safe(os.path.relpath(link, root)) for link in links[:_LISTED])
        notes += (
            f"{len(links)} links to folders that are read already left out: {shown}"
            + (", ..." if len(links) > _LISTED else ""),
        )
    if twice:
        notes += (f"{twice} links to files that are there already left out",)
    return notes


def safe(name: str) -> str:
    """A name as UTF-8 holds it; a file's may be any bytes."""
    return name.encode(errors="backslashreplace").decode()
