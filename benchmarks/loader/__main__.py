"""What synthetic data costs in a data loader, beside what users have there already.

Transforms: microseconds per image, ours beside albumentations' and torchvision's. Loaders: images
per second of a shuffled epoch of merged data, beside the same images in a `TensorDataset`, an
`ImageFolder` of PNG files, a WebDataset and a chunked HDF5 file, everything in the page cache.

    apt-get install dataset-fashion-mnist
    python -m benchmarks.loader            # nothing else may be running
    python -m benchmarks.loader --write    # and keep the rates in benchmarks/results/loader.json
"""

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import vaeaug
from vaeaug.integrations import LatentAugment, SyntheticPool, VAEMix
from vaeaug.integrations.albumentations import LatentAugment as AlbumentationsLatent

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
RESULTS = Path(__file__).parent.parent / "results" / "loader.json"
BATCH = 128
SHARE = 0.3


class OneByOne(Dataset):
    """An HDF5 file read sample by sample, as most loaders of HDF5 files do."""

    def __init__(self, path: Path) -> None:
        self.file = h5py.File(path, "r")
        self.images, self.labels = self.file["images"], self.file["labels"][:]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.images[i]).movedim(-1, 0), int(self.labels[i])


def best_of(work: Callable[[], int], repeats: int) -> float:
    """Seconds per item, the best of a few runs after one to warm up."""
    work()
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        n = work()
        best = min(best, (time.perf_counter() - begin) / n)
    return best


def make_run(folder: Path, n: int) -> tuple[vaeaug.LabelledImages, Path]:
    """Real images and a finished run: the generator is hardly trained, the cost is the same."""
    whole = vaeaug.read(FASHION_MNIST)
    data = whole.imbalanced([n // 10] * 10, seed=0)
    out = folder / "run"
    config = vaeaug.load_config(
        None,
        [
            "training.steps=60",
            "training.adapt_steps=10",
            "screening.classifier_steps=60",
            "recipe.min_label_probability=0",
            f"plan.share={SHARE}",
        ],
    )
    vaeaug.augment(data, out, config)
    return data, out


def transforms(data: vaeaug.LabelledImages, out: Path, repeats: int) -> list[dict]:
    """Microseconds per image of every transform, always applied."""
    images, labels = data.images[:BATCH], data.labels[:BATCH].tolist()
    tensors = torch.from_numpy(images).movedim(-1, 1).contiguous()
    floats, indices = tensors / 255, torch.tensor(labels)
    generator = vaeaug.load(out)

    def albumentations(transform: A.BasicTransform, n: int) -> Callable[[], int]:
        def work() -> int:
            for i in range(n):
                transform(image=images[i % BATCH], label=labels[i % BATCH])
            return n

        return work

    def one_by_one(transform: Callable, n: int, *, labelled: bool) -> Callable[[], int]:
        def work() -> int:
            for i in range(n):
                row = i % BATCH
                transform(tensors[row], labels[row]) if labelled else transform(tensors[row])
            return n

        return work

    def batches(transform: Callable, n: int) -> Callable[[], int]:
        def work() -> int:
            for _ in range(n):
                transform(floats, indices)
            return n * BATCH

        return work

    affine = v2.RandomAffine(15, translate=(0.1, 0.1), scale=(0.9, 1.1))
    rows = {
        "albumentations NoOp": albumentations(A.NoOp(p=1), 20000),
        "albumentations HorizontalFlip": albumentations(A.HorizontalFlip(p=1), 20000),
        "albumentations ElasticTransform": albumentations(A.ElasticTransform(p=1), 3000),
        "vaeaug SyntheticPool": albumentations(SyntheticPool(out, p=1), 20000),
        "vaeaug LatentAugment (albumentations)": albumentations(
            AlbumentationsLatent(out, p=1), 200
        ),
        "torchvision v2.ElasticTransform": one_by_one(v2.ElasticTransform(), 300, labelled=False),
        "torchvision v2.RandomAffine": one_by_one(affine, 1000, labelled=False),
        "vaeaug LatentAugment": one_by_one(LatentAugment(generator, p=1), 200, labelled=True),
        "torchvision v2.MixUp, batches": batches(v2.MixUp(num_classes=10), 50),
        "torchvision v2.CutMix, batches": batches(v2.CutMix(num_classes=10), 50),
        "vaeaug LatentAugment, batches": batches(LatentAugment(generator, p=1), 5),
        f"vaeaug VAEMix {SHARE:.0%}, batches": batches(VAEMix(generator, share=SHARE), 5),
    }
    return [
        {"transform": name, "microseconds": 1e6 * best_of(work, repeats)}
        for name, work in rows.items()
    ]


def loaders(
    data: vaeaug.LabelledImages, out: Path, folder: Path, repeats: int, workers: int
) -> list[dict]:
    """Images per second of a shuffled epoch, and of the same images in other places."""
    merged = vaeaug.merge(data, out, SHARE)
    images = torch.stack(merged.images_at(np.arange(len(merged))))
    in_memory = TensorDataset(images, torch.from_numpy(merged.labels))
    png, tar = folder / "png", folder / "all.tar"
    vaeaug.export_dataset(out, png, format="imagefolder", real=data, share=SHARE)
    vaeaug.export_dataset(out, tar, real=data, share=SHARE)
    files = {}
    for name, options in (
        ("chunks of 64, gzip", {"chunks": (64, *data.image_shape), "compression": "gzip"}),
        ("chunks of 64", {"chunks": (64, *data.image_shape)}),
        ("contiguous", {}),
    ):
        path = folder / f"{len(files)}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("images", data=images.movedim(1, -1).numpy(), **options)
            file["labels"] = merged.labels
        files[name] = path
    to_tensor = v2.Compose([v2.Grayscale(), v2.PILToTensor()])

    def epoch(dataset: Dataset, limit: int | None = None, **options: object) -> Callable[[], int]:
        loader = DataLoader(dataset, batch_size=BATCH, num_workers=workers, **options)

        def work() -> int:
            n = 0
            for batch in loader:
                n += len(batch[0])
                if limit is not None and n >= limit:
                    break
            return n

        return work

    random = {"shuffle": True}
    slow = 4 * BATCH * 4  # of the slow ones a part of an epoch is enough
    rows = {
        "TensorDataset": epoch(in_memory, **random),
        "vaeaug merged": epoch(merged, **random),
        "vaeaug merged, BalancedSampler": epoch(merged, sampler=vaeaug.BalancedSampler(merged)),
        "vaeaug merged, details and collate": epoch(
            vaeaug.merge(data, out, SHARE, details=True), collate_fn=vaeaug.collate, **random
        ),
        "vaeaug shards alone": epoch(vaeaug.ShardDataset(out), **random),
        "ImageFolder of PNG": epoch(ImageFolder(png, to_tensor), 4 * slow, **random),
        "WebDataset of PNG, buffer of 1000": epoch(webdataset(tar, to_tensor), 4 * slow),
        **{
            f"HDF5 {name}, random reads": epoch(OneByOne(path), slow, **random)
            for name, path in files.items()
        },
    }
    return [
        {"loader": name, "images_per_second": 1 / best_of(work, repeats)}
        for name, work in rows.items()
    ]


def webdataset(tar: Path, to_tensor: Callable) -> Dataset:
    """The same images as WebDataset users read them: a shuffle buffer over a sequential tar."""
    import webdataset as wds

    def item(sample: tuple) -> tuple:
        return to_tensor(sample[0]), int(sample[1])

    return (
        wds.WebDataset(str(tar), shardshuffle=False, empty_check=False)
        .shuffle(1000)
        .decode("pil")
        .to_tuple("png", "cls")
        .map(item)
    )


def main(command_line: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20000, help="real ones")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args(command_line)
    warnings.simplefilter("ignore", UserWarning)
    torch.set_num_threads(1)  # as in a worker
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, out = make_run(folder, arguments.images)
        results = {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}",
            "workers": arguments.workers,
            "images": arguments.images,
            "transforms": transforms(data, out, arguments.repeats),
            "loaders": loaders(data, out, folder, arguments.repeats, arguments.workers),
        }
    elastic = next(
        row["microseconds"] for row in results["transforms"] if "ns ElasticT" in row["transform"]
    )
    for row in results["transforms"]:
        microseconds = row["microseconds"]
        ratio = microseconds / elastic
        print(f"{row['transform']:42}{microseconds:10.1f} us{ratio:8.2f} of ElasticTransform")
    tensors = results["loaders"][0]["images_per_second"]
    for row in results["loaders"]:
        rate = row["images_per_second"]
        print(f"{row['loader']:42}{rate:10,.0f} /s{rate / tensors:8.2f} of TensorDataset")
    if arguments.write:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
