"""`LossyCoder`: quantised latents, and on top of them a quantised residual.

The VAE's latents of an image are rounded to a multiple of their posterior's standard deviation and
coded with the prior. What the decoder misses is turned into the principal axes of the residuals of
the training images (the Karhunen-Loeve transform, which is the best linear one), divided by a step
and rounded. Coefficients are coded with histograms that were counted in training, chosen by how
large a coefficient is expected to be: its axis's mean size, and how the axes before it came out.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from vaeaug.compression import container
from vaeaug.compression.container import Header
from vaeaug.compression.context import check_shape
from vaeaug.compression.entropy import BitStack
from vaeaug.compression.errors import CompressionError
from vaeaug.compression.files import Compressed
from vaeaug.compression.guide import Guide
from vaeaug.compression.storage import check_head, read_coder, write_coder
from vaeaug.data import LabelledImages
from vaeaug.generator import Synthesizer

FORMAT, FORMAT_VERSION = "vaeaug-lossy-coder", 1
# Of each quality from 1 on: steps of the latents (8 a standard deviation), step of the residual in
# gray levels of one value; 0: no residual. Rates and distortions of all combinations were measured:
# latents finer than 28 steps cost more than the residual takes for the same.
QUALITIES = (
    (80, 0.0),
    (56, 0.0),
    (40, 0.0),
    (28, 0.0),
    (28, 100.0),
    (28, 75.0),
    (28, 60.0),
    (28, 48.0),
    (28, 38.0),
    (28, 30.0),
    (28, 22.0),
    (28, 15.0),
    (28, 8.0),
)
# A coefficient is rounded up from this part of a step on: fewer bits for the same error.
_ROUND_UP = 0.6
# Larger coefficients are clipped.
_LARGEST = 127
_N_CONTEXTS = 32
# Axes before a coefficient that tell how large it will be, and how much they are believed.
_WINDOW = 32
_MOST_AXES = 1024
_MOST_IMAGES = 8000


class LossyCoder:
    """A coder that gives images back approximately.

    Args:
        generator: Whose latents are coded.
        tensors: Axes, means and histograms; see `fit_lossy_coder`.

    Raises:
        CompressionError: If these do not fit together.
    """

    def __init__(self, generator: Synthesizer, tensors: Mapping[str, np.ndarray]) -> None:
        self.image_shape = check_shape(generator.image_shape)
        self.guide, self.tensors = Guide(generator), dict(tensors)
        self._names = generator.class_names
        n_values, k = int(np.prod(self.image_shape)), len(generator.class_names)
        try:
            self._axes = self.tensors["axes"].astype(np.float64)
            self._mean = self.tensors["mean"].astype(np.float64)
            self._sizes = self.tensors["sizes"].astype(np.float64)
            self._counts = self.tensors["counts"]
            self._centres = self.tensors["centres"].astype(np.float64)
            self.class_counts = self.tensors["class_counts"]
        except KeyError as error:
            raise CompressionError(f"coder: its tensors lack {error}") from error
        n_axes = len(self._axes)
        expected = {
            "axes": (n_axes, n_values),
            "mean": (n_values,),
            "sizes": (n_axes,),
            "counts": (len(QUALITIES), _N_CONTEXTS, _LARGEST + 1),
            "centres": (len(QUALITIES), 2),
            "class_counts": (k,),
        }
        for name, shape in expected.items():
            if self.tensors[name].shape != shape:
                raise CompressionError(
                    f"coder: {name}: expected shape {shape}, got {self.tensors[name].shape}"
                )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by class index."""
        return self._names

    @property
    def sha256(self) -> str:
        """Hash of what decides about the bits, as hex."""
        digest = hashlib.sha256(self.guide.sha256.encode())
        for name, array in sorted(self.tensors.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def n_bytes(self) -> int:
        """Size of the tensors; the generator comes on top."""
        return sum(array.nbytes for array in self.tensors.values())

    def save(self, path: str | Path) -> Path:
        """Write the coder, without the generator, as one safetensors file.

        Args:
            path: The file, replaced whole.

        Returns:
            The path.
        """
        head = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "generator_sha256": self.guide.sha256,
        }
        return write_coder(path, self.tensors, json.dumps(head, sort_keys=True))

    @classmethod
    def load(cls, path: str | Path, generator: Synthesizer) -> "LossyCoder":
        """Read a coder.

        Args:
            path: The file.
            generator: The generator that it was trained with.

        Returns:
            The coder.

        Raises:
            CompressionError: If the file is no such coder, or one of another generator.
        """
        head, _, tensors = read_coder(path)
        check_head(path, head, (FORMAT, FORMAT_VERSION), generator.sha256)
        return cls(generator, tensors)

    def compress(
        self,
        images: UInt8[np.ndarray, "n h w c"],
        labels: Int64[np.ndarray, " n"],
        *,
        quality: int,
    ) -> Compressed:
        """Compress images with loss.

        Args:
            images: uint8, of the generator's shape.
            labels: Their classes, which are stored exactly.
            quality: 1 (smallest) to 13.

        Returns:
            The file.

        Raises:
            CompressionError: If images, labels or quality are out of range.
        """
        if not 1 <= quality <= len(QUALITIES):
            raise CompressionError(
                f"compress: expected a quality from 1 to {len(QUALITIES)}, got {quality}"
            )
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            raise CompressionError(
                f"compress: expected uint8 images of shape {self.image_shape}, got {images.dtype} "
                f"of shape {images.shape[1:]}"
            )
        labels, k = np.asarray(labels, np.int64), len(self.class_counts)
        if labels.shape != (len(images),) or np.any((labels < 0) | (labels >= k)):
            raise CompressionError(
                f"compress: expected {len(images)} labels from 0 to {k - 1}, got {labels.shape}"
            )
        coarse, step = QUALITIES[quality - 1]
        z = self.guide.centred(images, labels, coarse)
        q = np.zeros((len(images), 0), np.int64)
        if step:
            q = _rounded(self._coefficients(images, self.guide.decoded(z, labels)), step)
        stack = BitStack()
        self._push(stack, q, quality)
        self.guide.push_centred(stack, z, labels, coarse)
        stack.push(labels, self._class_masses(len(labels)))
        payload = bytes([quality, 0, 0, 0]) + stack.words.astype("<u4").tobytes()
        header = Header(
            container.LOSSY,
            bytes.fromhex(self.sha256)[:4],
            self.image_shape,
            len(images),
            _checksum(z, q, labels),
        )
        return Compressed(container.packed(header, payload), images.size, "lossy")

    def decompress(
        self, content: bytes
    ) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"]]:
        """Decompress what `compress` made.

        Args:
            content: The file.

        Returns:
            (images, labels): the images approximately, the labels exactly.

        Raises:
            CompressionError: If the file is damaged, cut off or made with another coder.
        """
        header, payload = container.unpacked(content)
        if header.kind != container.LOSSY:
            raise CompressionError("expected a file that was compressed with loss")
        if header.coder.hex() != self.sha256[:8]:
            raise CompressionError(
                f"expected the coder {header.coder.hex()} that the file was made with, got "
                f"{self.sha256[:8]}"
            )
        if header.image_shape != self.image_shape or not payload:
            raise CompressionError(f"damaged: its images are of shape {header.image_shape}")
        quality, n = payload[0], header.n
        if not 1 <= quality <= len(QUALITIES):
            raise CompressionError(f"damaged: its quality is {quality}")
        coarse, step = QUALITIES[quality - 1]
        try:
            stack = BitStack(np.frombuffer(payload[4:], "<u4").astype(np.uint32))
            labels = stack.pop(self._class_masses(n))
            z = self.guide.pop_centred(stack, labels, coarse)
            q = self._pop(stack, n, quality)
        except (ValueError, IndexError, OverflowError) as error:
            raise CompressionError(f"damaged: {error}") from error
        if not stack.is_empty or _checksum(z, q, labels) != header.checksum:
            raise CompressionError("damaged: the checksum of what was decoded is not the file's")
        images = self.guide.decoded(z, labels)
        if step:
            images = self._restored(images, q, quality)
        return images, labels

    def _coefficients(self, images: np.ndarray, guides: np.ndarray) -> np.ndarray:
        residual = images.reshape(len(images), -1).astype(np.float64)
        residual -= guides.reshape(len(images), -1)
        return (residual - self._mean) @ self._axes.T

    def _restored(self, guides: np.ndarray, q: np.ndarray, quality: int) -> np.ndarray:
        step = QUALITIES[quality - 1][1]
        size = np.abs(q).astype(np.float64)
        one, more = self._centres[quality - 1]
        size += np.where(size == 1, one, np.where(size > 1, more, 0.0))
        flat = (np.sign(q) * size * step) @ self._axes + self._mean
        values = flat.reshape(guides.shape) + guides
        return np.floor(values + 0.5).clip(0, 255).astype(np.uint8)

    def _push(self, stack: BitStack, q: np.ndarray, quality: int) -> None:
        if not q.shape[1]:
            return
        contexts = contexts_of(q, self._sizes, QUALITIES[quality - 1][1])
        masses = self._counts[quality - 1].astype(np.float64)
        even = np.ones((len(q), 2))
        for axis in reversed(range(q.shape[1])):
            size = np.abs(q[:, axis])
            signed = size > 0
            stack.push((q[signed, axis] < 0).astype(np.int64), even[signed])
            stack.push(size, masses[contexts[:, axis]])

    def _pop(self, stack: BitStack, n: int, quality: int) -> np.ndarray:
        step = QUALITIES[quality - 1][1]
        q = np.zeros((n, len(self._axes) if step else 0), np.int64)
        masses = self._counts[quality - 1].astype(np.float64)
        expected, even = _Expected(self._sizes, step or 1.0, n), np.ones((n, 2))
        for axis in range(q.shape[1]):
            size = stack.pop(masses[expected.context(axis)])
            expected.take(size)
            signed = size > 0
            negative = stack.pop(even[signed])
            q[:, axis] = size
            q[signed, axis] *= 1 - 2 * negative
        return q

    def _class_masses(self, n: int) -> np.ndarray:
        counts = self.class_counts.astype(np.float64)
        return np.broadcast_to(counts, (n, len(counts))).copy()


class _Expected:
    """How large the next coefficient of each image will be, from those before it.

    Whole numbers and single divisions: the same on every machine.
    """

    def __init__(self, sizes: np.ndarray, step: float, n: int) -> None:
        # Sizes that the quantiser would leave, not below what tells something.
        self._usual = np.maximum(sizes / step, 1e-3)
        self._known: list[np.ndarray] = []
        self._sum, self._usual_sum = np.zeros(n), 0.0
        # Products, one after another: a power may round differently elsewhere.
        self._edges = np.cumprod([0.002, *[1.4] * (_N_CONTEXTS - 2)])

    def context(self, axis: int) -> np.ndarray:
        """Which histogram the coefficient of an axis is coded with."""
        ratio = (self._sum + 2.0) / (min(self._usual_sum, 1e6) + 2.0)
        return np.searchsorted(self._edges, self._usual[axis] * ratio)

    def take(self, size: np.ndarray) -> None:
        """Learn what the coefficient was."""
        axis = len(self._known)
        self._known.append(size)
        self._sum = self._sum + size
        self._usual_sum += float(self._usual[axis])
        if axis >= _WINDOW:
            self._sum = self._sum - self._known[axis - _WINDOW]
            self._usual_sum -= float(self._usual[axis - _WINDOW])


def contexts_of(
    q: Int64[np.ndarray, "n a"], sizes: Float64[np.ndarray, " a"], step: float
) -> Int64[np.ndarray, "n a"]:
    """Which histogram each coefficient is coded with.

    Args:
        q: Quantised coefficients.
        sizes: Mean size of each axis's coefficients.
        step: Of the quantiser.

    Returns:
        Indices below 32.
    """
    expected, found = _Expected(sizes, step, len(q)), np.zeros(q.shape, np.int64)
    for axis in range(q.shape[1]):
        found[:, axis] = expected.context(axis)
        expected.take(np.abs(q[:, axis]))
    return found


def fit_lossy_coder(data: LabelledImages, generator: Synthesizer, *, seed: int = 0) -> LossyCoder:
    """Measure the axes and histograms of a lossy coder on images.

    Args:
        data: Training images, the generator's.
        generator: A generator of 8-bit images; hierarchical latents are the best to code.
        seed: Of the choice of images, where there are more than 8,000.

    Returns:
        The coder.

    Raises:
        CompressionError: If the images are not such images.
    """
    shape = check_shape(data.image_shape)
    if data.images.dtype != np.uint8 or shape != generator.image_shape:
        raise CompressionError(
            f"compression: expected uint8 images of shape {generator.image_shape}, got "
            f"{data.images.dtype} of shape {shape}"
        )
    guide, rng = Guide(generator), np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(data))[:_MOST_IMAGES])
    images, labels = data.images[rows], data.labels[rows]
    coarse = QUALITIES[-1][0]
    guides = guide.decoded(guide.centred(images, labels, coarse), labels)
    flat = images.reshape(len(images), -1).astype(np.float64) - guides.reshape(len(images), -1)
    mean = flat.mean(axis=0).astype(np.float16)
    flat -= mean
    axes = _principal_axes(flat, seed).astype(np.float16)
    coefficients = flat @ axes.astype(np.float64).T
    sizes = np.abs(coefficients).mean(axis=0).astype(np.float32)
    counts = np.zeros((len(QUALITIES), _N_CONTEXTS, _LARGEST + 1), np.int64)
    centres = np.zeros((len(QUALITIES), 2), np.float32)
    for number, (_, step) in enumerate(QUALITIES):
        if step:
            q = _rounded(coefficients, step)
            size = np.abs(q)
            found = contexts_of(q, sizes.astype(np.float64), step)
            np.add.at(counts[number], (found, size), 64)
            over = np.abs(coefficients) / step - size
            for place, chosen in enumerate((size == 1, size > 1)):
                centres[number, place] = over[chosen].mean() if chosen.any() else 0.0
        # Sizes that were not seen get what a geometric distribution gives them.
        counts[number] += (64 * 0.5 ** np.arange(_LARGEST + 1)).astype(np.int64) + 1
    tensors: dict[str, Any] = {
        "axes": axes,
        "mean": mean,
        "sizes": sizes,
        "counts": counts.clip(max=2**31 - 1).astype(np.int32),
        "centres": centres,
        "class_counts": np.asarray(data.counts, np.int64) * 16 + 1,
    }
    return LossyCoder(generator, tensors)


def _principal_axes(flat: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    n = min(_MOST_AXES, *flat.shape)
    solver = "full" if flat.shape[1] <= _MOST_AXES else "randomized"
    return np.asarray(PCA(n, svd_solver=solver, random_state=seed).fit(flat).components_)


def _rounded(coefficients: np.ndarray, step: float) -> np.ndarray:
    size = np.floor(np.abs(coefficients) / step + (1 - _ROUND_UP)).clip(max=_LARGEST)
    return (np.sign(coefficients) * size).astype(np.int64)


def _checksum(z: np.ndarray, q: np.ndarray, labels: np.ndarray) -> int:
    value = 0
    for array in (z, q, labels):
        value = zlib.crc32(np.ascontiguousarray(array, "<i8").tobytes(), value)
    return value
