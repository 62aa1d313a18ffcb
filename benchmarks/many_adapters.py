"""Tokens per second of one batch whose rows run different adapters, against the base and PEFT.

    python benchmarks/many_adapters.py                          # pocket: 256 rows, 64 tokens each
    python benchmarks/many_adapters.py --model 0.5B --steps 8   # Qwen2.5-0.5B's shape

Every way decodes greedily by `model.generate`, the same number of tokens for every row. Ours is
one batch inside `adapter.per_row`. PEFT's TinyLoRA has one adapter active at a time, so each of N
adapters serves its 256 / N rows in a batch of its own. The ratio is the median over rounds of the
ratio within a round. Aim: 256 adapters within 1.25 of the base model's time.
"""

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import peft
import torch
import transformers
from peft import TinyLoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tinylora import AdapterConfig, attach
from tinylora.pocket import model_folder
from tinylora.settings import SEVEN_MAPS

COUNTS = (1, 8, 64, 256)
PROMPT_TOKENS = 32
SHAPE_05B = Qwen2Config(
    vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
    num_attention_heads=14, num_key_value_heads=2, tie_word_embeddings=True,
)  # fmt: skip
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    print(
        f"{options.model}, {options.dtype}, {options.rows} rows, {options.steps} tokens each; "
        f"torch {torch.__version__}, transformers {transformers.__version__}, peft "
        f"{peft.__version__}, {options.threads} threads, {platform.machine()}, load "
        f"{os.getloadavg()[0]:.1f}"
    )
    peft_counts = [n for n in COUNTS if n <= options.peft_adapters]
    ours, ours_bytes = our_ways(options)
    theirs, their_bytes = peft_ways(options, peft_counts)
    ways = {**ours, **theirs}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(options.rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if round_number:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        ratio = median(t / base for t, base in zip(taken, seconds["base"], strict=True))
        speed = options.rows * options.steps / median(taken)
        print(f"{name:22} {speed:9.0f} tokens/s  {ratio:6.2f} x the base model's time")
    print(f"memory of one more adapter: ours {ours_bytes:,} bytes, PEFT {their_bytes:,} bytes")


def our_ways(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], int]:
    """The base model, and per_row with each number of adapters."""
    model = make_model(options)
    adapter = attach(model, AdapterConfig(u=13, num_groups=1))
    prompts = make_prompts(options, model.config.vocab_size)
    generator = torch.Generator().manual_seed(0)
    numbers = 0.01 * torch.randn(max(COUNTS), *adapter.v.shape, generator=generator)

    def base() -> None:
        with adapter.disabled():
            decode(model, prompts, options.steps)

    def rows(count: int) -> Callable[[], None]:
        values = numbers[torch.arange(options.rows) % count]

        def run() -> None:
            with adapter.per_row(values):
                decode(model, prompts, options.steps)

        return run

    ways = {"base": base, **{f"ours, {n} adapters": rows(n) for n in COUNTS}}
    return ways, adapter.v.numel() * adapter.v.element_size()


def peft_ways(
    options: argparse.Namespace, counts: list[int]
) -> tuple[dict[str, Callable[[], Any]], int]:
    """PEFT's TinyLoRA, switching adapters."""
    if not counts:
        return {}, 0
    model = make_model(options)
    settings = TinyLoraConfig(r=2, u=13, weight_tying=1.0, target_modules=list(SEVEN_MAPS))
    before = _bytes_of(model)
    wrapped = get_peft_model(model, settings, adapter_name="0")
    size = _bytes_of(model) - before
    for number in range(1, max(counts)):
        wrapped.add_adapter(str(number), settings)
    prompts = make_prompts(options, model.config.vocab_size)

    def switching(count: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(count):
                wrapped.set_adapter(str(number))
                decode(model, prompts[number::count], options.steps)

        return run

    return {f"PEFT, {n} adapters": switching(n) for n in counts}, size


def make_model(options: argparse.Namespace) -> Any:
    dtype = DTYPES[options.dtype]
    if options.model == "pocket":
        return AutoModelForCausalLM.from_pretrained(model_folder(), dtype=dtype).eval()
    torch.manual_seed(0)
    return Qwen2ForCausalLM(SHAPE_05B).to(dtype).eval()


def make_prompts(options: argparse.Namespace, vocabulary: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, vocabulary, (options.rows, PROMPT_TOKENS), generator=generator)


@torch.no_grad()
def decode(model: Any, prompts: Tensor, steps: int) -> None:
    model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        do_sample=False,
        min_new_tokens=steps,
        max_new_tokens=steps,
        pad_token_id=0,
    )


def _bytes_of(model: Any) -> int:
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("pocket", "0.5B"), default="pocket")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--steps", type=int, default=64, help="tokens each row decodes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--peft-adapters", type=int, default=64, help="the most adapters that PEFT switches between"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
