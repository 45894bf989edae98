"""(model, label, seeds) -> images, whatever the batch, the worker or the device.

Sample i of class c in run r is a function of (r, c, i): a counter-based generator keyed by them
draws z on the CPU, and images are decoded in blocks of a fixed shape that start at fixed multiples,
so that even floating-point rounding does not depend on how many are asked for at once.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped, UInt64

from vaeaug.data import LabelledImages
from vaeaug.density import ClassDensity, fit_density
from vaeaug.models import CVAE, SeparateCVAE

SAMPLERS = ("prior", "posterior", "interpolate", "gmm", "transfer")
# Images decoded at once. A constant: another block could round differently.
BLOCK = 64
# Nearest neighbours within the class that `interpolate` may move towards.
NEIGHBOURS = 5
# Below this many images a density of the class is a guess, and its own images are the better guide.
SMALL_CLASS = 20
FORMAT_VERSION = 1
FILES = ("config.json", "model.safetensors", "densities.safetensors")


class SamplingError(ValueError):
    """A sample that this generator cannot draw, or a generator that cannot be read."""


@dataclass(frozen=True)
class SampleBatch:
    """Labelled synthetic samples.

    Attributes:
        images: (n, H, W, C), of the type and value range of the training images.
        labels: Class index, (n,).
        latents: z, (n, z).
        source_index: Row of the training image that a sample was drawn around, -1 for none.
        seed: Which sample of its class and run this is, (n,).
        sampler: How z was drawn.
    """

    images: Shaped[np.ndarray, "n height width c"]
    labels: Int64[np.ndarray, " n"]
    latents: Float32[np.ndarray, "n z"]
    source_index: Int64[np.ndarray, " n"]
    seed: UInt64[np.ndarray, " n"]
    sampler: str

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
        )


class Synthesizer:
    """A trained generator: encode, decode, reconstruct, and draw labelled samples.

    Args:
        model: The trained model, in evaluation mode.
        densities: One density per class; None for a class without training images.
        class_names: Names by class index.
        value_range: Of the training images.
        dtype: Of the training images, "uint8" or "float32".
        means: Posterior mean of each training image, (N, z).
        variances: Posterior variance of each training image, (N, z).
        labels: Class of each training image, (N,).
        data_fingerprint: Of the training split.
    """

    def __init__(
        self,
        model: CVAE | SeparateCVAE,
        *,
        densities: Sequence[ClassDensity | None],
        class_names: Sequence[str],
        value_range: tuple[float, float],
        dtype: str,
        means: Float32[np.ndarray, "n z"],
        variances: Float32[np.ndarray, "n z"],
        labels: Int64[np.ndarray, " n"],
        data_fingerprint: str,
    ) -> None:
        self.model = model.eval()
        self.densities = tuple(densities)
        self.class_names = tuple(class_names)
        self.value_range = value_range
        self.dtype = np.dtype(dtype)
        self.means, self.variances, self.labels = means, variances, labels
        self.data_fingerprint = data_fingerprint
        self.rows = [np.flatnonzero(labels == label) for label in range(len(self.class_names))]
        # By class: for each of its rows, the rows of its neighbours.
        self._neighbours: dict[int, np.ndarray] = {}

    # -- Making one ----------------------------------------------------------------------------

    @classmethod
    def from_training(
        cls, model: CVAE | SeparateCVAE, data: LabelledImages, *, seed: int
    ) -> "Synthesizer":
        """Encode the training images and fit each class's density.

        Args:
            model: The trained model.
            data: The images it was trained on.
            seed: Of the mixtures' initialisation.
        """
        synthesizer = cls(
            model,
            densities=[None] * data.n_classes,
            class_names=data.class_names,
            value_range=data.value_range,
            dtype=str(data.images.dtype),
            means=np.empty((0, model.latent_dim), np.float32),
            variances=np.empty((0, model.latent_dim), np.float32),
            labels=np.empty(0, np.int64),
            data_fingerprint=data.fingerprint,
        )
        means, variances = synthesizer._posterior(data.images, data.labels)
        densities = [
            fit_density(means[rows], variances[rows], seed=seed) if len(rows) else None
            for rows in (np.flatnonzero(data.labels == c) for c in range(data.n_classes))
        ]
        return cls(
            model,
            densities=densities,
            class_names=data.class_names,
            value_range=data.value_range,
            dtype=str(data.images.dtype),
            means=means,
            variances=variances,
            labels=data.labels,
            data_fingerprint=data.fingerprint,
        )

    def to(self, device: str | torch.device) -> "Synthesizer":
        """Move the network to a device; draws stay on the CPU."""
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.model.image_shape

    # -- Images and latents --------------------------------------------------------------------

    def encode(
        self, images: Shaped[np.ndarray, "n height width c"], labels: Sequence[int] | np.ndarray
    ) -> Float32[np.ndarray, "n z"]:
        """Posterior means. Images as in the training data, (n, H, W, C)."""
        return self._posterior(images, labels)[0]

    def decode(
        self, z: Shaped[np.ndarray, "n z"], labels: Sequence[int] | np.ndarray
    ) -> Shaped[np.ndarray, "n height width c"]:
        """Mean of p(x|z,y), clipped to the value range, in the type of the training images.

        Raises:
            SamplingError: If z or the labels have another shape or are out of range.
        """
        z, y = np.asarray(z, np.float32), self._check_labels(labels, len(z))
        if z.ndim != 2 or z.shape[1] != self.model.latent_dim:
            raise SamplingError(
                f"decode: expected z of shape (n, {self.model.latent_dim}), got {z.shape}"
            )
        return self._decode(z, y, first=0)

    def reconstruct(
        self, images: Shaped[np.ndarray, "n height width c"], labels: Sequence[int] | np.ndarray
    ) -> Shaped[np.ndarray, "n height width c"]:
        """Images through the encoder's mean and back."""
        return self.decode(self.encode(images, labels), labels)

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
                fitted to the class); "transfer" (the latent of a training image of another class,
                decoded as this one); "auto" (see `default_sampler`).
            source: Rows of the training data to draw around (posterior, interpolate, transfer).
                Default: rows of the class (of all other classes for transfer).
            temperature: Scale of the noise.
            start: Index of the first sample.

        Returns:
            n samples, indices start to start + n - 1.

        Raises:
            SamplingError: For an unknown class or sampler, a class without training images, a
                source of another class, or a number out of range.
        """
        label = self._label(label)
        if n < 0 or start < 0:
            raise SamplingError(f"sample: expected n and start of at least 0, got {n} and {start}")
        if not 0 <= seed < 2**64:
            raise SamplingError(f"sample: expected a seed from 0 to 2**64 - 1, got {seed}")
        if not (math.isfinite(temperature) and temperature >= 0):
            raise SamplingError(f"sample: expected a temperature of at least 0, got {temperature}")
        if sampler == "auto":
            sampler = self.default_sampler(label)
        if sampler not in SAMPLERS:
            raise SamplingError(
                f"sample: unknown sampler {sampler!r}; expected one of {', '.join(SAMPLERS)}, auto"
            )
        if not len(self.rows[label]):
            raise SamplingError(
                f"sample: class {self.class_names[label]!r} had no training images to learn from"
            )
        pool = self._pool(label, sampler, source)
        # Whole blocks, so that every sample is decoded at the same place of the same shape.
        first = start - start % BLOCK
        latents = np.empty((start + n - first, self.model.latent_dim), np.float32)
        sources = np.full(len(latents), -1, np.int64)
        for row in range(len(latents)):
            rng = sample_generator(seed, label, first + row)
            latents[row], sources[row] = self._draw(label, sampler, pool, temperature, rng)
        labels = np.full(len(latents), label, np.int64)
        images = self._decode(latents, labels, first=first)
        kept = slice(start - first, None)
        return SampleBatch(
            images=images[kept],
            labels=labels[kept],
            latents=latents[kept],
            source_index=sources[kept],
            seed=np.arange(start, start + n, dtype=np.uint64),
            sampler=sampler,
        )

    def default_sampler(self, label: int | str) -> str:
        """The sampler for a class of this size.

        A class under `SMALL_CLASS` images has too few latents for a density; between its own
        images is where its samples are safest. A larger one is drawn from the density fitted to
        it: measured as useful as interpolating, without the near-copies and duplicates that a
        class of a few dozen images runs into (`benchmarks/README.md`).
        """
        return "interpolate" if len(self.rows[self._label(label)]) < SMALL_CLASS else "gmm"

    # -- On disk -------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write ``config.json``, ``model.safetensors`` and ``densities.safetensors``.

        The densities' file holds the training images' latents too, which the samplers that start
        from an image need. Each file is replaced whole.
        """
        from safetensors.numpy import save as save_arrays
        from safetensors.torch import save as save_tensors

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {
            name: each.detach().cpu().contiguous() for name, each in self.model.state_dict().items()
        }
        arrays: dict[str, np.ndarray] = {
            "latents.mean": self.means,
            "latents.variance": self.variances,
            "latents.label": self.labels,
        }
        kinds: dict[str, str] = {}
        for label, density in enumerate(self.densities):
            if density is not None:
                kinds[str(label)] = density.kind
                arrays[f"density.{label}.weights"] = density.weights
                arrays[f"density.{label}.means"] = density.means
                arrays[f"density.{label}.choleskys"] = density.choleskys
        config = {
            "format": "vaeaug-generator",
            "format_version": FORMAT_VERSION,
            "model": type(self.model).__name__,
            "architecture": self.model.architecture,
            "class_names": list(self.class_names),
            "value_range": list(self.value_range),
            "dtype": str(self.dtype),
            "data_fingerprint": self.data_fingerprint,
            "densities": kinds,
        }
        arrays = {name: np.ascontiguousarray(each) for name, each in arrays.items()}
        _replace(folder / "model.safetensors", save_tensors(weights))
        _replace(folder / "densities.safetensors", save_arrays(arrays))
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        _replace(folder / "config.json", text.encode())

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
        missing = [name for name in FILES if not (folder / name).exists()]
        if missing:
            raise SamplingError(
                f"{folder}: expected a generator ({', '.join(FILES)}), but {', '.join(missing)} is "
                "missing"
            )
        try:
            return cls._load(folder)
        except SamplingError:
            raise
        except Exception as error:  # damage shows as many things
            raise SamplingError(
                f"{folder}: the generator cannot be read ({type(error).__name__}: {error})"
            ) from error

    @classmethod
    def _load(cls, folder: Path) -> "Synthesizer":
        from safetensors.numpy import load_file as load_arrays
        from safetensors.torch import load_file as load_tensors

        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        _check_format(config, folder)
        weights = load_tensors(folder / "model.safetensors")
        arrays = load_arrays(folder / "densities.safetensors")
        model = _build(config["model"], config["architecture"])
        model.load_state_dict(weights)
        n_classes = len(config["class_names"])
        low, high = config["value_range"]
        return cls(
            model,
            densities=[_density(arrays, label, config["densities"]) for label in range(n_classes)],
            class_names=config["class_names"],
            value_range=(low, high),
            dtype=config["dtype"],
            means=arrays["latents.mean"],
            variances=arrays["latents.variance"],
            labels=arrays["latents.label"],
            data_fingerprint=config["data_fingerprint"],
        )

    @property
    def sha256(self) -> str:
        """Hash of weights, densities and latents, as hex."""
        digest = hashlib.sha256()
        for name, each in sorted(self.model.state_dict().items()):
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

    def _draw(
        self,
        label: int,
        sampler: str,
        pool: np.ndarray,
        temperature: float,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, int]:
        """Z and the row it came from (-1 for none)."""
        uniform, other = rng.random(2)
        normal = rng.standard_normal(self.model.latent_dim)
        if sampler == "gmm":
            density = cast(ClassDensity, self.densities[label])
            return density.sample(uniform, normal, temperature=temperature), -1
        if sampler == "prior":
            mean, sigma = self._prior(label)
            return mean + temperature * sigma * normal, -1
        row = int(pool[int(uniform * len(pool))])
        if sampler == "interpolate":
            neighbours = self._neighbours_of(row)
            towards = int(neighbours[int(other * len(neighbours))])
            share = rng.random()
            return (1 - share) * self.means[row] + share * self.means[towards], row
        # posterior, transfer
        return self.means[row] + temperature * np.sqrt(self.variances[row]) * normal, row

    def _pool(
        self, label: int, sampler: str, source: Sequence[int] | np.ndarray | None
    ) -> np.ndarray:
        if sampler in ("prior", "gmm"):
            if source is not None:
                raise SamplingError(f"sample: sampler {sampler!r} draws around no source")
            return np.empty(0, np.int64)
        if source is not None:
            pool = np.asarray(source, dtype=np.int64).reshape(-1)
            if not len(pool) or pool.min() < 0 or pool.max() >= len(self.labels):
                raise SamplingError(
                    f"sample: expected source rows from 0 to {len(self.labels) - 1}, got {source!r}"
                )
            if sampler != "transfer" and (self.labels[pool] != label).any():
                raise SamplingError(
                    f"sample: sampler {sampler!r} expects sources of class "
                    f"{self.class_names[label]!r}"
                )
            return pool
        if sampler != "transfer":
            return self.rows[label]
        others = np.flatnonzero(self.labels != label)
        if not len(others):
            raise SamplingError("sample: transfer needs training images of another class")
        return others

    def _prior(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            mean, logvar = self.model.prior(torch.tensor([label], device=self.device))
        return mean[0].cpu().numpy(), torch.exp(0.5 * logvar[0]).cpu().numpy()

    def _neighbours_of(self, row: int) -> Int64[np.ndarray, " k"]:
        """Rows of the nearest neighbours of a row in its class; the only image has itself."""
        from sklearn.neighbors import NearestNeighbors

        label = int(self.labels[row])
        rows = self.rows[label]
        if label not in self._neighbours:
            found = np.zeros((1, 1), np.int64)
            if len(rows) > 1:
                k = min(NEIGHBOURS, len(rows) - 1)
                search = NearestNeighbors(n_neighbors=k).fit(self.means[rows])
                found = search.kneighbors(return_distance=False)
            self._neighbours[label] = rows[found]
        return self._neighbours[label][np.searchsorted(rows, row)]

    @torch.no_grad()
    def _decode(self, z: np.ndarray, labels: np.ndarray, *, first: int) -> np.ndarray:
        """Decode in blocks of a fixed shape; row 0 has index `first`, a multiple of BLOCK."""
        assert first % BLOCK == 0
        low, high = self.value_range
        images = np.empty((len(z), *self.image_shape), self.dtype)
        for begin in range(0, len(z), BLOCK):
            rows = slice(begin, min(begin + BLOCK, len(z)))
            block = torch.zeros(BLOCK, z.shape[1])
            y = torch.full((BLOCK,), int(labels[begin]))
            block[: rows.stop - begin] = torch.from_numpy(z[rows])
            y[: rows.stop - begin] = torch.from_numpy(labels[rows])
            decoded = self.model.decode(block.to(self.device), y.to(self.device))
            scaled = decoded.clamp(0, 1).mul(high - low).add(low).movedim(1, -1)
            if self.dtype == np.uint8:
                scaled = scaled.round()
            images[rows] = scaled[: rows.stop - begin].cpu().numpy().astype(self.dtype)
        return images

    @torch.no_grad()
    def _posterior(
        self, images: np.ndarray, labels: Sequence[int] | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        images = np.asarray(images)
        y = self._check_labels(labels, len(images))
        if images.shape[1:] != self.image_shape:
            raise SamplingError(
                f"encode: expected images of shape (n, {', '.join(map(str, self.image_shape))}), "
                f"got {images.shape}"
            )
        low, high = self.value_range
        means, variances = [], []
        for begin in range(0, len(images), 256):
            block = torch.from_numpy(np.ascontiguousarray(images[begin : begin + 256]))
            x = block.to(self.device).movedim(-1, 1).float().sub(low).div(high - low)
            own = torch.from_numpy(y[begin : begin + 256]).to(self.device)
            mean, logvar = self.model.posterior(x, own)
            means.append(mean.cpu())
            variances.append(logvar.exp().cpu())
        if not means:
            empty = np.empty((0, self.model.latent_dim), np.float32)
            return empty, empty
        return torch.cat(means).numpy(), torch.cat(variances).numpy()

    def _label(self, label: int | str) -> int:
        if isinstance(label, str):
            if label in self.class_names:
                return self.class_names.index(label)
        elif 0 <= int(label) < len(self.class_names):
            return int(label)
        raise SamplingError(
            f"unknown class {label!r}; expected one of {', '.join(self.class_names)} or an index "
            f"below {len(self.class_names)}"
        )

    def _check_labels(self, labels: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
        y = np.asarray(labels, dtype=np.int64)
        if y.shape != (n,):
            raise SamplingError(f"expected one label per row, shape ({n},), got {y.shape}")
        if n and not (y.min() >= 0 and y.max() < len(self.class_names)):
            raise SamplingError(
                f"labels: expected 0 to {len(self.class_names) - 1}, got {y.min()} to {y.max()}"
            )
        return y


def sample_generator(seed: int, label: int, index: int) -> np.random.Generator:
    """The random numbers of sample `index` of class `label` in run `seed`: Philox keyed by them."""
    return np.random.Generator(np.random.Philox(key=[seed, label], counter=[0, 0, index, 0]))


def _build(kind: str, architecture: dict[str, Any]) -> CVAE | SeparateCVAE:
    keys = dict(architecture)
    height, width, channels = keys.pop("image_shape")
    n_classes = keys.pop("n_classes")
    if kind == "SeparateCVAE":
        return SeparateCVAE.build((height, width, channels), n_classes, **keys)
    return CVAE((height, width, channels), n_classes, **keys)


def _density(
    arrays: dict[str, np.ndarray], label: int, kinds: dict[str, str]
) -> ClassDensity | None:
    if str(label) not in kinds:
        return None
    return ClassDensity(
        arrays[f"density.{label}.weights"],
        arrays[f"density.{label}.means"],
        arrays[f"density.{label}.choleskys"],
        kinds[str(label)],
    )


def _check_format(config: dict[str, Any], folder: Path) -> None:
    found = (config.get("format"), config.get("format_version"))
    if found != ("vaeaug-generator", FORMAT_VERSION):
        raise SamplingError(
            f"{folder / 'config.json'}: expected format 'vaeaug-generator' version "
            f"{FORMAT_VERSION}, got {found[0]!r} version {found[1]!r}"
        )


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
