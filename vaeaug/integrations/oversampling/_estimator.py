"""`VAEOverSampler`: the generator with imbalanced-learn's interface."""

import copy
import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from imblearn.over_sampling.base import BaseOverSampler
from scipy import sparse
from sklearn.utils import check_random_state, check_X_y
from sklearn.utils._param_validation import Interval, StrOptions

from vaeaug.config import AugmentConfig, as_config
from vaeaug.data import LabelledImages
from vaeaug.generator import FROM_DATA, WITH_SOURCE, Synthesizer
from vaeaug.integrations.oversampling._encoding import Columns
from vaeaug.integrations.oversampling._input import (
    as_dtype,
    as_samples,
    as_stored,
    dotted,
    length,
    rank,
    value_range,
)
from vaeaug.integrations.oversampling._resampling import ImageJudge, Judge, TableJudge, fill_class
from vaeaug.screening import Screener
from vaeaug.stages import fit

_LAYOUTS = {"NF", "NL", "NLC", "NCL", "NHW", "NHWC", "NCHW", "NDHW", "NDHWC", "NCDHW"}
# Samplers whose samples belong to one class only.
_SAMPLERS = {"auto", "posterior", "interpolate", "gmm", "flow", "prior", *FROM_DATA}
# Of these, those that start from a sample of the class.
_EDITS = (*(sampler for sampler in WITH_SOURCE if sampler in _SAMPLERS), "delta")
# Training for a table is short because it is repeated in every fold of a cross-validation.
_TABLE = {"model.network": "mlp", "training.batch_size": 128, "training.eval_every": 50}
_MIN_TABLE_STEPS, _MAX_TABLE_STEPS, _TABLE_PASSES = 250, 2_000, 40


class VAEOverSampler(BaseOverSampler):
    """Oversample tables and images with a conditional VAE.

    It trains one generator of all classes and generates as many samples of each class as
    `sampling_strategy` requests. By default, a sample is an edit of a real one: it is moved in
    latent space towards a neighbour of its class, and the detail that the decoder cannot represent
    is kept. No sample is a near-copy of a real one.

    2-D input is a table: any number of numeric columns, which are standardised robustly (see
    `Columns`) and processed by a dense network. No value leaves the observed range of its column,
    columns of whole numbers stay whole, and constant columns stay constant. Categorical features
    are not supported: encode them as numbers first, or use `imblearn.over_sampling.SMOTENC`. Input
    with 3 to 5 axes is gray images, images, or volumes, and is processed by the convolutional
    network and the screening of a job; for signals, pass `layout`. ``layout="NF"`` says that the
    rows of a 2-D array are features of a backbone: a dense network and the screening of a job.

    Args:
        sampling_strategy: As in imbalanced-learn: a rule, a ratio for two classes, a mapping from
            class to desired total, or a callable.
        random_state: An int or RandomState makes the samples reproducible without using the global
            generators. None: the global generator of NumPy, as in scikit-learn.
        sampler: "auto"; "interpolate" (towards a neighbour) or "posterior" (moved by noise), which
            edit a real sample; "delta" (a real sample and the difference of two of a frequent
            class); "gmm", "flow" (trained for this) or "prior", which draw from a density and start
            from no sample, and for features "calibrated" (see `Synthesizer.sample`).
        steps: Training steps. The adaptation to the classes takes a tenth as many more; where X is
            not a table at least 100, as in every job (`training.adapt_steps`). Default: 250 to
            2,000 for a table, depending on the number of rows, otherwise that of the library.
        layout: Axes of X, as in `vaeaug.read`: NF, NHWC, NCHW, NHW, NL, NLC, NCL, NDHW, NDHWC,
            NCDHW. Default: by the rank. A 2-D array is a table unless this is NL or NF.
        config: Advanced settings: a mapping of keys of `AugmentConfig` that differ from the
            defaults, dotted (``{"model.beta": 2.0}``) or nested, or a complete configuration. Its
            seed and plan are not used, and for a table `model.network` is always mlp.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Attributes:
        sampling_strategy_: Number of samples to generate by class.
        sample_indices_: Row of X for each row of the result, (n_new,): its own for a real sample;
            for a synthetic one the row from which it was made, which has the same class; -1 if it
            was drawn from a density.
        is_synthetic_: Whether each row of the result is synthetic, (n_new,), bool.
        generator_: The `Synthesizer`; None if no class needed samples. It holds the latents of the
            training data, not the data.
        n_features_in_: Number of columns of the table.
        feature_names_in_: Names of the columns, if X was a data frame with names.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseOverSampler._parameter_constraints,
        "sampler": [StrOptions(_SAMPLERS)],
        "steps": [Interval(Integral, 1, None, closed="left"), None],
        "layout": [StrOptions(_LAYOUTS), None],
        "config": [AugmentConfig, Mapping, None],
        "device": [str],
    }

    def __init__(
        self,
        *,
        sampling_strategy: Any = "auto",
        random_state: Any = None,
        sampler: str = "auto",
        steps: int | None = None,
        layout: str | None = None,
        config: AugmentConfig | Mapping[str, Any] | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.random_state = random_state
        self.sampler = sampler
        self.steps = steps
        self.layout = layout
        self.config = config
        self.device = device

    def fit_resample(self, X: Any, y: Any, **arrays: Any) -> tuple[Any, ...]:
        """Train the generator, and return the data followed by the synthetic samples.

        Args:
            X: Table (array, sparse matrix, data frame or list), or an array of more axes.
            y: Classes, (n,), or one-hot.
            **arrays: Further arrays of n rows, such as ``groups=`` or ``sample_weight=``. A
                synthetic row gets the value of the row from which it was made; see `resample_like`.

        Returns:
            X and y in their original types, with the real rows first and unchanged, followed by the
            other arrays in their order. A `Pipeline` passes only X and y: use `resample_like` on
            its step.

        Raises:
            ValueError: If the input is not numeric or its lengths differ, a parameter is wrong, or
                a class cannot be filled with samples that are not copies.
        """
        n = X.shape[0] if hasattr(X, "shape") else len(X)
        for name, array in arrays.items():
            if length(array) != n:
                raise ValueError(
                    f"fit_resample: expected {n} rows of {name!r}, as of X, got {length(array)}"
                )
        if arrays and self._draws_without_source():
            raise ValueError(
                f"fit_resample: expected a sampler that starts from a sample (auto, "
                f"{', '.join(sorted(_EDITS))}) where other arrays are to be "
                f"kept aligned, got {self._requested_sampler()!r}: its samples belong to no row"
            )
        X_resampled, y_resampled = super().fit_resample(X, y)
        return X_resampled, y_resampled, *(self.resample_like(array) for array in arrays.values())

    def resample_like(self, array: Any, *, fill: Any = None) -> Any:
        """Align an array with the resampled X, given an array that is aligned with the original X.

        Args:
            array: n rows: an array, sparse matrix, Series, data frame or list.
            fill: Value for samples that were drawn from a density and therefore belong to no row.

        Returns:
            The rows in the same type; each synthetic sample gets the row from which it was made.
            The index of a Series or data frame is renumbered, like that of X.

        Raises:
            AttributeError: If `fit_resample` was not called.
            ValueError: If the length differs, or samples belong to no row and `fill` is None.
        """
        if not hasattr(self, "sample_indices_"):
            raise AttributeError("resample_like: call fit_resample first")
        index, n = self.sample_indices_, int((~self.is_synthetic_).sum())
        if length(array) != n:
            raise ValueError(f"resample_like: expected {n} rows, as of X, got {length(array)}")
        drawn = index < 0
        if drawn.any() and fill is None:
            raise ValueError(
                f"resample_like: {drawn.sum()} samples were drawn from a density and belong to no "
                "row; give fill=, or use a sampler that starts from a sample"
            )
        if isinstance(array, list):
            return [fill if i < 0 else array[i] for i in index]
        if hasattr(array, "iloc"):
            rows = array.iloc[index].reset_index(drop=True)
            return (
                rows.mask(np.broadcast_to(drawn, rows.shape[::-1]).T, fill) if drawn.any() else rows
            )
        array = array if sparse.issparse(array) else np.asarray(array)
        rows = array[index]
        if drawn.any():
            rows[drawn] = fill
        return rows

    def _check_X_y(  # noqa: N802 - imbalanced-learn's name
        self, X: Any, y: Any, accept_sparse: Any = None
    ) -> tuple[Any, Any, bool]:
        self._is_table = rank(X) <= 2 and self.layout is None
        if not self._is_table:
            from imblearn.utils import check_target_type

            y, one_hot = check_target_type(y, indicate_one_vs_all=True)
            X, y = check_X_y(X, y, allow_nd=True, y_numeric=False)
            return X, y, one_hot
        advice = (
            "expected columns of numbers; encode categories as numbers first (OneHotEncoder, "
            "OrdinalEncoder), or use imblearn.over_sampling.SMOTENC, which knows them"
        )
        if hasattr(X, "dtypes") and hasattr(X, "columns"):
            unsuited = {str(c): t for c, t in X.dtypes.items() if t.kind not in "biufc"}
            if unsuited:
                named = ", ".join(f"{name!r} ({dtype})" for name, dtype in unsuited.items())
                raise ValueError(f"VAEOverSampler: {advice}; got {named}")
        try:
            X, y, one_hot = super()._check_X_y(X, y, accept_sparse)
        except ValueError as error:
            if any(words in str(error) for words in ("could not convert", "bytes/strings")):
                raise ValueError(f"VAEOverSampler: {advice}; got: {error}") from error
            raise
        return X, y, one_hot

    def _fit_resample(self, X: Any, y: np.ndarray) -> tuple[Any, np.ndarray]:
        """Resample; the base class calls this after checking X and y."""
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        config = self._job(seed, len(y))
        classes, labels = np.unique(y, return_inverse=True)
        label_of = {c: label for label, c in enumerate(classes)}
        requested = {label_of[c]: int(n) for c, n in self.sampling_strategy_.items() if n}
        if not requested:
            self._record(len(y), np.empty(0, np.int64), None)
            return X.copy(), y.copy()
        if np.bincount(labels).max() < 2:
            raise ValueError(
                "VAEOverSampler: expected a class of at least two samples to learn from, got "
                f"{len(y)} classes of one"
            )
        names = tuple(str(c) for c in classes)
        dense = X.toarray() if sparse.issparse(X) else X
        columns = Columns.of(dense) if self._is_table else None
        data = self._as_data(dense, labels.astype(np.int64), names, columns)
        generator = fit(data, config, device=self.device)
        judge: Judge
        if columns is not None:
            judge = TableJudge(data, columns, config, seed=seed)
        else:
            judge = ImageJudge(Screener.for_job(data, config, device=generator.device))
        # The data is attached only for drawing, so that a stored pipeline does not contain it.
        drawing = copy.copy(generator).attach(data)
        filled = {
            label: fill_class(
                drawing,
                judge,
                config,
                label,
                n,
                sampler=self._requested_sampler(),
                copies_allowed=self._is_table,
            )
            for label, n in sorted(requested.items())
        }
        sources = np.concatenate([rows.sources for rows in filled.values()])
        samples = np.concatenate([rows.samples for rows in filled.values()])
        self._record(len(y), sources, generator)
        new_y = np.concatenate(
            [np.full(n, classes[c], y.dtype) for c, n in sorted(requested.items())]
        )
        rows = samples[..., 0] if self._is_table else as_stored(samples, X, self.layout)
        rows = as_dtype(rows, X.dtype)
        new_X = (
            sparse.vstack([X, sparse.csr_matrix(rows)], format=X.format)
            if sparse.issparse(X)
            else np.concatenate([X, rows])
        )
        return new_X, np.concatenate([y, new_y])

    def _job(self, seed: int, n: int) -> AugmentConfig:
        """Return the configuration of this call."""
        user_config = self.config
        sampler = self._requested_sampler()
        if sampler not in _SAMPLERS:
            raise ValueError(
                "VAEOverSampler: config: expected recipe.sampler of "
                f"{', '.join(sorted(_SAMPLERS))}, got {sampler!r}: its samples are not of one class"
            )
        keys: dict[str, Any] = {"restoration.steps": 0}  # nothing is denoised
        if self._is_table:
            keys |= _TABLE
        if sampler != "gmm":  # fitting an unused mixture takes time
            keys["density.kind"] = "flow" if sampler == "flow" else "normal"
        base = AugmentConfig()
        if isinstance(user_config, AugmentConfig):
            base, keys = user_config, {"model.network": "mlp"} if self._is_table else {}
        elif user_config is not None:
            keys |= dotted(user_config)
        if self._is_table:
            if keys["model.network"] != "mlp":
                raise ValueError(
                    "VAEOverSampler: config: expected model.network mlp for a table, got "
                    f"{keys['model.network']!r}; layout='NL' takes rows as signals"
                )
            keys.setdefault("training.steps", base.training.steps or _table_steps(n))
        if self.steps is not None:
            keys["training.steps"] = self.steps
        if self._is_table and base.training.adapt_steps is None:
            # The tenth of every job, without its floor, which would be a third of the training.
            keys.setdefault("training.adapt_steps", math.ceil(keys["training.steps"] / 10))
        return base.changed(**keys, seed=seed)

    def _as_data(
        self, X: np.ndarray, labels: np.ndarray, names: tuple[str, ...], columns: Columns | None
    ) -> LabelledImages:
        """Convert X to samples; a row of a table becomes a signal with one value per column."""
        # Tables are scaled; all other samples have a layout.
        samples = columns.scaled(X)[..., None] if columns else as_samples(X, self.layout)
        return LabelledImages(samples, labels, names, value_range(samples), source="X")

    def _record(self, n: int, sources: np.ndarray, generator: Synthesizer | None) -> None:
        self.sample_indices_ = np.concatenate([np.arange(n), sources])
        self.is_synthetic_ = np.arange(n + len(sources)) >= n
        self.generator_ = generator

    def _requested_sampler(self) -> str:
        """Return the sampler that `sampler` or `config` requests."""
        return self.sampler if self.sampler != "auto" else as_config(self.config).recipe.sampler

    def _draws_without_source(self) -> bool:
        return self._requested_sampler() not in ("auto", *_EDITS)

    def _more_tags(self) -> dict[str, Any]:
        return {**super()._more_tags(), "sample_indices": True}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.sampler_tags.sample_indices = True
        tags.input_tags.three_d_array = True
        return tags


def _table_steps(n: int) -> int:
    passes = round(_TABLE_PASSES * n / _TABLE["training.batch_size"])  # type: ignore[operator]
    return min(_MAX_TABLE_STEPS, max(_MIN_TABLE_STEPS, passes))
