"""Train the network of a coder on images."""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import nn

from vaeaug.compression.coder import ImageCoder, Latents, count_sets
from vaeaug.compression.context import Context, check_shape, gap_features
from vaeaug.compression.errors import CompressionError
from vaeaug.compression.guide import decoded_from
from vaeaug.compression.levels import find_levels, level_edges, rounded_to
from vaeaug.compression.network import ContextNetwork, log2_mass, quantise
from vaeaug.data import LabelledImages
from vaeaug.generator import Synthesizer
from vaeaug.progress import Progress, shown, silent
from vaeaug.randomness import seeded_torch
from vaeaug.training import resolve_device
from vaeaug.training.optimisers import AdamW

# Values whose neighbours all equal them teach next to nothing: so many of them are left out.
_KEPT = 0.125
_BATCH = 32
_HELD_OUT = 256
# Levels less one of images that are rounded, from and up to.
_ROUNDED = (2, 33)


@dataclass
class _Batch:
    """Values to learn from: features, place, label, edges and weight of each."""

    features: torch.Tensor
    i: torch.Tensor
    j: torch.Tensor
    labels: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    weight: torch.Tensor

    def to(self, device: torch.device) -> "_Batch":
        """The same on a device."""
        return _Batch(*(getattr(self, each.name).to(device) for each in fields(self)))


class _Values:
    """Draws values of training images together with their context."""

    def __init__(
        self,
        data: LabelledImages,
        context: Context,
        generator: Synthesizer | None,
        groups: int | None,
        rounded: float,
    ) -> None:
        self.rounded = rounded
        self.images, self.labels, self.context = data.images, data.labels, context
        self.generator = generator
        self.sets = find_levels(data.images)
        if generator is not None:
            spans = [(group.start, group.start + group.size) for group in generator.model.groups]
            self.unknown = spans[len(spans[:groups]) :]
            same = generator.data_fingerprint == data.fingerprint
            self.moments = (
                (generator.means[: len(data)], generator.variances[: len(data)])
                if same
                else generator.codec.posterior(data.images, data.labels)
            )

    def batch(
        self, rows: Int64[np.ndarray, " b"], channel: int, rng: np.random.Generator, *, kept: float
    ) -> _Batch:
        """The values of a channel of some images, those of flat parts thinned out."""
        context, images, sets = self.context, self.images[rows], self.sets[rows]
        coarse = rng.random(len(rows)) < self.rounded
        low, high = map(math.log, _ROUNDED)
        reach = np.exp(rng.uniform(low, high, len(rows))).astype(np.int64)
        if coarse.any():
            images = images.copy()
            images[coarse], sets[coarse] = rounded_to(images[coarse], reach[coarse])
        values = images[..., channel].astype(np.int64)
        places = _busy(values) | (rng.random(values.shape) < kept)
        row, i, j = np.nonzero(places)
        value, busy = values[row, i, j], _busy(values)[row, i, j]
        edges, sizes = level_edges()
        guides = None
        if self.generator is not None:
            mean, variance = (array[rows] for array in self.moments)
            noise = rng.standard_normal(mean.shape, np.float32)
            z = mean + np.sqrt(variance) * noise
            guides = context.guide_canvas(self._decoded(self.generator, z, self.labels[rows]))
        gaps = gap_features(sizes[sets])
        found = context.features(context.canvas(images), guides, gaps, row, i, j, channel)
        weight = np.where(busy, 1.0, 1 / max(kept, 1e-9)).astype(np.float32)
        of = torch.from_numpy
        return _Batch(
            of(found),
            of(i),
            of(j),
            of(self.labels[rows][row]),
            of(edges[sets[row], value].astype(np.float32)),
            of(edges[sets[row], value + 1].astype(np.float32)),
            of(weight / values.size),
        )

    def _decoded(self, generator: Synthesizer, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            y = torch.from_numpy(labels).to(generator.device)
            latents = torch.from_numpy(z).to(generator.device)
            means = decoded_from(generator.model, latents, y, self.unknown)
        return generator.codec.stored(means.cpu())


def fit_coder(
    data: LabelledImages,
    generator: Synthesizer | None = None,
    *,
    latents: Latents | None = None,
    groups: int | None = None,
    steps: int = 1500,
    units: int = 160,
    depth: int = 2,
    rounded: float = 0.0,
    learning_rate: float = 2e-3,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: Progress | bool | None = None,
) -> ImageCoder:
    """Train a coder on images.

    Args:
        data: Training images: uint8, 8 to 64 pixels a side, 1 or 3 channels.
        generator: A generator of such images, whose latents tell the coder what the image as a
            whole looks like; None: the coder sees what is decoded already, and nothing else.
        latents: How they are coded: "bits_back" (default) or "centred", a quantised posterior
            mean; "none" without a generator.
        groups: How many groups of hierarchical latents are coded; the decoder gets the others at
            the mean of their prior. None: all.
        steps: Of training, each with values of 32 images.
        units: Of a hidden layer of the network.
        depth: Its residual layers.
        rounded: Share of the training images whose values are rounded to a few gray levels, for
            ``compress(levels=)``: 1 for a coder that is used for nothing else.
        learning_rate: Peak, of AdamW with a cosine schedule.
        seed: Of weights and batches.
        device: Where the network is trained: "auto", "cpu", "cuda" or "cuda:1". Coding is done on
            the processor.
        progress: As in `vaeaug.fit`.

    Returns:
        The coder. ``notes["held_out_bits"]`` are bits a value of images that were held out, without
        the latents, in floating point.

    Raises:
        CompressionError: If the images are not such images, or the generator is one of others.
    """
    if data.images.dtype != np.uint8 or tuple(data.value_range) != (0, 255):
        raise CompressionError(
            f"compression: expected 8-bit images of values 0 to 255, got {data.images.dtype} of "
            f"values {data.value_range[0]:g} to {data.value_range[1]:g}"
        )
    if len(data) < 2:
        raise CompressionError(f"compression: expected at least 2 images, got {len(data)}")
    latents = latents or ("none" if generator is None else "bits_back")
    shape = check_shape(data.image_shape)
    context = Context(shape, guide=2 if generator is not None else -1)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(data))
    n_held = min(_HELD_OUT, max(1, len(data) // 20))
    held, train = np.sort(order[:n_held]), order[n_held:]
    values = _Values(data, context, generator, groups, rounded)
    with seeded_torch(seed):
        network = ContextNetwork(context, data.n_classes, units=units, depth=depth)
    network = network.to(resolve_device(device))
    average = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimiser = AdamW(network.parameters(), learning_rate, weight_decay=1e-4, betas=(0.9, 0.99))
    best, best_bits = average, math.inf
    with shown(progress) as shown_to:
        report = shown_to or silent
        for step in range(steps):
            warm, turn = min(1.0, (step + 1) / 50), math.cos(math.pi * step / steps)
            optimiser.param_groups[0]["lr"] = learning_rate * warm * (0.51 + 0.49 * turn)
            rows = train[rng.integers(0, len(train), _BATCH)]
            loss = _bits(network, values, rows, step % shape[2], rng, kept=_KEPT)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            decay = min(0.995, (1 + step) / (10 + step))
            for name, tensor in network.state_dict().items():
                average[name].lerp_(tensor, 1 - decay)
            if (step + 1) % max(1, steps // 8) == 0 or step + 1 == steps:
                bits = _held_out(average, network, values, held, shape[2], seed)
                if bits < best_bits:
                    best, best_bits = {k: v.clone() for k, v in average.items()}, bits
                report("coder", step + 1, steps, {"bits_per_value": bits})
    network.load_state_dict(best)
    return ImageCoder(
        context,
        quantise(network),
        class_counts=np.asarray(data.counts, np.int64) * 16 + 1,
        set_counts=count_sets(data.images),
        latents=latents,
        generator=generator,
        groups=groups,
        class_names=data.class_names,
        notes={"steps": steps, "seed": seed, "rounded": rounded, "held_out_bits": best_bits},
    )


def _bits(
    network: ContextNetwork,
    values: _Values,
    rows: np.ndarray,
    channel: int,
    rng: np.random.Generator,
    *,
    kept: float,
) -> torch.Tensor:
    batch = values.batch(rows, channel, rng, kept=kept).to(network.row.device)
    raw = network(batch.features, batch.i, batch.j, batch.labels, channel)
    return -(log2_mass(raw, batch.low, batch.high) * batch.weight).sum()


def _held_out(
    average: dict[str, torch.Tensor],
    network: ContextNetwork,
    values: _Values,
    rows: np.ndarray,
    channels: int,
    seed: int,
) -> float:
    """Bits a value of held-out images with the averaged weights; the network is unchanged."""
    current = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(average)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        bits = [_bits(network, values, rows, c, rng, kept=1.0) for c in range(channels)]
    network.load_state_dict(current)
    return float(torch.stack(bits).mean())


def _busy(values: Int64[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """Whether a value differs from one of those to the left of it and above it."""
    padded = np.pad(values, ((0, 0), (2, 0), (2, 2)))
    height, width = values.shape[1:]
    busy = np.zeros(values.shape, bool)
    for up, left in ((0, 1), (0, 2), (1, -2), (1, -1), (1, 0), (1, 1), (2, -1), (2, 0)):
        there = padded[:, 2 - up : 2 - up + height, 2 - left : 2 - left + width]
        busy |= there != values
    return busy
