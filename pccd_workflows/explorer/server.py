"""The explorer as a local web server: only GET, only this machine unless asked otherwise."""

import ipaddress
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pymongo.errors import PyMongoError

from pccd_workflows import __version__
from pccd_workflows.core.errors import InputError, PccdError
from pccd_workflows.explorer.answers import Answer
from pccd_workflows.explorer.pages import answer

MAX_ADDRESS = 4000
"""Characters of an address that are read; ours are a few hundred at most."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Explorer(ThreadingHTTPServer):
    """Serves the candidates of one database.

    On a login node every user reaches this machine's ports: who asks has to know the token of the
    printed address; a cookie remembers it.

    connect: returns the database; asked for every request, so that an outage ends by itself.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, connect: Callable[[], Any]) -> None:
        """Listen on `host`:`port` (0 = a free one); InputError if that is not possible."""
        self.connect = connect
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"Cannot listen on {host} port {port}: {reason}.") from None

    @property
    def url(self) -> str:
        """The address to open in a browser, token included."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """Name of the cookie: browsers send one to every port of a machine."""
        return f"pccd_{self.server_address[1]}"


def is_loopback(host: str) -> bool:
    """True if only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class _Handler(BaseHTTPRequestHandler):
    server: Explorer
    server_version = f"pccd/{__version__}"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 30
    _brought: str | None = None
    """Token of the address that is asked for."""

    def do_GET(self) -> None:
        """Answer one request."""
        self._send(self._answer())

    do_HEAD = do_GET  # noqa: N815  the base looks for this name

    def _answer(self) -> Answer:
        if len(self.path) > MAX_ADDRESS:
            return Answer(
                "This address is too long.\n", "text/plain", HTTPStatus.REQUEST_URI_TOO_LONG
            )
        if not self._asked_for_here():
            text = "This server answers for this machine only.\n"
            return Answer(text, "text/plain", HTTPStatus.MISDIRECTED_REQUEST)
        address = urlsplit(self.path)
        given = parse_qsl(address.query, keep_blank_values=True)
        self._brought = next((value for name, value in given if name == "token"), None)
        if not self._is_trusted():
            text = "Open the address that `pccd explore` printed: its token is missing or wrong.\n"
            return Answer(text, "text/plain", HTTPStatus.FORBIDDEN)
        query = address.query
        if self._brought is not None:
            query = urlencode([(name, value) for name, value in given if name != "token"])
        try:
            return answer(self.server.connect(), address.path, query)
        except (PccdError, PyMongoError) as error:
            text = str(error) if isinstance(error, PccdError) else "The database does not answer."
            return Answer(f"{text}\n", "text/plain", HTTPStatus.SERVICE_UNAVAILABLE)

    def _is_trusted(self) -> bool:
        """Return whether the address or a cookie holds the token."""
        told = [self._brought or ""]
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            cookie = None
        told += [cookie.value] if cookie is not None else []
        right = self.server.token.encode()
        return any(secrets.compare_digest(text.encode(), right) for text in told)

    def _asked_for_here(self) -> bool:
        """Refuse a foreign name that points to this machine (DNS rebinding)."""
        if not is_loopback(str(self.server.server_address[0])):
            return True
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        return name is not None and is_loopback(name)

    def _send(self, reply: Answer) -> None:
        body = reply.body.encode() if isinstance(reply.body, str) else reply.body
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(body)))
        if reply.filename is not None:
            self.send_header("Content-Disposition", f'attachment; filename="{reply.filename}"')
        if self._brought is not None and reply.status != HTTPStatus.FORBIDDEN:
            value = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Lax; Path=/"
            self.send_header("Set-Cookie", value)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's own name
        """Keep the terminal quiet: the page shows what went wrong."""
