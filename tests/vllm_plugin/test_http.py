"""`tinylora serve`, asked by OpenAI's client: texts and names, refusals, two servers, a restart.

Run by `make test-vllm` in an environment of its own, on the pocket model.
"""

import dataclasses
from collections.abc import Iterator
from importlib.metadata import entry_points
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from helpers.standins import pocket_run
from helpers.vllm_servers import OURS, Server, free_ports, kill, start, wait
from tinylora.adapter import TinyLora, attach
from tinylora.adapter.text import decode, encode
from tinylora.algorithms import make_step
from tinylora.models import Base, load_model
from tinylora.prompts import text_of
from tinylora.rollout.engine import Sampling
from tinylora.rollout.lora_engine import LoraEngine
from tinylora.rollout.transformers import TransformersEngine
from tinylora.rollout.vllm_server import Replicas
from tinylora.settings import AdapterConfig, TrainConfig
from tinylora.tasks import pocket as pocket_task
from tinylora.tasks.draw import draw_problems

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]
pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm", exc_type=ImportError)
if not any(p.name == "tinylora" for p in entry_points(group="vllm.general_plugins")):
    pytest.skip(
        "the installed tinylora is older than its plugin: pip install -e .", allow_module_level=True
    )


@pytest.fixture(scope="module")
def base() -> Base:
    return load_model("pocket", "fp32", "cpu")


@pytest.fixture(scope="module")
def adapter(base: Base) -> TinyLora:
    adapter = attach(base.model, AdapterConfig(u=13, num_groups=1))
    adapter.set_values(0.5 * torch.randn(1, 13, generator=torch.Generator().manual_seed(0)))
    return adapter


@pytest.fixture(scope="module")
def table(adapter: TinyLora, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "names.tsv"
    path.write_text(f"alice\t{adapter.to_text('fp32')}\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def servers(table: Path) -> Iterator[list[Server]]:
    """The first takes anybody's adapters, the second those of the table alone."""
    first, second = free_ports(2)
    ours = [*OURS, "--adapters", str(table)]
    started = [
        start(ours, first, table.parent / "open"),
        start([*ours, "--texts", "false", "--slots", "4"], second, table.parent / "closed"),
    ]
    try:
        for server in started:
            wait(server)
        yield started
    finally:
        for server in started:
            kill(server)


def client_of(server: Server) -> Any:
    from openai import OpenAI

    return OpenAI(base_url=f"{server.address}/v1", api_key="-", max_retries=0)


def prompts_of(base: Base, number: int) -> list[list[int]]:
    encoded = text_of(base).encode
    return [encoded(p) for p in draw_problems(pocket_task.make().test, number, 0, 0)]


def asked(server: Server, model: str, prompt: list[int]) -> tuple[list[int], list[float]]:
    """Tokens and log-probabilities of a greedy answer."""
    answer = client_of(server).completions.create(
        model=model, prompt=prompt, max_tokens=24, temperature=0, logprobs=0,
        extra_body={"return_token_ids": True},
    )  # fmt: skip
    return answer.choices[0].token_ids, answer.choices[0].logprobs.token_logprobs


def refusal(server: Server, model: str) -> str:
    """The sentence of a 404."""
    from openai import NotFoundError

    with pytest.raises(NotFoundError) as caught:
        client_of(server).completions.create(model=model, prompt=[5], max_tokens=1)
    assert caught.value.status_code == 404
    return str(caught.value.body["message"])


def check(server: Server, model: str, adapter: TinyLora, base: Base) -> None:
    """The answers under `model` are those of our engine with the adapter's numbers."""
    engine = TransformersEngine(adapter)
    for prompt in prompts_of(base, 3):
        ids, logprobs = asked(server, model, prompt)
        ((ours,),) = engine.generate([prompt], 1, Sampling(0.0, 24, base.eos_token_ids), 0)
        assert ids == ours.token_ids
        pairs = zip(logprobs, ours.logprobs, strict=True)
        assert max(abs(one - other) for one, other in pairs) < 1e-3


def test_texts_names_and_the_base_answer_over_http(
    servers: list[Server], adapter: TinyLora, base: Base
) -> None:
    check(servers[0], "alice", adapter, base)
    check(servers[1], "alice", adapter, base)
    present = adapter.v.detach().clone()
    try:
        for factor in (-1.0, 0.3, 0.0):
            adapter.set_values(factor * present)
            check(servers[0], adapter.to_text("fp32"), adapter, base)
        check(servers[0], "pocket", adapter, base)  # at zero
    finally:
        adapter.set_values(present)
    chat = client_of(servers[0]).chat.completions.create(
        model="alice", messages=[{"role": "user", "content": "How many?"}], max_tokens=4
    )
    assert chat.model == "alice"


def test_what_is_wrong_is_a_404_with_the_sentence(servers: list[Server], adapter: TinyLora) -> None:
    free, closed = servers
    line = adapter.to_text("fp32")
    contents = decode(line)
    kind, digits = contents.fingerprint.split(":")
    other = dataclasses.replace(contents, fingerprint=f"{kind}:{'0' * 8}{digits[8:]}")
    for _ in range(2):  # what was refused once is refused again
        assert "bob is not one of the 1 adapters" in refusal(free, "bob")
        assert "its checksum does not match" in refusal(free, line[:-1] + "x")
        assert "the embeddings differ" in refusal(free, encode(other, "fp32"))
    assert "takes 16384 at most" in refusal(free, "tl1:" + "A" * 20000)
    assert "../../etc/passwd is not one of" in refusal(free, "../../etc/passwd")
    moved = dataclasses.replace(contents, v=2 * contents.v)
    assert "only serves the adapters of its own table" in refusal(closed, encode(moved, "fp32"))
    ids, _ = asked(closed, line, [5, 6, 7])  # the table's own text is as good as its name
    assert ids


def test_nobodys_adapter_is_listed(servers: list[Server]) -> None:
    listed = httpx.get(f"{servers[0].address}/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["pocket"]
    labels = [
        line
        for line in httpx.get(f"{servers[0].address}/metrics").text.splitlines()
        if line.startswith("vllm:lora_requests_info")
    ]
    assert labels
    assert not any("tl1:" in line or "alice" in line for line in labels)


def test_loading_files_by_http_stays_closed(servers: list[Server], tmp_path: Path) -> None:
    """Names and texts need no runtime updating, which would let requests name paths."""
    body = {"lora_name": "x", "lora_path": str(tmp_path)}
    assert httpx.post(f"{servers[0].address}/v1/load_lora_adapter", json=body).status_code == 404


def test_the_table_changes_while_it_is_served(
    servers: list[Server], table: Path, adapter: TinyLora, base: Base
) -> None:
    present, before = adapter.v.detach().clone(), table.read_text(encoding="utf-8")
    prompt = prompts_of(base, 1)[0]
    old = asked(servers[0], "alice", prompt)
    try:
        adapter.set_values(-present)
        table.write_text(f"# changed\nalice\t{adapter.to_text('fp32')}\n", encoding="utf-8")
        check(servers[0], "alice", adapter, base)
    finally:
        adapter.set_values(present)
        table.write_text(before, encoding="utf-8")
    again = asked(servers[0], "alice", prompt)
    assert again[0] == old[0]


def test_rollouts_by_two_servers_need_no_files(
    servers: list[Server], adapter: TinyLora, base: Base, tmp_path: Path
) -> None:
    policy = adapter
    replicas = Replicas([servers[0].address], timeout_s=120)
    engine = LoraEngine(policy, replicas, tmp_path, count())
    config = TrainConfig(prompts_per_step=8, samples_per_prompt=4)
    metrics, _ = make_step(pocket_run(base, policy, engine, config), config.learning)(0)
    assert metrics["rollout_difference_max"] < 1e-3
    prompts, greedy = prompts_of(base, 4), Sampling(0.0, 24, base.eos_token_ids)
    present = adapter.v.detach().clone()
    candidates = torch.stack([f * present for f in torch.linspace(-1, 1, 12)])
    theirs, ours = (
        e.generate_population(prompts, candidates, greedy, seed=0)
        for e in (engine, TransformersEngine(policy))
    )
    assert [[c.token_ids for c in row] for row in theirs] == [
        [c.token_ids for c in row] for row in ours
    ]
    assert list(tmp_path.iterdir()) == []
    engine.close()
    replicas.close()


def test_two_processes_share_every_layer(table: Path, adapter: TinyLora, base: Base) -> None:
    """Tensor parallelism: each has its part of A or B, and all of R. A refusal reaches the client
    from the workers' processes as well."""
    (port,) = free_ports(1)
    command = [*OURS, "--slots", "8", "--tensor-parallel-size", "2"]
    server = start(command, port, table.parent / "parallel", VLLM_CPU_OMP_THREADS_BIND="nobind")
    try:
        wait(server)
        check(server, adapter.to_text("fp32"), adapter, base)
        contents = decode(adapter.to_text("fp32"))
        kind, digits = contents.fingerprint.split(":")
        other = dataclasses.replace(contents, fingerprint=f"{kind}:{'0' * 8}{digits[8:]}")
        assert refusal(server, encode(other, "fp32")).endswith("Load the base as it was.")
    finally:
        kill(server)


def test_a_server_that_starts_anew_knows_every_text(
    servers: list[Server], table: Path, adapter: TinyLora, base: Base
) -> None:
    """The client holds the adapter: nothing has to be registered again."""
    line = adapter.to_text("fp32")
    before = asked(servers[0], line, prompts_of(base, 1)[0])
    kill(servers[0])
    (port,) = free_ports(1)
    servers[0] = start([*OURS, "--adapters", str(table)], port, table.parent / "again")
    wait(servers[0])
    assert asked(servers[0], line, prompts_of(base, 1)[0])[0] == before[0]
