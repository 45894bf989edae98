"""`merge`: a real dataset and a run folder become one dataset, checked to belong together."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vaeaug.merging._dataset import MergedDataset
from vaeaug.merging._real import check_belongs, real_source
from vaeaug.merging._slots import MergeError, Share, rare_classes
from vaeaug.shards import Manifest, ShardDataset, say_verdict

DEFAULT_SHARE = 0.3


def merge(
    real: Any,
    out_dir: str | Path | Manifest | ShardDataset,
    share: Share | None = None,
    *,
    balance: Literal["classes"] | None = None,
    transform: Callable[[Any], Any] | None = None,
    seed: int = 0,
    on_mismatch: Literal["error", "ignore"] = "error",
    return_is_synthetic: bool = False,
    class_names: Sequence[str] | None = None,
    soft: bool | None = None,
    details: bool = False,
) -> MergedDataset:
    """Real and synthetic images as one torch ``Dataset``, by default as the run's recipe says.

    What ``vaeaug evaluate`` found is said: where it found that the data does not help as a
    warning, where nothing was evaluated once in the log.

    With a share s, a class of n real images gets n / (1 - s) slots, of which ``round(s * slots)``
    are synthetic: every real image occurs once, and every class has the same synthetic share.

    Args:
        real: Either an object with ``images`` (n, space..., channels) ``uint8`` or ``float32``,
            ``labels``, ``class_names``, ``fingerprint`` and ``value_range``, as ``vaeaug.read``
            returns; or a map-style torch ``Dataset`` of (PIL image, tensor (C, space...) or array
            (space..., C); label), where one channel may be left out, or a Hugging Face
            ``datasets.Dataset`` with one column of images and one of labels. Of these, ``classes``
            and ``fingerprint`` are checked where it has them; else the class names are taken to be
            those of the run, in its order. Its labels come from ``targets`` or ``labels``, else
            from reading it once. Shape, type and values of its first image are checked, those of
            the others when they are read. **Not checked** without a fingerprint: that it is the
            split that the generator saw, and not the test split.
        out_dir: A finished run folder (or its manifest, or an open ``ShardDataset``).
        share: Part of the slots that is synthetic: a number in [0, 1) for all classes; a mapping
            from class name or index to such a number (0 for classes it does not name); or "all"
            for every real and every synthetic image once, whatever the shares then are. None is
            the run's recipe: that of its search, or 0.3 of every class.
        balance: None keeps the real class counts. "classes" gives every class as many slots as the
            largest has, real images repeated in whole turns (class-balanced oversampling).
        transform: Applied to the image tensor, real and synthetic alike.
        seed: Which synthetic image fills which slot.
        on_mismatch: "ignore" accepts a real dataset with another fingerprint than the one that the
            generator saw. Shapes, types and class names are never ignored.
        return_is_synthetic: Items have a third entry, True for a synthetic image.
        class_names: Names of the real dataset's classes in the order of its labels, where it does
            not say them, or says others than the run.
        soft: Labels are class probabilities, float32 (K,): those of the run, which are one-hot
            where it has none, and one-hot for real images. None is the run's recipe.
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
    if balance not in (None, "classes"):
        raise MergeError(f"balance: expected None or 'classes', got {balance!r}")
    synthetic = out_dir if isinstance(out_dir, ShardDataset) else ShardDataset(out_dir)
    source = real_source(real, synthetic, class_names)
    check_belongs(source, synthetic, on_mismatch)
    recipe = synthetic.manifest.extra.get("recipe") or {}
    if share is None:
        share = _recipe_share(recipe, synthetic.manifest)
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


def _recipe_share(recipe: Mapping[str, Any], manifest: Manifest) -> Share:
    """The share of a run's recipe, by class name where it is for the rare classes alone."""
    share = float(recipe.get("share", DEFAULT_SHARE))
    if recipe.get("classes", "all") == "all" or share == 0:
        return share
    rare = rare_classes(np.array(manifest.real_counts))
    return {name: share for name, each in zip(manifest.class_names, rare, strict=True) if each}
