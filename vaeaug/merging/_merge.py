"""`merge`: a real dataset and a run folder as one dataset, after checking that they match."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from vaeaug.merging._joined import Runs, manifests_of, synthetic_of
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
from vaeaug.shards import Manifest, warn_if_unhelpful
from vaeaug.strata import rare_classes


def merge(
    real: Any,
    out_dir: Runs,
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
    """Merge real and synthetic images into one torch ``Dataset``, by default as the run planned.

    The plan of the run sets the size of each class. By default, all classes are as large as the
    largest and have the same synthetic share; real images are repeated if a class has too few. The
    classes are then balanced, and a synthetic look carries no information about the class.

    With a share s, a class of n slots for real images gets n / (1 - s) slots, of which
    ``round(s * slots)`` are synthetic. Every real image occurs at least once. If ``vaeaug
    evaluate`` found that the data does not help, a warning is issued; if the run was not evaluated,
    this is logged once.

    Args:
        real: Either an object with ``images`` (n, space..., channels) ``uint8`` or ``float32``,
            ``labels``, ``class_names``, ``fingerprint`` and ``value_range``, as ``vaeaug.read``
            returns; or a map-style torch ``Dataset`` of (image, label), where an image is a PIL
            image, a tensor (C, space...) or an array (space..., C), and a single channel may be
            left out; or a Hugging Face ``datasets.Dataset`` with one column of images and one of
            labels; or anything else that ``vaeaug.read`` accepts (a path, arrays, ...), which is
            read as the run read it. The ``classes`` and ``fingerprint`` of a dataset are checked if
            it has them; otherwise its classes are assumed to be those of the run, in the same
            order. Its labels come from ``targets`` or ``labels``, or from reading it once. Shape,
            type and values of its first image are checked at once, those of the others when they
            are read. **Not checked** without a fingerprint: whether it is the training split of the
            generator or, by mistake, the test split.
        out_dir: A finished run folder (or its manifest, or an open ``ShardDataset``); or several
            that were made from the same data. Then the plan and the recipe are those of the first,
            and a sample that two have is used once.
        share: Synthetic fraction of the slots: a number in [0, 1) for all classes; a mapping from
            class name or index to such numbers (0 for classes that it does not name); or "all" for
            every real and every synthetic image once, whatever the resulting shares. None: that of
            the run's search, or of its plan, or 0.3 for every class.
        balance: "plan" makes the classes as large as the plan of the run, with each real image
            repeated about equally often. "classes" gives every class as many slots as the largest
            has, whatever the plan (class-balanced oversampling). None keeps the real class counts.
        transform: Applied to the image tensors, real and synthetic alike.
        seed: Seed of the assignment of images to slots.
        on_mismatch: "ignore" accepts a real dataset whose fingerprint differs from that of the
            generator's training split. Mismatching shapes, types and class names are always errors.
        return_is_synthetic: Items have a third entry, True for a synthetic image.
        class_names: Class names of the real dataset in the order of its labels, if it does not have
            them or they differ from those of the run.
        soft: Labels are class probabilities, float32 (K,): those of the run for synthetic images
            (one-hot if the run has none), and one-hot for real images. None: as in the recipe of
            the run.
        value_range: Lowest and highest possible value of the images of a torch dataset. Default:
            that of the run if the type is the same, 0 to 255 for ``uint8``, otherwise 0 to 1. If
            type or range differ from those of the run, the synthetic images are converted to those
            of the real ones.
        details: Items are (image, label, is_synthetic, weight), which :func:`collate` turns into
            batches.

    Returns:
        The merged dataset, in the real dataset's order of classes.

    Raises:
        MergeError: If real and synthetic images do not match, or the share is impossible.
        ShardError: If the run folder has no manifest or a shard is damaged.

    Warns:
        UserWarning: If a class has no synthetic samples and therefore a share of 0, or if the
            evaluation found that the synthetic data does not help.
    """
    if on_mismatch not in ("error", "ignore"):
        raise MergeError(f"on_mismatch: expected 'error' or 'ignore', got {on_mismatch!r}")
    if balance not in (None, "plan", "classes"):
        raise MergeError(f"balance: expected 'plan', 'classes' or None, got {balance!r}")
    synthetic = synthetic_of(out_dir, on_mismatch)
    source = real_source(real, synthetic, class_names, value_range)
    check_belongs(source, synthetic, on_mismatch)
    recipe = synthetic.manifest.extra.get("recipe") or {}
    if share is None:
        share = share_of_run(synthetic.manifest)
    soft = bool(recipe.get("soft", False)) if soft is None else soft
    for manifest in manifests_of(synthetic):
        if share != 0:
            warn_if_unhelpful(manifest, stacklevel=2)
        reasons = [each.may_mix for each in manifest.generations if each.may_mix is not True]
        if soft and reasons:
            raise MergeError(f"{manifest.folder}: soft: expected False, for {reasons[0]}")
    return MergedDataset(
        source,
        synthetic,
        share=share,
        balance=balance,
        transform=transform,
        seed=seed,
        return_is_synthetic=return_is_synthetic,
        details=details,
        soft=soft,
        recipe=recipe,
    )


def share_of_run(manifest: Manifest) -> Share | None:
    """Return the synthetic share of a run: that of its recipe, or None to follow its plan.

    Args:
        manifest: Manifest of the run.

    Returns:
        A share for all classes, a share for each rare class by name, or None.
    """
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
    """Count the images of each class that `merge` returns for a run and its real images.

    Args:
        manifest: Manifest of the run.

    Returns:
        Counts by class, in the order of the labels.
    """
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
