"""Commands on a trained generator: encode, decode, reconstruct, denoise, traverse, styles."""

import statistics
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
    from vaeaug.job.applications import decode_from, write_like

    generator = loaded(model, device)
    images, labels = decode_from(latents, generator)
    write_like(to, generator, images, labels)
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
    from vaeaug.job.applications import check_fits, likeness, write_like

    _, images = request(data, **configuration)
    generator = loaded(model, device)
    check_fits(generator, images)
    reconstructions = generator.reconstruct(images.images, images.labels)
    write_like(to, generator, reconstructions, images.labels)
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
@click.option(
    "--noise-level",
    type=click.FloatRange(0, 10),
    help="Level of the noise that is removed (fraction of the value range). Default: estimated for "
    "each image.",
)
@click.option(
    "--poisson",
    type=click.FloatRange(min=0, min_open=True),
    metavar="PEAK",
    help="The noise is that of counting, with a mean count of PEAK for the highest value.",
)
@click.option(
    "--missing-value",
    type=float,
    help="Fill in the places that have this value in every channel of DATA.",
)
@click.option(
    "--learn-from",
    type=DATA,
    metavar="CLEAN",
    help="Train the network that removes noise on these images first, for a generator without one.",
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
    noise_level: float | None,
    poisson: float | None,
    missing_value: float | None,
    learn_from: str | None,
    use_labels: bool,
    device: str,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Denoise the images of DATA, and write an HDF5 file of images.

    With --noise, the clean images are known, and PSNR and SSIM before and after are printed.
    """
    from vaeaug.job.applications import (
        add_noise,
        check_fits,
        denoising_text,
        likeness,
        write_like,
    )
    from vaeaug.stages import fit_restorer

    config, images = request(data, **configuration)
    generator = loaded(model, device)
    check_fits(generator, images)
    if learn_from is not None:
        _, clean = request(learn_from, **configuration)
        check_fits(generator, clean)
        fit_restorer(generator, clean, config, device=device)
    noisy = images.images
    missing = None if missing_value is None else (noisy == missing_value).all(axis=-1)
    if noise is not None:
        noisy = add_noise(noisy, images.value_range, sigma=noise, seed=config.seed)
    known_labels = images.labels if use_labels else None
    cleaned = generator.denoise(
        noisy, known_labels, noise_level=noise_level, poisson_peak=poisson, missing=missing
    )
    labels = images.labels if use_labels else generator.likeliest_labels(cleaned)
    write_like(to, generator, cleaned, labels)
    document: dict[str, Any] = {
        "file": str(to),
        "n": len(cleaned),
        "restorer": generator.restorer is not None,
    }
    if noise_level is None and poisson is None:
        levels = generator.noise_level(noisy, missing=missing).tolist()
        document["estimated_noise"] = statistics.median(levels)
    if noise is not None:
        before = likeness(noisy, images.images, images.value_range)
        after = likeness(cleaned, images.images, images.value_range)
        document |= {"noisy": vars(before), "cleaned": vars(after)}
    print_document(document, denoising_text(document), as_json)


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
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    metavar="NAME",
    help="With --data: the direction of a measured attribute such as slant, or all; may be "
    "repeated.",
)
@click.option("--data", type=DATA, help="The images that MODEL was trained on, for --attribute.")
@configured
@device_option
def traverse(
    *,
    model: Path,
    to: Path,
    names: tuple[str, ...],
    units: int,
    attributes: tuple[str, ...],
    data: str | None,
    device: str,
    **configuration: Any,
) -> None:
    """Draw the effect of each latent unit of the generator MODEL, as a PNG file.

    Of clips and volumes --to NAME.gif draws an animation, frame by frame.
    """
    from vaeaug.job.applications import write_attributes_traversal, write_traversal

    if bool(attributes) != (data is not None):
        raise click.UsageError("--attribute and --data are given together")
    generator = loaded(model, device)
    shown = names or [
        name for name, rows in zip(generator.class_names, generator.rows, strict=True) if len(rows)
    ]
    if data is None:
        click.echo(str(write_traversal(to, generator, list(shown), n_units=units)))
        return
    _, images = request(data, **configuration)
    wanted = [] if "all" in attributes else list(attributes)
    path, drawn = write_attributes_traversal(to, generator, images, shown, attributes=wanted)
    for direction in drawn:
        click.echo(
            f"{direction.name}: of a change by 1 standard deviation {direction.kept:.0%} is "
            "measured in the samples"
        )
    click.echo(str(path))


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
    """Draw every class of DATA in the styles of frequent ones, as a PNG file (of clips: or GIF)."""
    from vaeaug.job.applications import check_fits, write_styles

    _, images = request(data, **configuration)
    generator = loaded(model, device)
    check_fits(generator, images)
    rarest = sorted(range(images.n_classes), key=lambda label: images.counts[label])
    shown = names or [images.class_names[label] for label in rarest if images.counts[label]]
    click.echo(str(write_styles(to, generator, images, list(shown), n_styles=n_styles)))
