"""Training and sampling on a card, beside the limits of the card that the same run measures.

    bash benchmarks/gpu.sh                       # the whole table, ten minutes at most on one card
    python -m benchmarks.gpu --device cpu --small   # that it runs, without a card

The rate of training stands beside the bare network (the loss of a plain conditional VAE, backward
pass and optimiser, launched one by one) and beside the same step replayed as one CUDA graph, which
is what the card can do when nothing waits for the processor. Sampling stands beside the bare
decoder. Nothing else may be running.
"""

import argparse
import contextlib
import io
import json
import logging
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import vaeaug
from benchmarks.speed import images_of, rate, timed_difference
from vaeaug.models import CVAE
from vaeaug.training import resolve_device, train, train_restorer

PARTS = ("limits", "waits", "training", "sampling")
SHAPES = {"28x28x1": (28, 28, 1), "64x64x3": (64, 64, 3)}


class Table:
    """Rows on the screen and in a JSON-lines file."""

    def __init__(self, device: torch.device, out: Path | None) -> None:
        self.device, self.out = device, out
        is_cuda = device.type == "cuda"
        self.card = torch.cuda.get_device_name(device) if is_cuda else device.type
        print(f"{self.card}, torch {torch.__version__}, {torch.get_num_threads()} threads")

    def row(self, what: str, value: float, unit: str, **beside: float) -> None:
        """Print a figure and what stands beside it."""
        ratios = "  ".join(
            f"{name} {other:,.4g} (ratio {value / other:.2f})" for name, other in beside.items()
        )
        print(f"{what:44}{value:14,.4g} {unit:12}{ratios}", flush=True)
        if self.out is not None:
            entry = {"card": self.card, "what": what, "value": value, "unit": unit, **beside}
            with open(self.out, "a") as file:
                file.write(json.dumps(entry) + "\n")


def seconds_of(work: Callable[[], Any], device: torch.device, *, repeats: int = 3) -> float:
    """Best time of a few runs, after one to warm up; the device has finished."""

    def once() -> float:
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    once()
    return min(once() for _ in range(repeats))


def limits(table: Table, *, small: bool) -> None:
    """What the card can do: copies, matrix products, launches."""
    device = table.device
    n = 2**20 if small else 2**28
    source = torch.rand(n, device=device)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device)
    table.row("copy on the device, read + written", copied / 1e9, "GB/s")
    host = torch.empty(n // 4, pin_memory=device.type == "cuda")
    part = source[: n // 4]
    moved = part.nbytes / seconds_of(lambda: host.copy_(part, non_blocking=True), device)
    table.row("copy to pinned memory", moved / 1e9, "GB/s")
    side = 256 if small else 8192
    left = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    product = 2 * side**3 / seconds_of(lambda: left @ left, device)
    table.row("matrix product, bf16", product / 1e12, "TFLOP/s")
    tiny = torch.zeros(1, device=device)

    def launch() -> None:
        for _ in range(1000):
            tiny.add_(1)

    table.row("launches", 1000 / seconds_of(launch, device), "1/s")


def bare_step(network: CVAE, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """The loss of a plain conditional VAE, its gradients and a step of AdamW."""
    device = x.device
    optimiser = torch.optim.AdamW(
        network.parameters(), fused=True, capturable=device.type == "cuda"
    )

    def step() -> None:
        noise = torch.randn(len(x), network.latent_dim, device=device)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=device.type == "cuda", cache_enabled=False
        ):
            loss = network.elbo(x, y, noise=noise, optimal_sigma=True).loss()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def graphed(step: Callable[[], None]) -> Callable[[], None]:
    """The same step, recorded once and replayed as one graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def pythae_rate(network: CVAE, device: torch.device, batch: int, *, small: bool) -> float | None:
    """Images a second of pythae's trainer on a VAE of the layers of `network`, labels left out.

    Its own pipeline, loader and defaults but AdamW; None where pythae is not installed.
    """
    try:
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.pipelines import TrainingPipeline
        from pythae.trainers import BaseTrainerConfig
    except ImportError:
        return None

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> ModelOutput:
            labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
            mean, logvar = self.network.posterior(x, labels)
            return ModelOutput(embedding=mean, log_covariance=logvar)

    class Decoder(BaseDecoder):
        def forward(self, z: torch.Tensor) -> ModelOutput:
            labels = torch.zeros(len(z), dtype=torch.long, device=z.device)
            return ModelOutput(reconstruction=kept[0].decode(z, labels))

    # The decoder's layers are parameters of the encoder, which holds the whole network.
    kept = [network]
    *space, channels = network.image_shape
    shape = (channels, *space)
    images = torch.rand(10 * batch if small else 6000, *shape).numpy()

    def run(epochs: int) -> float:
        settings = VAEConfig(input_dim=shape, latent_dim=network.latent_dim)
        model = VAE(settings, encoder=Encoder(), decoder=Decoder())
        with tempfile.TemporaryDirectory() as folder:
            job = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=epochs,
                per_device_train_batch_size=batch,
                learning_rate=1e-3,
                optimizer_cls="AdamW",
                no_cuda=device.type != "cuda",
            )
            pipeline, silence = TrainingPipeline(training_config=job, model=model), io.StringIO()
            logging.disable(logging.WARNING)
            begin = time.perf_counter()
            with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                pipeline(train_data=images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds = time.perf_counter() - begin
            logging.disable(logging.NOTSET)
            return seconds

    run(1)
    short, long = (2, 4) if small else (2, 6)
    return (long - short) * len(images) / max(run(long) - run(short), 1e-6)


def training(table: Table, shape: tuple[int, int, int], batch: int, *, small: bool) -> None:
    """Images a second of the trunk and of the restorer beside the bare network and pythae."""
    device, steps = table.device, 4 if small else 100
    name = f"{'x'.join(map(str, shape))}, batch {batch}"
    data = images_of(400 if small else 6000, shape=shape)
    settings = [
        f"training.batch_size={batch}",
        f"restoration.batch_size={batch}",
        "training.eval_every=100000",
        "semi_supervised.classifier_steps=2",
        "model.grouping=shared",
        *(["model.width=8", "restoration.width=8"] if small else []),
    ]
    config = vaeaug.load_config(None, settings)
    network = CVAE(shape, 10, width=config.model.width).to(device)
    x = torch.rand(batch, shape[2], *shape[:2], device=device)
    y = torch.randint(0, 10, (batch,), device=device)
    step = bare_step(network, x, y)

    def loop(step: Callable[[], None]) -> Callable[[], None]:
        return lambda: [step() for _ in range(steps)] and None

    bare = batch * steps / seconds_of(loop(step), device)
    beside = {"bare": bare}
    if device.type == "cuda":
        beside["graph"] = batch * steps / seconds_of(loop(graphed(step)), device)
    theirs = pythae_rate(CVAE(shape, 10, width=config.model.width), device, batch, small=small)
    if theirs is not None:
        beside["pythae"] = theirs

    plain = config.changed(**{"model.style_dim": 0})
    for what, kind, job, key in (
        ("training", train, config, "training.steps"),
        ("training without style", train, plain, "training.steps"),
        ("training of the restorer", train_restorer, config, "restoration.steps"),
    ):
        ours = timed_difference(
            lambda n, kind=kind, job=job, key=key: kind(
                data, job.changed(**{key: n}), device=device
            ),
            steps,
            batch,
            repeats=1 if small else 3,
        )
        table.row(f"{what}, {name}", ours, "images/s", **beside)


def waits(table: Table) -> None:
    """How often a step of training waits for the card, and where; how busy the card is."""
    if table.device.type != "cuda":
        return
    data = images_of(2000)
    config = vaeaug.load_config(
        None, ["training.eval_every=100000", "model.grouping=shared", "training.steps=10"]
    ).changed(**{"semi_supervised.classifier_steps": 2})

    def counted(steps: int, kind: Callable[..., Any], key: str) -> Counter[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            kind(data, config.changed(**{key: steps}), device=table.device)
            torch.cuda.set_sync_debug_mode("default")
        return Counter(
            f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchron" in str(w.message)
        )

    for what, kind, key in (
        ("trunk", train, "training.steps"),
        ("restorer", train_restorer, "restoration.steps"),
    ):
        few, many = counted(100, kind, key), counted(300, kind, key)
        per_step = {place: max(0, many[place] - few[place]) / 200 for place in many}
        table.row(f"waits for the card, {what}", sum(per_step.values()), "per step")
        for place, number in sorted(per_step.items(), key=lambda item: -item[1]):
            if number > 0:
                print(f"    {number:6.2f}  {place}")
    from torch.profiler import ProfilerActivity, profile

    def profiled(steps: int) -> tuple[int, float]:
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as run:
            train(data, config.changed(**{"training.steps": steps}), device=table.device)
        kernels = [e for e in run.events() if e.device_type.name == "CUDA"]
        return len(kernels), sum(e.device_time for e in kernels)

    (n_few, t_few), (n_many, t_many) = profiled(10), profiled(30)
    table.row("kernels and copies of the trunk", (n_many - n_few) / 20, "per step")
    table.row("time of the card in the trunk", (t_many - t_few) / 20 / 1000, "ms per step")


def sampling(table: Table, shape: tuple[int, int, int], *, small: bool) -> None:
    """Images a second of each sampler beside the bare decoder."""
    device, n = table.device, 128 if small else 4096
    data = images_of(400 if small else 6000, shape=shape)
    config = vaeaug.load_config(
        None,
        [
            "training.steps=2",
            "training.adapt_steps=2",
            "restoration.steps=2",
            "screening.classifier_steps=2",
            *(["model.width=8", "restoration.width=8"] if small else []),
        ],
    )
    generator = vaeaug.fit(data, config, device=device, progress=False)
    network, size = generator.model, 64 if small else 512
    z = torch.randn(size, network.latent_dim, device=device)
    labels = torch.zeros(size, dtype=torch.long, device=device)

    @torch.no_grad()
    def bare() -> int:
        for _ in range(n // size or 1):
            network.decode(z, labels).cpu()
        return (n // size or 1) * size

    name = "x".join(map(str, shape))
    peer = rate(bare)
    generator.attach(data)
    for sampler in ("prior", "posterior", "interpolate", "gmm", "transfer", "delta"):
        try:
            ours = rate(lambda s=sampler: len(generator.sample(0, n, seed=0, sampler=s)))
        except Exception as error:  # one sampler's failure must not hide the other figures
            print(f"sampling, {sampler}: {type(error).__name__}: {error}")
            continue
        table.row(f"sampling, {sampler}, {name}", ours, "images/s", bare=peer)
    screener = vaeaug.Screener(data, config.screening, seed=0, device=device)
    samples = generator.sample(0, n, seed=0)
    ours = rate(lambda: len(screener.new_class(0, brief=True).screen(samples.images).reason))
    table.row(f"screening, {name}", ours, "images/s", bare=peer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--small", action="store_true", help="that it runs, not how fast")
    parser.add_argument("--out", type=Path, help="JSON lines are appended here")
    arguments = parser.parse_args()
    table, small = Table(resolve_device(arguments.device), arguments.out), arguments.small
    if "limits" in arguments.parts:
        limits(table, small=small)
    if "waits" in arguments.parts:
        waits(table)
    if "training" in arguments.parts:
        training(table, SHAPES["28x28x1"], 64, small=small)
        if not small:
            training(table, SHAPES["28x28x1"], 512, small=small)
            training(table, SHAPES["64x64x3"], 64, small=small)
    if "sampling" in arguments.parts:
        sampling(table, SHAPES["28x28x1"], small=small)


if __name__ == "__main__":
    main()
