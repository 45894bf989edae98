"""A picture of what each sampler draws, on real data: one generator, a frequent and a rare class.

    python -m benchmarks.sampler_gallery --to docs/images/samplers.png

Needs the Debian package dataset-fashion-mnist, or another source that `vaeaug.read` takes. The
samples are the first ones of each sampler, not chosen.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import vaeaug
from pipelines.balance_rare_classes import FASHION_MNIST
from vaeaug.report import write_strips

FREQUENT, RARE = "Sneaker", "Bag"
# (name of the row, sampler, whether the sample keeps what the decoder would lose of its source)
ROWS = (
    ("prior", "prior", False),
    ("posterior", "posterior", False),
    ("interpolate", "interpolate", False),
    ("... residual", "interpolate", True),
    ("gmm", "gmm", False),
    ("flow", "flow", False),
    ("transfer", "transfer", False),
    ("delta", "delta", False),
    ("blend", "blend", False),
)


def main() -> None:
    """Train one generator with a flow, and draw by each sampler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=FASHION_MNIST)
    parser.add_argument("--frequent", default=FREQUENT)
    parser.add_argument("--rare", default=RARE)
    parser.add_argument("--images", type=int, default=200, help="of each class but the rare one")
    parser.add_argument("--rare-images", type=int, default=30)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, required=True)
    arguments = parser.parse_args()

    whole = vaeaug.read(arguments.data, split="train")
    for name in (arguments.frequent, arguments.rare):
        if name not in whole.class_names:
            raise SystemExit(f"expected a class among {', '.join(whole.class_names)}; got {name!r}")
    counts = [
        arguments.rare_images if name == arguments.rare else arguments.images
        for name in whole.class_names
    ]
    data = whole.imbalanced(counts, seed=arguments.seed)
    settings = {
        "training.steps": arguments.steps,
        "density.kind": "flow",
        "restoration.steps": 0,
        "seed": arguments.seed,
    }
    config = vaeaug.AugmentConfig().changed(**settings)
    generator = vaeaug.fit(data, config).attach(data)
    strips = []
    for name in (arguments.frequent, arguments.rare):
        of_class = np.flatnonzero(data.labels == data.class_names.index(name))
        rows = of_class[: arguments.columns]
        drawn = [data.images[rows]]
        for _, sampler, residual in ROWS:
            batch = generator.sample(
                name, arguments.columns, seed=arguments.seed, sampler=sampler, residual=residual
            )
            drawn.append(batch.images)
        names = ["real", *(row[0] for row in ROWS)]
        strips.append((f"{name}, {len(of_class)} training images", names, np.stack(drawn)))
    write_strips(arguments.to, strips, value_range=data.value_range)
    with Image.open(arguments.to) as picture:
        gray = picture.convert("L") if data.image_shape[-1] == 1 else picture.convert("RGB")
    gray.save(arguments.to, optimize=True)


if __name__ == "__main__":
    main()
