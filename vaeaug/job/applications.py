"""What a trained generator does besides drawing: denoise, compress, show its latents."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Shaped

from vaeaug.attributes import attributes_of
from vaeaug.data import DataError, LabelledImages
from vaeaug.data.formats.hdf5_process import ForeignHDF5
from vaeaug.data.values import pinned
from vaeaug.generator import Synthesizer
from vaeaug.report import SPECTROGRAM_RANGE, as_pictures, write_latent_map, write_strips
from vaeaug.shapes import are_features
from vaeaug.shards import published_hdf5, write_attributes, write_images
from vaeaug.stages.readable import UnitEffect, active_styles, unit_effects, units_in_order, within

LATENTS_FORMAT, LATENTS_VERSION = "vaeaug-latents", 1
# A traversal goes so many standard deviations of the class's latents to either side.
REACH = 2.5
STEPS = 9
# Samples in which the change of an attribute is measured, and from which a map gets its directions.
ATTRIBUTE_SAMPLES, MAP_SAMPLES = 128, 5000


class ApplicationError(ValueError):
    """A file or an argument that cannot be used."""


@dataclass(frozen=True)
class Likeness:
    """How similar images are to their originals, as means over the images.

    Attributes:
        psnr: Peak signal-to-noise ratio, dB.
        ssim: Structural similarity (Wang et al. 2004), 1 is the same; None for feature vectors,
            which have no structure in space.
        mse: Mean squared error, values scaled to [0, 1].
    """

    psnr: float
    ssim: float | None
    mse: float

    def __str__(self) -> str:
        text = f"PSNR {self.psnr:.1f} dB"
        return text if self.ssim is None else f"{text}, SSIM {self.ssim:.3f}"


def likeness(
    images: Shaped[np.ndarray, "n *space c"],
    originals: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
) -> Likeness:
    """PSNR, SSIM and squared error of images against their originals, by scikit-image.

    Args:
        images: Any type.
        originals: Of the same shape.
        value_range: Of both; the peak is its width.

    Returns:
        The three measures.
    """
    from skimage.metrics import structural_similarity

    low, high = value_range
    a = (images.astype(np.float64) - low) / (high - low)
    b = (originals.astype(np.float64) - low) / (high - low)
    mse = np.square(a - b).reshape(len(a), -1).mean(axis=1)
    psnr = float(-10 * np.log10(np.maximum(mse, 1e-10)).mean())
    if are_features(images.shape[1:]):
        return Likeness(psnr, None, float(mse.mean()))
    # The window is 7 values a side, or the largest odd number that fits.
    window = min(7, *(side - 1 + side % 2 for side in a.shape[1:-1]))
    ssim = [
        structural_similarity(x, y, data_range=1.0, channel_axis=-1, win_size=window)
        for x, y in zip(a, b, strict=True)
    ]
    return Likeness(psnr, float(np.mean(ssim)), float(mse.mean()))


def add_noise(
    images: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    *,
    sigma: float,
    seed: int,
) -> Shaped[np.ndarray, "n *space c"]:
    """Gaussian noise, clipped to the value range, in the type of the images.

    Args:
        images: uint8 or float32.
        value_range: Of the images.
        sigma: Standard deviation, as a fraction of the value range.
        seed: Of the noise.

    Returns:
        Noisy copies.
    """
    low, high = value_range
    rng = np.random.default_rng(seed)
    noisy = images + sigma * (high - low) * rng.standard_normal(images.shape, np.float32)
    noisy = noisy.clip(low, high)
    return (noisy.round() if images.dtype == np.uint8 else noisy).astype(images.dtype)


def denoising_text(document: Mapping[str, Any]) -> str:
    """Describe what `vaeaug denoise` did.

    Args:
        document: What the command prints as JSON.

    Returns:
        A line; it says so where the images are not better than before.
    """
    text = f"{document['file']}: {document['n']} samples"
    if "estimated_noise" in document:
        text += f"; noise of {document['estimated_noise']:.3f} (median of the estimates)"
    if not document["restorer"]:
        text += "; without a restorer, reconstructions blended with the images"
    if "noisy" in document:
        before, after = Likeness(**document["noisy"]), Likeness(**document["cleaned"])
        text += f"; noisy {before}; cleaned {after}"
        if after.psnr < before.psnr:
            text += "; worse than doing nothing: keep the noisy images"
    return text


def write_like(
    path: str | Path, generator: Synthesizer, images: np.ndarray, labels: np.ndarray
) -> Path:
    """Write images of a generator and their labels as an HDF5 file that `vaeaug.read` reads.

    Args:
        path: The file, replaced whole.
        generator: Gives class names, layout and value range.
        images: Images.
        labels: Their classes.

    Returns:
        The path.

    Raises:
        ShardError: If the file cannot be written.
    """
    return write_images(
        path,
        images,
        np.asarray(labels, np.int64),
        class_names=generator.class_names,
        layout=generator.layout,
        value_range=generator.value_range,
    )


def encode_to(path: str | Path, generator: Synthesizer, data: LabelledImages) -> dict[str, Any]:
    """Compress images to latents: ``z``, ``step`` and ``labels`` in an HDF5 file.

    A unit of z is a whole number of steps (int16, gzip), its step the posterior's own mean standard
    deviation: finer than that the decoder cannot tell. Units that the model does not use are zeros
    and take no room.

    Args:
        path: The file.
        generator: Any; the images need not be those it was trained on.
        data: Of its sample shape and class names.

    Returns:
        Sizes and losses: ``stored_bits_per_value`` (of the latents as stored),
        ``bits_per_value`` (bound of lossless coding with this model; 8-bit data only), and
        ``reconstruction`` against the originals.

    Raises:
        ApplicationError: If the data is of another shape or has other classes, or the latents are
            codes.
        ShardError: If the file cannot be written.
    """
    path = Path(path)
    check_fits(generator, data)
    if generator.model.is_discrete:
        raise ApplicationError(
            "encode: expected a generator of latents that can be rounded, got one of codes "
            "(model.latent discrete); generator.encode gives them in Python"
        )
    latents = generator.encode(data.images, data.labels)
    step = np.sqrt(generator.variances.mean(axis=0))
    z = np.rint(latents / step).clip(-(2**15), 2**15 - 1).astype(np.int16)
    with published_hdf5(path, needed=z.nbytes, kept="nothing was changed") as file:
        packed = file.create_dataset("z", data=z, compression="gzip", shuffle=True)
        stored = packed.id.get_storage_size()
        file["step"], file["labels"] = step, data.labels
        attributes = {
            "format": LATENTS_FORMAT,
            "format_version": np.int64(LATENTS_VERSION),
            "generator_sha256": generator.sha256,
            "class_names": list(generator.class_names),
        }
        write_attributes(file, attributes)
    rebuilt = generator.decode(z * step, data.labels)
    n_values = math.prod(generator.image_shape)
    bits = None
    if data.images.dtype == np.uint8:
        bits = float(generator.rates(data.images, data.labels)[1].mean())
    return {
        "file": str(path),
        "n": len(data),
        "stored_bits_per_value": 8 * stored / (len(data) * n_values),
        "original_bits_per_value": 8 * data.images.dtype.itemsize,
        "bits_per_value": bits,
        "reconstruction": vars(likeness(rebuilt, data.images, data.value_range)),
    }


def decode_from(path: str | Path, generator: Synthesizer) -> tuple[np.ndarray, np.ndarray]:
    """Decode a file that `encode_to` wrote.

    Args:
        path: The file.
        generator: The generator that its latents are of.

    Returns:
        (images, labels).

    Raises:
        ApplicationError: If it is no such file, or the latents are of another generator.
    """
    path = Path(path)
    try:
        with ForeignHDF5(path) as file:
            kind, version, maker = (
                (file.attribute(None, name) or [None])[0]
                for name in ("format", "format_version", "generator_sha256")
            )
            if (kind, version) != (LATENTS_FORMAT, LATENTS_VERSION):
                raise ApplicationError(
                    f"{path}: expected {LATENTS_FORMAT} version {LATENTS_VERSION}, got {kind!r} "
                    f"version {version}"
                )
            z, step, labels = (file.load(name) for name in ("z", "step", "labels"))
    except DataError as error:
        raise ApplicationError(f"{path}: not a file of latents ({error})") from error
    if maker != generator.sha256:
        raise ApplicationError(
            f"{path}: expected latents of this generator ({generator.sha256[:12]}), got those of "
            f"{str(maker)[:12]}"
        )
    n_latents = generator.model.latent_dim
    whole = {"z": (z, (len(labels), n_latents), "i"), "step": (step, (n_latents,), "f")}
    whole["labels"] = (labels, (labels.size,), "i")
    for name, (array, shape, kind) in whole.items():
        if array.shape != shape or array.dtype.kind != kind:
            raise ApplicationError(
                f"{path}: {name}: expected {kind} of shape {shape}, got {array.dtype} of shape "
                f"{array.shape}"
            )
    k = len(generator.class_names)
    if labels.size and not 0 <= labels.min() <= labels.max() < k:
        raise ApplicationError(
            f"{path}: expected labels in 0..{k - 1}, got {labels.min()} to {labels.max()}"
        )
    z, labels = z * step.astype(np.float32), labels.astype(np.int64)
    return generator.decode(z, labels), labels


def traverse(
    generator: Synthesizer,
    label: int | str,
    *,
    n_units: int = 8,
    steps: int = STEPS,
    reach: float = REACH,
    effects: Sequence[UnitEffect] = (),
) -> tuple[list[str], Shaped[np.ndarray, "u t *space c"]]:
    """Samples along single directions of a class's latents, the mean of the class in the middle.

    Where z is a vector the directions are its units: those of the style first, then those whose
    posterior means vary most. Single cells of a grid show next to nothing, so there they are the
    principal directions of the
    class's latents.

    Args:
        generator: The generator.
        label: Class index or name.
        n_units: Directions.
        steps: Samples along each.
        reach: Standard deviations to either side.
        effects: What units change most, for their names (`unit_effects`).

    Returns:
        (name of each direction, samples).

    Raises:
        ApplicationError: For a class without images.
    """
    index = generator.index_of(label)
    z = generator.means[generator.rows[index]]
    if not len(z):
        raise _no_images(generator, index)
    centre = z.mean(axis=0)
    if generator.model.groups[0].is_grid or len(generator.model.groups) > 1:
        _, spread, directions = np.linalg.svd(z - centre, full_matrices=False)
        scale = spread[:n_units] / math.sqrt(max(1, len(z) - 1))
        ways = directions[:n_units] * scale[:, None]
        names = [f"direction {number + 1}" for number in range(len(ways))]
    else:
        deviation = z.std(axis=0)
        units = units_in_order(generator, deviation)[:n_units]
        ways = np.zeros((len(units), z.shape[1]), np.float32)
        ways[np.arange(len(units)), units] = deviation[units]
        known = {effect.unit: effect for effect in effects}
        names = [str(known.get(unit, f"unit {unit}")) for unit in units.tolist()]
    return names, _along(generator, index, centre, ways, steps=steps, reach=reach)


def _no_images(generator: Synthesizer, index: int) -> ApplicationError:
    return ApplicationError(f"traverse: class {generator.class_names[index]!r} has no images")


def _along(
    generator: Synthesizer,
    index: int,
    centre: Float32[np.ndarray, " z"],
    ways: Float32[np.ndarray, "u z"],
    *,
    steps: int,
    reach: float,
) -> Shaped[np.ndarray, "u t *space c"]:
    """Samples of a class along directions through a latent."""
    along = np.linspace(-reach, reach, steps, dtype=np.float32)
    latents = centre + along[None, :, None] * ways[:, None, :]
    flat = latents.reshape(-1, len(centre)).astype(np.float32)
    images = generator.decode(flat, np.full(len(flat), index))
    return images.reshape(len(ways), steps, *images.shape[1:])


@dataclass(frozen=True)
class AttributeDirection:
    """A direction of the latents along which samples gain of an attribute.

    Attributes:
        name: Of the attribute, such as "slant".
        direction: Change of z as the attribute goes up by one standard deviation, (z,).
        kept: Change of the attribute that was measured in decoded samples, as a part of what was
            asked for: 1 is all of it.
    """

    name: str
    direction: Float32[np.ndarray, " z"]
    kept: float


def attribute_directions(
    generator: Synthesizer, data: LabelledImages, *, seed: int = 0
) -> list[AttributeDirection]:
    """Directions of measured attributes, from how latents and attributes vary within classes.

    Along a direction z is the mean of samples that have so much of the attribute, under a normal of
    both: the covariance of the two by the variance of the attribute.

    Args:
        generator: The generator.
        data: What it was trained on.
        seed: Of the samples in which the change is measured.

    Returns:
        One for each attribute that varies within classes (`vaeaug.attributes.attributes_of`).

    Raises:
        ApplicationError: If the data is other data, or feature vectors, which have no attributes.
    """
    if data.fingerprint != generator.data_fingerprint:
        raise ApplicationError(
            f"{data.source or 'data'}: expected the samples that the generator was trained on"
        )
    measured = attributes_of(data.images, data.value_range)
    if not measured:
        raise ApplicationError("attributes: expected images, signals or volumes, got features")
    z = within(generator.means[: len(data)].astype(np.float64), data.labels)
    rows = np.random.default_rng(seed).permutation(len(data))[:ATTRIBUTE_SAMPLES]
    means, labels = generator.means[rows], data.labels[rows]
    before = attributes_of(generator.decode(means, labels), data.value_range)
    found = []
    for name, values in measured.items():
        centred = within(values, data.labels)
        spread = float(centred.std())
        if spread < 1e-6:
            continue
        direction = (z.T @ centred / len(z) / spread).astype(np.float32)
        after = attributes_of(generator.decode(means + direction, labels), data.value_range)
        kept = float((after[name] - before[name]).mean()) / spread
        found.append(AttributeDirection(name, direction, kept))
    return found


def write_attributes_traversal(
    path: str | Path,
    generator: Synthesizer,
    data: LabelledImages,
    labels: Sequence[int | str],
    *,
    attributes: Sequence[str] = (),
) -> tuple[Path, list[AttributeDirection]]:
    """Draw classes along the directions of attributes.

    Args:
        path: The picture, a PNG; of clips and volumes also a GIF, frame by frame.
        generator: The generator.
        data: What it was trained on.
        labels: Class indices or names.
        attributes: Names; none: all.

    Returns:
        The path, and the directions that were drawn.

    Raises:
        ApplicationError: For an unknown attribute, other data or a class without images.
    """
    known = {found.name: found for found in attribute_directions(generator, data)}
    if unknown := [name for name in attributes if name not in known]:
        raise ApplicationError(
            f"traverse: expected attributes among {', '.join(known)}; got {', '.join(unknown)}"
        )
    shown = [known[name] for name in attributes or known]
    ways = np.stack([direction.direction for direction in shown])
    strips = []
    for label in labels:
        index = generator.index_of(label)
        if not len(generator.rows[index]):
            raise _no_images(generator, index)
        centre = generator.means[generator.rows[index]].mean(axis=0)
        images = _along(generator, index, centre, ways, steps=STEPS, reach=REACH)
        strips.append((generator.class_names[index], [d.name for d in shown], images))
    return _write_strips(path, strips, generator), shown


def _write_strips(
    path: str | Path,
    strips: Sequence[tuple[str, Sequence[str], np.ndarray]],
    generator: Synthesizer,
) -> Path:
    """Draw strips of samples, those of a generator of sounds as spectrograms."""
    spectrogram = generator.spectrogram
    if spectrogram is None:
        return write_strips(path, strips, value_range=generator.value_range)
    pictures = [
        (title, names, as_pictures(sounds, spectrogram, generator.value_range))
        for title, names, sounds in strips
    ]
    return write_strips(path, pictures, value_range=SPECTROGRAM_RANGE)


def write_latents(path: str | Path, generator: Synthesizer) -> Path:
    """Draw the latents of the training samples in the plane of their two widest directions.

    Args:
        path: The picture, a PNG.
        generator: The generator; of one whose style is in use, the style is drawn.

    Returns:
        The path.
    """
    points, axes_names = latent_plane(generator)
    labels = generator.labels[: generator.n_real]
    return write_latent_map(path, points, labels, generator.class_names, axes_names=axes_names)


def latent_plane(generator: Synthesizer) -> tuple[Float64[np.ndarray, "n 2"], tuple[str, str]]:
    """Project the latents of the training samples onto their two widest directions.

    Args:
        generator: The generator; of one whose style is in use, the style is taken.

    Returns:
        (coordinates of each labelled training sample, what the axes are).
    """
    z = generator.means[: generator.n_real].astype(np.float64)
    style = generator.model.style_dim if active_styles(generator) > 1 else 0
    z = z[:, :style] if style else z
    z = z - z.mean(axis=0)
    _, _, directions = np.linalg.svd(z[:MAP_SAMPLES], full_matrices=False)
    points = z @ directions[:2].T
    if points.shape[1] < 2:
        points = np.column_stack([points, np.zeros(len(points))])
    what = "style" if style else "latents"
    return points, (f"{what}, first principal direction", "second principal direction")


def write_traversal(
    path: str | Path, generator: Synthesizer, labels: Sequence[int | str], *, n_units: int = 8
) -> Path:
    """Draw `traverse` for some classes, below one another.

    Args:
        path: The picture, a PNG; of clips and volumes also a GIF, frame by frame.
        generator: The generator.
        labels: Class indices or names.
        n_units: Directions of each class.

    Returns:
        The path.

    Raises:
        ApplicationError: If the generator makes feature vectors, which cannot be drawn.
    """
    if are_features(generator.image_shape):
        raise ApplicationError(f"{path}: expected a generator of images, got one of features")
    strips, effects = [], unit_effects(generator)
    for label in labels:
        names, images = traverse(generator, label, n_units=n_units, effects=effects)
        title = generator.class_names[generator.index_of(label)]
        strips.append((title, names, images))
    return _write_strips(path, strips, generator)


def styles_of(
    generator: Synthesizer,
    data: LabelledImages,
    labels: Sequence[int | str],
    *,
    n_styles: int = 12,
    seed: int = 0,
) -> tuple[list[str], Shaped[np.ndarray, "r c *space ch"]]:
    """Every class in the same styles, as in a type specimen.

    Args:
        generator: A generator with a style.
        data: The training split.
        labels: Class indices or names, one row each.
        n_styles: Images of frequent classes that lend their styles, one column each.
        seed: Of the choice of these images.

    Returns:
        (name of each row, samples). The first row are the images that lend their styles; the first
        column is a real image of each class.

    Raises:
        ApplicationError: If the generator has no style or a class has no images.
    """
    if not generator.model.style_dim:
        raise ApplicationError("styles: expected a generator with a style, got one without")
    indices = [generator.index_of(label) for label in labels]
    for index in indices:
        if not len(generator.rows[index]):
            raise ApplicationError(f"styles: class {generator.class_names[index]!r} has no images")
    rng = np.random.default_rng(seed)
    lenders = generator.latents.lenders(-1)
    lenders = np.sort(rng.permutation(lenders)[:n_styles])
    z = generator.style_of(generator.means[lenders])
    low, high = data.value_range
    blank = np.full_like(
        data.images[:1], low if generator.spectrogram is None else 0.5 * (low + high)
    )
    grid = [np.concatenate([blank, data.images_at(lenders)])]
    for index in indices:
        real = data.images_at(generator.rows[index][:1])
        grid.append(np.concatenate([real, generator.decode(z, np.full(len(z), index))]))
    names = ["style of", *(generator.class_names[index] for index in indices)]
    return names, np.stack(grid)


def write_styles(
    path: str | Path,
    generator: Synthesizer,
    data: LabelledImages,
    labels: Sequence[int | str],
    *,
    n_styles: int = 12,
) -> Path:
    """Draw `styles_of` for some classes.

    Args:
        path: The picture, a PNG; of clips and volumes also a GIF, frame by frame.
        generator: A generator with a style.
        data: The training split.
        labels: Class indices or names.
        n_styles: Images of frequent classes that lend their styles.

    Returns:
        The path.
    """
    names, images = styles_of(generator, data, labels, n_styles=n_styles)
    title = "real images of frequent classes, and each class in their styles"
    return _write_strips(path, [(title, names, images)], generator)


def check_fits(generator: Synthesizer, data: LabelledImages) -> None:
    """Refuse data that differs from the generator's in sample shape, value range or classes.

    Args:
        generator: The generator.
        data: Any data.

    Raises:
        ApplicationError: Naming what was expected and what it got.
    """
    if data.image_shape != generator.image_shape:
        raise ApplicationError(
            f"{data.source or 'data'}: expected samples of shape {generator.image_shape}, got "
            f"{data.image_shape}"
        )
    if data.value_range != generator.value_range:
        (low, high), got = generator.value_range, data.value_range
        raise ApplicationError(
            f"{data.source or 'data'}: expected values of the range ({low:g}, {high:g}) that the "
            f"generator was trained on, got ({got[0]:g}, {got[1]:g}); if the data is in the same "
            f"units, read it with {pinned((low, high))}"
        )
    if data.class_names != generator.class_names:
        raise ApplicationError(
            f"{data.source or 'data'}: expected the classes {', '.join(generator.class_names)}, "
            f"got {', '.join(data.class_names)}"
        )
