"""Damaged input of every kind that is read: what comes of it, counted.

    python -m benchmarks.inputs --n 2000 --seed 0

A valid input is damaged in one of its files and read in a process of its own. It may be read (as
what it is now: a changed pixel cannot be told) or refused by an error of ours. It must never end in
an error of another library, run for more than ten seconds, or ask for more than 2 GiB.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks._sources import SOURCES, Source
from vaeaug.files.json_text import seal_of

SECONDS = 10.0
MEMORY = 2 * 2**30
# What must not happen is to the right of these.
GOOD = ("same", "other", "refused")
BAD = ("missed", "foreign", "hang", "memory")
COLUMNS = {
    "same": "as before",
    "other": "as changed",
    "refused": "clear error",
    "missed": "not noticed",
    "foreign": "foreign error",
    "hang": f"over {SECONDS:.0f} s",
    "memory": "over 2 GiB",
}
_ODD_TEXTS = (
    *("1e999", "-1", "0", "9" * 5000, "1.5", "true", "null", '""', "[" * 900, "{" * 900, "\ud800"),
    *("2024-99-99", "&a [*a, *a]", "!!python/object:os.system", "\0", "..", "/etc/passwd", "=1+1"),
    *("\x1b[31m", "\n\n", "NaN", "Infinity", "9" * 19, "18446744073709551616", "'", '"', "\\"),
)
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1.5, -1e300, "", "x", "\n[/b]", "../../etc", [], [[]], {}),
    *([1, 2], {"a": 1}, "9" * 400, [None], "<b>", 2**63),
)
_WIDE = (0, 1, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


@dataclass(frozen=True)
class Outcome:
    """What came of one damaged input."""

    reader: str
    number: int
    damage: str
    kind: str
    detail: str = ""


def damaged(data: bytes, name: str, rng: np.random.Generator) -> tuple[bytes, str]:
    """The bytes of a file with something wrong, and what was done to them."""
    text = name.endswith((".json", ".jsonl", ".csv", ".yaml"))
    ways = ["flip", "flip", "zero", "fill", "cut", "insert", "delete", "head", "head", "number"]
    ways += ["text"] * 6 if text else []
    ways += ["value"] * 6 if name.endswith(".json") else []
    while True:
        way = str(rng.choice(ways))
        changed = _damage(bytearray(data), name, way, rng)
        if changed != data:
            return changed, f"{name}: {way}"


def _damage(data: bytearray, name: str, way: str, rng: np.random.Generator) -> bytes:
    if way == "value":
        return _other_value(bytes(data), name, rng)
    size = max(1, len(data))
    at = int(rng.integers(min(size, 512) if way == "head" else size))
    length = int(2 ** rng.uniform(0, 7))
    if way == "flip":
        for place in rng.integers(size, size=int(rng.integers(1, 9))).tolist():
            data[place : place + 1] = bytes([data[place] ^ (1 << int(rng.integers(8)))])
    elif way in ("zero", "fill"):
        data[at : at + length] = (b"\0" if way == "zero" else b"\xff") * len(data[at : at + length])
    elif way == "cut":
        del data[at:]
    elif way == "insert":
        data[at:at] = rng.bytes(length)
    elif way == "delete":
        del data[at : at + length]
    elif way == "head":
        data[at : at + 1] = rng.bytes(1)
    elif way == "number":
        width = int(rng.choice([2, 4, 8]))
        value = int(_WIDE[rng.integers(len(_WIDE))]) % 2 ** (8 * width)
        order = "little" if rng.integers(2) else "big"
        data[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
    elif way == "text":
        odd = _ODD_TEXTS[rng.integers(len(_ODD_TEXTS))].encode(errors="surrogatepass")
        data[at : at + int(rng.integers(4))] = odd
    return bytes(data)


def _other_value(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    """JSON with one value replaced or left out; a manifest is sealed again."""
    document = json.loads(data)
    places = list(_places(document))
    if not places:
        return data
    holder, key = places[rng.integers(len(places))]
    if rng.integers(4):
        holder[key] = _ODD_VALUES[rng.integers(len(_ODD_VALUES))]
    else:
        del holder[key]
    if name == "manifest.json":
        document["manifest_sha256"] = seal_of(document, "manifest_sha256")
    return json.dumps(document, indent=2, sort_keys=True).encode()


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)


class Worker:
    """A process that reads, is given ten seconds for each input, and is replaced when it ends."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def read(self, reader: str, path: Path) -> tuple[str, str]:
        """The kind of outcome, and its detail."""
        self._pipe.send((reader, str(path)))
        if not self._pipe.poll(SECONDS):
            self._end()
            self._start()
            return "hang", "no answer"
        try:
            answer: tuple[str, str] = self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self._end()
            self._start()
            return "foreign", f"the process ended with exit code {code}"
        return answer

    def _end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()


def _serve(pipe: Connection) -> None:
    """Answer until the pipe is closed. More than 2 GiB beyond what it has now fail."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        try:
            reader, path = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(SOURCES[reader], Path(path)))


def _outcome(source: Source, path: Path) -> tuple[str, str]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        outcome = "read", source.read(path)
    except BaseException as error:  # whatever it is, it is counted
        message = f"{type(error).__module__}.{type(error).__name__}: {error}"
        outcome = ("refused" if _is_ours(error) else "foreign"), message
        if any(isinstance(cause, MemoryError) for cause in _chain(error)):
            outcome = "memory", message
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return ("memory", outcome[1]) if (after - before) * 1024 > MEMORY else outcome


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.startswith("vaeaug.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class Inputs:
    """Valid inputs, written once below a folder; damaged copies of them are read.

    Args:
        folder: An empty folder.
        readers: Keys of `SOURCES`.
    """

    def __init__(self, folder: Path, readers: list[str]) -> None:
        self._folder = folder
        self._valid: dict[str, tuple[Path, str]] = {}
        written: dict[Any, tuple[Path, Path]] = {}
        for reader in readers:
            source = SOURCES[reader]
            if source.make not in written:
                place = folder / f"valid-{len(written)}"
                place.mkdir()
                written[source.make] = place, source.make(place)
            place, path = written[source.make]
            self._valid[reader] = place, path.relative_to(place).as_posix()

    def outcome(self, worker: Worker, reader: str, number: int, seed: int, keep: bool) -> Outcome:
        """Damage the reader's input once and read it."""
        source = SOURCES[reader]
        place, entry = self._valid[reader]
        copy = self._folder / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(place, copy)
        if number < 0:
            kind, detail = worker.read(reader, copy / entry)
            return Outcome(reader, number, "none", kind, detail)
        rng = np.random.default_rng([seed, number, *reader.encode()])
        victims = sorted(
            {p for pattern in source.victims for p in copy.glob(pattern) if p.is_file()}
        )
        victim = victims[rng.integers(len(victims))]
        changed, damage = damaged(victim.read_bytes(), victim.name, rng)
        victim.write_bytes(changed)
        if keep:
            shutil.copytree(copy, self._folder / f"{reader}-{number}".replace(" ", "-"))
        kind, detail = worker.read(reader, copy / entry)
        return Outcome(reader, number, damage, kind, detail)


def run(n: int, seed: int, readers: list[str], keep: Path | None = None) -> list[Outcome]:
    """Read `n` damaged inputs, as many of each reader.

    Raises:
        RuntimeError: If an input that is not damaged is not read.
    """
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as temporary:
        inputs = Inputs(Path(temporary) if keep is None else keep, readers)
        with Worker() as worker:
            expected = {}
            for reader in readers:
                first = inputs.outcome(worker, reader, -1, seed, keep=False)
                if first.kind != "read":
                    raise RuntimeError(f"{reader}: a valid input is not read: {first.detail}")
                expected[reader] = first.detail
            for i in range(n):
                reader = readers[i % len(readers)]
                outcome = inputs.outcome(worker, reader, i // len(readers), seed, keep is not None)
                kind = outcome.kind
                if kind == "read":
                    kind = "same" if outcome.detail == expected[reader] else "other"
                    # A manifest sealed again cannot be told from a valid one.
                    if SOURCES[reader].judges:
                        resealed = outcome.damage == "manifest.json: value"
                        kind = "refused" if kind == "other" else "other" if resealed else "missed"
                outcomes.append(replace(outcome, kind=kind))
    return outcomes


def table(outcomes: list[Outcome]) -> str:
    """Counts by reader, in Markdown."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.reader, Counter())[outcome.kind] += 1
        counts.setdefault("together", Counter())
    counts["together"] = Counter(outcome.kind for outcome in outcomes)
    rows = [f"| input | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    order = [*(reader for reader in counts if reader != "together"), "together"]
    rows += [
        f"| {reader} | {' | '.join(str(counts[reader][kind]) for kind in COLUMNS)} |"
        for reader in order
    ]
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=list(SOURCES), help="Of these alone.")
    parser.add_argument("--keep", type=Path, help="An empty folder that keeps the damaged inputs.")
    arguments = parser.parse_args()
    begun = time.monotonic()
    outcomes = run(arguments.n, arguments.seed, arguments.only or list(SOURCES), arguments.keep)
    print(table(outcomes))
    bad = [outcome for outcome in outcomes if outcome.kind in BAD]
    for outcome in bad:
        where = f"{outcome.reader} {outcome.number} ({outcome.damage})"
        print(f"{where}: {outcome.kind}: {outcome.detail[:300]!r}")
    seconds = time.monotonic() - begun
    n = len(outcomes)
    print(f"\n{n} damaged inputs, {len(bad)} bad, seed {arguments.seed}, {seconds:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
