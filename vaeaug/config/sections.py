"""The sections of a job: every key, its meaning, its default and its bounds."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.json_schema import SkipJsonSchema

Grouping = Literal["adapted", "separate", "shared"]
Network = Literal["conv", "mlp"]
Latent = Literal["vector", "spatial", "hierarchical", "discrete"]
LikelihoodName = Literal["gaussian", "gaussian_per_pixel", "bernoulli", "logistic_mixture"]
DensityKind = Literal["auto", "normal", "gmm", "flow"]
SamplingStrategy = (
    Literal["auto", "minority", "not minority", "not majority", "all"]
    | float
    | dict[int | str, int]
    | list[int | str]
    | SkipJsonSchema[Callable[..., Any]]  # from Python alone; no file can hold one
)


class Section(BaseModel):
    """Plain, frozen data; unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )


class DataConfig(Section):
    """What is read of the data, and how."""

    split: str = Field("train", description="Split to train on; never the test split.")
    size: tuple[int, int] | None = Field(
        None,
        description="Resize to (height, width) in pixels; for sounds, twice the number of samples.",
    )
    frames: int | None = Field(
        None,
        ge=1,
        description="Frames to read of each video or animation, chosen as `resize` says. Default: "
        "all of a video, the first alone of a GIF.",
    )
    frame_step: int = Field(
        1, ge=1, description="With `frames`: every how many frames one is read."
    )
    resize: Literal["crop", "pad", "stretch"] = Field(
        "crop",
        description="Where the aspect ratio differs from that of `size`: crop, pad or stretch.",
    )
    value_range: tuple[float, float] | None = Field(
        None,
        description="Lowest and highest possible value. Default: from type and values.",
    )
    mode: Literal["RGB", "L"] | None = Field(
        None, description="Convert all images to colour (RGB) or grayscale (L)."
    )
    alpha: Literal["composite", "drop", "keep"] = Field(
        "composite", description="RGBA: composite on white, drop the alpha channel, or keep it."
    )
    keys: dict[Literal["images", "labels"], str] | None = Field(
        None, description="Names of the arrays in an .npz or HDF5 file, or columns of a table."
    )
    class_names: list[str] | None = Field(
        None, description="Names in the order of the labels, or the folders that are classes."
    )
    on_error: Literal["raise", "skip"] = Field(
        "raise",
        description="Damaged files: raise an error that lists all, or skip them with a note.",
    )
    layout: str | None = Field(
        None,
        description="Axes of arrays where their number is ambiguous, such as NLC for signals.",
    )
    sample_rate: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Hz. Sound files of another rate are resampled to it; of arrays of signals it "
        "says what their rate is.",
    )
    front_end: Literal["stft"] | None = Field(
        None,
        description="stft: the generator learns log magnitudes of the sounds' short-time Fourier "
        "transform, its samples are turned into sounds by a phase that is consistent with them, "
        "and screening and evaluation see spectrograms.",
    )
    class_counts: dict[int, int] | list[int] | None = Field(
        None,
        description="Keep only this many images of each class, drawn by the seed: makes a balanced "
        "data set long-tailed for a trial.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**63,
        description="Seed of the images that `class_counts` keeps. Default: that of the run; "
        "`generate` and `--add` with another seed set it to that of the run they start from.",
    )

    @field_validator("value_range")
    @classmethod
    def _low_is_below_high(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError("expected (low, high), low < high")
        return value


class PlanConfig(Section):
    """How many samples to make of each class."""

    sampling_strategy: SamplingStrategy = Field(
        "auto",
        description="Target size of each class, in imbalanced-learn's terms: a rule, "
        "{class: total}, or [classes].",
    )
    target_ratio: float | None = Field(
        None, gt=0, le=1, description="Raise each class to this fraction of the largest one."
    )
    max_synthetic_ratio: float | None = Field(
        None, gt=0, description="At most this many synthetic samples per real image of a class."
    )
    min_class_count: int | None = Field(
        None,
        ge=1,
        description="A class with fewer real images gets no synthetic ones. Default: 1 where the "
        "generator has a style, which frequent classes lend to rare ones, and for features; else "
        "8.",
    )
    share: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Synthetic share of every class when it is merged; real images are repeated up "
        "to the size that a rule asks for. 0: as in imbalanced-learn, everything that is missing "
        "is synthetic. Default: `recipe.share` for rules, 0 where the strategy names exact classes "
        "or totals.",
    )

    @field_validator("sampling_strategy", mode="before")
    @classmethod
    def _digits_are_indices(cls, value: object) -> object:
        """JSON has text alone for keys, so a key of digits is the index of a class."""
        if isinstance(value, bool):
            raise ValueError("not a strategy")  # noqa: TRY004 - pydantic wants ValueError
        if isinstance(value, Mapping):
            return {_index_or_name(key): total for key, total in value.items()}
        return value


class ModelConfig(Section):
    """The network and its likelihood."""

    grouping: Grouping = Field("adapted", description="How classes share parameters.")
    conditional: bool = Field(
        True, description="False: an unconditional VAE, whose network never sees the class."
    )
    network: Network = Field(
        "conv",
        description="conv: convolutions. mlp: dense layers, for tables and samples of any size; "
        "needs latent: vector.",
    )
    latent: Latent = Field(
        "vector",
        description="vector: one vector. spatial: a grid, sharper images. hierarchical: a vector "
        "and grids. discrete: a grid of codes (VQ-VAE) and a prior over them.",
    )
    latent_dim: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Length of the latent vector. Default: 32, or 64 for samples of more than 400 "
        "values, 128 for large ones; mlp: at most the number of values.",
    )
    latent_channels: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Channels of the latent grid. Default: by the image size; discrete: 8, the "
        "length of a code.",
    )
    levels: Literal[2, 3] = Field(2, description="Levels of hierarchical latents.")
    codes: int | None = Field(
        None,
        ge=2,
        le=32768,
        description="Codes in the codebook of discrete latents. Default: 64, or 256 for samples of "
        "more than 400 values.",
    )
    commitment: float = Field(
        0.25,
        ge=0,
        description="discrete: weight of the squared distance of the encoder's features from their "
        "codes, in variances of the codes.",
    )
    likelihood: LikelihoodName = Field(
        "gaussian",
        description="p(x given z): one optimal sigma, a sigma per value, Bernoulli, or a mixture "
        "of discretised logistics.",
    )
    convolution: Literal["auto", "full", "factorised"] = Field(
        "auto",
        description="Of volumes and clips. factorised: within each frame, then over time, (2+1)D. "
        "auto: factorised for them, full for signals and images.",
    )
    width: int = Field(24, ge=8, le=512, description="Channels at the highest resolution.")
    max_width: int = Field(
        128,
        ge=8,
        le=1024,
        description="Channels are doubled at each level up to this; mlp: hidden units.",
    )
    codec: str | None = Field(
        None,
        description="A frozen autoencoder of images, in whose latents the generator is trained and "
        "which decodes its samples: FILE.py:NAME, an object with encode and decode (run with all "
        "your rights), or a folder of diffusers' AutoencoderKL or AutoencoderTiny.",
    )
    class_embedding: int = Field(
        128, ge=1, le=512, description="Length of the class embedding, or of the content code."
    )
    style_dim: int | None = Field(
        None,
        ge=0,
        le=512,
        description="Units of the latent vector that hold the style: how a sample is made, "
        "whatever its class. What a class looks like is then learned from its images by a content "
        "encoder. Default: 16, or half of a shorter vector; 0 (class embeddings learned one by "
        "one) for other kinds of latent, network mlp, grouping separate, conditional false, m2 and "
        "a single class.",
    )
    style_beta: float | None = Field(
        None,
        gt=0,
        description="Weight of the KL of the style, beside `beta`. A costly style does not repeat "
        "what the class says already. Default: a 64th of the values of a sample, from 1 to 5: a "
        "style has to pay for itself by the values that it explains.",
    )
    beta: float = Field(1.0, gt=0, description="Weight of the KL term.")
    free_bits: float = Field(
        0.0, ge=0, description="KL per latent unit (nats) that is not penalised."
    )
    capacity: float | None = Field(
        None,
        gt=0,
        description="Target of the KL per sample (nats), which grows to it over the first half of "
        "the steps. Deviations are penalised in place of the KL; `beta` and `style_beta` then have "
        "no effect.",
    )
    capacity_weight: float = Field(
        30.0, gt=0, description="Weight of the deviation (nats) of the KL from `capacity`."
    )


class TrainingConfig(Section):
    """The training loop."""

    steps: int | None = Field(
        None,
        ge=1,
        description="Training steps of the trunk. Default: 28 times the square root of the number "
        "of images for batches of 64, from 500 to 20,000; three quarters of it for images of at "
        "most 400 values.",
    )
    init: str | None = Field(
        None,
        description="Folder of a run or of a generator of similar data, from whose weights the "
        "training starts. The classes may be others. `steps` are then a quarter by default.",
    )
    adapt_steps: int | None = Field(
        None,
        ge=1,
        description="Training steps of the per-class fit, for each 64 classes. Default: a tenth "
        "of `steps`, at least 100, less where there are more classes.",
    )
    batch_size: int = Field(64, ge=2, le=65536, description="Images per step.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak AdamW learning rate. Default: 0.004 for the trunk of a model with a "
        "style that is trained from new, else 0.002.",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Of the steps of training; weights and samples are float32. auto: bfloat16 "
        "where it is faster, on cards of 2020 and later, and on processors that compute in it "
        "(AVX512-BF16, AMX) for samples of more than 400 values. float16: with loss scaling, for "
        "cards of 2017 and 2018 (V100, T4); the adversarial stage stays in float32.",
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        description="AdamW weight decay. Default: for the trunk of a network conv as much as lets "
        "its weights decay alike in short and long trainings (0.4 divided by learning rate and "
        "steps, at most 0.3), else 0.0001.",
    )
    lr_warmup: int = Field(100, ge=0, description="Steps of linear learning-rate warm-up.")
    kl_warmup: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Fraction of the steps, or of each cycle, over which beta grows linearly to "
        "its value.",
    )
    kl_cycles: int = Field(
        1,
        ge=1,
        le=100,
        description="Cyclical schedule: how often beta grows from 0 to its value again.",
    )
    fixed_sigma_from: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Two-stage sigma: after this fraction of the steps the sigma of the likelihood "
        "gaussian is the one calibrated on the training images, no longer that of each batch.",
    )
    clip: float = Field(10.0, gt=0, description="Gradient norm to clip at (nats per dimension).")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="EMA decay; the EMA weights are saved.")
    class_power: float = Field(
        0.5, ge=0, le=1, description="A class is drawn in proportion to count**class_power."
    )
    held_out: float = Field(
        0.1, gt=0, lt=0.5, description="Fraction of the training split held out for early stopping."
    )
    eval_every: int | None = Field(
        None,
        ge=1,
        description="Steps between held-out evaluations, of which a stage has at least three. "
        "Default: a twentieth of its steps, at most 200; of the restorer's a fifth.",
    )
    patience: int = Field(10, ge=1, description="Evaluations without improvement before stopping.")
    checkpoint_every: int = Field(200, ge=1, description="Steps between checkpoints.")
    max_bad_steps: int = Field(
        25,
        ge=1,
        description="Consecutive steps with a non-finite or exploding loss before training fails.",
    )
    budget_seconds: float | None = Field(
        None,
        gt=0,
        description="Stop after this many seconds over all stages: processor time on the CPU, wall "
        "time on CUDA. The result then depends on the machine.",
    )
    label_swap: float | None = Field(
        None,
        ge=0,
        description="Weight (nats) of the cross-entropy of a classifier of the real images on "
        "styles that are decoded with the content of another class. 0: none. Default: 1 for each "
        "40 values of a sample, 1 to 20.",
    )
    denoise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Denoising: Gaussian noise of this standard deviation, as a fraction of the "
        "value range, is added to the encoder's input.",
    )
    feature_matching: float = Field(
        0.0,
        ge=0,
        description="Weight of the distance in the features of a classifier of the real images.",
    )
    rescue: bool = Field(
        True,
        description="Lower beta and raise free bits if the posterior collapses. A `beta` other "
        "than 1 and a `capacity` are kept as asked.",
    )
    bound_samples: int = Field(
        50,
        ge=1,
        le=5000,
        description="Latents per image in the reported importance-weighted bound.",
    )


class AdversarialConfig(Section):
    """VAE-GAN: the trained decoder is sharpened with a discriminator."""

    steps: int = Field(0, ge=0, description="Training steps of the adversarial stage; 0: none.")
    weight: float = Field(
        0.5,
        ge=0,
        description="Weight of the adversarial loss, relative to the gradient of the likelihood.",
    )
    features: float = Field(
        1.0, ge=0, description="Weight of the likelihood in the discriminator's features."
    )
    r1: float = Field(1.0, ge=0, description="Weight of the R1 gradient penalty on real images.")
    learning_rate: float = Field(
        5e-4, gt=0, description="Learning rate of decoder and discriminator."
    )


class SemiSupervisedConfig(Section):
    """How images without labels are used."""

    mode: Literal["pseudo_label", "m2"] = Field(
        "pseudo_label",
        description="pseudo_label: a classifier labels the images it is sure of. m2: the bound of "
        "unlabelled images, marginalised over all classes.",
    )
    threshold: float = Field(
        0.9, gt=0, lt=1, description="An image gets a label that has at least this probability."
    )
    classifier_steps: int = Field(600, ge=1, description="Training steps of the classifier.")
    consistency: float = Field(
        1.0,
        ge=0,
        description="Weight of the consistency of the classifier on strongly augmented unlabelled "
        "images (FixMatch). 0: it learns from the labelled images alone.",
    )
    alignment: bool = Field(
        True,
        description="The classes of the pool are taken to be as frequent as among the labelled "
        "images (distribution alignment). false: where they are not.",
    )
    classifier_weight: float = Field(
        1.0, ge=0, description="m2: weight of the classification loss (nats per value)."
    )
    unlabelled_share: float = Field(
        0.25, gt=0, le=4, description="m2: unlabelled images per labelled one in a step."
    )


class DensityConfig(Section):
    """The densities fitted to the latents of each class after training."""

    kind: DensityKind = Field("auto", description="auto: by the latents and the class sizes.")
    steps: int | None = Field(
        None,
        ge=1,
        description="Training steps of the flow or the prior over codes. Default: those of the "
        "trunk.",
    )
    batch_size: int = Field(256, ge=2, le=65536, description="Latents per step of the flow.")
    width: int = Field(
        64,
        ge=8,
        le=1024,
        description="Channels of the flow; units of a token of the prior over codes, a multiple of "
        "32.",
    )
    depth: int | None = Field(
        None, ge=1, le=64, description="Residual blocks. Default: 4; prior over codes: 2."
    )
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate. Default: 0.001; prior over codes: 0.005."
    )


class RestorationConfig(Section):
    """The network that `denoise` uses, trained beside the generator on the same images."""

    steps: int | None = Field(
        None,
        ge=0,
        description="Training steps; 0: none, and `denoise` blends the generator's reconstruction "
        "with its input. Default: a quarter of `training.steps`, or 14 times the square root of "
        "the number of images for batches of 64, from 250 to 10,000; 0 for features.",
    )
    batch_size: int = Field(32, ge=2, le=65536, description="Samples per step.")
    width: int = Field(
        48, ge=8, le=512, description="Channels at the highest resolution, doubled at each level."
    )
    learning_rate: float = Field(2e-3, gt=0, description="Peak learning rate.")


class SamplingConfig(Section):
    """How a sampler works; which one draws is the recipe's."""

    guidance: float = Field(
        1.0,
        ge=0,
        le=10,
        description="flow: guidance scale. 1 draws from the class; more emphasises it.",
    )
    redrawn: float = Field(
        0.5,
        gt=0,
        le=1,
        description="posterior of discrete latents: fraction of the codes of a real image that the "
        "prior draws anew, given the others.",
    )
    solver_steps: int = Field(12, ge=1, le=1000, description="flow: steps of Heun's method.")
    residual: Literal["auto"] | bool = Field(
        "auto",
        description="Edit real images: add to a sample the residual that the decoder lost of its "
        "source image, so that detail stays. auto: for samplers that start from an image, and such "
        "a sampler becomes the default.",
    )


class ScreeningConfig(Section):
    """Which samples are rejected. Loose: strict label filters were measured to hurt."""

    near_copy_quantile: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Quantile of the nearest-neighbour distances between real images of a class, "
        "the reference for near-copies.",
    )
    near_copy_factor: float = Field(
        0.5,
        ge=0,
        description="Reject a sample nearer to a training image than this multiple of that "
        "quantile. 1.0 where privacy matters more than the number of samples.",
    )
    max_near_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="In a class of 50 images or more, at most this fraction of the samples may be "
        "nearer to a training image than 95 % of real images are to one another; 1: no bound. Only "
        "with `recipe.sampler: auto`.",
    )
    duplicate_factor: float = Field(
        0.25,
        ge=0,
        description="Reject a sample nearer to an accepted one than this multiple of the near-copy "
        "distance.",
    )
    max_candidates_ratio: float = Field(
        5.0,
        ge=1,
        description="Draw at most this many candidates per missing sample with each sampler.",
    )
    folds: int = Field(3, ge=2, le=20, description="Folds of the cross-fitted classifier.")
    classifier_steps: int = Field(
        300,
        ge=1,
        description="Training steps of each fold; with more than ten classes, times the square "
        "root of a tenth of their number.",
    )
    keep_rejected: int = Field(
        8,
        ge=0,
        le=1_000,
        description="Rejected samples of each class and reason that are kept for looking, the "
        "first ones drawn and of at most 1 MiB together; they are no part of the dataset.",
    )


class ShardConfig(Section):
    """The files written."""

    max_bytes: int = Field(256 * 2**20, ge=2**16, description="Largest shard in bytes.")
    compress: Literal["gzip"] | None = Field(
        None, description="gzip for archives: smaller, and slower to read."
    )


def _index_or_name(key: object) -> object:
    return int(key) if isinstance(key, str) and key.isdecimal() else key
