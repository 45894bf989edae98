"""A finished run, measured and shown: the gate, the recipe search, fidelity, privacy, the report.

Whatever is measured is measured on images that no generator saw: the run's own generator saw the
whole training split, so each split of it gets a generator of its own, trained by the same job.
"""

import functools
import hashlib
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from vaeaug.config import AugmentConfig, EvaluationConfig, Recipe
from vaeaug.data import LabelledImages
from vaeaug.evaluation import (
    Bench,
    GateResult,
    ProbeFactory,
    SearchResult,
    SyntheticSet,
    check_shortcut,
    default_candidates,
    halves,
    measure_fidelity,
    measure_privacy,
    run_gate,
    search_recipe,
)
from vaeaug.files import read_whole
from vaeaug.files.json_text import JSONTextError, parse_strict, unsealed
from vaeaug.generator import Synthesizer
from vaeaug.job.folder import RunError, RunFolder, read_run
from vaeaug.job.stages import fit_screener, make_dataset, panels_of, plan_of, ready_generator
from vaeaug.merging import counts_of_run, merge
from vaeaug.progress import Progress
from vaeaug.report import write_card, write_report
from vaeaug.shards import Manifest, ShardDataset, sha256_file

log = logging.getLogger("vaeaug")

FOLDER = "evaluation"
REPORT_FILES = ("report.html", "report.json", "README.md")
# Of the images that the gate holds out, where a search came before it.
GATE_PART = 0.4
# What a run's report says of the last evaluation, besides the gate.
MEASURED = ("search", "fidelity", "privacy", "shortcut")


@dataclass(frozen=True)
class Assessment:
    """What was measured of one run.

    Attributes:
        gate: Whether it helps; None where that was not asked.
        search: Which recipes were tried; None where none were.
        measured: Fidelity, privacy and shortcut check, as in report.json.
    """

    gate: GateResult | None = None
    search: SearchResult | None = None
    measured: Mapping[str, Any] | None = None


def synthesise_split(
    train: LabelledImages,
    folder: Path,
    recipes: Sequence[Recipe],
    *,
    config: AugmentConfig,
    device: str = "cpu",
) -> list[SyntheticSet]:
    """The synthetic samples of each recipe for one split, from its training part alone.

    The split's generator is trained by the job's own steps into ``folder``, and every dataset
    drawn from it lies beside it; what is whole there is read, and what was begun is gone on with.
    """
    where = torch.device(device)
    screener = None
    found = []
    for recipe in recipes:
        # Soft labels change no sample; a recipe without them leaves them unread.
        settings = {**recipe.settings(), "recipe.soft": True}
        changed = config.changed(**settings)
        place = folder / _short(settings)
        if not (place / "manifest.json").exists():
            description = {"fingerprint": train.fingerprint, "source": "a split"}
            with RunFolder(folder / "generator", config=config, data=description) as run:
                generator = ready_generator(run, train, config, where, None)
            if screener is None:
                screener = fit_screener(train, changed, where, None)
            with RunFolder(place, config=changed, data=description) as run:
                generator.save(run.model)
                plan = plan_of(train, changed)
                make_dataset(
                    run,
                    generator,
                    train,
                    plan,
                    changed,
                    where,
                    None,
                    screener.with_label_threshold(recipe.min_label_probability),
                    pictures=False,
                ).save(place)
        shards = ShardDataset(place)
        rows = np.arange(len(shards))
        found.append(
            SyntheticSet(shards.images_at(rows), shards.labels, shards.soft_labels_at(rows))
        )
        shards.close()
    return found


def search(
    data: LabelledImages,
    folder: Path,
    config: AugmentConfig,
    evaluation: EvaluationConfig,
    *,
    candidates: Sequence[Recipe] | None = None,
    factory: ProbeFactory | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> SearchResult:
    """Find a recipe on the part of the data that the gate will not hold out.

    Args:
        data: The training split.
        folder: The run folder; splits and outcomes are kept in its ``evaluation``.
        config: The job.
        evaluation: Probe and splits.
        candidates: Recipes; None is `default_candidates` around the job's own.
        factory: Builds the user's own probe.
        device: Where to train.
        progress: Called after every training.
    """
    own, _ = _parts(data, evaluation.seed)
    part = data.subset(own)
    bench = _bench(part, folder / FOLDER / "search", config, evaluation, factory, device)
    with bench:
        found = search_recipe(
            bench, candidates or default_candidates(config.recipe), progress=progress
        )
    log.info("search: %s", found.sentence)
    return found


def gate(
    data: LabelledImages,
    folder: Path,
    config: AugmentConfig,
    evaluation: EvaluationConfig,
    recipe: Recipe,
    *,
    searched: int | None,
    factory: ProbeFactory | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> GateResult:
    """Measure a recipe on splits of the training data.

    Args:
        data: The training split.
        folder: The run folder.
        config: The job.
        evaluation: Probe, splits, budget.
        recipe: What is measured.
        searched: Seed of the search that found the recipe on this data: only images that it never
            looked at are held out. None: no search was made.
        factory: Builds the user's own probe.
        device: Where to train.
        progress: Called after every training.
    """
    among = None if searched is None else _parts(data, searched)[1]
    place = folder / FOLDER / "gate"
    with _bench(data, place, config, evaluation, factory, device, among) as bench:
        found = run_gate(bench, recipe, progress=progress)
    for line in (found.sentence, *found.warnings):
        log.info("gate: %s", line)
    return found


def measure(
    data: LabelledImages,
    folder: Path,
    config: AugmentConfig,
    evaluation: EvaluationConfig,
    recipe: Recipe,
    manifest: Manifest,
    *,
    searched: int | None,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Fidelity, privacy and the shortcut check, on the gate's first split.

    Its held-out images were seen by no generator, so real images stand beside synthetic ones
    in every figure on equal terms.
    """
    among = None if searched is None else _parts(data, searched)[1]
    place = folder / FOLDER / "gate"
    bench = _bench(data, place, config, evaluation, None, device, among)
    (split,) = bench.splits(1)
    key = {
        "what": "measures",
        "split": split.key,
        "recipe": recipe.model_dump(mode="json"),
        "model": manifest.model_sha256,
        "seed": evaluation.seed,
    }
    found = bench.remember(
        key, lambda: plain(_measure(data, config, evaluation, recipe, manifest, bench))
    )
    return {name: found[name] for name in ("fidelity", "privacy", "shortcut")}


def _measure(
    data: LabelledImages,
    config: AugmentConfig,
    evaluation: EvaluationConfig,
    recipe: Recipe,
    manifest: Manifest,
    bench: Bench,
) -> dict[str, Any]:
    device = bench.device
    (split,) = bench.splits(1)
    train = data.subset(split.train)
    held_out = replace(data, unlabelled=None).subset(split.held_out)
    split_folder = bench.place(split)
    drawn = config.recipe if recipe.is_none else recipe
    (synthetic,) = synthesise_split(train, split_folder, [drawn], config=config, device=str(device))
    generator = Synthesizer.load(split_folder / "generator").to(torch.device(device))
    fidelity = measure_fidelity(
        train, held_out, synthetic.images, synthetic.labels, seed=evaluation.seed, device=device
    )
    privacy = measure_privacy(
        train,
        held_out,
        synthetic.images,
        synthetic_labels=synthetic.labels,
        generator=generator,
        seed=evaluation.seed,
        device=device,
    )
    found: dict[str, Any] = {"fidelity": fidelity.to_json(), "privacy": privacy.to_json()}
    found["shortcut"] = _shortcut(data, manifest, recipe, evaluation, device)
    return found


def publish(
    folder: Path,
    manifest: Manifest,
    data: LabelledImages,
    config: AugmentConfig,
    found: Assessment,
) -> Manifest:
    """Write the report and the card, and then the manifest that names them: the commit point.

    What an earlier evaluation measured stays in the report where it was not measured again.
    """
    extra = dict(manifest.extra)
    if found.search is not None:
        recipe = found.search.recipe.model_dump(mode="json")
        extra["recipe"] = recipe | {"origin": "search"}
        extra["search"] = {
            "sentence": found.search.sentence,
            "chosen": str(found.search.recipe),
            "seed": found.search.seed,
        }
    known = {**_measured_before(folder, manifest), **(found.measured or {})}
    if found.search is not None:
        known["search"] = found.search.to_json()
    gate_found = manifest.gate if found.gate is None else plain(found.gate.to_json())
    manifest = replace(manifest, gate=gate_found, extra=extra)
    document = _document(folder, manifest, config, known)
    panels = panels_of(folder, manifest, data)
    write_report(
        folder,
        document,
        panels=panels,
        value_range=data.value_range,
        traversals=folder / "traversals.png",
    )
    write_card(folder, document)
    files = {**manifest.files, **{name: sha256_file(folder / name) for name in REPORT_FILES}}
    return replace(manifest, files=files).save(folder)


def recipe_of(manifest: Manifest, config: AugmentConfig) -> tuple[Recipe, int | None]:
    """The recipe that a run stands for, and the seed of the search that found it, if one did."""
    stored = dict(manifest.extra.get("recipe") or {})
    stored.pop("origin", None)
    try:
        found = Recipe.model_validate(stored) if stored else config.recipe
    except ValidationError as error:
        where = f"{manifest.folder or 'the manifest'}: extra.recipe"
        raise RunError(f"{where}: expected a recipe, got one that is none: {error}") from None
    seed = (manifest.extra.get("search") or {}).get("seed")
    return found, seed


def plain(value: Any) -> Any:
    """JSON without NaN or infinity: figures that cannot be computed are null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _bench(
    data: LabelledImages,
    folder: Path,
    config: AugmentConfig,
    evaluation: EvaluationConfig,
    factory: ProbeFactory | None,
    device: torch.device | str,
    among: np.ndarray | None = None,
) -> Bench:
    return Bench(
        data,
        functools.partial(synthesise_split, config=config, device=str(device)),
        evaluation,
        folder=folder,
        identity=config.sha256,
        among=among,
        factory=factory,
        device=device,
    )


def _parts(data: LabelledImages, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What a search of this seed looks at, and what is kept for the gate that follows it."""
    return halves(data, GATE_PART, seed=seed)


def _shortcut(
    data: LabelledImages,
    manifest: Manifest,
    recipe: Recipe,
    evaluation: EvaluationConfig,
    device: torch.device | str,
) -> dict[str, Any] | None:
    """Of the data as a trainer would get it; None where it gets no synthetic samples."""
    if recipe.is_none:
        return None
    # What the gate found is being written: merging has nothing to say of it.
    stored = {**manifest.extra, "recipe": recipe.model_dump(mode="json")}
    unjudged = replace(manifest, gate={"verdict": "unsure"}, extra=stored)
    merged = merge(data, unjudged, balance="classes", soft=False)
    rows = np.sort(np.random.default_rng([evaluation.seed, 9]).permutation(len(merged))[:4000])
    images = torch.stack([merged[int(row)][0] for row in rows]).movedim(1, -1).numpy()
    found = check_shortcut(
        np.ascontiguousarray(images),
        merged.labels[rows],
        merged.is_synthetic[rows],
        value_range=data.value_range,
        class_names=data.class_names,
        seed=evaluation.seed,
        device=device,
    )
    if found.warning:
        log.warning("shortcut: %s; %s", found.warning, found.remedy)
    return found.to_json()


def _document(
    folder: Path, manifest: Manifest, config: AugmentConfig, known: Mapping[str, Any]
) -> dict[str, Any]:
    """report.json: all that is known of a run."""
    content = json.loads(manifest.to_bytes())
    run = read_run(folder)
    curves = folder / "metrics.jsonl"
    recipe, searched = recipe_of(manifest, config)
    return {
        "title": Path(str(run["data"].get("source") or "dataset")).name,
        # The same job gives the same bytes wherever it lies.
        "out": "OUT",
        "gate": None if isinstance(manifest.gate, str) else content["gate"],
        "recipe": recipe.model_dump(mode="json")
        | {"name": str(recipe), "origin": "default" if searched is None else "search"},
        "classes": content["classes"],
        "plan": content["extra"].get("plan"),
        "samplers": content["extra"].get("samplers"),
        "nearness": content["extra"].get("nearness"),
        # What the merge line of the report gives.
        "merged": [each._asdict() for each in counts_of_run(manifest)],
        **{name: plain(known.get(name)) for name in MEASURED},
        "diagnostics": _json(folder / "diagnostics.json", unsealed),
        "curves": _lines(curves),
        "provenance": {
            "seed": manifest.run_seed,
            "data": run["data"],
            "model_sha256": manifest.model_sha256,
            "config_sha256": manifest.config_sha256,
            "versions": dict(manifest.versions),
            "config": config.to_json(),
            "layout": manifest.layout,
            "image_shape": list(manifest.image_shape),
            "dtype": manifest.dtype,
        },
    }


def _measured_before(folder: Path, manifest: Manifest) -> dict[str, Any]:
    path, known = folder / "report.json", manifest.files.get("report.json")
    if known is not None and path.exists() and sha256_file(path) != known:
        log.warning("%s: it was changed after it was written; nothing is taken from it", path)
        return {}
    found = _json(path) or {}
    return {name: found.get(name) for name in MEASURED}


def _json(path: Path, parse: Callable[[bytes], Any] = parse_strict) -> Any:
    try:
        return parse(read_whole(path))
    except FileNotFoundError:
        return None
    except (OSError, JSONTextError) as error:
        log.warning("%s: cannot be read (%s); left out of the report", path, error)
        return None


def _lines(path: Path) -> list[Any]:
    """The lines of JSON of a log; those that were cut off or damaged are left out."""
    found = []
    for line in read_whole(path).splitlines() if path.exists() else ():
        try:
            found.append(parse_strict(line))
        except JSONTextError as error:
            log.warning("%s: a line cannot be read (%s); left out of the report", path, error)
    return found


def _short(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
