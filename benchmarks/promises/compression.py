"""Compression: sizes of files beside PNG, WebP and JPEG XL, and rate-distortion curves.

    python -m benchmarks.promises.compression --data fashion --out runs/compression
    python -m benchmarks.promises.compression --data glyphs --glyphs glyphs.npz
    python -m benchmarks.promises.compression --small --out runs/small     # digits, a minute
    python -m benchmarks.promises.compression --draw docs/images/compression.png

Without loss each image is a file of its own, or all are one: a picture of tiles for the others. The
coder is trained on the training images alone; glyphs are held out by type family. Rows are appended
to RESULTS, a JSON-lines file. Generators and coders that OUT has are used again. Needs the packages
constriction and imagecodecs.
"""

import argparse
import gzip
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch

import vaeaug
from vaeaug.compression import QUALITIES, ImageCoder, LossyCoder, compress, decompress
from vaeaug.data import LabelledImages

RESULTS = Path(__file__).parent.parent / "results" / "compression.jsonl"
FASHION = Path("/usr/share/datasets/fashion-mnist")
CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker")
CLOTHES += ("bag", "boot")
SMALL = {"training.steps": 60, "model.width": 8, "training.label_swap": 0}
GENERATORS: dict[str, dict[str, Any]] = {
    "fashion": {
        "training.steps": 2000,
        "training.label_swap": 0,
        "model.latent": "hierarchical",
        "model.grouping": "shared",
        "density.kind": "normal",
    },
    "glyphs": {
        "training.steps": 1200,
        "training.label_swap": 0,
        "model.style_dim": 0,
        "model.grouping": "shared",
        "density.kind": "normal",
    },
    "digits": {"training.steps": 600, "model.grouping": "shared", "density.kind": "normal"},
}
LEVELS = (3, 4, 5, 6, 8, 12, 24)
ROUNDED_STEPS = 500
STEPS = {"fashion": 800, "glyphs": 1500, "digits": 800}
WIDE = 32  # images side by side in a picture of tiles
DISTANCES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0)
WEBP = (0, 5, 10, 20, 30, 40, 50, 65, 80, 90)
RATES = (0.4, 0.6, 0.8, 1.0)
RESAMPLES = 2000


def labelled(images: np.ndarray, labels: np.ndarray, names, split: str) -> LabelledImages:
    return LabelledImages(
        images=np.ascontiguousarray(images.reshape(*images.shape[:3], 1)),
        labels=labels.astype(np.int64),
        class_names=tuple(map(str, names)),
        value_range=(0, 255),
        split=split,
        source=split,
    )


def fashion() -> tuple[LabelledImages, LabelledImages]:
    def part(name: str, split: str) -> LabelledImages:
        pixels = gzip.decompress((FASHION / f"{name}-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((FASHION / f"{name}-labels-idx1-ubyte.gz").read_bytes())
        images = np.frombuffer(pixels, np.uint8, offset=16).reshape(-1, 28, 28)
        return labelled(images, np.frombuffer(labels, np.uint8, offset=8), CLOTHES, split)

    return part("train", "train"), part("t10k", "test")


def glyphs(path: Path) -> tuple[LabelledImages, LabelledImages]:
    """A tenth of the type families are test images."""
    file = np.load(path)
    families = np.unique(file["family"])
    np.random.default_rng(0).shuffle(families)
    test = np.isin(file["family"], families[: len(families) // 10])
    images, labels, names = file["images"], file["labels"], file["class_names"]
    return tuple(
        labelled(images[rows], labels[rows], names, split)
        for rows, split in ((~test, "train"), (test, "test"))
    )


def tiles(images: np.ndarray) -> np.ndarray:
    """(n, h, w, 1) to one picture, `WIDE` images to a row."""
    n, h, w, _ = images.shape
    down = -(-n // WIDE)
    padded = np.zeros((down * WIDE, h, w), np.uint8)
    padded[:n] = images[..., 0]
    rows = padded.reshape(down, WIDE, h, w).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(rows.reshape(down * h, WIDE * w))


def untiled(picture: np.ndarray, like: np.ndarray) -> np.ndarray:
    n, h, w, _ = like.shape
    rows = picture.reshape(-1, h, WIDE, w).transpose(0, 2, 1, 3)
    return rows.reshape(-1, h, w, 1)[:n]


def rgb(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.repeat(picture[..., None], 3, axis=2))


PEERS: dict[str, Callable[[np.ndarray], bytes]] = {
    "PNG": lambda picture: imagecodecs.png_encode(picture, level=9),
    "WebP": lambda picture: imagecodecs.webp_encode(rgb(picture), lossless=True, method=6),
    "JPEG XL": lambda picture: imagecodecs.jpegxl_encode(picture, lossless=True, effort=9),
}


def interval(ours: np.ndarray, theirs: np.ndarray, seed: int) -> list[float]:
    """Of the saved share of all bytes: the middle 95 % of a bootstrap over the images."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
    saved = 1 - ours[rows].sum(axis=1) / theirs[rows].sum(axis=1)
    return [round(float(each), 4) for each in np.percentile(saved, (2.5, 97.5))]


def lossless(name: str, coder: ImageCoder, test: LabelledImages, singles: int, seed: int):
    """Rows of sizes: bits per value of whole files."""
    images, labels = test.images, test.labels
    values = images[0].size
    started = time.process_time()
    made = compress(coder, images, labels, verify=False)
    encoding = time.process_time() - started
    order = np.random.default_rng(seed).permutation(len(images))
    shuffled = compress(coder, images[order], labels[order], verify=False)
    again = decompress(shuffled.content, coder)
    equal = bool((again[0] == images[order]).all() and (again[1] == labels[order]).all())
    started = time.process_time()
    equal &= bool((decompress(made.content, coder)[0] == images).all())
    decoding = time.process_time() - started
    alone = np.array(
        [
            len(compress(coder, images[i : i + 1], labels[i : i + 1], verify=False).content)
            for i in range(singles)
        ]
    )
    row = {
        "data": name,
        "what": "lossless",
        "coder": f"vaeaug, {coder.latents}",
        "n": len(images),
        "together": made.bits_per_value,
        "shuffled": shuffled.bits_per_value,
        "alone": float(8 * alone.mean() / values),
        "with_model": 8 * (len(made.content) + coder.n_bytes) / images.size,
        "model_bytes": coder.n_bytes,
        "equal": equal,
        "seconds_per_1000": [1000 * t / len(images) for t in (encoding, decoding)],
        "notes": coder.notes,
    }
    yield row
    picture = tiles(images)
    for peer, encode in PEERS.items():
        theirs = np.array([len(encode(tiles_of_one(images[i]))) for i in range(singles)])
        together = 8 * len(encode(picture)) / images.size
        yield {
            "data": name,
            "what": "lossless",
            "coder": peer,
            "n": len(images),
            "together": together,
            "alone": float(8 * theirs.mean() / values),
            "ours_saves_together": 1 - made.bits_per_value / together,
            "ours_saves_alone": 1 - alone.sum() / theirs.sum(),
            "ours_saves_alone_95": interval(alone, theirs, seed),
        }


def tiles_of_one(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., 0])


def psnr(restored: np.ndarray, images: np.ndarray) -> float:
    """dB, of the squared error of all images together."""
    return float(10 * np.log10(255**2 / np.square(restored.astype(float) - images).mean()))


def lossy(name: str, coder: LossyCoder, rounding: ImageCoder, test: LabelledImages):
    """Rows of rates and distortions, and at some rates how far ahead ours is."""
    images, labels = test.images, test.labels
    picture = tiles(images)
    curves: dict[str, list[tuple[float, float]]] = {
        peer: [] for peer in ("vaeaug, latents", "vaeaug, rounded", "JPEG XL", "WebP")
    }
    for quality in range(1, len(QUALITIES) + 1):
        made = coder.compress(images, labels, quality=quality)
        restored, _ = coder.decompress(made.content)
        curves["vaeaug, latents"].append((made.bits_per_value, psnr(restored, images)))
    for levels in LEVELS:
        made = compress(rounding, images, labels, levels=levels, verify=False)
        restored, _ = decompress(made.content, rounding)
        curves["vaeaug, rounded"].append((made.bits_per_value, psnr(restored, images)))
    for distance in DISTANCES:
        content = imagecodecs.jpegxl_encode(picture, distance=distance, effort=9)
        restored = untiled(imagecodecs.jpegxl_decode(content), images)
        curves["JPEG XL"].append((8 * len(content) / images.size, psnr(restored, images)))
    for level in WEBP:
        content = imagecodecs.webp_encode(rgb(picture), level=level, lossless=False, method=6)
        restored = untiled(imagecodecs.webp_decode(content)[..., :3].mean(axis=2), images)
        curves["WebP"].append((8 * len(content) / images.size, psnr(restored, images)))
    for peer, points in curves.items():
        yield {
            "data": name,
            "what": "lossy",
            "coder": peer,
            "n": len(images),
            "rate_psnr": [[round(rate, 4), round(value, 3)] for rate, value in sorted(points)],
            "model_bytes": {
                "vaeaug, latents": coder.n_bytes,
                "vaeaug, rounded": rounding.n_bytes,
            }.get(peer, 0),
        }

    def at(peer: str, rate: float) -> float | None:
        rates, values = np.array(sorted(curves[peer])).T
        return float(np.interp(rate, rates, values)) if rates[0] <= rate <= rates[-1] else None

    for rate in RATES:
        found = {peer: at(peer, rate) for peer in curves}
        yield {"data": name, "what": "psnr at a rate", "bits_per_value": rate, **found}


def generator_of(name: str, train: LabelledImages, folder: Path, small: bool):
    if not (folder / "config.json").exists():
        config = vaeaug.load_config(None).changed(**(SMALL if small else GENERATORS[name]))
        vaeaug.fit(train, config, device="cpu").save(folder)
    return vaeaug.load(folder)


def draw(results: Path, picture: Path) -> None:
    """Rate-distortion curves of the last measurement of each data set."""
    from matplotlib.figure import Figure

    rows = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    curves = {(row["data"], row["coder"]): row for row in rows if row["what"] == "lossy"}
    names = list(dict.fromkeys(name for name, _ in curves))
    figure = Figure(figsize=(5 * len(names), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for (data, coder), row in curves.items():
            if data == name:
                rates, values = np.array(row["rate_psnr"]).T
                axes.plot(rates, values, marker="o", markersize=3, label=coder)
        axes.set(title=name, xlabel="bits a pixel, all bytes", ylabel="PSNR, dB", xlim=(0, 1.6))
        axes.set_ylim(14, 36)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(picture, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["fashion"], choices=list(GENERATORS))
    parser.add_argument("--glyphs", type=Path, help="glyphs.npz, see benchmarks/usefulness")
    parser.add_argument("--out", type=Path, default=Path("runs/compression"))
    parser.add_argument("--draw", type=Path, help="draw what RESULTS has, and measure nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--n", type=int, default=512, help="test images")
    parser.add_argument("--singles", type=int, default=100, help="of them as files of their own")
    parser.add_argument("--steps", type=int, help="training steps of the coder")
    parser.add_argument("--units", type=int, default=160, help="of the coder's hidden layers")
    parser.add_argument("--depth", type=int, default=2, help="residual layers of the coder")
    parser.add_argument("--device", default="cpu", help="where the coder is trained")
    parser.add_argument("--latents", nargs="+", default=["none"])
    parser.add_argument("--parts", nargs="+", default=["lossless", "lossy"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="digits, to see that it runs")
    options = parser.parse_args()
    if options.draw:
        draw(options.results, options.draw)
        return
    torch.set_num_threads(1)
    names = ["digits"] if options.small else options.data
    for name in names:
        if name == "digits":
            train, test = vaeaug.read("digits"), vaeaug.read("digits", split="test")
        else:
            train, test = fashion() if name == "fashion" else glyphs(options.glyphs)
        n = 48 if options.small else options.n
        chosen = np.random.default_rng(options.seed).permutation(len(test))[:n]
        test = labelled(test.images[chosen], test.labels[chosen], test.class_names, "test")
        folder = options.out / name
        folder.mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, Any]] = []
        if "lossless" in options.parts:
            for latents in options.latents:
                path = folder / f"coder-{latents}.safetensors"
                generator = None
                if latents != "none":
                    generator = generator_of(name, train, folder / "generator", options.small)
                if not path.exists():
                    steps = 60 if options.small else options.steps or STEPS[name]
                    vaeaug.fit_coder(
                        train,
                        generator,
                        latents=latents,
                        steps=steps,
                        units=options.units,
                        depth=options.depth,
                        seed=options.seed,
                        device=options.device,
                    ).save(path)
                coder = ImageCoder.load(path, generator)
                rows += lossless(name, coder, test, min(options.singles, n), options.seed)
        if "lossy" in options.parts:
            generator = generator_of(name, train, folder / "generator", options.small)
            path = folder / "lossy.safetensors"
            if not path.exists():
                vaeaug.fit_lossy_coder(train, generator, seed=options.seed).save(path)
            coder = LossyCoder.load(path, generator)
            path = folder / "coder-rounded.safetensors"
            if not path.exists():
                steps = 60 if options.small else ROUNDED_STEPS
                vaeaug.fit_coder(train, steps=steps, rounded=1.0, seed=options.seed).save(path)
            rows += lossy(name, coder, ImageCoder.load(path), test)
        machine = {"seed": options.seed, "imagecodecs": imagecodecs.__version__}
        machine |= {"python": platform.python_version(), "numpy": np.__version__}
        with open(options.results, "a", encoding="utf-8") as file:
            for row in rows:
                line = json.dumps(row | machine)
                print(line, flush=True)
                file.write(line + "\n")


if __name__ == "__main__":
    main()
