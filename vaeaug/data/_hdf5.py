"""HDF5 files, with no link followed out of the file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.data._arrays import finish_pixels
from vaeaug.data._images import DataError, LabelledImages
from vaeaug.data._keys import choose, choose_images
from vaeaug.data._labels import labelled, normalise_labels
from vaeaug.data._request import STORED_LAYOUTS, Request

if TYPE_CHECKING:
    import h5py

# Soft links and virtual datasets may form a ring.
_MOST_HOPS = 16


def read_hdf5(path: Path, request: Request) -> LabelledImages:
    """Read an HDF5 file; see `read` for the names that its datasets may have."""
    where = str(path)
    with _open(path) as file:
        # Names given by the caller are judged link by link, below, and not by the list.
        names_there = _names(file) | set((request.keys or {}).values())
        pair = choose(names_there, request, where)
        image_set = _dataset(file, pair.images, where)
        label_set = _dataset(file, pair.labels, where)
        if image_set.shape[:1] != label_set.shape[:1]:
            raise DataError(
                f"{where}: expected one label for each image, got {pair.images!r} of shape "
                f"{image_set.shape} and {pair.labels!r} of shape {label_set.shape}"
            )
        asked = request.class_names is not None
        names = None if asked else _class_names(file, image_set, label_set, where)
        layout = _layout(file, image_set)
        raw_images = _load(image_set, f"{where}[{pair.images}]")
        raw_labels = _load(label_set, f"{where}[{pair.labels}]")
        reference = (
            None
            if pair.reference is None
            else _load(_dataset(file, pair.reference, where), f"{where}[{pair.reference}]")
        )
    images, value_range, notes = finish_pixels(
        raw_images, f"{where}[{pair.images}]", request, layout=layout
    )
    labels, class_names, label_notes = normalise_labels(
        raw_labels, f"{where}[{pair.labels}]", request, stated=names, reference=reference
    )
    return labelled(
        images=images,
        labels=labels,
        class_names=class_names,
        value_range=value_range,
        split=pair.split,
        source=where,
        notes=(*pair.notes, *label_notes, *notes),
    )


def load_hdf5_images(
    path: Path, request: Request
) -> tuple[Shaped[np.ndarray, "..."], str, str | None]:
    """The images alone, as stored; where they were, for messages; the layout that the file says."""
    import h5py

    where = str(path)
    with _open(path) as file:
        # Groups are no arrays; what is no hard link is judged when it is followed.
        names = {
            name
            for name in _names(file)
            if file.get(name, getclass=True, getlink=True) is not h5py.HardLink
            or file.get(name, getclass=True) is h5py.Dataset
        } | set((request.keys or {}).values())
        key = choose_images(names, request, where)
        dataset = _dataset(file, key, where)
        return _load(dataset, f"{where}[{key}]"), f"{where}[{key}]", _layout(file, dataset)


def _open(path: Path) -> "h5py.File":
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path}: expected an HDF5 file, got {path.stat().st_size} bytes that cannot be "
            f"opened: {error}"
        ) from error


def _layout(file: "h5py.File", images: "h5py.Dataset") -> str | None:
    """The attribute `layout` of the images or the file, which merged files and shards have."""
    for holder in (images, file):
        value = holder.attrs.get("layout")
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        if isinstance(text, str) and text in STORED_LAYOUTS and len(text) == images.ndim:
            return str(text)
    return None


def _names(file: "h5py.File") -> set[str]:
    """Names of all links, without following any but hard ones."""
    import h5py

    found: set[str] = set()
    seen: set[Any] = set()

    def walk(group: "h5py.Group", prefix: str) -> None:
        for name in group:
            found.add(prefix + name)
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            # Hard links may form a ring too; an object is walked once.
            if group.get(name, getclass=True) is h5py.Group and group[name].id not in seen:
                seen.add(group[name].id)
                walk(group[name], f"{prefix}{name}/")

    seen.add(file["/"].id)
    walk(file["/"], "")
    return found


def _dataset(file: "h5py.File", name: str, where: str, hops: int = 0) -> "h5py.Dataset":
    """The dataset of this name, once it is sure that all of it lies in this file.

    Raises:
        DataError: naming the link and its target.
    """
    import h5py

    if hops > _MOST_HOPS:
        raise DataError(f"{where}: expected a dataset at {name!r}, got a ring of links")
    node: Any = file["/"]
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for i, part in enumerate(parts):
        at = "/".join(parts[: i + 1])
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if link is None:
            there = ", ".join(sorted(node)[:20]) if isinstance(node, h5py.Group) else "a dataset"
            raise DataError(
                f"{where}: expected a dataset {name!r}, got nothing at {at!r} (there is: {there})"
            )
        if isinstance(link, h5py.ExternalLink):
            raise DataError(
                f"{where}: expected data inside the file, but {at!r} is an external link to "
                f"{link.path!r} in the file {link.filename!r}; external links are never followed"
            )
        if isinstance(link, h5py.SoftLink):
            base = [] if link.path.startswith("/") else parts[:i]
            target = "/".join([*base, link.path.lstrip("/"), *parts[i + 1 :]])
            return _dataset(file, target, where, hops + 1)
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        raise DataError(f"{where}: expected a dataset at {name!r}, got a {type(node).__name__}")
    _check_storage(file, node, name, where, hops)
    if node.shape is None:
        raise DataError(f"{where}: expected an array at {name!r}, got an empty dataset")
    return node


def _check_storage(
    file: "h5py.File", dataset: "h5py.Dataset", name: str, where: str, hops: int
) -> None:
    if dataset.is_virtual:
        for source in dataset.virtual_sources():
            if source.file_name != ".":
                raise DataError(
                    f"{where}: expected data inside the file, but {name!r} is a virtual dataset "
                    f"of {source.dset_name!r} in the file {source.file_name!r}; other files are "
                    f"never followed; read them one by one or copy them into one file"
                )
            _dataset(file, source.dset_name, where, hops + 1)
    elif dataset.external:
        raise DataError(
            f"{where}: expected data inside the file, but {name!r} keeps its data in the external "
            f"file {dataset.external[0][0]!r}; external storage is never read"
        )


def _load(dataset: "h5py.Dataset", where: str) -> Shaped[np.ndarray, "..."]:
    import h5py

    try:
        if h5py.check_string_dtype(dataset.dtype) is not None:
            return np.asarray(dataset.asstr()[...])
        if dataset.dtype.hasobject:
            raise DataError(
                f"{where}: expected numbers or text, got {dataset.dtype} (references or ragged "
                f"arrays)"
            )
        out = np.empty(dataset.shape, dtype=dataset.dtype)
        if out.size:
            dataset.read_direct(out)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{where}: expected {dataset.dtype} of shape {dataset.shape}, got an error while "
            f"reading: {error}"
        ) from error
    return out


def _class_names(
    file: "h5py.File", images: "h5py.Dataset", labels: "h5py.Dataset", where: str
) -> tuple[str, ...] | None:
    """The attribute `class_names` of the labels, the images or the file, in this order."""
    for holder in (labels, images, file):
        if "class_names" not in holder.attrs:
            continue
        values = np.ravel(np.asarray(holder.attrs["class_names"])).tolist()
        names = tuple(v.decode() if isinstance(v, bytes) else v for v in values)
        if not names or not all(isinstance(name, str) for name in names):
            raise DataError(
                f"{where}: expected the attribute class_names as a list of texts, got {values!r}"
            )
        return names
    return None
