"""Names of classes and files, made safe for where they are shown.

A name is whatever a person's data says: it may end a table's row, move a terminal's cursor, turn
the direction of the text after it, be HTML, or be a formula in a spreadsheet. What a name *is*
stays as it was wherever it is data (HDF5, JSON, Arrow); here is what is shown of it.
"""

import re
import unicodedata
from typing import Any, TextIO

# Controls, formatting such as a change of direction, surrogates, ends of lines and paragraphs.
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
# They join letters and emoji, and move nothing.
_JOINERS = frozenset("\u200c\u200d")
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str, keep: str = "") -> str:
    r"""Text without what is not seen, which becomes its escape: ``\n``, ``\x1b``, ``\u202e``.

    Args:
        text: Any text, halves of surrogate pairs included.
        keep: Characters that stay, such as the newlines of a table.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or character in _JOINERS or _is_seen(character)
        else _escape(character)
        for character in text
    )


def for_stream(text: str, stream: TextIO) -> str:
    """Lines of text that a terminal, or a file of any encoding, can show."""
    safe = printable(text, keep="\n\t")
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def for_markdown(text: Any) -> str:
    """Text that Markdown shows as it is, HTML included, on one line and in a cell."""
    line = " ".join(printable(str(text), keep="\n\t\r").split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|#~$])", r"\\\1", line)


def for_code(text: Any) -> str:
    """The same as code: HTML's tag, for backticks cannot hold every text in a cell."""
    return f"<code>{for_markdown(text)}</code>"


def for_cell(text: str) -> str:
    """Text for a cell of a CSV file; an apostrophe keeps a spreadsheet from computing it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) not in _UNSEEN


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
