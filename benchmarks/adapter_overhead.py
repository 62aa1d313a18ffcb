"""Forward + backward with the adapter over the frozen base without it; PEFT's ratio beside it.

    python benchmarks/adapter_overhead.py                  # pocket size, and one 7B-shaped block
    python benchmarks/adapter_overhead.py --dtype bf16     # the block in bf16 whatever the machine

Each round times the frozen base, this project's hooks and PEFT's TinyLoRA once, in turn, on the
same inputs; the ratio is the median over rounds of the ratio within a round, so that a machine
busy with other things disturbs all three alike. The base is differentiated down to its input
embeddings, because that is what the gradient of v in the first layer needs. The block runs in bf16
where the processor has instructions for it, else in fp32: emulated bf16 products are so slow that
anything beside them looks free. Aim: at most 1.05 at the block.
"""

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from unittest.mock import patch

import peft
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from tinylora.adapter import AdapterConfig, attach
from tinylora.adapter.svd import truncated_svd
from tinylora.settings import SEVEN_MAPS

POCKET = Qwen2Config(
    vocab_size=128, hidden_size=256, intermediate_size=768, num_hidden_layers=6,
    num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip
BLOCK_7B = Qwen2Config(
    vocab_size=128, hidden_size=3584, intermediate_size=18944, num_hidden_layers=1,
    num_attention_heads=28, num_key_value_heads=4, tie_word_embeddings=True,
)  # fmt: skip
NAMES = ("base", "tinylora", "peft")


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    os.environ["TINYLORA_CACHE"] = "off"
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, peft "
        f"{peft.__version__}, {options.threads} threads, {_processor()}, load "
        f"{os.getloadavg()[0]:.1f}"
    )
    if "pocket" in options.sizes:
        report("pocket", POCKET, torch.float32, (64, 64), options.rounds)
    if "block" in options.sizes:
        report("7B block", BLOCK_7B, _dtype(options.dtype), (1, options.tokens), options.rounds)


def report(
    name: str, config: Qwen2Config, dtype: torch.dtype, shape: tuple[int, int], rounds: int
) -> None:
    passes = _passes(config, dtype, shape)
    for run in passes:
        run()
    times = [[_seconds(run) for run in passes] for _ in range(rounds)]
    base, ours, theirs = (median(column) for column in zip(*times, strict=True))
    ratio, peft_ratio = (median(row[i] / row[0] for row in times) for i in (1, 2))
    print(
        f"{name}, {dtype}, {shape[0]} x {shape[1]} tokens: base {base:.3f} s, tinylora {ours:.3f} "
        f"s (ratio {ratio:.3f}), peft {theirs:.3f} s (ratio {peft_ratio:.3f})",
        flush=True,
    )


def _passes(
    config: Qwen2Config, dtype: torch.dtype, shape: tuple[int, int]
) -> list[Callable[[], None]]:
    """Forward + backward of the base, the hooked model and PEFT's, on equal weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [_model(config, dtype) for _ in NAMES]
        adapter = attach(models[1], AdapterConfig(u=13, num_groups=1))
        settings = peft.TinyLoraConfig(
            r=2, u=13, weight_tying=1.0, target_modules=list(SEVEN_MAPS), init_weights="uniform"
        )
        with patch("torch.linalg.svd", _short_svd):
            wrapped = peft.get_peft_model(models[2], settings)
    adapter.set_values(torch.full_like(adapter.v, 0.01))
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(*shape, config.hidden_size, generator=generator).to(dtype)
    return [_pass(model, embeddings) for model in (models[0], models[1], wrapped)]


def _pass(model: torch.nn.Module, embeddings: Tensor) -> Callable[[], None]:
    inputs = embeddings.clone().requires_grad_()

    def run() -> None:
        model(inputs_embeds=inputs, use_cache=False).logits.float().square().mean().backward()
        inputs.grad = None
        for parameter in model.parameters():
            parameter.grad = None

    return run


def _short_svd(W: Tensor, full_matrices: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What PEFT keeps of the full SVD, in seconds instead of minutes; `factors.py` times that."""
    factors = truncated_svd(W, 2)
    return factors.U.float(), factors.S.float(), factors.V.mT.float()


def _model(config: Qwen2Config, dtype: torch.dtype) -> PreTrainedModel:
    """Equal random weights each time; frozen."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config).to(dtype).requires_grad_(False)


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _dtype(chosen: str) -> torch.dtype:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    has_bf16 = "amx_bf16" in flags or "avx512_bf16" in flags
    if chosen == "auto" and not has_bf16:
        print("This processor has no bf16 instructions: the block runs in fp32 (see --dtype).")
    return torch.bfloat16 if chosen == "bf16" or (chosen == "auto" and has_bf16) else torch.float32


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="pocket,block", help="pocket, block, or both")
    parser.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--tokens", type=int, default=256, help="of the block's one sequence")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


if __name__ == "__main__":
    main()
