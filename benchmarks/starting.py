"""Seconds until a program has started: an empty one, `import vaeaug`, `vaeaug --help`; best of 5.

python -m benchmarks.starting --out starting.jsonl   # nothing else may be running
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = {
    "nothing": ("-c", "pass"),
    "import vaeaug": ("-c", "import vaeaug"),
    "vaeaug --help": ("-m", "vaeaug", "--help"),
    "vaeaug augment --help": ("-m", "vaeaug", "augment", "--help"),
    "import torch": ("-c", "import torch"),
}


def seconds(words: tuple[str, ...]) -> float:
    """How long a program takes."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON lines are appended here")
    arguments = parser.parse_args()
    for name, words in PROGRAMS.items():
        best = min(seconds(words) for _ in range(5))
        print(f"{name:24}{best:.3f} s", flush=True)
        if arguments.out is not None:
            with open(arguments.out, "a") as file:
                file.write(json.dumps({"program": name, "seconds": round(best, 4)}) + "\n")


if __name__ == "__main__":
    main()
