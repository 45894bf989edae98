"""``report.html``: one offline page that says first whether the data helps, and ``report.json``."""

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeaug.files.names import printable
from vaeaug.report import gate_view, run_view, words
from vaeaug.report.charts import draw_curves
from vaeaug.report.document import Document
from vaeaug.report.embedded import panel_pictures, traversal_picture
from vaeaug.report.picture import MAX_CLASSES, ClassPanel
from vaeaug.shards import publish_bytes

if TYPE_CHECKING:
    import jinja2

_HERE = Path(__file__).parent

# Circle, diamond, square, triangle: series differ in shape, too.
_SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z",
    "M0-6 6 0 0 6-6 0Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-5.5 5.5 4.5H-5.5Z",
)
_SHOWS = {
    "num": words.num,
    "pct": words.pct,
    "whole": words.whole,
    "points": words.points,
    "count": words.count,
}
# A page that opens anywhere; what is said of each picture is counted with some room to spare.
_MAX_BYTES = 4_800_000
# What the template computes, between its words.
_CODE = re.compile(r"(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})", re.DOTALL)
_CONTENTS = (
    ("counts", "Counts"),
    ("samples", "Images"),
    ("gate", "Does it help?"),
    ("recipe", "How to merge"),
    ("fidelity", "Likeness"),
    ("privacy", "Copies"),
    ("shortcut", "Shortcuts"),
    ("generator", "Generator"),
    ("provenance", "Provenance"),
)


def write_report(
    folder: Path,
    document: Mapping[str, Any],
    *,
    panels: Sequence[ClassPanel],
    value_range: tuple[float, float],
    traversals: Path | None = None,
) -> Path:
    """Write ``report.html`` and ``report.json``, each whole or not at all.

    The page needs no network and no script, stays below five megabytes, and the same document
    gives the same bytes.

    Args:
        folder: The run folder.
        document: Plain JSON: ``title``, ``out``, ``classes`` and ``provenance``, and where they
            are known ``gate``, ``recipe``, ``search``, ``plan``, ``samplers``, ``fidelity``,
            ``privacy``, ``shortcut``, ``diagnostics`` and ``curves``. Of what is None or absent the
            page says that it is missing. Numbers that are not finite are taken for None.
        panels: One per class, the ones to keep first where there are too many.
        value_range: Of their images.
        traversals: The picture of the latent traversals, if there is one.

    Returns:
        The path of the page.

    Raises:
        ShardError: If a file cannot be written.
    """
    document = _finite(document)
    page = _render(Document.parse(document), panels, value_range, traversals)
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    publish_bytes(folder / "report.json", text.encode())
    publish_bytes(folder / "report.html", page.encode())
    return folder / "report.html"


def _render(
    document: Document,
    panels: Sequence[ClassPanel],
    value_range: tuple[float, float],
    traversals: Path | None,
) -> str:
    from markupsafe import Markup

    gate = document.gate
    curves, stages_left_out = draw_curves(document.curves)
    # The style sheet and the curves are made here and hold no text from outside.
    style = Markup((_HERE / "page.css").read_text(encoding="utf-8"))
    drawn = [{**vars(curve), "svg": Markup(curve.svg)} for curve in curves]
    template = _template(words.layout(document))

    def said(text: str) -> str:
        return words.of_kind(text, document)

    shown = {
        "title": document.title or "a dataset",
        "style": style,
        "shapes": _SHAPES,
        "verdict": gate_view.verdict(gate),
        "nearness": document.nearness.sentence,
        "command": run_view.evaluate_command(document),
        "contents": [(anchor, said(name)) for anchor, name in _CONTENTS],
        "tiles": run_view.tiles(document),
        "counts": run_view.counts(document),
        "panels_left_out": max(0, len(panels) - MAX_CLASSES),
        "gate": gate,
        "gate_sentence": gate and said(gate_view.how_measured(gate)),
        "confidence": gate and gate_view.confidence(gate),
        "forest": gate and gate_view.forest(gate),
        "arms": gate and gate_view.arms(gate),
        "recall": gate and gate_view.recall(gate, document.classes),
        "recipe": run_view.recipe(document),
        "search": gate_view.search(document.search),
        "fidelity": gate_view.with_rows(document.fidelity),
        "privacy": gate_view.with_rows(document.privacy),
        "shortcut": gate_view.shortcut(document.shortcut),
        "screening": run_view.screening(document),
        "diagnostics": run_view.diagnostics(document),
        "traversals": traversal_picture(traversals),
        "curves": drawn,
        "stages_left_out": stages_left_out,
        "provenance": run_view.provenance(document),
    }
    # The pictures take what room the rest leaves.
    room = _MAX_BYTES - len(template.render(shown, panels=[]).encode())
    return template.render(shown, panels=panel_pictures(panels, value_range, room=room))


@functools.cache
def _template(layout: str) -> "jinja2.Template":
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        # Escaping makes text no HTML; this makes it one that moves and turns nothing.
        finalize=_seen,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
    )
    environment.filters |= _SHOWS
    environment.filters["sentence"] = words.sentence
    environment.filters["apply"] = lambda value, show: _SHOWS[show](value)
    parts = _CODE.split((_HERE / "page.html").read_text(encoding="utf-8"))
    # Our own words alone: what is shown of the run comes in by the code between them.
    words_and_code = zip(parts[::2], [*parts[1::2], ""], strict=True)
    source = "".join(words.of_layout(text, layout) + code for text, code in words_and_code)
    return environment.from_string(source)


def _seen(value: Any) -> Any:
    # Only charts made here are markup, which is a text of another type.
    return printable(value, keep="\n\t") if type(value) is str else value


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
