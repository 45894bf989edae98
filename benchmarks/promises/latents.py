"""How readable are the latents? Shapes in colours, whose factors are known exactly.

    python -m benchmarks.promises.latents --seeds 0 1 2 --out runs/latents.jsonl

The class is the shape (square, disk, triangle, cross); size, place, hue and background vary. MIG,
SAP and DCI compare the posterior means with the factors; `shift` is how much of an asked-for change
of size the decoded samples show along the direction of the attribute. A line of JSON for each
generator goes to --out; lines that are there are not computed again.
"""

import argparse
import colorsys
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

import vaeaug
from vaeaug.evaluation import measure_disentanglement
from vaeaug.job.applications import attribute_directions

SIDE = 16
FACTORS = ("size", "right", "down", "hue", "background")
GENERATORS = {
    "default (style, beta 5)": {},
    "style, beta 1": {"model.style_beta": 1.0},
    "style, beta 15": {"model.style_beta": 15.0},
    "no style, beta 1": {"model.style_dim": 0},
    "no style, beta 4": {"model.style_dim": 0, "model.beta": 4.0},
    "no style, beta 15": {"model.style_dim": 0, "model.beta": 15.0},
    "no style, capacity 25": {"model.style_dim": 0, "model.capacity": 25.0},
    "no style, 4 cycles": {
        "model.style_dim": 0,
        "training.kl_cycles": 4,
        "training.kl_warmup": 0.5,
    },
}


def shapes(n: int, seed: int) -> tuple[vaeaug.LabelledImages, np.ndarray]:
    """Draw shapes.

    Args:
        n: How many of each of the four.
        seed: Of the factors.

    Returns:
        The images, and their factors (4 n, 5) in the order of `FACTORS`.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), n)
    low, high = np.array([2.0, 6.0, 6.0, 0.0, 0.0]), np.array([5.0, 9.0, 9.0, 0.8, 0.4])
    factors = rng.uniform(low, high, (len(labels), 5))
    # Four times finer, then averaged: edges are smooth and places are no whole pixels.
    grid = (np.arange(4 * SIDE) + 0.5) / 4
    y, x = np.meshgrid(grid, grid, indexing="ij")
    images = np.empty((len(labels), SIDE, SIDE, 3))
    for image, label, (size, right, down, hue, ground) in zip(images, labels, factors, strict=True):
        dx, dy = x - right, y - down
        wide = np.maximum(np.abs(dx), np.abs(dy))
        mask = (
            wide < size * 0.85,
            np.hypot(dx, dy) < size,
            (np.abs(dx) < (dy + size) / 2) & (dy < size),
            (wide < size) & (np.minimum(np.abs(dx), np.abs(dy)) < size / 3),
        )[label]
        cover = mask.reshape(SIDE, 4, SIDE, 4).mean(axis=(1, 3))[..., None]
        image[:] = ground + cover * (np.array(colorsys.hsv_to_rgb(hue, 1, 1)) - ground)
    pixels = (255 * images).round().astype(np.uint8)
    names = ["square", "disk", "triangle", "cross"]
    return vaeaug.read((pixels, labels), class_names=names), factors


def main() -> None:
    """Train each generator on each seed, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1500, help="of each generator")
    parser.add_argument("--images", type=int, default=500, help="of each shape")
    parser.add_argument("--generators", nargs="+", default=list(GENERATORS), choices=GENERATORS)
    parser.add_argument("--device", default="cpu", help="where generators are trained")
    parser.add_argument("--out", type=Path, default=Path("runs/latents.jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.touch()
    lines = [json.loads(line) for line in options.out.read_text().splitlines()]
    for seed in options.seeds:
        data, factors = shapes(options.images, seed)
        for name in options.generators:
            key = {
                "generator": name,
                "seed": seed,
                "steps": options.steps,
                "images": options.images,
            }
            if any(key.items() <= line.items() for line in lines):
                continue
            line = key | measured(
                data, factors, GENERATORS[name], options.steps, seed, options.device
            )
            lines.append(line)
            with open(options.out, "a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
    print_table([line for line in lines if line["steps"] == options.steps])


def measured(
    data: vaeaug.LabelledImages,
    factors: np.ndarray,
    keys: dict,
    steps: int,
    seed: int,
    device: str = "cpu",
) -> dict:
    """Train a generator and measure its latents."""
    config = vaeaug.AugmentConfig().changed(
        seed=seed,
        **{
            "model.grouping": "shared",
            "model.latent_dim": 24,
            "density.kind": "normal",
            "training.steps": steps,
            **keys,
        },
    )
    begin = time.process_time()
    generator = vaeaug.fit(data, config, device=device, progress=False)
    seconds = time.process_time() - begin
    units = generator.model.style_dim or generator.means.shape[1]
    found = measure_disentanglement(generator.means[:, :units], factors, seed=seed)
    directions = {each.name: each.kept for each in attribute_directions(generator, data)}
    return {
        **{key: round(value, 4) for key, value in asdict(found).items()},
        "kept_size": round(directions["size"], 4),
        "seconds": round(seconds, 1),
    }


def print_table(lines: list[dict]) -> None:
    """Print means over seeds."""
    columns = ("mig", "sap", "disentanglement", "completeness", "informativeness", "kept_size")
    print("\n| generator | seeds | " + " | ".join(columns) + " |")
    print("|" + "---|" * (len(columns) + 2))
    for name in dict.fromkeys(line["generator"] for line in lines):
        of_name = [line for line in lines if line["generator"] == name]
        cells = [f"{np.mean([line[column] for line in of_name]):.2f}" for column in columns]
        print(f"| {name} | {len(of_name)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
