"""The server of the page: this machine alone, and only who knows the token."""

import hmac
import json
import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from vaeaug.files.json_text import JSONTextError, parse_strict
from vaeaug.shards import ShardError
from vaeaug.studio.collection import Collection, StudioError
from vaeaug.studio.pictures import curves_of, draw_picture, draw_tiles, sound_of

log = logging.getLogger("vaeaug")

HOST = "127.0.0.1"
# A name that another site could have resolved to this machine is refused: DNS rebinding.
_NAMES = ("127.0.0.1", "localhost", "::1")
# Samples of one sheet, and bytes of a list of millions of samples.
MOST_TILES, MOST_BYTES = 512, 2**25
_FOLDER = Path(__file__).parent
_PAGE = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "map.js": ("map.js", "text/javascript; charset=utf-8"),
    "detail.js": ("detail.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Studio:
    """A server of one run, on 127.0.0.1; a context manager that runs it in a thread.

    Args:
        collection: What is shown.
        port: Port; 0: a free one.

    Attributes:
        url: Address of the page, with a random token that every request must have.

    Raises:
        StudioError: If the port is taken.
    """

    def __init__(self, collection: Collection, *, port: int = 0) -> None:
        token = secrets.token_urlsafe(32)
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError as error:
            raise StudioError(f"port {port}: expected a free one, got: {error}") from error
        self._server.collection, self._server.token = collection, token
        self.url = f"http://{HOST}:{self._server.server_address[1]}/{token}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> "Studio":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.collection.close()

    def wait(self) -> None:
        """Block until the process is interrupted."""
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    collection: Collection
    token: str


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "vaeaug"
    sys_version = ""
    # Of a client that sends nothing, seconds.
    timeout = 60
    # Head and body are two writes; the second must not wait for the answer to the first.
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        parts = self._parts()
        if parts is not None:
            self._answer(lambda: self._found(parts))

    def do_POST(self) -> None:
        parts = self._parts()
        if parts is not None:
            self._answer(lambda: self._saved(parts))

    def log_message(self, format: str, *args: object) -> None:
        log.debug(format, *args)

    def _parts(self) -> list[str] | None:
        """The path below the token; None, and an answer, where host or token are wrong."""
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if name not in _NAMES:
            self._refuse(HTTPStatus.FORBIDDEN, f"expected one of {', '.join(_NAMES)} as host")
            return None
        parts = urlsplit(self.path).path.split("/")[1:]
        if not hmac.compare_digest(parts[0].encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, "expected the address that vaeaug studio printed")
            return None
        if len(parts) == 1:  # the page's own addresses are relative to the folder
            self._refuse(HTTPStatus.NOT_FOUND, "expected a slash after the token")
            return None
        return parts[1:]

    def _answer(self, found: Any) -> None:
        try:
            body, kind = found()
        except StudioError as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error))
        except ShardError as error:
            log.warning("%s", error)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except Exception as error:
            log.exception("%s", self.path.split("/", 2)[-1])
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        else:
            self._send(HTTPStatus.OK, body, kind)

    def _found(self, parts: Sequence[str]) -> tuple[bytes, str]:
        collection = self.server.collection
        query = parse_qs(urlsplit(self.path).query)
        match parts:
            case [name] if name in _PAGE:
                file, kind = _PAGE[name]
                return (_FOLDER / file).read_bytes(), kind
            case ["columns"]:
                return collection.packed(), "application/octet-stream"
            case ["tiles"]:
                numbers = [_number(text) for text in query.get("of", [""])[0].split(",")]
                if len(numbers) > MOST_TILES:
                    raise StudioError(f"expected at most {MOST_TILES} tiles, got {len(numbers)}")
                return draw_tiles(collection, numbers), "image/png"
            case ["facts", number]:
                return _json(collection.facts(_number(number)))
            case ["picture", kind, number]:
                place = query.get("place")
                picked = None if place is None else _number(place[0])
                return draw_picture(collection, kind, _number(number), picked), "image/png"
            case ["curves", kind, number]:
                return _json(curves_of(collection, kind, _number(number)))
            case ["sound", kind, number]:
                return sound_of(collection, kind, _number(number)), "audio/wav"
        raise StudioError(f"{'/'.join(parts)}: there is no such page")

    def _saved(self, parts: Sequence[str]) -> tuple[bytes, str]:
        if list(parts) != ["excluded"]:
            raise StudioError(f"{'/'.join(parts)}: there is no such page")
        length = _number(self.headers.get("Content-Length", "0"))
        if not 0 < length <= MOST_BYTES:
            self.close_connection = True
            raise StudioError(f"expected 1 to {MOST_BYTES:,} bytes, got {length:,}")
        try:
            document = parse_strict(self.rfile.read(length))
        except JSONTextError as error:
            raise StudioError(f"expected JSON, got: {error}") from error
        document = document if isinstance(document, Mapping) else {}
        numbers, after = document.get("excluded"), document.get("after")
        if not isinstance(numbers, list) or not all(type(n) is int for n in numbers):
            raise StudioError("expected a list of sample numbers as `excluded`")
        if not isinstance(after, str):
            raise StudioError("expected the state of the list before as `after`")
        return _json({"state": self.server.collection.save(numbers, after=after)})

    def _refuse(self, status: int, message: str) -> None:
        if self.command == "POST":  # its body was not read
            self.close_connection = True
        self._send(status, f"{message}\n".encode(), "text/plain; charset=utf-8")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        # Shards never change, and the token is new with every server.
        kept = status == HTTPStatus.OK and kind in ("image/png", "audio/wav")
        self.send_header("Cache-Control", "private, max-age=86400" if kept else "no-store")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise StudioError(f"expected a whole number, got {text[:40]!r}")
    return int(text)


def _json(document: Mapping[str, Any]) -> tuple[bytes, str]:
    return json.dumps(document).encode(), "application/json"
