"""The estimate of memory: weights to the byte, what a forward pass keeps, what rollouts hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.shapes import skeleton
from helpers.standins import tiny_model
from tinylora import AdapterConfig, RequestError, TrainConfig, attach
from tinylora.adapter.modules import linear_maps
from tinylora.algorithms.batching import Sample, collate, pack
from tinylora.models import load_model, load_skeleton
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import TransformersEngine, _Batch
from tinylora.run.memory import Memory, estimate, fitted, size_text, weight_bytes

LONGEST, BUDGET = 20, 30


def estimated(model: Any, **settings: Any) -> Memory:
    config = TrainConfig(**{"dtype": "fp32", "device": "cpu", **settings})
    maps = linear_maps(model, config.adapter.targets, config.adapter.layers)
    return estimate(model, maps, config, 13, LONGEST, BUDGET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A model whose sizes are not multiples of quantisation's groups, with any tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "sizes"
    model = tiny_model(hidden_size=72, intermediate_size=200, tie_word_embeddings=True)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((tiny_folder / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("dtype", "quantize"), [("fp32", "none"), ("bf16", "none"), ("fp32", "nf4"), ("bf16", "int8")]
)
def test_weights_are_counted_to_the_byte(folder: Path, dtype: str, quantize: str) -> None:
    if quantize != "none":
        pytest.importorskip("bitsandbytes")
    model = load_model(str(folder), dtype, "cpu", quantize).model
    held: dict[int, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        for part in (tensor, *of_codes(tensor)):
            held[part.untyped_storage().data_ptr()] = part.numel() * part.itemsize
    s = 4 if dtype == "fp32" else 2
    assert sum(weight_bytes(load_skeleton(str(folder)), s, quantize)) == sum(held.values())


def of_codes(tensor: Any) -> list[Tensor]:
    """What bitsandbytes keeps beside the codes of a weight."""
    scales = getattr(tensor, "SCB", None)
    state = getattr(tensor, "quant_state", None)
    if state is not None:
        return [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    return [] if scales is None else [scales]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("layers", ["all", "2-3"])
@pytest.mark.parametrize("is_shared", [False, True])
def test_activations_are_what_the_forward_pass_keeps(
    dtype: str, layers: str, is_shared: bool
) -> None:
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4}
    model = tiny_model(**sizes, num_attention_heads=8, num_key_value_heads=2).to(kind)
    adapter = AdapterConfig(u=2, layers=layers)
    attach(model, adapter)
    samples = [Sample(i // 4, [3] * LONGEST, [4] * BUDGET) for i in range(8)]
    batch = collate(pack(samples, 4 if is_shared else 1), model.device, kind)
    mask = batch.attention_mask.nbytes if is_shared else 0  # which the estimate does not cover
    kept = kept_bytes(model, batch) - mask
    memory = estimated(
        model,
        dtype=dtype,
        algorithm="grpo" if is_shared else "sft",
        micro_batch_tokens=batch.input_ids.numel(),
        adapter=adapter,
    )
    behind = 4 if layers == "all" else 2
    assert memory.activations * behind / (behind + 1) == pytest.approx(kept, rel=0.03)


def kept_bytes(model: Any, batch: Any) -> int:
    """Of tensors that the backward pass will need, but for weights."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model.base_model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        )
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def test_the_cache_of_the_rollouts_is_as_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    seen = []
    run = _Batch.run

    def noted(self: Any, noise: Tensor) -> Any:
        done = run(self, noise)
        held = [b for layer in self.past.layers for b in (layer.keys, layer.values)]
        seen.append(sum(buffer.untyped_storage().nbytes() for buffer in held))
        return done

    monkeypatch.setattr(_Batch, "run", noted)
    engine = TransformersEngine(attach(model, AdapterConfig(u=2, num_groups=1)))
    engine.generate([[3] * LONGEST] * 4, 3, Sampling(1.0, BUDGET, ()), seed=0)
    settings = {"prompts_per_step": 4, "samples_per_prompt": 3, "eval_problems": 1}
    assert seen == [estimated(model, **settings).cache]


def test_checkpointing_quantising_and_bands_take_less() -> None:
    model = tiny_model(num_hidden_layers=8)
    plain = estimated(model)
    assert estimated(model, activation_checkpointing=True).activations < plain.activations / 2
    band = AdapterConfig(layers="6-7")
    assert estimated(model, adapter=band).activations == pytest.approx(plain.activations / 3)
    assert estimated(model, quantize="nf4").weights < plain.weights / 2
    assert estimated(model, rollout="http://a:8000").rollouts == 0 < plain.folded
    assert estimated(model, dtype="bf16").folded == 0
    assert plain.peak == plain.weights + plain.trained + max(plain.learning, plain.rollouts)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (52, "52 bytes"),
        (1000, "0.977 KiB"),
        (88_161, "86.1 KiB"),
        (3 << 20, "3 MiB"),
        (15_231_233_024, "14.2 GiB"),
        (1234 << 30, "1234 GiB"),
    ],
)
def test_sizes_read_in_sensible_units(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text


def test_prompts_shared_by_rows_are_counted() -> None:
    """Grouped-query attention under a mask of our own repeats keys and values for the queries."""
    model = tiny_model(hidden_size=64, num_attention_heads=4, num_key_value_heads=1)
    alone, shared = estimated(model, algorithm="sft"), estimated(model)
    tokens, width = 2048, 2 * 4 * (64 - 16)  # keys and values in fp32
    assert shared.activations - alone.activations == tokens * width * (2 + 1)


def of_size(size: str, **settings: Any) -> Callable[[TrainConfig], Memory]:
    """The memory of Qwen2.5 of this size on GSM8K, as a function of the settings."""
    model = skeleton(size, vocab_size=152_064)
    return lambda config: estimate(
        model, linear_maps(model, config.adapter.targets), config, 13, 512, 4096
    )


@pytest.mark.parametrize(
    ("size", "gib", "settings", "chosen"),
    [
        ("7B", 140, {}, (16384, False)),
        ("7B", 79, {}, (8192, False)),
        ("7B", 47, {}, (4096, False)),
        ("7B", 31, {}, (16384, True)),
        ("7B", 79, {"rollout": "vllm", "rollout_cache_gib": 20}, (4096, False)),
        ("7B", 63, {"rollout": "vllm", "rollout_cache_gib": 20}, (16384, True)),
        ("3B", 23, {"rollout": "vllm", "rollout_cache_gib": 3}, (16384, True)),
        ("7B", 140, {"micro_batch_tokens": 4096}, (4096, False)),
        ("7B", 140, {"activation_checkpointing": True}, (16384, True)),
    ],
)
def test_micro_batches_are_the_largest_that_fit_the_card(
    size: str, gib: int, settings: dict[str, Any], chosen: tuple[int, bool]
) -> None:
    config = TrainConfig(dtype="bf16", prompts_per_step=16, samples_per_prompt=4, **settings)
    memory_of = of_size(size)
    fit = fitted(config, gib << 30, memory_of)
    assert (fit.passes.micro_batch_tokens, fit.passes.activation_checkpointing) == chosen
    assert memory_of(fit).peak <= 0.92 * (gib << 30)


def test_what_cannot_fit_is_refused_with_the_cure() -> None:
    config = TrainConfig(dtype="bf16", rollout="vllm", rollout_cache_gib=8)
    with pytest.raises(
        RequestError, match=r"needs about .* GiB on its GPU, of which 24 GiB is free"
    ):
        fitted(config, 24 << 30, of_size("7B"))


def test_vllm_s_copy_stays_while_the_trainer_learns() -> None:
    config = TrainConfig(dtype="bf16", rollout="vllm", rollout_cache_gib=8)
    memory = of_size("7B")(config)
    assert memory.engine == memory.weights + (8 << 30)
    assert memory.peak == 2 * memory.weights + (8 << 30) + memory.trained + memory.learning
