"""The playground's web server: one page, and JSON for it (`guard.py`: from whom)."""

import json
import math
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tinylora.errors import RequestError, TinyLoraError
from tinylora.play.guard import Guard
from tinylora.play.messages import Ask, Measure, Numbers, Pasted
from tinylora.play.opening import Playground
from tinylora.play.steering import SIDES, Question, Token, interruptible
from tinylora.play.turns import Turns
from tinylora.tasks.task import Problem

PAGE = Path(__file__).parent / "page"
Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(playground: Playground, host: str) -> Starlette:
    """The page of a playground.

    Args:
        host: the address that it listens on, which decides what Host headers are known.
    """
    api = Api(playground)
    posts = {
        "answer": api.answer,
        "measure": api.measure,
        "text": api.text,
        "numbers": api.numbers,
        "prompt": api.prompt,
    }
    return Starlette(
        routes=[
            Route("/", _file("index.html")),
            *[Route(f"/{path.name}", _file(path.name)) for path in sorted(PAGE.iterdir())],
            Route("/api/about", api.about),
            *[Route(f"/api/{name}", does, methods=["POST"]) for name, does in posts.items()],
        ],
        middleware=[Middleware(Guard, host=host)],
        exception_handlers={RequestError: _refused, TinyLoraError: _failed},
    )


class Api:
    """What the page asks for, each as a function of a request."""

    def __init__(self, playground: Playground) -> None:
        self.playground, self.steering = playground, playground.steering
        self.turns = Turns()

    async def about(self, request: Request) -> Response:
        """What there is to see."""
        return JSONResponse(self.playground.about())

    async def answer(self, request: Request) -> Response:
        """Two answers, token by token: a line of JSON for each pair."""
        ask = Ask(**await _body(request))
        values = self.steering.values(ask.values)

        async def lines() -> AsyncGenerator[str]:
            made = self.turns.stream(lambda: _answer(self.playground, ask, values))
            async with aclosing(made) as events:
                async for event in events:
                    yield json.dumps(event) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def measure(self, request: Request) -> Response:
        """How candidates answer some of the problems."""
        told = Measure(**await _body(request))
        candidates = torch.stack([self.steering.values(v) for v in told.candidates])
        work = partial(self._letters, told, candidates)
        letters = await self.turns.call_until(_has_gone(request), work)
        return JSONResponse({"letters": letters})

    def _letters(
        self, told: Measure, candidates: torch.Tensor, is_over: threading.Event
    ) -> list[str]:
        instruction = self.playground.instruction(told.prompted)
        problems = self.playground.problems[told.first : told.first + told.count]
        if not problems:
            return [""] * len(candidates)
        asked = [instruction.before(problem) for problem in problems]
        with interruptible(self.steering.adapter.model, is_over.is_set):
            return self.steering.measure(candidates, asked)

    async def text(self, request: Request) -> Response:
        """v as an adapter's text."""
        values = self.steering.values(Numbers(**await _body(request)).values)
        return JSONResponse({"text": self.playground.text(values)})

    async def numbers(self, request: Request) -> Response:
        """v of an adapter's text."""
        text = Pasted(**await _body(request)).text.strip()
        if not text.startswith("tl1:"):  # else it would be a path, and a file would be read
            raise RequestError(
                f"{text[:20]} does not begin with tl1:, so it is not an adapter's text. Copy the "
                'whole line; "tinylora inspect" shows it.'
            )
        return JSONResponse({"values": await self.turns.call(self.playground.values_of, text)})

    async def prompt(self, request: Request) -> Response:
        """The prompts that were tried, the best one first."""
        await _body(request)
        tried = await self.turns.call(lambda: self.playground.prompts)
        return JSONResponse({"tried": [one.shown() for one in tried]})


def _answer(playground: Playground, ask: Ask, values: Any) -> Generator[dict[str, Any]]:
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


async def _has_gone(request: Request) -> None:
    """Returns when the reader has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=400)


def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_code=500)


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
