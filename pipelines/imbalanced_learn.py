"""Oversample a table in an imbalanced-learn pipeline, beside what else one would do.

A table of scikit-learn is made unbalanced. Each resampler stands between the same scaler and the
same classifier, and is fitted to the training part of each fold alone, which a `Pipeline` of
imbalanced-learn sees to. All are scored on the same held-out folds, so differences are paired.

    python pipelines/imbalanced_learn.py --data breast_cancer --repeats 4
"""

import argparse
from collections.abc import Sequence

import numpy as np
from imblearn.datasets import make_imbalance
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from scipy import stats
from sklearn import datasets
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.preprocessing import StandardScaler

import vaeaug

# Data set of scikit-learn, and how many rows of each class are kept.
TABLES = {
    "breast_cancer": (datasets.load_breast_cancer, {0: 30}),
    "wine": (datasets.load_wine, {1: 71, 0: 20, 2: 10}),
    "digits": (
        datasets.load_digits,
        dict(enumerate([170, 120, 90, 70, 50, 40, 30, 20, 15, 10])),
    ),
}
CLASSIFIERS = {
    "linear": LogisticRegression(max_iter=5000),
    "forest": RandomForestClassifier(200, random_state=0),
}


def interval(differences: np.ndarray, n_train: int, n_test: int) -> tuple[float, float]:
    """Mean and half width of a 95 % interval of paired differences of folds.

    Folds share training rows, so that their differences are not independent: the variance is
    corrected for it (Nadeau & Bengio 2003).
    """
    n = len(differences)
    variance = differences.var(ddof=1) * (1 / n + n_test / n_train)
    return float(differences.mean()), float(stats.t.ppf(0.975, n - 1) * variance**0.5)


def main(command_line: Sequence[str] | None = None) -> None:
    """Score each resampler and print it beside training without one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=TABLES, default="breast_cancer")
    parser.add_argument("--classifier", choices=CLASSIFIERS, default="linear")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=2, help="of the folds, each split anew")
    parser.add_argument("--steps", type=int, help="of the generator; default: by the data")
    parser.add_argument("--config", help="YAML configuration of the generator")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(command_line)

    load, kept = TABLES[arguments.data]
    X, y = make_imbalance(
        *load(return_X_y=True), sampling_strategy=kept, random_state=arguments.seed
    )
    print(f"{arguments.data}: {X.shape[1]} columns, rows by class {np.bincount(y).tolist()}")
    # SMOTE moves towards so many neighbours; the rarest class must have them in every fold.
    rarest = int(np.bincount(y).min() * (1 - 1 / arguments.folds))
    resamplers = {
        "none": "passthrough",
        "RandomOverSampler": RandomOverSampler(random_state=arguments.seed),
        "SMOTE": SMOTE(k_neighbors=min(5, rarest - 1), random_state=arguments.seed),
        "VAEOverSampler": vaeaug.VAEOverSampler(
            steps=arguments.steps,
            config=vaeaug.load_config(arguments.config) if arguments.config else None,
            random_state=arguments.seed,
        ),
    }
    folds = RepeatedStratifiedKFold(
        n_splits=arguments.folds, n_repeats=arguments.repeats, random_state=arguments.seed
    )
    scores = {}
    for name, resampler in resamplers.items():
        pipeline = make_pipeline(StandardScaler(), resampler, CLASSIFIERS[arguments.classifier])
        scores[name] = cross_val_score(pipeline, X, y, cv=folds, scoring="balanced_accuracy")
        line = f"{name:>18}: balanced accuracy {scores[name].mean():.1%}"
        if name != "none":
            n_test = len(X) / arguments.folds
            gain, half = interval(scores[name] - scores["none"], len(X) - n_test, n_test)
            line += (
                f", {100 * gain:+.1f} ({100 * (gain - half):+.1f} to {100 * (gain + half):+.1f})"
            )
            line += " points over none"
        print(line)
    gain, half = interval(scores["VAEOverSampler"] - scores["SMOTE"], len(X) - n_test, n_test)
    verdict = "better" if gain > half else "worse" if gain < -half else "no sure difference"
    print(f"VAEOverSampler against SMOTE: {100 * gain:+.1f} ± {100 * half:.1f} points, {verdict}")


if __name__ == "__main__":
    main()
