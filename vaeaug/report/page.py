"""``report.html``, an offline page that begins with the verdict, and ``report.json``."""

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
from vaeaug.report.embedded import embedded_picture, panel_pictures
from vaeaug.report.picture import MAX_CLASSES, ClassPanel
from vaeaug.report.sounds import Player
from vaeaug.report.terms import TERMS
from vaeaug.shards import publish_bytes

if TYPE_CHECKING:
    import jinja2

_HERE = Path(__file__).parent

# Circle, diamond, square, triangle: series differ in shape as well as in colour.
_SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0Z",
    "M0-6 6 0 0 6-6 0Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-5.5 5.5 4.5H-5.5Z",
)
_FILTERS = {
    "num": words.num,
    "pct": words.pct,
    "whole": words.whole,
    "points": words.points,
    "count": words.count,
}
# Maximum size of the page, with a margin for the captions of pictures.
_MAX_BYTES = 4_800_000
# Code of the template, as opposed to its text.
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
    ("provenance", "Origin"),
    ("terms", "Terms"),
)


def write_report(
    folder: Path,
    document: Mapping[str, Any],
    *,
    panels: Sequence[ClassPanel],
    value_range: tuple[float, float],
    traversals: Path | None = None,
    latent_map: Path | None = None,
    heard: Mapping[str, Sequence[Player]] | None = None,
) -> Path:
    """Write ``report.html`` and ``report.json`` atomically.

    The page needs no network and no script and stays below five megabytes. The same document gives
    the same bytes.

    Args:
        folder: The run folder.
        document: JSON types: ``title``, ``out``, ``classes`` and ``provenance``, and, if known,
            ``gate``, ``prediction``, ``recipe``, ``search``, ``plan``, ``samplers``, ``fidelity``,
            ``privacy``, ``shortcut``, ``diagnostics`` and ``curves``. The page states that a part
            is missing if it is None or absent. Numbers that are not finite count as None.
        panels: One panel per class; if there are too many, the first ones are shown.
        value_range: Lowest and highest value of their images.
        traversals: The picture of the latent traversals, if there is one.
        latent_map: The picture of the latents in the plane, if there is one.
        heard: By the name of a class, sounds that can be played.

    Returns:
        Path of the page.

    Raises:
        ShardError: If a file cannot be written.
    """
    document = _finite(document)
    page = _render(
        Document.parse(document), panels, value_range, traversals, latent_map, heard or {}
    )
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    publish_bytes(folder / "report.json", text.encode())
    publish_bytes(folder / "report.html", page.encode())
    return folder / "report.html"


def _render(
    document: Document,
    panels: Sequence[ClassPanel],
    value_range: tuple[float, float],
    traversals: Path | None,
    latent_map: Path | None,
    heard: Mapping[str, Sequence[Player]],
) -> str:
    from markupsafe import Markup

    gate = document.gate
    curves, stages_left_out = draw_curves(document.curves)
    # The style sheet and the curves are created here and contain no untrusted text.
    style = Markup((_HERE / "page.css").read_text(encoding="utf-8"))
    drawn = [{**vars(curve), "svg": Markup(curve.svg)} for curve in curves]
    template = _template(words.layout(document))

    def adapted(text: str) -> str:
        return words.of_kind(text, document)

    # What was not measured gets no section.
    absent = {
        name
        for name, part in {
            "samples": panels,
            "gate": gate or document.prediction,
            "fidelity": document.fidelity,
            "privacy": document.privacy,
            "shortcut": document.shortcut,
        }.items()
        if not part
    }
    shown = {
        "title": document.title or "a dataset",
        "style": style,
        "shapes": _SHAPES,
        "verdict": gate_view.verdict(gate),
        "nearness": adapted(document.nearness.sentence),
        "command": run_view.evaluate_command(document),
        "contents": [(anchor, adapted(name)) for anchor, name in _CONTENTS if anchor not in absent],
        "shown_anchors": {anchor for anchor, _ in _CONTENTS} - absent,
        "cautions": run_view.cautions(document),
        "not_measured": run_view.not_measured(document),
        "terms": {name: adapted(meaning) for name, meaning in TERMS.items()},
        "tiles": run_view.tiles(document),
        "counts": run_view.counts(document),
        "panels_left_out": max(0, len(panels) - MAX_CLASSES),
        "gate": gate,
        "gate_sentence": gate and adapted(gate_view.how_measured(gate)),
        "confidence": gate and gate_view.confidence(gate),
        "forest": gate and gate_view.forest(gate),
        "arms": gate and gate_view.arms(gate),
        "recall": gate and gate_view.recall(gate, document.classes),
        "prediction": gate_view.prediction(document.prediction),
        "recipe": run_view.recipe(document),
        "search": gate_view.search(document.search),
        "fidelity": gate_view.with_rows(document.fidelity),
        "privacy": gate_view.with_rows(document.privacy),
        "shortcut": gate_view.shortcut(document.shortcut),
        "screening": run_view.screening(document),
        "diagnostics": run_view.diagnostics(document),
        "traversals": embedded_picture(traversals),
        "latent_map": embedded_picture(latent_map),
        "players": heard,
        "curves": drawn,
        "stages_left_out": stages_left_out,
        "provenance": run_view.provenance(document),
    }
    # The pictures may use the remaining bytes.
    used = len(template.render(shown, panels=[]).encode())
    used += sum(len(player.source) for found in heard.values() for player in found)
    max_bytes = _MAX_BYTES - used
    return template.render(shown, panels=panel_pictures(panels, value_range, max_bytes=max_bytes))


@functools.cache
def _template(layout: str) -> "jinja2.Template":
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        # Autoescaping neutralises HTML; this neutralises control and direction characters.
        finalize=_printable,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
    )
    environment.filters |= _FILTERS
    environment.filters["sentence"] = words.sentence
    environment.filters["of_kind"] = lambda text: words.of_layout(text, layout)
    environment.filters["apply"] = lambda value, show: _FILTERS[show](value)
    parts = _CODE.split((_HERE / "page.html").read_text(encoding="utf-8"))
    # Only the page's own text is adapted; content of the run is inserted by the code.
    words_and_code = zip(parts[::2], [*parts[1::2], ""], strict=True)
    source = "".join(words.of_layout(text, layout) + code for text, code in words_and_code)
    return environment.from_string(source)


def _printable(value: Any) -> Any:
    # Charts that are created here are Markup, a subclass of str.
    return printable(value, keep="\n\t") if type(value) is str else value


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite by None, because JSON has none."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
