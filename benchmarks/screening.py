"""Do cheaper classifiers of the screening judge as the dear ones do?

    python -m benchmarks.screening runs/demo digits --variants 32:300:3:128 16:300:3:64

Candidates of the run's generator are judged by cross-fitted classifiers of several widths, steps,
folds and batch sizes (WIDTH:STEPS:FOLDS:BATCH), each with several seeds. The first variant is the
reference, and its agreement with itself under other seeds is what no variant can be expected to
exceed. Real images of the split that the run has not seen, or else the ones that a fold's
classifier has not seen, tell how many of the right label are lost and how many of a wrong one are
caught; `caught_at_1_lost` is at the bound that loses one in a hundred.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

import vaeaug
from vaeaug.config import AugmentConfig
from vaeaug.data import read_configured
from vaeaug.screening import screener as screening
from vaeaug.strata import stratified_folds
from vaeaug.training.classifier import class_probabilities

SAMPLERS = ("interpolate", "gmm", "prior", "transfer")


def candidates(
    generator: vaeaug.Synthesizer, per_class: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, their labels, and the place of their sampler."""
    parts = [
        (
            generator.sample(
                label,
                per_class,
                seed=5,
                sampler=sampler,
                residual=sampler == "interpolate" and generator.data is not None,
            ).images,
            np.full(per_class, label),
            np.full(per_class, place),
        )
        for place, sampler in enumerate(SAMPLERS)
        for label in range(len(generator.class_names))
    ]
    images, labels, samplers = (np.concatenate(each) for each in zip(*parts, strict=True))
    return images, labels, samplers


def out_of_fold(
    judge: vaeaug.Screener, data: vaeaug.LabelledImages, folds: int, seed: int
) -> np.ndarray:
    """Class probabilities of each real image by the classifier that has not seen it."""
    fold = stratified_folds(data.labels, folds, seed=[seed, 2], groups=data.groups)
    p = np.empty((len(data), data.n_classes), np.float32)
    for number, classifier in enumerate(judge._classifiers):
        rows = np.flatnonzero(fold == number)
        p[rows] = class_probabilities(
            classifier, data.images[rows], data.value_range, device=judge.device
        )
    return p


def unseen_of(path: str, data: vaeaug.LabelledImages, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Real images of the split that are not in the data, and their labels."""
    whole = vaeaug.read(path, split=data.split or "train", progress=False)
    seen = {image.tobytes() for image in data.images}
    order = np.random.default_rng(2).permutation(len(whole))
    rows = [row for row in order[: n + len(data)] if whole.images[row].tobytes() not in seen][:n]
    return whole.images[rows], whole.labels[rows]


def caught_at(right: np.ndarray, wrong: np.ndarray, lost: float) -> float:
    """Part of the wrong labels below the bound that loses this part of the right ones."""
    return float((wrong < np.quantile(right, lost)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("data", help="its data")
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--variants", nargs="+", default=["32:300:3:128", "16:300:3:128"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON lines are appended here")
    arguments = parser.parse_args()
    stored = json.loads((arguments.run / "run.json").read_text())["config"]
    job = AugmentConfig.model_validate({"data": stored["data"], "seed": stored["seed"]})
    data = read_configured(arguments.data, job.data.model_dump(), seed=job.seed, progress=False)
    generator = vaeaug.load(arguments.run)
    if generator.data_fingerprint == data.fingerprint:
        generator.attach(data)
    images, labels, samplers = candidates(generator, arguments.per_class)
    unseen, right = unseen_of(arguments.data, data, 2000)
    if not len(unseen):  # each is judged by the one classifier that has not seen it
        right = data.labels
    rows = np.arange(len(right))
    wrong = (right + np.random.default_rng(1).integers(1, data.n_classes, len(right))) % (
        data.n_classes
    )
    bound = job.recipe.min_label_probability
    reference: dict[int, np.ndarray] = {}
    for variant in arguments.variants:
        width, steps, folds, batch = map(int, variant.split(":"))
        screening.WIDTH, screening.BATCH = width, batch
        for seed in range(arguments.seeds):
            config = job.screening.model_copy(update={"classifier_steps": steps, "folds": folds})
            begin = time.process_time()
            judge = vaeaug.Screener(data, config, seed=seed)
            fitted = time.process_time() - begin
            begin = time.process_time()
            p = judge.probabilities(images)[np.arange(len(images)), labels]
            judged = (time.process_time() - begin) / len(images)
            of_fold = out_of_fold(judge, data, folds, seed)
            entry = {
                "run": arguments.run.name,
                "variant": variant,
                "seed": seed,
                "fit_cpu_s": round(fitted, 2),
                "us_an_image": round(1e6 * judged, 1),
                "accuracy_out_of_fold": round(float((of_fold.argmax(1) == data.labels).mean()), 4),
                "rejected": {
                    name: round(float((p[samplers == place] < bound).mean()), 4)
                    for place, name in enumerate(SAMPLERS)
                },
            }
            real = judge.probabilities(unseen) if len(unseen) else of_fold
            p_right, p_wrong = real[rows, right], real[rows, wrong]
            entry |= {
                "accuracy": round(float((real.argmax(1) == right).mean()), 4),
                "lost": round(float((p_right < bound).mean()), 4),
                "caught": round(float((p_wrong < bound).mean()), 4),
                "caught_at_1_lost": round(caught_at(p_right, p_wrong, 0.01), 4),
            }
            is_reference = variant == arguments.variants[0]
            others = [q for s, q in reference.items() if not is_reference or s != seed]
            if others:
                alike = [((p < bound) == (q < bound)).mean() for q in others]
                entry["agree"] = round(float(np.mean(alike)), 4)
                apart = [np.abs(p - q).mean() for q in others]
                entry["p_difference"] = round(float(np.mean(apart)), 4)
            if is_reference:
                reference[seed] = p
            print(json.dumps(entry), flush=True)
            if arguments.out:
                with open(arguments.out, "a") as file:
                    file.write(json.dumps(entry) + "\n")


if __name__ == "__main__":
    main()
