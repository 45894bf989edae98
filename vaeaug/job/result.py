"""The result of a run: `RunResult`, from which it is published, and `AugmentResult` for callers."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vaeaug.config import AugmentConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.evaluation import GateResult, SearchResult
from vaeaug.files import read_whole
from vaeaug.files.json_text import JSONTextError, parse_strict, unsealed
from vaeaug.job.folder import RunError, RunFolder, run_versions
from vaeaug.job.presentation import result_card
from vaeaug.job.writing import WrittenClasses
from vaeaug.notebook import Card, Shown
from vaeaug.plan import Plan
from vaeaug.screening import NEAR_CLASS
from vaeaug.shards import ClassEntry, Manifest, ShardProvenance, sha256_file

log = logging.getLogger("vaeaug")

# What a report shows of the evaluations of a run, besides the gate.
MEASURES = ("search", "fidelity", "privacy", "shortcut")


@dataclass(frozen=True)
class AugmentResult(Shown):
    """What a job left.

    Attributes:
        out_dir: The run folder.
        manifest: What it says.
        resumed: Whether the job was already complete.
        source: What the data was read from, as its ``source`` says.
        notes: What the user should know of what was added, or was not.
    """

    out_dir: Path
    manifest: Manifest
    resumed: bool = False
    source: str = ""
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"AugmentResult({str(self.out_dir)!r}, {self.manifest!r}, {state})"

    @property
    def complete(self) -> bool:
        """Whether every class got what was planned."""
        return self.manifest.complete

    @property
    def shortfalls(self) -> list[str]:
        """A line for every class that got fewer than planned."""
        excluded = Counter[int]()
        for shard in self.manifest.shards:
            excluded[shard.label] += len(self.manifest.excluded.get(shard.path, ()))
        return [
            f"class {entry.name!r}: {entry.accepted + excluded[entry.label]} of "
            f"{entry.n_synthetic} made, after {entry.candidates} candidates"
            + (f", and {excluded[entry.label]} excluded" if excluded[entry.label] else "")
            for entry in self.manifest.classes
            if entry.accepted < entry.n_synthetic
        ]

    def _card(self) -> Card:
        return result_card(self)

    def to_json(self) -> dict[str, Any]:
        """The result for other programs.

        Returns:
            Where the run is, and the plan, classes, shards, gate and recipe search of its manifest.
        """
        manifest = json.loads(self.manifest.to_bytes())
        return {
            "out": str(self.out_dir),
            "complete": self.complete,
            "gate": manifest["gate"],
            "search": manifest["extra"].get("search"),
            "nearness": manifest["extra"].get("nearness"),
            "plan": manifest["extra"].get("plan", []),
            "classes": manifest["classes"],
            "shards": manifest["shards"],
            "generations": manifest.get("generations", []),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class RunResult:
    """A dataset in a run folder, and what was measured of it.

    Attributes:
        manifest: The dataset: its classes, shards, plan and recipe, and the gate's result.
        config: The job.
        measures: By name of `MEASURES`, the result as JSON; what was not measured is absent.
    """

    manifest: Manifest
    config: AugmentConfig
    measures: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, run: RunFolder, config: AugmentConfig) -> "RunResult":
        """Read a finished run.

        Args:
            run: The run folder.
            config: The job.

        Returns:
            What was published.

        Raises:
            ShardError: If there is no manifest, or it is damaged.
        """
        manifest = Manifest.load(run.path)
        return cls(manifest, config, _read_measures(run, manifest))

    @property
    def recipe(self) -> Recipe:
        """The recipe that the run stands for."""
        return recipe_of(self.manifest, self.config)

    @property
    def searched(self) -> int | None:
        """Seed of the search that found the recipe; None where none was made."""
        return searched_with(self.manifest)

    def with_evaluation(self, gate: GateResult, measures: Mapping[str, Any]) -> "RunResult":
        """The same run, evaluated.

        Args:
            gate: Whether its samples help.
            measures: Fidelity, privacy and shortcut check, as JSON.

        Returns:
            A copy.
        """
        manifest = replace(self.manifest, gate=plain(gate.to_json()))
        return replace(self, manifest=manifest, measures={**self.measures, **measures})


def result_of(
    run: RunFolder,
    written: WrittenClasses,
    data: LabelledImages,
    plan: Plan,
    provenance: ShardProvenance,
    *,
    job: AugmentConfig,
    drawn_by: AugmentConfig,
    search: SearchResult | None = None,
) -> RunResult:
    """The result of a run whose classes are all written.

    Args:
        run: The run folder.
        written: Its classes, one for each of the plan.
        data: The training split.
        plan: How many samples of each class were wanted.
        provenance: Written into the shards.
        job: The job as it was asked for.
        drawn_by: The job with the recipe that the samples were drawn by.
        search: The search that found that recipe, if one was made.

    Returns:
        The result, not published yet.
    """
    classes = tuple(written.classes[class_plan.label].entry for class_plan in plan)
    near = {label: finished.near for label, finished in written.classes.items()}
    recipe = drawn_by.recipe if search is None else search.recipe
    origin = "default" if search is None else "search"
    extra: dict[str, Any] = {
        "plan": plan.to_json(),
        "samplers": {
            finished.entry.name: finished.sampler for finished in written.classes.values()
        },
        "nearness": nearness(classes, near),
        "recipe": recipe.model_dump(mode="json") | {"origin": origin},
    }
    if data.sample_rate is not None:
        extra["sample_rate"] = data.sample_rate
    measures = {}
    if search is not None:
        measures["search"] = plain(search.to_json())
        extra["search"] = {
            "sentence": search.sentence,
            "chosen": str(search.recipe),
            "seed": search.seed,
        }
    manifest = Manifest(
        class_names=data.class_names,
        image_shape=data.image_shape,
        dtype=str(data.images.dtype),
        value_range=data.value_range,
        layout=data.layout,
        data_fingerprint=data.fingerprint,
        model_sha256=provenance.model_sha256,
        config_sha256=provenance.config_sha256,
        run_seed=job.seed,
        versions=run_versions(),
        real_counts=tuple(int(count) for count in data.counts),
        classes=classes,
        shards=tuple(written.shards),
        complete=all(entry.accepted == entry.n_synthetic for entry in classes),
        extra=extra,
        folder=run.path,
    )
    return RunResult(manifest, job, measures)


def recipe_of(manifest: Manifest, config: AugmentConfig) -> Recipe:
    """The recipe that a run stands for.

    Args:
        manifest: Of the run.
        config: Its job, for a manifest without a recipe.

    Returns:
        The recipe of the search, else that of the job.

    Raises:
        RunError: If the manifest holds something else in its place.
    """
    stored = dict(manifest.extra.get("recipe") or {})
    stored.pop("origin", None)
    try:
        return Recipe.model_validate(stored) if stored else config.recipe
    except ValidationError as error:
        where = f"{manifest.folder or 'the manifest'}: extra.recipe"
        raise RunError(f"{where}: expected a recipe, got something else: {error}") from None


def searched_with(manifest: Manifest) -> int | None:
    """Seed of the search that found a run's recipe.

    Args:
        manifest: Of the run.

    Returns:
        The seed; None where no search was made.
    """
    search = manifest.extra.get("search") or {}
    return search.get("seed")


def nearness(classes: Sequence[ClassEntry], near: Mapping[int, int]) -> dict[str, Any]:
    """How many samples lie near to training images; of real images one in twenty by definition.

    Args:
        classes: The classes of a run.
        near: By label, samples nearer to a training image than 95 % of real images are to another.

    Returns:
        ``share`` of all samples, ``classes`` by name, and a ``sentence``.
    """
    drawn = [entry for entry in classes if entry.accepted]
    total = sum(entry.accepted for entry in drawn)
    shares = {entry.name: near[entry.label] / entry.accepted for entry in drawn}
    share = sum(near[entry.label] for entry in drawn) / total if total else 0.0
    sentence = (
        f"{100 * share:.0f} % of the samples are nearer to a training image than 95 % of real "
        "images are to one another (by definition 5 % of real images are)"
    )
    small = [entry for entry in drawn if entry.real < NEAR_CLASS and shares[entry.name] > share]
    if small:
        names = ", ".join(
            f"{entry.name!r} {100 * shares[entry.name]:.0f} %" for entry in small[:10]
        )
        more = f" and {len(small) - 10} more" if len(small) > 10 else ""
        sentence += (
            f"; in classes of fewer than {NEAR_CLASS} images, whose samples have little room to "
            f"move, more: {names}{more}"
        )
    return {"share": share, "classes": shares, "sentence": sentence + "."}


def _read_measures(run: RunFolder, manifest: Manifest) -> dict[str, Any]:
    """The measures that earlier evaluations left in the run folder."""
    if run.measures.exists():
        document = read_json(run.measures, unsealed)
    else:  # of a version that kept them in the report alone
        document = _from_report(run.path / "report.json", manifest)
    measures = document if isinstance(document, Mapping) else {}
    return {name: measures[name] for name in MEASURES if measures.get(name) is not None}


def _from_report(path: Path, manifest: Manifest) -> Any:
    known = manifest.files.get("report.json")
    if known is not None and path.exists() and sha256_file(path) != known:
        log.warning("%s: it was changed after it was written; nothing is taken from it", path)
        return None
    return read_json(path, parse_strict)


def read_json(path: Path, parse: Any) -> Any:
    """A JSON file of a run, for its report.

    Args:
        path: The file.
        parse: `parse_strict` or `unsealed`.

    Returns:
        Its content; None, with a warning in the log, where it is damaged, or where there is none.
    """
    try:
        return parse(read_whole(path))
    except FileNotFoundError:
        return None
    except (OSError, JSONTextError) as error:
        log.warning("%s: cannot be read (%s); left out of the report", path, error)
        return None


def plain(value: Any) -> Any:
    """JSON without NaN or infinity.

    Args:
        value: JSON types, numpy's numbers among them.

    Returns:
        The same, with null for numbers that are not finite.
    """
    text = json.dumps(value, default=lambda number: number.item())
    return json.loads(text, parse_constant=lambda _: None)
