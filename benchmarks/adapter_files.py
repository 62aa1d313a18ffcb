"""An adapter from scratch, from its file, on disk and in memory: ours against PEFT's TinyLoRA.

    python benchmarks/adapter_files.py                           # Qwen2.5-1.5B's 28 blocks
    python benchmarks/adapter_files.py --shape 7B --blocks 1     # one of Qwen2.5-7B's

The base has random bf16 weights whose leading singular values decay (k^-0.3 over a Gaussian
floor, as `benchmarks/factors.py` makes them). Every figure comes from a process of its own: the
seconds of the call alone, and the peak of memory above what the loaded base takes. PEFT 0.21
decomposes every weight again at every load; ours reads 52 bytes of numbers, checks the base's
fingerprint, and finds the factors by the weights' hash (warm) or computes them (cold). Aims:
attach 50 times faster, warm load 200 times, 1,000 times fewer bytes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from factors import weights
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tinylora import AdapterConfig, attach, load
from tinylora.settings import SEVEN_MAPS

SHAPES = {  # hidden, MLP, heads, key-value heads
    "1.5B": (1536, 8960, 12, 2),
    "7B": (3584, 18944, 28, 4),
}
VOCABULARY = 32768  # of 151,936: no adapter touches the embeddings
PARTS = ("ours attach", "ours load, cold", "ours load, warm", "peft attach", "peft load")


def main() -> None:
    options = _options()
    if options.part:
        print(json.dumps(measure(options.part, Path(options.folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_base(Path(folder) / "base", options.shape, options.blocks)
        print(_machine(options.shape, options.blocks))
        results = {part: _in_a_process(part, folder) for part in PARTS}
    for part, found in results.items():
        size = f"{found['bytes']:>12,} bytes" if "bytes" in found else " " * 18
        print(f"{part:16} {found['seconds']:9.2f} s  {size}  peak + {found['peak_mb']:.0f} MB")
    ours, peft = results["ours attach"], results["peft attach"]
    print(f"attach: {peft['seconds'] / ours['seconds']:.0f} times faster")
    for kind in ("cold", "warm"):
        ratio = results["peft load"]["seconds"] / results[f"ours load, {kind}"]["seconds"]
        print(f"load, {kind} cache: {ratio:.0f} times faster")
    print(f"bytes on disk: {peft['bytes'] / ours['bytes']:.0f} times fewer")


def write_base(folder: Path, shape_name: str, blocks: int) -> None:
    """The base model as a folder; each kind of weight is made once and permuted for each block."""
    hidden, mlp, heads, kv_heads = SHAPES[shape_name]
    config = Qwen2Config(
        hidden_size=hidden,
        intermediate_size=mlp,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_hidden_layers=blocks,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config).bfloat16()
    made: dict[tuple[int, int], Any] = {}
    generator = torch.Generator().manual_seed(0)
    for name, module in model.named_modules():
        if name.endswith(SEVEN_MAPS):
            shape = tuple(module.weight.shape)
            if shape not in made:
                made[shape] = weights(*shape, "decay")
            rows = torch.randperm(shape[0], generator=generator)
            module.weight.data.copy_(made[shape][rows])
    model.save_pretrained(folder)


def measure(part: str, folder: Path) -> dict[str, Any]:
    """One call in this process."""
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    sum(float(p.float().sum()) for p in base.parameters())  # every page is in memory
    calls: dict[str, Callable[[], Any]] = {
        "ours attach": lambda: attach(base, AdapterConfig(u=13, num_groups=1)),
        "ours load, cold": lambda: load(base, folder / "ours"),
        "ours load, warm": lambda: load(base, folder / "ours"),
        "peft attach": lambda: _peft(base),
        "peft load": lambda: _peft_load(base, folder / "peft"),
    }
    before = _reset_peak()
    start = time.perf_counter()
    made = calls[part]()
    result = {"seconds": time.perf_counter() - start, "peak_mb": (_peak() - before) / 1024}
    if part == "ours attach":
        (folder / "ours").mkdir()
        with torch.no_grad():
            made.v.normal_()
        result["bytes"] = made.save(folder / "ours", "bf16")
    if part == "peft attach":
        made.save_pretrained(folder / "peft")
        result["bytes"] = sum(p.stat().st_size for p in (folder / "peft").glob("adapter_*"))
    return result


def _peft(base: Any) -> Any:
    from peft import TinyLoraConfig, get_peft_model

    settings = TinyLoraConfig(r=2, u=13, weight_tying=1.0, target_modules=list(SEVEN_MAPS))
    return get_peft_model(base, settings)


def _peft_load(base: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(base, folder)


def _in_a_process(part: str, folder: str) -> dict[str, Any]:
    cache = {"ours attach": "off", "peft attach": "off"}.get(part, f"{folder}/cache")
    command = [sys.executable, "-W", "ignore", __file__, "--part", part, "--folder", folder]
    done = subprocess.run(
        command,
        env={**os.environ, "TINYLORA_CACHE": cache},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _reset_peak() -> int:
    """Forget the peak so far; returns what is resident now, in kB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _machine(shape: str, blocks: int) -> str:
    import peft
    import transformers

    return (
        f"{blocks} blocks of Qwen2.5-{shape}'s shape, bf16, u = 13, all tied; torch "
        f"{torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}, "
        f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=tuple(SHAPES), default="1.5B")
    parser.add_argument("--blocks", type=int, default=28)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
