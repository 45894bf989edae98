"""Scaling of the columns of a table to comparable units, and its inverse."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

# Interquartile range of a standard normal.
_NORMAL_IQR = 1.349
# Values farther from the median than this number of robust standard deviations are compressed
# logarithmically, because one outlier would otherwise squeeze all other values of its column.
_BEND = 3.0


@dataclass(frozen=True)
class Columns:
    """A monotone scale for each column: robustly standardised, compressed tails, unit variance.

    ``t = (bend(x) - centre) / spread`` with ``bend(x) = B asinh((x - median) / (B scale))``, which
    is linear near the median and logarithmic in the tails.

    Attributes:
        median: Median of each column in the units of the table, (F,).
        scale: Robust standard deviation of each column in the units of the table, (F,).
        centre: Mean of each compressed column, (F,).
        spread: Standard deviation of each compressed column, 1 if it is constant, (F,).
        low: Lowest observed value of each column, (F,).
        high: Highest observed value of each column, (F,); restored values are clipped to the range.
        whole: Whether each column has only whole numbers, (F,).
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
        """Fit the scales to a table of finite numbers.

        Args:
            table: Rows, in the units of the table.

        Returns:
            The scales.
        """
        x = np.asarray(table, dtype=np.float64)
        low, high = x.min(axis=0), x.max(axis=0)
        quarter, median, three_quarters = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
        scale = (three_quarters - quarter) / _NORMAL_IQR
        # If more than half of a column has one value, its quartiles carry no information.
        deviation = x.std(axis=0)
        scale = np.where(scale > 0, scale, deviation)
        # The deviation of equal numbers may be a rounding error, whereas their range is exact.
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
        """Scale rows to the units of the spread of each column.

        Args:
            table: Rows, in the units of the table.

        Returns:
            Scaled rows.
        """
        bent = _bend(np.asarray(table, dtype=np.float64), self.median, self.scale)
        return ((bent - self.centre) / self.spread).astype(np.float32)

    def restored(self, scaled: Shaped[np.ndarray, "n f"]) -> Float64[np.ndarray, "n f"]:
        """Convert scaled rows to the units of the table.

        Columns of whole numbers are rounded, and all columns are clipped to their observed range.

        Args:
            scaled: Scaled rows.

        Returns:
            Rows, in the units of the table.
        """
        bent = np.asarray(scaled, dtype=np.float64) * self.spread + self.centre
        x = self.median + self.scale * _BEND * np.sinh(bent / _BEND)
        return np.clip(np.where(self.whole, np.round(x), x), self.low, self.high)


def _bend(x: np.ndarray, median: np.ndarray, scale: np.ndarray) -> Float64[np.ndarray, "n f"]:
    return _BEND * np.arcsinh((x - median) / (_BEND * scale))
