"""`Synthesizer`: a trained generator with everything one does with it."""

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, Shaped, UInt64
from torch import Tensor

from vaeaug.data import LabelledImages
from vaeaug.generator import _storage
from vaeaug.generator._draws import (
    BLOCK,
    NEIGHBOUR_SHARE,
    NEIGHBOURS,
    SAMPLERS,
    SMALL_CLASS,
    WITH_SOURCE,
    Request,
    draw,
    in_blocks,
)
from vaeaug.generator.density import ClassDensity, fit_density
from vaeaug.memory import blocks
from vaeaug.models import (
    CVAE,
    LatentFlow,
    SeparateCVAE,
    gaussian_kl,
    importance_weighted_bound,
    scale_images,
)


class SamplingError(ValueError):
    """A sample that this generator cannot draw, or a generator that cannot be read."""


@dataclass(frozen=True)
class SampleBatch:
    """Labelled synthetic samples.

    Attributes:
        images: (n, *space, C), of the type and value range of the training images.
        labels: Class index, (n,).
        latents: z, (n, z).
        source_index: Row of the training image that a sample was drawn around, -1 for none. Rows
            from the number of labelled images on are images of the unlabelled pool.
        seed: Which sample of its class and run this is, (n,).
        sampler: How z was drawn.
        soft_labels: Share of each class, (n, K), of a blend; None where every sample is of one.
    """

    images: Shaped[np.ndarray, "n *space c"]
    labels: Int64[np.ndarray, " n"]
    latents: Float32[np.ndarray, "n z"]
    source_index: Int64[np.ndarray, " n"]
    seed: UInt64[np.ndarray, " n"]
    sampler: str
    soft_labels: Float32[np.ndarray, "n k"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: Shaped[np.ndarray, " m"]) -> "SampleBatch":
        """The samples at these rows (indices or a mask)."""
        return SampleBatch(
            self.images[rows],
            self.labels[rows],
            self.latents[rows],
            self.source_index[rows],
            self.seed[rows],
            self.sampler,
            None if self.soft_labels is None else self.soft_labels[rows],
        )


class Synthesizer:
    """A trained generator: encode, decode, reconstruct, clean up, and draw labelled samples.

    Args:
        model: The trained model, in evaluation mode.
        densities: One density per class; None for a class without training images.
        flow: The density of all classes; None for none.
        class_names: Names by class index.
        value_range: Of the training images.
        dtype: Of the training images, "uint8" or "float32".
        means: Posterior mean of each training image, (N, z), those of the pool last.
        variances: Their posterior variances, (N, z).
        labels: Their classes, (N,); -1 for an image of the pool of unknown class.
        n_real: How many came with a label.
        data_fingerprint: Of the training split.
        preferred: By class, a sampler found better than the default, and why.
        reach: By class, how far away the neighbours are that an interpolation moves towards: 1 for
            the nearest ones, r for the r-th such group of them.
        notes: What the user should know of its training.
    """

    def __init__(
        self,
        model: CVAE | SeparateCVAE,
        *,
        densities: Sequence[ClassDensity | None],
        class_names: Sequence[str],
        value_range: tuple[int | float, int | float],
        dtype: str,
        means: Float32[np.ndarray, "n z"],
        variances: Float32[np.ndarray, "n z"],
        labels: Int64[np.ndarray, " n"],
        data_fingerprint: str,
        flow: LatentFlow | None = None,
        n_real: int | None = None,
        preferred: Mapping[int, tuple[str, str]] | None = None,
        reach: Mapping[int, int] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.model = model.eval()
        self.flow = None if flow is None else flow.eval()
        self.densities = tuple(densities)
        self.class_names = tuple(class_names)
        self.value_range = value_range
        self.dtype = np.dtype(dtype)
        self.means, self.variances, self.labels = means, variances, labels
        self.n_real = len(labels) if n_real is None else n_real
        self.data_fingerprint = data_fingerprint
        self.preferred = dict(preferred or {})
        self.reach = dict(reach or {})
        self.notes = tuple(notes)
        self.rows = [np.flatnonzero(labels == label) for label in range(len(self.class_names))]
        # By class: for each of its rows, the rows of its neighbours.
        self._neighbours: dict[int, np.ndarray] = {}
        self._data: LabelledImages | None = None

    # -- Making one ----------------------------------------------------------------------------

    @classmethod
    def from_training(
        cls,
        model: CVAE | SeparateCVAE,
        data: LabelledImages,
        *,
        seed: int,
        flow: LatentFlow | None = None,
        pool_labels: Int64[np.ndarray, " m"] | None = None,
        kind: str = "auto",
        notes: Sequence[str] = (),
    ) -> "Synthesizer":
        """Encode the training images and fit each class's density.

        Args:
            model: The trained model.
            data: The images it was trained on.
            seed: Of the mixtures' initialisation.
            flow: The density of all classes, trained on the same latents.
            pool_labels: Class of each unlabelled image of the data, -1 where it is unknown.
            kind: "normal" fits one normal to each class, "gmm" and "flow" fit mixtures, "auto"
                mixtures, or normals where a flow describes the classes better.
            notes: What the user should know of the training.
        """
        n_latents = model.latent_dim
        blank = cls(
            model,
            densities=[None] * data.n_classes,
            class_names=data.class_names,
            value_range=data.value_range,
            dtype=str(data.images.dtype),
            means=np.empty((0, n_latents), np.float32),
            variances=np.empty((0, n_latents), np.float32),
            labels=np.empty(0, np.int64),
            data_fingerprint=data.fingerprint,
        )
        means, variances = blank._posterior(data.images, data.labels)
        labels = data.labels
        if data.unlabelled is not None:
            known = np.full(len(data.unlabelled), -1, np.int64)
            known = known if pool_labels is None else pool_labels
            # An image of unknown class is encoded as some class; no sampler starts from it.
            pool = blank._posterior(data.unlabelled, known.clip(0))
            means, variances = (
                np.concatenate([means, pool[0]]),
                np.concatenate([variances, pool[1]]),
            )
            labels = np.concatenate([labels, known])
        mixture = kind in ("gmm", "flow") or (kind == "auto" and flow is None)
        densities = [
            fit_density(means[rows], variances[rows], seed=seed, mixture=mixture)
            if len(rows)
            else None
            for rows in (np.flatnonzero(labels == c) for c in range(data.n_classes))
        ]
        return cls(
            model,
            densities=densities,
            flow=flow,
            class_names=data.class_names,
            value_range=data.value_range,
            dtype=str(data.images.dtype),
            means=means,
            variances=variances,
            labels=labels,
            n_real=len(data),
            data_fingerprint=data.fingerprint,
            notes=notes,
        )

    def to(self, device: str | torch.device) -> "Synthesizer":
        """Move the networks to a device; draws stay on the CPU."""
        self.model.to(device)
        if self.flow is not None:
            self.flow.to(device)
        return self

    def attach(self, data: LabelledImages) -> "Synthesizer":
        """Hold the training images, which residual edits start from.

        Raises:
            SamplingError: If it is not the data that the generator was trained on.
        """
        if data.fingerprint != self.data_fingerprint:
            raise SamplingError(
                "attach: expected the images that the generator was trained on (fingerprint "
                f"{self.data_fingerprint[:12]}), got {data.source!r} of {data.fingerprint[:12]}"
            )
        self._data = data
        return self

    def with_choices(
        self,
        preferred: Mapping[int, tuple[str, str]] | None = None,
        reach: Mapping[int, int] | None = None,
    ) -> "Synthesizer":
        """A generator with these samplers as defaults; it shares everything else with this one.

        Args:
            preferred: By class, a sampler that is better than the default, and why.
            reach: By class, how far away the neighbours of an interpolation are.

        Returns:
            A copy; this generator is not changed.
        """
        other = copy.copy(self)
        other.preferred, other.reach = dict(preferred or {}), dict(reach or {})
        other._neighbours = {}
        return other

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.model.parameters()).device

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(space..., channels)."""
        return tuple(self.model.image_shape)

    @property
    def layout(self) -> str:
        """Axes of the samples: "NLC", "NHWC" or "NDHWC"."""
        return ("NLC", "NHWC", "NDHWC")[len(self.image_shape) - 2]

    # -- Images and latents --------------------------------------------------------------------

    def encode(
        self, images: Shaped[np.ndarray, "n *space c"], labels: Sequence[int] | np.ndarray
    ) -> Float32[np.ndarray, "n z"]:
        """Posterior means. Images as in the training data, (n, *space, C)."""
        return self._posterior(images, labels)[0]

    def decode(
        self, z: Shaped[np.ndarray, "n z"], labels: Sequence[int] | np.ndarray
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Mean of p(x|z,y), clipped to the value range, in the type of the training images.

        Raises:
            SamplingError: If z or the labels have another shape or are out of range.
        """
        z = np.asarray(z, np.float32)
        y = self._check_labels(labels, len(z))
        if z.ndim != 2 or z.shape[1] != self.model.latent_dim:
            raise SamplingError(
                f"decode: expected z of shape (n, {self.model.latent_dim}), got {z.shape}"
            )
        return self._stored(self._decoded(z, y))

    def reconstruct(
        self, images: Shaped[np.ndarray, "n *space c"], labels: Sequence[int] | np.ndarray
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Images through the encoder's mean and back."""
        return self.decode(self.encode(images, labels), labels)

    def denoise(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        labels: Sequence[int] | np.ndarray | None = None,
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Noisy images cleaned up: what the latents that explain them best decode to.

        Works best with a generator trained with ``training.denoise`` at the noise's level.

        Args:
            images: As in the training data.
            labels: Their classes; None: of each image the class of the highest bound.
        """
        labels = self.likeliest_labels(images) if labels is None else labels
        return self.reconstruct(images, labels)

    def likeliest_labels(
        self, images: Shaped[np.ndarray, "n *space c"], *, seed: int = 0
    ) -> Int64[np.ndarray, " n"]:
        """Of each image the class under which its ELBO is highest."""
        bounds = [
            self.bound(images, np.full(len(images), label), k=1, seed=seed)
            if len(self.rows[label])
            else np.full(len(images), -np.inf)
            for label in range(len(self.class_names))
        ]
        return np.stack(bounds).argmax(axis=0).astype(np.int64)

    @torch.no_grad()
    def bound(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        labels: Sequence[int] | np.ndarray,
        *,
        k: int = 50,
        seed: int = 0,
    ) -> Float64[np.ndarray, " n"]:
        """Importance-weighted bound on log p(x|y), nats per image scaled to [0, 1].

        Args:
            images: As in the training data.
            labels: Their classes.
            k: Latents per image; 1 is the ELBO.
            seed: Of the latents.
        """
        y = self._check_images(images, labels)
        found = []
        for rows in blocks(len(images), math.prod(self.image_shape), 256):
            x = self._scaled(images[rows])
            own = torch.from_numpy(y[rows]).to(self.device)
            if k == 1:
                generator = torch.Generator().manual_seed(seed + rows.start)
                noise = torch.randn(
                    len(x), self.model.latent_dim, generator=generator, dtype=torch.float32
                )
                bound = self.model.elbo(x, own, noise=noise.to(self.device)).elbo.double()
            else:
                bound = importance_weighted_bound(self.model, x, own, k=k, seed=seed + rows.start)
            found.append(bound.cpu().numpy())
        return np.concatenate(found) if found else np.empty(0)

    @torch.no_grad()
    def rates(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        labels: Sequence[int] | np.ndarray,
        *,
        seed: int = 0,
        bits: bool = True,
    ) -> tuple[Float32[np.ndarray, "n z"], Float64[np.ndarray, " n"]]:
        """What images cost to describe: KL per unit, nats, and bits per value in all.

        The bits are those of the ELBO with the likelihood taken as the probability of 8-bit gray
        levels, the length that bits-back coding reaches (Townsend et al. 2019, arXiv:1901.04866).

        Args:
            images: As in the training data.
            labels: Their classes.
            seed: Of the latents.
            bits: False leaves the bits out, most of the work for large images.

        Returns:
            (KL per image and unit, (n, z); bits per value, (n,), NaN where they are left out).
        """
        y = self._check_images(images, labels)
        kls, lengths = [np.empty((0, self.model.latent_dim), np.float32)], [np.empty(0)]
        n_values = math.prod(self.image_shape)
        for rows in blocks(len(images), math.prod(self.image_shape), 256):
            x = self._scaled(images[rows])
            own = torch.from_numpy(y[rows]).to(self.device)
            generator = torch.Generator().manual_seed(seed + rows.start)
            noise = torch.randn(
                len(x), self.model.latent_dim, generator=generator, dtype=torch.float32
            ).to(self.device)
            mean, logvar = self.model.posterior(x, own)
            decoded = self.model.generate(mean + torch.exp(0.5 * logvar) * noise, own)
            kl = gaussian_kl(mean, logvar, decoded.mean, decoded.logvar)
            kls.append(kl.cpu().numpy())
            if bits:
                nats = kl.sum(dim=1) - self.model.log_mass(decoded, x, own)
                lengths.append((nats.double() / (n_values * math.log(2))).cpu().numpy())
            else:
                lengths.append(np.full(len(x), np.nan))
        return np.concatenate(kls), np.concatenate(lengths)

    # -- Samples -------------------------------------------------------------------------------

    def sample(
        self,
        label: int | str,
        n: int,
        *,
        seed: int,
        sampler: str = "auto",
        source: Sequence[int] | np.ndarray | None = None,
        temperature: float = 1.0,
        guidance: float = 1.0,
        solver_steps: int = 12,
        residual: bool = False,
        start: int = 0,
    ) -> SampleBatch:
        """Draw labelled samples.

        Args:
            label: Class index or name.
            n: How many.
            seed: The run. Sample ``start + j`` depends on (seed, label, start + j) alone.
            sampler: "prior" (the class's p(z|y)); "posterior" (mean + temperature * sigma * noise
                around a training image of the class); "interpolate" (between a training image and
                one of its nearest neighbours of the class in latent space); "gmm" (the density
                fitted to the class); "flow" (the flow fitted to all classes); "transfer" (the
                latent of a training image of another class, decoded as this one); "blend" (between
                this class and one near to it, with soft labels); "auto" (see `default_sampler`).
            source: Rows of the training data to draw around (posterior, interpolate, transfer).
                Default: rows of the class (of all other classes for transfer).
            temperature: Scale of the noise.
            guidance: For the flow: 1 draws from the class, more stresses it.
            solver_steps: For the flow: steps of Heun's method.
            residual: Add to each sample what the decoder loses of its source image, so that detail
                stays. Needs a sampler with a source, and the images (`attach`).
            start: Index of the first sample.

        Returns:
            n samples, indices start to start + n - 1.

        Raises:
            SamplingError: For an unknown class or sampler, a class without training images, a
                source of another class, or a number out of range.
        """
        label = self.index_of(label)
        if n < 0 or start < 0:
            raise SamplingError(f"sample: expected n and start of at least 0, got {n} and {start}")
        if not 0 <= seed < 2**64:
            raise SamplingError(f"sample: expected a seed from 0 to 2**64 - 1, got {seed}")
        for name, value in (("temperature", temperature), ("guidance", guidance)):
            if not (math.isfinite(value) and value >= 0):
                raise SamplingError(f"sample: expected a {name} of at least 0, got {value}")
        if solver_steps < 1:
            raise SamplingError(f"sample: expected solver_steps of at least 1, got {solver_steps}")
        if not len(self.rows[label]):
            raise SamplingError(
                f"sample: class {self.class_names[label]!r} had no training images to learn from"
            )
        if sampler == "auto":
            sampler = self.default_sampler(label)
        if sampler not in SAMPLERS:
            raise SamplingError(
                f"sample: unknown sampler {sampler!r}; expected one of {', '.join(SAMPLERS)}, auto"
            )
        if sampler == "flow" and self.flow is None:
            raise SamplingError(
                "sample: this generator has no flow; train one with density.kind: flow"
            )
        if residual and (sampler not in WITH_SOURCE or self._data is None):
            raise SamplingError(
                "sample: a residual needs a sampler that starts from an image "
                f"({', '.join(WITH_SOURCE)}; got {sampler!r}) and the training images (attach)"
            )
        pool = self._pool(label, sampler, source)
        request = Request(label, sampler, pool, temperature, guidance, solver_steps)
        # Whole blocks, so that every sample is decoded at the same place of the same shape.
        first = start - start % BLOCK
        drawn = draw(self, request, seed=seed, first=first, n=start + n - first)
        labels = np.full(len(drawn.latents), label, np.int64)
        scaled = self._decoded(drawn.latents, labels)
        if residual:
            scaled = scaled + self._lost(drawn.sources)
        images = self._stored(scaled)
        soft_labels = None
        if sampler == "blend":
            soft_labels = np.zeros((len(labels), len(self.class_names)), np.float32)
            soft_labels[np.arange(len(labels)), drawn.other] = drawn.share
            soft_labels[:, label] = 1 - drawn.share
        kept = slice(start - first, None)
        return SampleBatch(
            images=images[kept],
            labels=labels[kept],
            latents=drawn.latents[kept],
            source_index=drawn.sources[kept],
            seed=np.arange(start, start + n, dtype=np.uint64),
            sampler=sampler,
            soft_labels=None if soft_labels is None else soft_labels[kept],
        )

    def default_sampler(self, label: int | str, *, residual: bool = False) -> str:
        """The sampler for a class; see `sampler_reason`."""
        return self._default(label, residual)[0]

    def sampler_reason(self, label: int | str, *, residual: bool = False) -> str:
        """Why the default sampler of a class is what it is, for the run's output.

        Args:
            label: Class index or name.
            residual: Whether the training images are at hand, to be edited.
        """
        sampler, reason = self._default(label, residual)
        return f"{sampler}: {reason}"

    def _default(self, label: int | str, residual: bool) -> tuple[str, str]:
        """Residual edits where they are possible: measured by far the hardest to tell from real.

        Without the images: between a class's own ones while they are few, too few for a density;
        else from a density, the flow where there is one (`benchmarks/README.md`).
        """
        if self.index_of(label) in self.preferred:
            return self.preferred[self.index_of(label)]
        n = len(self.rows[self.index_of(label)])
        if residual:
            return "interpolate", f"{n} images, each moved towards a neighbour, its detail kept"
        if n < SMALL_CLASS:
            return "interpolate", f"{n} images are too few for a density (under {SMALL_CLASS})"
        if self.flow is not None:
            return "flow", f"{n} images, and a flow learned from all classes"
        density = self.densities[self.index_of(label)]
        return "gmm", f"{n} images; {density.kind if density else 'none'}"

    # -- On disk -------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write ``config.json``, ``model.safetensors`` and ``densities.safetensors``.

        The densities' file holds the training images' latents too, which the samplers that start
        from an image need. Each file is replaced whole.
        """
        _storage.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> "Synthesizer":
        """Read what `save` wrote; a run folder's ``model`` is found too.

        Raises:
            SamplingError: If the folder holds no generator, a damaged one, or one of an unknown
                version.
        """
        folder = Path(folder)
        if not (folder / "config.json").exists() and (folder / "model" / "config.json").exists():
            folder = folder / "model"
        missing = [name for name in _storage.FILES if not (folder / name).is_file()]
        if missing:
            raise SamplingError(
                f"{folder}: expected a generator ({', '.join(_storage.FILES)}), but "
                f"{', '.join(missing)} is missing"
            )
        try:
            return cls(**_storage.load(folder))
        except Exception as error:  # damage shows as many things
            raise SamplingError(
                f"{folder}: the generator cannot be read ({type(error).__name__}: {error})"
            ) from error

    @property
    def sha256(self) -> str:
        """Hash of weights, densities and latents, as hex."""
        digest = hashlib.sha256()
        networks = [self.model] if self.flow is None else [self.model, self.flow]
        for network in networks:
            for name, each in sorted(network.state_dict().items()):
                digest.update(name.encode())
                digest.update(each.detach().cpu().contiguous().numpy().tobytes())
        for array in (self.means, self.variances, self.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        for density in self.densities:
            if density is not None:
                for array in (density.weights, density.means, density.choleskys):
                    digest.update(array.tobytes())
        return digest.hexdigest()

    # -- Inside --------------------------------------------------------------------------------

    def set_reach(self, label: int, reach: int) -> None:
        """Choose how far away the neighbours of a class are; see `Synthesizer`."""
        self.reach[label] = reach
        self._neighbours.pop(label, None)

    def neighbours_of(self, row: int) -> Int64[np.ndarray, " k"]:
        """Rows of neighbours of a row in its class, by its reach; the only image has itself."""
        from sklearn.neighbors import NearestNeighbors

        label = int(self.labels[row])
        rows = self.rows[label]
        if label not in self._neighbours:
            found = np.zeros((1, 1), np.int64)
            if len(rows) > 1:
                k = max(NEIGHBOURS, round(NEIGHBOUR_SHARE * len(rows)))
                # Beyond the nearer half there are outliers.
                first = min((self.reach.get(label, 1) - 1) * k, len(rows) // 2)
                last = min(first + k, len(rows) - 1)
                search = NearestNeighbors(n_neighbors=last).fit(self.means[rows])
                found = search.kneighbors(return_distance=False)[:, first:]
            self._neighbours[label] = rows[found]
        return self._neighbours[label][np.searchsorted(rows, row)]

    def _pool(
        self, label: int, sampler: str, source: Sequence[int] | np.ndarray | None
    ) -> np.ndarray:
        if sampler not in WITH_SOURCE:
            if source is not None:
                raise SamplingError(f"sample: sampler {sampler!r} draws around no source")
            if sampler == "blend" and sum(len(rows) > 0 for rows in self.rows) < 2:
                raise SamplingError("sample: blend needs training images of another class")
            return self.rows[label] if sampler == "blend" else np.empty(0, np.int64)
        if source is not None:
            pool = np.asarray(source, dtype=np.int64).reshape(-1)
            if not len(pool) or pool.min() < 0 or pool.max() >= len(self.labels):
                raise SamplingError(
                    f"sample: expected source rows from 0 to {len(self.labels) - 1}, got {source!r}"
                )
            own = self.labels[pool] == label
            if sampler == "transfer" and own.any():
                raise SamplingError(
                    f"sample: transfer expects sources of classes other than "
                    f"{self.class_names[label]!r}"
                )
            if sampler != "transfer" and not own.all():
                raise SamplingError(
                    f"sample: sampler {sampler!r} expects sources of class "
                    f"{self.class_names[label]!r}"
                )
            return pool
        if sampler != "transfer":
            return self.rows[label]
        others = np.flatnonzero((self.labels != label) & (self.labels >= 0))
        if not len(others):
            raise SamplingError("sample: transfer needs training images of another class")
        return others

    def _decoded(self, z: np.ndarray, labels: np.ndarray) -> Tensor:
        """Decoder means in [0, 1] units, channels first, in blocks of a fixed shape."""
        if not len(z):
            *space, channels = self.image_shape
            return torch.empty(0, channels, *space, dtype=torch.float32)
        return in_blocks(self.model.decode, z, labels, device=self.device)

    def _lost(self, sources: np.ndarray) -> Tensor:
        """What the decoder loses of training images: the image less its reconstruction."""
        assert self._data is not None
        images = self._scaled(self._data.images_at(sources)).cpu()
        return images - self._decoded(self.means[sources], self.labels[sources])

    def _stored(self, scaled: Tensor) -> np.ndarray:
        """[0, 1], channels first, to the type and value range of the training images."""
        low, high = self.value_range
        images = scaled.clamp(0, 1).mul(high - low).add(low).movedim(1, -1)
        if self.dtype == np.uint8:
            images = images.round()
        return np.ascontiguousarray(images.numpy().astype(self.dtype))

    def _scaled(self, images: np.ndarray) -> Tensor:
        block = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        return scale_images(block, self.value_range)

    @torch.no_grad()
    def _posterior(
        self, images: np.ndarray, labels: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        images = np.asarray(images)
        y = self._check_images(images, labels)
        means, variances = [], []
        for rows in blocks(len(images), math.prod(self.image_shape), 256):
            own = torch.from_numpy(y[rows]).to(self.device)
            mean, logvar = self.model.posterior(self._scaled(images[rows]), own)
            means.append(mean.cpu())
            variances.append(logvar.exp().cpu())
        if not means:
            empty = np.empty((0, self.model.latent_dim), np.float32)
            return empty, empty
        return torch.cat(means).numpy(), torch.cat(variances).numpy()

    def index_of(self, label: int | str) -> int:
        """Index of a class given by name or index.

        Raises:
            SamplingError: If there is none.
        """
        if isinstance(label, str):
            if label in self.class_names:
                return self.class_names.index(label)
        elif 0 <= int(label) < len(self.class_names):
            return int(label)
        raise SamplingError(
            f"unknown class {label!r}; expected one of {', '.join(self.class_names)} or an index "
            f"below {len(self.class_names)}"
        )

    def _check_images(self, images: np.ndarray, labels: Sequence[int] | np.ndarray) -> np.ndarray:
        y = self._check_labels(labels, len(images))
        if images.shape[1:] != self.image_shape:
            raise SamplingError(
                f"encode: expected images of shape (n, {', '.join(map(str, self.image_shape))}), "
                f"got {images.shape}"
            )
        return y

    def _check_labels(self, labels: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
        y = np.asarray(labels, dtype=np.int64)
        if y.shape != (n,):
            raise SamplingError(f"expected one label per row, shape ({n},), got {y.shape}")
        if n and not (y.min() >= 0 and y.max() < len(self.class_names)):
            raise SamplingError(
                f"labels: expected 0 to {len(self.class_names) - 1}, got {y.min()} to {y.max()}"
            )
        return y
