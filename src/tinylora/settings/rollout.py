"""The engine that samples: one class of settings for each, picked by `rollout`."""

import re
from typing import Annotated

from pydantic import Field

from tinylora.errors import RequestError
from tinylora.settings.base import OrNone, Settings


class TransformersEngineSettings(Settings):
    """Transformers in this process reads nothing more."""


class ServedSettings(Settings):
    """vLLM is given adapters as files, where it does not take them as texts."""

    adapter_dir: Annotated[str | None, OrNone] = Field(
        default=None,
        description="folder for adapters that reach vLLM as files, which the trainer and vLLM see "
        "under the same path (none: /dev/shm)",
    )


class ColocatedSettings(ServedSettings):
    """vLLM in this process."""

    rollout_cache_gib: Annotated[float | None, OrNone] = Field(
        default=None,
        gt=0,
        description="memory for vLLM's keys and values in this process (none: 1 on a CPU, else 8)",
    )


class ServersSettings(ServedSettings):
    """vLLM servers, by their addresses."""

    rollout_timeout_s: float = Field(
        default=600.0, gt=0, description="how long a vLLM server may take for one answer"
    )


Engine = TransformersEngineSettings | ColocatedSettings | ServersSettings
ENGINES: dict[str, type[Engine]] = {
    "transformers": TransformersEngineSettings,
    "vllm": ColocatedSettings,
    "http://HOST:PORT": ServersSettings,
}


def engine_kind(rollout: str) -> str:
    """The key of `ENGINES` that `rollout` means.

    Raises:
        RequestError: it means none.
    """
    if server_addresses(rollout):
        return "http://HOST:PORT"
    if rollout in ENGINES:
        return rollout
    raise RequestError(
        f'rollout = "{rollout}" is not an engine. Use transformers or vllm, or addresses of vLLM '
        "servers such as http://localhost:8000, separated by commas."
    )


def server_addresses(rollout: str) -> list[str]:
    """The addresses that `rollout` lists; none where it is anything else."""
    parts = [part.strip().rstrip("/") for part in rollout.split(",")]
    return parts if all(re.fullmatch(r"https?://[^\s/]+(/\S*)?", part) for part in parts) else []
