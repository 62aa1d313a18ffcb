"""Rollouts by vLLM in this process: a second copy of the base model, and the adapter itself.

vLLM holds the base weights as they are in its own layout. The numbers reach it as they are, through
our plugin (`vllm_plugin`), with the outer factors in memory once; adapters of other methods reach
it as a LoRA in a slot of rank 8 on the modules that are adapted. Log-probabilities are those of the
distribution that was drawn from (temperature applied).

It does not cover: several processes (each would need a vLLM of its own; use servers there), and
quantised bases where vLLM has no such layers (`check_vllm` says so).
"""

import importlib
import os
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import count
from typing import Any

import torch

from tinylora.errors import RequestError, TinyLoraError, install_hint
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.lora_engine import Version, name_of
from tinylora.settings import IN_PYTHON
from tinylora.settings.adapter import LowRank
from tinylora.settings.serving import ON_SERVER, PluginSettings
from tinylora.vllm_plugin import register

RANKS = (8, 16, 32, 64, 128, 256)  # of the slots that vLLM makes, from the one that is used here
DEFAULT_CACHE_GIB = {True: 1.0, False: 8.0}  # of keys and values; by whether it runs on a CPU
IN_PROCESS = {  # unless the user has set them
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class Colocated:
    """vLLM in this process.

    Args:
        model: a folder or a hub id.
        dtype: of weights, cache and adapter, as torch names it: "float32", "bfloat16".
        adapter: settings of what it will serve; layers other than its targets get no slots.
        num_adapters: that a batch may mix; requests for more of them wait.
        native: serve adapters as texts through our plugin, and no others.
        cache_gib: memory for keys and values; None: 1 on a CPU, else 8. It is given because
            vLLM's own measurement would count the trainer's memory twice.
    """

    def __init__(
        self,
        model: str,
        dtype: str,
        adapter: LowRank,
        *,
        num_adapters: int = 1,
        native: bool = False,
        cache_gib: float | None = None,
    ) -> None:
        for name, value in IN_PROCESS.items():
            os.environ.setdefault(name, value)
        plugin = PluginSettings(native=native, core_rank=adapter.rank if native else None)
        if native:
            register()
        self._vllm: Any = importlib.import_module("vllm")
        self._request: Any = importlib.import_module("vllm.lora.request").LoRARequest
        on_cpu = importlib.import_module("vllm.platforms").current_platform.is_cpu()
        self._llm: Any = self._vllm.LLM(
            model,
            dtype=dtype,
            enable_lora=True,
            max_lora_rank=slot_rank(adapter.rank),
            max_loras=num_adapters,
            additional_config={ON_SERVER: plugin.model_dump(exclude_defaults=True)},
            lora_target_modules=sorted({name.rpartition(".")[2] for name in adapter.targets}),
            logprobs_mode="processed_logprobs",
            gpu_memory_utilization=admitted_share() if not on_cpu else 0.9,
            kv_cache_memory_bytes=int(2**30 * (cache_gib or DEFAULT_CACHE_GIB[on_cpu])),
            max_model_len=-1,  # what the model's context and this cache allow
            enforce_eager=on_cpu,  # elsewhere CUDA graphs, without which LoRA is many times slower
            # On a CPU a prompt that is read in parts fails with a seed (its generator cannot be
            # set back), so that prompts are read whole there; elsewhere vLLM decides.
            enable_chunked_prefill=False if on_cpu else None,
        )
        self._ids = count(1)
        self._loaded: Any = None
        self._native = native

    def takes(self, line: str) -> bool:
        """Whether it serves adapters by their texts."""
        return self._native

    def load(self, version: Version) -> None:
        """Serve this adapter from now on; the one before leaves the slot."""
        if self._loaded is not None:
            self._llm.llm_engine.remove_lora(self._loaded.lora_int_id)
            self._loaded = None
        adapter = self._asked(version)
        if not self._llm.llm_engine.add_lora(adapter):
            raise TinyLoraError(f"vLLM did not load the adapter {version}. Look at its log.")
        self._loaded = adapter

    def unload(self, version: Version) -> None:
        """Empty the slot, if it holds this one: `load` has emptied it of older ones."""
        if self._loaded is not None and self._loaded.lora_name == name_of(version):
            self._llm.llm_engine.remove_lora(self._loaded.lora_int_id)
            self._loaded = None

    def generate(
        self, prompts: Sequence[list[int]], num_samples: int, sampling: Sampling, seeds: list[int]
    ) -> list[list[Completion]]:
        """Completions under the adapter loaded last."""
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts],
            [self._parameters(sampling, num_samples, seed) for seed in seeds],
            use_tqdm=False,
            lora_request=self._loaded,
        )
        return completions(outputs, sampling)

    def generate_each(
        self,
        prompts: Sequence[list[int]],
        sampling: Sampling,
        seeds: list[int],
        adapters: Sequence[Version],
    ) -> list[Completion]:
        """A completion of each prompt under its own adapter, in mixed batches."""
        asked = {version: self._asked(version) for version in dict.fromkeys(adapters)}
        try:
            outputs = self._llm.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts],
                [self._parameters(sampling, 1, seed) for seed in seeds],
                use_tqdm=False,
                lora_request=[asked[version] for version in adapters],
            )
        finally:
            for request in asked.values():
                self._llm.llm_engine.remove_lora(request.lora_int_id)
        return [answer for (answer,) in completions(outputs, sampling)]

    def _asked(self, version: Version) -> Any:
        return self._request(name_of(version), next(self._ids), str(version))

    def _parameters(self, sampling: Sampling, num_samples: int, seed: int) -> Any:
        return self._vllm.SamplingParams(
            n=num_samples,
            temperature=sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=list(sampling.eos_token_ids),
            seed=seed,
            logprobs=0,  # of the drawn token alone
            detokenize=False,
        )

    def close(self) -> None:
        """Free its memory."""
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None


def completions(outputs: Sequence[Any], sampling: Sampling) -> list[list[Completion]]:
    """vLLM's answers to each prompt as ours."""
    ends = set(sampling.eos_token_ids)
    return [[completion(answer, ends) for answer in output.outputs] for output in outputs]


def completion(answer: Any, ends: set[int]) -> Completion:
    """vLLM's answer as ours."""
    if answer.finish_reason not in ("stop", "length"):
        raise TinyLoraError(
            f'vLLM ended a completion with "{answer.finish_reason}", so it is incomplete.'
        )
    ids = [int(token) for token in answer.token_ids]
    values = [
        float(place[token].logprob) for place, token in zip(answer.logprobs, ids, strict=True)
    ]
    return Completion(ids, values, truncated=ids[-1] not in ends)


def slot_rank(rank: int) -> int:
    """The smallest slot that holds a LoRA of this rank.

    Raises:
        RequestError: there is none.
    """
    fitting = [size for size in RANKS if size >= rank]
    if not fitting:
        raise RequestError(
            f"rank = {rank}, but vLLM serves LoRA of rank {RANKS[-1]} at most. Use a smaller rank, "
            "or rollout = transformers."
        )
    return fitting[0]


def admitted_share() -> float:
    """The share of the GPU's memory that vLLM asks for when it starts.

    With the cache's bytes given it uses the share for nothing else, but refuses to start where less
    is free, and the trainer's weights are on the card by then.
    """
    free, total = torch.cuda.mem_get_info()
    return 0.9 * free / total


def check_vllm(model: str, quantize: str, rank: int, dtype: str = "bf16") -> None:
    """Refuse what vLLM in this process cannot serve, before anything is loaded.

    Raises:
        RequestError: vLLM is not installed, or cannot serve this model under these settings.
    """
    slot_rank(rank)
    if find_spec("vllm") is None:
        raise RequestError(
            f"rollout = vllm, but vLLM is not installed. {install_hint('vllm')}, or pass the "
            "address of a server: --rollout http://HOST:8000."
        )
    if model.startswith(IN_PYTHON):
        raise RequestError(
            "rollout = vllm, but the model was passed as an object in Python "
            f"({model.removeprefix(IN_PYTHON)}), and vLLM loads its own copy from a folder or the "
            "hub. Save it with save_pretrained and train that folder, or use rollout = "
            "transformers."
        )
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RequestError(
            f"rollout = vllm in {os.environ['WORLD_SIZE']} processes, but vLLM in this process "
            "cannot join a group of trainers. Start servers and pass their addresses: "
            "--rollout http://HOST:8000,..."
        )
    if dtype == "fp32" and torch.cuda.is_available():
        raise RequestError(
            "rollout = vllm with dtype = fp32 on a GPU, but vLLM's LoRA kernels there compute in "
            "half precision only. Use --dtype bf16, or rollout = transformers."
        )
    if quantize != "none":
        raise RequestError(
            f"rollout = vllm with quantize = {quantize}, but vLLM (from 0.32 on) lacks "
            "bitsandbytes layers: it would sample from the unquantised model, which is a "
            "different policy. Use rollout = transformers."
        )
