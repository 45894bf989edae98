"""Classes of a few images: drawn in the styles of frequent classes, then a new last layer.

Half of the digits keep five images. A classifier is trained on the real images alone and on merged
ones, of which the last two fifths of the steps see real images only. Then the last layer of each is
trained again, on features of what it was trained on, and on vectors that differ from them as two
images of a frequent class do. Both steps help where classes have few images, and they add up:

    python pipelines/few_shot_classes.py
    python pipelines/few_shot_classes.py --data FOLDER --set data.class_counts=null

The default takes a minute and a half on one CPU core.
"""

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, RandomSampler

import vaeaug

if __package__:
    from pipelines.classifier import BATCH, recalls, small_cnn, train
else:
    from classifier import BATCH, recalls, small_cnn, train

VIEWS = 5  # of each image, under classic augmentation


def trained(data: vaeaug.LabelledImages, run: Path, share: float, steps: int, seed: int):
    """A classifier; the last two fifths of its steps see real images only."""
    torch.manual_seed(seed)
    parts = []
    for part, n in ((share, steps * 3 // 5), (0.0, steps - steps * 3 // 5)):
        merged = vaeaug.merge(data, run, part, balance="classes", seed=seed)
        sampler = RandomSampler(merged, replacement=True, num_samples=BATCH * n)
        parts.append(DataLoader(merged, BATCH, sampler=sampler))
    model = small_cnn(data.image_shape, data.n_classes, data.value_range)
    return train(model, chain.from_iterable(parts), steps=steps)


def new_head(
    model: nn.Sequential, data: vaeaug.LabelledImages, config: vaeaug.AugmentConfig, out: Path
) -> nn.Sequential:
    """The network with another last layer, trained on features of the data and on samples of them.

    `embed` scales images to [0, 1], as the first layer of the network does.
    """
    out.mkdir(parents=True, exist_ok=True)
    features = vaeaug.embed(data, model[1:-1], out / "features.h5", views=VIEWS, seed=config.seed)
    job = config.changed(**{"recipe.sampler": "delta", "training.steps": 50})  # it needs no VAE
    vaeaug.augment(features, out / "run", job)
    merged = vaeaug.merge(features, out / "run", balance="classes", seed=config.seed)
    x, y = (np.stack(column) for column in zip(*merged, strict=True))
    regression = LogisticRegression(C=0.01, max_iter=500)
    scale, fitted = make_pipeline(StandardScaler(), regression).fit(x, y)
    head = nn.Linear(*fitted.coef_.T.shape)
    weight = fitted.coef_ / scale.scale_
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(fitted.intercept_ - weight @ scale.mean_))
    return nn.Sequential(*model[:-1], head).eval()


def main(command_line: Sequence[str] | None = None) -> None:
    """Augment, train with and without, and print what became of the rare classes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="anything vaeaug.read takes")
    parser.add_argument("--out", type=Path, default=Path("runs/few-shot"))
    parser.add_argument("--config", default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--steps", type=int, default=600, help="of each classifier")
    arguments = parser.parse_args(command_line)

    config = vaeaug.load_config(arguments.config, arguments.set)
    seed, out = config.seed, arguments.out
    data, test = vaeaug.read(arguments.data).split_off(0.3, seed=seed)
    if config.data.class_counts is not None:
        data = data.imbalanced(config.data.class_counts, seed=seed)
    vaeaug.augment(data, out / "images", config)
    merged = vaeaug.read(
        vaeaug.write_merged(data, out / "images", out / "merged.h5", share="all", overwrite=True)
    )
    scores = {}
    for name, share, seen in (("real", 0.0, data), ("merged", config.recipe.share, merged)):
        scores[name] = trained(data, out / "images", share, arguments.steps, seed)
        scores[f"{name}, a new head"] = new_head(scores[name], seen, config, out / name)
    rare = data.counts <= np.quantile(data.counts, 0.25)
    for name, model in scores.items():
        found = recalls(model, test)
        print(
            f"{name}: balanced accuracy {found.mean():.1%}, rare classes {found[rare].mean():.1%}"
        )
    print(f"One seed, {len(test)} images: differences of a point or two are chance.")


if __name__ == "__main__":
    main()
