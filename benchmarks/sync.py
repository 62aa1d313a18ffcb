"""What it costs to bring an update to vLLM, and how much of the update arrives.

    make test-vllm ARGS=--collect-only                      # makes the environment
    .venv-vllm/bin/python benchmarks/sync.py updates        # the pocket model; a minute or two
    .venv-vllm/bin/python benchmarks/sync.py updates --shape 0.5b
    .venv-vllm/bin/python benchmarks/sync.py drift          # some minutes

`updates`: median seconds and bytes of one update for (1) merging a LoRA and pushing every weight of
the model through `load_weights`, then unmerging, as TRL 1.16 does; (2) a LoRA that PEFT writes to
shared memory and vLLM loads; (3) ours, a new version of a TinyLoRA. The same maps are adapted in
all three, at rank 2. Aim: ours takes at most 0.1 s.

`drift`: a run trains v on the pocket model; at some steps the bf16 base is served with v twice, as
a LoRA and merged into bf16 weights, and each engine's log-probabilities are compared with those of
the bf16 trainer, whose hooks add the update exactly. "exact arithmetic" repeats both in fp32 on the
same bf16 weights (merged weights and LoRA factors rounded to bf16), where nothing but the rounding
of the update is left. Aim: the KL of the native adapter is at most a tenth of that of merging.
"""

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from tinylora.adapter import TinyLora, attach
from tinylora.adapter.modules import linear_maps
from tinylora.algorithms import make_step
from tinylora.algorithms.batching import Sample, collate, completion_logprobs, pack, split_rows
from tinylora.algorithms.loop import Run
from tinylora.algorithms.losses import kl_k3
from tinylora.models import load_model
from tinylora.pocket import model_folder
from tinylora.prompts import text_of
from tinylora.rollout.engine import Sampling
from tinylora.rollout.lora_engine import LoraEngine, version_folder
from tinylora.rollout.transformers import TransformersEngine
from tinylora.rollout.vllm import Colocated
from tinylora.settings import SEVEN_MAPS, AdapterConfig, load_recipe, unflatten
from tinylora.tasks import pocket as pocket_task
from tinylora.tasks.draw import draw_problems

RECIPE = Path(__file__).parent.parent / "recipes" / "pocket" / "demo-adam.yaml"
SHAPES = {  # Qwen2.5's, with random weights, the pocket's words and a short context
    "0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
}
VOCABULARY = 151_936
WAYS = ("merge and push", "LoRA by PEFT", "ours")
STEPS = (1, 2, 5, 10, 20, 40, 60)


def main() -> None:
    args = arguments()
    versions = [f"{name} {__import__(name).__version__}" for name in ("torch", "vllm", "peft")]
    if args.worker is None:
        print(f"{', '.join(versions)}; {platform.machine()}, {torch.get_num_threads()} threads")
    if args.part == "updates":
        updates(args)
    else:
        drift(args)


# -- updates


def updates(args: argparse.Namespace) -> None:
    """Each way in a process of its own, so that memory and engines are fresh."""
    if args.worker is not None:
        print(json.dumps(time_updates(args.worker, Path(args.folder), args.repeats)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder() if args.shape == "pocket" else write_model(args.shape, scratch)
        results = {}
        for way in WAYS:
            command = [sys.executable, __file__, "updates", f"--worker={way}", f"--folder={folder}"]
            ran = subprocess.run(
                [*command, f"--repeats={args.repeats}"], check=True, stdout=subprocess.PIPE
            )
            results[way] = json.loads(ran.stdout.splitlines()[-1])
            seconds, busy, size = (results[way][name] for name in ("seconds", "busy", "bytes"))
            print(
                f"{args.shape:6}  {way:15} {seconds:9.4f} s (processor {busy:8.4f} s)"
                f"  {size:14,} bytes",
                flush=True,
            )
    ratio = results["merge and push"]["seconds"] / results["ours"]["seconds"]
    print(f"{args.shape:6}  merging takes {ratio:.0f} times as long as ours; all in fp32")


def time_updates(way: str, folder: Path, repeats: int) -> dict[str, float]:
    """Median seconds of an update, by the clock and of this process's processor time; its bytes."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    make = {WAYS[0]: merging, WAYS[1]: writing_lora, WAYS[2]: publishing}[way]
    change, update = make(model, folder)
    seconds, busy = [], []
    for _ in range(repeats + 1):  # the first is a warm-up
        change()
        start, start_busy = time.perf_counter(), time.process_time()
        size = update()
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - start_busy)
    return {"seconds": median(seconds[1:]), "busy": median(busy[1:]), "bytes": size}


Update = tuple[Callable[[], None], Callable[[], int]]
"""What moves the trained numbers (not timed), and what brings them to the engine (its bytes)."""


def merging(model: Any, folder: Path) -> Update:
    pushed = Pushed(folder, "float32")
    peft_model, change = with_peft_lora(model)

    def update() -> int:
        peft_model.merge_adapter()
        weights = {
            name.removeprefix("base_model.model.").replace(".base_layer", ""): parameter.data
            for name, parameter in peft_model.named_parameters()
            if "lora_" not in name
        }
        pushed.push(weights)
        peft_model.unmerge_adapter()
        return sum(weight.nbytes for weight in weights.values())

    return change, update


def writing_lora(model: Any, folder: Path) -> Update:
    server = Colocated(str(folder), "float32", AdapterConfig(rank=2), cache_gib=0.25)
    peft_model, change = with_peft_lora(model)
    place, numbers = version_folder(None), count()

    def update() -> int:
        new = place / f"lora-{next(numbers)}"
        peft_model.save_pretrained(new)
        server.load(new)
        size = sum(path.stat().st_size for path in new.iterdir())
        shutil.rmtree(new)
        return size

    return change, update


def publishing(model: Any, folder: Path) -> Update:
    server = Colocated(str(folder), "float32", AdapterConfig(rank=2), cache_gib=0.25)
    adapter = attach(model, AdapterConfig(u=13, num_groups=1, rank=2))
    engine = LoraEngine(adapter, server, version_folder(None), count())

    def change() -> None:
        adapter.set_values(torch.randn_like(adapter.v) * 0.01)

    def update() -> int:
        engine.publish()
        (place,) = engine.folder.iterdir()
        return sum(path.stat().st_size for path in place.iterdir())

    return change, update


def with_peft_lora(model: Any) -> tuple[Any, Callable[[], None]]:
    """A LoRA of rank 2 on the same maps, and what moves it."""
    peft_model: Any = get_peft_model(model, LoraConfig(r=2, target_modules=list(SEVEN_MAPS)))
    factors = [p for name, p in peft_model.named_parameters() if "lora_" in name]

    def change() -> None:
        for factor in factors:
            torch.nn.init.normal_(factor.data, std=1e-3)

    return peft_model, change


class Pushed:
    """A vLLM without LoRA, whose weights are pushed one by one."""

    def __init__(self, folder: Path, dtype: str) -> None:
        import vllm

        self._vllm, self._loaded = vllm, None
        self.llm: Any = vllm.LLM(
            str(folder),
            dtype=dtype,
            enforce_eager=True,
            kv_cache_memory_bytes=2**28,
            max_model_len=-1,
            enable_chunked_prefill=False,
            logprobs_mode="processed_logprobs",
        )
        self._llm = self.llm

    def push(self, weights: dict[str, Tensor]) -> None:
        """Every weight through vLLM's loader, and its prefix cache emptied.

        TRL calls the model's `load_weights` itself, which fails on a CPU, where vLLM packs weights
        once they are loaded; `reload_weights` streams the same and packs again.
        """
        runner = self.llm.llm_engine.model_executor.driver_worker.model_runner
        runner.reload_weights(weights_iterator=iter(weights.items()))
        self.llm.reset_prefix_cache()

    generate, _parameters = Colocated.generate, Colocated._parameters


def write_model(shape: str, scratch: str) -> Path:
    """A model folder with random weights, whose two leading singular values stand out.

    Those of plain noise lie so near to one another that finding them takes minutes, once, before
    any update; real weights are not like that.
    """
    torch.manual_seed(0)
    folder = Path(scratch) / shape
    shutil.copytree(model_folder(), folder)
    (folder / "model.safetensors").unlink()
    config = Qwen2Config(
        **SHAPES[shape],
        vocab_size=VOCABULARY,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        eos_token_id=1,
        dtype="float32",
    )
    model = Qwen2ForCausalLM(config).requires_grad_(False)
    for linear in linear_maps(model, SEVEN_MAPS):
        for size in (16.0, 8.0):
            left, right = (unit(n) for n in (linear.d_out, linear.d_in))
            linear.weight().addr_(left, right, alpha=size)
    model.save_pretrained(folder)
    return folder


def unit(size: int) -> Tensor:
    """A random direction."""
    return torch.nn.functional.normalize(torch.randn(size), dim=0)


# -- drift


def drift(args: argparse.Namespace) -> None:
    """v along a run, then each engine in a process of its own."""
    if args.worker is not None:
        states = torch.load(Path(args.folder) / "v.pt")
        print(json.dumps(measure_drift(args.worker, states)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        states = trained_values()
        torch.save(states, Path(scratch) / "v.pt")
        show("exact arithmetic", states, exact_drift(states))
        found: dict[str, Any] = {}
        for way in ("merged", "native"):
            command = [sys.executable, __file__, "drift", f"--worker={way}", f"--folder={scratch}"]
            ran = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            found[way] = json.loads(ran.stdout.splitlines()[-1])
    both = {step: {way: found[way][str(step)] for way in found} for step in states}
    show("bf16 arithmetic, vLLM", states, both)


def show(title: str, states: dict[int, Tensor], found: dict[int, dict[str, float]]) -> None:
    """A line for each v."""
    table = Table(title=f"KL(rollout || trainer), bf16 base, {title}", title_justify="left")
    shares = [name for name in ("survives", "error") if name in found[0]]
    for name in ("step", "|v|", *shares, "merged", "native", "ratio"):
        table.add_column(name, justify="right")
    for step, v in states.items():
        values = found[step]
        table.add_row(
            *(str(step), f"{float(v.norm()):.3f}"),
            *(f"{values[name]:.3f}" for name in shares),
            *(f"{values['merged']:.1e}", f"{values['native']:.1e}"),
            ratio(values["merged"], values["native"]),
        )
    Console(width=100).print(table)


def ratio(more: float, less: float) -> str:
    return f"{more / less:.1f}" if less else "-"


def trained_values() -> dict[int, Tensor]:
    """v after some steps of the demo's run; 0 is the start."""
    torch.set_flush_denormal(True)
    config = unflatten(load_recipe(RECIPE))
    base, task = load_model("pocket", "fp32", "cpu"), pocket_task.make()
    adapter = attach(base.model, adapter_settings(config))
    policy = adapter
    text = text_of(base)
    sampling = Sampling(config.temperature, task.max_new_tokens, text.eos_token_ids)
    engine = TransformersEngine(policy)
    run = Run(policy, engine, task, text, sampling, config.seed, config.steps)
    take_step = make_step(run, config.learning)
    states = {0: adapter.v.detach().clone()}
    for step in range(max(STEPS)):
        take_step(step)
        if step + 1 in STEPS:
            states[step + 1] = adapter.v.detach().clone()
    return states


def adapter_settings(config: Any) -> AdapterConfig:
    """`params` of the recipe is a number for each of as many groups."""
    given = config.adapter.model_dump()
    return AdapterConfig(**{**given, "u": 1, "num_groups": config.params})


def pocket_policy(dtype: str) -> tuple[Any, TinyLora]:
    base = load_model("pocket", dtype, "cpu")
    adapter = attach(base.model, adapter_settings(unflatten(load_recipe(RECIPE))))
    return base, adapter


def questions(base: Any, number: int = 24) -> tuple[list[list[int]], Sampling]:
    task = pocket_task.make()
    prompts = [text_of(base).encode(p) for p in draw_problems(task.test, number, 0, 0)]
    return prompts, Sampling(1.0, task.max_new_tokens, base.eos_token_ids)


def measure_drift(way: str, states: dict[int, Tensor]) -> dict[int, float]:
    """KL(rollout || trainer) at each v, in vLLM on bf16 weights."""
    base, policy = pocket_policy("bf16")
    prompts, sampling = questions(base)
    seeds = [1000 * i for i in range(len(prompts))]
    settings = policy.adapter.config
    kls = {}
    if way == "native":
        server = Colocated(str(model_folder()), "bfloat16", settings, cache_gib=0.25)
        engine = LoraEngine(policy, server, version_folder(None), count())
    else:
        pushed = Pushed(model_folder(), "bfloat16")
    for step, v in states.items():
        policy.adapter.set_values(v)
        if way == "native":
            groups = engine.generate(prompts, 4, sampling, seed=0)
        else:
            with policy.adapter.folded(allow_half=True):
                pushed.push({n: p.detach() for n, p in policy.model.named_parameters()})
            groups = pushed.generate(prompts, 4, sampling, seeds)
        rollout_T = torch.tensor([x for r in groups for c in r for x in c.logprobs]).double()
        kls[step] = float(kl_k3(rollout_T, logprobs_of(policy.model, prompts, groups)).mean())
    return kls


@torch.no_grad()
def logprobs_of(model: Any, prompts: list[list[int]], groups: Any) -> Tensor:
    """The model's own, of every completion token."""
    samples = [
        Sample(p, prompts[p], completion.token_ids)
        for p, group in enumerate(groups)
        for completion in group
    ]
    logprobs_T = torch.zeros(sum(len(sample.completion) for sample in samples))
    for rows in split_rows(pack(samples, 1), 2048):
        part = collate(rows, model.device, model.dtype)
        logprobs_T[part.tokens] = completion_logprobs(model, part, 1.0)
    return logprobs_T.double()  # the KL is as small as a square of rounding


def exact_drift(states: dict[int, Tensor]) -> dict[int, dict[str, float]]:
    """The same in fp32 arithmetic on the same weights: what rounding the update does by itself."""
    base, policy = pocket_policy("fp32")
    half = pocket_policy("bf16")[1]
    check_on_grid(policy.model)
    prompts, sampling = questions(base)
    found = {}
    for step, v in states.items():
        policy.adapter.set_values(v)
        half.adapter.set_values(v)
        groups = TransformersEngine(policy).generate(prompts, 4, sampling, seed=0)
        trained_T = logprobs_of(policy.model, prompts, groups)
        with half.adapter.folded(allow_half=True) as report:
            merged = {name: weight.float() for name, weight in half.model.state_dict().items()}
        values = {"survives": math.nan, "error": math.nan}  # of nothing, at v = 0
        if v.any():
            values = {"survives": 1 - report.rounded_away, "error": report.relative_error}
        for way, weights in (("merged", merged), ("native", with_rounded_lora(policy))):
            with policy.reference(), replaced(policy.model, weights):
                served_T = logprobs_of(policy.model, prompts, groups)
            values[way] = float(kl_k3(trained_T, served_T).mean())
        found[step] = values
    return found


def with_rounded_lora(policy: TinyLora) -> dict[str, Tensor]:
    """W + bf16(B R) bf16(A): what a bf16 LoRA adds, in fp32."""
    tensors = policy._lora_writer.tensors()
    weights = dict(policy.model.state_dict())
    for name in {key.rpartition(".lora_")[0] for key in tensors}:
        A, B = (tensors[f"{name}.lora_{f}.weight"].bfloat16().float() for f in "AB")
        plain = f"{name.removeprefix('base_model.model.')}.weight"
        weights[plain] = weights[plain] + B @ A
    return weights


class replaced:
    """Inside, the model has these weights."""

    def __init__(self, model: Any, weights: dict[str, Tensor]) -> None:
        self.model, self.weights = model, weights

    def __enter__(self) -> None:
        self.saved = {name: w.clone() for name, w in self.model.state_dict().items()}
        self.model.load_state_dict(self.weights)

    def __exit__(self, *error: Any) -> None:
        self.model.load_state_dict(self.saved)


def check_on_grid(model: Any) -> None:
    """The packaged weights are bf16 numbers, so that both precisions are one base."""
    if not all(torch.equal(p, p.bfloat16().float()) for p in model.parameters()):
        raise SystemExit("The base model's weights are not bf16 numbers.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("updates", "drift"))
    parser.add_argument("--shape", choices=("pocket", *SHAPES), default="pocket")
    parser.add_argument("--repeats", type=int, default=5, help="timed updates; the median counts")
    parser.add_argument("--worker", help="one way, in this process; the script calls itself so")
    parser.add_argument("--folder", help="for the worker")
    return parser.parse_args()


if __name__ == "__main__":
    main()
