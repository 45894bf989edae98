"""Commands on finished runs and on configurations: merge, export, verify, inspect, config."""

import shlex
import sys
from pathlib import Path
from typing import Literal

import click

from vaeaug.cli._group import FAILED
from vaeaug.cli._options import (
    DATA,
    RUN,
    RunType,
    balance_of,
    complete_key,
    data_of,
    json_option,
    loaded,
    pool_option,
    pushed,
    run_argument,
    share_of,
    to_option,
    workers_option,
)
from vaeaug.cli.console import document_lines, print_document, print_merged
from vaeaug.files.names import for_stream


@click.command()
@click.argument("real", type=DATA)
@click.argument(
    "out",
    nargs=-1,
    required=True,
    type=RUN,
)
@to_option
@click.option(
    "--share",
    help="Synthetic share of every class, or `all`: every image once. Default: that of the run's "
    "search or plan.",
)
@click.option(
    "--balance/--no-balance",
    default=None,
    help="Make every class as large as the largest by repeating real images, or keep the real "
    "class counts. Default: the class sizes of the run's plan.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@workers_option
@json_option
def merge(
    *,
    real: str,
    out: tuple[Path, ...],
    to: Path,
    share: str | None,
    balance: bool | None,
    overwrite: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Write REAL and the synthetic images of OUT into one HDF5 file.

    REAL is read as the run in OUT read it. Several OUT that were made from the same data are
    merged into one; the plan is that of the first.
    """
    from vaeaug.merging import counts_of_file, write_merged

    images = data_of(real, out[0], None, workers)
    path = write_merged(
        images,
        out,
        to,
        share=None if share is None else share_of(share),
        balance=balance_of(balance),
        overwrite=overwrite,
    )
    print_merged({"file": str(to)}, counts_of_file(path), as_json)


@click.command()
@run_argument
@click.option(
    "--to", required=True, type=click.Path(path_type=Path), help="File or folder to write."
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["npz", "webdataset", "imagefolder", "gif", "huggingface", "wav", "flac"]),
    help="Default: by the suffix of --to, .npz or .tar; required for a folder.",
)
@click.option(
    "--real",
    type=DATA,
    metavar="DATA",
    help="Merge with these real images. Default: synthetic images only.",
)
@click.option("--share", help="With --real, as for `merge`.")
@click.option("--balance/--no-balance", default=None, help="With --real, as for `merge`.")
@click.option("--overwrite", is_flag=True, help="Replace the result of an earlier export.")
@workers_option
@json_option
def export(
    *,
    model: Path,
    to: Path,
    format_: Literal["npz", "webdataset", "imagefolder", "gif", "huggingface", "wav", "flac"]
    | None,
    real: str | None,
    share: str | None,
    balance: bool | None,
    overwrite: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Write the samples of the run MODEL for other programs, or its decoder (--to NAME.pt2).

    The decoder is a torch.export program. Samples go to an .npz file, WebDataset archives, a
    folder of PNG (of clips GIF), WAV or FLAC files by class, or a Hugging Face dataset.
    """
    from vaeaug.export import export_dataset
    from vaeaug.generator.export import export_decoder

    if to.suffix == ".pt2":
        if format_ or real or share or balance is not None:
            raise click.UsageError("--to NAME.pt2 writes the decoder: expected no other options")
        path = export_decoder(loaded(model, "cpu"), to)
        print_document({"file": str(path)}, str(path), as_json)
        return
    written = export_dataset(
        model,
        to,
        format=format_,
        real=None if real is None else data_of(real, model, None, workers),
        share=None if share is None else share_of(share),
        balance=balance_of(balance),
        overwrite=overwrite,
    )
    document = {"path": str(to), "format": written.format, "n": written.n}
    print_merged(document, written.classes, as_json)


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("url")
@json_option
def push(*, out: Path, url: str, as_json: bool) -> None:
    """Send the finished run OUT to an object store, such as s3://BUCKET/NAME; its manifest last.

    What is there already is not sent again. `merge`, `verify`, `inspect`, `export`, `screen` and
    commands on a generator take the URL in the place of a run folder.
    """
    result = pushed(out, url)
    print_document(vars(result), str(result), as_json)


@click.command()
@click.argument("out", type=RunType(is_copied=False))
@json_option
def verify(*, out: Path | str, as_json: bool) -> None:
    """Check every byte of a finished run, and report each wrong file.

    OUT is a run folder, or the URL of a run in an object store.
    """
    from vaeaug.shards import verify as check

    report = check(out)
    click.echo(report.to_json() if as_json else for_stream(str(report), sys.stdout))
    if not report.ok:
        sys.exit(FAILED)


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument(
    "samples",
    metavar="[LIST]",
    required=False,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--none", is_flag=True, help="Exclude nothing: bring every sample back.")
@click.option(
    "--data",
    type=DATA,
    help="Data of the run, to make its report again. Default: what the run was made from.",
)
@pool_option
@json_option
def exclude(
    *,
    out: Path,
    samples: Path | None,
    none: bool,
    data: str | None,
    pool: str | None,
    as_json: bool,
) -> None:
    """Publish the finished run OUT without the samples of LIST.

    LIST is what `studio` saved. Default: OUT/excluded.json. The shards are not changed: --none, or
    another LIST, brings samples back.
    """
    from vaeaug.job.exclusion import exclude as run
    from vaeaug.shards import LIST_NAME

    if none and samples is not None:
        raise click.UsageError(f"--none: expected no LIST, got {samples}")
    if not none and samples is None:
        samples = out / LIST_NAME
    images = None if data is None else data_of(data, out, pool, None)
    manifest = run(out, samples, images)
    excluded = sum(map(len, manifest.excluded.values()))
    document = {
        "out": str(out),
        "n": manifest.n_images,
        "excluded": excluded,
        "classes": {entry.name: entry.accepted for entry in manifest.classes},
    }
    text = f"{out}: {manifest.n_images} samples; {excluded} excluded, which stay in the shards"
    print_document(document, text, as_json)


@click.command()
@click.argument("out", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", type=DATA, help="Data of the run. Default: what the run was made from.")
@pool_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port on this machine; 0: any free one.",
)
@click.option("--open", "opened", is_flag=True, help="Open the page in a browser.")
def studio(*, out: Path, data: str | None, pool: str | None, port: int, opened: bool) -> None:
    """Open a page on this machine with every sample of the run OUT, to throw some out.

    Prints the address. Only this machine reaches it, and only with the token in it. Ctrl-C ends
    it. The list of thrown-out samples is saved in OUT/excluded.json, for `exclude`.
    """
    import webbrowser

    from vaeaug.job.exclusion import data_of_run
    from vaeaug.studio import Collection, Studio

    images = data_of(data, out, pool, None) if data is not None else None
    if (out / "run.json").exists():
        images = data_of_run(out, images, pool=pool)
    with Studio(Collection(out, images), port=port) as running:
        click.echo(running.url)
        if opened:
            webbrowser.open(running.url)
        try:
            running.wait()
        except KeyboardInterrupt:
            command = shlex.join(["vaeaug", "exclude", str(out)])
            click.echo(f"`{command}` publishes it without what was thrown out", err=True)


@click.command()
@click.argument("path", type=RunType(is_copied=False, file_okay=True))
@json_option
def inspect(*, path: Path | str, as_json: bool) -> None:
    """Describe a run folder or its URL, a generator, one shard or a merged file."""
    from vaeaug.job.inspection import describe

    document = describe(path)
    print_document(document, document_lines(document), as_json)


@click.command("config")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of configuration files.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False),
    metavar="FILE.yaml",
    help="Configuration file.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="a.b=c",
    shell_complete=complete_key,
    help="Set one configuration key.",
)
def show_config(schema: bool, config_file: str | None, overrides: tuple[str, ...]) -> None:
    """Print a complete configuration, with every default, as YAML; or the schema."""
    import json

    import yaml

    from vaeaug.config import json_schema, load_config

    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    document = load_config(config_file, overrides).to_json()
    click.echo(yaml.safe_dump(document, sort_keys=False), nl=False)
