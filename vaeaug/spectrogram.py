"""Sounds as log magnitudes of their short-time Fourier transform, and back.

The transform itself loses nothing. Magnitudes alone are inverted by a phase that is consistent with
them: that of a recording which they were made from, or one integrated from their own gradients
(Průša et al. 2017, doi:10.1109/TASLP.2017.2678166), and then by the fast Griffin-Lim algorithm
(Perraudin et al. 2013, doi:10.1109/WASPAA.2013.6701851).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex64, Float
from torch import Tensor
from torch.nn import functional as F

# Length of a window in seconds, and in samples where the rate is not known.
WINDOW_SECONDS, WINDOW = 0.032, 256
MIN_WINDOW, MAX_WINDOW = 32, 8192
# Steps of a window; the overlap of three quarters makes phases follow from magnitudes.
OVERLAP = 4
# Magnitude, as a fraction of that of a sine of full scale, from which on the scale is logarithmic.
FLOOR = 1e-3
ITERATIONS = 16
# Acceleration of the Griffin-Lim algorithm.
_MOMENTUM = 0.99
# The Gaussian window that is most like a Hann window of n samples has gamma of so many n**2.
_GAMMA = 0.25645
# Below this distance from the nearest sound's transform a phase is already the right one.
_CONSISTENT = 1e-4
_TINY = 1e-10


class SpectrogramError(ValueError):
    """Sounds of which no spectrogram can be made."""


@dataclass(frozen=True)
class Spectrogram:
    """The spectrogram of sounds of one length.

    Frames of a periodic Hann window overlap by three quarters and begin before the sound, so that
    every sample lies in four of them. The real parts of the first and of the last frequency share
    a bin, so that a frame of `window` samples has exactly `window / 2` bins.

    Attributes:
        length: Samples of a sound.
        window: Samples of a window, a power of two.
    """

    length: int
    window: int = WINDOW

    def __post_init__(self) -> None:
        is_power = self.window & (self.window - 1) == 0
        if not (is_power and MIN_WINDOW <= self.window <= MAX_WINDOW):
            raise SpectrogramError(
                f"window: expected a power of two of {MIN_WINDOW} to {MAX_WINDOW} samples, got "
                f"{self.window}"
            )
        if self.length < self.window:
            raise SpectrogramError(
                f"sounds: expected at least one window of {self.window} samples, got "
                f"{self.length}; a shorter window or longer sounds do"
            )

    @classmethod
    def of(cls, length: int, rate: int | None = None, window: int | None = None) -> "Spectrogram":
        """The spectrogram of sounds, with a window for their sample rate.

        Args:
            length: Samples of a sound.
            rate: Sample rate, Hz.
            window: Samples of a window; None: the power of two that is nearest to 32 ms, or 256
                where the rate is not known.

        Returns:
            The spectrogram.

        Raises:
            SpectrogramError: If the sounds are shorter than a window.
        """
        if window is None and rate is not None:
            window = 2 ** round(math.log2(max(MIN_WINDOW, min(MAX_WINDOW, WINDOW_SECONDS * rate))))
        return cls(length, window or WINDOW)

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return self.window // OVERLAP

    @property
    def bins(self) -> int:
        """Frequencies."""
        return self.window // 2

    @property
    def frames(self) -> int:
        """Frames of a sound, a multiple of eight; the last ones may be of silence."""
        needed = -(-(self.length + self.window - self.hop) // self.hop)
        return -(-needed // 8) * 8

    def transform(self, x: Float[Tensor, "n c l"]) -> Complex64[Tensor, "n c f t"]:
        """The short-time Fourier transform.

        Args:
            x: Sounds, -1 to 1.

        Returns:
            Coefficients; those of a sine of full scale have magnitude 1.
        """
        if not len(x):  # the library has no transform of nothing
            empty = torch.zeros(*x.shape[:2], self.bins, self.frames, device=x.device)
            return torch.complex(empty, empty)
        before = self.window - self.hop
        total = (self.frames - 1) * self.hop + self.window
        padded = F.pad(x, (before, total - before - self.length))
        frames = padded.unfold(-1, self.window, self.hop) * self._window(x)
        full = torch.fft.rfft(frames / (self.window / 4), dim=-1)
        # Both are real.
        full.imag[..., 0] = full.real[..., -1]
        return full[..., :-1].movedim(-1, -2)

    def inverse(self, coefficients: Complex64[Tensor, "n c f t"]) -> Float[Tensor, "n c l"]:
        """The sounds whose transform is nearest to coefficients (Griffin & Lim 1984).

        Args:
            coefficients: As `transform` gives them.

        Returns:
            Sounds.
        """
        if not len(coefficients):
            return coefficients.real.new_zeros(0, coefficients.shape[1], self.length)
        packed = coefficients.movedim(-2, -1) * (self.window / 4)
        first, last = packed[..., :1].real, packed[..., :1].imag
        zero = torch.zeros_like(first)
        full = torch.cat(
            [torch.complex(first, zero), packed[..., 1:], torch.complex(last, zero)], dim=-1
        )
        window = self._window(first)
        frames = torch.fft.irfft(full, n=self.window, dim=-1) * window
        n, c, t, _ = frames.shape
        quarters = frames.unflatten(-1, (OVERLAP, self.hop))
        added = frames.new_zeros(n, c, t + OVERLAP - 1, self.hop)
        for k in range(OVERLAP):
            added[:, :, k : k + t] += quarters[:, :, :, k]
        before = self.window - self.hop
        # Four squared Hann windows, each a quarter later, add up to 3/2.
        x = added.flatten(2)[..., before : before + self.length]
        return x / (OVERLAP * 3 / 8)

    def log_magnitude(self, x: Float[Tensor, "n c l"]) -> Float[Tensor, "n c f t"]:
        """Log magnitudes.

        Args:
            x: Sounds, -1 to 1.

        Returns:
            0 for silence, 1 for a sine of full scale; linear below `FLOOR`, logarithmic above.
        """
        return self.compressed(self.transform(x).abs())

    def compressed(self, magnitude: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Log magnitudes of magnitudes.

        Args:
            magnitude: 0 or more.

        Returns:
            0 for 0, 1 for 1.
        """
        return torch.log1p(magnitude / FLOOR) / math.log1p(1 / FLOOR)

    def magnitude(self, log_magnitude: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Invert `compressed`; what is below 0 is silence.

        Args:
            log_magnitude: As `compressed` gives it.

        Returns:
            Magnitudes.
        """
        return torch.expm1(log_magnitude.clamp(min=0) * math.log1p(1 / FLOOR)) * FLOOR

    def sound(
        self,
        log_magnitude: Float[Tensor, "n c f t"],
        like: Float[Tensor, "n c l"] | None = None,
        *,
        iterations: int = ITERATIONS,
    ) -> Float[Tensor, "n c l"]:
        """Sounds of log magnitudes.

        Args:
            log_magnitude: As `log_magnitude` gives them.
            like: Recordings that they were made from, whose phase is where the search starts;
                where it was not changed, the result is the recording itself. Rows of NaN are of
                no recording.
            iterations: Of the fast Griffin-Lim algorithm.

        Returns:
            Sounds whose log magnitudes are near to these.
        """
        target = self.magnitude(log_magnitude)
        angle = self.integrated_phase(log_magnitude)
        start = torch.polar(target, angle)
        if like is not None:
            known = like.isfinite().flatten(1).all(dim=1)
            phase = self.transform(torch.where(known[:, None, None], like, 0)).angle()
            start = torch.where(known[:, None, None, None], torch.polar(target, phase), start)
        return self.griffin_lim(target, start, iterations)

    def griffin_lim(
        self,
        target: Float[Tensor, "n c f t"],
        start: Complex64[Tensor, "n c f t"],
        iterations: int,
    ) -> Float[Tensor, "n c l"]:
        """The fast Griffin-Lim algorithm; a start that is a sound's transform is left as it is.

        Args:
            target: Magnitudes.
            start: Coefficients of these magnitudes.
            iterations: At most.

        Returns:
            Sounds.
        """
        x = self.inverse(start)
        if not iterations or not len(target):
            return x
        previous = self.transform(x)
        apart = (previous - start).abs().square().flatten(1).sum(1)
        power = target.square().flatten(1).sum(1).clamp(min=_TINY)
        open_rows = torch.nonzero(apart > _CONSISTENT**2 * power).squeeze(1)
        if not len(open_rows):
            return x
        previous = previous[open_rows]
        # In memory as coefficients lie, frame after frame.
        goal = target[open_rows].movedim(-1, -2).contiguous().movedim(-1, -2)
        moved = previous
        for _ in range(iterations):
            now = self.transform(self.inverse(goal * moved.sgn()))
            moved = torch.add(now, now - previous, alpha=_MOMENTUM)
            previous = now
        x[open_rows] = self.inverse(goal * previous.sgn())
        return x

    def integrated_phase(self, log_magnitude: Float[Tensor, "n c f t"]) -> Tensor:
        """Phases that follow from log magnitudes, as those of a Gaussian window do.

        Args:
            log_magnitude: As `log_magnitude` gives them.

        Returns:
            Radians, integrated along time from the first frame.
        """
        s = torch.log(self.magnitude(log_magnitude) + FLOOR / 100)
        across = F.pad(s, (0, 0, 1, 1), mode="replicate").diff(dim=-2, n=1)
        across = 0.5 * (across[..., 1:, :] + across[..., :-1, :])
        gamma = _GAMMA * self.window**2
        scale = self.hop * self.window / gamma
        bins = torch.arange(self.bins, device=s.device, dtype=s.dtype)[:, None]
        speed = scale * across + 2 * math.pi * self.hop * bins / self.window
        mean = 0.5 * (speed[..., 1:] + speed[..., :-1])
        return F.pad(torch.remainder(mean, 2 * math.pi).cumsum(dim=-1), (1, 0)) + math.pi * bins

    def _window(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.window, dtype=like.dtype, device=like.device)
