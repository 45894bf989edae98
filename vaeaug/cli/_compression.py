"""Commands that compress images: coder, compress, decompress."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import click

from vaeaug.cli._options import (
    DATA,
    configured,
    device_option,
    json_option,
    loaded,
    request,
    to_option,
)
from vaeaug.cli.console import print_document

if TYPE_CHECKING:
    from vaeaug.compression import ImageCoder, LossyCoder

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_generator_option = click.option(
    "--generator",
    "model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="MODEL",
    help="The generator whose latents are coded, a run or a model folder.",
)


@click.command()
@click.argument("data", type=DATA)
@to_option
@_generator_option
@click.option("--lossy", is_flag=True, help="Train a coder with loss; needs --generator.")
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=1500,
    show_default=True,
    help="Training steps of a coder without loss.",
)
@click.option(
    "--rounded",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of training images that are rounded to a few gray levels, for compress --levels.",
)
@configured
@device_option
@json_option
def coder(
    *,
    data: str,
    to: Path,
    model: Path | None,
    lossy: bool,
    steps: int,
    rounded: float,
    device: str,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Train a coder of images like those of DATA, and write it as one file.

    Without --generator the coder sees the pixels before the one that it codes, which measured
    smallest; with it, the generator's latents as well, by bits-back coding.
    """
    from vaeaug.compression import fit_coder, fit_lossy_coder

    if lossy and model is None:
        raise click.UsageError("--lossy: expected --generator too, got none")
    config, images = request(data, **configuration)
    generator = None if model is None else loaded(model, "cpu")
    document: dict[str, Any] = {"file": str(to)}
    if lossy and generator is not None:
        measured = fit_lossy_coder(images, generator, seed=config.seed)
        measured.save(to)
        document["bytes"] = measured.n_bytes
        text = f"{to}: lossy, {measured.n_bytes:,} bytes and the generator"
    else:
        trained = fit_coder(
            images, generator, steps=steps, rounded=rounded, seed=config.seed, device=device
        )
        trained.save(to)
        document |= {"bytes": trained.n_bytes} | trained.notes
        text = (
            f"{to}: {trained.n_bytes:,} bytes{'' if model is None else ' and the generator'}; "
            f"held-out images take {trained.notes['held_out_bits']:.2f} bits per value"
            + ("" if model is None else " and their latents")
        )
    print_document(document, text, as_json)


@click.command()
@click.argument("coder", type=_FILE)
@click.argument("data", type=DATA)
@to_option
@_generator_option
@click.option(
    "--quality",
    type=click.IntRange(1, 13),
    help="With a lossy coder: 1 is the smallest file, 13 the least loss. Default: 9.",
)
@click.option(
    "--levels",
    type=click.IntRange(2, 255),
    help="Round values to so many gray levels before. Default: no loss.",
)
@configured
@json_option
def compress(
    *,
    coder: Path,
    data: str,
    to: Path,
    model: Path | None,
    quality: int | None,
    levels: int | None,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Compress the images and labels of DATA with CODER, which `vaeaug coder` wrote."""
    from vaeaug.compression import LossyCoder, compress, decompress, write_compressed
    from vaeaug.job.applications import likeness

    _, images = request(data, **configuration)
    chosen = _load(coder, model)
    if isinstance(chosen, LossyCoder):
        if levels is not None:
            raise click.UsageError(f"--levels: {coder} is lossy; expected --quality")
        made = chosen.compress(images.images, images.labels, quality=quality or 9)
    elif quality is not None:
        raise click.UsageError(f"--quality: expected a lossy coder, got {coder}; use --levels")
    else:
        made = compress(chosen, images.images, images.labels, levels=levels)
    write_compressed(to, made.content)
    document: dict[str, Any] = {
        "file": str(to),
        "n": len(images),
        "bytes": len(made.content),
        "bits_per_value": made.bits_per_value,
        "method": made.method,
        "coder_bytes": chosen.n_bytes,
    }
    text = (
        f"{to}: {len(images)} images, {len(made.content):,} bytes, {made.bits_per_value:.3f} bits "
        f"per value; the coder has {chosen.n_bytes:,} bytes"
    )
    if isinstance(chosen, LossyCoder) or levels is not None:
        if isinstance(chosen, LossyCoder):
            restored = chosen.decompress(made.content)[0]
        else:
            restored = decompress(made.content, chosen)[0]
        found = likeness(restored, images.images, images.value_range)
        document |= vars(found)
        text += f"; {found}"
    if made.method == "deflate":
        text += "; deflated, because these images are unlike those that the coder knows"
    print_document(document, text, as_json)


@click.command()
@click.argument("file", type=_FILE)
@click.argument("coder", type=_FILE)
@to_option
@_generator_option
@json_option
def decompress(*, file: Path, coder: Path, to: Path, model: Path | None, as_json: bool) -> None:
    """Decompress FILE, which `vaeaug compress` wrote with CODER, to an HDF5 file of images."""
    from vaeaug.compression import CompressionError, decompress, read_compressed
    from vaeaug.shards import write_images

    chosen = _load(coder, model)
    content = read_compressed(file)
    try:
        images, labels = decompress(content, chosen)
    except CompressionError as error:
        raise CompressionError(f"{file}: {error}") from error
    write_images(to, images, labels, class_names=chosen.class_names)
    print_document({"file": str(to), "n": len(images)}, f"{to}: {len(images)} images", as_json)


def _load(path: Path, model: Path | None) -> Union["ImageCoder", "LossyCoder"]:
    from vaeaug.compression import load_coder

    return load_coder(path, None if model is None else loaded(model, "cpu"))
