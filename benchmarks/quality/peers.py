# ruff: noqa: D102 - forward and step are what they are called
"""Train one model of pythae 0.1.2 on a data file, draw labelled samples, and bound its likelihood.

Runs in the peers' own environment and imports nothing of vaeaug; see README.md for the choices.

    python peers.py --data data.npz --model betavae --budget 60 --out DIR --seed 0
"""

import argparse
import json
import logging
import math
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import (
    RAE_L2,
    VAE,
    VAEGAN,
    VAMP,
    BetaVAE,
    BetaVAEConfig,
    RAE_L2_Config,
    VAEConfig,
    VAEGANConfig,
    VAMPConfig,
)
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig
from torch import nn
from torch.nn import functional as F

LATENT, MAX_WIDTH, BATCH = 32, 128, 64
MIN_SIGMA = 0.5 / 255
LOGVAR_BOUND = 10.0
EVALUATIONS = 20
BOUND_DRAWS = 8

# What `--options` may change, with what is used otherwise.
DEFAULTS = {
    "lr": 1e-3,
    "width": 24,
    "beta": 1.0,  # weight of the KL; vae ignores it
    "pseudo_inputs": 50,  # vamp
    "embedding_weight": 1e-2,  # rae
    "reg_weight": 1e-6,  # rae
    "adversarial_scale": 0.5,  # vaegan
    "rule": "pythae",  # vaegan: "pythae", or "separate" gradients; see README.md
}


# -- Networks: those of vaeaug's default model, less the class -------------------------------------


def group_norm(channels):
    return nn.GroupNorm(math.gcd(channels, 8), channels)


class Block(nn.Module):
    """``h + conv(silu(norm(h)))``."""

    def __init__(self, channels):
        super().__init__()
        self.norm = group_norm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h):
        return h + self.conv(F.silu(self.norm(h)))


class Plan:
    """Sizes of the networks for images of (height, width, channels)."""

    def __init__(self, shape, width):
        height, wide, channels = shape
        self.shape = (channels, height, wide)
        side = max(height, wide)
        self.patch = 1 if side <= 16 else 2 if side <= 64 else 4
        side, levels = math.ceil(side / self.patch), 0
        while side > 7:
            side, levels = math.ceil(side / 2), levels + 1
        stride = self.patch * 2**levels
        self.padded = tuple(math.ceil(size / stride) * stride for size in (height, wide))
        self.grid = tuple(size // stride for size in self.padded)
        self.widths = [min(width * 2**level, MAX_WIDTH) for level in range(levels + 1)]
        self.folded = channels * self.patch**2
        self.flat = self.widths[-1] * self.grid[0] * self.grid[1]


class Trunk(nn.Module):
    """Image to feature map; also the feature layers of the discriminator."""

    def __init__(self, plan):
        super().__init__()
        self.plan = plan
        self.stem = nn.Conv2d(plan.folded, plan.widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for width in plan.widths)
        self.downs = nn.ModuleList(
            nn.Conv2d(wide, wider, 3, stride=2, padding=1) for wide, wider in pairwise(plan.widths)
        )
        self.norm = group_norm(plan.widths[-1])

    def forward(self, x):
        bottom, right = self.plan.padded[0] - x.shape[2], self.plan.padded[1] - x.shape[3]
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        h = self.stem(F.pixel_unshuffle(2 * x - 1, self.plan.patch))
        for level, block in enumerate(self.blocks):
            h = block(self.downs[level - 1](h) if level else h)
        return F.silu(self.norm(h))


class Encoder(BaseEncoder):
    """Trunk and one linear layer."""

    def __init__(self, plan, *, variational):
        super().__init__()
        self.variational = variational
        self.trunk = Trunk(plan)
        self.linear = nn.Linear(plan.flat, (2 if variational else 1) * LATENT)

    def forward(self, x):
        h = self.linear(self.trunk(x).flatten(1))
        if not self.variational:
            return ModelOutput(embedding=h)
        mean, logvar = h.chunk(2, dim=1)
        return ModelOutput(embedding=mean, log_covariance=logvar.clamp(-LOGVAR_BOUND, LOGVAR_BOUND))


class Decoder(BaseDecoder):
    """The mirror image."""

    def __init__(self, plan):
        super().__init__()
        self.plan = plan
        self.linear = nn.Linear(LATENT, plan.flat)
        self.blocks = nn.ModuleList(Block(width) for width in reversed(plan.widths))
        self.ups = nn.ModuleList(
            nn.Conv2d(wider, wide, 1) for wide, wider in reversed(list(pairwise(plan.widths)))
        )
        self.last = Block(plan.widths[0])
        self.norm = group_norm(plan.widths[0])
        self.out = nn.Conv2d(plan.widths[0], plan.folded, 3, padding=1)

    def forward(self, z):
        h = self.linear(z).view(len(z), -1, *self.plan.grid)
        for level, block in enumerate(self.blocks):
            if level:
                h = F.interpolate(self.ups[level - 1](h), scale_factor=2.0, mode="nearest")
            h = block(h)
        h = F.silu(self.norm(self.last(h)))
        x = F.pixel_shuffle(self.out(h), self.plan.patch) + 0.5
        return ModelOutput(reconstruction=x[:, :, : self.plan.shape[1], : self.plan.shape[2]])


class Discriminator(BaseDiscriminator):
    """Layer 1: the trunk's feature map, in which VAEGAN compares; layer 2: the verdict."""

    depth = 2

    def __init__(self, plan):
        super().__init__()
        self.trunk = Trunk(plan)
        self.linear = nn.Linear(plan.flat, 1)

    def forward(self, x, output_layer_levels=None):
        features = self.trunk(x)
        output = ModelOutput()
        if output_layer_levels:
            output["embedding_layer_1"] = features
            return output
        # pythae takes the logarithm of it.
        output["embedding"] = torch.sigmoid(self.linear(features.flatten(1))).clamp(1e-6, 1 - 1e-6)
        return output


# -- Models ----------------------------------------------------------------------------------------


def build(name, plan, options, images):
    keys = {"input_dim": plan.shape, "latent_dim": LATENT}
    decoder = Decoder(plan)
    encoder = Encoder(plan, variational=name != "rae")
    if name == "vae":
        return VAE(VAEConfig(**keys), encoder, decoder)
    if name == "betavae":
        return BetaVAE(BetaVAEConfig(**keys, beta=options["beta"]), encoder, decoder)
    if name == "vamp":
        n = options["pseudo_inputs"]
        model = VAMP(VAMPConfig(**keys, number_components=n), encoder, decoder)
        # From training images: pythae's start leaves half of the clipped pixels without gradient.
        linear = model.pseudo_inputs[0]
        with torch.no_grad():
            rows = torch.randperm(len(images))[:n]
            linear.weight.zero_()
            linear.weight[:, : len(rows)] = images[rows].flatten(1).clamp(0.01, 0.99).T
            linear.bias.zero_()
        return model
    if name == "vaegan":
        config = VAEGANConfig(
            **keys, adversarial_loss_scale=options["adversarial_scale"], reconstruction_layer=1
        )
        return VAEGAN(config, encoder, decoder, Discriminator(plan))
    config = RAE_L2_Config(
        **keys, embedding_weight=options["embedding_weight"], reg_weight=options["reg_weight"]
    )
    return RAE_L2(config, encoder, decoder)


def objective(name, output, options):
    """The loss, with pythae's own halves of it."""
    if name == "vamp":
        return output.recon_loss + options["beta"] * output.reg_loss
    return output.loss


class Plain:
    """One Adam. RAE decays the decoder's weights alone, as pythae's trainer for it does."""

    def __init__(self, name, model, options):
        self.name, self.model, self.options = name, model, options
        decoder = list(model.decoder.parameters())
        ids = {id(parameter) for parameter in decoder}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in ids]
        decay = options["reg_weight"] if name == "rae" else 0.0
        groups = [{"params": rest}, {"params": decoder, "weight_decay": decay}]
        self.optimisers = [torch.optim.Adam(groups, lr=options["lr"])]

    def step(self, output):
        (optimiser,) = self.optimisers
        optimiser.zero_grad(set_to_none=True)
        objective(self.name, output, self.options).backward()
        optimiser.step()


class Adversarial:
    """VAEGAN: pythae's CoupledOptimizerAdversarialTrainer, three optimisers."""

    def __init__(self, model, options):
        self.options = options
        self.parts = [
            list(part.parameters()) for part in (model.encoder, model.decoder, model.discriminator)
        ]
        self.optimisers = [torch.optim.Adam(part, lr=options["lr"]) for part in self.parts]

    def step(self, output):
        encoder_loss = output.encoder_loss
        kl = encoder_loss - output.recon_loss
        losses = [
            encoder_loss + (self.options["beta"] - 1) * kl,
            output.decoder_loss,
            output.discriminator_loss,
        ]
        update = [output.update_encoder, output.update_decoder, output.update_discriminator]
        for optimiser, part, loss, wanted in zip(
            self.optimisers, self.parts, losses, update, strict=True
        ):
            if wanted:
                optimiser.zero_grad()
                # As pythae does it, a loss adds to the gradients of the parts before its own too:
                # the decoder's share of the discriminator's loss comes in with the wrong sign.
                only = part if self.options["rule"] == "separate" else None
                loss.backward(retain_graph=True, inputs=only)
        for optimiser, wanted in zip(self.optimisers, update, strict=True):
            if wanted:
                optimiser.step()


def train(name, model, images, options, budget, seed, steps_only=False):
    """Until `budget` CPU seconds are spent, the learning rate falling to 0 along a half cosine.

    A tenth is held out and the weights that were best on it are kept, which is pythae's own rule;
    VAEGAN, whose losses do not fall, keeps the last. With `steps_only` the clock stands still while
    the tenth is scored.
    """
    rng = np.random.default_rng([seed, 5])
    order = torch.from_numpy(rng.permutation(len(images)))
    held, rows = images[order[: len(images) // 10]], order[len(images) // 10 :].numpy()
    stepper = Adversarial(model, options) if name == "vaegan" else Plain(name, model, options)
    start = time.process_time()
    best, best_weights, next_evaluation, steps, queue = math.inf, None, 1, 0, []
    while (spent := (time.process_time() - start) / budget) < 1:
        # A short linear warm-up, as ours has.
        rate = options["lr"] * 0.5 * (1 + math.cos(math.pi * spent)) * min(1, (steps + 1) / 100)
        for optimiser in stepper.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
        if len(queue) < BATCH:
            queue = list(rng.permutation(rows))
        batch, queue = queue[:BATCH], queue[BATCH:]
        model.train()
        stepper.step(model({"data": images[batch]}))
        steps += 1
        if name != "vaegan" and spent > next_evaluation / EVALUATIONS:
            next_evaluation += 1
            began = time.process_time()
            loss = held_out_loss(name, model, held[:2000], options)
            if steps_only:
                start += time.process_time() - began
            if loss < best:
                best = loss
                best_weights = {key: value.clone() for key, value in model.state_dict().items()}
    began = time.process_time()
    if best_weights is not None and held_out_loss(name, model, held[:2000], options) > best:
        model.load_state_dict(best_weights)
    if steps_only:
        start += time.process_time() - began
    return {
        "steps": steps,
        "cpu_seconds": time.process_time() - start,
        "held_out_loss": best if best < math.inf else None,
    }


@torch.no_grad()
def held_out_loss(name, model, held, options):
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        total = sum(
            float(objective(name, model({"data": part}), options)) * len(part)
            for part in held.split(500)
        )
    return total / len(held)


# -- What is asked of them -------------------------------------------------------------------------


@torch.no_grad()
def errors_and_kl(model, images, draws):
    """Mean squared error per image, and mean KL to the model's own prior, nats per image."""
    error = kl = 0.0
    for part in images.split(500):
        encoded = model.encoder(part)
        mean, logvar = encoded.embedding, encoded.log_covariance
        for _ in range(draws):
            z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            x = model.decoder(z).reconstruction
            error += float((x - part).square().sum()) / draws
            if isinstance(model, VAMP):
                divergence = model.loss_function(x, part, mean, logvar, z, 100)[2]
            else:
                divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=1).mean()
            kl += float(divergence) * len(part) / draws
    return error / len(images), kl / len(images)


def bound(model, images, held):
    """Mean ELBO of `held`, pixels in [0, 1], sigma at its optimum on the training images."""
    n_values = images[0].numel()
    error, _ = errors_and_kl(model, images[:5000], 1)
    sigma2 = max(error / n_values, MIN_SIGMA**2)
    error, kl = errors_and_kl(model, held, BOUND_DRAWS)
    likelihood = -0.5 * error / sigma2 - 0.5 * n_values * math.log(2 * math.pi * sigma2)
    return {"bound": likelihood - kl, "kl": kl, "sigma": math.sqrt(sigma2)}


@torch.no_grad()
def draw(model, images, labels, n_per_class, components):
    """A sampler for each class, fitted to its training images: pythae cannot condition on it."""
    drawn, drawn_labels, used = [], [], []
    for label in np.unique(labels):
        class_images = images[np.flatnonzero(labels == label)]
        n = min(components, len(class_images))
        while True:
            config = GaussianMixtureSamplerConfig(n_components=n)
            sampler = GaussianMixtureSampler(model=model, sampler_config=config)
            try:
                sampler.fit(class_images)
                break
            except ValueError:  # a component collapsed onto too few images
                if n == 1:
                    raise
                n //= 2
        x = sampler.sample(num_samples=n_per_class)
        drawn.append((x.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).numpy())
        drawn_labels.append(np.full(n_per_class, label, np.int64))
        used.append(n)
    return np.concatenate(drawn), np.concatenate(drawn_labels), used


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--model", choices=["vae", "betavae", "vamp", "vaegan", "rae"], required=True
    )
    parser.add_argument("--budget", type=float, required=True, help="CPU seconds of training")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", type=json.loads, default={}, help="JSON, see DEFAULTS")
    parser.add_argument(
        "--components",
        type=int,
        nargs="*",
        default=[10],
        help="mixture components; more than one writes samples-N.npz for each, none draws nothing",
    )
    parser.add_argument(
        "--steps-only", action="store_true", help="the budget is that of the steps alone"
    )
    args = parser.parse_args()
    unknown = set(args.options) - set(DEFAULTS)
    if unknown:
        parser.error(f"--options: expected keys of {sorted(DEFAULTS)}, got {sorted(unknown)}")
    options = {**DEFAULTS, **args.options}
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002 - pythae's sampler draws from the global state
    with np.load(args.data) as file:
        data = {key: file[key] for key in file.files}
    if data["train_images"].ndim != 4 or data["train_images"].dtype != np.uint8:
        parser.error("--data: expected uint8 images of shape (n, height, width, channels)")
    images, held = (
        torch.from_numpy(data[f"{part}_images"]).movedim(-1, 1).float().div(255).contiguous()
        for part in ("train", "held")
    )
    plan = Plan(data["train_images"].shape[1:], options["width"])
    model = build(args.model, plan, options, images)
    # A dataset of pythae's, to be sure that it takes the images as they are.
    images = BaseDataset(images, torch.from_numpy(data["train_labels"])).data
    measurements = {
        "model": args.model,
        "options": options,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **train(args.model, model, images, options, args.budget, args.seed, args.steps_only),
    }
    model.eval()
    if args.model != "rae":
        measurements.update(bound(model, images, held))
    args.out.mkdir(parents=True, exist_ok=True)
    for components in args.components:
        start = time.process_time()
        drawn, labels, used = draw(
            model, images, data["train_labels"], int(data["n_per_class"]), components
        )
        name = "samples.npz" if len(args.components) == 1 else f"samples-{components}.npz"
        np.savez_compressed(args.out / name, images=drawn, labels=labels)
        measurements[f"components-{components}"] = used
        measurements["sampling_seconds"] = time.process_time() - start
    (args.out / "measurements.json").write_text(json.dumps(measurements, indent=1))
    print(json.dumps(measurements))


if __name__ == "__main__":
    main()
