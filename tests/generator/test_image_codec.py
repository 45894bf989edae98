"""A generator in the latents of a frozen autoencoder, which the test trains."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import vaeaug
from tests.small_job import tiny_config
from vaeaug.cli import main
from vaeaug.generator import ImageCodec, ImageCodecError, LatentSpace, SamplingError, draw_batch

SOURCE = '''
import pathlib
import torch
from torch import nn


class Autoencoder(nn.Module):
    """Halves each side; 4 channels."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.SiLU(), nn.Conv2d(16, 4, 3, 1, 1))
        self.up = nn.Sequential(
            nn.Conv2d(4, 16, 3, 1, 1), nn.SiLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1)
        )

    def encode(self, x):
        return self.down(2 * x - 1)

    def decode(self, z):
        return self.up(z)


def codec():
    network = Autoencoder()
    network.load_state_dict(torch.load(pathlib.Path(__file__).with_suffix(".pt")))
    return network


class Flat:
    def encode(self, x):
        return x.flatten(1)

    def decode(self, z):
        return z


class Smaller(Flat):
    def encode(self, x):
        return x

    def decode(self, z):
        return z[..., :-1]


number = 7
'''


@pytest.fixture(scope="module")
def large(digits):
    """The digits with every pixel four times: latents are at least 8 x 8."""
    images = np.kron(digits.images, np.ones((1, 2, 2, 1), np.uint8))
    return vaeaug.read((images, digits.labels))


@pytest.fixture(scope="module")
def codec(large, tmp_path_factory):
    """An autoencoder of the digits, trained for a few seconds, as a user would bring it."""
    folder = tmp_path_factory.mktemp("codec")
    path = folder / "autoencoder.py"
    path.write_text(SOURCE)
    names: dict = {"__file__": str(path)}
    exec(compile(SOURCE, str(path), "exec"), names)
    torch.manual_seed(0)
    network = names["Autoencoder"]()
    x = torch.from_numpy(large.images).movedim(-1, 1).float() / 255
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(300):
        loss = (network.decode(network.encode(x)) - x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.005
    torch.save(network.state_dict(), path.with_suffix(".pt"))
    return f"{path}:codec"


@pytest.fixture(scope="module")
def generator(large, codec):
    config = tiny_config(**{"model.codec": codec, "model.width": 16, "training.steps": 300})
    config = config.changed(**{"model.latent_dim": 24, "model.class_embedding": 32})
    return vaeaug.fit(large, config, device="cpu")


def test_samples_are_images_that_the_codec_decoded(generator, large, codec):
    assert generator.model.image_shape == (8, 8, 4)
    batch = generator.sample(3, 40, seed=0, sampler="prior")
    assert batch.images.shape == (40, 16, 16, 1)
    assert batch.images.dtype == np.uint8
    z = torch.from_numpy(batch.latents)
    y = torch.full((40,), 3)
    with torch.no_grad():
        space = generator.codec.latent_space
        h = generator.model.decode(z, y) * (space.high - space.low) + space.low
        expected = ImageCodec.load(codec).network.decode(h).clamp(0, 1)
    expected = (255 * expected).round().numpy().astype(np.uint8).transpose(0, 2, 3, 1)
    assert np.abs(expected.astype(int) - batch.images).max() <= 1


def test_reconstructions_and_edits_go_through_the_latents(generator, large):
    few = large.subset(np.arange(60))
    again = generator.reconstruct(few.images, few.labels)
    error = np.square(again.astype(float) - few.images).mean()
    assert error < 0.5 * few.images.astype(float).var(axis=0).mean()
    generator.attach(large)
    edits = generator.sample(1, 8, seed=0, sampler="interpolate", residual=True)
    assert edits.images.shape == (8, 16, 16, 1)
    live = draw_batch(generator, np.array([0, 1, 2]), seed=0, sampler="prior")
    assert live.shape == (3, 1, 16, 16)
    assert live.min() >= 0
    assert live.max() <= 1


def test_a_generator_names_its_codec_and_runs_no_file_unasked(generator, codec, tmp_path):
    generator.save(tmp_path / "g")
    with pytest.raises(SamplingError, match=r"expected codec= \(--codec\), for the images"):
        vaeaug.load(tmp_path / "g")
    loaded = vaeaug.load(tmp_path / "g", codec=codec)
    np.testing.assert_array_equal(
        loaded.sample(2, 5, seed=1, sampler="prior").images,
        generator.sample(2, 5, seed=1, sampler="prior").images,
    )
    path = codec.rpartition(":")[0]
    other = tmp_path / "autoencoder.py"
    shutil.copy(path, other)
    weights = torch.load(path.replace(".py", ".pt"))
    torch.save({key: value + 0.1 for key, value in weights.items()}, other.with_suffix(".pt"))
    with pytest.raises(SamplingError, match=r"expected the codec .* of sha256"):
        vaeaug.load(tmp_path / "g", codec=f"{other}:codec")


def test_a_codec_is_pickled_by_its_source(codec):
    first = ImageCodec.load(codec)
    again = pickle.loads(pickle.dumps(first))  # noqa: S301 - its own bytes
    assert again.sha256 == first.sha256
    x = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(again.encode(x), first.encode(x))


def test_a_whole_run_on_the_command_line(large, codec, tmp_path):
    np.savez(tmp_path / "d.npz", images=large.images, labels=large.labels)
    options = [f"--set={key}={value}" for key, value in tiny_options().items()]
    command = ["augment", str(tmp_path / "d.npz"), "--out", str(tmp_path / "run"), "--codec", codec]
    done = CliRunner().invoke(main, [*command, *options])
    assert done.exit_code == 0, done.output
    data = vaeaug.read(tmp_path / "d.npz")
    merged = vaeaug.merge(data, tmp_path / "run")
    assert sum(row.synthetic for row in merged.counts) > 0
    picture = ["traverse", str(tmp_path / "run"), "--to", str(tmp_path / "t.png")]
    refused = CliRunner().invoke(main, picture)
    assert refused.exit_code != 0
    assert "--codec" in refused.output
    drawn = CliRunner().invoke(main, [*picture, "--codec", codec])
    assert drawn.exit_code == 0, drawn.output
    again = CliRunner().invoke(main, [*command, *options])
    assert again.exit_code == 0, again.output


def tiny_options():
    from tests.small_job import TINY

    return TINY


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Flat", r"expected latents of shape \(.*\) from encode"),
        ("Smaller", r"expected images of shape \(n, 1, 16, 16\) from decode"),
        ("number", "expected an object with encode and decode, .* got int"),
        ("absent", "expected an object with encode and decode, .* got NoneType"),
    ],
)
def test_a_codec_that_cannot_be_used_is_refused(large, codec, name, message):
    source = f"{codec.rpartition(':')[0]}:{name}"
    with pytest.raises(ImageCodecError, match=message):
        LatentSpace.fitted(ImageCodec.load(source), large, device="cpu")


def test_what_is_no_codec_is_named(tmp_path):
    with pytest.raises(ImageCodecError, match=r"expected FILE.py:NAME or a folder .* 'absent'"):
        ImageCodec.load("absent")
    with pytest.raises(ImageCodecError, match="expected a Python file, got no file"):
        ImageCodec.load(f"{tmp_path}/absent.py:codec")
    with pytest.raises(ImageCodecError, match=r"got no config\.json"):
        ImageCodec.load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ImageCodecError, match="AutoencoderKL or AutoencoderTiny, got UNet2DModel"):
        ImageCodec.load(str(tmp_path))
    for text in ("{", "[]", "{}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ImageCodecError, match=r"expected config\.json to name a class"):
            ImageCodec.load(str(tmp_path))


def test_signals_have_no_image_codec(codec):
    rng = np.random.default_rng(0)
    signals = vaeaug.read((rng.random((20, 16, 1), np.float32), np.arange(20) % 2), layout="NLC")
    with pytest.raises(ImageCodecError, match="expected images, got"):
        LatentSpace.fitted(ImageCodec.load(codec), signals, device="cpu")


def autoencoder_of(kind, **channels):
    """A small one of diffusers, of random weights, that divides sides by 8."""
    diffusers = pytest.importorskip("diffusers", reason="the extra codec is not installed")
    torch.manual_seed(0)
    if kind == "AutoencoderTiny":
        blocks = {"num_encoder_blocks": (1,) * 4, "num_decoder_blocks": (1,) * 4}
        widths = {f"{end}_block_out_channels": (8,) * 4 for end in ("encoder", "decoder")}
    else:
        blocks = {
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "norm_num_groups": 4,
        }
        widths = {"block_out_channels": (8,) * 4}
    return getattr(diffusers, kind)(**blocks, **widths, in_channels=3, out_channels=3)


@pytest.fixture(scope="module", params=["AutoencoderKL", "AutoencoderTiny"])
def folder(request, tmp_path_factory):
    """What `save_pretrained` leaves."""
    path = tmp_path_factory.mktemp("weights") / request.param
    autoencoder_of(request.param).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def photos(large):
    """The digits in colour, at 64 x 64."""
    images = np.kron(large.images[:24], np.ones((1, 4, 4, 3), np.uint8))
    return images, np.arange(24) % 2


def test_a_folder_of_diffusers_encodes_and_decodes_as_diffusers_does(folder):
    import diffusers

    network = getattr(diffusers, folder.name).from_pretrained(folder, low_cpu_mem_usage=False)
    x = torch.rand(2, 3, 64, 64)
    codec = ImageCodec.load(str(folder))
    with torch.no_grad():
        encoded = network.encode(2 * x - 1)
        latents = encoded.latents if "Tiny" in folder.name else encoded.latent_dist.mode()
        images = (network.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    assert latents.shape == (2, 4, 8, 8)
    torch.testing.assert_close(codec.encode(x), latents)
    torch.testing.assert_close(codec.decode(latents, (3, 64, 64)), images)
    with pytest.raises(ImageCodecError, match="expected images of 3 channels, got 1; --mode RGB"):
        codec.encode(x[:, :1])
    with pytest.raises(ImageCodecError, match=r"expected images of shape \(n, 3, 68, 64\)"):
        codec.decode(codec.encode(torch.rand(1, 3, 68, 64)), (3, 68, 64))


def test_a_run_with_a_folder_of_diffusers(folder, photos, tmp_path):
    np.savez(tmp_path / "d.npz", images=photos[0], labels=photos[1])
    options = [f"--set={key}={value}" for key, value in tiny_options().items()]
    run = tmp_path / "run"
    command = ["train", str(tmp_path / "d.npz"), "--out", str(run), "--codec", str(folder)]
    done = CliRunner().invoke(main, [*command, *options])
    assert done.exit_code == 0, done.output
    # Weights run no code, so that the folder that the generator names is enough.
    generator = vaeaug.load(run / "model")
    assert generator.model.image_shape == (8, 8, 4)
    generator.attach(vaeaug.read(tmp_path / "d.npz"))
    edits = generator.sample(1, 3, seed=0, sampler="interpolate", residual=True).images
    assert edits.shape == (3, 64, 64, 3)
    other = tmp_path / "other"
    network = autoencoder_of(folder.name)
    torch.nn.init.constant_(next(network.parameters()), 0.1)
    network.save_pretrained(other)
    with pytest.raises(SamplingError, match=r"expected the codec .* of sha256"):
        vaeaug.load(run / "model", codec=str(other))


def test_a_folder_of_diffusers_without_its_weights_is_refused(folder, tmp_path):
    shutil.copy(folder / "config.json", tmp_path)
    with pytest.raises(ImageCodecError, match=f"expected weights of {folder.name}"):
        ImageCodec.load(str(tmp_path))
    weights = "diffusion_pytorch_model.safetensors"
    (tmp_path / weights).write_bytes((folder / weights).read_bytes()[:5000])
    with pytest.raises(ImageCodecError, match=f"expected weights of {folder.name}"):
        ImageCodec.load(str(tmp_path))
