"""The exported GGUF: llama.cpp answers with it as the adapter does."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import nn
from transformers import MistralConfig, MistralForCausalLM

from helpers.decoders import decoder_of
from helpers.exports import adapter_of, logits
from helpers.gguf_base import write_base
from helpers.tiny import config_of, model_of, values_like
from tinylora.adapter import AdapterConfig, attach
from tinylora.errors import RequestError
from tinylora.export import to_gguf
from tinylora.export.gguf import apart, permute
from tinylora.models import load_model
from tinylora.prompts import text_of
from tinylora.tasks.pocket import problems

NUM_NEW = 40


def read(path: Path) -> gguf.GGUFReader:
    return gguf.GGUFReader(path)


def test_the_file_is_a_lora_of_llama_cpp(tmp_path: Path) -> None:
    adapter = adapter_of("qwen2")
    exported = to_gguf(adapter, tmp_path / "out")
    held = read(tmp_path / "out" / "adapter.gguf")
    fields = {name: field.contents() for name, field in held.fields.items()}
    assert fields["general.type"] == "adapter"
    assert fields["general.architecture"] == "qwen2"
    assert fields["adapter.type"] == "lora"
    assert fields["adapter.lora.alpha"] == 2.0
    assert exported.num_bytes == (tmp_path / "out" / "adapter.gguf").stat().st_size
    tensors = {tensor.name: tensor.data for tensor in held.tensors}
    assert len(tensors) == 2 * 14
    A, B = (torch.tensor(tensors[f"blk.1.ffn_down.weight.lora_{f}"]) for f in "ab")
    delta = adapter.delta_weight("model.layers.1.mlp.down_proj")
    assert torch.allclose(B @ A, delta, rtol=0, atol=1e-6)


def test_rows_of_q_and_k_are_permuted_in_models_of_llamas_kind(tmp_path: Path) -> None:
    """Two heads of 4 rows: a head's pairs (0, 2) and (1, 3) come to lie next to each other."""
    rows = torch.arange(8.0)
    assert permute(rows, 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    adapter = adapter_of("llama")
    to_gguf(adapter, tmp_path / "out")
    tensors = {
        t.name: torch.tensor(t.data) for t in read(tmp_path / "out" / "adapter.gguf").tensors
    }
    for part, heads in (("q", 2), ("k", 1), ("v", None)):
        delta = adapter.delta_weight(f"model.layers.0.self_attn.{part}_proj")
        A, B = (tensors[f"blk.0.attn_{part}.weight.lora_{f}"] for f in "ab")
        wanted = delta if heads is None else permute(delta, heads)
        assert torch.allclose(B @ A, wanted, rtol=0, atol=1e-6)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r'type "opt".*supported: apertus.*--to lora'):
        to_gguf(attach(decoder_of("opt")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_one_matrix_of_queries_keys_and_values_is_put_apart() -> None:
    """Two heads of 2 rows: q0 k0 v0 q1 k1 v1 becomes q0 q1 k0 k1 v0 v1; and a shared key."""
    rows = torch.arange(12.0)
    assert apart(rows, 2).tolist() == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]


@pytest.mark.parametrize(
    ("kind", "name", "ours"),
    [
        ("gpt_neox", "gpt_neox.layers.1.attention.query_key_value", "blk.1.attn_qkv"),
        ("gemma3", "model.language_model.layers.0.mlp.up_proj", "blk.0.ffn_up"),
        ("apertus", "model.layers.0.self_attn.q_proj", "blk.0.attn_q"),
        ("granite", "model.layers.0.self_attn.q_proj", "blk.0.attn_q"),
        ("lfm2", "model.layers.0.conv.in_proj", "blk.0.shortconv.in_proj"),
    ],
)
def test_other_architectures_have_their_names_and_orders(
    kind: str, name: str, ours: str, tmp_path: Path
) -> None:
    """The names and orders are those of llama.cpp's convert_lora_to_gguf.py, run once by hand."""
    adapter = attach(decoder_of(kind))
    adapter.set_values(values_like(adapter.v))
    to_gguf(adapter, tmp_path / "out")
    tensors = {
        t.name: torch.tensor(t.data) for t in read(tmp_path / "out" / "adapter.gguf").tensors
    }
    A, B = (tensors[f"{ours}.weight.lora_{f}"] for f in "ab")
    wanted = {"gpt_neox": lambda x: apart(x, 2), "granite": lambda x: permute(x, 2)}
    delta = wanted.get(kind, lambda x: x)(adapter.delta_weight(name))
    assert torch.allclose(B @ A, delta, rtol=0, atol=1e-6)


def test_a_map_without_a_tensor_is_refused(tmp_path: Path) -> None:
    """The output matrix of a model with tied embeddings, and one that llama.cpp never heard of."""
    model = model_of()
    model.model.layers[1].extra_proj = nn.Linear(8, 8)
    for target in ("lm_head", "extra_proj"):
        adapter = attach(model, AdapterConfig(targets=(target,)))
        with pytest.raises(
            RequestError, match=rf"qwen2 does not have a separate tensor for \S*{target}"
        ):
            to_gguf(adapter, tmp_path / "out")
        adapter.detach()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinylora.export.gguf.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"package gguf.*not installed.*pip install .gguf"):
        to_gguf(adapter_of(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def mistral() -> Any:
    torch.manual_seed(3)
    config = MistralConfig(
        vocab_size=40, hidden_size=64, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        initializer_range=0.3, sliding_window=None,
    )  # fmt: skip
    return MistralForCausalLM(config).eval().requires_grad_(False)


@contextmanager
def llama(base: Path, lora: Path | None = None) -> Iterator[Any]:
    """llama.cpp, in fp32 throughout (its cache would be fp16)."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="make test-engines builds llama.cpp")
    with closing(
        llama_cpp.Llama(
            str(base),
            lora_path=None if lora is None else str(lora),
            n_ctx=256,
            n_threads=1,
            logits_all=True,
            type_k=llama_cpp.GGML_TYPE_F32,
            type_v=llama_cpp.GGML_TYPE_F32,
            verbose=False,
        )
    ) as model:
        yield model


def llama_logits(base: Path, lora: Path | None, ids: list[int]) -> np.ndarray:
    """What llama.cpp says after each of the tokens, (tokens, vocabulary)."""
    with llama(base, lora) as model:
        model.eval(ids)
        return np.array(model.scores[: len(ids)])


def llama_greedy(base: Path, lora: Path | None, prompts: list[list[int]], end: int) -> list[list]:
    """Its greedy completion of each prompt, up to NUM_NEW tokens."""
    with llama(base, lora) as model:
        return [_completed(model, prompt, end) for prompt in prompts]


def _completed(model: Any, prompt: list[int], end: int) -> list[int]:
    completion: list[int] = []
    model.reset()
    model.eval(prompt)
    while len(completion) < NUM_NEW and end not in completion:
        completion.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(completion[-1:])
    return completion


def base_of(family: str) -> Any:
    return mistral() if family == "mistral" else model_of(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral"])
def test_llama_cpp_gives_our_logits(family: str, tmp_path: Path) -> None:
    """With the adapter, and without: so the base model's file, which the test writes, is right."""
    model, ids = base_of(family), list(range(3, 30))
    write_base(model, tmp_path / "base.gguf")
    base = logits(model, torch.tensor([ids]))[0].numpy()
    adapter = attach(model, config_of(family))
    adapter.set_values(values_like(adapter.v))
    to_gguf(adapter, tmp_path / "out")
    ours = logits(model, torch.tensor([ids]))[0].numpy()
    assert np.abs(ours - base).max() > 0.3
    assert np.abs(llama_logits(tmp_path / "base.gguf", None, ids) - base).max() < 1e-4
    lora = tmp_path / "out" / "adapter.gguf"
    assert np.abs(llama_logits(tmp_path / "base.gguf", lora, ids) - ours).max() < 1e-4


@torch.no_grad()
def our_greedy(model: Any, prompts: list[list[int]], end: int) -> list[list[int]]:
    completions = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NUM_NEW, do_sample=False
        )
        completions.append(whole[0, len(prompt) :].tolist())
    return completions


@pytest.mark.slow
def test_llama_cpp_answers_as_the_adapter_does(tmp_path: Path) -> None:
    """The embedded model on word problems: the same greedy tokens, and not those of the base."""
    base = load_model("pocket", "fp32", "cpu")
    (end,) = base.eos_token_ids
    prompts = [text_of(base).encode(p) for p in problems(0, "test", 100)[:16]]
    before = our_greedy(base.model, prompts, end)
    write_base(base.model, tmp_path / "base.gguf")
    adapter = attach(base.model, AdapterConfig(u=4))
    adapter.set_values(values_like(adapter.v, size=0.05))
    to_gguf(adapter, tmp_path / "out")
    after = our_greedy(base.model, prompts, end)
    assert sum(one != other for one, other in zip(before, after, strict=True)) >= 8
    lora = tmp_path / "out" / "adapter.gguf"
    assert llama_greedy(tmp_path / "base.gguf", None, prompts, end) == before
    assert llama_greedy(tmp_path / "base.gguf", lora, prompts, end) == after
