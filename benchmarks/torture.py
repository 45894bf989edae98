"""Commands killed at random points of their lives: is anything lost, and do they end the same?

Each trial starts a command of the command line on real digits, sends it SIGKILL, SIGTERM, Ctrl-C or
Ctrl-C twice at a random moment, and looks at what lies there: what is published has to pass
`verify`, what is not has to say so, and no target file may be half written. The same command then
has to end with the bytes of a run that nobody touched; a third of the commands are killed once more
before that.

Processes are forked from one that has imported everything, so that a moment falls into the work and
not into imports. Seeded: the same seed sends the same signals at the same fractions of a command's
time. Every trial is a line of JSON; the exit code is 1 where any failed.

With `--full-disks` further commands write to a disk (a tmpfs, which root alone may mount) that
others fill at a random moment. They have to say so, and to end with the same bytes once there is
room.

    python -m benchmarks.torture --trials 200 --full-disks 40 --out runs/torture
"""

import argparse
import collections
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SETTINGS = {
    "data.class_counts": [24, 16, 10, 0, 0, 0, 0, 0, 0, 0],
    "model.width": 8,
    "model.latent_dim": 4,
    "training.steps": 24,
    "training.adapt_steps": 12,
    "training.batch_size": 8,
    "training.checkpoint_every": 5,
    "restoration.steps": 12,
    "screening.classifier_steps": 12,
    "screening.near_copy_factor": 0.0,
    "recipe.min_label_probability": 0.0,
    "plan.sampling_strategy": {"0": 90, "1": 90, "2": 90},
}
MORE = SETTINGS | {"plan.sampling_strategy": {"0": 110, "1": 90, "2": 130}}
JOB, LARGER = (
    [word for key, value in each.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    for each in (SETTINGS, MORE)
)
MEASURED = ["--splits", "2", "--steps", "2", "--workers", "1"]
SIGNALS = {
    "SIGKILL": (signal.SIGKILL,),
    "SIGTERM": (signal.SIGTERM,),
    "Ctrl-C": (signal.SIGINT,),
    "Ctrl-C twice": (signal.SIGINT, signal.SIGINT),
}
# Of a run: what marks that a phase has begun, the last first.
PHASES = (
    ("publishing", "report.html"),
    ("evaluation", "evaluation/results.jsonl"),
    ("drawing", "shards"),
    ("diagnosis", "checkpoints/restorer.pt"),
    ("restorer", "checkpoints/adapt.pt"),
    ("adapt", "checkpoints/trunk.pt"),
    ("trunk", "checkpoints/classifier.pt"),
    ("classifier", "run.json"),
)
# What a command says whose target is whole already.
DONE = "expected no such file"
# A disk that is filled, and what a command says of it.
DISK = 2**27
FULL = re.compile("No space left on device|no space: expected")
# Seconds after which a forked process has reached its command.
STARTED = 0.1
# The exit code of each way to end; a command that was done before the signal ends with its own.
CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
TWO_WORKERS = ("--engine", "process", "--workers", "2")


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        name: In the table.
        words: Its command line; "OUT" stands for the target, "RUN" for a finished run.
        begins_with: The target is a copy of the finished run, which the command changes.
        is_file: The target is one file or folder that appears whole or not at all.
        weight: How often it is drawn.
    """

    name: str
    words: tuple[str, ...]
    begins_with: bool = False
    is_file: bool = False
    weight: float = 1.0


COMMANDS = (
    Command("augment", ("augment", "digits", *JOB, "--out", "OUT"), weight=4),
    Command(
        "augment --search --evaluate",
        ("augment", "digits", *JOB, "--search", "--evaluate", *MEASURED[:4], "--out", "OUT"),
        weight=2,
    ),
    Command(
        "augment --add",
        ("augment", "digits", *LARGER, "--add", "--out", "OUT"),
        begins_with=True,
        weight=2,
    ),
    Command("generate", ("generate", "RUN", "digits", *JOB, "--seed", "1", "--out", "OUT")),
    Command(
        "generate --engine process",
        (*("generate", "RUN", "digits", *JOB, "--seed", "1"), *TWO_WORKERS, "--out", "OUT"),
    ),
    Command("evaluate", ("evaluate", "digits", "OUT", *MEASURED), begins_with=True),
    Command("merge", ("merge", "digits", "RUN", "--to", "OUT"), is_file=True),
    Command("export", ("export", "RUN", "--to", "OUT", "--format", "imagefolder"), is_file=True),
    Command("report", ("report", "digits", "OUT"), begins_with=True),
)


def start(command: Command, out: Path, run: Path, log: Path) -> int:
    """Fork a process that runs a command; its output goes to a file."""
    words = [{"OUT": str(out), "RUN": str(run)}.get(word, word) for word in command.words]
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        sys.argv = ["vaeaug", *words]
        from vaeaug.cli import main

        main(words, prog_name="vaeaug")
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else 1
    except BaseException:  # what a terminal would show
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(process: int) -> int:
    """Wait for a process; its exit code, or minus the signal that ended it."""
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def contents(target: Path) -> dict[str, bytes]:
    """All that is published, byte for byte."""
    if not target.is_dir():
        return {"": target.read_bytes()}
    return {
        name: _untimed(name, path.read_bytes())
        for path in sorted(target.rglob("*"))
        if path.is_file()
        and not (name := str(path.relative_to(target))).startswith("checkpoints/")
        and (not name.startswith("evaluation/") or name == "evaluation/measures.json")
        and name != ".lock"
    }


def _untimed(name: str, content: bytes) -> bytes:
    """A file without the time that more splits would take, which no two runs share."""
    if name not in ("manifest.json", "report.html", "report.json", "README.md"):
        return content
    text = re.sub(rb"(about [\d.,]+ \w+|less than a minute) more would do", b"", content)
    text = re.sub(rb'"seconds": ?[\d.e-]+', b"", text)
    return re.sub(rb'"(report\.html|report\.json|README\.md)": ?"[0-9a-f]{64}"', b"", text)


def phase_of(command: Command, target: Path) -> str:
    """How far a command had come, by what lies there."""
    if command.begins_with or command.is_file:
        return command.name
    return next((name for name, path in PHASES if (target / path).exists()), "reading")


def wrong_after_a_kill(command: Command, target: Path, whole: dict[str, bytes]) -> str | None:
    """What is wrong with what a killed command left; None: nothing."""
    from vaeaug.shards import verify

    if command.is_file:
        if target.exists() and contents(target) != whole:
            return "a target that is there is not whole"
        return None
    if (target / "manifest.json").exists():
        report = verify(target)
        is_told = report.ok or report.problems[0].kind == "unfinished"
        return None if is_told else f"published, and verify says: {report}"
    if command.begins_with:
        return "the manifest of a finished run is gone"
    if target.exists() and any(target.iterdir()) and verify(target).ok:
        return "not published, and verify says that it is whole"
    return None


def unlike(
    command: Command,
    target: Path,
    whole: dict[str, bytes],
    code: int,
    expected: int,
    log: Path,
) -> list[str]:
    """What a command that came to its end made otherwise than one that nobody touched."""
    if command.is_file and code == 1 and DONE in log.read_text():
        code = expected  # it was done before, and says so
    if code != expected:
        return [f"ended with {code} in place of {expected}: {log.read_text()[-800:]}"]
    found = contents(target)
    differing = [
        name for name in sorted(found.keys() | whole.keys()) if found.get(name) != whole.get(name)
    ]
    return [f"other bytes: {differing}"] if differing else []


class Torture:
    """The trials.

    Args:
        out: Where everything lies; emptied.
        seed: Of the trials.
        commands: The first makes the finished run that others start from.
    """

    def __init__(self, out: Path, seed: int, commands: Sequence[Command]) -> None:
        self.out, self.rng, self.commands = out, np.random.default_rng(seed), commands
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        self.run = out / "run"
        self.whole: dict[str, tuple[int, float, dict[str, bytes]]] = {}
        for command in commands:
            target = self.run if command.name == "augment" else self._target("whole", command)
            begin = time.perf_counter()
            code = ended(start(command, target, self.run, out / "log"))
            seconds = time.perf_counter() - begin
            if code not in (0, 3):
                raise SystemExit(f"{command.name} ends with {code}: {(out / 'log').read_text()}")
            self.whole[command.name] = (code, seconds, contents(target))

    def trial(self, number: int) -> dict[str, object]:
        """One command, killed once or twice and brought to its end."""
        weights = np.array([command.weight for command in self.commands])
        command = self.commands[self.rng.choice(len(weights), p=weights / weights.sum())]
        code, seconds, whole = self.whole[command.name]
        target = self._target(f"trial-{number}", command)
        line: dict[str, object] = {"trial": number, "command": command.name, "kills": []}
        failures = []
        for _ in range(1 + (self.rng.random() < 1 / 3)):
            how = list(SIGNALS)[self.rng.integers(len(SIGNALS))]
            kill, failure = self._killed(command, target, how, self.rng.random() * seconds, code)
            line["kills"].append(kill)
            failures += failure
            if wrong := wrong_after_a_kill(command, target, whole):
                failures.append(wrong)
        log = self.out / f"log-{number}"
        again = ended(start(command, target, self.run, log))
        failures += unlike(command, target, whole, again, code, log)
        left = [str(path) for path in self.out.glob(f"trial-{number}*/**/.*.tmp")]
        if left:
            failures.append(f"left over: {left}")
        line["failures"] = failures
        if not failures:
            shutil.rmtree(target.parent, ignore_errors=True)
            log.unlink()
        return line

    def _killed(
        self, command: Command, target: Path, how: str, after: float, whole_code: int
    ) -> tuple[dict[str, object], list[str]]:
        log = self.out / "log-killed"
        process = start(command, target, self.run, log)
        time.sleep(STARTED + after)
        for number in SIGNALS[how]:
            try:
                os.kill(process, number)
            except ProcessLookupError:
                break
            time.sleep(0.05)
        code = ended(process)
        text = log.read_text()
        expected = CODES[SIGNALS[how][0]]
        kill = {"how": how, "phase": phase_of(command, target), "code": code}
        failures = []
        done_before = code == whole_code or (command.is_file and DONE in text)
        if code != expected and not done_before:
            failures.append(f"{how}: ended with {code} in place of {expected}: {text[-1500:]}")
        # Python cannot raise a signal's exception where it comes in a finaliser, and says so.
        if how != "SIGKILL" and "Traceback" in text and "Exception ignored" not in text:
            failures.append(f"{how}: a traceback: {text[-1500:]}")
        return kill, failures

    def full_disk(self, number: int) -> dict[str, object]:
        """One command whose disk others fill at a random moment."""
        command = self.commands[self.rng.integers(len(self.commands))]
        code, seconds, whole = self.whole[command.name]
        disk = self.out / f"disk-{number}"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], check=True)
        log, failures = self.out / f"log-disk-{number}", []
        try:
            target = self._target(disk.name, command)
            process = start(command, target, self.run, log)
            time.sleep(STARTED + self.rng.random() * seconds)
            filled = disk / "filled"
            with open(filled, "wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(2**16))
            first, text, phase = ended(process), log.read_text(), phase_of(command, target)
            fitted = first == code
            if not fitted and (first != 1 or not FULL.search(text) or "Traceback" in text):
                failures.append(f"ended with {first}, and said: {text[-1500:]}")
            if not fitted and (wrong := wrong_after_a_kill(command, target, whole)):
                failures.append(wrong)
            filled.unlink()
            again = code if fitted else ended(start(command, target, self.run, log))
            failures += unlike(command, target, whole, again, code, log)
            failures += [f"left over: {path}" for path in disk.glob("**/.*.tmp")]
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)
        line = {"disk": number, "command": command.name, "phase": phase, "fitted": fitted}
        return line | {"failures": failures}

    def _target(self, name: str, command: Command) -> Path:
        folder = self.out / name / command.name.replace(" ", "")
        folder.mkdir(parents=True)
        target = folder / ("merged.h5" if command.name == "merge" else "out")
        if command.begins_with:
            shutil.copytree(self.run, target)
        return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--full-disks", type=int, default=0, help="commands on a full disk")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/torture"))
    names = [command.name for command in COMMANDS]
    parser.add_argument("--commands", nargs="+", choices=names, default=names)
    arguments = parser.parse_args()
    # Imported before the first fork. One thread: a forked process has no others.
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    import vaeaug
    import vaeaug.cli

    torch.set_num_threads(1)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        for name in vaeaug.__all__:
            getattr(vaeaug, name)
    commands = [command for command in COMMANDS if command.name in arguments.commands]
    if commands[0] is not COMMANDS[0]:
        parser.error(f"--commands: expected {COMMANDS[0].name!r} among them")
    torture = Torture(arguments.out, arguments.seed, commands)
    for name, (_, seconds, _) in torture.whole.items():
        print(json.dumps({"command": name, "seconds": round(seconds, 2)}), flush=True)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    failed = 0
    for number in range(arguments.trials):
        line = torture.trial(number)
        print(json.dumps(line), flush=True)
        failed += bool(line["failures"])
        counts.update((kill["phase"], kill["how"]) for kill in line["kills"])
    full: collections.Counter[str] = collections.Counter()
    for number in range(arguments.full_disks):
        line = torture.full_disk(number)
        print(json.dumps(line), flush=True)
        failed += bool(line["failures"])
        full[str(line["phase"])] += not line["fitted"]
    by_phase = collections.Counter(phase for phase, _ in counts.elements())
    summary = {"trials": arguments.trials, "failed": failed, "kills": counts.total()}
    print(json.dumps(summary | {"by_phase": dict(by_phase), "full_disks": dict(full)}))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
