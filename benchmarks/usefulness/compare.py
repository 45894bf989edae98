"""Tune the opponents on development data, run what was chosen, and print the intervals."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.usefulness import deepsmote, pools
from benchmarks.usefulness.heads import features, features_of_samples, fit_head
from benchmarks.usefulness.opponents import CLASSIC, OPPONENTS, SAMPLES, Opponent, Setting
from benchmarks.usefulness.regimes import Regime
from benchmarks.usefulness.small_cnn import Training, network, predict, train
from vaeaug import LabelledImages
from vaeaug.evaluation.metrics import score
from vaeaug.evaluation.statistics import corrected_t_interval


def families(regime: Regime) -> dict[str, Opponent]:
    """Every arm of a regime.

    Args:
        regime: Its kind decides.

    Returns:
        Name to arm.

    Raises:
        SystemExit: If the regime is compared by the gate's probe.
    """
    if regime.against == "gate":
        raise SystemExit(f"{regime.name}: this regime has the verbs make, run and table only")
    return OPPONENTS[regime.against] | SAMPLES


def groups_of(counts: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Rare classes, and classes by their number where it takes few values.

    Args:
        counts: Training images of each class.

    Returns:
        Name to classes.
    """
    found = {"rare": tuple(np.flatnonzero(counts == counts.min()).tolist())}
    values = np.unique(counts)
    if len(values) <= 3:
        found |= {f"n{v}": tuple(np.flatnonzero(counts == v).tolist()) for v in values}
    return found


# -- One arm on one seed ---------------------------------------------------------------------------


@dataclass
class Bench:
    """Trains arms on one seed of a regime; probabilities are kept in files.

    Attributes:
        regime: The regime.
        seed: The seed.
        steps: Of the network.
        out: Folder of everything that is kept.
        bfloat16: Precision of the convolutions.
        device: Of the network, "cpu" or "cuda".
    """

    regime: Regime
    seed: int
    steps: int
    out: Path
    bfloat16: bool
    device: str = "cpu"

    @cached_property
    def parts(self) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
        """Training, development and test images."""
        return self.regime.data(self.seed)

    @property
    def folder(self) -> Path:
        """Of this seed."""
        return pools.folder_of(self.out, self.regime.name, self.seed)

    @property
    def _how_computed(self) -> list[Any]:
        return [self.steps, self.bfloat16, *([] if self.device == "cpu" else [self.device])]

    def digest(self, arm: Opponent) -> str | None:
        """Of the samples of an arm.

        Args:
            arm: The arm.

        Returns:
            The beginning of a SHA-256; None where the arm has no samples of ours.

        Raises:
            pools.MissingPoolError: If they have not been made.
        """
        if arm.method != "pool":
            return None
        return pools.digest(self.folder / f"pool-{arm.pool}.npz")

    def probabilities(
        self, arm: Opponent, setting: Setting, base: Setting
    ) -> tuple[list[np.ndarray], float]:
        """Class probabilities of development and test images, and the seconds they took.

        Args:
            arm: The arm.
            setting: Of the arm.
            base: Of the training beneath it.

        Returns:
            Two arrays, and seconds.
        """
        key = [asdict(arm) | {"grid": None}, setting, base, *self._how_computed]
        if arm.method == "pool":
            key.append(self.digest(arm))
        name = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / "kept" / f"{name}.npz"
        if path.exists():
            with np.load(path) as file:
                return [file["development"].astype(float), file["test"].astype(float)], float(
                    file["seconds"]
                )
        begin = time.perf_counter()
        found = (
            self._with_head(setting, Training(**base))
            if arm.method == "head"
            else self._trained(arm, setting, base)
        )
        seconds = time.perf_counter() - begin
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, development=found[0], test=found[1], seconds=seconds)
        return found, seconds

    def _trained(self, arm: Opponent, setting: Setting, base: Setting) -> list[np.ndarray]:
        uses = {key: value for key, value in setting.items() if key != "head"}
        how = replace(Training(**base), **uses)
        samples = None
        if arm.method == "deepsmote":
            samples = self._deepsmote()
        elif arm.method == "pool":
            samples = self.folder / f"pool-{arm.pool}.npz"
        if "head" in setting:
            return self._with_head(setting["head"], how, samples)
        model = self._network(how, samples)
        return [predict(model, part, bfloat16=self.bfloat16) for part in self.parts[1:]]

    def _network(self, how: Training, samples: Path | None = None) -> nn.Sequential:
        """A network trained so; it is kept, because arms share it, and heads stand on it."""
        data = self.parts[0]
        key = [asdict(how), *self._how_computed]
        if samples is not None:
            key.append(pools.digest(samples))
        name = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / "kept" / f"{name}.pt"
        if path.exists():
            model = network(data.image_shape, data.n_classes)
            model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
            return model.to(self.device).eval()
        model = train(
            data,
            how,
            None if samples is None else pools.read(samples),
            seed=self.seed,
            steps=self.steps,
            batch=self.regime.batch,
            bfloat16=self.bfloat16,
            device=self.device,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
        return model

    def _deepsmote(self) -> Path:
        path = self.folder / "pool-deepsmote.npz"
        if not path.exists():
            pool = deepsmote.make(self.parts[0], seed=self.seed, bfloat16=self.bfloat16)
            pools.write(path, pool, {"scheme": "DeepSMOTE", "seed": self.seed})
        return path

    @cached_property
    def _vectors(self) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
        return {}

    def _with_head(
        self, setting: Setting, how: Training, samples: Path | None = None
    ) -> list[np.ndarray]:
        """Probabilities after the last layer was trained again; features are kept."""
        data, *judges = self.parts
        chosen = dict(setting)
        uses = {"samples": chosen.pop("around", "real"), "rows": chosen.pop("rows", "real")}
        key = json.dumps([str(samples), asdict(how)])
        if key not in self._vectors:
            model, same = self._network(how, samples), {"bfloat16": self.bfloat16}
            self._vectors[key] = [
                features(model, data, how, seed=self.seed, **same),
                *(features(model, d, None, seed=0, **same) for d in judges),
            ]
            if samples is not None:
                pool = pools.read(samples)
                of_samples = features_of_samples(model, pool, data, how, seed=self.seed, **same)
                self._vectors[key].append(of_samples)
        (x, y), *rest = self._vectors[key]
        chosen |= {use: rest[len(judges)] for use, which in uses.items() if which == "all"}
        head = fit_head(x, y, data.n_classes, seed=self.seed, counts=data.counts, **chosen)
        with torch.no_grad():
            probabilities = [head(torch.from_numpy(v)).double().softmax(1) for v, _ in rest]
        return [p.numpy() for p in probabilities[: len(judges)]]

    def metrics(self, probabilities: np.ndarray, part: int) -> dict[str, float]:
        """Metrics of development (1) or test (2) images.

        Args:
            probabilities: Class probabilities.
            part: Which images.

        Returns:
            Name to value, 0 to 1.
        """
        found = score(
            probabilities, self.parts[part].labels, groups=groups_of(self.parts[0].counts)
        )
        return {key: round(value, 5) for key, value in found.metrics().items()}


# -- Lines -----------------------------------------------------------------------------------------


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Lines of a file of results.

    Args:
        path: JSON lines.

    Returns:
        Its lines; none where there is no file.
    """
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _append(path: Path, line: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


@dataclass(frozen=True)
class Choices:
    """What development data chose, of the lines of `tune`.

    Attributes:
        regime: Of the lines.
        kind: "images" or "signals".
        steps: Of the lines.
        lines: All lines.
        based_on: The regime whose lines choose what is beneath an arm.
    """

    regime: str
    kind: str
    steps: int
    lines: list[dict[str, Any]]
    based_on: str

    def best(
        self, names: Sequence[str], base: Setting | None, *, regime: str | None = None
    ) -> tuple[str, Setting]:
        """The arm and setting of the highest mean on development data.

        Args:
            names: Arms to choose from.
            base: Beneath them; None: any.
            regime: Of the lines; None: that of the choices.

        Returns:
            Name and setting.

        Raises:
            SystemExit: If none of them was tuned.
        """
        found: dict[str, dict[int, float]] = {}
        for line in self.lines:
            same = line["regime"] == (regime or self.regime) and line["steps"] == self.steps
            if same and line["arm"] in names and base in (None, line["base"]):
                key = json.dumps([line["arm"], line["setting"]], sort_keys=True)
                # Later samples of ours replace earlier ones.
                found.setdefault(key, {})[line["seed"]] = line["balanced_accuracy"]
        if not found:
            raise SystemExit(
                f"{regime or self.regime}: {', '.join(names)}: not tuned yet; run tune first"
            )
        most = max(map(len, found.values()))
        means = {k: np.mean(list(f.values())) for k, f in found.items() if len(f) == most}
        name, setting = json.loads(max(means, key=means.__getitem__))
        return name, setting

    @property
    def base(self) -> Setting:
        """The classic augmentation that was chosen."""
        return self.best(list(CLASSIC[self.kind]), {}, regime=self.based_on)[1]

    def beneath(self, arm: Opponent) -> Setting:
        """The training beneath an arm.

        Args:
            arm: The arm.

        Returns:
            A setting of `Training`.
        """
        if not arm.stands:
            return {}
        base = self.base
        if arm.on_best:
            trained = [
                n for n, o in OPPONENTS[self.kind].items() if o.method == "train" and o.stands
            ]
            base = {**base, **self.best(trained, base, regime=self.based_on)[1]}
        return base


# -- Verbs -----------------------------------------------------------------------------------------


def tune(
    bench: Bench,
    names: Sequence[str],
    results: Path,
    *,
    based_on: str | None = None,
    where: Setting | None = None,
) -> None:
    """Try every setting of the arms on one seed; development images alone are looked at.

    Args:
        bench: The seed.
        names: Arms; those of the classic augmentation come first.
        results: Lines are added.
        based_on: Another regime whose tuning chooses what is beneath an arm.
        where: Settings that have another value of one of these keys are left out.
    """
    regime, arms = bench.regime, families(bench.regime)
    done = {_key(line) for line in lines_of(results)}
    for name in sorted(names, key=lambda name: arms[name].stands):
        arm = arms[name]
        choices = _choices(bench, results, regime.name, based_on)
        base = choices.beneath(arm)
        for setting in arm.grid:
            if any(setting.get(key, value) != value for key, value in (where or {}).items()):
                continue
            line = {
                "regime": regime.name,
                "arm": name,
                "setting": setting,
                "base": base,
                "seed": bench.seed,
                "steps": bench.steps,
                "pool": bench.digest(arm),
            }
            if _key(line) in done:
                continue
            (development, _), seconds = bench.probabilities(arm, setting, base)
            line |= bench.metrics(development, 1)
            line["seconds"] = round(seconds, 1)
            _append(results, line)
            print(
                f"{regime.name} seed {bench.seed} {name} {setting}: "
                f"{100 * line['balanced_accuracy']:.2f} (rare "
                f"{100 * line.get('recall_rare', np.nan):.2f}), {seconds:.0f} s",
                flush=True,
            )


def _choices(bench: Bench, tuning: Path, regime: str, based_on: str | None) -> Choices:
    lines = lines_of(tuning)
    return Choices(regime, bench.regime.against, bench.steps, lines, based_on or regime)


def run(
    bench: Bench,
    names: Sequence[str],
    tuning: Path,
    results: Path,
    tuned_on: str | None,
    based_on: str | None = None,
) -> None:
    """Run the chosen setting of each arm on one seed, and judge it by the test images.

    Args:
        bench: The seed.
        names: Arms.
        tuning: Lines of `tune`.
        results: Lines are added.
        tuned_on: Another regime whose tuning chooses; None: this regime's.
        based_on: Another regime whose tuning chooses what is beneath an arm.
    """
    regime, arms = bench.regime, families(bench.regime)
    tuned_on = tuned_on or regime.name
    choices = _choices(bench, tuning, tuned_on, based_on)
    done = {_key(line) for line in lines_of(results)}
    for name in names:
        base = choices.beneath(arms[name])
        _, setting = choices.best([name], base)
        line = {
            "regime": regime.name,
            "arm": name,
            "setting": setting,
            "base": base,
            "tuned_on": tuned_on,
            "seed": bench.seed,
            "steps": bench.steps,
            "pool": bench.digest(arms[name]),
            "bfloat16": bench.bfloat16,
            **({} if bench.device == "cpu" else {"device": bench.device}),
        }
        if _key(line) in done:
            continue
        (development, test), seconds = bench.probabilities(arms[name], setting, base)
        line |= {"development": bench.metrics(development, 1), "test": bench.metrics(test, 2)}
        line["seconds"] = round(seconds, 1)
        _append(results, line)
        print(
            f"{regime.name} seed {bench.seed} {name} {setting}: development "
            f"{100 * line['development']['balanced_accuracy']:.2f}, {seconds:.0f} s",
            flush=True,
        )


def _key(line: dict[str, Any]) -> str:
    names = ("regime", "arm", "setting", "base", "seed", "steps")
    # Samples of another generator are another arm.
    return json.dumps([*(line[name] for name in names), line.get("pool")], sort_keys=True)


def table(regime: Regime, results: Path, part: str, steps: int, seeds: Sequence[int]) -> None:
    """Of every arm the mean over its seeds, and paired intervals to the best tuned opponent.

    The best opponent is that of the highest mean on development images, of those that were run on
    the most seeds.

    Args:
        regime: The regime.
        results: Lines of `run`.
        part: "test" or "development".
        steps: Of the lines.
        seeds: Of the lines.

    Raises:
        SystemExit: If no opponent was run.
    """
    arms: dict[str, dict[int, dict[str, Any]]] = {}
    for line in lines_of(results):
        wanted = line["steps"] == steps and line["seed"] in seeds
        if line["regime"] == regime.name and wanted:
            # A later choice of the setting replaces the earlier one, and later samples of ours do.
            of_arm = arms.setdefault(line["arm"], {})
            if any(_setting(other) != _setting(line) for other in of_arm.values()):
                of_arm.clear()
            of_arm[line["seed"]] = line
    opponents = [name for name in arms if name in OPPONENTS[regime.against]]
    if not opponents:
        raise SystemExit(f"{results}: no opponent of {regime.name} was run at {steps} steps")
    most = max(len(arms[name]) for name in opponents)

    def mean(name: str, which: str, metric: str) -> float:
        values = [line[which].get(metric, np.nan) for line in arms[name].values()]
        return 100 * float(np.mean(values))

    best = max(
        (name for name in opponents if len(arms[name]) == most),
        key=lambda name: mean(name, "development", "balanced_accuracy"),
    )

    def gain(name: str, metric: str) -> str:
        seeds = sorted(arms[name].keys() & arms[best].keys())
        gains = [100 * (arms[name][s][part][metric] - arms[best][s][part][metric]) for s in seeds]
        if name == best or len(gains) < 2:
            return ""
        found = corrected_t_interval(gains, test_to_train=0)
        return f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"

    metrics = ("balanced_accuracy", "recall_rare")
    # Where class sizes differ from seed to seed, those that all have.
    metrics_of_seeds = [set(line[part]) for line in arms[best].values()]
    by_count = [key for key in set.intersection(*metrics_of_seeds) if key.startswith("recall_n")]
    others = sorted(by_count, key=lambda key: int(key.removeprefix("recall_n")))
    print(
        f"The best opponent is {best!r} (by development images). {part.capitalize()} images, %.\n"
    )
    head = ["arm", "setting", "seeds", "accuracy", "rare", *(f"n = {key[8:]}" for key in others)]
    print("| " + " | ".join([*head, "to the best", "rare"]) + " |")
    print("|" + "---|" * (len(head) + 2))
    order = sorted(arms, key=lambda n: (n not in opponents, -mean(n, part, metrics[0])))
    for name in order:
        settings = next(iter(arms[name].values()))["setting"]
        shown = ", ".join(f"{k} {v}" for k, v in settings.items() if k != "scheme")
        cells = [f"{mean(name, part, metric):.1f}" for metric in (*metrics, *others)]
        cells += [gain(name, metric) for metric in metrics]
        print(f"| {name} | {shown} | {len(arms[name])} | {' | '.join(cells)} |")


def _setting(line: dict[str, Any]) -> str:
    return json.dumps([line["setting"], line["base"]], sort_keys=True)
