"""`merge`: a real dataset and a run folder become one dataset, checked to belong together."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vaeaug.merging._merged_dataset import MergedDataset
from vaeaug.merging._real import check_belongs, real_source
from vaeaug.merging._slots import (
    DEFAULT_SHARE,
    Balance,
    ClassCounts,
    MergeError,
    Share,
    class_counts,
    planned_of,
    slot_counts,
)
from vaeaug.shards import Manifest, ShardDataset, say_verdict
from vaeaug.strata import rare_classes


def merge(
    real: Any,
    out_dir: str | Path | Manifest | ShardDataset,
    share: Share | None = None,
    *,
    balance: Balance = "plan",
    transform: Callable[[Any], Any] | None = None,
    seed: int = 0,
    on_mismatch: Literal["error", "ignore"] = "error",
    return_is_synthetic: bool = False,
    class_names: Sequence[str] | None = None,
    soft: bool | None = None,
    details: bool = False,
    value_range: tuple[float, float] | None = None,
) -> MergedDataset:
    """Real and synthetic images as one torch ``Dataset``, by default as the run planned them.

    The run's plan says how large each class is: by default as large as the largest, each with the
    same synthetic share, real images repeated where a class has fewer. So the classes are balanced,
    and nothing that looks synthetic tells one from another.

    With a share s, a class of n slots for real images gets n / (1 - s) slots, of which
    ``round(s * slots)`` are synthetic. Every real image occurs at least once. What
    ``vaeaug evaluate`` found is said: where it found that the data does not help as a warning,
    where nothing was evaluated once in the log.

    Args:
        real: Either an object with ``images`` (n, space..., channels) ``uint8`` or ``float32``,
            ``labels``, ``class_names``, ``fingerprint`` and ``value_range``, as ``vaeaug.read``
            returns; or a map-style torch ``Dataset`` of (PIL image, tensor (C, space...) or array
            (space..., C); label), where one channel may be left out, or a Hugging Face
            ``datasets.Dataset`` with one column of images and one of labels. Of these, ``classes``
            and ``fingerprint`` are checked where it has them; else the class names are taken to be
            those of the run, in its order. Its labels come from ``targets`` or ``labels``, else
            from reading it once. Shape, type and values of its first image are checked, those of
            the others when they are read. Or anything else that ``vaeaug.read`` takes (a path,
            arrays, ...), read as the run read it. **Not checked** without a fingerprint: that it is
            the split that the generator saw, and not the test split.
        out_dir: A finished run folder (or its manifest, or an open ``ShardDataset``).
        share: Part of the slots that is synthetic: a number in [0, 1) for all classes; a mapping
            from class name or index to such a number (0 for classes it does not name); or "all"
            for every real and every synthetic image once, whatever the shares then are. None is
            that of the run: of its search, else of its plan, else 0.3 of every class.
        balance: "plan" makes the classes as large as the run's plan wants them, real images
            repeated in whole turns. "classes" gives every class as many slots as the largest has,
            whatever was planned (class-balanced oversampling). None keeps the real class counts.
        transform: Applied to the image tensor, real and synthetic alike.
        seed: Which synthetic image fills which slot.
        on_mismatch: "ignore" accepts a real dataset with another fingerprint than the one that the
            generator saw. Shapes, types and class names are never ignored.
        return_is_synthetic: Items have a third entry, True for a synthetic image.
        class_names: Names of the real dataset's classes in the order of its labels, where it does
            not say them, or says others than the run.
        soft: Labels are class probabilities, float32 (K,): those of the run, which are one-hot
            where it has none, and one-hot for real images. None is the run's recipe.
        value_range: Lowest and highest value of the images of a torch dataset, which says none: by
            default those of the run where the type is the same, 0 to 255 for ``uint8``, else 0 to
            1. Where type or range are others than the run's, the samples are given in those of the
            real images.
        details: Items are of (image, label, is_synthetic, weight), which :func:`collate` makes
            into batches.

    Returns:
        The merged dataset, in the real dataset's order of classes.

    Raises:
        MergeError: If real and synthetic images do not belong together, or the share is impossible.
        ShardError: If the run folder has no manifest or a shard is damaged.

    Warns:
        UserWarning: If some class has no synthetic samples and so a share of 0, or if the gate
            found that the synthetic data does not help.
    """
    if on_mismatch not in ("error", "ignore"):
        raise MergeError(f"on_mismatch: expected 'error' or 'ignore', got {on_mismatch!r}")
    if balance not in (None, "plan", "classes"):
        raise MergeError(f"balance: expected 'plan', 'classes' or None, got {balance!r}")
    synthetic = out_dir if isinstance(out_dir, ShardDataset) else ShardDataset(out_dir)
    source = real_source(real, synthetic, class_names, value_range)
    check_belongs(source, synthetic, on_mismatch)
    recipe = synthetic.manifest.extra.get("recipe") or {}
    if share is None:
        share = share_of_run(synthetic.manifest)
    if share != 0:
        say_verdict(synthetic.manifest, stacklevel=2)
    return MergedDataset(
        source,
        synthetic,
        share=share,
        balance=balance,
        transform=transform,
        seed=seed,
        return_is_synthetic=return_is_synthetic,
        details=details,
        soft=bool(recipe.get("soft", False)) if soft is None else soft,
        recipe=recipe,
    )


def share_of_run(manifest: Manifest) -> Share | None:
    """The share that a run stands for: its recipe's; None where that is left to its plan."""
    recipe = manifest.extra.get("recipe") or {}
    if recipe.get("origin") == "default" and manifest.extra.get("plan"):
        return None
    share = float(recipe.get("share", DEFAULT_SHARE))
    if recipe.get("classes", "all") == "all" or share == 0:
        return share
    rare = rare_classes(np.array(manifest.real_counts))
    return {
        name: share for name, is_rare in zip(manifest.class_names, rare, strict=True) if is_rare
    }


def counts_of_run(manifest: Manifest) -> list[ClassCounts]:
    """What `merge` of a run and the real images that it was made from gives, class by class."""
    accepted = [entry.accepted for entry in manifest.classes]
    slots = slot_counts(
        manifest.real_counts,
        accepted,
        share=share_of_run(manifest),
        balance="plan",
        planned=planned_of(manifest.extra.get("plan"), manifest.class_names),
        class_names=manifest.class_names,
    )
    return class_counts(manifest.class_names, manifest.real_counts, accepted, slots)
