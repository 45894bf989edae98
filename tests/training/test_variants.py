"""Every variant trains on signals, images and volumes; the guards of the loop do what they say."""

import copy
import json
import time

import numpy as np
import pytest
import torch

import vaeaug
from tests.small_job import faint
from vaeaug.models import CVAE, Discriminator
from vaeaug.training import _adversarial as adversarial
from vaeaug.training import train
from vaeaug.training._batches import Batches
from vaeaug.training._elbo import ElboObjective
from vaeaug.training._state import Stage, StageRecord, TrainState
from vaeaug.training._train import SHARES, TrainingPipeline

QUICK = [
    "model.width=8",
    "model.latent_dim=4",
    "model.grouping=shared",
    "training.steps=20",
    "training.adapt_steps=10",
    "training.eval_every=10",
    "training.batch_size=16",
    "training.lr_warmup=5",
    "semi_supervised.classifier_steps=6",
    "density.width=8",
    "density.depth=1",
    "density.steps=20",
]
SHAPES = {1: (70, 2), 2: (12, 9, 1), 3: (8, 9, 8, 1)}


def quick(*overrides: str) -> vaeaug.AugmentConfig:
    return vaeaug.load_config(None, [*QUICK, *overrides])


def waves(shape: tuple[int, ...], *, n: int = 24, dtype: str = "uint8") -> vaeaug.LabelledImages:
    """Three classes of waves, each of its own direction and of random phase and height."""
    rng = np.random.default_rng(0)
    *space, channels = shape
    place = np.stack(np.meshgrid(*[np.linspace(0, 1, s) for s in space], indexing="ij"), axis=-1)
    labels = np.repeat(np.arange(3), n)
    images = []
    for label in labels:
        way = np.roll(np.arange(1, len(space) + 1), label) * (1 + label)
        phase = 0.3 * rng.standard_normal()
        wave = 0.5 + rng.uniform(0.2, 0.45) * np.sin(4 * place @ way + phase)
        images.append(np.repeat(wave[..., None], channels, axis=-1))
    images = np.clip(np.stack(images) + 0.02 * rng.standard_normal((len(labels), *shape)), 0, 1)
    if dtype == "uint8":
        images = (255 * images).round()
    top = 255 if dtype == "uint8" else 1
    return vaeaug.LabelledImages(images.astype(dtype), labels, ("a", "b", "c"), (0, top))


VARIANTS = {
    "plain VAE": (2, ["model.conditional=false"]),
    "plain VAE of signals": (1, ["model.conditional=false"]),
    "beta-VAE": (2, ["model.beta=4.0"]),
    "beta-VAE of volumes": (3, ["model.beta=4.0"]),
    "adapted": (2, ["model.grouping=adapted"]),
    "adapted signals": (1, ["model.grouping=adapted"]),
    "adapted volumes": (3, ["model.grouping=adapted"]),
    "separate signals": (1, ["model.grouping=separate", "training.steps=16"]),
    "separate volumes, spatial": (
        3,
        ["model.grouping=separate", "model.latent=spatial", "training.steps=16"],
    ),
    "spatial": (2, ["model.latent=spatial"]),
    "spatial signals with a flow": (1, ["model.latent=spatial", "density.kind=flow"]),
    "spatial volumes with a flow": (3, ["model.latent=spatial", "density.kind=flow"]),
    "vectors with a flow": (
        2,
        ["density.kind=flow", "density.steps=300", "model.style_dim=0"],
    ),
    "style, detail and a flow": (2, ["density.kind=flow", "density.steps=300"]),
    "two levels of signals": (1, ["model.latent=hierarchical"]),
    "two levels of volumes": (3, ["model.latent=hierarchical", "density.kind=normal"]),
    "three levels": ((28, 28, 1), ["model.latent=hierarchical", "model.levels=3"]),
    "three levels of signals": (1, ["model.latent=hierarchical", "model.levels=3"]),
    "sigma per pixel": (2, ["model.likelihood=gaussian_per_pixel"]),
    "sigma per value of signals": (1, ["model.likelihood=gaussian_per_pixel"]),
    "Bernoulli": (2, ["model.likelihood=bernoulli"]),
    "Bernoulli volumes": (3, ["model.likelihood=bernoulli"]),
    "logistics": (2, ["model.likelihood=logistic_mixture"]),
    "logistics of signals": (1, ["model.likelihood=logistic_mixture", "model.grouping=adapted"]),
    "logistics of volumes": (3, ["model.likelihood=logistic_mixture"]),
    "VAE-GAN": (2, ["adversarial.steps=20"]),
    "VAE-GAN of signals": (1, ["adversarial.steps=20", "model.grouping=adapted"]),
    "VAE-GAN of volumes": (3, ["adversarial.steps=20", "model.latent=hierarchical"]),
    "feature matching": (2, ["training.feature_matching=1.0"]),
    "feature matching of signals": (1, ["training.feature_matching=1.0"]),
    "m2": (2, ["semi_supervised.mode=m2"]),
    "m2 of volumes": (3, ["semi_supervised.mode=m2", "model.latent=spatial"]),
    "pseudo labels": (1, ["semi_supervised.threshold=0.4"]),
    "pseudo labels of volumes": (3, ["semi_supervised.threshold=0.4"]),
    "denoising": (3, ["training.denoise=0.2"]),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_draws_and_survives_the_disk(variant, tmp_path):
    rank, overrides = VARIANTS[variant]
    shape = SHAPES.get(rank, rank)
    data = waves(shape)
    if variant.startswith(("m2", "pseudo")):
        held = np.arange(len(data)) % 3 == 0
        data = data.subset(~held).with_unlabelled(data.images[held])
    config = quick(*overrides)
    trained = train(data, config, device="cpu", folder=tmp_path / "run")
    first = trained.stages.get("trunk", trained.stages.get("class-000"))
    assert first.best[0] > first.first[0] + 5  # nats, held out
    assert not any(state.skipped for state in trained.stages.values())
    assert ("flow" in trained.stages) == (trained.flow is not None)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    losses = [line["loss"] for line in log if line["stage"] in ("trunk", "class-000")]
    assert losses[-1] < losses[0]
    if trained.flow is not None:
        assert trained.stages["flow"].best[0] > trained.stages["flow"].first[0]

    pool = trained.pool_labels if data.unlabelled is not None else None
    generator = vaeaug.Synthesizer.from_training(
        trained.model,
        data,
        seed=0,
        flow=trained.flow,
        pool_labels=pool,
        kind=config.density.kind,
    )
    generator.save(tmp_path / "model")
    again = vaeaug.load(tmp_path / "model")
    assert again.sha256 == generator.sha256
    for label in range(3):
        for sampler in ("auto", "prior", "posterior"):
            batch = generator.sample(label, 5, seed=1, sampler=sampler)
            assert batch.images.shape == (5, *shape)
            assert batch.images.dtype == np.uint8
            assert batch.latents.shape == (5, trained.model.latent_dim)
            other = again.sample(label, 5, seed=1, sampler=sampler)
            np.testing.assert_array_equal(batch.images, other.images)
    bound = generator.bound(data.images[:3], data.labels[:3], k=5)
    assert np.isfinite(bound).all()


def test_the_variants_are_of_every_rank():
    for rank in (1, 2, 3):
        assert sum(each[0] == rank for each in VARIANTS.values()) >= 8


def test_all_of_it_works_in_bfloat16():
    """No stage mixes types, and all weights stay finite."""
    data = waves(SHAPES[2])
    config = quick(
        "model.latent=hierarchical",
        "model.likelihood=logistic_mixture",
        "model.grouping=adapted",
        "semi_supervised.mode=m2",
        "training.feature_matching=1.0",
        "training.denoise=0.1",
        "training.steps=10",
        "training.precision=bfloat16",
        "adversarial.steps=10",
        "density.kind=flow",
    )
    trained = train(data.with_unlabelled(data.images[:9]), config, device="cpu")
    assert list(trained.stages) == ["classifier", "trunk", "adapt", "sharpen", "flow"]
    for state in trained.stages.values():
        assert not state.skipped
        assert np.isfinite(state.best).all()
    for network in (trained.model, trained.flow):
        assert all(each.isfinite().all() for each in network.state_dict().values())
        assert all(each.dtype == torch.float32 for each in network.parameters())


# -- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "dtype", "message"),
    [
        (
            ["model.conditional=false", "model.grouping=adapted"],
            "uint8",
            "model.conditional false: a network that never sees the class has nothing to adapt; "
            "expected model.grouping shared, got adapted",
        ),
        (
            ["model.likelihood=logistic_mixture"],
            "float32",
            "model.likelihood logistic_mixture: expected uint8 data, got float32",
        ),
        (
            [
                "model.conditional=false",
                "model.grouping=separate",
                "model.likelihood=logistic_mixture",
            ],
            "float32",
            "model.conditional false: a network that never sees the class has nothing to adapt; "
            "expected model.grouping shared, got separate; "
            "model.likelihood logistic_mixture: expected uint8 data, got float32",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_at_once(overrides, dtype, message):
    with pytest.raises(vaeaug.ConfigError) as error:
        train(waves(SHAPES[2], n=6, dtype=dtype), quick(*overrides), device="cpu")
    assert str(error.value) == message


def test_an_unknown_latent_is_refused_before_training():
    with pytest.raises(vaeaug.ConfigError, match=r"^configuration: model\.latent: .*got 'grid'$"):
        quick("model.latent=grid")
    with pytest.raises(ValueError, match="three latent levels: samples of shape"):
        train(
            waves((7, 7, 4, 1), n=6),
            quick("model.latent=hierarchical", "model.levels=3"),
            device="cpu",
        )


# -- VAE-GAN -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain():
    return train(waves(SHAPES[2]), quick("model.grouping=adapted"), device="cpu")


def test_sharpening_leaves_encoder_priors_and_class_rows_alone(plain):
    config = quick("model.grouping=adapted", "adversarial.steps=30")
    sharp = train(waves(SHAPES[2]), config, device="cpu")
    assert not sharp.stages["sharpen"].notes
    before, after = plain.model.state_dict(), sharp.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    # The sigma follows the decoder: it is calibrated to its errors again.
    assert "likelihood.log_sigma2" in moved
    moved.discard("likelihood.log_sigma2")
    assert all(name.startswith("decoder.") for name in moved)
    assert not any(".rows." in name for name in moved)
    assert "decoder.out.weight" in moved


def test_a_decoder_that_drifts_is_put_back(plain, monkeypatch):
    monkeypatch.setattr(adversarial, "WORST_ERROR", 1e-6)
    config = quick("model.grouping=adapted", "adversarial.steps=30", "training.patience=2")
    guarded = train(waves(SHAPES[2]), config, device="cpu")
    before, after = plain.model.state_dict(), guarded.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    notes = guarded.stages["sharpen"].notes
    assert len(notes) >= 2
    assert notes[0].startswith("adversarial training drifted at 33%: held-out error ")
    assert notes[0].endswith("adversarial.weight was lowered to 0.25")
    assert notes[1].endswith("adversarial.weight was lowered to 0.125")


def test_a_drift_takes_the_weights_that_go_on_learning_back_too(plain):
    data, config = waves(SHAPES[2]), quick("model.grouping=adapted", "adversarial.steps=30")
    model = copy.deepcopy(plain.model)
    good = {name: each.clone() for name, each in model.state_dict().items()}
    stage = Stage("sharpen", 30, (0, 1, 2))
    objective = adversarial.AdversarialObjective(
        Batches(data, config, torch.device("cpu")), config, stage, Discriminator(SHAPES[2], 3)
    )
    optimiser = torch.optim.SGD(model.parameters())
    average = copy.deepcopy(model)
    train_state = TrainState(model, average, dict(good), optimiser, StageRecord(), objective)
    objective.start(train_state)
    with torch.no_grad():
        for each in (model, average):
            each.decoder.out.bias.add_(3.0)
    figures = objective.evaluate(train_state, 0.5)
    assert figures["held_out_error"] > 4 > 2 * objective.first_error
    for each in (model, average):
        assert all(torch.equal(good[name], now) for name, now in each.state_dict().items())
    assert objective.weight == config.adversarial.weight / 2
    assert len(train_state.record.notes) == 1


def test_a_huge_adversary_does_not_ruin_the_decoder(plain):
    config = quick(
        "model.grouping=adapted",
        "adversarial.steps=60",
        "adversarial.weight=1000",
        "adversarial.features=0",
        "adversarial.learning_rate=0.05",
    )
    data = waves(SHAPES[2])
    found = train(data, config, device="cpu")
    assert found.stages["sharpen"].notes

    def error(model) -> float:
        x = torch.from_numpy(data.images).movedim(-1, 1).float() / 255
        y = torch.from_numpy(data.labels)
        with torch.no_grad():
            return float((model.decode(model.posterior(x, y)[0], y) - x).square().mean())

    assert error(found.model) < 2.5 * error(plain.model)


# -- Collapse ------------------------------------------------------------------------------------


def test_a_collapsed_posterior_is_rescued_and_said_to_be():
    config = vaeaug.load_config(
        None,
        [
            "model.width=8",
            "model.latent_dim=16",
            "model.grouping=shared",
            "model.style_dim=0",
            "training.steps=300",
            "training.batch_size=32",
            "training.eval_every=15",
            "training.weight_decay=0.0001",
        ],
    )
    data = faint(vaeaug.read("digits").imbalanced([60] * 10, seed=0))
    rescued = train(data, config, device="cpu")
    left = train(data, config.changed(**{"training.rescue": False}), device="cpu")
    state = rescued.stages["trunk"]
    assert state.notes[0].startswith("posterior collapse: ")
    assert "0 of 16 latent units were active at" in state.notes[0]
    assert state.notes[0].endswith("beta was lowered to 0.25 and free bits raised to 0.02 nats")
    assert state.collapse_adjustment[0] <= 1 / 4
    assert all(note in rescued.summary() for note in state.notes)
    # What the stage started from is still that.
    assert state.first == left.stages["trunk"].first
    assert not left.stages["trunk"].notes
    assert left.stages["trunk"].collapse_adjustment == [1.0, 0.0]
    active = [
        int((model.posterior(*scaled(data))[0].var(dim=0, correction=0) > 0.01).sum())
        for model in (rescued.model, left.model)
    ]
    assert active[1] <= 1
    assert active[0] >= active[1] + 3


def scaled(data: vaeaug.LabelledImages) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.from_numpy(data.images).movedim(-1, 1).float() / 255
    return x, torch.from_numpy(data.labels)


def test_a_healthy_posterior_is_left_alone(digits):
    trained = train(digits, quick(), device="cpu")
    assert trained.stages["trunk"].collapse_adjustment == [1.0, 0.0]
    (note,) = trained.stages["trunk"].notes
    assert note.startswith("undertrained: ")


# -- Budgets -------------------------------------------------------------------------------------


def test_progress_is_the_larger_part_of_steps_and_seconds():
    stage = Stage("trunk", 100, (0,))
    assert stage.progress(25, 1e9) == 0.25
    timed = Stage("trunk", 100, (0,), budget=10.0)
    assert timed.progress(25, 0.0) == 0.25
    assert timed.progress(25, 4.0) == 0.4
    assert timed.progress(80, 4.0) == 0.8
    assert timed.progress(100, 4.0) == timed.progress(3, 12.0) == 1.0


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.grouping=adapted"],
        ["adversarial.steps=10", "density.kind=flow", "training.feature_matching=1.0"],
        ["model.grouping=separate", "density.kind=flow"],
    ],
)
def test_the_parts_of_a_budget_add_up(overrides):
    data = waves(SHAPES[2])
    config = quick(*overrides, "training.budget_seconds=40")
    batches = Batches(data, config, torch.device("cpu"))
    pipeline = TrainingPipeline(data, config, batches, None, None)
    assert sum(pipeline.shares.values()) == pytest.approx(1)
    assert pipeline.shares.keys() <= SHARES.keys()
    stage = pipeline._stage("trunk", 10)
    assert stage.budget == pytest.approx(40 * pipeline.shares["trunk"])


def test_a_budget_ends_training_in_time():
    config = quick(
        "training.steps=null",
        "model.style_dim=0",
        "training.budget_seconds=1.5",
        "density.kind=flow",
        "density.steps=null",
    )
    began = time.process_time()
    stages = train(waves(SHAPES[2]), config, device="cpu").stages
    spent = time.process_time() - began
    assert stages.keys() == {"trunk", "flow"}
    for name, share in (("trunk", 2 / 3), ("flow", 1 / 3)):
        assert 3 <= stages[name].step < 10_000  # of ten millions
        # A stage ends with the step, and the evaluation, in which its time is over.
        assert share * 1.5 <= stages[name].seconds < share * 1.5 + 0.5
    assert stages["trunk"].best[0] > stages["trunk"].first[0]
    assert spent < 1.5 + 2


def test_a_budget_that_is_not_reached_changes_nothing():
    """The clock only ends a stage and slows its schedule; steps that come first decide."""
    data = waves(SHAPES[2])
    free = train(data, quick(), device="cpu").model.state_dict()
    timed = train(data, quick("training.budget_seconds=10000"), device="cpu").model.state_dict()
    assert all(torch.equal(free[name], timed[name]) for name in free)


# -- Denoising -----------------------------------------------------------------------------------


def test_the_encoder_sees_noise_and_the_decoder_is_asked_for_the_clean_image():
    data, config = waves(SHAPES[2]), quick("training.denoise=0.3")
    batches, stage = Batches(data, config, torch.device("cpu")), Stage("trunk", 30, (0, 1, 2))
    objective = ElboObjective(batches, config, stage)
    torch.manual_seed(0)
    model = CVAE(SHAPES[2], 3, latent_dim=4, width=8)
    x, y = batches.draw(stage, 5)
    with torch.no_grad():
        terms = objective.terms(model, x, y, 5)
        seen = x + 0.3 * batches.noise("trunk/corrupt", 5, tuple(x.shape))
        mean, logvar = model.posterior(seen, y)
        z = mean + (0.5 * logvar).exp() * batches.noise("trunk", 5, tuple(mean.shape))
        decoded = model.decode(z, y)
    assert (seen - x).std() == pytest.approx(0.3, rel=0.1)
    torch.testing.assert_close(terms.mean, decoded)
    clean = (x - decoded).square().flatten(1).sum(dim=1)
    torch.testing.assert_close(terms.squared_error, clean)


def test_a_denoising_model_cleans_up_images_it_has_not_seen():
    data = vaeaug.read("digits").imbalanced([100] * 10, seed=0)
    fit, held_out = data.split_off(0.1, seed=0)
    config = vaeaug.load_config(
        None,
        [
            "model.width=8",
            "model.grouping=shared",
            "training.steps=250",
            "training.denoise=0.3",
            "restoration.steps=0",
            "training.eval_every=100",
        ],
    )
    generator = vaeaug.fit(fit, config, device="cpu")
    clean = held_out.images.astype(float) / 255
    noise = 0.3 * np.random.default_rng(0).standard_normal(clean.shape)
    noisy = (255 * (clean + noise).clip(0, 1)).round().astype(np.uint8)

    def error(images: np.ndarray) -> float:
        return float(np.square(images / 255 - clean).mean())

    likeliest = generator.likeliest_labels(noisy)
    assert error(generator.reconstruct(noisy, held_out.labels)) < 0.8 * error(noisy)
    assert error(generator.reconstruct(noisy, likeliest)) < error(noisy)
