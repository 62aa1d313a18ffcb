"""`tinylora serve`: vLLM's OpenAI server for a base model and any number of its adapters."""

import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from tinylora.cli.options import Verb, split
from tinylora.errors import RequestError, install_hint
from tinylora.settings.base import Settings
from tinylora.settings.serving import ON_SERVER, PluginSettings

LOCAL = "127.0.0.1"
OURS = ("--additional-config", "--enable-lora", "--max-loras", "--max-cpu-loras")


class Request(Settings):
    """Which base to serve, and how much room its adapters have."""

    model: str = Field(
        title="MODEL", description="pocket, smollm2, a local folder, a GGUF file, or a hub id"
    )
    slots: int = Field(
        default=1000,
        ge=1,
        description="adapters in memory, and in one batch; the one that rested longest makes room",
    )
    dry_run: bool = Field(default=False, description="print the command, and stop")


SERVING = {name: f for name, f in PluginSettings.model_fields.items() if name != "native"}
VERB = Verb(
    name="serve",
    description="""\
Start vLLM's OpenAI server so that the model of a request can be the base, an
adapter's text (tl1:...), or a name from --adapters. A new adapter needs no
registration and no restart. All other options are passed on to vLLM.""",
    examples="""\
  tinylora serve pocket --port 8000
  tinylora serve Qwen/Qwen2.5-3B-Instruct --adapters names.tsv --texts false
  tinylora serve runs/base --adapters runs --tensor-parallel-size 2""",
    groups={"server": Request.model_fields, "adapters": SERVING},
    positional="model",
)


def run(argv: Sequence[str]) -> None:
    """Run the verb: this process becomes the server."""
    given, rest = VERB.given_and_rest(argv)
    request, serving = split(Request, given)
    settings = PluginSettings(**serving, native=True)
    _check(settings, rest)
    command = command_of(request, settings, rest)
    print(*command) if request.dry_run else _start(request, settings, rest, command)


def command_of(request: Request, settings: PluginSettings, rest: Sequence[str]) -> list[str]:
    """What starts the server: what `vllm serve` runs, so that any of vLLM's packages will do.

    Args:
        rest: vLLM's own options.
    """
    from tinylora.models import model_source

    source = str(model_source(request.model))
    given = settings.model_dump(exclude_defaults=True)
    if settings.adapters is not None:
        given["adapters"] = os.path.abspath(settings.adapters)
    defaults = {
        "--host": LOCAL,  # vLLM's own default is every interface
        "--served-model-name": request.model,
        "--logprobs-mode": "processed_logprobs",
        **({"--dtype": "float32"} if _is_gguf(request.model) else {}),
    }
    set_by_user = {word.partition("=")[0] for word in rest}
    chosen = [pair for pair in defaults.items() if pair[0] not in set_by_user]
    return [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", source),
        *("--enable-lora", "--max-lora-rank", "8"),
        *("--max-loras", str(request.slots), "--max-cpu-loras", str(request.slots)),
        *("--additional-config", json.dumps({ON_SERVER: given})),
        *(word for pair in chosen for word in pair),
        *rest,
    ]


def _is_gguf(model: str) -> bool:
    """Dequantised weights are not on the grid of bf16, to which vLLM would round them."""
    from tinylora.gguf_base import gguf_file

    return gguf_file(model) is not None


def _check(settings: PluginSettings, rest: Sequence[str]) -> None:
    """Refuse what would fail later, or in silence.

    Raises:
        RequestError: so it is.
    """
    from tinylora.vllm_plugin import version_problem, vllm_version

    taken = [word for word in rest if word.split("=")[0] in OURS]
    if taken:
        raise RequestError(
            f'{taken[0]} is set by "tinylora serve" itself. Use --slots for the number of '
            "adapters, or start vLLM yourself (docs/serving.md has its options)."
        )
    if vllm_version() is None:
        raise RequestError(f"vLLM, which serves, is not installed. {install_hint('vllm')}.")
    if problem := version_problem():
        raise RequestError(problem)
    if settings.adapters is not None:
        from tinylora.vllm_plugin.names import Names

        Names(settings.adapters).texts()


def _start(
    request: Request, settings: PluginSettings, rest: Sequence[str], command: list[str]
) -> None:
    print(how_to_ask(request, settings, address_of(rest)), flush=True)
    environment = os.environ | {"VLLM_PLUGINS": _with_plugin(os.environ)}
    os.execve(command[0], command, environment if environment["VLLM_PLUGINS"] else dict(os.environ))


def _with_plugin(environment: Mapping[str, str]) -> str:
    """The list of plugins that may load, with ours in it; "": all may."""
    listed = environment.get("VLLM_PLUGINS", "")
    names = listed.split(",") if listed else []
    return ",".join(dict.fromkeys([*names, ON_SERVER])) if names else ""


def address_of(rest: Sequence[str]) -> str:
    """Where the server will be, by vLLM's own options."""
    words: dict[str, Any] = {"--host": LOCAL, "--port": "8000"}
    for word, following in itertools.pairwise([*rest, ""]):
        name, has_value, value = word.partition("=")
        if name in words:
            words[name] = value if has_value else following
    return f"http://{words['--host']}:{words['--port']}/v1"


def how_to_ask(request: Request, settings: PluginSettings, address: str) -> str:
    """The first request, by curl and by OpenAI's client."""
    named = "" if settings.adapters is None else ", a name from --adapters"
    text = ", an adapter's text" if settings.texts else ""
    return f"""\
Serving {request.model} at {address}, with {request.slots} slots for adapters.
"model" is the base's name ({request.model}){named}{text}:

  curl {address}/completions -H "Content-Type: application/json" \\
    -d '{{"model": "tl1:...", "prompt": "2+3=", "max_tokens": 32}}'

  from openai import OpenAI
  client = OpenAI(base_url="{address}", api_key="-")
  client.completions.create(model="tl1:...", prompt="2+3=", max_tokens=32)
"""
