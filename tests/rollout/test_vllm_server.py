"""The client of vLLM servers, against servers that speak its protocol and fail on demand."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tinylora.errors import TinyLoraError
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.vllm_server import MOST_FAILURES, Replicas, request

SAMPLING = Sampling(temperature=0.7, max_new_tokens=4, eos_token_ids=(1, 6))
PROMPTS = [[10 + i] * (1 + i % 3) for i in range(12)]
SEEDS = [1000 + i for i in range(12)]
FOLDER = Path("/dev/shm/tinylora-test-v0")


class FakeServer(ThreadingHTTPServer):
    """As much of `vllm serve` as is asked of it; `fail` decides what a completion request meets."""

    def __init__(self, fail: Callable[[int], str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.fail, self.lock = fail, threading.Lock()
        self.adapters: set[str] = set()
        self.bodies: list[dict[str, Any]] = []
        self.num_loads = 0
        self.has_plugin = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut on purpose is no news."""


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            status, answer = getattr(self, self.path.removeprefix("/v1/"))(body)
        if status == 0:
            self.connection.close()
            return
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def load_lora_adapter(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.server.num_loads += 1
        if "refused" in body["lora_path"]:
            return 404, {"error": {"message": "No adapter found for x"}}
        if body["lora_name"] in self.server.adapters:
            return 400, {"error": {"message": "The lora adapter has already been loaded."}}
        self.server.adapters.add(body["lora_name"])
        return 200, "Success"

    def unload_lora_adapter(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.server.adapters.discard(body["lora_name"])
        return 200, "Success"

    def completions(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.server.bodies.append(body)
        what = self.server.fail(len(self.server.bodies))
        if what == "forget":
            self.server.adapters.clear()
        if what == "cut":
            return 0, None
        if what.isdigit():
            return int(what), {"error": {"message": f"on purpose {what}"}}
        if self.server.has_plugin and body["model"].startswith("tl1:"):
            if body["model"].endswith("elsewhere"):
                return 404, {"error": {"message": "It was not trained on these weights."}}
            return 200, {
                "choices": [choice({"seed": 0, **body}, k) for k in range(body.get("n", 1))]
            }
        if body["model"] not in self.server.adapters:
            return 404, {"error": {"message": f"The model {body['model']} does not exist."}}
        return 200, {"choices": [choice(body, k) for k in range(body["n"])]}

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def choice(body: dict[str, Any], k: int) -> dict[str, Any]:
    """An answer that shows what was asked: the prompt's first token, the seed, the sample."""
    ids = [body["prompt"][0], body["seed"] % 1000, 1 if k == 0 else 7]
    return {
        "token_ids": ids,
        "logprobs": {"token_logprobs": [-0.5, -1.5, -k / 4]},
        "finish_reason": "stop" if k == 0 else "length",
    }


EXPECTED = [
    [
        Completion([prompt[0], seed % 1000, 1], [-0.5, -1.5, 0.0], truncated=False),
        Completion([prompt[0], seed % 1000, 7], [-0.5, -1.5, -0.25], truncated=True),
    ]
    for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
]


@contextmanager
def serving(*fails: Callable[[int], str]) -> Iterator[tuple[Replicas, list[FakeServer]]]:
    with ExitStack() as stack:
        servers = [stack.enter_context(FakeServer(fail)) for fail in fails]
        for server in servers:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
        replicas = Replicas([server.address for server in servers], timeout_s=5)
        stack.callback(replicas.close)
        yield replicas, servers


def works(call: int) -> str:
    return ""


def answers(replicas: Replicas) -> list[list[Completion]]:
    replicas.load(FOLDER)
    return replicas.generate(PROMPTS, 2, SAMPLING, SEEDS)


def test_answers_come_back_in_the_order_of_the_prompts() -> None:
    with serving(works, works) as (replicas, servers):
        assert answers(replicas) == EXPECTED
        bodies = [body for server in servers for body in server.bodies]
        assert sorted(body["seed"] for body in bodies) == SEEDS
        assert {body["model"] for body in bodies} == {FOLDER.name}


def test_what_the_models_own_defaults_would_change_is_set_back() -> None:
    body = request("name", [3], 2, SAMPLING, 5)
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert body.items() >= {**neutral, "temperature": 0.7, "stop_token_ids": [1, 6]}.items()


@pytest.mark.parametrize("failure", ["cut", "500"])
def test_a_replica_that_dies_in_the_middle_costs_no_prompt(failure: str) -> None:
    with serving(lambda call: failure if call > 2 else "", works) as (replicas, servers):
        assert answers(replicas) == EXPECTED
        dead, alive = replicas.replicas
        assert (dead.works, alive.works) == (False, True)
        assert len(servers[1].bodies) >= 10


def test_a_passing_failure_is_tried_again() -> None:
    with serving(lambda call: "503" if call == 2 else "") as (replicas, servers):
        assert answers(replicas) == EXPECTED
        assert len(servers[0].bodies) == len(PROMPTS) + 1
        assert replicas.replicas[0].works


def test_when_none_is_left_the_causes_are_listed() -> None:
    fails = (lambda call: "cut" if call > 3 else "", lambda call: "500")
    with (
        serving(*fails) as (replicas, _),
        pytest.raises(TinyLoraError, match=r"(?s)No vLLM server is left .*Error.*500.*--resume"),
    ):
        answers(replicas)


def test_a_replica_that_is_back_serves_the_next_version() -> None:
    broken = [True]
    with serving(lambda call: "500" if broken else "", works) as (replicas, _):
        answers(replicas)
        assert not replicas.replicas[0].works
        broken.clear()
        assert answers(replicas) == EXPECTED
        assert replicas.replicas[0].works


def test_a_replica_that_was_started_anew_is_given_the_adapter() -> None:
    with serving(lambda call: "forget" if call == 3 else "") as (replicas, servers):
        assert answers(replicas) == EXPECTED
        assert servers[0].num_loads >= 2


def test_a_server_that_is_not_there_is_named() -> None:
    replicas = Replicas(["http://127.0.0.1:9"], timeout_s=5)
    with pytest.raises(TinyLoraError, match=r"No vLLM server is left .*127.0.0.1:9: ConnectError"):
        replicas.load(FOLDER)
    replicas.close()


def test_refusals_are_not_repeated() -> None:
    with serving(lambda call: "400", works) as (replicas, _):
        with pytest.raises(TinyLoraError, match=r"refused a prompt .400: .*on purpose 400"):
            answers(replicas)
        assert all(replica.num_failures < MOST_FAILURES for replica in replicas.replicas)
        with pytest.raises(TinyLoraError, match=r"did not load the adapter .*--enable-lora"):
            replicas.load(Path("/refused/v1"))


def test_servers_with_the_plugin_are_given_texts_and_nothing_else() -> None:
    with serving(works, works) as (replicas, servers):
        assert not replicas.takes("tl1:x")
        servers[0].has_plugin = True
        assert not replicas.takes("tl1:x")  # one of them needs files
        servers[1].has_plugin = True
        assert replicas.takes("tl1:x")
        replicas.load("tl1:x")
        assert replicas.generate(PROMPTS, 2, SAMPLING, SEEDS) == EXPECTED
        texts = [f"tl1:{i}" for i in range(12)]
        each = replicas.generate_each(PROMPTS, SAMPLING, SEEDS, texts)
        assert each == [row[0] for row in EXPECTED]
        replicas.unload("tl1:x")
        asked = {body["model"] for server in servers for body in server.bodies}
        assert asked == {"tl1:x", *texts}
        assert not any(server.num_loads for server in servers)
        with pytest.raises(TinyLoraError, match=r"refused the adapter .404: .*not trained on"):
            replicas.takes("tl1:elsewhere")


def test_versions_leave_the_servers() -> None:
    with serving(works, works) as (replicas, servers):
        replicas.load(FOLDER)
        assert all(server.adapters == {FOLDER.name} for server in servers)
        replicas.unload(FOLDER)
        assert not any(server.adapters for server in servers)


def test_a_completion_that_is_not_whole_is_an_error() -> None:
    with serving(works) as (replicas, _):
        replicas.load(FOLDER)
        whole = replicas.replicas[0].complete

        def broken(body: Any, folder: Path) -> Any:
            return [{**one, "finish_reason": "abort"} for one in whole(body, folder) or []]

        replicas.replicas[0].complete = broken  # type: ignore[method-assign]
        with pytest.raises(TinyLoraError, match='ended a completion with "abort" after 3 tokens'):
            replicas.generate(PROMPTS, 2, SAMPLING, SEEDS)
