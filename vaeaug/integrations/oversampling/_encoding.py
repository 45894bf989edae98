"""Columns of a table on one scale, on which distances and one noise level make sense, and back."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

# Interquartile range of a standard normal.
_NORMAL_IQR = 1.349
# Values farther from the median than so many robust standard deviations are drawn in, as their
# logarithm: one outlier would else press all others of its column together.
_BEND = 3.0


@dataclass(frozen=True)
class Columns:
    """A monotone scale for each column: robustly standardised, tails drawn in, unit variance.

    ``t = (bend(x) - centre) / spread`` with ``bend(x) = B asinh((x - median) / (B scale))``, which
    is linear near the median and logarithmic in the tails.

    Attributes:
        median: Of each column, shape (F,), in the units of the table.
        scale: Robust standard deviation of each column, in the units of the table.
        centre: Mean of the bent column.
        spread: Standard deviation of the bent column; 1 where the column is constant.
        low: Lowest value seen.
        high: Highest value seen; nothing that is given back lies outside.
        whole: Columns of whole numbers.
    """

    median: Float64[np.ndarray, " f"]
    scale: Float64[np.ndarray, " f"]
    centre: Float64[np.ndarray, " f"]
    spread: Float64[np.ndarray, " f"]
    low: Float64[np.ndarray, " f"]
    high: Float64[np.ndarray, " f"]
    whole: Bool[np.ndarray, " f"]

    @classmethod
    def of(cls, table: Shaped[np.ndarray, "n f"]) -> "Columns":
        """The scales of a table of finite numbers."""
        x = np.asarray(table, dtype=np.float64)
        low, high = x.min(axis=0), x.max(axis=0)
        quarter, median, three_quarters = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
        scale = (three_quarters - quarter) / _NORMAL_IQR
        # More than half of the column is one value: its quartiles say nothing.
        deviation = x.std(axis=0)
        scale = np.where(scale > 0, scale, deviation)
        # The deviation of equal numbers may be a rounding error; the range is exact.
        constant = low == high
        scale = np.where(constant | (scale == 0), 1.0, scale)
        bent = _bend(x, median, scale)
        spread = bent.std(axis=0)
        return cls(
            median=median,
            scale=scale,
            centre=bent.mean(axis=0),
            spread=np.where(constant | (spread == 0), 1.0, spread),
            low=low,
            high=high,
            whole=np.asarray((x == np.round(x)).all(axis=0)),
        )

    def scaled(self, table: Shaped[np.ndarray, "n f"]) -> Float32[np.ndarray, "n f"]:
        """Rows in units of each column's spread."""
        bent = _bend(np.asarray(table, dtype=np.float64), self.median, self.scale)
        return ((bent - self.centre) / self.spread).astype(np.float32)

    def restored(self, scaled: Shaped[np.ndarray, "n f"]) -> Float64[np.ndarray, "n f"]:
        """Rows in the units of the table: whole where the column is, in the range it was seen in.

        Args:
            scaled: What `scaled` gives.
        """
        bent = np.asarray(scaled, dtype=np.float64) * self.spread + self.centre
        x = self.median + self.scale * _BEND * np.sinh(bent / _BEND)
        return np.clip(np.where(self.whole, np.round(x), x), self.low, self.high)


def _bend(x: np.ndarray, median: np.ndarray, scale: np.ndarray) -> Float64[np.ndarray, "n f"]:
    return _BEND * np.arcsinh((x - median) / (_BEND * scale))
