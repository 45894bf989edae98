"""Safe display of the names of classes and files.

Names come from users' data: one may end the row of a table, move the cursor of a terminal, reverse
the direction of the text after it, contain HTML, or be a formula in a spreadsheet. Stored names
(HDF5, JSON, Arrow) are not changed; these functions only change what is displayed.
"""

import io
import re
import unicodedata
from typing import Any, TextIO

# Controls, formatting such as a change of direction, surrogates, ends of lines and paragraphs.
_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# These join letters and emoji, and are harmless.
_JOINERS = frozenset("\u200c\u200d")
# Characters with which a formula in a spreadsheet begins.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, keep: str = "") -> str:
    r"""Replace invisible characters by their escapes: ``\n``, ``\x1b``, ``\u202e``.

    Args:
        text: Any text, including unpaired surrogates.
        keep: Characters to keep, such as the newlines of a table.

    Returns:
        The text without invisible characters, except joiners and those to keep.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or character in _JOINERS or _is_visible(character)
        else _escape(character)
        for character in text
    )


def for_stream(text: str, stream: TextIO | io.TextIOBase) -> str:
    """Make lines of text safe for a terminal, or for a file of any encoding.

    Args:
        text: The text.
        stream: The terminal or file.

    Returns:
        The text, with invisible and unsupported characters escaped.
    """
    safe = printable(text, keep="\n\t")
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def for_markdown(text: Any) -> str:
    """Escape a text so that Markdown shows it literally, HTML included, on one line and in a cell.

    Args:
        text: The text; other types are converted.

    Returns:
        Markdown.
    """
    line = " ".join(printable(str(text), keep="\n\t\r").split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#~$])", r"\\\1", line)


def for_code(text: Any) -> str:
    """Format a text as code in Markdown, with an HTML tag: backticks cannot hold every text.

    Args:
        text: The text; other types are converted.

    Returns:
        Markdown.
    """
    return f"<code>{for_markdown(text)}</code>"


def for_cell(text: str) -> str:
    """Prepare a text for a cell of a CSV file; an apostrophe keeps spreadsheets from evaluating it.

    Args:
        text: The text.

    Returns:
        The text of the cell.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _is_visible(character: str) -> bool:
    return unicodedata.category(character) not in _INVISIBLE


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
