"""The entropy coder: asymmetric numeral systems of the package `constriction`, a stack of bits."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt32

from vaeaug.compression.errors import CompressionError

# Numbers whose distribution is wide, and near ones: of every number in reach the coder takes the
# probability to be at least 2**-24, so that draws from a wide reach would be wild now and then.
_FAR, _NEAR = 1 << 14, 127


class BitStack:
    """A stack of bits; symbols are pushed and popped at the length of their surprise.

    What is pushed first is popped last. Popping symbols that were never pushed draws them from
    their distribution with bits that lie on the stack: that is bits-back coding.

    Args:
        words: What `words` gave; None: empty.

    Raises:
        CompressionError: If the package constriction is not installed.
    """

    def __init__(self, words: UInt32[np.ndarray, " w"] | None = None) -> None:
        try:
            import constriction
        except ImportError as error:
            raise CompressionError(
                "compression needs the package constriction: pip install 'vaeaug[compression]'"
            ) from error
        stream: Any = constriction.stream
        self._coder = stream.stack.AnsCoder(*([] if words is None else [words]))
        self._categorical = stream.model.Categorical(perfect=False)
        self._far = stream.model.QuantizedGaussian(-_FAR, _FAR)
        self._near = stream.model.QuantizedGaussian(-_NEAR, _NEAR)

    @property
    def n_bits(self) -> int:
        """Bits on the stack."""
        return int(self._coder.num_valid_bits())

    @property
    def is_empty(self) -> bool:
        """Whether all that was pushed has been popped."""
        return bool(self._coder.is_empty())

    @property
    def words(self) -> UInt32[np.ndarray, " w"]:
        """A copy of the stack."""
        return np.asarray(self._coder.get_compressed(), np.uint32)

    def push(self, symbols: Int64[np.ndarray, " k"], masses: Float64[np.ndarray, "k m"]) -> None:
        """Push symbols, the last one first, so that `pop` gives them in their order.

        Args:
            symbols: Whole numbers from 0.
            masses: Of each the probabilities of all symbols, up to a factor.
        """
        if len(symbols):
            self._coder.encode_reverse(symbols.astype(np.int32), self._categorical, masses)

    def pop(self, masses: Float64[np.ndarray, "k m"]) -> Int64[np.ndarray, " k"]:
        """Pop symbols.

        Args:
            masses: As they were pushed.

        Returns:
            The symbols.
        """
        if not len(masses):
            return np.empty(0, np.int64)
        return np.asarray(self._coder.decode(self._categorical, masses), np.int64)

    def push_normal(
        self,
        values: Int64[np.ndarray, " k"],
        means: Float64[np.ndarray, " k"],
        deviations: Float64[np.ndarray, " k"],
        *,
        near: bool = False,
    ) -> None:
        """Push whole numbers that are normally distributed.

        Args:
            values: Up to 2**14 in size, up to 127 if near.
            means: Of each.
            deviations: Standard deviation of each.
            near: Whether they are all small, as in `pop_normal`.
        """
        if len(values):
            model = self._near if near else self._far
            self._coder.encode_reverse(values.astype(np.int32), model, means, deviations)

    def pop_normal(
        self,
        means: Float64[np.ndarray, " k"],
        deviations: Float64[np.ndarray, " k"],
        *,
        near: bool = False,
    ) -> Int64[np.ndarray, " k"]:
        """Pop whole numbers that are normally distributed.

        Args:
            means: Of each.
            deviations: Standard deviation of each.
            near: Whether they are all small: what is drawn with bits of other things has to be.

        Returns:
            The numbers.
        """
        if not len(means):
            return np.empty(0, np.int64)
        model = self._near if near else self._far
        return np.asarray(self._coder.decode(model, means, deviations), np.int64)
