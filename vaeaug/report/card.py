"""``README.md`` of a run folder: a dataset card in the format of the Hugging Face Hub."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaeaug.files.names import for_code, for_markdown
from vaeaug.report import gate_view, run_view, words
from vaeaug.report.document import Document
from vaeaug.shards import publish_bytes

# The Hub has a task only for images with two spatial axes.
_TASKS = {"NHWC": "image-classification"}
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
_LARGEST = "10M<n<100M"


def write_card(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write ``README.md`` atomically.

    The licence is left to the user, and a line says so: it must be compatible with that of the real
    data.

    Args:
        folder: The run folder.
        content: The document, as for `write_report`.

    Returns:
        Path of the file.

    Raises:
        ShardError: If the file cannot be written.
    """
    document = Document.parse(content)
    sections = [
        _front_matter(document),
        f"# {_escaped(document.title or 'A dataset')}, augmented",
        _intro(document),
        _does_it_help(document),
        _counts(document),
        _how_made(document),
        _how_to_load(),
        _limits(document),
        _provenance(document),
        "## Licence\n\nNot chosen yet. Synthetic images are derived from the real ones: the "
        "licence has to be compatible with theirs. Write it here and as `license:` at the top of "
        "this file.",
    ]
    path = folder / "README.md"
    publish_bytes(path, ("\n\n".join(sections) + "\n").encode())
    return path


def _front_matter(document: Document) -> str:
    import yaml

    layout = words.layout(document)
    n = words.total(document.classes, "accepted")
    metadata = {
        "pretty_name": f"{document.title or 'A dataset'}, augmented",
        "tags": ["synthetic", "vaeaug", "augmentation"]
        + ([words.KINDS[layout]] if layout != "NHWC" else []),
        "task_categories": [_TASKS.get(layout, "other")],
        "size_categories": [next((name for most, name in _SIZES if n < most), _LARGEST)],
        "annotations_creators": ["machine-generated"],
        # The viewer of the Hub does not read HDF5 shards.
        "viewer": False,
    }
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    licence = "# license: choose one; it has to be compatible with that of the real data"
    return f"---\n{licence}\n{text}---"


def _intro(document: Document) -> str:
    classes = document.classes
    accepted, real = words.total(classes, "accepted"), words.total(classes, "real")
    kind = words.kind(document)
    return (
        f"{accepted:,} **synthetic** labelled {kind} in "
        f"{words.several(len(classes), 'class', 'classes')}, made by vaeaug from {real:,} real "
        f"ones. The real {kind} are not in here."
    )


def _does_it_help(document: Document) -> str:
    gate = document.gate
    verdict = gate_view.verdict(gate)
    lines = ["## Does it help?", ""]
    if gate is None:
        lines.append(
            f"**{gate_view.NOT_EVALUATED}.** <code>{_escaped(run_view.evaluate_command(document))}"
            f"</code> measures it on held-out real {words.kind(document)}; OUT is the folder of "
            "this file."
        )
        return "\n".join(lines)
    lines.append(f"**{_escaped(verdict['line'])}.** {_escaped(verdict['detail'])}".rstrip())
    lines += ["", _escaped(gate_view.how_measured(gate))]
    if gate.comparisons:
        rows = [
            (
                _escaped(row.name),
                _escaped(row.arm),
                _escaped(row.baseline),
                words.points(row.difference),
                f"{words.points(row.low)} to {words.points(row.high)}",
                _escaped(row.verdict),
            )
            for row in gate.comparisons
        ]
        head = ("at", "with", "against", "points", gate_view.confidence(gate), "verdict")
        lines += ["", _table(head, rows, numbers=(3, 4))]
    if gate.warnings:
        lines += ["", *(f"- Warning: {_escaped(line)}" for line in gate.warnings)]
    return "\n".join(lines)


def _counts(document: Document) -> str:
    merged = {row.name: row for row in document.merged}
    shown = run_view.rarest(document.classes)
    rows = [
        (
            _escaped(row.name),
            words.count(row.real),
            words.count(row.accepted),
            words.count(row.n_synthetic),
            words.count(merged[row.name].repeated) if row.name in merged else words.NONE,
            words.count(merged[row.name].together) if row.name in merged else words.NONE,
        )
        for row in shown
    ]
    text = "## Counts\n\n" + _table(
        (
            "class",
            f"real {words.kind(document)} learned from",
            "synthetic, in here",
            "planned",
            "repeated when merged",
            "merged, together",
        ),
        rows,
        numbers=(1, 2, 3, 4, 5),
    )
    if len(shown) < len(document.classes):
        text += f"\n\nThe {run_view.MAX_ROWS} rarest classes; all are in `manifest.json`."
    return text


def _how_made(document: Document) -> str:
    model = document.provenance.config.get("model") or {}
    lines = [
        "## How it was made",
        "",
        words.of_kind(
            "By a variational autoencoder with densities of each class in its latent space. Its "
            "samples were screened for values that are not finite or out of range, near-copies of "
            "training images, duplicates, and samples that a classifier trained on real images "
            "only clearly assigns to another class.",
            document,
        ),
        "",
    ]
    samplers = sorted({sampler for sampler in document.samplers.values() if sampler is not None})
    if samplers:
        lines.append(f"- drawn by: {', '.join(map(_escaped, samplers))}")
    if model:
        settings = [
            f"{key.replace('_', ' ')} {model[key]}"
            for key in ("latent", "likelihood", "grouping")
            if model.get(key)
        ]
        lines.append(f"- generator: {_escaped(', '.join(settings))}")
    rejected: Counter[str] = Counter()
    for row in document.classes:
        rejected.update(row.rejected)
    if rejected:
        reasons = [f"{_escaped(reason)} {n:,}" for reason, n in rejected.items() if n]
        lines.append(f"- rejected: {', '.join(reasons) or 'none'}")
    if recipe := run_view.recipe(document):
        pairs = ", ".join(f"{name.lower()}: {value}" for name, value in recipe["pairs"])
        lines += [
            "",
            f"How to merge it with real {words.kind(document)} ({_escaped(recipe['name'])}): "
            f"{_escaped(pairs)}.",
        ]
    return "\n".join(lines).rstrip()


def _how_to_load() -> str:
    return """## How to load it

```python
import vaeaug

folder = "."  # where this file is
vaeaug.verify(folder)  # every byte against its hash
synthetic = vaeaug.ShardDataset(folder)  # this data alone
merged = vaeaug.merge(real, folder)  # with the real training images, by the recipe
```

The shards are plain HDF5 in `shards/`: `images`, `labels`, and for each image its latent, its seed,
the real image that it came from (`source_index`, -1 for none) and what screening measured. Each is
marked with the attribute `synthetic`. `manifest.json` lists them with their hashes."""


def _limits(document: Document) -> str:
    limits = (
        "- For training only. Never validate or test on it: use real images.",
        "- It carries the biases of the images that it was learned from, and adds no knowledge "
        "that is not in them.",
        "- Near-copies of training images were looked for; that is no guarantee of privacy.",
    )
    lines = ["## Limits", "", *(words.of_kind(line, document) for line in limits)]
    if document.nearness.sentence:
        lines.append(f"- {for_markdown(document.nearness.sentence)}")
    if document.privacy and document.privacy.verdict:
        lines.append(f"- Copies: {_escaped(words.sentence(document.privacy.verdict))}")
    for part in (document.privacy, document.shortcut):
        if part and part.warning:
            lines.append(f"- Warning: {_escaped(words.sentence(part.warning))}")
    if short := [row.name for row in document.classes if row.fell_short]:
        more = f" and {len(short) - 20} more" if len(short) > 20 else ""
        lines.append(f"- Fewer than planned: {', '.join(map(_escaped, short[:20]))}{more}.")
    return "\n".join(lines)


def _provenance(document: Document) -> str:
    origin = document.provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    pairs = [
        ("command", origin.command),
        ("data", origin.data.source),
        ("split", origin.data.split),
        ("fingerprint of the data", origin.data.fingerprint),
        ("seed", origin.seed),
        ("SHA-256 of the model", origin.model_sha256),
        ("SHA-256 of the configuration", origin.config_sha256),
        ("versions", versions),
        *((f"generation {i}", text) for i, text in enumerate(document.generations, 1)),
    ]
    rows = [(name, for_code(value)) for name, value in pairs if value not in (None, "")]
    return (
        "## Provenance\n\n"
        + _table(("what", "value"), rows)
        + "\n\n`run.json` holds the whole configuration, `report.html` every measurement."
    )


def _table(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()
) -> str:
    rule = ["---:" if column in numbers else "---" for column in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _escaped(value: Any) -> str:
    return for_markdown(words.NONE if value is None else value)
