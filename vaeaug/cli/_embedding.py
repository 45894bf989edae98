"""The command that embeds images with a frozen backbone."""

from pathlib import Path
from typing import Any

import click

from vaeaug.cli._options import (
    DATA,
    configured,
    device_option,
    json_option,
    progress_enabled,
    request,
    size_of,
)
from vaeaug.cli.console import print_document


@click.command()
@click.argument("data", type=DATA)
@click.option(
    "--backbone",
    required=True,
    metavar="BACKBONE",
    help="torchvision:NAME:WEIGHTS or timm:NAME:WEIGHTS, where WEIGHTS is a file; or FILE.py:NAME, "
    "a function, network or factory in a Python file, which is run with all your rights. Nothing "
    "is downloaded.",
)
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write."
)
@click.option(
    "--views",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    help="Views of each image: itself and others under classic augmentation.",
)
@click.option("--flip", is_flag=True, help="Mirror half of the views left to right.")
@click.option(
    "--input-size",
    metavar="HxW",
    help="Size that the backbone gets. Default: what it states, 224x224 for torchvision.",
)
@click.option(
    "--batch-size",
    default=64,
    show_default=True,
    type=click.IntRange(min=1),
    help="Images at a time.",
)
@click.option("--random-weights", is_flag=True, help="Untrained weights, for a trial.")
@configured
@device_option
@json_option
def embed(
    *,
    data: str,
    backbone: str,
    out: Path,
    views: int,
    flip: bool,
    input_size: str | None,
    batch_size: int,
    random_weights: bool,
    device: str,
    as_json: bool,
    **configuration: Any,
) -> None:
    """Embed DATA with a frozen backbone, and write an HDF5 file of features that all commands read.

    A test set is embedded by `--split test` with one view.
    """
    from vaeaug.embedding import Views
    from vaeaug.embedding import embed as run

    config, images = request(data, **configuration)
    embedded = run(
        images,
        backbone,
        out,
        views=Views(views, flip=flip),
        batch_size=batch_size,
        size=None if input_size is None else size_of(input_size),
        random_weights=random_weights,
        seed=config.seed,
        device=device,
        progress=progress_enabled(),
    )
    n_features = embedded.image_shape[-1]
    document = {
        "file": str(out),
        "images": len(images),
        "views": views,
        "n": len(embedded),
        "features": n_features,
        "backbone": backbone,
    }
    text = f"{out}: {len(embedded)} vectors of {n_features} features, {views} of each image"
    print_document(document, text, as_json)
