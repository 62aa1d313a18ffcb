"""The playground's server: what the page gets, and what is refused."""

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from tinylora.errors import RequestError
from tinylora.play.guard import MAX_BODY_BYTES, is_known_host, is_loopback
from tinylora.play.opening import Playground
from tinylora.play.server import address_of, listen, make_app
from tinylora.play.steering import interruptible
from tinylora.play.turns import Turns

ADDRESS = "http://127.0.0.1:8013"


@pytest.fixture(scope="module")
def app(playground: Playground) -> Starlette:
    return make_app(playground, "127.0.0.1")


def ask(app: Starlette, path: str, told: Any = None, **options: Any) -> httpx.Response:
    """One request, as a browser on this machine sends it."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client:
            if told is None and "content" not in options:
                return await client.get(path, **options)
            body = options if told is None else {"json": told, **options}
            return await client.post(path, **body)

    return asyncio.run(send())


def test_the_page_and_what_it_knows(app: Starlette, playground: Playground) -> None:
    page = ask(app, "/")
    assert "<title>tinylora playground</title>" in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert ask(app, "/play.js").status_code == 200
    assert ask(app, "/opening.py").status_code == 404
    [space] = ask(app, "/api/about").json()["spaces"]
    assert space["shape"] == [13, 1]
    assert [point["step"] for point in space["path"]] == [1, 2, 4, 8, 16]
    assert space["trained"] == space["path"][-1]["values"]
    assert space["limit"] == 4.0  # the largest number is 2.62, and 1.5 times it is 3.9
    assert len(space["groups"]) == 13
    assert space["groups"][-1] == "3.up_proj to 3.down_proj"


def test_a_line_is_measured_as_its_points_are(app: Starlette, playground: Playground) -> None:
    v = playground.path[16].flatten().tolist()
    candidates = [[x * factor for x in v] for factor in (0.0, 1.0)]
    told = {"candidates": candidates, "first": 2, "count": 3}
    letters = ask(app, "/api/measure", told).json()["letters"]
    alone = [
        ask(app, "/api/measure", {**told, "candidates": [one]}).json()["letters"][0]
        for one in candidates
    ]
    assert letters == alone
    assert [len(text) for text in letters] == [3, 3]
    assert ask(app, "/api/measure", {**told, "first": 99}).json() == {"letters": ["", ""]}


def test_an_answer_comes_token_by_token_with_its_verdicts(
    app: Starlette, playground: Playground
) -> None:
    told = {
        "values": playground.path[16].flatten().tolist(),
        "prompt": playground.problems[0].prompt,
        "problem": 0,
    }
    *pairs, last = [json.loads(s) for s in ask(app, "/api/answer", told).text.splitlines()]
    steered = "".join(pair["steered"]["text"] for pair in pairs if pair["steered"])
    assert steered == "3-2=1\n1+4=5\n#### 5"
    assert last == {"verdicts": {"base": 0.0, "steered": 1.0}}
    free = ask(app, "/api/answer", {**told, "prompt": "Tom has 2 eggs.", "problem": None})
    assert all("verdicts" not in json.loads(line) for line in free.text.splitlines())


def test_an_error_of_an_answer_is_its_last_line(app: Starlette) -> None:
    told = {"values": [0.0] * 13, "prompt": "coins " * 600}
    [line] = ask(app, "/api/answer", told).text.splitlines()
    assert "context ends at 512 tokens" in json.loads(line)["error"]


def test_text_and_numbers_are_inverse(app: Starlette) -> None:
    for values in ([0.5] * 13, [0.1 * i for i in range(13)]):
        text = ask(app, "/api/text", {"values": values}).json()["text"]
        found = ask(app, "/api/numbers", {"text": f" {text}\n"}).json()["values"]
        assert found == pytest.approx(values, rel=1e-6)


@pytest.mark.parametrize(
    ("path", "told", "sentence"),
    [
        ("/api/numbers", {"text": "tl1:AAAA"}, "is a damaged text"),
        ("/api/numbers", {"text": "/etc/hostname"}, "does not begin with tl1:"),
        ("/api/measure", {"candidates": [[0.0]]}, "1 numbers were given"),
        ("/api/measure", {"candidates": [[0.0] * 13] * 65}, "at most 64"),
        ("/api/text", {"values": [0.0] * 13, "vaules": 1}, "vaules is not a setting"),
        ("/api/text", [1, 2], "The body is not a JSON object"),
        ("/api/answer", {"values": [0.0] * 13, "prompt": ""}, "prompt = "),
        ("/api/answer", {"values": [0.0] * 13, "prompt": "a", "temperature": -1}, "temperature"),
    ],
)
def test_wrong_requests_are_refused_in_a_sentence(
    app: Starlette, path: str, told: Any, sentence: str
) -> None:
    response = ask(app, path, told)
    assert response.status_code == 400
    assert sentence in response.json()["error"]


def test_numbers_of_another_adapter_are_refused(app: Starlette) -> None:
    from tinylora.adapter.text import encode
    from tinylora.play.opening import boxed

    text = encode(boxed("2")[16], "fp32")
    response = ask(app, "/api/numbers", {"text": text})
    assert "an adapter of 2 numbers with other settings" in response.json()["error"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {"host": "evil.example:8013"}}, 403),
        ({"headers": {"host": "127.0.0.1.evil.example"}}, 403),
        ({"headers": {"host": ""}}, 403),
        ({"headers": {"origin": "http://evil.example"}}, 403),
        ({"headers": {"origin": "null"}}, 403),
        ({"headers": {"content-type": "text/plain"}}, 415),
        ({"content": b"x" * (MAX_BODY_BYTES + 1)}, 413),
    ],
)
def test_what_the_page_would_not_send_is_refused(
    app: Starlette, options: dict[str, Any], status: int
) -> None:
    headers = {"content-type": "application/json", **options.get("headers", {})}
    body = options.get("content", b'{"values": []}')
    response = ask(app, "/api/text", content=body, headers=headers)
    assert response.status_code == status
    assert response.json()["error"].endswith((".", "--host."))


def test_a_body_without_a_length_is_bounded_too(app: Starlette) -> None:
    async def parts() -> Any:
        for _ in range(9):
            yield b"x" * (MAX_BODY_BYTES // 8)

    headers = {"content-type": "application/json"}
    assert ask(app, "/api/text", content=parts(), headers=headers).status_code == 413


@pytest.mark.parametrize(
    ("header", "listening", "is_known"),
    [
        ("localhost:1", "127.0.0.1", True),
        ("[::1]:8013", "::1", True),
        ("10.0.0.7:8013", "127.0.0.1", False),
        ("10.0.0.7:8013", "0.0.0.0", True),
        ("evil.example", "0.0.0.0", False),
        ("lab.example", "lab.example", True),
        ("[oops", "127.0.0.1", False),
    ],
)
def test_known_hosts(header: str, listening: str, is_known: bool) -> None:
    assert is_known_host(header, listening) == is_known


def test_loopback_addresses() -> None:
    hosts = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.0.7", "lab.example")
    assert [is_loopback(host) for host in hosts] == [True] * 3 + [False] * 3


def test_a_taken_port_is_a_wrong_request() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert address_of(listening) == f"http://127.0.0.1:{port}/"
        with pytest.raises(RequestError, match=f"port = {port}: it cannot listen there"):
            listen("127.0.0.1", port)


def test_a_reader_who_leaves_stops_the_work() -> None:
    """The model is free for the next request, and the generator was closed in its own thread."""
    ended: list[bool] = []

    def endless() -> Iterator[int]:
        try:
            yield from iter(int, 1)
        finally:
            ended.append(True)

    async def leave() -> str:
        turns = Turns()
        made = turns.stream(endless)  # type: ignore[arg-type]
        await anext(made)
        await made.aclose()
        return await turns.call(lambda: "next")

    assert asyncio.run(leave()) == "next"
    assert ended == [True]


def test_a_measurement_ends_when_its_reader_has_gone(
    app: Starlette, playground: Playground
) -> None:
    """At the next forward pass, so that the model is free for what is wanted now."""
    model, passes = playground.steering.adapter.model, []
    left = asyncio.Event()

    async def leave() -> str:
        loop = asyncio.get_running_loop()

        def count(*args: object) -> None:
            passes.append(1)
            loop.call_soon_threadsafe(left.set)
            while not gone.is_set():  # as slow a model as it takes
                pass

        gone = threading.Event()
        handle = model.register_forward_hook(count)
        turns = Turns()

        def work(is_over: threading.Event) -> list[str]:
            threading.Thread(target=lambda: (is_over.wait(), gone.set())).start()
            with interruptible(model, is_over.is_set):
                return playground.steering.measure(playground.path[16][None], playground.problems)

        try:
            letters = await turns.call_until(left.wait(), work)
        finally:
            handle.remove()
        return "nothing" if letters is None else "letters"

    assert asyncio.run(leave()) == "nothing"
    assert len(passes) == 1
