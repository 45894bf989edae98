"""Small run folders for the tests, made from nothing but a seed.

``python tests/shards/example_run.py`` writes the archived version 1 run again. The archive is there
to show that old files are still read: write it again only together with a new format version.
"""

import argparse
from pathlib import Path

import numpy as np

from vaeaug.shards import ClassEntry, Manifest, ShardEntry, ShardProvenance, ShardWriter

ARCHIVE = Path(__file__).parent / "archives" / "v1"
CLASS_NAMES = ("ant", "bee", "çat")
COUNTS = (5, 3, 4)
SHAPES = {"NHWC": (4, 3, 2), "NLC": (6, 2), "NDHWC": (2, 3, 2, 1)}
PROVENANCE = ShardProvenance(
    model_sha256="a" * 64,
    config_sha256="b" * 64,
    data_fingerprint="c" * 64,
    run_seed=7,
    vaeaug_version="0.1.0",
)


def samples(label, n, *, layout="NHWC", dtype="uint8", n_latents=3, soft_labels=False, shape=None):
    """The arguments of ``append`` for ``n`` samples; a function of its arguments."""
    rng = np.random.default_rng([label, n])
    shape = (n, *(shape or SHAPES[layout]))
    if dtype == "uint8":
        images = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        images = rng.random(shape, dtype=np.float32)
    soft = rng.dirichlet(np.ones(len(CLASS_NAMES)), n).astype(np.float32) if soft_labels else None
    if soft is not None:
        # The largest probability is that of the label.
        rows, most = np.arange(n), soft.argmax(axis=1)
        soft[rows, most], soft[:, label] = soft[:, label].copy(), soft.max(axis=1)
    return {
        "images": images,
        "latents": rng.standard_normal((n, n_latents), dtype=np.float32),
        "source_index": rng.integers(-1, 50, n),
        "seed": rng.integers(0, 2**64, n, dtype=np.uint64),
        "weight": rng.random(n, dtype=np.float32),
        "p_label": rng.random(n, dtype=np.float32),
        "nn_distance": rng.random(n, dtype=np.float32),
        "nn_index": rng.integers(0, 50, n),
        "soft_labels": soft,
    }


def writer(
    folder, label, *, layout="NHWC", dtype="uint8", n_latents=3, class_names=CLASS_NAMES, **more
):
    """A ``ShardWriter`` with the usual arguments of these tests."""
    more.setdefault("image_shape", SHAPES[layout])
    return ShardWriter(
        folder,
        label=label,
        class_names=class_names,
        sampler="posterior",
        layout=layout,
        dtype=dtype,
        value_range=(0, 255) if dtype == "uint8" else (0, 1),
        n_latents=n_latents,
        provenance=PROVENANCE,
        **more,
    )


def make_run(
    folder, *, counts=COUNTS, layout="NHWC", dtype="uint8", soft_labels=False, shape=None, **more
):
    """Write a whole run: the shards of every class with samples, then the manifest.

    Returns:
        The manifest.
    """
    folder = Path(folder)
    shape = shape or SHAPES[layout]
    names = more.pop("class_names", CLASS_NAMES)
    entries: list[ShardEntry] = []
    for label, n in enumerate(counts):
        if n == 0:
            continue
        more["first_index"] = len(entries)
        with writer(
            folder, label, layout=layout, dtype=dtype, image_shape=shape, class_names=names, **more
        ) as shard:
            shard.append(
                **samples(
                    label, n, layout=layout, dtype=dtype, soft_labels=soft_labels, shape=shape
                )
            )
        entries += shard.entries
    classes = [
        ClassEntry(
            label=label,
            name=names[label],
            real=10,
            target_count=10 + n,
            n_synthetic=n,
            accepted=n,
            rejected={"near copy": 1},
            candidates=n + 1,
        )
        for label, n in enumerate(counts)
    ]
    return Manifest(
        class_names=tuple(names),
        image_shape=shape,
        dtype=dtype,
        value_range=(0.0, 255.0) if dtype == "uint8" else (0.0, 1.0),
        layout=layout,
        data_fingerprint=PROVENANCE.data_fingerprint,
        model_sha256=PROVENANCE.model_sha256,
        config_sha256=PROVENANCE.config_sha256,
        run_seed=PROVENANCE.run_seed,
        versions={"vaeaug": "0.1.0"},
        real_counts=(10,) * len(names),
        classes=tuple(classes),
        shards=tuple(entries),
    ).save(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=ARCHIVE)
    print(f"wrote {make_run(parser.parse_args().to, soft_labels=True)}")
