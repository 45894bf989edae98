"""A frozen backbone and a linear head: embed, augment the features, train with and without.

The backbone is a small network that is trained here on the frequent half of the digits; of the
other half it has seen nothing. Five views of each training image are embedded, samples of the
features are drawn, and a logistic regression is trained on real and on merged features:

    python pipelines/embeddings.py
    python pipelines/embeddings.py --data FOLDER --backbone torchvision:resnet18:resnet18.pth \
        --set data.class_counts=null

The default takes half a minute on one CPU core.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

import vaeaug


def trained_backbone(data: vaeaug.LabelledImages, steps: int, seed: int) -> nn.Module:
    """A network that tells the larger classes apart, without its last layer."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(data.counts[data.labels] >= np.median(data.counts))
    body = nn.Sequential(
        *(nn.Conv2d(data.image_shape[-1], 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten()),
    )
    head = nn.Linear(256, data.n_classes)
    optimiser = torch.optim.AdamW([*body.parameters(), *head.parameters()], 3e-3)
    low, high = data.value_range
    for _ in range(steps):
        chosen = rng.choice(rows, 64)
        x = (torch.from_numpy(data.images[chosen]).movedim(-1, 1).float() - low) / (high - low)
        loss = F.cross_entropy(head(body(x)), torch.from_numpy(data.labels[chosen]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return body


def features(data: vaeaug.LabelledImages) -> np.ndarray:
    """The vectors, (n, f)."""
    return data.images[:, 0]


def tuned_head(train: vaeaug.LabelledImages) -> LogisticRegression:
    """A head whose strength of regularisation is chosen with views of one image kept together."""
    head = LogisticRegression(class_weight="balanced", max_iter=300)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), head),
        {"logisticregression__C": [1e-3, 1e-2, 1e-1]},
        scoring="balanced_accuracy",
        cv=StratifiedGroupKFold(3),
    )
    return search.fit(features(train), train.labels, groups=train.groups).best_estimator_


def main(command_line: Sequence[str] | None = None) -> None:
    """Embed, augment, and train a head on real and on merged features."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="anything vaeaug.read takes")
    parser.add_argument("--backbone", help="as for `vaeaug embed`; default: one is trained")
    parser.add_argument("--out", type=Path, default=Path("runs/embeddings"))
    parser.add_argument("--config", default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--views", type=int, default=5, help="of each training image")
    parser.add_argument("--steps", type=int, default=300, help="of the backbone")
    arguments = parser.parse_args(command_line)

    config = vaeaug.load_config(arguments.config, arguments.set)
    data, test = vaeaug.read(arguments.data).split_off(0.3, seed=config.seed)
    if config.data.class_counts is not None:
        data = data.imbalanced(config.data.class_counts, seed=config.seed)
    backbone = arguments.backbone or trained_backbone(data, arguments.steps, config.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    train = vaeaug.embed(
        data, backbone, arguments.out / "train.h5", views=arguments.views, seed=config.seed
    )
    held_out = vaeaug.embed(test, backbone, arguments.out / "test.h5")
    print(f"{len(data)} images of {data.counts.tolist()}; {train}")

    vaeaug.augment(train, arguments.out / "run", config)
    merged = vaeaug.merge(train, arguments.out / "run", balance="classes", seed=config.seed)
    x, y = (np.stack(column) for column in zip(*merged, strict=True))
    head = tuned_head(train)
    for name, fitted in (("real", head), ("merged", clone(head).fit(x, y))):
        accuracy = balanced_accuracy_score(held_out.labels, fitted.predict(features(held_out)))
        print(f"{name}: balanced accuracy {accuracy:.1%}")
    print(f"One seed, {len(held_out)} images: differences of a point or two are chance.")


if __name__ == "__main__":
    main()
