"""One small, valid input of every kind that is read, and how each is read."""

import csv
import gzip
import hashlib
import json
import shutil
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import h5py
import numpy as np
from PIL import Image

import vaeaug
from vaeaug.data import read_pool
from vaeaug.job.applications import decode_from, encode_to
from vaeaug.job.finished import report
from vaeaug.job.folder import read_run
from vaeaug.shards import Manifest, ShardDataset

N, SIDE = 24, 8
NAMES = ("cat", "dog", "owl")
# A job of about a second: the damage counts here, not the samples.
TINY = {
    "model.width": 8,
    "model.latent_dim": 4,
    "model.class_embedding": 4,
    "training.steps": 6,
    "training.adapt_steps": 4,
    "training.batch_size": 8,
    "training.checkpoint_every": 2,
    "training.eval_every": 2,
    "screening.folds": 2,
    "screening.classifier_steps": 2,
    "screening.near_copy_factor": 0.0,
    "screening.duplicate_factor": 0.0,
    "recipe.min_label_probability": 0.0,
    "shards.max_bytes": 2**16,
}


@dataclass(frozen=True)
class Source:
    """A kind of input.

    Attributes:
        make: Writes one into an empty folder, and gives the path to read.
        read: Reads it, and gives a digest of what it took it for.
        victims: Patterns of the files that are damaged, below the folder.
        judges: Whether `read` is a judge, whose digest "ok" of a damaged input is a miss.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], str]
    victims: tuple[str, ...]
    judges: bool = False


def pixels(channels: int = 0) -> np.ndarray:
    """(N, SIDE, SIDE) or (N, SIDE, SIDE, channels) uint8."""
    shape = (N, SIDE, SIDE, channels) if channels else (N, SIDE, SIDE)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def labels() -> np.ndarray:
    """(N,) int64, all classes alike."""
    return np.arange(N) % len(NAMES)


def _digest_of_read(path: Path) -> str:
    data = vaeaug.read(path, workers=0)
    return f"{data.fingerprint} {data.class_names}"


def _digest_of_pool(path: Path, like: Path) -> str:
    pool = read_pool(path, like=vaeaug.read(like, workers=0), workers=0)
    return hashlib.sha256(np.ascontiguousarray(pool).tobytes()).hexdigest()


# -- Arrays ------------------------------------------------------------------------------------


def _npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", images=pixels(), labels=labels())
    return folder / "a.npz"


def _npz_deflated(folder: Path) -> Path:
    names = {"train_images": pixels(3), "train_labels": labels()[:, None]}
    np.savez_compressed(folder / "a.npz", **names)
    return folder / "a.npz"


def _npy(folder: Path) -> Path:
    np.save(folder / "pool.npy", pixels())
    _npz(folder)
    return folder / "pool.npy"


def _hdf5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["images"] = pixels()
        file["labels"] = labels()
        # Of variable length, as h5py writes a list of texts: in a heap without a checksum.
        file.attrs["class_names"] = list(NAMES)
    return folder / "a.h5"


def _hdf5_texts(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w", libver="latest") as file:
        group = file.create_group("train")
        group["images"] = pixels(3)
        group["labels"] = np.array([NAMES[c] for c in labels()], dtype=h5py.string_dtype())
        file["notes"] = h5py.SoftLink("/train/labels")
    return folder / "a.h5"


def _hdf5_chunked(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        how = {"chunks": (4, SIDE, SIDE), "compression": "gzip", "shuffle": True}
        file.create_dataset("x_train", data=pixels(), **how)
        file.create_dataset("y_train", data=labels(), chunks=(5,), maxshape=(None,))
    return folder / "a.h5"


def _idx(folder: Path, zipped: bool) -> Path:
    for name, array, rank in (("images", pixels(), 3), ("labels", labels(), 1)):
        head = (0x0800 + rank).to_bytes(4, "big")
        head += b"".join(n.to_bytes(4, "big") for n in array.shape)
        data = head + array.astype(np.uint8).tobytes()
        if zipped:
            path = folder / f"train-{name}-idx{rank}-ubyte.gz"
            path.write_bytes(gzip.compress(data, mtime=0))
        else:
            (folder / f"train-{name}-idx{rank}-ubyte").write_bytes(data)
    return folder


# -- Image files -------------------------------------------------------------------------------


def _images(folder: Path, ending: str, channels: int) -> Path:
    for i, (image, c) in enumerate(zip(pixels(channels), labels(), strict=True)):
        (folder / NAMES[c]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / NAMES[c] / f"{i:02d}.{ending}")
    return folder


def _clips(folder: Path, ending: str) -> Path:
    rng = np.random.default_rng(0)
    clips = np.repeat(rng.integers(0, 256, (N, 5, 4, 4, 3), dtype=np.uint8), 4, axis=2)
    for i, (clip, c) in enumerate(zip(np.repeat(clips, 4, axis=3), labels(), strict=True)):
        (folder / NAMES[c]).mkdir(exist_ok=True)
        path = folder / NAMES[c] / f"{i:02d}.{ending}"
        if ending == "gif":
            first, *others = map(Image.fromarray, clip)
            first.save(path, save_all=True, append_images=others, duration=80)
            continue
        codec = cv2.VideoWriter.fourcc(*{"avi": "MJPG", "mp4": "mp4v"}[ending])
        writer = cv2.VideoWriter(str(path), codec, 25.0, (16, 16))
        for frame in clip:
            writer.write(frame)
        writer.release()
    return folder


def _digest_of_clips(path: Path) -> str:
    data = vaeaug.read(path, frames=4, workers=0)
    return f"{data.fingerprint} {data.class_names}"


def _flat_images(folder: Path) -> list[str]:
    names = [f"{i:02d}.png" for i in range(N)]
    for name, image in zip(names, pixels(), strict=True):
        Image.fromarray(image).save(folder / name)
    return names


def _table(folder: Path) -> Path:
    with open(folder / "a.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        writer.writerows(
            (name, NAMES[c], "train")
            for name, c in zip(_flat_images(folder), labels(), strict=True)
        )
    return folder / "a.csv"


def _metadata(folder: Path, ending: str) -> Path:
    rows = [
        {"file_name": name, "label": int(c)}
        for name, c in zip(_flat_images(folder), labels(), strict=True)
    ]
    path = folder / f"metadata.{ending}"
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == "csv":
        text = "".join(f"{row['file_name']},{row['label']}\n" for row in rows)
        path.write_text("file_name,label\n" + text)
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    (folder / "classes.json").write_text(json.dumps(list(NAMES)))
    return folder


def _tar(folder: Path) -> Path:
    with tarfile.open(folder / "a.tar", "w") as archive:
        for i, (image, c) in enumerate(zip(pixels(), labels(), strict=True)):
            png = BytesIO()
            Image.fromarray(image).save(png, "PNG")
            document = json.dumps({"label": int(c), "class_name": NAMES[c]}).encode()
            for ending, data in (("png", png.getvalue()), ("json", document)):
                member = tarfile.TarInfo(f"{i:02d}.{ending}")
                member.size = len(data)
                archive.addfile(member, BytesIO(data))
    return folder / "a.tar"


def _saved(folder: Path) -> Path:
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        {
            "image": datasets.Array2D((SIDE, SIDE), "uint8"),
            "label": datasets.ClassLabel(names=list(NAMES)),
        }
    )
    columns = {"image": list(pixels()), "label": labels().tolist()}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder / "a"))
    return folder / "a"


# -- Configurations and runs -------------------------------------------------------------------


def _config(folder: Path) -> Path:
    text = (
        "seed: 3\nmodel:\n  width: 16\n  beta: 0.5\ntraining: {steps: 100, batch_size: 32}\n"
        "plan:\n  sampling_strategy: {cat: 30, 1: 40}\n  min_class_count: 4\n"
        'data: {split: train, size: [8, 8], keys: {images: x, labels: "y"}}\n'
    )
    (folder / "a.yaml").write_text(text)
    return folder / "a.yaml"


def _digest_of_config(path: Path) -> str:
    return vaeaug.load_config(path).sha256


def _data() -> vaeaug.LabelledImages:
    return vaeaug.LabelledImages(
        images=pixels()[..., None],
        labels=labels(),
        class_names=NAMES,
        value_range=(0, 255),
        split="train",
        source="squares",
    )


def _run(folder: Path) -> Path:
    """A finished run; made once, and copied after that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = vaeaug.AugmentConfig().changed(**TINY)
        vaeaug.augment(_data(), folder / "run", config, device="cpu")
    return folder / "run"


def _unfinished(folder: Path) -> Path:
    run = _run(folder)
    (run / "manifest.json").unlink()
    return run


def _merged(folder: Path) -> Path:
    from vaeaug.merging import write_merged

    run = _run(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_merged(_data(), run, folder / "a.h5")
    shutil.rmtree(run)
    return folder / "a.h5"


def _digest_of_verify(path: Path) -> str:
    report = vaeaug.verify(path)
    # A report that cannot be shown is none.
    str(report), report.to_json().encode(), str(report).encode()
    return "ok" if report.ok else "reported"


def _digest_of_merge(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = vaeaug.merge(_data(), path)
    digest = hashlib.sha256(str(merged.class_names).encode())
    for image in merged.images_at(np.arange(len(merged))):
        digest.update(image.numpy().tobytes())
    return digest.hexdigest()


def _digest_of_shards(path: Path) -> str:
    dataset = ShardDataset(Manifest.load(path))
    images = dataset.images_at(np.arange(len(dataset)))
    return hashlib.sha256(images.tobytes() + dataset.labels.tobytes()).hexdigest()


def _digest_of_load(path: Path) -> str:
    generator = vaeaug.load(path)
    images = generator.sample(1, 2, seed=0).images
    return generator.sha256 + hashlib.sha256(images.tobytes()).hexdigest()


def _digest_of_report(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report(_data(), path)
    return hashlib.sha256((path / "report.html").read_bytes()).hexdigest()


def _latents(folder: Path) -> Path:
    run = _run(folder)
    generator = vaeaug.load(run)
    encode_to(folder / "z.h5", generator, _data())
    return folder / "z.h5"


def _digest_of_latents(path: Path) -> str:
    images, labels = decode_from(path, vaeaug.load(path.parent / "run"))
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def _digest_of_rest(path: Path) -> str:
    """What a run is resumed from: its description and the classes that are whole."""
    run = read_run(path)
    config = vaeaug.config.make_config(run["config"], where=str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = vaeaug.augment(_data(), path, config, device="cpu")
    return hashlib.sha256(result.manifest.to_bytes()).hexdigest()


SOURCES: dict[str, Source] = {
    "npz": Source(_npz, _digest_of_read, ("*.npz",)),
    "npz, deflated": Source(_npz_deflated, _digest_of_read, ("*.npz",)),
    "npy": Source(_npy, lambda path: _digest_of_pool(path, path.parent / "a.npz"), ("*.npy",)),
    "hdf5": Source(_hdf5, _digest_of_read, ("*.h5",)),
    "hdf5, texts": Source(_hdf5_texts, _digest_of_read, ("*.h5",)),
    "hdf5, chunks": Source(_hdf5_chunked, _digest_of_read, ("*.h5",)),
    "merged": Source(_merged, _digest_of_read, ("*.h5",)),
    "idx": Source(lambda f: _idx(f, zipped=False), _digest_of_read, ("*ubyte",)),
    "idx.gz": Source(lambda f: _idx(f, zipped=True), _digest_of_read, ("*.gz",)),
    "png": Source(lambda f: _images(f, "png", 3), _digest_of_read, ("*/*.png",)),
    "jpg": Source(lambda f: _images(f, "jpg", 3), _digest_of_read, ("*/*.jpg",)),
    "tif": Source(lambda f: _images(f, "tif", 0), _digest_of_read, ("*/*.tif",)),
    "gif": Source(lambda f: _clips(f, "gif"), _digest_of_clips, ("*/*.gif",)),
    "avi": Source(lambda f: _clips(f, "avi"), _digest_of_clips, ("*/*.avi",)),
    "mp4": Source(lambda f: _clips(f, "mp4"), _digest_of_clips, ("*/*.mp4",)),
    "csv": Source(_table, _digest_of_read, ("*.csv",)),
    "metadata.csv": Source(
        lambda f: _metadata(f, "csv"), _digest_of_read, ("metadata.*", "classes.json")
    ),
    "metadata.jsonl": Source(
        lambda f: _metadata(f, "jsonl"), _digest_of_read, ("metadata.*", "classes.json")
    ),
    "metadata.parquet": Source(lambda f: _metadata(f, "parquet"), _digest_of_read, ("metadata.*",)),
    "tar": Source(_tar, _digest_of_read, ("*.tar",)),
    "saved": Source(_saved, _digest_of_read, ("a/*",)),
    "yaml": Source(_config, _digest_of_config, ("*.yaml",)),
    "run: verify": Source(
        _run,
        _digest_of_verify,
        ("run/shards/*", "run/model/*", "run/manifest.json", "run/run.json"),
        judges=True,
    ),
    "run: shards": Source(_run, _digest_of_shards, ("run/shards/*", "run/manifest.json")),
    "run: merge": Source(_run, _digest_of_merge, ("run/shards/*", "run/manifest.json")),
    "run: load": Source(_run, _digest_of_load, ("run/model/*",)),
    "run: report": Source(
        _run,
        _digest_of_report,
        ("run/manifest.json", "run/*.json", "run/metrics.jsonl", "run/*.png"),
    ),
    "latents": Source(_latents, _digest_of_latents, ("z.h5",)),
    "run: resume": Source(
        _unfinished, _digest_of_rest, ("run/run.json", "run/checkpoints/*", "run/diagnostics.json")
    ),
}
