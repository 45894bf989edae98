"""Draw several datasets from one trained generator, check them, and export them.

A generator is trained once (or taken from a folder). Each seed gives another dataset in a run
folder of its own, always the same one for the same seed. Every byte is verified, the samples are
exported, and the files are read back and counted.

    python pipelines/batch_generate.py --seeds 0 1 2 --formats npz imagefolder webdataset

The default takes a minute on one CPU core. The format webdataset needs
`pip install 'vaeaug[webdataset]'`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import vaeaug


def main(command_line: Sequence[str] | None = None) -> None:
    """Train or load, generate, verify, export, read back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="anything vaeaug.read takes")
    parser.add_argument("--out", type=Path, default=Path("runs/batches"))
    parser.add_argument("--config", default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--generator", type=Path, help="folder of one that learned from this data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--formats",
        nargs="+",
        default=["npz", "imagefolder"],
        choices=["npz", "imagefolder", "webdataset"],
    )
    arguments = parser.parse_args(command_line)

    config = vaeaug.load_config(arguments.config, arguments.set)
    data = vaeaug.read(arguments.data, split=config.data.split)
    if config.data.class_counts is not None:
        data = data.imbalanced(config.data.class_counts, seed=config.seed)
    folder = arguments.generator
    if folder is None:
        folder = arguments.out / "generator"
        # Interrupted and run again, training is resumed from its last checkpoint.
        vaeaug.fit(data, config, folder=arguments.out / "training").save(folder)

    # Fitted once and given to every dataset: its classifiers take longer than the drawing.
    screener = vaeaug.Screener(data, config.screening, seed=config.seed)
    for seed in arguments.seeds:
        out = arguments.out / f"seed-{seed}"
        # Screened against the real images: near-copies, duplicates and plainly wrong ones go.
        # The folder, not a generator in memory: one remembers the samplers that an earlier dataset
        # chose, and each dataset here is to depend on its own seed alone.
        result = vaeaug.generate(folder, data, out, config.changed(seed=seed), screener=screener)
        checked = vaeaug.verify(out)
        if not checked.ok:
            raise SystemExit(f"{out}: {checked.problems[0]}")
        print(f"{out}: {checked.n_images} samples in {checked.n_shards} shards, verified")
        for short in result.shortfalls:
            print(f"  {short}")

        for name in arguments.formats:
            ending = {"npz": ".npz", "imagefolder": "", "webdataset": ".tar"}[name]
            exported = vaeaug.export_dataset(
                out, arguments.out / f"{name}-{seed}{ending}", format=name, overwrite=True
            )
            # Other programs read these files without vaeaug; here they are read to count them.
            back = vaeaug.read(exported.path)
            if len(back) != checked.n_images or back.class_names != data.class_names:
                raise SystemExit(f"{exported.path}: expected {checked.n_images}, got {back}")
            print(f"  {exported.path}: {back.counts.tolist()}")
    # With the real images beside them, the same share of every class synthetic.
    merged = vaeaug.export_dataset(
        out, arguments.out / "merged.npz", real=data, share=0.2, overwrite=True
    )
    print(f"{merged.path}: {merged.n}, {merged.n_synthetic} of them synthetic")
    print("Does it help? vaeaug evaluate trains and tests on your data; see docs/evaluation.md.")


if __name__ == "__main__":
    main()
