"""How fast the trainer learns: tokens per second, peak memory, share of the matrix-product rate.

    python benchmarks/train_throughput.py                          # CPU: a 7B-shaped block, fp32
    python benchmarks/train_throughput.py --shape small --layers all 3-5 5-5
    python benchmarks/train_throughput.py --shape 7B --device cuda # bf16, random weights
    python benchmarks/train_throughput.py --shape 0.5B --scores    # npg's pass beside GRPO's

One step of `learn` on made-up completions: forward, loss and backward to v, without rollouts. The
work counted is that of the linear maps and attention in the forward pass (2 operations a weight
and token) and of the gradient of activations (2 more; no weight has a gradient); the rate it is
compared with is that of a large square product in the same type, measured between the steps. On a
CPU, times are those of the processor; with one thread (OMP_NUM_THREADS=1) the share is of one core.
Aim on an H200: 40 % of that rate on 7B, 90,000 tokens in 8 seconds.
"""

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import transformers
from transformers import Qwen2Config, Qwen2ForCausalLM

from tinylora import AdapterConfig, TrainConfig, attach
from tinylora.adapter import TinyLora
from tinylora.algorithms.grpo import learn, make_batch
from tinylora.algorithms.loop import Run
from tinylora.algorithms.npg import draw_of, logprobs, scores
from tinylora.algorithms.optimizer import make_optimizer
from tinylora.algorithms.rollouts import Rollouts
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Completion, Sampling
from tinylora.settings import Grpo, Npg
from tinylora.tasks.task import Problem

SHAPES = {  # hidden, MLP, heads, key-value heads, blocks
    "block": (3584, 18944, 28, 4, 1),
    "small": (512, 2048, 8, 4, 6),
    "0.5B": (896, 4864, 14, 2, 24),
    "3B": (2048, 11008, 16, 2, 36),
    "7B": (3584, 18944, 28, 4, 28),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    options = _options()
    device = torch.device(options.device)
    dtype = DTYPES[options.dtype or ("bf16" if device.type == "cuda" else "fp32")]
    model = make_model(options.shape, dtype, device)
    print(
        f"{options.shape}, {str(dtype).removeprefix('torch.')}; torch "
        f"{torch.__version__}, transformers {transformers.__version__}, {device.type}, "
        f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    )
    for layers in options.layers:
        measure(model, options, layers)
    print(f"peak memory: {peak_gib(device):.2f} GiB")


def measure(model: Any, options: argparse.Namespace, layers: str) -> None:
    """Steps with an adapter on a band of layers, beside the rate of products just then."""
    device, dtype = model.device, model.dtype
    policy = attach(model, AdapterConfig(u=13, num_groups=1, basis="random", layers=layers))
    config = TrainConfig(
        micro_batch_tokens=options.micro_batch_tokens,
        activation_checkpointing=options.activation_checkpointing,
        rollout_tolerance=1e9,  # the completions are made up
    )
    settings = config.learning
    assert isinstance(settings, Grpo)
    optimizer = make_optimizer(policy, settings)
    run = make_run(policy, options)
    rollouts = make_rollouts(options, model.config.vocab_size)
    batch = make_batch(rollouts, run, settings)
    assert batch is not None
    num_tokens = sum(row.length for rows in batch.rows for row in rows)
    seconds, rates = [], []
    for _ in range(options.rounds + 1):
        rates.append(product_rate(dtype, device))
        _wait(device)
        start = _clock(device)
        learn(run, optimizer, batch, settings, 0)
        _wait(device)
        seconds.append(_clock(device) - start)
    taken, rate = median(seconds[1:]), median(rates[1:])
    share = operations(model, batch, layers) / taken / rate
    print(
        f"layers {layers}: {num_tokens} tokens in {taken:.2f} s ({num_tokens / taken:,.0f}/s), "
        f"{share:.0%} of {rate / 1e12:.3g} T operations/s in matrix products"
    )
    if options.scores:
        compare_scores(run, policy.adapter, rollouts, taken, options)
    if options.profile:
        with torch.profiler.profile() as profiler:
            learn(run, optimizer, batch, settings, 0)
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))
    policy.detach()


def compare_scores(
    run: Run, adapter: TinyLora, rollouts: Rollouts, taken: float, options: argparse.Namespace
) -> None:
    """npg's passes on the same completions: the scores, and the line search's forward pass."""
    settings = Npg(micro_batch_tokens=options.micro_batch_tokens)
    device = run.policy.model.device
    draw = draw_of(rollouts, run.policy.model, settings.micro_batch_tokens)
    passes: dict[str, Callable[[], Any]] = {
        "scores of all completions": lambda: scores(run, adapter, draw, settings),
        "forward pass of the line search": lambda: logprobs(run, draw),
    }
    for name, compute in passes.items():
        seconds = []
        for _ in range(options.rounds + 1):
            start = _clock(device)
            compute()
            _wait(device)
            seconds.append(_clock(device) - start)
        found = median(seconds[1:])
        print(f"  {name}: {found:.2f} s, {found / taken:.2f} of GRPO's learning pass")


def make_run(policy: TinyLora, options: argparse.Namespace) -> Run:
    """A run that is never sampled from: only its policy and its budget are read."""
    none: Any = None
    sampling = Sampling(1.0, options.completion, ())
    return Run(policy, none, none, none, sampling, seed=0, num_steps=1)


def make_model(shape: str, dtype: torch.dtype, device: torch.device) -> Any:
    hidden, mlp, heads, kv_heads, blocks = SHAPES[shape]
    config = Qwen2Config(
        vocab_size=32768,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with device:
        return Qwen2ForCausalLM(config).to(dtype).eval()


def make_rollouts(options: argparse.Namespace, vocabulary: int) -> Rollouts:
    """Groups with one right and one wrong answer at least, of lengths that differ."""
    generator = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(1, vocabulary, (count,), generator=generator).tolist()

    def length() -> int:
        least = options.completion // 4
        return int(torch.randint(least, options.completion + 1, (1,), generator=generator))

    completions = [
        [Completion(ids(n := length()), [0.0] * n, False) for _ in range(options.samples)]
        for _ in range(options.prompts)
    ]
    return Rollouts(
        [Problem("", "") for _ in range(options.prompts)],
        [ids(options.prompt) for _ in range(options.prompts)],
        completions,
        [["" for _ in row] for row in completions],
        [[Verdict(float(g % 2)) for g, _ in enumerate(row)] for row in completions],
    )


def operations(model: Any, batch: Any, layers: str) -> float:
    """Forward and backward of activations, as far down as anything trains."""
    config = model.config
    weights = sum(p.numel() for p in model.model.layers[0].parameters()) * config.num_hidden_layers
    head = config.vocab_size * config.hidden_size
    first = 0 if layers == "all" else int(layers.split("-")[0])
    share_behind = 1 - first / config.num_hidden_layers
    total = 0.0
    for rows in batch.rows:
        for row in rows:
            attention = 2 * config.num_hidden_layers * config.hidden_size * row.length**2
            forward = 2 * weights * row.length + attention
            num_completion = sum(map(len, row.completions))
            total += forward * (1 + share_behind) + 4 * head * num_completion
    return total


def product_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of the best of some large products."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0
    for _ in range(3):
        _wait(device)
        start = _clock(device)
        a @ a
        _wait(device)
        best = max(best, 2 * size**3 / (_clock(device) - start))
    return best


def peak_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _clock(device: torch.device) -> float:
    """Seconds: of the processor on a CPU, which neighbours do not lengthen, else of the clock."""
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=tuple(SHAPES), default="block")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=tuple(DTYPES))
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--completion", type=int, default=256, help="the most of a completion")
    parser.add_argument("--layers", nargs="+", default=["all"], help="bands, one after the other")
    parser.add_argument("--scores", action="store_true", help="time npg's passes too")
    parser.add_argument("--profile", action="store_true", help="which operations take the time")
    parser.add_argument("--micro-batch-tokens", type=int)
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
