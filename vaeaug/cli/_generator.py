"""Commands on a trained generator: encode, decode, reconstruct, denoise, traverse, styles."""

from pathlib import Path
from typing import Any

import click

from vaeaug.cli._options import (
    DATA,
    configured,
    device_option,
    generator_argument,
    json_option,
    loaded,
    request,
    to_option,
)
from vaeaug.cli.console import (
    print_document,
)


@click.command()
@generator_argument
@click.argument("data", type=DATA)
@to_option
@configured
@device_option
@json_option
def encode(
    *, model: Path, data: str, to: Path, device: str, as_json: bool, **configuration: Any
) -> None:
    """Compress DATA to an HDF5 file of latents with the generator MODEL."""
    from vaeaug.job.applications import Likeness, encode_to

    _, images = request(data, **configuration)
    metrics = encode_to(to, loaded(model, device), images)
    loss = metrics["reconstruction"]
    bits = metrics["bits_per_value"]
    text = (
        f"{to}: {metrics['n']} samples, {metrics['stored_bits_per_value']:.2f} bits per value as "
        f"stored (original {metrics['original_bits_per_value']})"
        + (f", bound of lossless coding {bits:.2f}" if bits is not None else "")
        + f"; reconstruction: {Likeness(**loss)}"
    )
    print_document(metrics, text, as_json)


@click.command()
@click.argument("latents", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@generator_argument
@to_option
@device_option
@json_option
def decode(*, latents: Path, model: Path, to: Path, device: str, as_json: bool) -> None:
    """Decode LATENTS, a file that `encode` wrote, to an HDF5 file of images."""
    from vaeaug.job.applications import decode_from, write_images

    generator = loaded(model, device)
    images, labels = decode_from(latents, generator)
    write_images(to, generator, images, labels)
    print_document({"file": str(to), "n": len(images)}, f"{to}: {len(images)} samples", as_json)


@click.command()
@generator_argument
@click.argument("data", type=DATA)
@to_option
@configured
@device_option
@json_option
def reconstruct(
    *, model: Path, data: str, to: Path, device: str, as_json: bool, **configuration: Any
) -> None:
    """Encode and decode DATA with the generator MODEL, and write an HDF5 file of images."""
    from vaeaug.job.applications import check_fits, likeness, write_images

    _, images = request(data, **configuration)
    generator = loaded(model, device)
    check_fits(generator, images)
    reconstructions = generator.reconstruct(images.images, images.labels)
    write_images(to, generator, reconstructions, images.labels)
    found = likeness(reconstructions, images.images, images.value_range)
    metrics, text = vars(found), f"{to}: {found}"
    print_document({"file": str(to), "n": len(reconstructions), **metrics}, text, as_json)


@click.command()
@generator_argument
@click.argument("data", type=DATA)
@to_option
@configured
@click.option(
    "--noise",
    type=click.FloatRange(min=0),
    help="DATA is clean: add noise of this standard deviation (fraction of the value range).",
)
@click.option("--use-labels", is_flag=True, help="Use DATA's labels. Default: the likeliest label.")
@device_option
@json_option
def denoise(
    *,
    model: Path,
    data: str,
    to: Path,
    noise: float | None,
    use_labels: bool,
    device: str,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Denoise the images of DATA, and write an HDF5 file of images.

    With --noise, the clean images are known, and PSNR and SSIM before and after are printed.
    """
    from vaeaug.job.applications import add_noise, check_fits, likeness, write_images

    config, images = request(data, **configuration)
    generator = loaded(model, device)
    check_fits(generator, images)
    noisy = images.images
    if noise is not None:
        noisy = add_noise(noisy, images.value_range, sigma=noise, seed=config.seed)
    labels = images.labels if use_labels else generator.likeliest_labels(noisy)
    cleaned = generator.denoise(noisy, labels)
    write_images(to, generator, cleaned, labels)
    document: dict[str, Any] = {"file": str(to), "n": len(cleaned)}
    text = f"{to}: {len(cleaned)} samples"
    if noise is not None:
        before = likeness(noisy, images.images, images.value_range)
        after = likeness(cleaned, images.images, images.value_range)
        document |= {"noisy": vars(before), "cleaned": vars(after)}
        text += f"; noisy {before}; cleaned {after}"
    print_document(document, text, as_json)


@click.command()
@generator_argument
@to_option
@click.option("--class", "names", multiple=True, metavar="NAME", help="Default: every class.")
@click.option(
    "--units",
    default=8,
    show_default=True,
    type=click.IntRange(min=1, max=64),
    help="Number of latent units or directions per class.",
)
@device_option
def traverse(model: Path, to: Path, names: tuple[str, ...], units: int, device: str) -> None:
    """Draw the effect of each latent unit of the generator MODEL, as a PNG file."""
    from vaeaug.job.applications import write_traversal

    generator = loaded(model, device)
    shown = names or [
        name for name, rows in zip(generator.class_names, generator.rows, strict=True) if len(rows)
    ]
    click.echo(str(write_traversal(to, generator, list(shown), n_units=units)))


@click.command()
@generator_argument
@click.argument("data", type=DATA)
@to_option
@click.option(
    "--class",
    "names",
    multiple=True,
    metavar="NAME",
    help="A class to draw; may be repeated. Default: all classes, the rarest first.",
)
@click.option(
    "--styles",
    "n_styles",
    type=click.IntRange(1, 64),
    default=12,
    show_default=True,
    help="Number of images of frequent classes that lend their styles.",
)
@configured
@device_option
def styles(
    *,
    model: Path,
    data: str,
    to: Path,
    names: tuple[str, ...],
    n_styles: int,
    device: str,
    **configuration: Any,
) -> None:
    """Draw every class of DATA in the styles of frequent ones, as a PNG file."""
    from vaeaug.job.applications import check_fits, write_styles

    _, images = request(data, **configuration)
    generator = loaded(model, device)
    check_fits(generator, images)
    rarest = sorted(range(images.n_classes), key=lambda label: images.counts[label])
    shown = names or [images.class_names[label] for label in rarest if images.counts[label]]
    click.echo(str(write_styles(to, generator, images, list(shown), n_styles=n_styles)))
