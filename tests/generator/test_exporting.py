"""The decoder outside of this library, and on the hub."""

import sys

import numpy as np
import pytest
import torch

import vaeaug
from vaeaug.generator import SamplingError
from vaeaug.integrations import hub


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_exported_decoder_equals_the_module(synthesizer, tmp_path, n):
    path = vaeaug.export_decoder(synthesizer, tmp_path / "decoder.pt2")
    program = torch.export.load(path).module()
    z = torch.randn(n, synthesizer.model.latent_dim, generator=torch.Generator().manual_seed(n))
    y = torch.arange(n) % 10
    with torch.no_grad():
        ours = synthesizer.model.decode(z, y).clamp(0, 1)
        theirs = program(z, y)
    assert theirs.shape == (n, 1, 8, 8)
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    # As 8-bit images they are the same.
    images = theirs.movedim(1, -1).mul(255).round().numpy().astype(np.uint8)
    apart = np.abs(images.astype(int) - synthesizer.decode(z.numpy(), y.numpy()).astype(int))
    assert apart.max() <= 1


def test_no_half_written_program_is_left(synthesizer, tmp_path):
    vaeaug.export_decoder(synthesizer, tmp_path / "decoder.pt2")
    assert [each.name for each in tmp_path.iterdir()] == ["decoder.pt2"]


def test_a_place_that_cannot_be_written_is_said(synthesizer, tmp_path):
    path = tmp_path / "missing" / "decoder.pt2"
    with pytest.raises(SamplingError, match=r"decoder\.pt2: cannot be written: No such file"):
        vaeaug.export_decoder(synthesizer, path)


def test_another_ending_is_refused(synthesizer, tmp_path):
    with pytest.raises(SamplingError, match=r"export: expected a file that ends in \.pt2, got"):
        vaeaug.export_decoder(synthesizer, tmp_path / "decoder.onnx")


def test_separate_models_are_refused(digits, small_config, tmp_path):
    config = small_config.changed(**{"model.grouping": "separate", "training.steps": 1})
    generator = vaeaug.fit(digits, config, device="cpu")
    with pytest.raises(SamplingError, match="expected one model of all classes"):
        vaeaug.export_decoder(generator, tmp_path / "decoder.pt2")


def test_what_goes_to_the_hub_is_a_generator_with_a_card(synthesizer, tmp_path):
    hub.write_for_hub(synthesizer, tmp_path, "someone/digits")
    assert vaeaug.load(tmp_path).sha256 == synthesizer.sha256
    card = (tmp_path / "README.md").read_text()
    assert "synthetic" in card
    assert 'from_hub("someone/digits")' in card


def test_without_the_library_the_hub_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SamplingError, match=r"pip install 'vaeaug\[hub\]'"):
        hub.from_hub("someone/digits")
