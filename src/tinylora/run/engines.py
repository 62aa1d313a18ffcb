"""Which engine samples, opened once for a run: it outlives the adapters that it serves."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from tinylora.errors import RequestError
from tinylora.models import Base, model_source
from tinylora.policy import Policy
from tinylora.rollout.engine import Engine
from tinylora.rollout.lora_engine import LoraEngine, LoraServer, version_folder
from tinylora.rollout.sharded import sharded
from tinylora.rollout.transformers import TransformersEngine
from tinylora.rollout.vllm import Colocated, check_vllm
from tinylora.rollout.vllm_server import Replicas
from tinylora.settings import Search, TrainConfig, server_addresses
from tinylora.settings.rollout import ColocatedSettings, ServedSettings, ServersSettings
from tinylora.settings.serving import MAX_CORE_RANK
from tinylora.vllm_plugin import version_problem

EngineOf = Callable[[Policy], Engine]
ADAPTERS_AT_ONCE = 8  # LoRAs in a batch of candidates; slots take memory, and more of them wait
NATIVE_SLOTS = 256  # adapters that are numbers alone: as many as vLLM has rows in a batch
NATIVE_METHODS = ("tinylora", "lora-xs")  # those whose adapters are texts
SERVED_METHODS = ("tinylora", "lora-xs", "lora")  # those that are a LoRA at every step


@contextmanager
def open_engine(config: TrainConfig, base: Base) -> Iterator[EngineOf]:
    """What gives the settings' engine for a policy on `base`; inside, it may be asked twice.

    Raises:
        RequestError: the engine cannot serve this base here.
        TinyLoraError: it does not start.
    """
    if config.rollout == "transformers":
        yield lambda policy: sharded(TransformersEngine(policy))
        return
    assert isinstance(config.engine, ServedSettings)
    server = _lora_server(config, base)
    try:
        with _serving(server, config.engine.adapter_dir) as engine_of:
            yield engine_of
    finally:
        server.close()


def check_engine(config: TrainConfig, model: str) -> None:
    """Refuse an engine that cannot serve this, before anything is loaded.

    Raises:
        RequestError: so it is.
    """
    if config.rollout != "transformers" and config.method not in SERVED_METHODS:
        raise RequestError(
            f"rollout = {config.rollout} can only serve methods that export a LoRA "
            f"({', '.join(SERVED_METHODS)}); got method = {config.method}. Use rollout = "
            "transformers."
        )
    if config.rollout == "vllm":
        check_vllm(model, config.quantize, config.adapter.rank, config.dtype)


def _lora_server(config: TrainConfig, base: Base) -> Colocated | Replicas:
    settings = config.engine
    if isinstance(settings, ServersSettings):
        return Replicas(server_addresses(config.rollout), settings.rollout_timeout_s)
    assert isinstance(settings, ColocatedSettings)
    native = is_native(config, base)
    at_once = ADAPTERS_AT_ONCE if isinstance(config.learning, Search) else 1
    return Colocated(
        str(model_source(base.name)),
        str(base.model.dtype).removeprefix("torch."),
        config.adapter,
        num_adapters=NATIVE_SLOTS if native else at_once,
        native=native,
        cache_gib=settings.rollout_cache_gib,
    )


def is_native(config: TrainConfig, base: Base) -> bool:
    """Whether vLLM in this process is given the numbers themselves, and not a LoRA of them."""
    return (
        config.method in NATIVE_METHODS
        and config.adapter.rank <= MAX_CORE_RANK
        and getattr(base.model.config, "quantization_config", None) is None
        and not version_problem()
    )


@contextmanager
def _serving(server: LoraServer, adapter_dir: str | None) -> Iterator[EngineOf]:
    """Engines whose versions are in one folder, which is gone afterwards."""
    folder, numbers = version_folder(adapter_dir), count()
    engines: list[LoraEngine] = []

    def engine_of(policy: Policy) -> Engine:
        for engine in engines:
            engine.close()
        engines.append(LoraEngine(policy, server, folder, numbers))
        return sharded(engines[-1])

    try:
        yield engine_of
        for engine in engines:
            engine.close()
    finally:
        shutil.rmtree(folder)
