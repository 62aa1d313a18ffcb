"""Time and residual of the frozen factors of a 7B model, against the SVD that PEFT computes.

    python benchmarks/factors.py                 # every shape, both spectra; some 10 minutes
    python benchmarks/factors.py --shapes q,k    # only these; the total covers them alone
    python benchmarks/factors.py --model smollm2 # every linear layer of a real model instead

Shapes are those of Qwen2.5-7B, each measured once and multiplied by its count. Weights are bf16
with singular values k^-0.3 over a Gaussian floor ("decay"), and with the sixteen leading values
within 1 % of each other ("close"). PEFT 0.21 calls `torch.linalg.svd(weight.float(),
full_matrices=False)`; that is timed once for each shape, on "decay": LAPACK's time hardly depends
on the values. Aim: the full SVD takes 50 times as long for "decay", 10 times for "close".

With --model every layer is measured against its own full SVD, and the nearest singular values are
listed: s1 and s2 decide which vector is which, s2 and s3 whether W defines the kept pair at all.
"""

import argparse
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tinylora.adapter.modules import linear_maps
from tinylora.adapter.svd import NEAR_EQUAL, Factors, truncated_svd
from tinylora.models import load_model
from tinylora.settings import SEVEN_MAPS

SHAPES = {  # name: d_out, d_in, how many of them
    "q, o": (3584, 3584, 56),
    "k, v": (512, 3584, 56),
    "gate, up": (18944, 3584, 56),
    "down": (3584, 18944, 28),
}
SPECTRA = ("decay", "close")
NUM_LEADING = 256
NUM_LISTED = 5


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads, {platform.processor()}")
    print(f"load of the machine at the start: {os.getloadavg()[0]:.1f}")
    if options.model is not None:
        report(measure_model(options.model, options.repeats))
    else:
        measure_shapes(options)


@dataclass(frozen=True)
class Measured:
    """The factors of one layer of a real model, beside its full SVD."""

    name: str
    shape: tuple[int, ...]
    ours_s: float
    full_s: float
    factors: Factors
    difference: float
    pair_gap: float  # (s1 - s2) / s1
    edge_gap: float  # (s2 - s3) / s2


def measure_model(name: str, repeats: int) -> list[Measured]:
    """Every linear layer that an adapter would be attached to, at rank 2."""
    model = load_model(name, "fp32", "cpu").model
    found = []
    for linear in linear_maps(model, SEVEN_MAPS, "all"):
        W = linear.weight().detach()
        ours_s, factors = _timed(lambda W=W: truncated_svd(W, 2), repeats)
        full_s, (U, S, Vh) = _timed(lambda W=W: torch.linalg.svd(W.float(), full_matrices=False), 1)
        difference = _difference(factors, (U[:, :2], S[:2], Vh[:2]))
        gaps = (1 - S[1:3] / S[:2]).tolist()
        shape = tuple(W.shape)
        found.append(Measured(linear.name, shape, ours_s, full_s, factors, difference, *gaps))
    return found


def report(found: list[Measured]) -> None:
    """A line for each shape, one for the model, and the layers whose values are nearest."""
    by_shape = defaultdict(list)
    for one in found:
        by_shape[one.shape].append(one)
    for shape, group in [*by_shape.items(), ("all", found)]:
        ours_s, full_s = (sum(getattr(one, side) for one in group) for side in ("ours_s", "full_s"))
        methods = sorted({one.factors.method for one in group})
        print(
            f"{shape!s:13} {len(group):3} layers  {ours_s:6.2f} s  full SVD {full_s:6.1f} s  ratio "
            f"{full_s / ours_s:4.0f}  residual at most {max(x.factors.residual for x in group):.0e}"
            f" ({', '.join(methods)}), differs by at most {max(x.difference for x in group):.0e}"
        )
    undefined = [one.name for one in found if not one.factors.is_defined]
    print(f"left out (s2 and s3 within {NEAR_EQUAL:g}): {', '.join(undefined) or 'none'}")
    for gap, pair in (("pair_gap", "s1 and s2"), ("edge_gap", "s2 and s3")):
        print(f"nearest {pair}:")
        for one in sorted(found, key=lambda one: getattr(one, gap))[:NUM_LISTED]:
            print(f"  {getattr(one, gap):.1e}  {one.name}, differs by {one.difference:.0e}")


def measure_shapes(options: argparse.Namespace) -> None:
    """The shapes of a 7B model, with planted spectra."""
    full_s = {}
    for spectrum in SPECTRA:
        ours_total = full_total = 0.0
        for name in options.shapes:
            d_out, d_in, count = SHAPES[name]
            W = weights(d_out, d_in, spectrum)
            ours_s, factors = _timed(lambda W=W: truncated_svd(W, 2), options.repeats)
            if name not in full_s:
                full_s[name], full = _timed(lambda W=W: peft_svd(W), 1)
                agreement = f", differs from it by {_difference(factors, full):.0e}"
            else:
                agreement = ""
            print(
                f"{spectrum:5}  {name:8} {d_out:5} x {d_in:5}  {ours_s:6.2f} s  residual "
                f"{factors.residual:.0e} ({factors.method})  full SVD {full_s[name]:6.1f} s  "
                f"ratio {full_s[name] / ours_s:5.0f}{agreement}",
                flush=True,
            )
            ours_total += count * ours_s
            full_total += count * full_s[name]
        print(
            f"{spectrum:5}  whole model: {ours_total:.0f} s against {full_total / 60:.0f} min: "
            f"ratio {full_total / ours_total:.0f}"
        )


def weights(d_out: int, d_in: int, spectrum: str) -> Tensor:
    """bf16 weights with NUM_LEADING planted singular values over a Gaussian floor."""
    generator = torch.Generator().manual_seed(d_out + d_in)
    values = torch.arange(1, NUM_LEADING + 1, dtype=torch.float32) ** -0.3
    if spectrum == "close":
        values[:16] = torch.linspace(1, 0.99, 16)
    floor = float(values[-1]) / (d_out**0.5 + d_in**0.5)  # its largest value meets the last one
    U, V = (
        torch.linalg.qr(torch.randn(size, NUM_LEADING, generator=generator))[0]
        for size in (d_out, d_in)
    )
    noise = floor * torch.randn(d_out, d_in, generator=generator)
    return noise.addmm_(U * values, V.mT).bfloat16()


def peft_svd(W: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    U, S, Vh = torch.linalg.svd(W.float(), full_matrices=False)
    return U[:, :2], S[:2], Vh[:2]


def _difference(factors: Factors, full: tuple[Tensor, Tensor, Tensor]) -> float:
    U, S, Vh = full
    ours = ((factors.U * factors.S) @ factors.V.mT).float()
    return float((ours - (U * S) @ Vh).norm() / ours.norm())


def _timed(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return min(times), result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="all", help=f"first words of: {'; '.join(SHAPES)}")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3, help="of ours; the best counts")
    parser.add_argument("--model", help="measure every linear layer of this model instead")
    options = parser.parse_args()
    chosen = options.shapes.split(",")
    options.shapes = [n for n in SHAPES if options.shapes == "all" or n.split(",")[0] in chosen]
    if not options.shapes:
        parser.error(f"--shapes {','.join(chosen)} names none of: {'; '.join(SHAPES)}")
    return options


if __name__ == "__main__":
    main()
