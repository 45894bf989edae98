"""VAEOverSampler: imbalanced-learn's own checks, tables and images, and what it promises."""

import pickle
import runpy
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from imblearn.datasets import make_imbalance
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import Pipeline, make_pipeline
from imblearn.utils.estimator_checks import check_param_validation, parametrize_with_checks
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.preprocessing import StandardScaler

import vaeaug
from vaeaug.integrations.oversampling._encoding import Columns

PIPELINES = Path(__file__).parents[2] / "pipelines"
# The default adaptation would take most of a quick training.
ADAPTED = {"training.adapt_steps": 5}
IMAGES = {
    **ADAPTED,
    "model.width": 8,
    "model.latent_dim": 4,
    "screening.folds": 2,
    "screening.classifier_steps": 4,
    "recipe.min_label_probability": 0.0,
}


def quick(**keys) -> vaeaug.VAEOverSampler:
    return vaeaug.VAEOverSampler(
        **{"random_state": 0, "steps": 20, "device": "cpu", "config": ADAPTED} | keys,
    )


def quick_images(**keys) -> vaeaug.VAEOverSampler:
    return quick(**{"steps": 8, "config": IMAGES} | keys)


@pytest.fixture(scope="module")
def wine():
    """Real measurements, 13 columns, three classes of 60, 30 and 12."""
    X, y = load_wine(return_X_y=True)
    return make_imbalance(X, y, sampling_strategy={0: 30, 1: 60, 2: 12}, random_state=0)


@pytest.fixture(scope="module")
def digits_4d():
    """Real digits as uint8 images (n, 8, 8, 1), three classes of 30, 20 and 9."""
    found = load_digits()
    X, y = found.images, found.target
    rows = np.concatenate([np.flatnonzero(y == c)[:n] for c, n in ((0, 30), (1, 20), (2, 9))])
    return (X[rows] * 15).astype(np.uint8)[..., None], y[rows]


# imbalanced-learn hands pytest a generator, which pytest no longer takes.
NAMES, CHECKS = parametrize_with_checks([quick()]).mark.args


@pytest.mark.parametrize(NAMES, list(CHECKS))
def test_imbalanced_learns_own_checks_pass(estimator, check):
    check(estimator)


def test_parameters_are_validated_as_scikit_learn_does():
    check_param_validation("VAEOverSampler", quick())


# -- Totals, order, types -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "totals"),
    [
        ("auto", {0: 60, 1: 60, 2: 60}),
        ("minority", {0: 30, 1: 60, 2: 60}),
        ("not minority", {0: 60, 1: 60, 2: 12}),
        ({2: 40, 0: 31}, {0: 31, 1: 60, 2: 40}),
        (lambda y: {2: 13}, {0: 30, 1: 60, 2: 13}),
    ],
)
def test_every_strategy_meets_its_totals(wine, strategy, totals):
    X, y = wine
    sampler = quick(sampling_strategy=strategy)
    X_new, y_new = sampler.fit_resample(X, y)
    assert Counter(y_new.tolist()) == totals
    made = sum(totals.values()) - len(X)
    assert sampler.is_synthetic_.dtype == np.bool_
    assert sampler.is_synthetic_.sum() == made
    np.testing.assert_array_equal(sampler.is_synthetic_, np.arange(len(X_new)) >= len(X))
    np.testing.assert_array_equal(X_new[: len(X)], X)
    np.testing.assert_array_equal(y_new[: len(X)], y)
    np.testing.assert_array_equal(sampler.sample_indices_[: len(X)], np.arange(len(X)))
    np.testing.assert_array_equal(y[sampler.sample_indices_], y_new)


def test_a_ratio_for_two_classes():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = make_imbalance(X, y, sampling_strategy={0: 20, 1: 100}, random_state=0)
    _, y_new = quick(sampling_strategy=0.5).fit_resample(X, y)
    assert Counter(y_new.tolist()) == {0: 50, 1: 100}


def test_nothing_to_make_trains_nothing():
    X, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])
    sampler = quick()
    X_new, y_new = sampler.fit_resample(X, y)
    np.testing.assert_array_equal(X_new, X)
    np.testing.assert_array_equal(y_new, y)
    assert sampler.generator_ is None
    assert not sampler.is_synthetic_.any()
    assert X_new is not X


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int16])
def test_the_type_of_a_table_is_kept(wine, dtype):
    X, y = wine
    X_new, y_new = quick().fit_resample((10 * X).astype(dtype), y.astype(np.int8))
    assert X_new.dtype == dtype
    assert y_new.dtype == np.int8


def test_text_classes_lists_frames_and_sparse_tables(wine):
    X, y = wine
    names = np.array(["barolo", "grignolino", "barbera"])[y]
    X_new, y_new = quick().fit_resample(X, names)
    assert y_new.dtype == names.dtype
    assert set(Counter(y_new.tolist()).values()) == {60}
    frame = pd.DataFrame(X, columns=load_wine().feature_names, index=np.arange(len(X)) + 7)
    frame["proline"] = frame["proline"].astype("int64")
    X_frame, y_series = quick().fit_resample(frame, pd.Series(names, name="cultivar"))
    assert X_frame.dtypes.equals(frame.dtypes)
    assert y_series.name == "cultivar"
    # The classes sort in another order as text than as numbers, nothing else may differ.
    np.testing.assert_allclose(X_frame.to_numpy(), X_new)
    for form in (sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array):
        X_sparse, _ = quick().fit_resample(form(X), names)
        assert X_sparse.format == form(X).format
        np.testing.assert_allclose(X_sparse.toarray(), X_new)


def test_a_frame_of_many_types_comes_back_as_it_was():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "float": rng.normal(size=40),
            "short": rng.normal(size=40).astype(np.float32),
            "flag": rng.random(40) > 0.5,
            "count": rng.integers(0, 100, 40),
            "nullable": pd.array(rng.integers(0, 9, 40), dtype="Int64"),
        }
    )
    X_new, _ = quick().fit_resample(frame, [0] * 30 + [1] * 10)
    assert X_new.dtypes.equals(frame.dtypes)
    pd.testing.assert_frame_equal(X_new[:40], frame)
    assert X_new["count"][40:].nunique() > 3


def test_columns_by_their_own_units():
    rng = np.random.default_rng(0)
    X = rng.lognormal(size=(40, 3)) * np.array([1e-12, 1, 1e12])
    X_new, _ = quick().fit_resample(X, [0] * 30 + [1] * 10)
    ratio = X_new[40:].std(axis=0) / X[30:].std(axis=0)
    assert (ratio > 0.3).all()
    assert (ratio < 3).all()


# -- Randomness -----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_rows_and_touches_no_global_generator(wine):
    X, y = wine
    np.random.seed(3)  # noqa: NPY002 - the global generator is what is looked at
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    torch_state = torch.get_rng_state()
    first = quick().fit_resample(X, y)[0]
    np.testing.assert_array_equal(first, quick().fit_resample(X, y)[0])
    again = quick(random_state=np.random.RandomState(0)).fit_resample(X, y)[0]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, quick(random_state=1).fit_resample(X, y)[0])
    assert np.random.random() == expected  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_without_a_seed_it_is_scikit_learns_global_one(wine):
    X, y = wine
    drawn = []
    for seed in (5, 5, 6):
        np.random.seed(seed)  # noqa: NPY002 - the global generator is what is asked for
        drawn.append(quick(random_state=None, steps=2).fit_resample(X, y)[0])
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


# -- What the rows are ----------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["auto", "posterior", "gmm", "flow", "prior"])
def test_rows_are_in_range_and_no_copies(wine, sampler):
    X, y = wine
    oversampler = quick(sampler=sampler)
    X_new, y_new = oversampler.fit_resample(X, y)
    made = X_new[oversampler.is_synthetic_]
    assert (made >= X.min(axis=0)).all()
    assert (made <= X.max(axis=0)).all()
    known = {row.tobytes() for row in X}
    assert not any(row.tobytes() in known for row in made)
    assert len(np.unique(made, axis=0)) == len(made)
    sources = oversampler.sample_indices_[oversampler.is_synthetic_]
    if sampler in ("gmm", "flow", "prior"):
        assert (sources == -1).all()
    else:
        np.testing.assert_array_equal(y[sources], y_new[oversampler.is_synthetic_])
    # Whole numbers stay whole (proline), others do not become so.
    assert (made[:, 12] == np.round(made[:, 12])).all()
    assert (made[:, 0] != np.round(made[:, 0])).mean() > 0.9


def test_no_row_is_nearer_to_a_real_one_than_real_ones_are_to_each_other(wine):
    X, y = wine
    sampler = quick(sampling_strategy={2: 200})
    X_new, _ = sampler.fit_resample(X, y)
    columns = Columns.of(X)
    real, made = columns.scaled(X), columns.scaled(X_new[sampler.is_synthetic_])
    apart = np.linalg.norm(real[:, None] - real[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    nearest = np.linalg.norm(made[:, None] - real[None], axis=2).min(axis=1)
    # The class has 12 rows: its limit is that of all, half of their 1 % quantile.
    assert nearest.min() > 0.5 * np.quantile(apart.min(axis=1), 0.01) * 0.999


def test_means_of_a_class_come_back():
    # An edit has a source's own value plus a step, (1 - s) z + s z' decoded, of mean zero over
    # sources and neighbours where the neighbours are all others. 5 standard errors of a mean of n
    # real rows and m made from them bound the difference, and clipping is rare in the middle.
    X, y = load_breast_cancer(return_X_y=True)
    X, y = make_imbalance(X, y, sampling_strategy={0: 20, 1: 300}, random_state=0)
    sampler = quick(steps=150)
    X_new, _ = sampler.fit_resample(X, y)
    columns = Columns.of(X)
    real, made = columns.scaled(X[y == 0]), columns.scaled(X_new[sampler.is_synthetic_])
    error = real.std(axis=0, ddof=1) * np.sqrt(1 / len(real) + 1 / len(made))
    assert (np.abs(made.mean(axis=0) - real.mean(axis=0)) < 5 * error).all()
    # Not one row again and again: the spread is that of the class within a factor of two.
    ratio = made.std(axis=0) / real.std(axis=0)
    assert 0.5 < np.median(ratio) < 2


def test_columns_are_one_to_one_and_robust():
    rng = np.random.default_rng(0)
    table = np.stack(
        [
            rng.normal(5, 2, 500),
            rng.lognormal(0, 3, 500),  # outliers by orders of magnitude
            np.full(500, 3.7),
            rng.integers(0, 2, 500),
            np.r_[np.zeros(450), rng.normal(size=50)],  # quartiles alike
        ],
        axis=1,
    )
    columns = Columns.of(table)
    scaled = columns.scaled(table)
    np.testing.assert_allclose(columns.restored(scaled), table, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), [1, 1, 0, 1, 1], atol=1e-5)
    assert columns.whole.tolist() == [False, False, False, True, False]
    # Half of the lognormal values lie within a standard deviation, outliers or not.
    assert (np.abs(scaled[:, 1]) < 1).mean() > 0.5
    beyond = columns.restored(np.full((1, 5), 50.0))
    np.testing.assert_array_equal(beyond[0], table.max(axis=0))


# -- Small classes and tables of few values -------------------------------------------------------


@pytest.mark.parametrize("n_rare", [1, 2, 3])
def test_a_class_of_so_few_is_filled_too(wine, n_rare):
    X, y = wine
    rows = np.concatenate([np.flatnonzero(y == 1), np.flatnonzero(y == 2)[:n_rare]])
    sampler = quick()
    X_new, y_new = sampler.fit_resample(X[rows], y[rows])
    assert Counter(y_new.tolist()) == {1: 60, 2: 60}
    made = X_new[sampler.is_synthetic_]
    assert len(np.unique(made, axis=0)) == 60 - n_rare
    assert set(sampler.sample_indices_[sampler.is_synthetic_]) == set(range(60, 60 + n_rare))


def test_where_nothing_new_can_be_drawn_the_copies_are_counted():
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5)
    y = np.array([0, 0, 0, 1] * 5)
    with pytest.warns(UserWarning, match=r"class '1': 10 of its 10 .* nearly a copy of a real one"):
        X_new, y_new = quick().fit_resample(X, y)
    assert Counter(y_new.tolist()) == {0: 15, 1: 15}
    assert set(np.unique(X_new)) == {0, 1}


def test_classes_of_one_row_teach_nothing():
    with pytest.raises(ValueError, match="a class of at least two samples to learn from, got 2"):
        quick(sampling_strategy={0: 3}).fit_resample(np.eye(2), [0, 1])


# -- What is refused ------------------------------------------------------------------------------


def test_categories_are_refused_with_advice(wine):
    X, y = wine
    frame = pd.DataFrame(X).rename(columns=str)
    frame["maker"] = pd.Categorical(["a", "b"] * (len(X) // 2))
    with pytest.raises(ValueError, match=r"OneHotEncoder.*SMOTENC.*got 'maker' \(category\)"):
        quick().fit_resample(frame, y)
    with pytest.raises(ValueError, match=r"SMOTENC, which knows them; got: .*bytes/strings"):
        quick().fit_resample(np.array([["red", "1"], ["white", "2"]] * 3), [0, 0, 0, 0, 0, 1])
    mixed = np.array([["red", 1], ["white", 2]] * 3, dtype=object)
    with pytest.raises(ValueError, match=r"SMOTENC, which knows them; got: could not convert"):
        quick().fit_resample(mixed, [0, 0, 0, 0, 0, 1])


def test_a_wrong_configuration_is_named(wine):
    X, y = wine
    with pytest.raises(vaeaug.ConfigError, match=r"unknown key 'model.widht'"):
        quick(config={"model": {"widht": 8}}).fit_resample(X, y)
    with pytest.raises(ValueError, match=r"expected model.network mlp for a table, got 'conv'"):
        quick(config={"model.network": "conv"}).fit_resample(X, y)
    with pytest.raises(ValueError, match=r"expected recipe.sampler of .*, got 'blend'"):
        quick(config={"recipe.sampler": "blend"}).fit_resample(X, y)
    with pytest.raises(ValueError, match="'sampler' parameter of VAEOverSampler must be"):
        quick(sampler="transfer").fit_resample(X, y)


def test_a_whole_configuration_and_nested_keys(wine):
    X, y = wine
    config = vaeaug.AugmentConfig().changed(**ADAPTED, **{"model.latent_dim": 3, "seed": 99})
    sampler = quick(config=config).fit(X, y)
    sampler.fit_resample(X, y)
    assert sampler.generator_.model.architecture["latent_dim"] == 3
    assert sampler.generator_.model.architecture["network"] == "mlp"
    nested = quick(config={"model": {"latent_dim": 5}, "training": {"adapt_steps": 5}})
    nested.fit_resample(X, y)
    assert nested.generator_.model.latent_dim == 5


# -- Arrays kept aligned --------------------------------------------------------------------------


def test_other_arrays_stay_aligned(wine):
    X, y = wine
    groups, weights = np.arange(len(X)) // 3, np.linspace(0, 1, len(X))
    sampler = quick()
    X_new, y_new, groups_new, weights_new, names = sampler.fit_resample(
        X, y, groups=groups, sample_weight=pd.Series(weights, name="w"), names=list("ab") * 51
    )
    index = sampler.sample_indices_
    assert len(X_new) == len(y_new) == len(groups_new) == 180
    np.testing.assert_array_equal(groups_new, groups[index])
    np.testing.assert_array_equal(weights_new, weights[index])
    assert (weights_new.name, weights_new.index[-1]) == ("w", 179)
    assert names == ["ab"[i % 2] for i in index]
    taken = sampler.resample_like(sparse.csr_matrix(X))
    np.testing.assert_array_equal(taken.toarray(), X[index])
    with pytest.raises(ValueError, match="expected 102 rows, as of X, got 3"):
        sampler.resample_like([1, 2, 3])
    with pytest.raises(ValueError, match="expected 102 rows of 'groups', as of X, got 101"):
        quick().fit_resample(X, y, groups=groups[1:])


def test_a_draw_from_a_density_belongs_to_no_row(wine):
    X, y = wine
    sampler = quick(sampler="gmm")
    with pytest.raises(ValueError, match=r"expected a sampler that starts from .* got 'gmm'"):
        sampler.fit_resample(X, y, groups=y)
    with pytest.raises(ValueError, match=r"got 'prior': its samples belong to no row"):
        quick(config={"recipe": {"sampler": "prior"}}).fit_resample(X, y, groups=y)
    with pytest.raises(AttributeError, match="call fit_resample first"):
        sampler.resample_like(y)
    sampler.fit_resample(X, y)
    with pytest.raises(ValueError, match="78 samples were drawn from a density"):
        sampler.resample_like(y)
    np.testing.assert_array_equal(sampler.resample_like(y, fill=-9), [*y, *[-9] * 78])
    assert sampler.resample_like(y.tolist(), fill=None or -9)[-1] == -9
    frame = sampler.resample_like(pd.DataFrame({"a": y}), fill=-9)
    assert frame["a"].tolist() == [*y, *[-9] * 78]


# -- In scikit-learn ------------------------------------------------------------------------------


def test_in_a_pipeline_a_cross_validation_and_a_grid(wine):
    X, y = wine
    pipeline = make_pipeline(StandardScaler(), quick(), LogisticRegression(max_iter=2000))
    scores = cross_val_score(pipeline, X, y, cv=2, scoring="balanced_accuracy")
    # Chance is a third; the classes are nearly separable by a line.
    assert scores.min() > 0.8
    named = Pipeline([("scale", StandardScaler()), ("vae", quick()), ("lr", LogisticRegression())])
    grid = GridSearchCV(named, {"vae__sampler": ["posterior", "prior"]}, cv=2, error_score="raise")
    grid.fit(X, y)
    assert set(grid.best_params_.values()) <= {"posterior", "prior"}
    groups = grid.best_estimator_["vae"].resample_like(np.arange(len(X)), fill=-1)
    assert len(groups) == 180
    with sklearn.config_context(enable_metadata_routing=True):
        assert pipeline.fit(X, y).score(X, y) > 0.8


def test_it_is_cloned_and_pickled_without_the_data(wine):
    X, y = wine
    sampler = quick(config={**ADAPTED, "model.latent_dim": 4})
    copied = clone(sampler)
    assert copied.get_params() == sampler.get_params()
    X_new, _ = sampler.fit_resample(X, y)
    stored = pickle.dumps(sampler)
    assert Columns.of(X).scaled(X)[:, :4].tobytes() not in stored
    loaded = pickle.loads(stored)  # noqa: S301 - our own
    np.testing.assert_array_equal(loaded.sample_indices_, sampler.sample_indices_)
    np.testing.assert_array_equal(loaded.fit_resample(X, y)[0], X_new)
    drawn = loaded.generator_.sample("2", 3, seed=0, sampler="gmm").images
    assert drawn.shape == (3, 13, 1)


# -- Images, signals, volumes ---------------------------------------------------------------------


def test_images_come_back_as_images(digits_4d):
    X, y = digits_4d
    sampler = quick_images()
    X_new, y_new = sampler.fit_resample(X, y)
    assert X_new.shape == (90, 8, 8, 1)
    assert X_new.dtype == np.uint8
    np.testing.assert_array_equal(X_new[:59], X)
    np.testing.assert_array_equal(y[sampler.sample_indices_], y_new)
    known = {image.tobytes() for image in X}
    assert not any(image.tobytes() in known for image in X_new[59:])
    again, _, rows = quick_images().fit_resample(X, y, rows=np.arange(59))
    np.testing.assert_array_equal(again, X_new)
    np.testing.assert_array_equal(rows, sampler.sample_indices_)


def gray(images):
    return images[..., 0]


@pytest.mark.parametrize(
    ("stored", "layout"),
    [
        (gray, None),  # (n, H, W)
        (lambda x: np.repeat(x, 3, axis=3).transpose(0, 3, 1, 2), "NCHW"),
        (lambda x: np.repeat(x, 2, axis=3), "NHWC"),
        (lambda x: gray(x).astype(np.float64) / 97 - 1.3, None),  # as a scaler leaves them
        (lambda x: gray(x) > 127, None),
        (lambda x: gray(x).astype(np.int64) - 50, "NLC"),  # 8 values of 8 channels
        (lambda x: gray(x).reshape(-1, 64), "NL"),  # rows as signals, not as a table
        (lambda x: np.stack([gray(x)] * 4, axis=1), "NDHW"),
    ],
)
def test_axes_and_types_are_kept(digits_4d, stored, layout):
    X, y = stored(digits_4d[0]), digits_4d[1]
    sampler = quick_images(layout=layout, sampling_strategy={2: 13})
    X_new, _ = sampler.fit_resample(X, y)
    assert X_new.shape == (63, *X.shape[1:])
    assert X_new.dtype == X.dtype
    np.testing.assert_array_equal(X_new[:59], X)
    made = X_new[59:]
    if X.dtype == np.uint8:
        return
    assert made.min() >= X.min()
    assert made.max() <= X.max()


def test_a_class_of_one_image(digits_4d):
    X, y = digits_4d
    X_new, y_new = quick_images(sampling_strategy={2: 6}).fit_resample(X[:51], y[:51])
    assert Counter(y_new.tolist()) == {0: 30, 1: 20, 2: 6}
    assert len(np.unique(X_new[50:].reshape(6, -1), axis=0)) == 6


def test_copies_of_images_are_never_handed_out(digits_4d):
    X, y = digits_4d
    # Nothing is far enough from the real images by this measure.
    strict = quick_images(config=IMAGES | {"screening.near_copy_factor": 1e3})
    with pytest.raises(ValueError, match=r"class '1': expected 10 new samples, got 0"):
        strict.fit_resample(X, y)


# -- The recipe -----------------------------------------------------------------------------------


def test_the_recipe_compares_in_paired_folds(monkeypatch, capsys):
    recipe = PIPELINES / "imbalanced_learn.py"
    config = PIPELINES / "imbalanced_learn.yaml"
    arguments = ["--data", "wine", "--folds", "2", "--repeats", "1", "--steps", "10"]
    monkeypatch.setattr(sys, "argv", [str(recipe), *arguments, "--config", str(config)])
    runpy.run_path(str(recipe), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(":")[0].strip() for line in lines if "balanced accuracy" in line]
    assert names == ["none", "RandomOverSampler", "SMOTE", "VAEOverSampler"]


def test_smote_is_the_neighbour_it_is_compared_with(wine):
    # The same call, the same shapes: one is put in the other's place.
    X, y = wine
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, theirs = (s.fit_resample(X, y) for s in (quick(), SMOTE(random_state=0)))
    assert [each.shape for each in ours] == [each.shape for each in theirs]


@pytest.mark.parametrize("sampler", ["auto", "delta", "calibrated"])
def test_features_of_a_backbone_are_filled_up(sampler):
    rng = np.random.default_rng(0)
    y = np.repeat([3, 5, 8], [60, 50, 9])
    X = (rng.normal(size=(119, 20)) + 3 * np.eye(20)[y]).astype(np.float32)
    config = {**ADAPTED, "training.steps": 40, "screening.classifier_steps": 20}
    sampling = vaeaug.VAEOverSampler(random_state=0, layout="NF", sampler=sampler, config=config)
    X_new, y_new = sampling.fit_resample(X, y)
    assert X_new.shape == (180, 20)
    assert X_new.dtype == np.float32
    assert np.array_equal(X_new[:119], X)
    assert np.array_equal(np.unique(y_new, return_counts=True)[1], [60, 60, 60])
    assert sampling.generator_.image_shape == (1, 20)
    sources = sampling.sample_indices_[119:]
    if sampler == "calibrated":
        assert (sources == -1).all()
    else:
        assert (y[sources] == y_new[119:]).all()
    # Where the class is, and not where another one is.
    centre = X_new[119:][y_new[119:] == 8].mean(axis=0)
    assert np.argmax(centre) == 8
