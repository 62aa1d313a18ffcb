"""What the factors of an NF4 base cost: reading through the layers, the SVD, and a second start.

    python benchmarks/quantized_factors.py          # less than a minute

Shapes are those of Qwen2.5-0.5B, each measured once and multiplied by its count; one thread, and
seconds of the processor, which other work on the machine hardly changes. "cold" reads W through the
layer, decomposes it and keeps the factors; "warm" finds them by what the layer keeps. The last
column is how far what was read is from bitsandbytes' own dequantisation.
"""

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import bitsandbytes
import torch
from factors import weights

from tinylora.adapter.cache import cached_svd_of_layer
from tinylora.adapter.modules import LinearMap, read_weight
from tinylora.adapter.svd import truncated_svd

SHAPES = {  # name: d_out, d_in, how many of them
    "q, o": (896, 896, 48),
    "k, v": (128, 896, 48),
    "gate, up": (4864, 896, 48),
    "down": (896, 4864, 24),
}


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, bitsandbytes {bitsandbytes.__version__}, 1 thread")
    print(f"{'':9} {'shape':>12} {'read':>7} {'SVD':>7} {'cold':>7} {'warm':>7}  difference")
    totals = [0.0] * 4
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TINYLORA_CACHE"] = folder
        for name, (d_out, d_in, count) in SHAPES.items():
            linear = nf4_layer(d_out, d_in)
            weight = linear.module.weight
            exact = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
            read_s, W = _cpu_seconds(lambda linear=linear: read_weight(linear))
            svd_s, _ = _cpu_seconds(lambda W=W: truncated_svd(W, 2))
            cold_s, _ = _cpu_seconds(lambda linear=linear: cached_svd_of_layer(linear, 2))
            warm_s, _ = _cpu_seconds(lambda linear=linear: cached_svd_of_layer(linear, 2))
            seconds = (read_s, svd_s, cold_s, warm_s)
            totals = [total + count * s for total, s in zip(totals, seconds, strict=True)]
            error = float((W - exact).norm() / exact.norm())
            print(f"{name:9} {d_out:5} x {d_in:4} {_columns(seconds)}  {error:.0e}")
    print(f"{'model':9} {'':12} {_columns(totals)}  cold / warm: {totals[2] / totals[3]:.0f}")


def nf4_layer(d_out: int, d_in: int) -> LinearMap:
    layer = bitsandbytes.nn.LinearNF4(d_in, d_out, bias=False, compute_dtype=torch.float32)
    layer.weight.data = weights(max(d_out, 256), d_in, "decay")[:d_out].float()
    return LinearMap("layer", layer.to("cpu").eval(), d_out, d_in, None)


def _columns(seconds: Any) -> str:
    return " ".join(f"{s:7.3f}" for s in seconds)


def _cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    main()
