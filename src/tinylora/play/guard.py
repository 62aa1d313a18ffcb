"""Who may ask the playground: its own page, and nobody's else through the reader's browser.

The Host header must be this machine (a name that somebody else rebinds to 127.0.0.1 is refused), a
request must be JSON from this very page (other origins would need a permission that is never
given), and its size is bounded. What it does **not** do: passwords, TLS, many users.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 2**20  # 64 candidates of a thousand numbers, written out
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Guard:
    """Refuses what the page itself would never send, and adds the headers of every answer."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), said.encode()) for name, said in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        refusal = self._refusal(Request(scope))
        if refusal is None and scope["method"] == "POST":
            body = await _bounded(receive)
            if body is None:
                refusal = 413, f"The body has more than {MAX_BODY_BYTES:,} bytes. Send less."
            else:
                receive = _again(body, receive)
        if refusal is None:
            await self.app(scope, receive, with_headers)
            return
        status, sentence = refusal
        response = JSONResponse({"error": sentence}, status_code=status)
        await response(scope, receive, with_headers)

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        """Status and sentence for a request that is not the page's."""
        host = request.headers.get("host", "")
        if not is_known_host(host, self.host):
            return 403, (
                f"The Host header is {host[:80]!r}, which is not an address of this playground. "
                f"Open it by its own address, or start it with --host."
            )
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, f"The page {origin[:80]} may not use this playground."
        if request.method != "POST":
            return None
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            return 415, f"The body is {kind[:80] or 'of no type'}. Send application/json."
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return (
                413,
                f"The body has {length[:20]} bytes, but at most {MAX_BODY_BYTES:,} are read.",
            )
        return None


async def _bounded(receive: Receive) -> bytes | None:
    """The body of a request; None where it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that has been read, for those who read it once more; then what comes next."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return parts.pop() if parts else await receive()

    return next_message


def is_known_host(header: str, listening: str) -> bool:
    """Whether a Host header names this machine.

    On a loopback address: loopback names alone. Elsewhere also the address or name that was asked
    for, any address in digits (a name is what can be rebound), and this machine's own name.
    """
    try:
        name = (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return False
    if name in LOOPBACK or name == listening.lower():
        return True
    return not is_loopback(listening) and (
        _address(name) is not None or name == socket.gethostname().lower()
    )


def is_loopback(host: str) -> bool:
    """Whether nobody else on the network can reach what listens there."""
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
