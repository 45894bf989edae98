"""``README.md`` of a run folder: a dataset card in the form of the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaeaug.files.names import for_code, for_markdown
from vaeaug.report import gate_view, run_view, words
from vaeaug.shards import publish_bytes

# The hub's tasks know images with two spatial axes only.
_TASKS = {"NHWC": "image-classification"}
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
_LARGEST = "10M<n<100M"

Json = Mapping[str, Any]


def write_card(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write ``README.md``, whole or not at all.

    The licence is left to the user, in a line that says so: it has to fit that of the real data.

    Args:
        folder: The run folder.
        document: What `write_report` takes.

    Returns:
        Its path.

    Raises:
        ShardError: If the file cannot be written.
    """
    sections = [
        _front_matter(document),
        f"# {_said(document.get('title') or 'A dataset')}, augmented",
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


def _front_matter(document: Json) -> str:
    import yaml

    classes = document.get("classes") or []
    layout = words.layout(document)
    n = words.total(classes, "accepted")
    metadata = {
        "pretty_name": f"{document.get('title') or 'A dataset'}, augmented",
        "tags": ["synthetic", "vaeaug", "augmentation"]
        + ([words.KINDS[layout]] if layout != "NHWC" else []),
        "task_categories": [_TASKS.get(layout, "other")],
        "size_categories": [next((name for most, name in _SIZES if n < most), _LARGEST)],
        "annotations_creators": ["machine-generated"],
        # The hub's viewer does not read HDF5 shards.
        "viewer": False,
    }
    text = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    licence = "# license: choose one; it has to be compatible with that of the real data"
    return f"---\n{licence}\n{text}---"


def _intro(document: Json) -> str:
    classes = document.get("classes") or []
    accepted, real = words.total(classes, "accepted"), words.total(classes, "real")
    kind = words.KINDS[words.layout(document)]
    return (
        f"{accepted:,} **synthetic** labelled {kind} in "
        f"{words.several(len(classes), 'class', 'classes')}, made by vaeaug from {real:,} real "
        f"ones. The real {kind} are not in here."
    )


def _does_it_help(document: Json) -> str:
    gate = document.get("gate")
    found = gate_view.verdict(gate)
    lines = ["## Does it help?", ""]
    if not gate:
        lines.append(
            f"**{gate_view.NOT_EVALUATED}.** <code>{_said(run_view.evaluate_command(document))}"
            f"</code> measures it on held-out real {words.kind(document)}; OUT is the folder of "
            "this file."
        )
        return "\n".join(lines)
    lines.append(f"**{found['word']}.** {_said(found['sentence'])}")
    lines += ["", _said(gate_view.how_measured(gate))]
    comparisons = gate.get("comparisons") or []
    if comparisons:
        rows = [
            (
                _said(each.get("name")),
                _said(each.get("arm")),
                _said(each.get("baseline")),
                words.points(each.get("difference")),
                f"{words.points(each.get('low'))} to {words.points(each.get('high'))}",
                _said(each.get("verdict")),
            )
            for each in comparisons
        ]
        interval = gate_view.confidence(gate)
        head = ("at", "with", "against", "points", interval, "verdict")
        lines += ["", _table(head, rows, numbers=(3, 4))]
    if gate.get("warnings"):
        lines += ["", *(f"- Warning: {_said(line)}" for line in gate["warnings"])]
    return "\n".join(lines)


def _counts(document: Json) -> str:
    classes = document.get("classes") or []
    merged = {each["name"]: each for each in document.get("merged") or []}
    shown = run_view.rarest(classes)
    rows = [
        (
            _said(each.get("name")),
            words.count(each.get("real")),
            words.count(each.get("accepted")),
            words.count(each.get("n_synthetic")),
            words.count((merged.get(each.get("name")) or {}).get("repeated")),
            words.count((merged.get(each.get("name")) or {}).get("together")),
        )
        for each in shown
    ]
    text = "## Counts\n\n" + _table(
        (
            "class",
            f"real {words.kind(document)} learnt from",
            "synthetic, in here",
            "planned",
            "repeated when merged",
            "merged, together",
        ),
        rows,
        numbers=(1, 2, 3, 4, 5),
    )
    if len(shown) < len(classes):
        text += f"\n\nThe {run_view.MAX_ROWS} rarest classes; all are in `manifest.json`."
    return text


def _how_made(document: Json) -> str:
    config = (document.get("provenance") or {}).get("config") or {}
    model = config.get("model") or {}
    lines = [
        "## How it was made",
        "",
        words.of_kind(
            "By a variational autoencoder with densities of each class in its latent space. Its "
            "samples were screened for values that are not finite or out of range, near-copies of "
            "training images, duplicates, and what is plainly another class to a classifier "
            "trained on real images only.",
            document,
        ),
        "",
    ]
    samplers = sorted(set((document.get("samplers") or {}).values()))
    if samplers:
        lines.append(f"- drawn by: {', '.join(map(_said, samplers))}")
    if model:
        named = [
            f"{key.replace('_', ' ')} {model[key]}"
            for key in ("latent", "likelihood", "grouping")
            if model.get(key)
        ]
        lines.append(f"- generator: {_said(', '.join(named))}")
    rejected: dict[str, int] = {}
    for each in document.get("classes") or []:
        for reason, n in (each.get("rejected") or {}).items():
            rejected[reason] = rejected.get(reason, 0) + (n or 0)
    if rejected:
        turned_away = [f"{_said(reason)} {n:,}" for reason, n in rejected.items() if n]
        lines.append(f"- turned away: {', '.join(turned_away) or 'none'}")
    if found := run_view.recipe(document):
        settings = ", ".join(f"{name.lower()}: {value}" for name, value in found["pairs"])
        lines += [
            "",
            f"How to merge it with real {words.kind(document)} ({_said(found['name'])}): "
            f"{_said(settings)}.",
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


def _limits(document: Json) -> str:
    limits = (
        "- For training only. Never validate or test on it: use real images.",
        "- It carries the biases of the images that it was learnt from, and adds no knowledge that "
        "is not in them.",
        "- Near-copies of training images were looked for; that is no guarantee of privacy.",
    )
    lines = ["## Limits", "", *(words.of_kind(line, document) for line in limits)]
    if nearness := (document.get("nearness") or {}).get("sentence"):
        lines.append(f"- {for_markdown(nearness)}")
    privacy, shortcut = document.get("privacy"), document.get("shortcut")
    if privacy and privacy.get("verdict"):
        lines.append(f"- Copies: {_said(words.sentence(str(privacy['verdict'])))}")
    for part in (privacy, shortcut):
        if part and part.get("warning"):
            lines.append(f"- Warning: {_said(words.sentence(str(part['warning'])))}")
    if short := [
        each
        for each in document.get("classes") or []
        if (each.get("accepted") or 0) < (each.get("n_synthetic") or 0)
    ]:
        named = ", ".join(_said(each.get("name")) for each in short[:20])
        more = f" and {len(short) - 20} more" if len(short) > 20 else ""
        lines.append(f"- Fewer than planned: {named}{more}.")
    return "\n".join(lines)


def _provenance(document: Json) -> str:
    found = document.get("provenance") or {}
    data = found.get("data") or {}
    pairs = [
        ("command", found.get("command")),
        ("data", data.get("source")),
        ("split", data.get("split")),
        ("fingerprint of the data", data.get("fingerprint")),
        ("seed", found.get("seed")),
        ("SHA-256 of the model", found.get("model_sha256")),
        ("SHA-256 of the configuration", found.get("config_sha256")),
        (
            "versions",
            ", ".join(f"{name} {one}" for name, one in (found.get("versions") or {}).items()),
        ),
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


def _said(value: Any) -> str:
    return for_markdown(words.NONE if value is None else value)
