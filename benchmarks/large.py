"""Large images and long signals: seconds a step, memory, and what reconstructions keep.

The images are crops of the photographs that scikit-learn and scikit-image ship: of each of four the
left 62 % to learn from, the rest, never seen, to judge by. The signals are pixel rows of the same
photographs one after another, every second one backwards. One thread.

    python -m benchmarks.large                       # the table, in less than 10 minutes
    python -m benchmarks.large --only 224x224x3 --steps 600 --set model.latent_dim=256
    python -m benchmarks.large --photos FOLDER       # class folders of crops
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import vaeaug
from benchmarks.speed import seconds_a_step
from vaeaug.models import CVAE

CLASSES = ("building", "flower", "coffee", "cat")
COUNTS = (60, 40, 30, 20)
JUDGED = 10  # crops of the unseen part, of each class
# What is learned from, and whether its quality is measured too.
SHAPES = {
    (128, 128, 3): True,
    (224, 224, 3): True,
    (180, 320, 3): False,
    (512, 512, 3): False,
    (16_000, 1): True,
    (160_000, 1): False,
}
BATCH, STEPS = 64, 150


def photographs() -> list[np.ndarray]:
    """The four, (h, w, 3) in uint8, in the order of `CLASSES`."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    return [
        load_sample_image("china.jpg"),
        load_sample_image("flower.jpg"),
        data.coffee(),
        data.chelsea(),
    ]


def crops(
    size: tuple[int, int], counts: tuple[int, ...], *, seed: int, judged: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Crops of each photograph, resized and mirrored at random.

    Args:
        size: (height, width) of a crop.
        counts: Crops of each photograph.
        seed: Of the places.
        judged: Of the right part of the photographs instead of the left one.

    Returns:
        Images (n, h, w, 3) and labels (n,).
    """
    rng = np.random.default_rng([seed, judged])
    images = []
    for picture, n in zip(photographs(), counts, strict=True):
        cut = int(0.62 * picture.shape[1])
        part = picture[:, cut:] if judged else picture[:, :cut]
        largest = min(part.shape[0] / size[0], part.shape[1] / size[1])
        for _ in range(n):
            height, width = (int(largest * rng.uniform(0.7, 1.0) * side) for side in size)
            top = rng.integers(part.shape[0] - height + 1)
            left = rng.integers(part.shape[1] - width + 1)
            crop = Image.fromarray(part[top : top + height, left : left + width])
            pixels = np.asarray(crop.resize(size[::-1], Image.Resampling.BICUBIC))
            images.append(pixels[:, ::-1] if rng.random() < 0.5 else pixels)
    return np.stack(images), np.repeat(np.arange(len(counts)), counts)


def samples_of(
    shape: tuple[int, ...], counts: tuple[int, ...], *, seed: int = 0, judged: bool = False
) -> vaeaug.LabelledImages:
    """Crops, or signals of their gray pixels."""
    if len(shape) == 3:
        images, labels = crops(shape[:2], counts, seed=seed, judged=judged)
    else:
        side = int(np.ceil(np.sqrt(shape[0])))
        pictures, labels = crops((side, side), counts, seed=seed, judged=judged)
        rows = pictures.mean(axis=3).round().astype(np.uint8)
        rows[:, 1::2] = rows[:, 1::2, ::-1]
        images = rows.reshape(len(rows), -1)[:, : shape[0], None]
    return vaeaug.LabelledImages(
        images=np.ascontiguousarray(images),
        labels=labels,
        class_names=CLASSES,
        value_range=(0.0, 255.0),
    )


def quality(shape: tuple[int, ...], steps: int, overrides: list[str], picture: Path | None) -> str:
    """Train, and judge by the unseen part of the photographs."""
    data, unseen = samples_of(shape, COUNTS), samples_of(shape, (JUDGED,) * 4, judged=True)
    config = vaeaug.load_config(
        None,
        [
            f"training.steps={steps}",
            "training.adapt_steps=20",
            "training.batch_size=32",
            "training.eval_every=50",
            *overrides,
        ],
    )
    generator = vaeaug.fit(data, config, device="cpu", progress=False).attach(data)
    parts = []
    for part in (data.subset(np.arange(0, len(data), 5)), unseen):
        rebuilt = generator.reconstruct(part.images, part.labels).astype(float)
        error = np.square(rebuilt - part.images).reshape(len(part), -1).mean(axis=1)
        bits = generator.rates(part.images, part.labels)[1].mean()
        parts.append(f"{10 * np.log10(255**2 / error).mean():.1f} dB {bits:.2f} bits")
    if picture is not None and len(shape) == 3:
        draw(generator, data, picture)
    return f"seen {parts[0]}, unseen {parts[1]}"


def draw(generator: vaeaug.Synthesizer, data: vaeaug.LabelledImages, path: Path) -> None:
    """Rows of images, of their reconstructions, of edits of images and of draws without image."""
    rows = np.concatenate([np.flatnonzero(data.labels == label)[:2] for label in range(4)])
    edits = [generator.sample(c, 2, seed=0, sampler="interpolate", residual=True) for c in range(4)]
    drawn = [generator.sample(label, 2, seed=0, sampler="gmm") for label in range(4)]
    parts = [
        data.images[rows],
        generator.reconstruct(data.images[rows], data.labels[rows]),
        *(np.concatenate([batch.images for batch in kind]) for kind in (edits, drawn)),
    ]
    rows_of_pixels = [np.concatenate(list(images), axis=1) for images in parts]
    Image.fromarray(np.concatenate(rows_of_pixels)).save(path)


def print_line(shape: tuple[int, ...], arguments: argparse.Namespace) -> None:
    """A line of the table; in a process of its own, whose peak memory is the line's."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = CVAE(shape, len(CLASSES), width=vaeaug.AugmentConfig().model.width)
    seconds = seconds_a_step(model, BATCH, repeats=4)
    gibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    judgement = ""
    if arguments.steps:
        judgement = quality(shape, arguments.steps, arguments.set, arguments.picture)
    name = "x".join(map(str, shape))
    print(f"{name:12} {seconds:6.2f} s {gibibytes:6.2f} GiB   {judgement}", flush=True)


def write_photos(folder: Path, size: tuple[int, int], counts: tuple[int, ...]) -> None:
    """Class folders of crops."""
    images, labels = crops(size, counts, seed=0)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:04d}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one shape, such as 224x224x3")
    parser.add_argument("--steps", type=int, default=STEPS, help="of training, where judged")
    parser.add_argument("--set", action="append", default=[], help="a key of the configuration")
    parser.add_argument("--picture", type=Path, help="a PNG of images, rebuilt, edits and draws")
    parser.add_argument("--photos", type=Path, help="write class folders of crops and stop")
    parser.add_argument("--size", default="224x224", help="of --photos")
    arguments = parser.parse_args()
    if arguments.photos is not None:
        height, width = map(int, arguments.size.split("x"))
        write_photos(arguments.photos, (height, width), COUNTS)
    elif arguments.only:
        print_line(tuple(map(int, arguments.only.split("x"))), arguments)
    else:
        for shape, judged in SHAPES.items():
            steps = str(arguments.steps * judged)
            name = "x".join(map(str, shape))
            command = [sys.executable, "-m", "benchmarks.large", "--only", name, "--steps", steps]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
