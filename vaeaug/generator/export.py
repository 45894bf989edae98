"""The decoder by itself, for places where this library is not: a `torch.export` program."""

import io
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vaeaug.files import cannot_write, publish
from vaeaug.generator import SamplingError, Synthesizer
from vaeaug.models import CVAE


class _Decoder(nn.Module):
    """(z, class) to samples in [0, 1], channels first."""

    def __init__(self, model: CVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Float[Tensor, "n z"], y: Int[Tensor, " n"]) -> Float[Tensor, "n c *space"]:
        return self.model.decode(z, y).clamp(0, 1)


def export_decoder(generator: Synthesizer, path: str | Path) -> Path:
    """Write the decoder as a ``.pt2`` program with a dynamic batch.

    ``torch.export.load(path).module()(z, y)`` gives, for z of shape (n, z) and class indices y of
    shape (n,), samples of shape (n, C, *space) in [0, 1].

    Args:
        generator: A generator of adapted or shared grouping.
        path: Ends in ``.pt2``.

    Returns:
        The path.

    Raises:
        SamplingError: If the path ends otherwise, or the grouping is "separate", whose decoder
            depends on the classes in the batch, or an image codec decodes.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise SamplingError(f"export: expected a file that ends in .pt2, got {path}")
    if not isinstance(generator.model, CVAE):
        raise SamplingError(
            "export: expected one model of all classes (adapted or shared), got separate ones; "
            "export each class's own: generator.model.of_class(label)"
        )
    if generator.codec.latent_space is not None:
        raise SamplingError(
            "export: expected a generator of images, got one of latents of the image codec "
            f"{generator.codec.latent_space.codec.source!r}, which decodes them"
        )
    device = generator.device
    example = (
        torch.zeros(2, generator.model.latent_dim, dtype=torch.float32, device=device),
        torch.zeros(2, dtype=torch.long, device=device),
    )
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        program = torch.export.export(
            _Decoder(generator.model).eval(), example, dynamic_shapes=({0: batch}, {0: batch})
        )
    content = io.BytesIO()
    torch.export.save(program, content)
    try:
        publish(path, content.getvalue())
    except OSError as error:
        size = content.getbuffer().nbytes
        raise SamplingError(cannot_write(path, error, size, "the generator is kept")) from error
    return path
