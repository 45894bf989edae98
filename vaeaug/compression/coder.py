"""`ImageCoder`: a trained coder of images, and the loop over their values."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from vaeaug.compression.container import MOST_AT_A_TIME
from vaeaug.compression.context import Context, check_shape, gap_features
from vaeaug.compression.entropy import BitStack
from vaeaug.compression.errors import CompressionError
from vaeaug.compression.guide import BITS_PER_UNIT, Guide
from vaeaug.compression.levels import find_levels, level_edges
from vaeaug.compression.network import ExactNetwork
from vaeaug.compression.storage import check_head, read_coder, write_coder
from vaeaug.generator import Synthesizer

FORMAT, FORMAT_VERSION = "vaeaug-coder", 1
Latents = Literal["none", "centred", "bits_back"]
LATENTS: tuple[Latents, ...] = ("none", "centred", "bits_back")
# With bits-back the first images pay for their latents; so many are enough to start with.
_FIRST = 8
# A value is coded as its upper and its lower four bits: 34 edges to evaluate instead of 257.
_HALF = 16


class ImageCoder:
    """A coder of 8-bit images that was trained on images like them.

    Args:
        context: What is seen when a value is coded.
        weights: Of the network, see `vaeaug.compression.network.quantise`.
        class_counts: How frequent the classes were, (K,).
        set_counts: How frequent the sets of gray levels were, with a last one for images that are
            stored value by value.
        latents: How the latents of the generator are coded.
        generator: The generator whose decoded images the coder was trained with; None with "none".
        groups: How many groups of hierarchical latents are coded; None: all.
        class_names: Names by class index; None: the indices.
        notes: What was measured in training.

    Raises:
        CompressionError: If these do not fit together.
    """

    def __init__(
        self,
        context: Context,
        weights: Mapping[str, np.ndarray],
        *,
        class_counts: Int64[np.ndarray, " c"],
        set_counts: Int64[np.ndarray, " s"],
        latents: Latents,
        generator: Synthesizer | None = None,
        groups: int | None = None,
        class_names: Sequence[str] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        check_shape(context.image_shape)
        if latents not in LATENTS:
            raise CompressionError(
                f"coder: latents: expected one of {', '.join(LATENTS)}, got {latents!r}"
            )
        if (latents == "none") != (context.guide < 0) or (latents != "none") != bool(generator):
            raise CompressionError(
                "coder: expected a generator where latents are coded, and none otherwise"
            )
        self.context, self.latents, self.notes = context, latents, dict(notes or {})
        self.groups = groups
        self.class_names = tuple(class_names or map(str, range(len(class_counts))))
        self.network = ExactNetwork(context, weights)
        self.class_counts, self.set_counts = class_counts, set_counts
        self.guide = None if generator is None else Guide(generator, groups)
        if self.guide is not None and generator is not None:
            if generator.image_shape != context.image_shape:
                raise CompressionError(
                    f"coder: expected a generator of images of shape {context.image_shape}, got "
                    f"{generator.image_shape}"
                )
            if len(generator.class_names) != len(class_counts):
                raise CompressionError(
                    f"coder: expected a generator of {len(class_counts)} classes, got "
                    f"{len(generator.class_names)}"
                )

    # -- Reading and writing -------------------------------------------------------------------

    @property
    def sha256(self) -> str:
        """Hash of what decides about the bits, as hex: network, counts and generator."""
        digest = hashlib.sha256(self._head().encode())
        for name, array in sorted(self._tensors().items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    @property
    def n_bytes(self) -> int:
        """Size of the weights and counts; the generator, where there is one, comes on top."""
        return sum(array.nbytes for array in self._tensors().values())

    def save(self, path: str | Path) -> Path:
        """Write the coder, without the generator, as one safetensors file.

        Args:
            path: The file, replaced whole.

        Returns:
            The path.
        """
        told = {"notes": self.notes, "class_names": self.class_names}
        return write_coder(path, self._tensors(), self._head(), **told)

    @classmethod
    def load(cls, path: str | Path, generator: Synthesizer | None = None) -> "ImageCoder":
        """Read a coder.

        Args:
            path: The file.
            generator: The generator that it was trained with; may be given to a coder without one.

        Returns:
            The coder.

        Raises:
            CompressionError: If the file is no coder, or one of another generator.
        """
        head, told, tensors = read_coder(path)
        sha256 = None if generator is None else generator.sha256
        check_head(path, head, (FORMAT, FORMAT_VERSION), sha256)
        try:
            shape = head["context"].pop("image_shape")
            context = Context(image_shape=check_shape(shape), **head["context"])
            counts = tensors.pop("class_counts"), tensors.pop("set_counts")
            latents, groups, notes = head["latents"], head["groups"], told["notes"]
        except (KeyError, TypeError, AttributeError) as error:
            raise CompressionError(f"{path}: not a coder ({error})") from error
        return cls(
            context,
            tensors,
            class_counts=counts[0],
            set_counts=counts[1],
            latents=latents,
            generator=None if head["generator_sha256"] is None else generator,
            groups=groups,
            class_names=told.get("class_names"),
            notes=notes,
        )

    # -- Coding --------------------------------------------------------------------------------

    def encode(
        self,
        images: UInt8[np.ndarray, "n h w c"],
        labels: Int64[np.ndarray, " n"],
        levels: int | None = None,
    ) -> tuple[BitStack, list[int], Float64[np.ndarray, " n"]]:
        """Push images onto a stack of bits.

        Args:
            images: The images.
            labels: Their classes.
            levels: The set of levels of all, which the decoder is told; None: found for each image.

        Returns:
            (the stack, how many images were pushed at a time, bits of the values of each image).
        """
        sets = find_levels(images) if levels is None else np.full(len(images), levels)
        usual = len(self.set_counts) - 1
        stack, sizes, bits = BitStack(), list[int](), np.zeros(len(images))
        start = 0
        while start < len(images):
            rows = slice(start, start + self._next(stack, first=not sizes))
            block = images[rows], labels[rows]
            # What was drawn with the stack's bits has to be drawn again if an image is stored.
            before = stack.words
            bits[rows] = self._push(stack, *block, sets[rows], first=not sizes)
            worse = bits[rows] > 8 * images[0].size
            if worse.any() and levels is None:
                stack = BitStack(before)
                sets[rows][worse] = usual
                bits[rows] = self._push(stack, *block, sets[rows], first=not sizes)
            sizes.append(len(block[0]))
            if levels is None:
                stack.push(sets[rows], self._frequencies(self.set_counts, sizes[-1]))
            stack.push(block[1], self._frequencies(self.class_counts, sizes[-1]))
            start += len(block[0])
        return stack, sizes, bits

    def decode(
        self, stack: BitStack, sizes: list[int], levels: int | None = None
    ) -> tuple[UInt8[np.ndarray, "n h w c"], Int64[np.ndarray, " n"]]:
        """Pop what `encode` pushed.

        Args:
            stack: The stack; empty afterwards.
            sizes: How many images were pushed at a time.
            levels: As in `encode`.

        Returns:
            (images, labels).
        """
        shape = self.context.image_shape
        images, labels = [np.empty((0, *shape), np.uint8)], [np.empty(0, np.int64)]
        for number in reversed(range(len(sizes))):
            block = self._pop(stack, sizes[number], levels, first=number == 0)
            images.append(block[0])
            labels.append(block[1])
        return np.concatenate(images[::-1]), np.concatenate(labels[::-1])

    def _next(self, stack: BitStack, *, first: bool) -> int:
        """How many images are coded next: no more than the stack has bits to draw latents for."""
        if self.latents != "bits_back" or self.guide is None:
            return MOST_AT_A_TIME
        if first:
            return _FIRST
        spare = int(stack.n_bits / (2 * BITS_PER_UNIT * self.guide.n_units))
        return min(MOST_AT_A_TIME, max(1, spare))

    def _push(
        self,
        stack: BitStack,
        images: np.ndarray,
        labels: np.ndarray,
        sets: np.ndarray,
        *,
        first: bool,
    ) -> np.ndarray:
        guides = None
        drawn = self.latents == "bits_back" and not first
        if self.guide is not None:
            z = (
                self.guide.draw(stack, images, labels)
                if drawn
                else self.guide.centred(images, labels)
            )
            guides = self.guide.decoded(z, labels)
        bits = np.zeros(len(images))
        coding = self._coding(images, guides, labels, sets)
        for i, j, channel in reversed(list(self._order())):
            values = images[:, i, j, channel].astype(np.int64)
            upper, lower = values // _HALF, values % _HALF
            masses = coding.masses(i, j, channel)
            fine = coding.fine(masses, upper)
            coarse = coding.coarse(masses)
            stack.push(lower, fine)
            stack.push(upper, coarse)
            each = np.arange(len(values))
            bits += np.log2(coarse.sum(axis=1)) - np.log2(np.maximum(coarse[each, upper], 1.0))
            bits += np.log2(fine.sum(axis=1)) - np.log2(np.maximum(fine[each, lower], 1.0))
        if self.guide is not None:
            (self.guide.push if drawn else self.guide.push_centred)(stack, z, labels)
        return bits

    def _pop(
        self, stack: BitStack, n: int, levels: int | None, *, first: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        labels = stack.pop(self._frequencies(self.class_counts, n))
        if levels is None:
            sets = stack.pop(self._frequencies(self.set_counts, n))
        else:
            sets = np.full(n, levels)
        guides = None
        drawn = self.latents == "bits_back" and not first
        if self.guide is not None:
            z = (self.guide.pop if drawn else self.guide.pop_centred)(stack, labels)
            guides = self.guide.decoded(z, labels)
        images = np.zeros((n, *self.context.image_shape), np.uint8)
        coding = self._coding(images, guides, labels, sets)
        for i, j, channel in self._order():
            masses = coding.masses(i, j, channel)
            upper = stack.pop(coding.coarse(masses))
            values = upper * _HALF + stack.pop(coding.fine(masses, upper))
            images[:, i, j, channel] = values
            coding.write(values, i, j, channel)
        if self.guide is not None and drawn:
            self.guide.give_back(stack, z, images, labels)
        return images, labels

    def _order(self) -> Iterator[tuple[int, int, int]]:
        """Row, column and channel of the values, in the order in which they are decoded."""
        return np.ndindex(*self.context.image_shape)

    def _coding(
        self,
        images: np.ndarray,
        guides: np.ndarray | None,
        labels: np.ndarray,
        sets: np.ndarray,
    ) -> "_Coding":
        return _Coding(self.network, images, guides, labels, sets, len(self.set_counts) - 1)

    def _frequencies(self, counts: np.ndarray, n: int) -> np.ndarray:
        return np.broadcast_to(counts.astype(np.float64), (n, len(counts))).copy()

    def _head(self) -> str:
        head = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "context": asdict(self.context),
            "latents": self.latents,
            "groups": self.groups,
            "generator_sha256": None if self.guide is None else self.guide.sha256,
        }
        return json.dumps(head, sort_keys=True)

    def _tensors(self) -> dict[str, np.ndarray]:
        counts = {"class_counts": self.class_counts, "set_counts": self.set_counts}
        return self.network.weights | counts


class _Coding:
    """Probabilities of the values of some images, one place after another."""

    def __init__(
        self,
        network: ExactNetwork,
        images: np.ndarray,
        guides: np.ndarray | None,
        labels: np.ndarray,
        sets: np.ndarray,
        stored: int,
    ) -> None:
        edges, sizes = level_edges()
        self._network, self._context, self._labels = network, network.context, labels
        self._is_stored = sets == stored
        known = np.where(self._is_stored, 0, sets)
        self._edges, self._gaps = edges[known], gap_features(sizes[known])
        self._canvas = self._context.canvas(images)
        self._guides = None if guides is None else self._context.guide_canvas(guides)
        self._rows = np.arange(len(labels))

    def masses(self, i: int, j: int, channel: int) -> Any:
        """The distributions of the values at a place."""
        features = self._context.features(
            self._canvas, self._guides, self._gaps, self._rows, i, j, channel
        )
        raw = self._network.parameters(features, i, j, self._labels, channel)
        return self._network.mixture(raw)

    def coarse(self, mixture: Any) -> np.ndarray:
        """Masses of the upper four bits."""
        return self._masses(mixture, self._edges[:, ::_HALF])

    def fine(self, mixture: Any, upper: np.ndarray) -> np.ndarray:
        """Masses of the lower four bits given the upper ones."""
        places = (upper * _HALF)[:, None] + np.arange(_HALF + 1)
        return self._masses(mixture, np.take_along_axis(self._edges, places, axis=1))

    def write(self, values: np.ndarray, i: int, j: int, channel: int) -> None:
        """Take decoded values into the context."""
        self._canvas[:, self._context.place(i, j, channel)] = values

    def _masses(self, mixture: Any, edges: np.ndarray) -> np.ndarray:
        masses: np.ndarray = mixture.masses(edges)
        masses[self._is_stored] = 1.0
        return masses


def count_sets(images: UInt8[np.ndarray, "n h w c"]) -> Int64[np.ndarray, " s"]:
    """How frequent the sets of gray levels are, smoothed; see `ImageCoder`.

    Args:
        images: Training images.

    Returns:
        A count for each set, and for images that are stored.
    """
    n = len(level_edges()[1])
    counts = np.bincount(find_levels(images), minlength=n) * 16
    return np.append(counts + 1, 1)
