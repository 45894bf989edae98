"""How the latents of a request are drawn, sampler by sampler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

if TYPE_CHECKING:
    from vaeaug.generator._synthesizer import Synthesizer

SAMPLERS = ("prior", "posterior", "interpolate", "gmm", "flow", "transfer", "blend")
# Samplers that start from a training image.
WITH_SOURCE = ("posterior", "interpolate", "transfer")
# Rows that go through a network at once. A constant: another block could round differently.
BLOCK = 64
# Nearest neighbours within the class that `interpolate` may move towards: at least so many, and in
# a large class this part of it. Farther ones make edits that are easier to tell from real images,
# nearer ones make near-copies; `benchmarks/README.md` has the trade.
NEIGHBOURS = 20
NEIGHBOUR_SHARE = 0.02
# Which part of the way an interpolation goes: near either end it is a copy.
LEAST_STEP, MOST_STEP = 0.5, 0.9
# Below this many images a density of the class is a guess, and its own images are the better guide.
SMALL_CLASS = 20
# A blend is made with one of so many classes whose latents are nearest on average.
BLEND_CLASSES = 3
# Largest part of the other class in a blend: the label stays the more likely one.
MAX_BLEND = 0.45


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        label: The class.
        sampler: One of `SAMPLERS`.
        pool: Rows of training images to draw around.
        temperature: Scale of the noise.
        guidance: Stress on the class, for the flow.
        solver_steps: Of the flow.
    """

    label: int
    sampler: str
    pool: Int64[np.ndarray, " m"]
    temperature: float
    guidance: float
    solver_steps: int


@dataclass(frozen=True)
class Drawn:
    """Latents and where they come from.

    Attributes:
        latents: z, (n, z).
        sources: Row of the training image a sample was drawn around, -1 for none.
        other: The second class of a blend, -1 for none.
        share: Its part.
    """

    latents: Float32[np.ndarray, "n z"]
    sources: Int64[np.ndarray, " n"]
    other: Int64[np.ndarray, " n"]
    share: Float32[np.ndarray, " n"]


@dataclass(frozen=True)
class _Noise:
    """The random numbers of some samples; all a sample ever uses."""

    uniform: np.ndarray  # (n, 3)
    normal: Float32[np.ndarray, "n z"]

    @classmethod
    def of(cls, seed: int, label: int, first: int, n: int, size: int) -> _Noise:
        uniform = np.empty((n, 3))
        normal = np.empty((n, size), np.float32)
        for row in range(n):
            rng = sample_generator(seed, label, first + row)
            uniform[row] = rng.random(3)
            normal[row] = rng.standard_normal(size)
        return cls(uniform, normal)


def sample_generator(seed: int, label: int, index: int) -> np.random.Generator:
    """The random numbers of sample `index` of class `label` in run `seed`: Philox keyed by them."""
    return np.random.Generator(np.random.Philox(key=[seed, label], counter=[0, 0, index, 0]))


def draw(generator: Synthesizer, request: Request, *, seed: int, first: int, n: int) -> Drawn:
    """Latents of samples first to first + n - 1, `first` a multiple of `BLOCK`."""
    noise = _Noise.of(seed, request.label, first, n, generator.model.latent_dim)
    sources = np.full(n, -1, np.int64)
    other, share = np.full(n, -1, np.int64), np.zeros(n, np.float32)
    if request.sampler in WITH_SOURCE:
        place = (noise.uniform[:, 0] * len(request.pool)).astype(np.int64)
        sources = request.pool[place]
    if request.sampler == "blend":
        near = _near_classes(generator, request.label)
        other = near[(noise.uniform[:, 1] * len(near)).astype(np.int64)]
        share = (MAX_BLEND * noise.uniform[:, 2]).astype(np.float32)
    by_sampler: dict[str, Callable[[], np.ndarray]] = {
        "prior": lambda: _from_prior(generator, request, noise),
        "posterior": lambda: _around(generator, request, noise, sources),
        "transfer": lambda: _around(generator, request, noise, sources),
        "interpolate": lambda: _between_neighbours(generator, noise, sources),
        "gmm": lambda: _from_density(generator, request, noise),
        "flow": lambda: _from_flow(generator, request, noise, other, share),
        "blend": lambda: _blend(generator, request, noise, other, share),
    }
    latents = by_sampler[request.sampler]().astype(np.float32, copy=False)
    return Drawn(latents, sources, other, share)


def in_blocks(function: Callable[..., Tensor], *arrays: np.ndarray, device: torch.device) -> Tensor:
    """Run a network on rows in blocks of `BLOCK`, the last one filled up with its first row."""
    parts = []
    with torch.no_grad():
        for begin in range(0, len(arrays[0]), BLOCK):
            blocks = [torch.from_numpy(each[begin : begin + BLOCK]) for each in arrays]
            n = len(blocks[0])
            if n < BLOCK:
                blocks = [
                    torch.cat([each, each[:1].expand(BLOCK - n, *each.shape[1:])])
                    for each in blocks
                ]
            parts.append(function(*(each.to(device) for each in blocks))[:n].cpu())
    return torch.cat(parts)


def _from_prior(generator: Synthesizer, request: Request, noise: _Noise) -> np.ndarray:
    def prior(normal: Tensor) -> Tensor:
        y = torch.full((len(normal),), request.label, device=normal.device)
        return generator.model.draw_prior(normal, y, temperature=request.temperature)

    return in_blocks(prior, noise.normal, device=generator.device).numpy()


def _around(
    generator: Synthesizer, request: Request, noise: _Noise, sources: np.ndarray
) -> np.ndarray:
    spread = np.sqrt(generator.variances[sources])
    return generator.means[sources] + request.temperature * spread * noise.normal


def _between_neighbours(generator: Synthesizer, noise: _Noise, sources: np.ndarray) -> np.ndarray:
    latents = np.empty_like(noise.normal)
    for row, source in enumerate(sources.tolist()):
        neighbours = generator.neighbours_of(source)
        towards = int(neighbours[int(noise.uniform[row, 1] * len(neighbours))])
        share = np.float32(LEAST_STEP + (MOST_STEP - LEAST_STEP) * noise.uniform[row, 2])
        latents[row] = (1 - share) * generator.means[source] + share * generator.means[towards]
    return latents


def _from_density(generator: Synthesizer, request: Request, noise: _Noise) -> np.ndarray:
    density = generator.densities[request.label]
    assert density is not None
    return np.stack(
        [
            density.sample(float(uniform), normal, temperature=request.temperature)
            for uniform, normal in zip(noise.uniform[:, 0], noise.normal, strict=True)
        ]
    )


def _from_flow(
    generator: Synthesizer,
    request: Request,
    noise: _Noise,
    other: np.ndarray,
    share: np.ndarray,
) -> np.ndarray:
    flow = generator.flow
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

    return in_blocks(solve, noise.normal, other, share, device=generator.device).numpy()


def _blend(
    generator: Synthesizer,
    request: Request,
    noise: _Noise,
    other: np.ndarray,
    share: np.ndarray,
) -> np.ndarray:
    """By the flow where there is one; else between an image of each class."""
    if generator.flow is not None:
        return _from_flow(generator, request, noise, other, share)
    own = request.pool[(noise.uniform[:, 0] * len(request.pool)).astype(np.int64)]
    latents = _around(generator, request, noise, own)
    for row, label in enumerate(other.tolist()):
        # The nearest of the other class: the blend stays where there is data.
        rows = generator.rows[label]
        distance = np.square(generator.means[rows] - generator.means[own[row]]).sum(axis=1)
        towards = generator.means[rows[int(distance.argmin())]]
        latents[row] = (1 - share[row]) * latents[row] + share[row] * towards
    return latents


def _near_classes(generator: Synthesizer, label: int) -> Int64[np.ndarray, " k"]:
    """Other classes with images, those of the nearest mean latent first."""
    others = [c for c, rows in enumerate(generator.rows) if c != label and len(rows)]
    centre = generator.means[generator.rows[label]].mean(axis=0)
    apart = [math.dist(centre, generator.means[generator.rows[c]].mean(axis=0)) for c in others]
    return np.asarray(others, np.int64)[np.argsort(apart, kind="stable")[:BLEND_CLASSES]]
