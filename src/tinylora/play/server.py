"""The playground's web server: one page, and JSON for it. Local unless asked otherwise.

What it defends: nobody's web page may use the model through the reader's browser. The Host header
must be this machine (a name that somebody else rebinds to 127.0.0.1 is refused), a request must be
JSON from this very page (other origins would need a permission that is never given), and its size
is bounded. What it does **not** do: passwords, TLS, many users.
"""

import asyncio
import ipaddress
import json
import math
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tinylora.errors import RequestError, TinyLoraError
from tinylora.play.opening import Playground
from tinylora.play.steering import SIDES, Question, Token
from tinylora.settings.play import Ask, Measure, Numbers, Pasted
from tinylora.tasks.task import Problem

PAGE = Path(__file__).parent / "page"
MAX_BODY_BYTES = 2**20  # 64 candidates of the most numbers that a page has, and more
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
Made = TypeVar("Made")
Endpoint = Callable[[Request], Awaitable[Response]]


class Turns:
    """One thread, in which everything that touches the model runs, one request after the other."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def call(self, function: Callable[..., Made], *args: Any) -> Made:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    async def stream(self, make: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
        """What `make` yields, as it comes; it is stopped where the reader has gone."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Any] = asyncio.Queue()
        is_over, has_gone = object(), threading.Event()

        def work() -> None:
            try:
                with closing(make()) as items:  # type: ignore[type-var]
                    for item in items:
                        if has_gone.is_set():
                            break
                        loop.call_soon_threadsafe(queue.put_nowait, item)
            except TinyLoraError as error:
                loop.call_soon_threadsafe(queue.put_nowait, {"error": str(error)})
            finally:
                loop.call_soon_threadsafe(queue.put_nowait, is_over)

        worked = loop.run_in_executor(self._pool, work)
        try:
            while (item := await queue.get()) is not is_over:
                yield item
        finally:
            has_gone.set()
        await worked


def make_app(playground: Playground, host: str) -> Starlette:
    """The page of a playground.

    Args:
        host: the address that it listens on, which decides what Host headers are known.
    """
    turns = Turns()
    steering, problems = playground.steering, playground.problems

    def asked(place: int, count: int, prompted: bool) -> list[Problem]:
        instruction = playground.instruction(prompted)
        return [instruction.before(problem) for problem in problems[place : place + count]]

    async def about(request: Request) -> Response:
        return JSONResponse(playground.about())

    async def answer(request: Request) -> Response:
        ask = Ask(**await _body(request))
        values = steering.values(ask.values)

        def lines() -> Iterator[dict[str, Any]]:
            return _answer(playground, ask, values)

        async def text() -> AsyncIterator[str]:
            async for line in turns.stream(lines):
                yield json.dumps(line) + "\n"

        return StreamingResponse(text(), media_type="application/x-ndjson")

    async def measure(request: Request) -> Response:
        told = Measure(**await _body(request))

        def letters() -> list[str]:
            import torch

            candidates = torch.stack([steering.values(v) for v in told.candidates])
            chosen = asked(told.first, told.count, told.prompted)
            return steering.measure(candidates, chosen) if chosen else [""] * len(candidates)

        return JSONResponse({"letters": await turns.call(letters)})

    async def text_of(request: Request) -> Response:
        values = steering.values(Numbers(**await _body(request)).values)
        return JSONResponse({"text": playground.text(values)})

    async def numbers_of(request: Request) -> Response:
        text = Pasted(**await _body(request)).text
        if not text.strip().startswith("tl1:"):
            raise RequestError(
                f"{text.strip()[:20]} does not begin with tl1:, so it is not an adapter's text. "
                'Copy the whole line; "tinylora inspect" shows it.'
            )
        return JSONResponse({"values": await turns.call(playground.values_of, text)})

    async def prompt(request: Request) -> Response:
        await _body(request)
        tried = await turns.call(lambda: playground.prompts)
        return JSONResponse(
            {"tried": [{"name": t.instruction.name, "accuracy": t.accuracy} for t in tried]}
        )

    posts: dict[str, Endpoint] = {
        "answer": answer,
        "measure": measure,
        "text": text_of,
        "numbers": numbers_of,
        "prompt": prompt,
    }
    return Starlette(
        routes=[
            Route("/", _file("index.html")),
            *[Route(f"/{path.name}", _file(path.name)) for path in sorted(PAGE.iterdir())],
            Route("/api/about", about),
            *[Route(f"/api/{name}", does, methods=["POST"]) for name, does in posts.items()],
        ],
        middleware=[Middleware(Guard, host=host)],
        exception_handlers={RequestError: _refused, TinyLoraError: _failed},
    )


def _answer(playground: Playground, ask: Ask, values: Any) -> Iterator[dict[str, Any]]:
    """The tokens of both sides, and at the end, for a problem of the task, who was right."""
    problems, steering = playground.problems, playground.steering
    known = (
        problems[ask.problem] if ask.problem is not None and ask.problem < len(problems) else None
    )
    problem = known if known and known.prompt == ask.prompt else Problem(ask.prompt, "")
    steered = playground.instruction(ask.prompted).before(problem)
    answers = dict.fromkeys(SIDES, "")
    for pair in steering.answers(Question(problem, steered, ask.temperature, ask.seed), values):
        for side, token in pair.items():
            answers[side] += token.text if token else ""
        yield {side: _shown(token) for side, token in pair.items()}
    if problem is known:
        yield {
            "verdicts": {
                side: steering.judge(problem, answer).score for side, answer in answers.items()
            }
        }


def _shown(token: Token | None) -> dict[str, Any] | None:
    """JSON knows neither inf nor nan: a change that is not finite is null."""
    if token is None:
        return None
    return {
        name: x if not isinstance(x, float) or math.isfinite(x) else None
        for name, x in asdict(token).items()
    }


def _file(name: str) -> Endpoint:
    async def send(request: Request) -> Response:
        return FileResponse(PAGE / name)

    return send


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        RequestError: it is not JSON, or not an object.
    """
    try:
        told = await request.json()
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not all(isinstance(name, str) for name in told):
        raise RequestError("The body is not a JSON object. Send one, as the page does.")
    return told


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=500)


class Guard:
    """Refuses what the page itself would never send, and adds the headers of every answer."""

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app, self.host = app, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(Request(scope))
        body = b""
        while refusal is None and scope["method"] == "POST":
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MAX_BODY_BYTES:
                refusal = 413, f"The body has more than {MAX_BODY_BYTES:,} bytes. Send less."
            if message["type"] == "http.disconnect":
                return
            if not message.get("more_body"):
                break

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        if refusal is not None:
            status, sentence = refusal
            response = JSONResponse({"error": sentence}, status_code=status)
            await response(scope, receive, with_headers)
            return
        is_read = False

        async def replay() -> Any:
            nonlocal is_read
            if is_read or scope["method"] != "POST":
                return await receive()
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, with_headers)

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


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        RequestError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"host = {host}, port = {port}: it cannot listen there ({error}). Choose another port "
            "with --port (0: any free one), or another address with --host."
        ) from None


def address_of(listening: socket.socket) -> str:
    """What a browser opens."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(playground: Playground, listening: socket.socket, host: str) -> None:
    """Answer until interrupted."""
    config = uvicorn.Config(
        make_app(playground, host), log_level="warning", timeout_keep_alive=5, ws="none",
        server_header=False, limit_concurrency=64,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])
