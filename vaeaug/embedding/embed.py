"""`embed`: images through a frozen backbone, to a data set of feature vectors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import nn

from vaeaug.data import LabelledImages, read
from vaeaug.data.values import feature_range
from vaeaug.embedding.backbones import Backbone, EmbeddingError, from_callable, load_backbone
from vaeaug.embedding.views import Views
from vaeaug.memory import array_bytes, require_memory
from vaeaug.models import scale_images
from vaeaug.progress import Progress, shown, silent
from vaeaug.shards import library_versions, published_hdf5, write_attributes
from vaeaug.training import resolve_device

EMBEDDING_FORMAT, EMBEDDING_VERSION = "vaeaug-embedding", 1


def embed(
    data: LabelledImages | Any,
    backbone: str | Backbone | nn.Module | Callable[..., Any],
    out: str | Path | None = None,
    *,
    views: int | Views = 1,
    batch_size: int = 64,
    size: tuple[int, int] | None = None,
    random_weights: bool = False,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: Progress | bool | None = None,
) -> LabelledImages:
    """Embed images with a frozen backbone.

    The result is a data set like any other: ``fit``, ``augment``, ``merge`` and ``evaluate`` take
    it, and `read` reads the file. Views of one image follow one another and are one group, which no
    split divides. Gray images are given three channels where the backbone has three.

    Args:
        data: Images, or anything `read` takes.
        backbone: The name of one (see `load_backbone`), a network or function from images
            (n, c, h, w) to features (n, f), or a `Backbone`.
        out: HDF5 file to write, replaced whole; None: nothing is written.
        views: Views of each image under classic augmentation, the first of which is the image
            itself; a `Views` says how. Embed test images with one view.
        batch_size: Images that go through the backbone at once.
        size: Height and width in pixels that images are resized to; None: what the backbone states.
        random_weights: Take untrained weights where no file of weights is given, for a trial.
        seed: Seed of the views.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: None shows bars on a terminal and elsewhere logs a line every 30 seconds; False
            is silent; a function is called as ``progress(what, done, total, metrics)``.

    Returns:
        The features, N x views of them, float32, (N x views, 1, F).

    Raises:
        EmbeddingError: If the backbone cannot be used, or the data are no images.
        DataError: If the data cannot be read.
        ShardError: If the file cannot be written.
    """
    if not isinstance(data, LabelledImages):
        data = read(data, progress=False)
    views = views if isinstance(views, Views) else Views(views)
    _check(data, views, batch_size)
    if out is not None and not Path(out).parent.is_dir():
        # Known before hours of work, not after.
        raise EmbeddingError(f"{out}: expected a folder to write to, got none at its parent")
    device = resolve_device(device)
    frozen = _frozen(backbone, size=size, random_weights=random_weights).to(device)
    with shown(progress) as report:
        features = _features(
            data, frozen, views, batch_size=batch_size, seed=seed, device=device, report=report
        )
    embedded = LabelledImages(
        images=features[:, None],
        labels=np.repeat(data.labels, views.n),
        class_names=data.class_names,
        value_range=_range_of(features),
        split=data.split,
        source=str(out) if out is not None else f"{data.source} embedded",
        groups=np.repeat(np.arange(len(data)) if data.groups is None else data.groups, views.n),
    )
    if out is not None:
        _write(Path(out), embedded, data, frozen, views, seed)
    return embedded


def _check(data: LabelledImages, views: Views, batch_size: int) -> None:
    if data.layout != "NHWC":
        raise EmbeddingError(f"embed: expected images, got {data.noun} ({data.source})")
    for name, number in (("views", views.n), ("batch_size", batch_size)):
        if number < 1:
            raise EmbeddingError(f"embed: expected {name} of at least 1, got {number}")


def _frozen(
    backbone: str | Backbone | nn.Module | Callable[..., Any],
    *,
    size: tuple[int, int] | None,
    random_weights: bool,
) -> Backbone:
    if isinstance(backbone, Backbone):
        return backbone
    if isinstance(backbone, str):
        return load_backbone(backbone, random_weights=random_weights, size=size)
    if not callable(backbone):
        raise EmbeddingError(
            f"embed: expected the name of a backbone, a network or a function, got "
            f"{type(backbone).__name__}"
        )
    name = str(getattr(backbone, "__name__", type(backbone).__name__))
    return from_callable(backbone, name, size=size)


def _features(
    data: LabelledImages,
    backbone: Backbone,
    views: Views,
    *,
    batch_size: int,
    seed: int,
    device: torch.device,
    report: Progress | None,
) -> Float32[np.ndarray, "n f"]:
    """Features of every view, those of an image one after another."""
    n = len(data) * views.n
    features: np.ndarray | None = None
    for start in range(0, n, batch_size):
        places = np.arange(start, min(start + batch_size, n))
        rows, which = np.divmod(places, views.n)
        images = torch.from_numpy(data.images_at(rows)).to(device)
        x = views.of(scale_images(images, data.value_range), rows, which, seed=seed)
        block = backbone.features(x).cpu().numpy()
        if features is None:
            shape = (n, block.shape[1])
            what = f"{n:,} vectors of {block.shape[1]} features"
            require_memory(array_bytes(shape, block.dtype), data.source, what, EmbeddingError)
            features = np.empty(shape, np.float32)
        features[places] = block
        (report or silent)("embedding", int(places[-1]) + 1, n, {})
    assert features is not None  # data has at least one image
    return features


def _range_of(features: Float32[np.ndarray, "n f"]) -> tuple[float, float]:
    """The value range; a backbone that gives one number alone is no backbone."""
    low, high = float(features.min()), float(features.max())
    if low == high:
        raise EmbeddingError(
            f"embed: expected features that differ, got {low:g} alone: the backbone is untrained, "
            f"or sees nothing of the images"
        )
    return feature_range(features)


def _write(
    path: Path,
    embedded: LabelledImages,
    data: LabelledImages,
    backbone: Backbone,
    views: Views,
    seed: int,
) -> None:
    """Write features, labels and groups, and where they come from.

    There are no times in it: the same job gives the same bytes.
    """
    features = embedded.images[:, 0]
    columns = {
        "labels": embedded.labels,
        "groups": embedded.groups,
        "view": np.tile(np.arange(views.n, dtype=np.int64), len(data)),
    }
    attributes: dict[str, Any] = {
        "format": EMBEDDING_FORMAT,
        "format_version": np.int64(EMBEDDING_VERSION),
        "layout": "NF",
        "class_names": list(embedded.class_names),
        "image_value_range": np.array(embedded.value_range, np.float64),
        "backbone": backbone.name,
        "weights_sha256": backbone.weights_sha256 or "none",
        "input_size": "as stored" if backbone.size is None else "x".join(map(str, backbone.size)),
        "data_fingerprint": data.fingerprint,
        "n_views": np.int64(views.n),
        "flip": np.int64(views.flip),
        "seed": np.int64(seed),
        "torch_version": torch.__version__,
        **{f"{name}_version": text for name, text in library_versions().items()},
    }
    with published_hdf5(path, needed=features.nbytes, kept="nothing was changed") as file:
        write_attributes(file, attributes)
        file.create_dataset("features", data=features, track_times=False)
        for name, values in columns.items():
            file.create_dataset(name, data=values, track_times=False)
