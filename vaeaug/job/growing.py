"""Add to a finished dataset: more samples, those of another seed, more images, new classes.

The next generation is a run folder of its own inside OUT, made by the same steps as any run. When
it is published there, with the shards of the former ones, it takes their place; until then OUT
holds its former dataset, untouched.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped

from vaeaug.config import AugmentConfig, ConfigError, changed_keys, make_config
from vaeaug.data import LabelledImages
from vaeaug.engines import Engine
from vaeaug.files import new_file, open_regular
from vaeaug.generator import Synthesizer
from vaeaug.job.drawing import draw
from vaeaug.job.folder import (
    GROWING,
    SPACE_FOR_MODEL,
    RunError,
    RunFolder,
    describe_data,
    in_present_words,
    read_run,
)
from vaeaug.job.publishing import publish
from vaeaug.job.result import AugmentResult, RunResult, nearness, recipe_of
from vaeaug.plan import Plan
from vaeaug.progress import Progress
from vaeaug.shards import (
    EXCLUDED,
    NEXT_FOLDER,
    ClassEntry,
    Generation,
    Manifest,
    Shard,
    sha256_file,
)
from vaeaug.stages import EarlierSamples, bytes_per_sample, fit_added, plan_of

log = logging.getLogger("vaeaug")

# A larger one lets a class that fell short go on.
BUDGET = "screening.max_candidates_ratio"
# Files of a run that stay what they are where the generator does.
_OF_GENERATOR = (
    *("model/config.json", "model/model.safetensors", "model/densities.safetensors"),
    *("diagnostics.json", "metrics.jsonl"),
    *("traversals.png", "traversals.gif", "latents.png", "styles.png"),
)


def with_images_of(folder: str | Path, config: AugmentConfig) -> AugmentConfig:
    """The job with the seed by which a run chose its images, where it kept some of each class.

    Args:
        folder: A run folder, or the folder of its generator.
        config: The job, perhaps with another seed.

    Returns:
        The job; as it is where its images do not depend on the seed, or there is no such run.
    """
    data, folder = config.data, Path(folder)
    run = folder.parent if folder.name == "model" else folder
    if data.class_counts is None or data.seed is not None or not (run / "run.json").exists():
        return config
    before = read_run(run)["config"]
    own_seed = (before.get("data") or {}).get("seed")
    seed = before.get("seed", 0) if own_seed is None else own_seed
    return config if seed == config.seed else config.changed(**{"data.seed": seed})


def add_to(
    out_dir: str | Path,
    data: LabelledImages,
    job: AugmentConfig,
    *,
    device: torch.device | str,
    resume: bool = True,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> AugmentResult:
    """Add to a finished run what the data or the job has more than it.

    Args:
        out_dir: The run folder.
        data: The training split; that of the run, or with more images or classes.
        job: The job, as it would make the whole dataset.
        device: Where the networks run.
        resume: False starts an interrupted addition again.
        engine: Where classes are drawn. Default: here.
        progress: Reports on it; None is silent.

    Returns:
        The grown dataset; the former one where nothing is new.

    Raises:
        ConfigError: If the job differs from that of the run in more than what can be added.
        RunError: If there is no finished run, or the data does not belong to it.
    """
    out = Path(out_dir)
    if not (out / "run.json").exists():
        raise RunError(f"{out}: --add: expected a finished run, got none; make it without --add")
    with RunFolder(out, config=None, data={}) as run:
        if not run.is_complete:
            raise RunError(
                f"{out}: --add: expected a finished run, got one that has not finished; its own "
                "command without --add goes on with it"
            )
        former = _Former.load(run)
        former.check_fits(data)
        asked = former.asked(job, data)
        drawn_by = former.searched(job)
        plan = plan_of(data, drawn_by)
        to_draw, notes = former.missing(plan, job.seed, again=BUDGET in asked)
        same_data = data.fingerprint == former.manifest.data_fingerprint
        if same_data and not to_draw.n_synthetic:
            note = f"Nothing to add: the samples that this job asks for are there ({out})."
            return AugmentResult(
                out, former.manifest, resumed=True, source=data.source, notes=(note, *notes)
            )
        former.check_generator()
        earlier = former.earlier(to_draw, job.seed)
        n_new = to_draw.n_synthetic - sum(each.accepted for each in earlier.values())
        needed = n_new * bytes_per_sample(data, job) + SPACE_FOR_MODEL
        described = describe_data(data) | {
            key: former.described[key] for key in ("generator", "search") if key in former.described
        }
        with _next_folder(run, job, described, needed=needed, resume=resume) as grown:
            if same_data:
                for name in _OF_GENERATOR:
                    _bring(run.path / name, grown.path / name)
            generator = _generator(run, grown, data, job, device, progress)
            result = draw(
                grown,
                generator,
                data,
                drawn_by,
                plan=to_draw,
                earlier=earlier,
                first_shard=former.n_numbers,
                engine=engine,
                progress=progress,
            )
            for entry in former.manifest.shards:
                _bring(run.path / entry.path, grown.path / entry.path)
            (grown.path / "evaluation").mkdir(exist_ok=True)
            publish(grown, replace(former.joined(result, plan, asked), config=job), data)
        run.take_next()
        manifest = Manifest.load(run.path)
        notes = [f"Added: {manifest.generations[-1]}", *notes]
        if former.manifest.evaluated:
            notes.append("The former dataset was evaluated; the grown one is not yet.")
        return AugmentResult(run.path, manifest, source=data.source, notes=tuple(notes))


def _generator(
    run: RunFolder,
    grown: RunFolder,
    data: LabelledImages,
    job: AugmentConfig,
    device: torch.device | str,
    progress: Progress | None,
) -> Synthesizer:
    """The generator of the grown dataset; fitted to what is new in its data where need be."""
    if (grown.model / "config.json").exists():
        return Synthesizer.load(grown.model, codec=job.model.codec).to(device)
    start = Synthesizer.load(run.model, codec=job.model.codec).to(device)
    fitted = fit_added(start, data, job, device=device, folder=grown.path, progress=progress)
    fitted.save(grown.model)
    return fitted


@contextmanager
def _next_folder(
    run: RunFolder,
    job: AugmentConfig,
    described: Mapping[str, Any],
    *,
    needed: int,
    resume: bool,
) -> Iterator[RunFolder]:
    """The folder in which the next generation grows; one that asks for other things is deleted."""
    path = run.path / NEXT_FOLDER
    try:
        folder = RunFolder(path, config=job, data=described, needed=needed, resume=resume)
    except ConfigError:
        log.warning("%s: an addition that asked for something else was begun; deleted", path)
        folder = RunFolder(path, config=job, data=described, needed=needed, resume=False)
    with folder:
        yield folder


def _bring(source: Path, target: Path) -> None:
    """The same file under another name: linked, or copied where the disk has no links."""
    if target.exists() or not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with open_regular(source) as old, new_file(target) as new:
            shutil.copyfileobj(old, new)


@dataclass(frozen=True)
class _Former:
    """A finished dataset, to which a generation is added.

    Attributes:
        result: What was published.
        config: Its job, as plain JSON types.
        described: What its ``run.json`` says of the data.
    """

    result: RunResult
    config: Mapping[str, Any]
    described: Mapping[str, Any]

    @classmethod
    def load(cls, run: RunFolder) -> "_Former":
        content = read_run(run.path)
        job = make_config(content["config"], where=f"{run.path}/run.json", warn=False)
        config = in_present_words(content["config"])
        return cls(RunResult.load(run, job), config, content["data"])

    @property
    def manifest(self) -> Manifest:
        return self.result.manifest

    @property
    def folder(self) -> Path:
        assert self.manifest.folder is not None
        return self.manifest.folder

    @property
    def n_numbers(self) -> int:
        """Number of the next shard."""
        names = [PurePosixPath(entry.path).stem for entry in self.manifest.shards]
        stems = [name.rpartition("-")[2] for name in names]
        return 1 + max((int(stem) for stem in stems if stem.isdecimal()), default=-1)

    def asked(self, job: AugmentConfig, data: LabelledImages) -> dict[str, Any]:
        """Keys with another value than before, and by class how many images are new.

        Refused are keys that make another dataset.
        """
        changes = changed_keys(self.config, job.to_json())
        other = [change for change in changes if not change.startswith(GROWING)]
        if other:
            raise ConfigError(
                f"{self.folder}: --add: expected the configuration of the run but for its seed, "
                f"plan and shards, got other values of: {'; '.join(other)}. That is another "
                "generator or another screening: give another --out (`merge` takes several)"
            )
        document: Any = job.to_json()
        values = {}
        for change in changes:
            key = change.partition(":")[0]
            section, _, name = key.partition(".")
            values[key] = document[section][name] if name else document[section]
        before = dict(zip(self.manifest.class_names, self.manifest.real_counts, strict=True))
        counts = zip(data.class_names, data.counts.tolist(), strict=True)
        added = {name: n - before.get(name, 0) for name, n in counts if n != before.get(name, 0)}
        return values | ({"images": added} if added else {})

    def check_fits(self, data: LabelledImages) -> None:
        """Refuse data whose samples could not lie beside those of the dataset."""
        manifest = self.manifest
        expected = {
            "image_shape": (tuple(manifest.image_shape), tuple(data.image_shape)),
            "dtype": (manifest.dtype, str(data.images.dtype)),
            "value_range": (tuple(manifest.value_range), tuple(data.value_range)),
        }
        for name, (before, now) in expected.items():
            if before != now:
                raise RunError(
                    f"{self.folder}: --add: {name}: expected {before} as in the run, got {now}"
                )
        counts = dict(zip(data.class_names, data.counts.tolist(), strict=True))
        for name, n in zip(manifest.class_names, manifest.real_counts, strict=True):
            if counts.get(name, n) < n:
                raise RunError(
                    f"{self.folder}: --add: class {name!r}: expected at least the {n} images of "
                    f"the run, got {counts[name]}"
                )
        if lost := [name for name in manifest.class_names if name not in data.class_names]:
            raise RunError(
                f"{self.folder}: --add: expected data with all classes of the run, got none of "
                f"{lost[:5]}"
            )

    def check_generator(self) -> None:
        """Refuse a generator that is not the one that the dataset was drawn from."""
        for name in _OF_GENERATOR[:3]:
            known, path = self.manifest.files.get(name), self.folder / name
            if known is not None and (not path.exists() or sha256_file(path) != known):
                raise RunError(
                    f"{path}: --add: expected the generator of the dataset (sha256 {known}), got "
                    f"{'another file' if path.exists() else 'none'}"
                )

    def searched(self, job: AugmentConfig) -> AugmentConfig:
        """The job with the recipe that the search of the run found, if one was made."""
        recipe = recipe_of(self.manifest, job)
        if self.result.searched is None or recipe.is_none:
            return job
        return job.with_recipe(recipe)

    def missing(self, plan: Plan, seed: int, *, again: bool) -> tuple[Plan, list[str]]:
        """The plan of what is to be drawn; none of classes that have as much. With notes.

        A class that fell short is drawn further only for a larger plan, or `again`.
        """
        rows, notes = [], []
        for row in plan:
            there, n = self._of_seed(row.name, seed), row.n_synthetic
            if n < there.accepted:
                notes.append(
                    f"Class {row.name!r}: {there.accepted} samples of seed {seed} are there, this "
                    f"job asks for {n}: all are kept."
                )
            goes_on = n > there.accepted and (n > there.wanted or again)
            rows.append(replace(row, n_synthetic=n if goes_on else 0))
        return Plan(tuple(rows)), notes

    def earlier(self, plan: Plan, seed: int) -> dict[int, EarlierSamples]:
        """By label of the plan, the samples of the classes that are to be drawn."""
        found = {}
        for row in plan:
            if row.n_synthetic:
                there = self._of_seed(row.name, seed)
                # Read wherever the class is drawn.
                manifest = replace(self.manifest, folder=self.folder.absolute())
                images = _ImagesOfClass(manifest, row.name)
                found[row.label] = EarlierSamples(there.candidates, there.accepted, images)
        return found

    def _of_seed(self, name: str, seed: int) -> "_Drawn":
        """What was drawn of a class by one seed."""
        drawn = _Drawn()
        for generation in self.manifest.history:
            for entry in generation.classes:
                if entry.name == name and generation.run_seed == seed:
                    drawn = _Drawn(
                        wanted=drawn.accepted + entry.n_synthetic,
                        accepted=drawn.accepted + entry.accepted,
                        candidates=drawn.candidates + entry.candidates,
                    )
        return drawn

    def joined(self, result: RunResult, plan: Plan, asked: Mapping[str, Any]) -> RunResult:
        """The dataset with a generation more.

        Args:
            result: The new samples.
            plan: The plan of the whole dataset.
            asked: Keys that have another value than before.
        """
        before, new = self.manifest, result.manifest
        names = new.class_names
        totals = {entry.name: entry for entry in before.classes}
        classes = tuple(
            self._total(totals.get(entry.name), entry, row.n_synthetic, new)
            for entry, row in zip(new.classes, plan, strict=True)
        )
        near = _near(before), _near(new)
        extra = {**new.extra, "plan": plan.to_json()}
        extra["samplers"] = {
            name: _both(before.extra.get("samplers", {}).get(name), text)
            for name, text in new.extra["samplers"].items()
        }
        extra["nearness"] = nearness(
            classes, {e.label: near[0].get(e.name, 0) + near[1].get(e.name, 0) for e in classes}
        )
        if before.excluded:
            extra[EXCLUDED] = before.extra[EXCLUDED]
        measures = {}
        if self.result.searched is not None:
            extra |= {name: before.extra[name] for name in ("recipe", "search")}
            measures = {k: v for k, v in self.result.measures.items() if k == "search"}
        soft = bool(extra["recipe"].get("soft"))
        added = sorted({*names} - {*before.class_names})
        generations = (
            *(
                replace(
                    generation,
                    classes=tuple(
                        replace(entry, label=names.index(entry.name))
                        for entry in generation.classes
                    ),
                    may_mix=f"its soft labels know nothing of {', '.join(added)}"
                    if soft and added and generation.may_mix is True
                    else generation.may_mix,
                )
                for generation in before.history
            ),
            Generation(
                asked=dict(asked),
                classes=tuple(entry for entry in new.classes if entry.n_synthetic),
                shards=tuple(entry.path for entry in new.shards),
                class_names=names,
                real_counts=new.real_counts,
                data_fingerprint=new.data_fingerprint,
                model_sha256=new.model_sha256,
                config_sha256=new.config_sha256,
                run_seed=new.run_seed,
                versions=new.versions,
            ),
        )
        shards = tuple(
            replace(entry, label=names.index(entry.class_name)) for entry in before.shards
        )
        manifest = replace(
            new,
            classes=classes,
            shards=(*shards, *new.shards),
            complete=all(entry.accepted >= entry.n_synthetic for entry in classes),
            extra=extra,
            generations=generations,
        )
        return replace(result, manifest=manifest, measures=measures)

    def _total(
        self, before: ClassEntry | None, new: ClassEntry, planned: int, manifest: Manifest
    ) -> ClassEntry:
        """What was requested, drawn and accepted of a class in all generations."""
        if before is None:
            return new
        there = self._of_seed(new.name, manifest.run_seed)
        reasons = dict.fromkeys([*before.rejected, *new.rejected])
        return replace(
            new,
            n_synthetic=before.n_synthetic - there.wanted + max(planned, there.accepted),
            accepted=before.accepted + new.accepted,
            rejected={
                name: before.rejected.get(name, 0) + new.rejected.get(name, 0) for name in reasons
            },
            candidates=before.candidates + new.candidates,
        )


@dataclass(frozen=True)
class _Drawn:
    """Samples of one class and seed: how many were wanted, accepted and judged."""

    wanted: int = 0
    accepted: int = 0
    candidates: int = 0


@dataclass(frozen=True)
class _ImagesOfClass:
    """The samples of one class of a dataset, a few megabytes at a time."""

    manifest: Manifest
    name: str

    def __iter__(self) -> Iterator[Shaped[np.ndarray, "n *space c"]]:
        for entry in self.manifest.shards:
            if entry.class_name == self.name:
                with Shard(self.manifest.path_of(entry.path)) as shard:
                    yield from map(np.asarray, shard.store.blocks())


def _near(manifest: Manifest) -> dict[str, int]:
    """By class, samples that lie near to a training image, as the manifest says."""
    shares = (manifest.extra.get("nearness") or {}).get("classes", {})
    return {e.name: round(shares.get(e.name, 0.0) * e.accepted) for e in manifest.classes}


def _both(before: str | None, new: str) -> str:
    """The samplers of a class in all generations, each once."""
    samplers = [text for part in (before or "", new) for text in part.split(", ") if text]
    return ", ".join(dict.fromkeys(samplers))
