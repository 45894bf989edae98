"""HTML that notebooks show for objects of the library: self-contained, escaped, light and dark."""

import base64
import functools
import io
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from vaeaug.files import publish
from vaeaug.files.names import printable
from vaeaug.shapes import are_features
from vaeaug.tiles import bounded_tile_size, draw_tile, tile_size

# Samples of a row, and rows of a table, at most: outputs are stored in the notebook.
COLUMNS = 6
MAX_ROWS = 12
_SIDE = 48  # longest side of a tile, pixels
_GAP = 2
_PLOT_COLOURS = 16

# Text inherits the colour of the page; lines and bars are readable on white and on black.
_TEMPLATE = """\
<div class="vaeaug"><style>
.vaeaug{font:13px/1.45 system-ui,sans-serif;max-width:60em}
.vaeaug table{border-collapse:collapse;margin:.5em 0;font-size:inherit}
.vaeaug th,.vaeaug td{text-align:left;padding:2px 12px 2px 0;vertical-align:middle;
border:0;border-bottom:1px solid rgba(127,127,127,.3);background:none;color:inherit}
.vaeaug td.n,.vaeaug th.n{text-align:right;font-variant-numeric:tabular-nums}
.vaeaug p{margin:.2em 0}.vaeaug .q{opacity:.72}
.vaeaug img{display:block;max-width:none;margin:0}
.vaeaug .b{display:flex;width:140px;height:9px}.vaeaug .b i{display:block}
.vaeaug .k{display:inline-block;width:9px;height:9px;margin:0 4px 0 10px}
.vaeaug .b0{background:#3b7dbd}.vaeaug .b1{background:#8fb8de}.vaeaug .b2{background:#e07b39}
</style>
<p><b>{{ card.title }}</b></p>
{% for line in card.lines %}<p>{{ line }}</p>
{% endfor %}
{% for table in card.tables %}<table><thead><tr>
{% for name in table.headers %}<th{% if loop.index0 in table.right %} class="n"{% endif %}>\
{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in table.rows[:most] %}<tr>{% for cell in row %}
<td{% if loop.index0 in table.right %} class="n"{% endif %}>{{ draw(cell) }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% if table.legend %}<p class="q">{% for name in table.legend %}\
<span class="k b{{ loop.index0 }}"></span>{{ name }}{% endfor %}</p>{% endif %}
{% if table.rows | length > most %}<p class="q">{{ table.rows | length - most }} more rows are not \
shown</p>{% endif %}
{% endfor %}
{% for picture in card.pictures %}{{ draw(picture) }}
{% endfor %}
{% for note in card.notes %}<p class="q">{{ note }}</p>
{% endfor %}</div>"""
_CELL = """\
{% if picture %}<img src="{{ picture.source }}" width="{{ picture.width }}" \
height="{{ picture.height }}" alt="{{ picture.alt }}">{% elif bar %}<div class="b" \
title="{{ bar.title }}">{% for share in bar.shares %}<i class="b{{ loop.index0 }}" \
style="width:{{ "%.1f" | format(100 * share) }}%"></i>{% endfor %}</div>{% else %}{{ text }}\
{% endif %}"""
_PAGE = """\
<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>{title}</title></head><body>{body}</body></html>
"""


@dataclass(frozen=True)
class Picture:
    """A picture inside the HTML.

    Attributes:
        source: Data URI.
        width: Pixels.
        height: Pixels.
        alt: What it shows, in words.
    """

    source: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Bar:
    """A bar of up to three parts, one after the other.

    Attributes:
        shares: Length of each part, of the width; together at most 1.
        title: The numbers in words.
    """

    shares: tuple[float, ...]
    title: str


@dataclass(frozen=True)
class Table:
    """A table of texts, numbers, bars and pictures.

    Attributes:
        headers: Names of the columns.
        rows: Cells; at most `MAX_ROWS` rows are shown, and how many more there are is said.
        legend: What the parts of its bars are.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str | int | Bar | Picture | None]]
    legend: Sequence[str] = ()

    @property
    def right(self) -> frozenset[int]:
        """Columns of numbers, which are aligned at the right."""
        return frozenset(
            column
            for column in range(len(self.headers))
            if self.rows and all(isinstance(row[column], int) for row in self.rows)
        )


@dataclass(frozen=True)
class Card:
    """What a notebook shows of one object.

    Attributes:
        title: Its first line.
        lines: Sentences below it.
        tables: Tables below these.
        pictures: Pictures below the tables.
        notes: Quiet sentences at the end.
    """

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture | None] = field(default=())
    notes: Sequence[str] = ()

    def to_html(self) -> str:
        """Give HTML without references to other files; every text is escaped.

        Returns:
            One ``<div>``.
        """
        card, cell = _templates()

        def draw(content: Any) -> Any:
            from markupsafe import Markup

            known = {"picture": Picture, "bar": Bar}
            given = {name: content for name, kind in known.items() if isinstance(content, kind)}
            text = "" if content is None else str(content)
            return Markup(cell.render(text=text, **given))

        return str(card.render(card=self, draw=draw, most=MAX_ROWS))

    def show(self) -> Path | None:
        """Show it: in a notebook below the cell, elsewhere as a page in a temporary file.

        Returns:
            The file, whose name is printed; None in a notebook.
        """
        if in_notebook():
            from IPython.display import HTML, display

            display(HTML(self.to_html()))
            return None
        from markupsafe import escape

        path = Path(tempfile.mkdtemp(prefix="vaeaug-")) / "shown.html"
        page = _PAGE.format(title=escape(printable(self.title)), body=self.to_html())
        publish(path, page.encode("utf-8"))
        print(f"{printable(self.title)}: {path}")
        return path


class Shown(ABC):
    """An object that shows itself, in notebooks and by `show`; its class says what."""

    @abstractmethod
    def _card(self) -> Card:
        """What is shown."""

    def _repr_html_(self) -> str:
        return self._card().to_html()

    def show(self) -> Path | None:
        """Show what a notebook shows.

        Returns:
            None in a notebook, which shows it below the cell; elsewhere a page in a temporary
            file, whose name is printed.
        """
        return self._card().show()


@functools.cache
def _templates() -> tuple[Any, Any]:
    from jinja2 import Environment

    # Names come from users' data: what is invisible is written out, and what is HTML is escaped.
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    return environment.from_string(_TEMPLATE), environment.from_string(_CELL)


def in_notebook() -> bool:
    """Tell whether the output of this process is that of a notebook's cell.

    Returns:
        True in a kernel of Jupyter; False in a terminal, IPython's included, and in a script.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def strip(
    samples: Shaped[np.ndarray, "n *space c"],
    value_range: tuple[float, float],
    *,
    alt: str,
    columns: int = COLUMNS,
    n: int | None = None,
) -> Picture | None:
    """Draw samples in rows of tiles, transparent between them.

    Args:
        samples: Images, signals (as plots), volumes or clips (by their middle slice).
        value_range: Lowest and highest value.
        alt: What they are, in words.
        columns: Tiles of a row.
        n: How many are shown, the first ones; None: one row.

    Returns:
        The picture; None for feature vectors, which have no look, and where there are no samples.
    """
    from PIL import Image

    shown = samples[: columns if n is None else n]
    if not len(shown) or are_features(samples.shape[1:]):
        return None
    shape = samples.shape[1:]
    size, (width, height) = tile_size(shape), bounded_tile_size(shape, _SIDE)
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    sheet = Image.new(
        "RGBA",
        (columns * (width + _GAP) - _GAP, rows * (height + _GAP) - _GAP),
        (0, 0, 0, 0),
    )
    for number, sample in enumerate(shown):
        tile = draw_tile(sample, value_range, size)
        if tile.size != (width, height):
            tile = tile.resize((width, height), Image.Resampling.BOX)
        row, column = divmod(number, columns)
        sheet.paste(tile, (column * (width + _GAP), row * (height + _GAP)))
    if len(shape) == 2:  # the soft edges of a plot's lines are most of its bytes
        sheet = sheet.quantize(_PLOT_COLOURS, method=Image.Quantize.FASTOCTREE)
    return Picture(_uri(sheet), sheet.width, sheet.height, f"{alt}: {len(shown)} samples")


def counted(n: int, noun: str) -> str:
    """Write a number with a noun in the plural, or in the singular for one.

    Args:
        n: The number.
        noun: In the plural, with an s or es at its end.

    Returns:
        Such as "1 class" or "1,234 images".
    """
    if n == 1:
        noun = noun[:-2] if noun.endswith("sses") else noun.removesuffix("s")
    return f"{n:,} {noun}"


def _uri(picture: Any) -> str:
    if picture.mode == "RGBA":
        red, green, blue, _ = picture.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():
            picture = picture.convert("LA")
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
