"""How much memory a run takes, from the shapes of its model alone; `--dry-run` prints it.

    peak = weights + trained + engine + max(learning, rollouts)

Below, s is the bytes of a number in the base's precision, r the rank of the adapter, and the other
words are the fields of `Shape`.

    weights    s each; nf4: 1/2 a weight and, for each 64, a byte (of which each 256 have a float);
               int8: 1 a weight and a float a row. Embeddings, norms, biases and head stay in s.
    trained    factors A and B in fp32, and once more in the base's precision where that is
               another; 16 bytes a trained parameter (itself, gradient, Adam's two)
    learning   a micro-batch keeps, for each token in each block above the lowest adapted one,
               s (3 mlp + 2 queries + 2 keys) + 8 hidden + 4 heads + 8 + 28 r
               (inputs of activation and product; queries, keys, values, answer; both norms' inputs
               in fp32; rounded numbers of attention, norms and hooks), with activation
               checkpointing s hidden and one block whole. The backward pass works in one block
               more. Where prompts are shared by rows (GRPO), keys and values are repeated to the
               width of the queries: 2 s (queries - keys) more. The head takes 2 s + 12 for each
               logit of a chunk.
    rollouts   keys and values 2 s keys a token and block, of all rows that run at once; a token's
               logits in every row, s + 16 each; the prompts' first pass, s (3 mlp + 2 hidden) a
               token; a copy of the adapted weights where they are folded
    engine     vLLM in this process: its cache and its own weights, which stay while it learns

Weights are exact (but for a sharded model, where N processes split the blocks and each gathers two
at a time). The rest leaves out what allocators and libraries hold: some hundreds of MiB.

On a GPU, `fitted` chooses micro-batches and checkpointing so that the peak fits what is free.

It does not cover: mixtures of experts, layers that are not attention (they are taken for it), and
the mask of shared prompts or eager attention (terms in tokens squared).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import nn

from tinylora.adapter.modules import LinearMap
from tinylora.algorithms.batching import (
    CHUNK_ELEMENTS,
    can_share_prompts,
    default_micro_batch_tokens,
)
from tinylora.decoders import text_config
from tinylora.errors import RequestError
from tinylora.models import DTYPES, place_of
from tinylora.rollout.transformers import MAX_CACHE_TOKENS
from tinylora.rollout.vllm import DEFAULT_CACHE_GIB
from tinylora.settings import PEFT, Grpo, Passes, Sampled, Sft, TrainConfig, method_kind
from tinylora.settings.rollout import ColocatedSettings

GIB = 2**30
NEVER_FOLDED = ("bias-only", "full", PEFT)
KEEPS_INPUTS = ("lora", "vera", "full", PEFT)  # their backward pass needs linear layers' inputs


SIZES = (16384, 8192, 4096)  # tokens of a micro-batch on a GPU, the fastest first
SHARE = 0.92  # of a GPU's free memory that an estimate may fill
CURES = (
    "Use a smaller micro_batch_tokens, max_new_tokens or rollout_cache_gib, --quantize nf4, a "
    "smaller model, or --fsdp over several GPUs."
)


@dataclass(frozen=True)
class Memory:
    """Bytes, by what they are for."""

    blocks: int  # weights that several processes can split
    whole: int  # weights that they cannot
    trained: int
    activations: int
    head: int
    engine: int
    cache: int
    logits: int
    first_pass: int
    folded: int

    @property
    def weights(self) -> int:
        return self.blocks + self.whole

    @property
    def learning(self) -> int:
        return self.activations + self.head

    @property
    def rollouts(self) -> int:
        return self.cache + self.logits + self.first_pass + self.folded

    @property
    def peak(self) -> int:
        return self.weights + self.trained + self.engine + max(self.learning, self.rollouts)


@dataclass(frozen=True)
class Shape:
    """The sizes that activations follow from; widths are numbers a token."""

    blocks: int
    hidden: int
    mlp: int
    queries: int  # of all heads
    keys: int  # of all key heads, of which there may be fewer
    heads: int
    vocabulary: int
    has_qk_norm: bool

    @classmethod
    def of(cls, model: Any) -> "Shape":
        config = text_config(model)
        hidden: int = config.hidden_size
        heads: int = getattr(config, "num_attention_heads", None) or 1  # Mamba has none
        layers = getattr(config, "per_layer_config", None) or [config]  # heads may differ in size
        size = max(getattr(layer, "head_dim", None) or hidden // heads for layer in layers)
        keys = max(getattr(layer, "num_key_value_heads", None) or heads for layer in layers)
        mlp = getattr(config, "intermediate_size", None) or 4 * hidden
        return cls(
            blocks=config.num_hidden_layers,
            hidden=hidden,
            mlp=max(mlp) if isinstance(mlp, list) else mlp,
            queries=heads * size,
            keys=keys * size,
            heads=heads,
            vocabulary=config.vocab_size,
            has_qk_norm=any(name.endswith("q_norm") for name, _ in model.named_modules()),
        )


def estimate(
    model: Any,
    maps: Sequence[LinearMap],
    config: TrainConfig,
    num_trainable: int,
    longest_prompt: int,
    max_new_tokens: int,
) -> Memory:
    """The run's memory on one process.

    Args:
        model: with or without weights.
        maps: those that are adapted.
        config: with `dtype` resolved.
        longest_prompt: in tokens.
    """
    shape = Shape.of(model)
    s = DTYPES[config.dtype].itemsize
    whole, blocks = weight_bytes(model, s, config.quantize)
    row_tokens = longest_prompt + max_new_tokens
    device = place_of(config.device)
    tokens = max(config.passes.micro_batch_tokens or default_micro_batch_tokens(device), row_tokens)
    lowest = min((linear.layer or 0 for linear in maps), default=0)
    head_tokens = min(tokens, max(1, CHUNK_ELEMENTS // shape.vocabulary))
    cache, logits, first_pass = _rollouts(shape, s, config, longest_prompt, row_tokens)
    if config.rollout != "transformers":
        cache, logits, first_pass = 0, 0, 0
    engine = 0
    if isinstance(config.engine, ColocatedSettings):
        own = config.engine.rollout_cache_gib or DEFAULT_CACHE_GIB[device.type == "cpu"]
        engine = round(own * GIB) + whole + blocks
    is_shared = isinstance(config.learning, Grpo) and can_share_prompts(model)
    return Memory(
        blocks=blocks,
        whole=whole,
        trained=_trained(maps, config, s) + 16 * num_trainable,
        activations=_activations(shape, s, config, tokens, shape.blocks - lowest, is_shared),
        head=head_tokens * shape.vocabulary * (2 * s + 12),
        engine=engine,
        cache=cache,
        logits=logits,
        first_pass=first_pass,
        folded=s * sum(linear.d_out * linear.d_in for linear in maps) * _is_folded(config, s),
    )


def fitted(
    config: TrainConfig, free: int, estimated: Callable[[TrainConfig], Memory]
) -> TrainConfig:
    """Micro-batches and checkpointing, where none are given, so that the run fits a GPU.

    Large micro-batches without checkpointing are fastest; checkpointing takes a third more time,
    and smaller ones than the last of `SIZES` leave a GPU too little to do.

    Args:
        free: bytes of the GPU, before the weights are there.
        estimated: the memory of these settings.

    Raises:
        RequestError: nothing fits.
    """
    learning = config.learning
    if not isinstance(learning, Passes):
        return config
    tokens, again = learning.micro_batch_tokens, learning.activation_checkpointing
    plans = [
        {"micro_batch_tokens": size, "activation_checkpointing": on}
        for on in ((False, True) if again is None else (again,))
        for size in (SIZES if tokens is None else (tokens,))
    ]
    tried = [config.model_copy(update={"learning": learning.model_copy(update=p)}) for p in plans]
    allowed = SHARE * free
    peaks = [estimated(plan).peak for plan in tried]
    fitting = [plan for plan, peak in zip(tried, peaks, strict=True) if peak <= allowed]
    if fitting:
        return fitting[0]
    raise RequestError(
        f"The run needs about {size_text(min(peaks))} on its GPU, of which {size_text(free)} is "
        f"free, and a share of {1 - SHARE:.0%} is kept for what the estimate leaves out. {CURES}"
    )


def free_bytes(device: torch.device) -> int | None:
    """What a GPU has free, by its driver; None: no GPU, or one that does not say."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def weight_bytes(model: Any, s: int, quantize: str) -> tuple[int, int]:
    """Of what stays whole, and of the blocks: parameters, buffers and what quantisation adds."""
    head = model.get_output_embeddings()
    whole = blocks = 0
    for name, module, tensor in _tensors(model):
        is_code = quantize != "none" and type(module) is nn.Linear and module is not head
        if is_code and tensor.dim() == 2:
            size = _coded_bytes(tensor, quantize)
        else:
            size = tensor.numel() * (s if isinstance(tensor, nn.Parameter) else tensor.itemsize)
        if any(part.isdigit() for part in name.split(".")):
            blocks += size
        else:
            whole += size
    return whole, blocks


def _tensors(model: Any) -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """Every parameter and buffer once, with its module."""
    seen = set()
    for name, module in model.named_modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, module, tensor


def _coded_bytes(weight: torch.Tensor, quantize: str) -> int:
    """bitsandbytes' int8, or its NF4 with double quantisation."""
    count = weight.numel()
    if quantize == "int8":
        return count + 4 * weight.shape[0]
    scales = -(-count // 64)
    tables = 4 * (16 + 256 + 1)  # the codes of weights and of scales, and the scales' offset
    return -(-count // 2) + scales + 4 * -(-scales // 256) + tables


def _trained(maps: Sequence[LinearMap], config: TrainConfig, s: int) -> int:
    """The frozen factors of the adapter, which are the bulk of what training adds."""
    if not config.has_factors:
        return 0
    r, u = config.adapter.rank, config.adapter.u
    copies = 4 if s == 4 else 4 + s
    return sum(copies * r * (m.d_in + m.d_out) + 4 * (r + u * r * r) for m in maps)


def _activations(
    shape: Shape, s: int, config: TrainConfig, tokens: int, behind: int, is_shared: bool
) -> int:
    """What a micro-batch's forward pass keeps in `behind` blocks, and one block to work in."""
    r = config.adapter.rank if config.has_factors else 0
    block = s * (3 * shape.mlp + 2 * shape.queries + 2 * shape.keys)
    block += 8 * shape.hidden + 4 * shape.heads + 8 + 28 * r
    if is_shared:
        block += 2 * s * (shape.queries - shape.keys)
    if shape.has_qk_norm:
        block += 4 * (shape.queries + shape.keys)
    if method_kind(config.method) in KEEPS_INPUTS:
        block += 4 * (2 * shape.hidden + shape.queries + shape.mlp)
    kept = s * shape.hidden if config.passes.activation_checkpointing else block
    return tokens * (behind * kept + block)


def _rollouts(
    shape: Shape, s: int, config: TrainConfig, longest_prompt: int, row_tokens: int
) -> tuple[int, int, int]:
    """Cache, logits and first pass of the largest batch that Transformers samples at once."""
    learning = config.learning
    samples = learning.samples_per_prompt if isinstance(learning, Sampled | Sft) else 1
    rows = prompts = 0
    for count, each in (
        (config.learning.prompts_per_step, samples),
        (config.eval_problems, 1),
        (config.eval_problems, config.eval_samples),
    ):
        at_once = min(count, max(1, MAX_CACHE_TOKENS // (row_tokens * each)))
        rows, prompts = max(rows, at_once * each), max(prompts, at_once)
    cache = rows * row_tokens * shape.blocks * 2 * shape.keys * s
    first_pass = prompts * longest_prompt * s * (3 * shape.mlp + 2 * shape.hidden)
    return cache, rows * shape.vocabulary * (s + 16), first_pass


def _is_folded(config: TrainConfig, s: int) -> bool:
    """Whether rollouts run on weights that hold the update, and a copy is kept of them."""
    is_exact = s == 4 and config.quantize == "none" and not config.fsdp
    is_foldable = method_kind(config.method) not in NEVER_FOLDED
    return is_exact and is_foldable and config.rollout == "transformers"


def memory_table(memory: Memory, config: TrainConfig) -> Table:
    """The estimate for people."""
    passes = config.passes
    tokens = passes.micro_batch_tokens or default_micro_batch_tokens(place_of(config.device))
    again = ", checkpointing" if passes.activation_checkpointing else ""
    title = f"One process, micro-batches of {tokens} tokens{again}"
    table = Table("memory", "about", title=title, title_justify="left")
    kind = config.dtype if config.quantize == "none" else config.quantize
    for name, num_bytes in (
        (f"weights ({kind})", memory.weights),
        ("adapter and optimiser", memory.trained),
        ("learning: activations and logits of a micro-batch", memory.learning),
        ("rollouts: keys, values and logits", memory.rollouts),
        ("vLLM in this process: weights and cache", memory.engine),
        ("peak: weights + adapter + vLLM + max(learning, rollouts)", memory.peak),
    ):
        if num_bytes:
            table.add_row(name, size_text(num_bytes))
    if config.fsdp:
        split = f"{size_text(memory.whole)} + {size_text(memory.blocks)} / N"
        table.add_row("weights on each of N processes (fsdp)", split)
    return table


def size_text(num_bytes: float) -> str:
    """Three figures with a unit: `86.1 KiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} GiB" if num_bytes < 1000 else f"{num_bytes:.0f} GiB"
