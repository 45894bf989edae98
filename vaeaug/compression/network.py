"""The network of a coder: the distribution of a value given its context.

A mixture of logistics, discretised to gray levels (PixelCNN++, Salimans et al. 2017,
arXiv:1701.05517), whose parameters a small dense network gives. It is trained in floating point
(`ContextNetwork`) and used in whole numbers (`ExactNetwork`).
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from vaeaug.compression import exact
from vaeaug.compression.context import UNIT, Context
from vaeaug.compression.errors import CompressionError

COMPONENTS = 6
# Share of probability that is spread evenly over the 256 values: 2**-20 each.
_FLOOR_BITS = 20
# The network's means are in units of so many gray levels.
_LEVELS = 64
_START_LOG_SCALE = 2


class ContextNetwork(nn.Module):
    """Parameters of the mixture, in floating point, for training.

    Args:
        context: What is seen.
        n_classes: Classes of the images.
        units: Of a hidden layer.
        depth: Residual hidden layers.
    """

    def __init__(self, context: Context, n_classes: int, *, units: int, depth: int) -> None:
        super().__init__()
        height, width, channels = context.image_shape
        outputs = 3 * COMPONENTS
        self.enter = nn.ModuleList(nn.Linear(context.n_inputs, units) for _ in range(channels))
        self.skip = nn.ModuleList(
            nn.Linear(context.n_inputs, outputs, bias=False) for _ in range(channels)
        )
        self.leave = nn.ModuleList(nn.Linear(units, outputs) for _ in range(channels))
        self.hidden = nn.ModuleList(nn.Linear(units, units) for _ in range(depth))
        self.row = nn.Parameter(torch.zeros(height, units, dtype=torch.float32))
        self.column = nn.Parameter(torch.zeros(width, units, dtype=torch.float32))
        self.label = nn.Parameter(torch.zeros(n_classes, units, dtype=torch.float32))
        for last in (*self.skip, *self.leave):
            nn.init.zeros_(last.weight)

    def forward(
        self,
        features: Float[Tensor, "k f"],
        i: Int[Tensor, " k"],
        j: Int[Tensor, " k"],
        labels: Int[Tensor, " k"],
        channel: int,
    ) -> Float[Tensor, "k o"]:
        """Compute the parameters of values.

        Args:
            features: From `Context.features`.
            i: Rows of the values.
            j: Columns.
            labels: Classes of their images.
            channel: Of all.

        Returns:
            Logits, means and log scales, see `log2_mass`.
        """
        x = features / UNIT
        h = F.relu(self.enter[channel](x) + self.row[i] + self.column[j] + self.label[labels])
        for layer in self.hidden:
            h = h + F.relu(layer(h))
        return self.leave[channel](h) + self.skip[channel](x)


def log2_mass(
    raw: Float[Tensor, "k o"], low: Float[Tensor, " k"], high: Float[Tensor, " k"]
) -> Float[Tensor, " k"]:
    """Compute the log probability of gray levels.

    Args:
        raw: Output of `ContextNetwork`.
        low: Edges of the levels, from `vaeaug.compression.levels.level_edges`; 0: from minus
            infinity.
        high: Edges of the next ones; 256: to infinity.

    Returns:
        Minus the bits that coding them takes.
    """
    logits, means, log_scales = raw.chunk(3, dim=1)
    start = torch.linspace(0.0, 255.0, COMPONENTS, dtype=raw.dtype, device=raw.device)
    means = means * _LEVELS + start
    inverse = torch.exp(
        -(log_scales + _START_LOG_SCALE).clamp(exact.LOWEST_LOG_SCALE, exact.HIGHEST_LOG_SCALE)
    )
    a = torch.where(low[:, None] <= 0, -60.0, (low[:, None] - 0.5 - means) * inverse)
    b = torch.where(high[:, None] >= 256, 60.0, (high[:, None] - 0.5 - means) * inverse)
    flip = a > 0  # to the lower tail, where differences keep their precision
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    below, above = F.logsigmoid(a), F.logsigmoid(b)
    parts = above + torch.log1p(-torch.exp((below - above).clamp(max=-1e-6)))
    mixed = torch.logsumexp(F.log_softmax(logits, dim=1) + parts, dim=1)
    floor = torch.log(high - low) - _FLOOR_BITS * math.log(2)
    whole = math.log1p(256 * 2.0**-_FLOOR_BITS)
    return (torch.logaddexp(mixed, floor) - whole) / math.log(2)


class ExactNetwork:
    """The same network in whole numbers: equal results on every machine and in every batch.

    Args:
        context: What is seen.
        weights: By name, int16; see `quantise`.

    Raises:
        CompressionError: If they do not fit together, or a sum could become inexact.
    """

    def __init__(self, context: Context, weights: Mapping[str, np.ndarray]) -> None:
        self.context, self.weights = context, dict(weights)
        _, _, channels = context.image_shape
        self._depth = sum(name.startswith("hidden.") for name in weights) // 2
        try:
            self._enter = [self._layer(f"enter.{c}") for c in range(channels)]
            self._skip = [self._layer(f"skip.{c}")[0] for c in range(channels)]
            self._leave = [self._layer(f"leave.{c}") for c in range(channels)]
            self._hidden = [self._layer(f"hidden.{number}") for number in range(self._depth)]
            names = ("row", "column", "label")
            self._bias = [self.weights[name] * 2.0**exact.FRACTION for name in names]
        except KeyError as error:
            raise CompressionError(f"coder: its weights lack {error}") from error
        units = self._bias[0].shape[1]
        shapes = [(self._enter, (context.n_inputs, units)), (self._leave, (units, 3 * COMPONENTS))]
        shapes.append((self._hidden, (units, units)))
        for layers, shape in shapes:
            for weight, _ in layers:
                if weight.shape != shape:
                    raise CompressionError(
                        f"coder: expected a layer of shape {shape}, got {weight.shape}"
                    )
        self._start = np.floor(np.linspace(0, 255, COMPONENTS) * 256 + 0.5).astype(np.int64)

    def parameters(
        self,
        features: Float32[np.ndarray, "k f"],
        i: int,
        j: int,
        labels: Int64[np.ndarray, " k"],
        channel: int,
    ) -> Int64[np.ndarray, "k o"]:
        """Compute what `ContextNetwork` computes.

        Args:
            features: From `Context.features`.
            i: Row of the values.
            j: Column.
            labels: Classes of their images.
            channel: Of all.

        Returns:
            Whole numbers in units of ``2**-FRACTION``.
        """
        x = features.astype(np.float64)
        x *= 2**exact.FRACTION // UNIT
        weight, bias = self._enter[channel]
        row, column, label = self._bias
        h = x @ weight
        h += bias + row[i] + column[j]
        h += label[labels]
        np.maximum(exact.rescaled(h), 0, out=h)
        for weight, bias in self._hidden:
            inner = h @ weight
            inner += bias
            h += np.maximum(exact.rescaled(inner), 0, out=inner)
            np.minimum(h, exact.MOST, out=h)
        weight, bias = self._leave[channel]
        raw = h @ weight
        raw += bias
        raw += x @ self._skip[channel]
        return exact.rescaled(raw).astype(np.int64)

    def mixture(self, raw: Int64[np.ndarray, "k o"]) -> "Mixture":
        """Turn parameters into distributions.

        Args:
            raw: From `parameters`.

        Returns:
            The distributions of the values.
        """
        logits, means, log_scales = (
            raw[:, COMPONENTS * part : COMPONENTS * (part + 1)] for part in range(3)
        )
        below = logits.max(axis=1, keepdims=True) - logits
        weights = exact.weight_table()
        steps = np.minimum(below >> (exact.FRACTION - exact.WEIGHT_STEP), len(weights) - 1)
        scales = exact.inverse_scale_table()
        start = int((_START_LOG_SCALE - exact.LOWEST_LOG_SCALE) * 2**exact.FRACTION)
        coarse = exact.FRACTION - exact.SCALE_STEP
        place = (log_scales + start + (1 << (coarse - 1))) >> coarse
        return Mixture(
            weights=weights[steps],
            means=means * (_LEVELS * 256 >> exact.FRACTION) + self._start,
            inverse_scales=scales[place.clip(0, len(scales) - 1)],
        )

    def _layer(self, name: str) -> tuple[Float64[np.ndarray, "i o"], Float64[np.ndarray, " o"]]:
        weight = self.weights[f"{name}.weight"].T
        if not exact.fits(weight):
            raise CompressionError(f"coder: the weights of {name} are too large for exact sums")
        bias = self.weights.get(f"{name}.bias", np.zeros(weight.shape[1], np.int16))
        whole = np.ascontiguousarray(weight, np.float64)
        return whole, bias.astype(np.float64) * 2.0**exact.FRACTION


class Mixture:
    """Discretised mixtures of logistics, in whole numbers.

    Args:
        weights: Of the components, (k, m).
        means: In units of 1/256 gray level.
        inverse_scales: In units of ``2**-SCALE_BITS`` per gray level.
    """

    def __init__(
        self,
        weights: Int64[np.ndarray, "k m"],
        means: Int64[np.ndarray, "k m"],
        inverse_scales: Int64[np.ndarray, "k m"],
    ) -> None:
        self._weights, self._means, self._inverse = weights, means, inverse_scales
        self._whole = weights.sum(axis=1)

    def masses(self, edges: Int64[np.ndarray, "k e"]) -> Float64[np.ndarray, "k e-1"]:
        """Compute the probabilities between edges, up to a common factor.

        Args:
            edges: Ascending, 0 to 256, as in `vaeaug.compression.levels.level_edges`.

        Returns:
            Whole numbers; 0 where an edge is the next one as well.
        """
        table = exact.logistic_table()
        shift = 8 + exact.SCALE_BITS - exact.LOGISTIC_STEP
        cumulated = (edges * self._whole[:, None]) << (exact.LOGISTIC_BITS - _FLOOR_BITS)
        low, high = edges <= 0, edges >= 256
        middle = edges * 256 - 128
        for k in range(self._weights.shape[1]):
            place = (middle - self._means[:, k : k + 1]) * self._inverse[:, k : k + 1]
            place >>= shift
            place += exact.LOGISTIC_REACH << exact.LOGISTIC_STEP
            np.clip(place, 0, len(table) - 1, out=place)
            place[low], place[high] = 0, len(table) - 1
            cumulated += table[place] * self._weights[:, k : k + 1]
        return np.diff(cumulated, axis=1).astype(np.float64)


def quantise(network: ContextNetwork) -> dict[str, np.ndarray]:
    """Round a trained network to whole numbers.

    Args:
        network: The network.

    Returns:
        int16 weights by name, in units of ``2**-WEIGHT``.
    """
    state = network.state_dict().items()
    return {name: exact.quantised(tensor.detach().cpu().numpy()) for name, tensor in state}
