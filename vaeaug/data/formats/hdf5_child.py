"""Answer questions about one HDF5 file, in a separate process.

A damaged file can keep the HDF5 library busy for ever (a zeroed byte in the heap of texts does) or
crash its process; `hdf5_process` therefore never opens a foreign one. It runs this file as a script
(`python -P hdf5_child.py`), which imports nothing from the package, and limits the time of each
answer.

A question is a line of JSON with its seconds, name and arguments. So is an answer:
`{"value": ...}`, `{"refused": complete message}` or `{"damaged": message of HDF5}`. The answer to
`load` comes after the parts: `{"bytes": n}` and n bytes, or `{"texts": [...]}`.
"""

import importlib
import json
import math
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import h5py

# Soft links and virtual datasets may form a ring.
_MOST_HOPS = 16
# Size of a part, which is read and sent within its time limit.
_BLOCK_BYTES = 8 * 2**20
_BLOCK_TEXTS = 2**15
# A file with more names has an array for each image, which is not read.
_MOST_NAMES = 20_000


class _RefusedError(ValueError):
    """The file holds something that is not read; the message is complete and names the file."""


class _Answers:
    """The answers to all questions about one file; each public method is a question."""

    def __init__(self, file: "h5py.File", where: str) -> None:
        self._file = file
        self._where = where

    def names(self) -> dict[str, str]:
        """Every link's name, and "group", "dataset" or "other"; only hard links are followed."""
        import h5py

        kinds: dict[str, str] = {}
        seen: set[Any] = {self._file["/"].id}
        todo = [("", self._file["/"])]
        while todo:
            prefix, group = todo.pop()
            for name in group:
                path, kind = prefix + name, "other"
                if isinstance(group.get(name, getlink=True), h5py.HardLink):
                    what = group.get(name, getclass=True)
                    kind = {h5py.Group: "group", h5py.Dataset: "dataset"}.get(what, "other")
                kinds[path] = kind
                if len(kinds) > _MOST_NAMES:
                    raise _RefusedError(
                        f"{self._where}: expected images in one array, got more than "
                        f"{_MOST_NAMES:,} names of arrays and groups; name those to read by "
                        f"keys={{'images': ..., 'labels': ...}}"
                    )
                # Hard links may form a ring too; an object is walked once.
                if kind == "group" and group[name].id not in seen:
                    seen.add(group[name].id)
                    todo.append((f"{path}/", group[name]))
        return kinds

    def describe(self, name: str) -> dict[str, Any]:
        """Shape, type (None for text), bytes of a value and of a part, and place of a dataset."""
        dataset = self._dataset(name)
        return {
            "shape": [int(n) for n in dataset.shape],
            "dtype": None if self._is_text(dataset) else dataset.dtype.str,
            "itemsize": int(dataset.dtype.itemsize),
            "part": _step(dataset) * _row_bytes(dataset),
            "offset": _offset(dataset),
        }

    def attribute(self, name: str | None, attribute: str) -> list[Any] | None:
        """The values of an attribute of a dataset, or of the file; None where it has none.

        What is neither text nor a plain number comes as its description.
        """
        holder = self._file if name is None else self._dataset(name)
        if attribute not in holder.attrs:
            return None
        values = np.ravel(np.asarray(holder.attrs[attribute])).tolist()
        values = [v.decode() if isinstance(v, bytes) else v for v in values]
        plain = (str, bool, int, float)
        return [v if isinstance(v, plain) else f"<{type(v).__name__}>" for v in values]

    def load(self, name: str) -> Iterator[bytes | list[str]]:
        """A dataset in parts: the bytes of its values in C order, or its texts."""
        dataset = self._dataset(name)
        if self._is_text(dataset):
            texts = dataset.asstr()
            for rows in _rows(dataset, _BLOCK_TEXTS):
                yield np.ravel(np.asarray(texts[rows], dtype=object)).tolist()
            return
        for rows in _rows(dataset, _step(dataset)):
            yield np.ascontiguousarray(dataset[rows]).tobytes()

    def _is_text(self, dataset: "h5py.Dataset") -> bool:
        import h5py

        return h5py.check_string_dtype(dataset.dtype) is not None

    def _check_type(self, dataset: "h5py.Dataset", name: str) -> None:
        is_plain = dataset.dtype.kind in "biufc" and not dataset.dtype.hasobject
        if not is_plain and not self._is_text(dataset):
            raise _RefusedError(
                f"{self._where}[{name}]: expected numbers or text, got {dataset.dtype} "
                f"(references, ragged or structured arrays)"
            )

    def _dataset(self, name: str, hops: int = 0) -> "h5py.Dataset":
        """The dataset of this name, all of which lies in this file."""
        import h5py

        if hops > _MOST_HOPS:
            raise _RefusedError(
                f"{self._where}: expected a dataset at {name!r}, got a ring of links"
            )
        node: Any = self._file["/"]
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for i, part in enumerate(parts):
            at = "/".join(parts[: i + 1])
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if link is None:
                is_group = isinstance(node, h5py.Group)
                present = ", ".join(sorted(node)[:20]) if is_group else "a dataset"
                raise _RefusedError(
                    f"{self._where}: expected a dataset {name!r}, got nothing at {at!r} (there is: "
                    f"{present})"
                )
            if isinstance(link, h5py.ExternalLink):
                raise _RefusedError(
                    f"{self._where}: expected data inside the file, but {at!r} is an external link "
                    f"to {link.path!r} in the file {link.filename!r}; external links are never "
                    f"followed"
                )
            if isinstance(link, h5py.SoftLink):
                base = [] if link.path.startswith("/") else parts[:i]
                target = "/".join([*base, link.path.lstrip("/"), *parts[i + 1 :]])
                return self._dataset(target, hops + 1)
            node = node[part]
        if not isinstance(node, h5py.Dataset):
            raise _RefusedError(
                f"{self._where}: expected a dataset at {name!r}, got a {type(node).__name__}"
            )
        if node.shape is None:
            raise _RefusedError(
                f"{self._where}: expected an array at {name!r}, got an empty dataset"
            )
        self._check_type(node, name)
        self._check_storage(node, name, hops)
        return node

    def _check_storage(self, dataset: "h5py.Dataset", name: str, hops: int) -> None:
        """Refuse values that are elsewhere, or were never written: HDF5 gives zeros for these."""
        from h5py import h5d

        if dataset.is_virtual:
            for source in dataset.virtual_sources():
                if source.file_name != ".":
                    raise _RefusedError(
                        f"{self._where}: expected data inside the file, but {name!r} is a virtual "
                        f"dataset of {source.dset_name!r} in the file {source.file_name!r}; other "
                        f"files are never followed; read them one by one or copy them into one file"
                    )
                self._dataset(source.dset_name, hops + 1)
            return
        if dataset.external:
            raise _RefusedError(
                f"{self._where}: expected data inside the file, but {name!r} keeps its data in the "
                f"external file {dataset.external[0][0]!r}; external storage is never read"
            )
        layout = dataset.id.get_create_plist().get_layout()
        if dataset.size == 0 or layout == h5d.COMPACT:
            return
        shape = tuple(int(n) for n in dataset.shape)
        if layout == h5d.CHUNKED:
            pairs = zip(shape, dataset.chunks, strict=True)
            expected = math.prod(-(-n // int(c)) for n, c in pairs)
            n_chunks = int(dataset.id.get_num_chunks())
            if n_chunks != expected:
                raise _RefusedError(
                    f"{self._where}: expected all of {name!r} in the file, got {n_chunks:,} of "
                    f"{expected:,} chunks; the others were never written, and HDF5 would give "
                    f"zeros for them"
                )
            return
        n_bytes = math.prod(shape) * dataset.dtype.itemsize
        offset = dataset.id.get_offset()
        if offset is None:
            raise _RefusedError(
                f"{self._where}: expected the values of {name!r} in the file, got {n_bytes:,} "
                f"bytes that are declared and were never written; HDF5 would give zeros for them"
            )
        size = Path(self._file.filename).stat().st_size
        if int(offset) + n_bytes > size:
            raise _RefusedError(
                f"{self._where}: expected at least {int(offset) + n_bytes:,} bytes, which hold "
                f"{name!r}, got a file of {size:,}: it is cut short or damaged"
            )


def _row_bytes(dataset: "h5py.Dataset") -> int:
    return max(1, math.prod(int(n) for n in dataset.shape[1:]) * dataset.dtype.itemsize)


def _offset(dataset: "h5py.Dataset") -> int | None:
    """Where the values lie in the file one after the other, bytes; None where they do not."""
    import h5py

    layout = dataset.id.get_create_plist().get_layout()
    if layout != h5py.h5d.CONTIGUOUS or dataset.external or dataset.file.userblock_size:
        return None
    offset: int | None = dataset.id.get_offset()
    return offset


def _step(dataset: "h5py.Dataset") -> int:
    """The number of rows in a part."""
    step = max(1, _BLOCK_BYTES // _row_bytes(dataset))
    if dataset.chunks:
        # A chunk is decompressed whole, and should be only once.
        step = max(int(dataset.chunks[0]), step // dataset.chunks[0] * dataset.chunks[0])
    return int(step)


def _rows(dataset: "h5py.Dataset", step: int) -> Iterator[Any]:
    """Selections that together cover the dataset."""
    if dataset.shape == ():
        yield ()
    elif dataset.size:
        for start in range(0, int(dataset.shape[0]), step):
            yield slice(start, start + step)


def _send(answer: dict[str, Any]) -> None:
    # A text that is no UTF-8 comes as lone surrogates, which ASCII JSON can hold.
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def _limit_time(seconds: float, in_all: int) -> None:
    """End this process after so much processor time, or so many seconds in all; 0 for never.

    The second is for a parent that is gone, and would end it otherwise.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(in_all)


def _answer(ask: Any, arguments: list[Any], seconds: float, in_all: int) -> None:
    """Send the answer to a question; whatever HDF5 raises for damage is sent as such."""
    try:
        _limit_time(seconds, in_all)
        value = ask(*arguments)
        if ask.__name__ == "load":
            while (part := next(value, None)) is not None:
                # The parent may take its time.
                _limit_time(0, 0)
                if isinstance(part, bytes):
                    _send({"bytes": len(part)})
                    sys.stdout.buffer.write(part)
                else:
                    _send({"texts": part})
                _limit_time(seconds, in_all)
            value = None
        _send({"value": value})
    except _RefusedError as error:
        _send({"refused": str(error)})
    except Exception as error:  # HDF5 raises many things for damage
        _send({"damaged": f"{type(error).__name__}: {error}"})
    finally:
        _limit_time(0, 0)


def _limit_memory(n_bytes: int | None) -> None:
    """Limit the memory of this process: nothing declares that one text stands in many places."""
    if n_bytes is None or not Path("/proc/self/statm").exists():
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = pages * resource.getpagesize() + n_bytes
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _serve() -> None:
    # Ctrl-C reaches the whole process group; the parent alone reports it and ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    sys.path[:] = job["sys_path"]
    import h5py

    for module in job["plugins"]:
        importlib.import_module(module)
    _limit_memory(job["memory"])
    _send({"value": None})
    answers: _Answers | None = None
    for line in sys.stdin:
        seconds, in_all, question, *arguments = json.loads(line)
        if answers is None:
            try:
                _limit_time(seconds, in_all)
                answers = _Answers(h5py.File(job["path"], "r"), job["path"])
                _limit_time(0, 0)
            except Exception as error:  # OSError, and others of a damaged file
                _send({"damaged": f"{type(error).__name__}: {error}"})
                return
        _answer(getattr(answers, question), arguments, seconds, in_all)


if __name__ == "__main__":
    _serve()
