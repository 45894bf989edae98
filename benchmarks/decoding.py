"""Reading image files in one thread, by threads and by processes.

python -m benchmarks.decoding --n 2000 --out decoding.jsonl   # nothing else may be running
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from vaeaug.data import decode
from vaeaug.data.formats import image_files

# (side of the files, side they are resized to, format)
KINDS = ((32, None, "png"), (64, None, "jpeg"), (256, 64, "jpeg"), (640, 64, "jpeg"))


def written(folder: Path, n: int, side: int, kind: str) -> list[str]:
    """Files of smooth colours with some noise, as photographs have."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (pixels + rng.integers(-6, 7, pixels.shape)).clip(0, 255).astype(np.uint8)
        path = folder / f"{number}.{kind}"
        Image.fromarray(noisy).save(path)
        paths.append(str(path))
    return paths


def ways_of(
    paths: list[str], options: decode.DecodeOptions, workers: int
) -> dict[str, Callable[[], object]]:
    """Decode all files, by name of the way."""
    return {
        "one": lambda: [image_files._decode_one(path, options) for path in paths],
        "threads": lambda: list(image_files._in_threads(paths, workers, options)),
        "processes": lambda: list(image_files._in_workers(paths, workers, options)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, help="JSON lines are appended here")
    arguments = parser.parse_args()
    for side, size, kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            paths = written(Path(folder), arguments.n, side, kind)
            options = decode.DecodeOptions(size=None if size is None else (size, size))
            ways = ways_of(paths, options, arguments.workers)
            seconds = dict.fromkeys(ways, float("inf"))
            for _ in range(arguments.repeats):
                for name, work in ways.items():
                    begin = time.perf_counter()
                    work()
                    seconds[name] = min(seconds[name], time.perf_counter() - begin)
        entry = {
            "kind": f"{side}x{side} {kind}" + ("" if size is None else f" to {size}x{size}"),
            "n": arguments.n,
            "workers": arguments.workers,
            **{name: round(least, 3) for name, least in seconds.items()},
        }
        print(json.dumps(entry), flush=True)
        if arguments.out is not None:
            with open(arguments.out, "a") as file:
                file.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main()
