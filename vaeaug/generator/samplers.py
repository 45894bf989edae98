"""How the latents of a request are drawn, sampler by sampler."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from vaeaug.generator.codec import SamplingError, in_blocks_of
from vaeaug.generator.density import ClassDensity
from vaeaug.generator.latents import Latents
from vaeaug.models import CVAE, LatentFlow, SeparateCVAE

SAMPLERS = ("prior", "posterior", "interpolate", "gmm", "flow", "transfer", "blend")
# Samplers that start from a training image.
WITH_SOURCE = ("posterior", "interpolate", "transfer")
# Samplers that start from a training image of the class itself, which can be edited.
EDITING = ("posterior", "interpolate")
# Which part of the way an interpolation goes: near either end it is a copy.
LEAST_STEP, MOST_STEP = 0.5, 0.9
# Below this many images a density of the class is a guess, and its own images are the better guide.
SMALL_CLASS = 20
# A blend is made with one of this many classes, those whose mean latents are nearest.
BLEND_CLASSES = 3
# Largest part of the other class in a blend: the label stays the more likely one.
MAX_BLEND = 0.45


@dataclass(frozen=True)
class Request:
    """Samples that are asked for.

    Attributes:
        label: The class.
        sampler: One of `SAMPLERS`.
        pool: Rows of training images to draw around.
        temperature: Scale of the noise.
        guidance: Guidance scale of the flow.
        solver_steps: Solver steps of the flow.
        redrawn: Fraction of the codes of a training image that are drawn anew, of discrete latents.
    """

    label: int
    sampler: str
    pool: Int64[np.ndarray, " m"]
    temperature: float
    guidance: float
    solver_steps: int
    redrawn: float = 0.5


def check_numbers(
    *, n: int, start: int, seed: int, temperature: float, guidance: float, solver_steps: int
) -> None:
    """Refuse numbers that nothing can be drawn by.

    Args:
        n: How many samples.
        start: Index of the first one.
        seed: Seed of the run.
        temperature: Scale of the noise.
        guidance: Guidance scale of the flow.
        solver_steps: Solver steps of the flow.

    Raises:
        SamplingError: Naming the number, what was expected and what it got.
    """
    if n < 0 or start < 0:
        raise SamplingError(f"sample: expected n and start of at least 0, got {n} and {start}")
    if not 0 <= seed < 2**64:
        raise SamplingError(f"sample: expected a seed from 0 to 2**64 - 1, got {seed}")
    for name, value in (("temperature", temperature), ("guidance", guidance)):
        if not (math.isfinite(value) and value >= 0):
            raise SamplingError(f"sample: expected a {name} of at least 0, got {value}")
    if solver_steps < 1:
        raise SamplingError(f"sample: expected solver_steps of at least 1, got {solver_steps}")


@dataclass(frozen=True)
class Drawn:
    """Latents and what they were drawn from.

    Attributes:
        latents: z, (n, z).
        sources: Row of the training image that a sample was drawn around, -1 for none.
        other: The second class of a blend, -1 for none.
        share: Share of the second class.
    """

    latents: Float32[np.ndarray, "n z"]
    sources: Int64[np.ndarray, " n"]
    other: Int64[np.ndarray, " n"]
    share: Float32[np.ndarray, " n"]


@dataclass(frozen=True)
class SampleNoise:
    """All random numbers that samples use.

    Attributes:
        uniform: In [0, 1), (n, 3).
        normal: Standard normal, (n, z).
    """

    uniform: Float64[np.ndarray, "n 3"]
    normal: Float32[np.ndarray, "n z"]

    @classmethod
    def of(cls, seed: int, label: int, first: int, n: int, size: int) -> "SampleNoise":
        """Draw the numbers of samples first to first + n - 1 of a class.

        Args:
            seed: Seed of the run.
            label: The class.
            first: Index of the first sample.
            n: How many samples.
            size: Length of a latent.

        Returns:
            The numbers; those of a sample depend on (seed, label, index) alone.
        """
        uniform = np.empty((n, 3))
        normal = np.empty((n, size), np.float32)
        for row, rng in enumerate(sample_generators(seed, label, first, n)):
            uniform[row] = rng.random(3)
            normal[row] = rng.standard_normal(size)
        return cls(uniform, normal)


def sample_generator(seed: int, label: int, index: int, *, stream: int = 0) -> np.random.Generator:
    """The random numbers of one sample: Philox keyed by run, class and index.

    Args:
        seed: Seed of the run.
        label: The class.
        index: Which sample of the class.
        stream: Another number gives the sample other numbers.

    Returns:
        A generator that no other sample shares.
    """
    return np.random.Generator(np.random.Philox(key=[seed, label], counter=[0, 0, index, stream]))


def sample_generators(
    seed: int, label: int, first: int, n: int, *, stream: int = 0
) -> Iterator[np.random.Generator]:
    """The `sample_generator` of one sample after the other, without the cost of making each.

    Args:
        seed: Seed of the run.
        label: The class.
        first: Index of the first sample.
        n: How many samples.
        stream: As for `sample_generator`.

    Yields:
        The generator of each; the next one is the same object.
    """
    bits = np.random.Philox(key=[seed, label], counter=[0, 0, first, stream])
    rng, state = np.random.Generator(bits), bits.state
    for index in range(first, first + n):
        state["state"]["counter"][2] = index
        bits.state = state
        yield rng


@dataclass(frozen=True)
class LatentSampler:
    """Draws latents of a class.

    Attributes:
        model: The trained model, for its prior.
        latents: Posteriors of the training images.
        densities: One density per class; None for a class without training images.
        flow: The density of all classes; None for none.
        reach: By class, how far away the neighbours of an interpolation are.
    """

    model: CVAE | SeparateCVAE
    latents: Latents
    densities: Sequence[ClassDensity | None]
    flow: LatentFlow | None = None
    reach: Mapping[int, int] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.model.parameters()).device

    def draw(self, request: Request, *, seed: int, first: int, n: int) -> Drawn:
        """Latents of samples first to first + n - 1.

        Args:
            request: Class, sampler and its settings.
            seed: Seed of the run.
            first: Index of the first sample, the beginning of a block of the model.
            n: How many.

        Returns:
            The latents. Each depends on (seed, class, index) alone.
        """
        noise = SampleNoise.of(seed, request.label, first, n, self.model.latent_dim)
        sources = np.full(n, -1, np.int64)
        other, share = np.full(n, -1, np.int64), np.zeros(n, np.float32)
        if request.sampler in WITH_SOURCE:
            place = (noise.uniform[:, 0] * len(request.pool)).astype(np.int64)
            sources = request.pool[place]
        if request.sampler == "blend":
            near = self._near_classes(request.label)
            other = near[(noise.uniform[:, 1] * len(near)).astype(np.int64)]
            share = (MAX_BLEND * noise.uniform[:, 2]).astype(np.float32)
        by_sampler: dict[str, Callable[[], np.ndarray]] = {
            "prior": lambda: self._from_prior(request, noise),
            "posterior": lambda: self._around(request, noise, sources),
            "transfer": lambda: self._style_of(self._around(request, noise, sources)),
            "interpolate": lambda: self._between_neighbours(request, noise, sources),
            "gmm": lambda: self._from_density(request, noise),
            "flow": lambda: self._from_flow(request, noise, other, share),
            "blend": lambda: self._blend(request, noise, other, share),
        }
        z = by_sampler[request.sampler]().astype(np.float32, copy=False)
        return Drawn(z, sources, other, share)

    def _from_prior(self, request: Request, noise: SampleNoise) -> np.ndarray:
        def prior(normal: Tensor) -> Tensor:
            y = torch.full((len(normal),), request.label, device=normal.device)
            z = self.model.draw_prior(normal, y, temperature=request.temperature)
            return self.model.style_only(z)

        return in_blocks_of(self.model, prior, noise.normal).numpy()

    def _style_of(self, z: np.ndarray) -> np.ndarray:
        """Latents without what another class must not take over."""
        return self.model.style_only(torch.from_numpy(z)).numpy()

    def _around(self, request: Request, noise: SampleNoise, sources: np.ndarray) -> np.ndarray:
        spread = np.sqrt(self.latents.variances[sources])
        return self.latents.means[sources] + request.temperature * spread * noise.normal

    def _between_neighbours(
        self, request: Request, noise: SampleNoise, sources: np.ndarray
    ) -> np.ndarray:
        means, reach = self.latents.means, self.reach.get(request.label, 1)
        towards = self.latents.neighbour(sources, noise.uniform[:, 1], reach=reach)
        steps = LEAST_STEP + (MOST_STEP - LEAST_STEP) * noise.uniform[:, 2:]
        share = steps.astype(np.float32)
        return (1 - share) * means[sources] + share * means[towards]

    def _from_density(self, request: Request, noise: SampleNoise) -> np.ndarray:
        density = self.densities[request.label]
        assert density is not None
        return density.sample(noise.uniform[:, 0], noise.normal, temperature=request.temperature)

    def _from_flow(
        self, request: Request, noise: SampleNoise, other: np.ndarray, share: np.ndarray
    ) -> np.ndarray:
        flow = self.flow
        assert flow is not None

        def solve(normal: Tensor, second: Tensor, part: Tensor) -> Tensor:
            y = torch.full((len(normal),), request.label, device=normal.device)
            return flow.draw(
                request.temperature * normal,
                y,
                other=second.clamp(min=0),
                share=part,
                steps=request.solver_steps,
                guidance=request.guidance,
            )

        return in_blocks_of(self.model, solve, noise.normal, other, share).numpy()

    def _blend(
        self, request: Request, noise: SampleNoise, other: np.ndarray, share: np.ndarray
    ) -> np.ndarray:
        """By the flow where there is one; else between an image of each class."""
        if self.flow is not None:
            return self._from_flow(request, noise, other, share)
        means = self.latents.means
        sources = request.pool[(noise.uniform[:, 0] * len(request.pool)).astype(np.int64)]
        z = self._around(request, noise, sources)
        for row, label in enumerate(other.tolist()):
            # The nearest of the other class: the blend stays where there is data.
            rows = self.latents.rows[label]
            distance = np.square(means[rows] - means[sources[row]]).sum(axis=1)
            towards = means[rows[int(distance.argmin())]]
            z[row] = (1 - share[row]) * z[row] + share[row] * towards
        return z

    def _near_classes(self, label: int) -> Int64[np.ndarray, " k"]:
        """Other classes with images, those of the nearest mean latent first."""
        centres = self.latents.centres
        others = [c for c, rows in enumerate(self.latents.rows) if c != label and len(rows)]
        apart = [math.dist(centres[label], centres[other]) for other in others]
        return np.asarray(others, np.int64)[np.argsort(apart, kind="stable")[:BLEND_CLASSES]]
