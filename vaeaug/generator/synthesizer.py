"""`Synthesizer`: a trained generator with everything one does with it."""

import copy
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, Shaped
from torch import Tensor

from vaeaug.data import LabelledImages
from vaeaug.generator import storage
from vaeaug.generator.batch import SampleBatch
from vaeaug.generator.codec import ROWS, Codec, SamplingError, block_of
from vaeaug.generator.codes import CodeSampler, check_code_sampler
from vaeaug.generator.density import ClassDensity, fit_densities
from vaeaug.generator.exemplars import sample_like
from vaeaug.generator.from_data import FROM_DATA, DataSampler
from vaeaug.generator.image_codec import ImageCodec, LatentSpace
from vaeaug.generator.latents import Latents
from vaeaug.generator.presentation import samples_card, summary_card
from vaeaug.generator.restoration import Noise, Restoration
from vaeaug.generator.samplers import (
    EDITING,
    SAMPLERS,
    SMALL_CLASS,
    WITH_SOURCE,
    LatentSampler,
    Request,
    check_numbers,
)
from vaeaug.generator.sound_codec import SoundCodec
from vaeaug.memory import blocks
from vaeaug.models import CVAE, LatentFlow, Restorer, SeparateCVAE
from vaeaug.remote import is_url
from vaeaug.shards import GENERATOR, fetch
from vaeaug.spectrogram import Spectrogram

# Latents that are decoded before their images are stored.
DECODED = ROWS


class Synthesizer:
    """A trained generator: encode, decode, reconstruct, denoise, and draw labelled samples.

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
        preferred: By class, a sampler that does better than the default, and why.
        reach: By class, how far away the neighbours are that an interpolation moves towards: 1 for
            the nearest ones, r for the r-th such group of them.
        notes: What the user should know of its training.
        latent_space: That of a frozen image codec, in which the model was trained; None for none.
        restorer: The network that removes noise; None for none.
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
        latent_space: LatentSpace | None = None,
        restorer: Restorer | None = None,
    ) -> None:
        self.codec = Codec(model, value_range=value_range, dtype=dtype, latent_space=latent_space)
        self.latents = Latents(means, variances, labels, len(class_names))
        self.flow = None if flow is None else flow.eval()
        self.restorer = None if restorer is None else restorer.eval()
        self.densities = tuple(densities)
        self.class_names = tuple(class_names)
        self.n_real = len(labels) if n_real is None else n_real
        self.data_fingerprint = data_fingerprint
        self.preferred = dict(preferred or {})
        self.reach = dict(reach or {})
        self.notes = tuple(notes)
        self.data: LabelledImages | None = None
        self._data_sampler: DataSampler | None = None

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
        latent_space: LatentSpace | None = None,
        encoded: LabelledImages | None = None,
        restorer: Restorer | None = None,
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
            latent_space: That of the image codec whose latents the model was trained on.
            encoded: The data as the codec has encoded it; given with `latent_space`.
            restorer: The network that removes noise, trained on the same images.

        Returns:
            The generator, on the model's device.
        """
        seen = data if encoded is None else encoded  # what the model was trained on
        codec = Codec(model, value_range=seen.value_range, dtype=seen.images.dtype)
        means, variances = codec.posterior(seen.images, data.labels)
        labels = data.labels
        if seen.unlabelled is not None:
            unknown = np.full(len(seen.unlabelled), -1, np.int64)
            known = unknown if pool_labels is None else pool_labels
            # An image of unknown class is encoded as some class; no sampler starts from it.
            pool = codec.posterior(seen.unlabelled, known.clip(0))
            means, variances = (
                np.concatenate([means, pool[0]]),
                np.concatenate([variances, pool[1]]),
            )
            labels = np.concatenate([labels, known])
        mixture = kind in ("gmm", "flow") or (kind == "auto" and flow is None)
        densities: list[ClassDensity | None] = [None] * data.n_classes
        if not model.is_discrete:  # codes have a prior
            threads = torch.get_num_threads()
            densities = fit_densities(
                means,
                variances,
                labels,
                data.n_classes,
                seed=seed,
                mixture=mixture,
                threads=threads,
            )
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
            latent_space=latent_space,
            restorer=restorer,
        )

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        attached = "" if self.data is None else ", with its data"
        return (
            f"Synthesizer({len(self.class_names)} classes, {shape} {self.dtype}, "
            f"{self.means.shape[1]} latents, on {self.device}{attached})"
        )

    def to(self, device: str | torch.device) -> "Synthesizer":
        """Move the networks to a device; random numbers are always drawn on the CPU.

        Args:
            device: Where to.

        Returns:
            This generator.
        """
        self.model.to(device)
        if self.codec.latent_space is not None:
            self.codec.latent_space.codec.to(device)
        if self.flow is not None:
            self.flow.to(device)
        if self.restorer is not None:
            self.restorer.to(device)
        return self

    def with_restorer(self, restorer: Restorer) -> "Synthesizer":
        """Hold a network that removes noise, which is saved with the generator.

        Args:
            restorer: Trained on samples of this shape and value range (`vaeaug.fit_restorer`).

        Returns:
            This generator.
        """
        self.restorer = restorer.to(self.device).eval()
        return self

    def attach(self, data: LabelledImages) -> "Synthesizer":
        """Hold the training images, which residual edits start from.

        Args:
            data: The training split of this generator.

        Returns:
            This generator.

        Raises:
            SamplingError: If it is not the data that the generator was trained on.
        """
        if data.fingerprint != self.data_fingerprint:
            raise SamplingError(
                "attach: expected the images that the generator was trained on (fingerprint "
                f"{self.data_fingerprint[:12]}), got {data.source!r} of {data.fingerprint[:12]}"
            )
        self.data = data
        self._data_sampler = None
        return self

    def with_choices(
        self,
        preferred: Mapping[int, tuple[str, str]] | None = None,
        reach: Mapping[int, int] | None = None,
    ) -> "Synthesizer":
        """A generator with these samplers as defaults; it shares everything else with this one.

        Args:
            preferred: By class, a sampler that does better than the default, and why.
            reach: By class, how far away the neighbours of an interpolation are.

        Returns:
            A copy; this generator is not changed.
        """
        other = copy.copy(self)
        other.preferred, other.reach = dict(preferred or {}), dict(reach or {})
        return other

    @property
    def model(self) -> CVAE | SeparateCVAE:
        """The trained model."""
        return self.codec.model

    @property
    def value_range(self) -> tuple[int | float, int | float]:
        """Lowest and highest value of the training images."""
        return self.codec.value_range

    @property
    def dtype(self) -> np.dtype:
        """Type of the training images."""
        return self.codec.dtype

    @property
    def means(self) -> Float32[np.ndarray, "n z"]:
        """Posterior mean of each training image, those of the pool last."""
        return self.latents.means

    @property
    def variances(self) -> Float32[np.ndarray, "n z"]:
        """Their posterior variances."""
        return self.latents.variances

    @property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """Their classes; -1 where it is unknown."""
        return self.latents.labels

    @property
    def rows(self) -> list[Int64[np.ndarray, " k"]]:
        """Rows of the training images of each class."""
        return self.latents.rows

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.codec.device

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(space..., channels)."""
        return self.codec.image_shape

    @property
    def spectrogram(self) -> Spectrogram | None:
        """The spectrogram that sounds are learned by; None without a front end of sounds."""
        space = self.codec.latent_space
        codec = None if space is None else space.codec
        return codec.spectrogram if isinstance(codec, SoundCodec) else None

    @property
    def layout(self) -> str:
        """Axes of the samples: "NLC", "NHWC" or "NDHWC"."""
        return ("NLC", "NHWC", "NDHWC")[len(self.image_shape) - 2]

    # -- Images and latents --------------------------------------------------------------------

    def encode(
        self, images: Shaped[np.ndarray, "n *space c"], labels: Sequence[int] | np.ndarray
    ) -> Float32[np.ndarray, "n z"]:
        """Posterior means of images.

        Args:
            images: As in the training data.
            labels: Their classes.

        Returns:
            Means of q(z|x,y).

        Raises:
            SamplingError: If images or labels have another shape or are out of range.
        """
        return self.codec.posterior(images, labels)[0]

    def decode(
        self, z: Shaped[np.ndarray, "n z"], labels: Sequence[int] | np.ndarray
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Images of latents.

        Args:
            z: Latents.
            labels: Their classes.

        Returns:
            Means of p(x|z,y), clipped to the value range, in the type of the training images.

        Raises:
            SamplingError: If z or the labels have another shape or are out of range.
        """
        z = np.asarray(z, np.float32)
        y = self.codec.check_labels(labels, len(z))
        if z.ndim != 2 or z.shape[1] != self.model.latent_dim:
            raise SamplingError(
                f"decode: expected z of shape (n, {self.model.latent_dim}), got {z.shape}"
            )
        stored = [
            self.codec.stored(self.codec.decoded(z[rows], y[rows]))
            for rows in blocks(len(z), math.prod(self.image_shape), DECODED)
        ]
        if not stored:
            return np.empty((0, *self.image_shape), self.codec.dtype)
        return stored[0] if len(stored) == 1 else np.concatenate(stored)

    def style_of(self, z: Float32[np.ndarray, "n z"]) -> Float32[np.ndarray, "n z"]:
        """Drop from latents what another class must not take over.

        Args:
            z: Latents.

        Returns:
            The latents with zeros in place of their detail; unchanged where the model has no style.
        """
        return self.model.style_only(torch.from_numpy(z)).numpy()

    def reconstruct(
        self, images: Shaped[np.ndarray, "n *space c"], labels: Sequence[int] | np.ndarray
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Images decoded from their own posterior means.

        Args:
            images: As in the training data.
            labels: Their classes.

        Returns:
            Their reconstructions.

        Raises:
            SamplingError: If images or labels have another shape or are out of range.
        """
        return self.decode(self.encode(images, labels), labels)

    def denoise(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        labels: Sequence[int] | np.ndarray | None = None,
        *,
        noise_level: float | Sequence[float] | np.ndarray | None = None,
        poisson_peak: float | None = None,
        missing: np.ndarray | None = None,
    ) -> Shaped[np.ndarray, "n *space c"]:
        """Remove noise, and fill in missing values: the posterior mean, blended with the input.

        By the restorer, where the generator has one; its weight against the input at each level of
        noise is the best one on held-out images. Else by the model's reconstruction, whose weight
        in each image is that of the least expected error (Stein 1981). Noise that is too weak to be
        told from none leaves the images as they are.

        Args:
            images: As in the training data.
            labels: Their classes, of which the model's reconstruction makes use; None: of each
                image the class of the highest bound.
            noise_level: Standard deviation of Gaussian noise as a fraction of the value range, one
                or one per image; None: estimated for each image.
            poisson_peak: Mean count of the highest value, for counting noise instead.
            missing: True for missing values, whatever the images hold there; (n, *space) or
                (n, *space, c).

        Returns:
            The denoised images.

        Raises:
            SamplingError: If images, labels, levels or mask have another shape or are out of range,
                or the level cannot be estimated, as in feature vectors.
        """
        images = self.codec.check_images(images)
        noise = Noise.of(images, noise_level, poisson_peak, missing)
        y = None
        if self.restorer is None:
            labels = self.likeliest_labels(images) if labels is None else labels
        if labels is not None:
            y = self.codec.check_labels(labels, len(images))
        return Restoration(self.codec, self.restorer).restored(images, y, noise)

    def noise_level(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        *,
        missing: np.ndarray | None = None,
    ) -> Float32[np.ndarray, " n"]:
        """Estimate the level of Gaussian noise.

        By the restorer, which has learned it on the training images and noise that was clipped
        where images of 8 bits are; else from differences of neighbours.

        Args:
            images: As in the training data.
            missing: True for missing values, as for `denoise`.

        Returns:
            Standard deviation of each image's noise, as a fraction of the value range.

        Raises:
            SamplingError: If the images have another shape or are feature vectors.
        """
        images = self.codec.check_images(images)
        noise = Noise.of(images, None, None, missing)
        return Restoration(self.codec, self.restorer).noise_level(images, noise.missing)

    def likeliest_labels(
        self, images: Shaped[np.ndarray, "n *space c"], *, seed: int = 0
    ) -> Int64[np.ndarray, " n"]:
        """Classify images by the class under which their ELBO is highest.

        Args:
            images: As in the training data.
            seed: Of the latents.

        Returns:
            A class for each image.
        """
        bounds = [
            self.bound(images, np.full(len(images), label), k=1, seed=seed)
            if len(self.rows[label])
            else np.full(len(images), -np.inf)
            for label in range(len(self.class_names))
        ]
        return np.stack(bounds).argmax(axis=0).astype(np.int64)

    def bound(
        self,
        images: Shaped[np.ndarray, "n *space c"],
        labels: Sequence[int] | np.ndarray,
        *,
        k: int = 50,
        seed: int = 0,
    ) -> Float64[np.ndarray, " n"]:
        """Importance-weighted bound on log p(x|y) (Burda et al. 2016, arXiv:1509.00519).

        Args:
            images: As in the training data.
            labels: Their classes.
            k: Latents per image; 1 is the ELBO.
            seed: Of the latents.

        Returns:
            Nats per image, for values scaled to [0, 1].

        Raises:
            SamplingError: If images or labels have another shape or are out of range.
        """
        return self.codec.bound(images, labels, k=k, seed=seed)

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
        return self.codec.rates(images, labels, seed=seed, bits=bits)

    # -- Samples -------------------------------------------------------------------------------

    def sample(
        self,
        label: int | str | None = None,
        n: int = 1,
        *,
        seed: int = 0,
        exemplars: Shaped[np.ndarray, "m *space c"] | None = None,
        sampler: str = "auto",
        source: Sequence[int] | np.ndarray | None = None,
        temperature: float = 1.0,
        guidance: float = 1.0,
        solver_steps: int = 12,
        redrawn: float = 0.5,
        residual: bool = False,
        start: int = 0,
    ) -> SampleBatch:
        """Draw labelled samples.

        Args:
            label: Class index or name; None with exemplars.
            n: How many.
            seed: The run. Sample ``start + j`` depends on (seed, label, start + j) alone.
            exemplars: Images of a class that the generator was not trained on, one or more, to draw
                samples of that class (see `sample_like`).
            sampler: "prior" (the class's p(z|y)); "posterior" (mean + temperature * sigma * noise
                around a training image of the class; of discrete latents, a part of its codes is
                drawn anew); "interpolate" (between a training image and one of its nearest
                neighbours of the class in latent space); "gmm" (the density
                fitted to the class); "flow" (the flow fitted to all classes); "transfer" (the
                style of a training image of a frequent class, decoded as this one); "blend"
                (between this class and one near to it, with soft labels); "delta" (a training image
                and the difference of two of one frequent class that is like it); "calibrated"
                (feature vectors: a normal whose covariance is mixed with those of such classes);
                "auto" (see `default_sampler`). The last two need the training data (`attach`).
            source: Rows of the training data to draw around (posterior, interpolate, transfer,
                delta). Default: rows of the class (of the frequent other classes for transfer).
            temperature: Scale of the noise.
            guidance: Guidance scale of the flow: 1 draws from the class, more emphasises it.
            solver_steps: Steps of Heun's method, for the flow.
            redrawn: Of discrete latents, the fraction of the codes of a training image that
                "posterior" draws anew.
            residual: Add to each sample what the decoder loses of its source image, so that detail
                stays. Needs a sampler with a source, and the images (`attach`).
            start: Index of the first sample.

        Returns:
            n samples, indices start to start + n - 1.

        Raises:
            SamplingError: For an unknown class or sampler, a class without training images, a
                source of another class, exemplars unlike the training images, or a number out of
                range.
        """
        check_numbers(
            n=n,
            start=start,
            seed=seed,
            temperature=temperature,
            guidance=guidance,
            solver_steps=solver_steps,
        )
        if (label is None) == (exemplars is None):
            raise SamplingError(
                "sample: expected a label, or exemplars of a class that the generator does not know"
            )
        if exemplars is not None:
            like = sample_like(
                self.codec,
                self.latents,
                exemplars,
                n,
                seed=seed,
                sampler=sampler,
                temperature=temperature,
                start=start,
            )
            return replace(like, class_names=self.class_names, value_range=self.value_range)
        assert label is not None
        label = self.index_of(label)
        if not len(self.rows[label]):
            raise SamplingError(
                f"sample: class {self.class_names[label]!r} had no training images to learn from"
            )
        if sampler == "auto":
            sampler = self.default_sampler(label)
        if sampler not in (*SAMPLERS, *FROM_DATA):
            known = ", ".join((*SAMPLERS, *FROM_DATA))
            raise SamplingError(
                f"sample: unknown sampler {sampler!r}; expected one of {known}, auto"
            )
        if self.model.is_discrete:
            check_code_sampler(sampler, redrawn)
        if sampler == "flow" and self.flow is None:
            raise SamplingError(
                "sample: this generator has no flow; train one with density.kind: flow"
            )
        if residual and (sampler not in EDITING or self.data is None):
            raise SamplingError(
                "sample: a residual needs a sampler that starts from an image of the class "
                f"({', '.join(EDITING)}; got {sampler!r}) and the training images (attach)"
            )
        pool = self.pool_of(label, sampler, source)
        request = Request(label, sampler, pool, temperature, guidance, solver_steps, redrawn)
        if sampler in FROM_DATA:
            self._check_data(sampler, label)
        # Whole blocks, so that every sample is decoded at the same place of the same shape.
        first = start - start % block_of(self.model)
        size = start + n - first
        labels = np.full(size, label, np.int64)
        if sampler in FROM_DATA:
            drawn, scaled = self.data_sampler().draw(request, seed=seed, first=first, n=size)
        else:
            drawn = self.sampler().draw(request, seed=seed, first=first, n=size)
            scaled = self.codec.decoded(drawn.latents, labels)
        if residual:
            scaled = scaled + self.residual_of(drawn.sources)
        images = self.codec.stored(scaled, self.recordings_of(drawn.sources))
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
            class_names=self.class_names,
            value_range=self.value_range,
        )

    # -- In notebooks --------------------------------------------------------------------------

    def _repr_html_(self) -> str:
        return summary_card(self).to_html()

    def show(
        self,
        label: int | str | None = None,
        n: int = 12,
        *,
        seed: int = 0,
        sampler: str = "auto",
    ) -> Path | None:
        """Draw some samples and show them, above those that they were drawn around.

        Args:
            label: Class index or name; None: every class with training images.
            n: Samples of each class.
            seed: As in `sample`.
            sampler: As in `sample`.

        Returns:
            None in a notebook, which shows it below the cell; elsewhere a page in a temporary
            file, whose name is printed.

        Raises:
            SamplingError: As `sample`.
        """
        return samples_card(self, label, n, seed=seed, sampler=sampler).show()

    # -- Samplers ------------------------------------------------------------------------------

    def sampler(self) -> LatentSampler | CodeSampler:
        """What draws the latents of this generator's samples.

        Returns:
            A sampler that shares its arrays and networks.
        """
        if isinstance(self.model, CVAE) and self.model.is_discrete:
            return CodeSampler(self.model, self.latents)
        return LatentSampler(self.model, self.latents, self.densities, self.flow, self.reach)

    def data_sampler(self) -> DataSampler:
        """What draws from the training data, which have to be attached.

        Returns:
            A sampler that shares this generator's arrays and network.
        """
        assert self.data is not None
        if self._data_sampler is None:
            self._data_sampler = DataSampler(self.codec, self.latents, self.data)
        return self._data_sampler

    def _check_data(self, sampler: str, label: int) -> None:
        """Refuse a sampler that works on the training data where those do not do."""
        if self.data is None:
            raise SamplingError(f"sample: {sampler} needs the training images (attach)")
        if sampler == "calibrated" and not self.data.are_features:
            raise SamplingError(
                f"sample: calibrated expects feature vectors, got {self.data.noun}: a normal of "
                f"their values shows no image"
            )
        donors = self.data_sampler().donors(label)
        if not donors:
            raise SamplingError(
                f"sample: {sampler} expects a class of at least two images, whose variation is "
                f"borrowed, got none"
            )

    def residual_of(self, sources: Int64[np.ndarray, " n"]) -> Tensor:
        """What the decoder loses of training images: the images less their reconstructions.

        Args:
            sources: Rows of training images, which have to be attached.

        Returns:
            float32, channels first, in units of the value range, on the CPU.
        """
        assert self.data is not None
        images = self.codec.scaled(self.data.images_at(sources)).cpu()
        return images - self.codec.decoded(self.means[sources], self.labels[sources])

    def recordings_of(self, sources: Int64[np.ndarray, " n"]) -> Tensor | None:
        """Training sounds whose phase samples keep.

        Args:
            sources: Rows of the training data, which has to be attached; -1 for a sample of none.

        Returns:
            Sounds in [0, 1], channels first, on the device, NaN where there is no source; None
            where the generator has no front end of sounds, or no data.
        """
        if self.spectrogram is None or self.data is None:
            return None
        known = torch.from_numpy(sources >= 0)
        recordings = self.codec.pixels(self.data.images_at(sources.clip(0)))
        recordings[~known.to(self.device)] = torch.nan
        return recordings

    @property
    def density_sampler(self) -> str:
        """The sampler that needs no image of the class."""
        if self.model.is_discrete:
            return "prior"
        return "gmm" if self.flow is None else "flow"

    @property
    def alternatives(self) -> tuple[str, ...]:
        """Samplers that can take the place of one that does badly."""
        if self.model.is_discrete:
            return ("prior", "posterior")
        density = ("gmm",) if self.flow is None else ("flow", "gmm")
        return (*density, "interpolate", "prior")

    def default_sampler(self, label: int | str, *, residual: bool = False) -> str:
        """The default sampler of a class; see `sampler_reason`.

        Args:
            label: Class index or name.
            residual: Whether the training images are at hand, to be edited.

        Returns:
            Its name.
        """
        return self._default(label, residual)[0]

    def sampler_reason(self, label: int | str, *, residual: bool = False) -> str:
        """Why the default sampler of a class is what it is, for the run's output.

        Args:
            label: Class index or name.
            residual: Whether the training images are at hand, to be edited.

        Returns:
            The sampler and the reason.
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
        if residual and self.data is not None and self.data.are_features:
            # Of all samplers this one alone was measured to help heads (`benchmarks/usefulness`).
            return "delta", f"{n} vectors, each moved by a difference within a frequent class"
        if self.model.is_discrete and residual:
            return "posterior", f"{n} images, codes of each drawn anew, its detail kept"
        if self.model.is_discrete:
            return "prior", f"{n} images, and a prior over the codes of all classes"
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

        Args:
            folder: Made where it is missing.

        Raises:
            ShardError: If a file cannot be written.
        """
        stored = storage.StoredGenerator(
            model=self.model,
            densities=self.densities,
            class_names=self.class_names,
            value_range=self.value_range,
            dtype=str(self.dtype),
            means=self.means,
            variances=self.variances,
            labels=self.labels,
            n_real=self.n_real,
            data_fingerprint=self.data_fingerprint,
            flow=self.flow,
            preferred=self.preferred,
            reach=self.reach,
            notes=self.notes,
            latent_space=self.codec.latent_space,
            restorer=self.restorer,
        )
        storage.save(stored, Path(folder))

    @classmethod
    def load(
        cls, folder: str | Path, *, codec: str | ImageCodec | SoundCodec | None = None
    ) -> "Synthesizer":
        """Read what `save` wrote.

        Args:
            folder: The generator's folder, or a run folder; or the address of a run in an object
                store, whose generator is copied to this machine.
            codec: The image codec that it was trained with, or where that is, where that is a
                Python file: such a file is run only where it is named.

        Returns:
            The generator, on the CPU.

        Raises:
            SamplingError: If the folder holds no generator, a damaged one, or one of an unknown
                version.
        """
        if isinstance(folder, str) and is_url(folder):
            folder = fetch(folder, only=GENERATOR)
        folder = Path(folder)
        if not (folder / "config.json").exists() and (folder / "model" / "config.json").exists():
            folder = folder / "model"
        missing = [name for name in storage.FILES if not (folder / name).is_file()]
        if missing:
            raise SamplingError(
                f"{folder}: expected a generator ({', '.join(storage.FILES)}), but "
                f"{', '.join(missing)} is missing"
            )
        try:
            return cls(**vars(storage.load(folder, codec)))
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
            for name, tensor in sorted(network.state_dict().items()):
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        for array in (self.means, self.variances, self.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        for density in self.densities:
            if density is not None:
                for array in (density.weights, density.means, density.choleskys):
                    digest.update(array.tobytes())
        return digest.hexdigest()

    # -- Inside --------------------------------------------------------------------------------

    def pool_of(
        self, label: int, sampler: str, source: Sequence[int] | np.ndarray | None = None
    ) -> Int64[np.ndarray, " k"]:
        """Rows of training images that a sampler may draw around.

        Args:
            label: The class.
            sampler: One of `SAMPLERS`.
            source: The user's choice of rows; None for all that fit.

        Returns:
            Rows; empty for a sampler that starts from no image.

        Raises:
            SamplingError: If the rows do not fit the sampler and the class.
        """
        if sampler not in (*WITH_SOURCE, "delta"):
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
            of_class = self.labels[pool] == label
            if sampler == "transfer" and of_class.any():
                raise SamplingError(
                    f"sample: transfer expects sources of classes other than "
                    f"{self.class_names[label]!r}"
                )
            if sampler != "transfer" and not of_class.all():
                raise SamplingError(
                    f"sample: sampler {sampler!r} expects sources of class "
                    f"{self.class_names[label]!r}"
                )
            return pool
        if sampler != "transfer":
            return self.rows[label]
        lenders = self.latents.lenders(label)
        if not len(lenders):
            raise SamplingError("sample: transfer needs training images of another class")
        return lenders

    def index_of(self, label: int | str) -> int:
        """Index of a class.

        Args:
            label: Its name or index.

        Returns:
            The index.

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
