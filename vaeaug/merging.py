"""Real and synthetic images as one dataset for a trainer.

Every class gets the same synthetic share unless asked otherwise: replacing draws of only the rare
classes was measured to cost 3 to 4 points of balanced accuracy, because blur becomes a cue for
"rare class".
"""

import logging
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch.utils.data import Dataset

from vaeaug.shards import Manifest, ShardDataset
from vaeaug.shards._files import published_hdf5
from vaeaug.shards._format import blocks, library_versions

Share = float | Mapping[int | str, float] | Literal["all"]
Label = int | torch.Tensor  # an index, or with soft=True (K,) float32
Item = tuple[Any, Label] | tuple[Any, Label, bool]

_log = logging.getLogger("vaeaug")
_SYNTHETIC, _REAL = 1, 0  # last word of the key of a class's random order
DEFAULT_SHARE = 0.3
_said: set[str] = set()


class MergeError(ValueError):
    """A real dataset and a run folder that do not belong together, or an impossible share."""


class MergedDataset(Dataset[Item]):
    """A map-style dataset of slots, each filled by a real or a synthetic image.

    The class of a slot never changes, nor does its kind but where a recipe ends on real images;
    :meth:`set_epoch` changes which image fills it. Slots are ordered by class, real before
    synthetic, so a trainer has to shuffle.

    Items are ``(image, label)``, or ``(image, label, is_synthetic)``: the image a ``uint8`` or
    ``float32`` tensor with channels first, (C, L), (C, H, W) or (C, D, H, W), the label in the
    order of the real dataset's classes; with ``soft`` class probabilities in that order, a
    ``float32`` tensor (K,). Made by :func:`merge`.

    Attributes:
        class_names: Names in the order of the labels.
        labels: (slots,) int64.
        is_synthetic: (slots,) bool.
        index: (slots,) int64: row in the real or in the synthetic dataset, for this epoch.
        epoch: The epoch of ``index``.
        real: The real dataset as handed in.
        synthetic: The synthetic samples.
        recipe: How the run's synthetic samples are meant to be used, as in its manifest. What a
            dataset cannot do is left to the trainer: ``weights`` in the loss, and
            ``separate_batch_norm``.
    """

    def __init__(
        self,
        source: "_RealSource",
        synthetic: ShardDataset,
        *,
        share: Share,
        balance: Literal["classes"] | None,
        transform: Callable[[Any], Any] | None,
        seed: int,
        return_is_synthetic: bool,
        soft: bool = False,
        recipe: Mapping[str, Any] | None = None,
    ) -> None:
        self.soft = bool(soft)
        self.recipe = dict(recipe or {})
        self.class_names = source.class_names
        self.real = source.given
        self.synthetic = synthetic
        self.transform = transform
        self.return_is_synthetic = return_is_synthetic
        self.seed = int(seed)
        self._source = source
        k = len(self.class_names)
        to_real = np.array([source.class_names.index(n) for n in synthetic.class_names])
        self._to_real = to_real
        self._synthetic_labels = to_real[synthetic.labels]
        self._real_rows = _rows_by_class(source.labels, k)
        self._synthetic_rows = _rows_by_class(self._synthetic_labels, k)
        n_real = [len(rows) for rows in self._real_rows]
        n_synthetic = [len(rows) for rows in self._synthetic_rows]
        self._slots = _slot_counts(n_real, n_synthetic, share, balance, self.class_names)

        self.labels: Int64[np.ndarray, " slots"] = np.repeat(
            np.arange(k), [sum(slots) for slots in self._slots]
        ).astype(np.int64)
        self.is_synthetic: Bool[np.ndarray, " slots"]
        self.set_epoch(0)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def weights(self) -> Float32[np.ndarray, " slots"]:
        """Loss weight of every slot in this epoch: 1, or the shard's times the recipe's."""
        weights = np.ones(len(self), dtype=np.float32)
        made = self.is_synthetic
        weights[made] = self.synthetic.weight[self.index[made]] * self.recipe.get("weight", 1.0)
        return weights

    def set_epoch(self, epoch: int, n_epochs: int | None = None) -> None:
        """Fill the slots anew; a pure function of (seed, epoch, n_epochs).

        A class whose pool is larger than its slots goes through the whole pool: with P samples for
        r slots, every ``ceil(P / r)`` epochs use each sample at least once, and no epoch uses one
        twice. A pool smaller than its slots is used in whole turns first. Call it before the
        ``DataLoader`` is iterated; workers kept alive (``persistent_workers=True``) do not see it.

        Args:
            epoch: Number of the epoch, from 0.
            n_epochs: Epochs of the whole training. Given, the recipe's ``real_only_last`` is
                followed: in so large a part of them, at the end, every slot is real.
        """
        epoch = operator.index(epoch)
        if epoch < 0 or (n_epochs is not None and epoch >= n_epochs):
            at_most = "" if n_epochs is None else f" below n_epochs {n_epochs}"
            raise MergeError(f"epoch: expected an integer >= 0{at_most}, got {epoch}")
        last = self.recipe.get("real_only_last", 0.0)
        only_real = n_epochs is not None and epoch >= round((1 - last) * n_epochs)
        planned = [
            _Slots(sum(each), 0) if only_real and each.real else each for each in self._slots
        ]
        self.is_synthetic = np.concatenate(
            [np.repeat([False, True], [slots.real, slots.synthetic]) for slots in planned]
        )
        index = []
        for label, slots in enumerate(planned):
            for rows, n, kind in (
                (self._real_rows[label], slots.real, _REAL),
                (self._synthetic_rows[label], slots.synthetic, _SYNTHETIC),
            ):
                index.append(rows[_fill(len(rows), n, epoch, (self.seed, label, kind))])
        self.index: Int64[np.ndarray, " slots"] = np.concatenate(index)
        self.epoch = epoch

    def __getitem__(self, index: int) -> Item:
        """The item in slot ``index``."""
        i = operator.index(index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"expected an index in [{-len(self)}, {len(self)}), got {i}")
        return self.__getitems__([i])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """The items of a batch; each source is read once. ``DataLoader`` calls this by itself."""
        slots = np.asarray(indices, dtype=np.int64)
        labels: Sequence[Label] = self.labels[slots].tolist()
        if self.soft:
            labels = torch.from_numpy(self.soft_labels_at(slots)).unbind(0)
        items = []
        for image, label, slot in zip(self._images(slots), labels, slots.tolist(), strict=True):
            is_synthetic = bool(self.is_synthetic[slot])
            seen = image if self.transform is None else self.transform(image)
            items.append((seen, label, is_synthetic) if self.return_is_synthetic else (seen, label))
        return cast(list[Item], items)

    def soft_labels_at(self, slots: Sequence[int] | np.ndarray) -> Float32[np.ndarray, "n k"]:
        """Class probabilities in this epoch: one-hot for a real image, the shard's for others."""
        slots = np.asarray(slots, dtype=np.int64)
        rows = np.zeros((len(slots), len(self.class_names)), dtype=np.float32)
        rows[np.arange(len(slots)), self.labels[slots]] = 1
        made = self.is_synthetic[slots]
        # Column j of the shards is the class that the real dataset numbers _to_real[j].
        found = np.empty((int(made.sum()), rows.shape[1]), dtype=np.float32)
        found[:, self._to_real] = self.synthetic.soft_labels_at(self.index[slots[made]])
        rows[made] = found
        return rows

    def __repr__(self) -> str:
        made = int(self.is_synthetic.sum())
        return (
            f"MergedDataset({len(self)} images, {made} of them synthetic, "
            f"{len(self.class_names)} classes)"
        )

    def _images(self, slots: np.ndarray) -> list[torch.Tensor]:
        images: list[torch.Tensor] = [torch.empty(0)] * len(slots)
        made = self.is_synthetic[slots]
        for at, gather in (
            (np.flatnonzero(made), self._gather_synthetic),
            (np.flatnonzero(~made), self._source.take),
        ):
            if at.size:
                found = gather(self.index[slots[at]])
                for position, image in zip(at.tolist(), found, strict=True):
                    images[position] = image
        return images

    def _gather_synthetic(self, rows: np.ndarray) -> Iterable[torch.Tensor]:
        return _channels_first(self.synthetic.images_at(rows)).unbind(0)


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
            (space..., C); label), where one channel may be left out. Of the latter, ``classes`` and
            ``fingerprint`` are checked where it has them; else the class names are taken to be
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
    source = _real_source(real, synthetic, class_names)
    _check_belongs(source, synthetic, on_mismatch)
    recipe = synthetic.manifest.extra.get("recipe") or {}
    if share is None:
        share = _recipe_share(recipe, synthetic.manifest)
    if share != 0:
        _say_what_the_gate_found(synthetic.manifest)
    return MergedDataset(
        source,
        synthetic,
        share=share,
        balance=balance,
        transform=transform,
        seed=seed,
        return_is_synthetic=return_is_synthetic,
        soft=bool(recipe.get("soft", False)) if soft is None else soft,
        recipe=recipe,
    )


def write_merged(
    real: Any,
    out_dir: str | Path | Manifest | ShardDataset,
    to: str | Path,
    *,
    share: Share | None = None,
    balance: Literal["classes"] | None = None,
    seed: int = 0,
    on_mismatch: Literal["error", "ignore"] = "error",
    class_names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write real and synthetic images into one HDF5 file, in the order of the slots of ``merge``.

    The file has ``images`` (contiguous, channels last), ``labels`` int64, ``is_synthetic`` bool,
    ``source_index`` int64 (row in the real or the synthetic dataset) and ``weight`` float32, and
    the attributes ``format="vaeaug-merged"``, ``format_version``, ``class_names``,
    ``image_value_range``, ``layout``, ``data_fingerprint``, ``model_sha256``, ``config_sha256``
    and library versions. It appears whole or not at all, and only a few megabytes of it are in
    memory at a time.

    Args:
        real: As for :func:`merge`.
        out_dir: As for :func:`merge`.
        to: The file to write.
        share: As for :func:`merge`.
        balance: As for :func:`merge`.
        seed: As for :func:`merge`.
        on_mismatch: As for :func:`merge`.
        class_names: As for :func:`merge`.
        overwrite: Replace a file that is there.

    Returns:
        ``to`` as a path.

    Raises:
        MergeError: As for :func:`merge`, or if ``to`` exists.
        ShardError: As for :func:`merge`, or if the file cannot be written.
    """
    path = Path(to)
    if path.exists() and not overwrite:
        raise MergeError(f"{path}: expected no such file (or overwrite), got one")
    merged = merge(
        real,
        out_dir,
        share,
        balance=balance,
        seed=seed,
        on_mismatch=on_mismatch,
        class_names=class_names,
    )
    manifest, n = merged.synthetic.manifest, len(merged)
    shape, dtype = (n, *manifest.image_shape), merged.synthetic.dtype.newbyteorder("<")
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    columns = {
        "labels": merged.labels.astype("<i8"),
        "is_synthetic": merged.is_synthetic,
        "source_index": merged.index.astype("<i8"),
        "weight": merged.weights.astype("<f4"),
    }
    attributes: dict[str, Any] = {
        "format": "vaeaug-merged",
        "format_version": np.int64(1),
        "layout": manifest.layout,
        "class_names": list(merged.class_names),
        "image_value_range": np.array(manifest.value_range, dtype="<f8"),
        "data_fingerprint": manifest.data_fingerprint,
        "model_sha256": manifest.model_sha256,
        "config_sha256": manifest.config_sha256,
        **{f"{name}_version": text for name, text in library_versions().items()},
    }
    needed = n * row_bytes + sum(values.nbytes for values in columns.values())
    with published_hdf5(path, needed=needed, kept="the run folder is untouched") as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        for name, values in columns.items():
            file.create_dataset(name, data=values, track_times=False)
        images = file.create_dataset("images", shape=shape, dtype=dtype, track_times=False)
        for start, stop in blocks(n, row_bytes):
            block = torch.stack(merged._images(np.arange(start, stop)))
            images[start:stop] = block.movedim(1, -1).numpy()
    return path


def _recipe_share(recipe: Mapping[str, Any], manifest: Manifest) -> Share:
    """The share of a run's recipe, by class name where it is for the rare classes alone."""
    share = float(recipe.get("share", DEFAULT_SHARE))
    if recipe.get("classes", "all") == "all" or share == 0:
        return share
    rare = rare_classes(np.array(manifest.real_counts))
    return {name: share for name, each in zip(manifest.class_names, rare, strict=True) if each}


def rare_classes(counts: Int64[np.ndarray, " k"]) -> Bool[np.ndarray, " k"]:
    """Classes with fewer images than the mean of those that have any."""
    return (counts > 0) & (counts < counts[counts > 0].mean())


def _say_what_the_gate_found(manifest: Manifest) -> None:
    """Nothing harms in silence."""
    gate = manifest.gate
    where = str(manifest.folder)
    if isinstance(gate, str):
        if where not in _said:
            _said.add(where)
            _log.warning(
                "%s: not evaluated: whether this synthetic data helps is not known; "
                "`vaeaug evaluate DATA OUT` measures it",
                where,
            )
    elif gate.get("verdict") == "does not help":
        warnings.warn(
            f"{where}: the evaluation found: {gate.get('sentence')} share=0 trains on real images "
            "alone.",
            UserWarning,
            stacklevel=3,
        )


class _Slots(NamedTuple):
    real: int
    synthetic: int


def _slot_counts(
    n_real: Sequence[int],
    n_synthetic: Sequence[int],
    share: Share,
    balance: str | None,
    class_names: Sequence[str],
) -> list[_Slots]:
    """Real and synthetic slots of every class."""
    if share == "all":
        if balance is not None:
            raise MergeError("share 'all' uses every image once: expected balance None with it")
        _warn_without_synthetic(n_real, n_synthetic, class_names)
        return [_Slots(*counts) for counts in zip(n_real, n_synthetic, strict=True)]
    shares = _shares(share, class_names)
    without = [0 if s > 0 else 1 for s in shares]
    _warn_without_synthetic(n_real, np.maximum(n_synthetic, without).tolist(), class_names)
    shares = [s if n > 0 else 0.0 for s, n in zip(shares, n_synthetic, strict=True)]
    # m = round(n s / (1 - s)) is within (1 - s) / 2 < 1/2 of s (n + m): it is round(s (n + m)).
    slots = [_Slots(n, round(n * s / (1 - s))) for n, s in zip(n_real, shares, strict=True)]
    if balance is None:
        return slots
    most = max(sum(counts) for counts in slots)
    if 0 in n_real:
        empty = [name for name, n in zip(class_names, n_real, strict=True) if n == 0]
        raise MergeError(
            f"balance 'classes': expected real images of every class, got none of {empty}"
        )
    return [_Slots(most - round(s * most), round(s * most)) for s in shares]


def _shares(share: Any, class_names: Sequence[str]) -> list[float]:
    if not isinstance(share, Mapping):
        return [_fraction(share, "share")] * len(class_names)
    shares = [0.0] * len(class_names)
    named: set[int] = set()
    for key, value in share.items():
        label = class_names.index(key) if key in class_names else key
        known = isinstance(label, (int, np.integer)) and 0 <= label < len(class_names)
        if not known or int(label) in named:
            raise MergeError(
                f"share: expected each class once, by a name or index of {tuple(class_names)}, "
                f"got {key!r}"
            )
        named.add(int(label))
        shares[int(label)] = _fraction(value, f"share[{key!r}]")
    return shares


def _fraction(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < 1:
        raise MergeError(f"{what}: expected a number in [0, 1), or 'all', got {value!r}")
    return number


def _warn_without_synthetic(
    n_real: Sequence[int], n_synthetic: Sequence[int], class_names: Sequence[str]
) -> None:
    counts = zip(class_names, n_real, n_synthetic, strict=True)
    missing = [name for name, real, made in counts if real > 0 and made == 0]
    if missing:
        warnings.warn(
            f"no synthetic samples of the classes {missing}: their synthetic share is 0. Unequal "
            f"shares were measured to hurt the rare classes, because blur becomes a cue for the "
            f"class. Generate for every class (plan.min_share in the configuration), or use "
            f"share=0 to train on real images only.",
            UserWarning,
            stacklevel=5,
        )


def _fill(n_pool: int, n: int, epoch: int, key: tuple[int, int, int]) -> np.ndarray:
    """Which ``n`` of a pool fill the slots of an epoch: whole turns, then a moving window.

    The window of r = n mod n_pool slots moves over one permutation for ceil(n_pool / r) epochs and
    wraps at its end, so it never holds a sample twice and leaves none out.
    """
    if n == 0:
        return np.empty(0, dtype=np.int64)
    turns, rest = divmod(n, n_pool)
    parts = [np.arange(n_pool)] * turns
    if rest:
        round_, step = divmod(epoch, -(-n_pool // rest))
        seed, label, kind = key
        generator = np.random.Generator(
            np.random.Philox(
                np.random.SeedSequence([abs(seed), int(seed < 0), label, kind, round_])
            )
        )
        order = generator.permutation(n_pool)
        parts.append(order[(step * rest + np.arange(rest)) % n_pool])
    return np.concatenate(parts)


def _rows_by_class(labels: np.ndarray, n_classes: int) -> list[np.ndarray]:
    return [np.flatnonzero(labels == label) for label in range(n_classes)]


class _RealSource:
    """The real images behind one interface: their labels, what they say, and rows of tensors."""

    def __init__(
        self,
        given: Any,
        labels: np.ndarray,
        class_names: tuple[str, ...],
        *,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        arrays: np.ndarray | None,
    ) -> None:
        self.given = given
        self.labels = labels
        self.class_names = class_names
        self.shape = shape
        self.dtype = dtype
        self.fingerprint: str | None = getattr(given, "fingerprint", None)
        value_range = getattr(given, "value_range", None)
        self.value_range = None if value_range is None else tuple(float(v) for v in value_range)
        self._arrays = arrays

    def take(self, rows: np.ndarray) -> Iterable[torch.Tensor]:
        """Channels-first tensors of ``rows``, in that order."""
        if self._arrays is not None:
            return _channels_first(self._arrays[rows]).unbind(0)
        if hasattr(self.given, "__getitems__"):
            items = self.given.__getitems__(rows.tolist())
        else:
            items = [self.given[row] for row in rows.tolist()]
        images = []
        for row, item in zip(rows.tolist(), items, strict=True):
            image = _image(item, row, len(self.shape))
            if image.shape != self.shape or image.dtype != self.dtype:
                raise MergeError(
                    f"real dataset[{row}]: expected {self.dtype.name} of shape {self.shape}, got "
                    f"{image.dtype.name} of shape {image.shape}"
                )
            images.append(torch.from_numpy(np.moveaxis(image, -1, 0).copy()))
        return images


def _real_source(
    real: Any, synthetic: ShardDataset, class_names: Sequence[str] | None
) -> _RealSource:
    """Read labels and first image of ``real``, whatever it is."""
    names = class_names
    if hasattr(real, "images") and hasattr(real, "class_names"):
        arrays = np.asarray(real.images)
        labels = np.asarray(real.labels)
        names = real.class_names if names is None else names
        shape, dtype = tuple(arrays.shape[1:]), arrays.dtype
        if labels.shape != (len(arrays),):
            raise MergeError(
                f"real labels: expected shape {(len(arrays),)}, one for each image, got "
                f"{labels.shape}"
            )
    elif hasattr(real, "__getitem__") and hasattr(real, "__len__"):
        if len(real) == 0:
            raise MergeError("real dataset: expected at least one image, got none")
        arrays = None
        first = _image(real[0], 0, len(synthetic.image_shape))
        shape, dtype = first.shape, first.dtype
        labels = _labels_of(real)
        if names is None:
            names = _names_of(real) or synthetic.class_names
        _check_values(first, synthetic.value_range)
    else:
        raise MergeError(
            f"real: expected images with class_names, or a map-style dataset with __len__ and "
            f"__getitem__, got {type(real).__name__}"
        )
    names = tuple(str(name) for name in names)
    if labels.size and labels.dtype.kind not in "iu":
        raise MergeError(f"real labels: expected integers, got {labels.dtype}")
    bad = labels[(labels < 0) | (labels >= len(names))]
    if bad.size:
        raise MergeError(
            f"real labels: expected an index of the {len(names)} classes, got {int(bad[0])}"
        )
    return _RealSource(
        real, labels.astype(np.int64), names, shape=shape, dtype=np.dtype(dtype), arrays=arrays
    )


def _check_belongs(source: _RealSource, synthetic: ShardDataset, on_mismatch: str) -> None:
    """Refuse a real dataset that the synthetic images were not made for."""
    have, want = set(source.class_names), set(synthetic.class_names)
    if have != want or len(source.class_names) != len(want):
        raise MergeError(
            f"class names: expected those of the run {synthetic.class_names}, got "
            f"{source.class_names}; class_names= says them in the order of the real labels"
        )
    if source.shape != synthetic.image_shape:
        raise MergeError(
            f"image shape: expected {synthetic.image_shape} as in the run, got {source.shape}"
        )
    if source.dtype != synthetic.dtype:
        raise MergeError(
            f"image dtype: expected {synthetic.dtype.name} as in the run, got {source.dtype.name}; "
            f"convert with transform=, which sees real and synthetic images alike"
        )
    if source.value_range is not None and not np.allclose(
        source.value_range, synthetic.value_range
    ):
        raise MergeError(
            f"value range: expected {synthetic.value_range} as in the run, got {source.value_range}"
        )
    expected = synthetic.fingerprint
    if on_mismatch == "error" and source.fingerprint not in (None, expected):
        raise MergeError(
            f"fingerprint: expected {expected}, the training split that the generator saw, got "
            f"{source.fingerprint}; on_mismatch='ignore' merges them nevertheless"
        )


def _labels_of(real: Any) -> np.ndarray:
    for name in ("targets", "labels"):
        found = getattr(real, name, None)
        if found is None or np.shape(found)[:1] != (len(real),):
            continue
        labels = np.asarray(found)
        # A target_transform changes what the items say: then only the items are right.
        if labels.size == len(real) and int(labels.reshape(-1)[0]) == _label(real[0], 0):
            return labels.reshape(-1)
    return np.array([_label(real[i], i) for i in range(len(real))], dtype=np.int64)


def _names_of(real: Any) -> Sequence[str] | None:
    for name in ("class_names", "classes"):
        found = getattr(real, name, None)
        if isinstance(found, (list, tuple)) and found and all(isinstance(n, str) for n in found):
            return found
    return None


def _label(item: Any, row: int) -> int:
    label = np.asarray(item[1])
    if label.size != 1 or label.dtype.kind not in "iu":
        raise MergeError(f"real dataset[{row}]: expected one integer label, got {item[1]!r}")
    return int(label.reshape(()))


def _image(item: Any, row: int, rank: int) -> np.ndarray:
    """The image of an item as an array with channels last, which has so many axes in the run."""
    try:
        image = item[0]
    except (TypeError, IndexError, KeyError) as error:
        raise MergeError(
            f"real dataset[{row}]: expected (image, label), got {type(item).__name__}"
        ) from error
    is_tensor = isinstance(image, torch.Tensor)
    array = image.detach().cpu().numpy() if is_tensor else np.asarray(image)  # or a PIL image
    if array.ndim == rank - 1:
        return array[..., None]
    return np.moveaxis(array, 0, -1) if is_tensor and array.ndim else array


def _check_values(image: np.ndarray, value_range: tuple[float, float]) -> None:
    low, high = value_range
    slack = 1e-3 * (high - low)
    if image.dtype.kind == "f" and image.size:
        least, most = float(image.min()), float(image.max())
        if not (least >= low - slack and most <= high + slack):
            raise MergeError(
                f"value range: expected the first real image in {value_range} as in the run, got "
                f"values in [{least}, {most}]"
            )


def _channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).movedim(-1, 1)
