"""Images per second for training, sampling, screening, writing and reading, and peak memory.

Every rate stands beside a peer or a limit measured in the same run: training and sampling beside
the bare network in a loop, writing beside `numpy.save`, reading beside a plain in-memory array and
beside h5py's own reading of the same file.

    python -m benchmarks.speed                 # nothing else may be running
    python -m benchmarks.speed --memory 200000 # peak memory of generating so many 28 x 28 samples
"""

import argparse
import functools
import itertools
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

import vaeaug
from vaeaug.job.writing import WrittenClasses, write_classes
from vaeaug.memory import kept_memory
from vaeaug.models import CVAE, scale_images
from vaeaug.screening import Screened
from vaeaug.shards import ShardProvenance
from vaeaug.training import resolve_device, train

PARTS = ("training", "sampling", "shards")


def images_of(
    n: int, n_classes: int = 10, shape: tuple[int, int, int] = (28, 28, 1)
) -> vaeaug.LabelledImages:
    """Smooth random images: the cost does not depend on what they show."""
    height, width, channels = shape
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((n, channels, 4, 4), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return vaeaug.LabelledImages(
        images=(fine * 255).byte().movedim(1, -1).contiguous().numpy(),
        labels=np.arange(n) % n_classes,
        class_names=tuple(map(str, range(n_classes))),
        value_range=(0.0, 255.0),
    )


def rate(work: Callable[[], int], *, repeats: int = 3) -> float:
    """Best images per second of a few runs, after one to warm up."""
    work()
    best = 0.0
    for _ in range(repeats):
        begin = time.perf_counter()
        n = work()
        best = max(best, n / (time.perf_counter() - begin))
    return best


def rates(
    *works: Callable[[], int], repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Best images per second of each, taken in turns: a busy machine slows all of them alike."""
    best = [0.0] * len(works)
    for turn in range(repeats + 1):
        for place, work in enumerate(works):
            begin = clock()
            n = work()
            if turn:  # the first one warms up
                best[place] = max(best[place], n / (clock() - begin))
    return best


Row = Callable[[str, float, float, str], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--memory", type=int, default=0, help="samples to generate")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--out", type=Path, help="JSON lines are appended here")
    arguments = parser.parse_args()
    if arguments.memory:
        memory(arguments.memory)
    else:
        speed(resolve_device(arguments.device), arguments.parts, arguments.out)


def speed(device: torch.device, parts: Sequence[str], out: Path | None) -> None:
    is_cuda = device.type == "cuda"
    name_of_device = torch.cuda.get_device_name(device) if is_cuda else device.type
    print(f"device {name_of_device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':28}{'images/s':>12}{'peer':>12}  ratio  peer is")

    def row(name: str, ours: float, peer: float, what: str) -> None:
        print(f"{name:28}{ours:12,.0f}{peer:12,.0f}{ours / peer:7.2f}  {what}", flush=True)
        if out is not None:
            with open(out, "a") as file:
                entry = {"device": name_of_device, "what": name, "images_s": ours, "peer_s": peer}
                file.write(json.dumps(entry | {"peer": what}) + "\n")

    if "training" in parts:
        training_rates(device, row)
    if "sampling" in parts:
        sampling_rates(device, row)
    if "shards" in parts:
        with tempfile.TemporaryDirectory() as folder:
            shard_rates(Path(folder), row)


def training_rates(device: torch.device, row: Row) -> None:
    data = images_of(6000)
    steps, batch = 60, 64
    config = vaeaug.load_config(
        None, [f"training.steps={steps}", "training.eval_every=1000", "model.grouping=shared"]
    )

    def train_ours() -> int:
        # Two lengths, so that what is done once cancels.
        return timed_difference(
            lambda n: train(data, config.changed(**{"training.steps": n}), device=device),
            steps,
            batch,
        )

    network = CVAE((28, 28, 1), 10, width=24).to(device)
    x = torch.rand(batch, 1, 28, 28, device=device)
    y = torch.randint(0, 10, (batch,), device=device)

    def train_bare() -> int:
        optimiser = torch.optim.AdamW(network.parameters(), fused=True)
        for _ in range(steps):
            noise = torch.randn(batch, network.latent_dim, device=device)
            # The precision that ours trains in.
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = network.elbo(x, y, noise=noise, optimal_sigma=True).loss()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        loss.item()
        return steps * batch

    row("training", train_ours(), rate(train_bare), "the bare network and AdamW, no EMA")


def sampling_rates(device: torch.device, row: Row) -> None:
    """Drawing, screening and writing, each beside the bare decoder in turns with it."""
    data = images_of(6000)
    config = vaeaug.load_config(
        None,
        [
            "training.steps=2",
            "training.adapt_steps=2",
            "restoration.steps=2",
            "semi_supervised.classifier_steps=2",
            "screening.classifier_steps=2",
            "recipe.min_label_probability=0",
        ],
    )
    generator = vaeaug.fit(data, config, device=device, progress=False).attach(data)
    model, n, block = generator.model, 1280, 64
    z = torch.randn(block, model.latent_dim, device=device)
    labels = torch.zeros(block, dtype=torch.long, device=device)

    # One thread on a busy machine is timed by what it computes; a disk and a card are waited for.
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    timed = functools.partial(
        rates, repeats=7, clock=time.process_time if alone else time.perf_counter
    )

    def bare(times: int) -> Callable[[], int]:
        @torch.no_grad()
        def decode() -> int:
            for _ in range(times * n // block):
                model.decode(z, labels).cpu()
            return n

        return decode

    for sampler in ("prior", "posterior", "interpolate", "gmm", "transfer", "delta"):
        # `delta` decodes two images for each sample.
        peer = bare(2 if sampler == "delta" else 1)
        ours = timed(lambda s=sampler: len(generator.sample(0, n, seed=0, sampler=s)), peer)
        row(f"sampling, {sampler}", *ours, "the bare decoder")
    edit = functools.partial(generator.sample, 0, n, seed=0, sampler="interpolate", residual=True)
    row("sampling, edits", *timed(lambda: len(edit()), bare(2)), "the bare decoder, two decodes")

    screener = vaeaug.Screener(data, config.screening, seed=0, device=device)
    samples = generator.sample(0, n, seed=0)

    def screen(images: np.ndarray) -> int:
        return len(screener.new_class(0, brief=True).screen(images).reason)

    row("screening", *timed(lambda: screen(samples.images), bare(1)), "the bare decoder")
    row(
        "sampling and screening",
        *timed(lambda: screen(generator.sample(0, n, seed=0).images), bare(1)),
        "the bare decoder",
    )
    with tempfile.TemporaryDirectory() as folder:
        numbered = itertools.count()
        counts = {**dict.fromkeys(range(10), 600), 0: 600 + n}
        job = config.changed(
            **{
                "recipe.sampler": "gmm",
                "plan.share": 0,
                "plan.sampling_strategy": counts,
                "screening.near_copy_factor": 0.0,
                "screening.duplicate_factor": 0.0,
            }
        )
        plan = vaeaug.make_plan(data.labels, job.plan.sampling_strategy)
        provenance = ShardProvenance(
            model_sha256="0", config_sha256="0", data_fingerprint="0", run_seed=0
        )

        def write(judge: object) -> int:
            written = WrittenClasses(
                Path(folder) / str(next(numbered)), data.class_names, provenance
            )
            write_classes(written, plan, generator, judge, job)
            return sum(entry.n for entry in written.shards)

        row("to disk", *rates(lambda: write(Unscreened()), bare(1)), "the bare decoder")
        row("to disk, screened", *rates(lambda: write(screener), bare(1)), "the bare decoder")


class Unscreened:
    """Accepts every sample unseen: what is left is drawing and writing."""

    def new_class(self, label: int, **_: bool) -> "Unscreened":
        """Start on a class."""
        return self

    def screen(self, images: np.ndarray) -> Screened:
        """Accept the samples."""
        n = len(images)
        return Screened(
            reason=np.full(n, "", dtype=object),
            p_label=np.ones(n, np.float32),
            nn_distance=np.ones(n, np.float32),
            nn_index=np.zeros(n, np.int64),
            probabilities=np.ones((n, 1), np.float32),
            near=np.zeros(n, np.bool_),
        )


def timed_difference(
    work: Callable[[int], object], steps: int, batch: int, *, repeats: int = 3
) -> float:
    """Best images per second of a few runs of some steps, without what is done once.

    Steps are doubled until they take longer than what is done once varies.
    """

    def seconds(n: int) -> float:
        begin = time.perf_counter()
        work(n)
        return time.perf_counter() - begin

    seconds(2)
    while True:
        short = [seconds(10) for _ in range(repeats)]
        long = [seconds(10 + steps) for _ in range(repeats)]
        if min(long) > max(short):
            return steps * batch / (min(long) - min(short))
        steps *= 2


def seconds_a_step(model: CVAE, batch: int, *, repeats: int) -> float:
    """Least CPU seconds of a few steps of the bare network: loss, gradients, AdamW."""
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    rng, shape = np.random.default_rng(0), tuple(model.image_shape)
    images = torch.from_numpy(rng.integers(0, 256, (batch, *shape), dtype=np.uint8))
    y = torch.arange(batch) % int(model.architecture["n_classes"])
    taken = []
    with kept_memory(4 * images.numel()):
        for _ in range(repeats):
            begin = time.process_time()
            x = scale_images(images, (0, 255))
            noise = torch.randn(batch, model.latent_dim)
            loss = model.elbo(x, y, noise=noise, optimal_sigma=True).loss() / x[0].numel()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            taken.append(time.process_time() - begin)
    return min(taken)


def shard_rates(folder: Path, row: Row) -> None:
    n = 50_000
    data = images_of(n, n_classes=1)
    latents = np.zeros((n, 32), np.float32)
    index, ones = np.arange(n), np.ones(n, np.float32)
    numbered = iter(range(100))

    def write(compress: str | None) -> Callable[[], int]:
        def work() -> int:
            with vaeaug.ShardWriter(
                folder / f"run-{next(numbered)}",
                label=0,
                class_names=("a",),
                sampler="gmm",
                image_shape=(28, 28, 1),
                value_range=(0.0, 255.0),
                n_latents=32,
                provenance={
                    "model_sha256": "0",
                    "config_sha256": "0",
                    "data_fingerprint": "0",
                    "run_seed": 0,
                },
                compress=compress,
            ) as writer:
                writer.append(
                    images=data.images,
                    latents=latents,
                    source_index=index,
                    seed=index.astype(np.uint64),
                    p_label=ones,
                    nn_distance=ones,
                    nn_index=index,
                )
            return n

        return work

    def save() -> int:
        with open(folder / "peer.npy", "wb") as file:
            np.save(file, data.images)
            file.flush()
        return n

    peer = rate(save)
    row("writing, contiguous", rate(write(None)), peer, "numpy.save of the images, no hashes")
    row("writing, gzip", rate(write("gzip"), repeats=1), peer, "the same")

    shards = sorted(folder.glob("run-*/shards/*.h5"))
    contiguous = next(path for path in shards if not is_chunked(path))
    chunked = next(path for path in shards if is_chunked(path))
    rng = np.random.default_rng(0)
    batches = [rng.integers(n, size=128) for _ in range(50)]

    def read_by(take: Callable[[np.ndarray], np.ndarray], few: int = 50) -> Callable[[], int]:
        def work() -> int:
            for rows in batches[:few]:
                take(rows)
            return few * 128

        return work

    from vaeaug.shards import Shard

    memory_rate = rate(read_by(lambda rows: data.images[rows]))
    with Shard(contiguous) as shard:
        row("reading, mapped shard", rate(read_by(shard.images_at)), memory_rate, "numpy in memory")
    with Shard(chunked) as shard:
        ours = rate(read_by(shard.images_at, 5), repeats=1)
        row("reading, gzip shard", ours, memory_rate, "numpy in memory")
    with h5py.File(contiguous) as file:
        images = file["images"]
        peer = rate(read_by(lambda rows: np.stack([images[int(i)] for i in rows]), 5), repeats=1)
        row("reading, h5py one by one", peer, memory_rate, "numpy in memory")

    tensors = TensorDataset(
        torch.from_numpy(data.images).movedim(-1, 1).contiguous(), torch.from_numpy(data.labels)
    )
    real = images_of(20_000)
    out = tiny_run(folder / "merged", real)
    merged = vaeaug.merge(real, out, 0.3)

    def load(dataset: object) -> Callable[[], int]:
        def work() -> int:
            seen = 0
            for images, _ in DataLoader(dataset, batch_size=128, shuffle=True):
                seen += len(images)
            return seen

        return work

    peer = rate(load(tensors), repeats=2)
    row("merged loader", rate(load(merged), repeats=2), peer, "TensorDataset loader, no workers")


def is_chunked(shard: Path) -> bool:
    with h5py.File(shard) as file:
        return file["images"].chunks is not None


def tiny_run(out: Path, data: vaeaug.LabelledImages) -> Path:
    """A finished run with a quarter as many samples; the network is not trained."""
    config = vaeaug.load_config(
        None,
        [
            "training.steps=2",
            "training.adapt_steps=2",
            "model.width=8",
            "screening.classifier_steps=2",
            "screening.near_copy_factor=0",
            "screening.duplicate_factor=0",
            "recipe.min_label_probability=0",
            "recipe.sampler=prior",
            "plan.share=0.3",
        ],
    )
    vaeaug.augment(data, out, config)
    return out


def memory(n: int) -> None:
    """Generate, screen and write n samples; the whole process's peak memory."""
    data = images_of(10_000)
    per_class = n // 10
    config = vaeaug.load_config(
        None,
        [
            "training.steps=2",
            "training.adapt_steps=2",
            "screening.classifier_steps=2",
            "recipe.min_label_probability=0",
            "screening.near_copy_factor=0",
            "screening.duplicate_factor=0.01",
        ],
        **{"plan.sampling_strategy": dict.fromkeys(range(10), 1000 + per_class)},
    )
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        result = vaeaug.augment(data, Path(folder) / "run", config)
        seconds = time.perf_counter() - begin
    n_accepted = sum(entry.accepted for entry in result.manifest.classes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{n_accepted:,} samples in {seconds:,.0f} s, peak memory {peak:.2f} GiB (limit 1.5 GB)")


if __name__ == "__main__":
    main()
