"""Denoising and inpainting beside specialists: NLM, total variation, BM3D, biharmonic inpainting.

    pip install bm3d                                     # an opponent, not a dependency
    apt-get install dataset-fashion-mnist
    python -m benchmarks.promises.denoising --out denoising.jsonl --picture denoising.png
    python -m benchmarks.promises.denoising --data digits --steps 200 --images 20   # a minute
    python -m benchmarks.promises.denoising --data glyphs --glyphs runs/glyphs.npz

Data: `digits`, `fashion-mnist`, `glyphs` (font families that training never saw) and `photographs`
(gray 64 x 64 crops of those that scikit-image ships; four are kept for the test). One generator is
trained on each, for all kinds of noise at once, and is not told the level of Gaussian noise.
Opponents are told it, and have their settings chosen for each data set and level on images of the
training data. BM3D gets all images in one mosaic, where it finds similar patches in other images
too. Noise is clipped and rounded to 8 bits, as it is when it is stored.

Results are appended to a JSON-lines file; what is there is not run again. The exit code is 1 if
ours is below its input anywhere.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vaeaug
from benchmarks.usefulness import glyphs
from vaeaug.report import write_strips

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
DATA = ("digits", "fashion-mnist", "glyphs", "photographs")
LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5)
PEAKS = (4, 16, 64)
GAPS = ("values 0.3", "values 0.7", "block")
# Steps of the restorer and of the generator, where none are given.
STEPS = {"digits": 1000, "fashion-mnist": 600, "glyphs": 600, "photographs": 400}
GENERATOR_STEPS = {"digits": 200, "fashion-mnist": 50, "glyphs": 50, "photographs": 10}
TEST_PHOTOGRAPHS = ("camera", "chelsea", "coffee", "rocket")
PHOTOGRAPHS = (
    *("astronaut", "brick", "cell", "coins", "grass", "gravel", "hubble_deep_field"),
    *("immunohistochemistry", "moon", "page", "retina"),
)
SIDE, CROPS = 64, 300
# Images on which the opponents' settings are chosen, at least.
TUNING = 12
# Pixels of the images at their edges, repeated, between two images of a mosaic.
MARGIN = 4

Images = np.ndarray  # (n, h, w), values in [0, 1]


@dataclass(frozen=True)
class Parts:
    """Images to learn from, to choose the opponents' settings on, and to test on."""

    train: vaeaug.LabelledImages
    tuning: Images
    test: Images
    labels: np.ndarray  # of the test images; those of photographs are of no class of the generator


# -- Data ------------------------------------------------------------------------------------------


def parts_of(name: str, args: argparse.Namespace) -> Parts:
    if name == "photographs":
        return photographs(args.images, args.seed)
    if name == "glyphs":
        train, _, test = glyphs.parts(args.glyphs, [400] * 56, args.seed)
    else:
        source = {"digits": "digits", "fashion-mnist": args.fashion_mnist}[name]
        train, test = (vaeaug.read(source, split=split) for split in ("train", "test"))
    rng = np.random.default_rng(args.seed)
    chosen = np.sort(rng.permutation(len(test))[: args.images])
    train, tuning = train.split_off(max(0.001, TUNING / len(train)), seed=args.seed)
    tuning_images = tuning.images[:: -(-len(tuning) // TUNING)]
    return Parts(train, plain(tuning_images), plain(test.images[chosen]), test.labels[chosen])


def photographs(n: int, seed: int) -> Parts:
    """Crops of the bundled photographs; training, tuning and test ones are of other photographs."""
    train = [crops(name, CROPS, seed) for name in PHOTOGRAPHS]
    data = vaeaug.LabelledImages(
        images=np.concatenate(train),
        labels=np.repeat(np.arange(len(train)), CROPS),
        class_names=PHOTOGRAPHS,
        value_range=(0, 255),
        split="train",
        source="photographs of scikit-image",
    )
    per_photograph = -(-n // len(TEST_PHOTOGRAPHS))
    test = np.concatenate([crops(name, per_photograph, seed) for name in TEST_PHOTOGRAPHS])
    tuning = np.concatenate([crops(name, 1, seed + 1) for name in PHOTOGRAPHS])
    return Parts(data, plain(tuning), plain(test[:n]), np.zeros(n, np.int64))


def crops(name: str, n: int, seed: int) -> np.ndarray:
    """Crops at random places of a photograph, (n, 64, 64, 1) in uint8."""
    import skimage.data
    from skimage.color import rgb2gray

    picture = getattr(skimage.data, name)()
    if picture.ndim == 3:
        picture = np.rint(255 * rgb2gray(picture)).astype(np.uint8)
    rng = np.random.default_rng([seed, len(name), *name.encode()])
    places = (rng.integers(side - SIDE + 1, size=n) for side in picture.shape)
    cut = [picture[i : i + SIDE, j : j + SIDE] for i, j in zip(*places, strict=True)]
    return np.stack(cut)[..., None]


def plain(images: np.ndarray) -> Images:
    return images[..., 0].astype(np.float64) / 255


def stored(images: Images) -> np.ndarray:
    return np.rint(255 * images.clip(0, 1)).astype(np.uint8)[..., None]


# -- Noise -----------------------------------------------------------------------------------------


def noisy(x: Images, kind: str, value: float | str, seed: int) -> tuple[Images, np.ndarray | None]:
    """Images with noise as they would be stored, and where values are missing."""
    rng = np.random.default_rng([seed, x.shape[1]])
    if kind == "gaussian":
        y = x + value * rng.standard_normal(x.shape)
        return plain(stored(y)), None
    if kind == "poisson":
        return plain(stored(rng.poisson(x * value) / value)), None
    missing = np.zeros(x.shape, bool)
    if value == "block":
        side = x.shape[1] // 3
        for image, (i, j) in zip(
            missing, rng.integers(x.shape[1] - side, size=(len(x), 2)), strict=True
        ):
            image[i : i + side, j : j + side] = True
    else:
        missing = rng.random(x.shape) < float(str(value).split()[1])
    return np.where(missing, 0, x), missing


def psnr(x: Images, y: Images) -> np.ndarray:
    error = np.square(x - y.clip(0, 1)).mean(axis=(1, 2))
    return -10 * np.log10(np.maximum(error, 1e-10))


# -- Opponents -------------------------------------------------------------------------------------

Denoiser = Callable[..., Images]


def non_local_means(y: Images, sigma: float, *, h: float, patch: int, told: float) -> Images:
    from skimage.restoration import denoise_nl_means

    return np.stack(
        [
            denoise_nl_means(
                image, patch_size=patch, patch_distance=7, h=h * sigma, sigma=told * sigma
            )
            for image in y
        ]
    )


def total_variation(y: Images, sigma: float, *, weight: float) -> Images:
    from skimage.restoration import denoise_tv_chambolle

    return np.stack([denoise_tv_chambolle(image, weight=weight * sigma) for image in y])


def bm3d(y: Images, sigma: float, *, factor: float) -> Images:
    """All images in one mosaic: faster, and with more patches to group than one image has."""
    import bm3d as package

    margin, (n, height, width) = MARGIN, y.shape
    columns = int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    tiles = np.pad(y, ((0, rows * columns - n), (margin, margin), (margin, margin)), mode="edge")
    h, w = height + 2 * margin, width + 2 * margin
    mosaic = tiles.reshape(rows, columns, h, w).swapaxes(1, 2).reshape(rows * h, columns * w)
    cleaned = package.bm3d(mosaic, factor * sigma)
    tiles = cleaned.reshape(rows, h, columns, w).swapaxes(1, 2).reshape(-1, h, w)
    return tiles[:n, margin:-margin, margin:-margin]


SETTINGS: dict[str, tuple[Denoiser, dict[str, tuple[float, ...]]]] = {
    "nlm": (
        non_local_means,
        {"h": (0.5, 0.7, 0.9, 1.2), "patch": (3, 5), "told": (0.0, 1.0)},
    ),
    "tv": (total_variation, {"weight": (0.3, 0.45, 0.6, 0.8, 1.0, 1.3)}),
    "bm3d": (bm3d, {"factor": (0.7, 0.85, 1.0)}),
}


def tuned(name: str, clean: Images, dirty: Images, sigma: float, through: Any) -> dict[str, Any]:
    """The settings of an opponent that are best on average on images of the training data."""
    denoise, grid = SETTINGS[name]
    candidates = [
        dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    scores = [psnr(clean, through(denoise, dirty, sigma, kw)).mean() for kw in candidates]
    return candidates[int(np.argmax(scores))]


def directly(denoise: Denoiser, y: Images, sigma: float, settings: dict[str, Any]) -> Images:
    return denoise(y, sigma, **settings)


def by_anscombe(denoise: Denoiser, y: Images, peak: float, settings: dict[str, Any]) -> Images:
    """Counts with their variance stabilised (Anscombe 1948), and the exact unbiased inverse.

    Closed form of Mäkitalo & Foi 2011.
    """
    top = 2 * np.sqrt(peak + 3 / 8)
    d = top * denoise(2 * np.sqrt(y * peak + 3 / 8) / top, 1 / top, **settings)
    d = np.maximum(d, 2 * np.sqrt(3 / 8))
    counts = d**2 / 4 + np.sqrt(3 / 2) / (4 * d) - 11 / (8 * d**2) + 5 * np.sqrt(3 / 2) / (8 * d**3)
    return (counts - 1 / 8) / peak


def mean_fill(y: Images, missing: np.ndarray) -> Images:
    means = np.nanmean(np.where(missing, np.nan, y), axis=(1, 2), keepdims=True)
    return np.where(missing, means, y)


def biharmonic(y: Images, missing: np.ndarray) -> Images:
    from skimage.restoration import inpaint_biharmonic

    return np.stack([inpaint_biharmonic(a, m) for a, m in zip(y, missing, strict=True)])


# -- Measuring -------------------------------------------------------------------------------------


def ours(
    generator: vaeaug.Synthesizer,
    y: Images,
    labels: np.ndarray,
    kind: str,
    value: Any,
    missing: Any,
) -> dict[str, Images]:
    """The results of the generator with its restorer, and of the same without one.

    Without one it is told the labels, of which its reconstruction makes use.
    """
    images = stored(y)
    keys: dict[str, Any] = {"missing": missing}
    if kind == "poisson":
        keys["poisson_peak"] = value
    if kind == "missing":
        keys["noise_level"] = 0.0
    results = {"ours": plain(generator.denoise(images, **keys))}
    if kind == "gaussian":
        results["ours, level known"] = plain(generator.denoise(images, noise_level=value))
    restorer, generator.restorer = generator.restorer, None
    results["without a restorer"] = plain(generator.denoise(images, labels, **keys))
    if kind == "gaussian":
        results["reconstruction"] = plain(generator.reconstruct(images, labels))
    generator.restorer = restorer
    return results


def measured(
    parts: Parts, generator: vaeaug.Synthesizer, kind: str, value: Any, seed: int, names: list[str]
) -> Iterator[tuple[str, dict[str, Any], Images, float]]:
    """Each method, its settings, its results and the processor seconds that they took."""
    y, missing = noisy(parts.test, kind, value, seed)
    yield "input", {}, mean_fill(y, missing) if missing is not None else y, 0.0
    began = time.process_time()
    found = ours(generator, y, parts.labels, kind, value, missing)
    seconds = time.process_time() - began
    for name, images in found.items():
        yield name, {}, images, seconds
    if missing is not None:
        began = time.process_time()
        yield "biharmonic", {}, biharmonic(y, missing), time.process_time() - began
        return
    dirty, _ = noisy(parts.tuning, kind, value, seed + 1)
    through = directly if kind == "gaussian" else by_anscombe
    for name in names:
        settings = tuned(name, parts.tuning, dirty, value, through)
        began = time.process_time()
        images = through(SETTINGS[name][0], y, value, settings)
        yield name, settings, images, time.process_time() - began


def conditions() -> list[tuple[str, Any]]:
    return [
        *(("gaussian", level) for level in LEVELS),
        *(("poisson", peak) for peak in PEAKS),
        *(("missing", gaps) for gaps in GAPS),
    ]


def run(name: str, args: argparse.Namespace, out: Path) -> list[dict[str, Any]]:
    """Rows of one data set; those in the file already are read from there."""
    parts = parts_of(name, args)
    generator = trained(name, parts, args)
    rows = []
    for kind, value in conditions():
        key = {"data": name, "noise": kind, "value": value, "seed": args.seed}
        before = [row for row in read(out) if key.items() <= row.items()]
        if before:
            rows += before
            continue
        results = list(measured(parts, generator, kind, value, args.seed, args.opponents))
        ours_psnr = psnr(parts.test, next(images for m, _, images, _ in results if m == "ours"))
        for method, settings, images, seconds in results:
            score = psnr(parts.test, images)
            ahead = ours_psnr - score
            row = key | {
                "method": method,
                "settings": settings,
                "images": len(score),
                "psnr": round(float(score.mean()), 3),
                "ours_ahead": round(float(ahead.mean()), 3),
                # Half the width of the 95 % interval of the mean over test images.
                "interval": round(float(1.96 * ahead.std(ddof=1) / np.sqrt(len(ahead))), 3),
                "cpu_seconds": round(seconds, 2),
            }
            rows.append(row)
            with open(out, "a") as file:
                file.write(json.dumps(row) + "\n")
        print(
            *(f"{row['method']} {row['psnr']:.2f}" for row in rows[-len(results) :]),
            sep="; ",
            flush=True,
        )
    return rows


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def trained(name: str, parts: Parts, args: argparse.Namespace) -> vaeaug.Synthesizer:
    """The generator of a data set, trained once."""
    folder = args.runs / f"{name}-{args.seed}"
    if not (folder / "model" / "config.json").exists():
        config = vaeaug.AugmentConfig().changed(
            **{
                "seed": args.seed,
                "model.grouping": "shared",
                "training.steps": args.generator_steps or GENERATOR_STEPS[name],
                "restoration.steps": args.steps or STEPS[name],
            }
        )
        generator = vaeaug.fit(thinned(parts.train), config.changed(**{"restoration.steps": 0}))
        vaeaug.fit_restorer(generator, parts.train, config).save(folder / "model")
    return vaeaug.load(folder)


def thinned(data: vaeaug.LabelledImages, most: int = 2000) -> vaeaug.LabelledImages:
    """Fewer images, for the generator, of which the restored ones make no use."""
    return data.subset(np.arange(0, len(data), -(-len(data) // most)))


def table(rows: list[dict[str, Any]]) -> str:
    """PSNR in dB, a row for each data set and noise; the best is bold."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [f"| data | noise | {' | '.join(methods)} |", "|---" * (len(methods) + 2) + "|"]
    for data, noise, value in dict.fromkeys((r["data"], r["noise"], r["value"]) for r in rows):
        found = {
            row["method"]: row["psnr"]
            for row in rows
            if (row["data"], row["noise"], row["value"]) == (data, noise, value)
        }
        best = max(found.values())
        cells = [
            ""
            if m not in found
            else f"**{found[m]:.2f}**"
            if found[m] == best
            else f"{found[m]:.2f}"
            for m in methods
        ]
        lines.append(f"| {data} | {noise} {value} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(path: Path, names: list[str], args: argparse.Namespace) -> None:
    """Test images of each data set: with noise of 0.3 and without, with a block gone and filled."""
    strips = []
    for name in names:
        parts = parts_of(name, args)
        generator = trained(name, parts, args)
        x = parts.test[:: max(1, len(parts.test) // 10)][:10]
        y, _ = noisy(x, "gaussian", 0.3, args.seed)
        gaps, missing = noisy(x, "missing", "block", args.seed)
        settings = tuned(
            "bm3d", parts.tuning, noisy(parts.tuning, "gaussian", 0.3, 1)[0], 0.3, directly
        )
        rows = {
            "clean": stored(x),
            "noise 0.3": stored(y),
            "denoised": generator.denoise(stored(y)),
            "BM3D, tuned": stored(bm3d(y, 0.3, **settings)),
            "a block gone": stored(gaps),
            "filled in": generator.denoise(stored(gaps), noise_level=0.0, missing=missing),
        }
        strips.append((name, list(rows), np.stack(list(rows.values()))))
    write_strips(path, strips, value_range=(0, 255))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--data", nargs="+", choices=DATA, default=["digits", "fashion-mnist", "photographs"]
    )
    parser.add_argument("--fashion-mnist", type=Path, default=FASHION_MNIST)
    parser.add_argument("--glyphs", type=Path, default=glyphs.DEFAULT)
    parser.add_argument("--images", type=int, default=60, help="test images")
    parser.add_argument("--steps", type=int, help="training steps of the restorer")
    parser.add_argument("--generator-steps", type=int)
    parser.add_argument("--opponents", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/denoising"))
    parser.add_argument("--out", type=Path, default=Path("runs/denoising.jsonl"))
    parser.add_argument("--picture", type=Path, help="PNG of examples; trains nothing")
    args = parser.parse_args(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.picture is not None:
        draw(args.picture, args.data, args)
        return 0
    rows = [row for name in args.data for row in run(name, args, args.out)]
    print(table(rows))
    worse = [row for row in rows if row["method"] == "input" and row["ours_ahead"] < 0]
    for row in worse:
        print(
            f"worse than doing nothing: {row['data']}, {row['noise']} {row['value']}: {row['psnr']}"
        )
    return int(bool(worse))


if __name__ == "__main__":
    raise SystemExit(main())
