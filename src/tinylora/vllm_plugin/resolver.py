"""The API server's part: the `model` of a request can be an adapter's text, or a name in a table.

A text is decoded and checked for damage here, and against the base's fingerprint in the worker,
when it is first seen; what is refused is answered with 404 and the sentence. Nothing of a request
is evaluated, and nothing is written: what is remembered of it, right or wrong, is bounded.

Stock vLLM would keep every name that a resolver finds, for ever, and list them all at /v1/models:
one customer's text would be shown to all others. `Requests` keeps ours apart. Its metrics have the
names of all adapters that run at a moment as a label, of which there would be no end: there, ours
are one.
"""

import asyncio
import hashlib
from collections import OrderedDict
from http import HTTPStatus
from typing import Any
from weakref import WeakSet

from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.serving import BaseServing
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver
from vllm.v1.metrics.stats import LoRARequestStates

from tinylora.adapter import text
from tinylora.errors import RequestError
from tinylora.settings.serving import PluginSettings
from tinylora.vllm_plugin.manager import SAID, settings_of
from tinylora.vllm_plugin.names import Names

FIRST_ID = 1 << 20  # vLLM counts its own from 1
NUM_IDS = (1 << 31) - 1 - FIRST_ID  # vLLM keeps them in 32 bits
REFUSED = 1024  # texts whose refusal is remembered
IN_METRICS = "tinylora"  # the name of all our adapters together
offers: WeakSet["Offered"] = WeakSet()  # of this process's API servers


class Requests(dict[str, Any]):
    """vLLM's table of LoRAs by name, in which ours are found, but bounded and not listed."""

    def __init__(self, stock: dict[str, Any], limit: int) -> None:
        super().__init__(stock)
        self.limit = limit
        self.ours: OrderedDict[str, Any] = OrderedDict()

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self.ours

    def __missing__(self, name: str) -> Any:
        return self.ours[name]

    def __setitem__(self, name: str, request: Any) -> None:
        if not text.is_text(request.lora_path):
            super().__setitem__(name, request)
            return
        self.ours[name] = request
        self.ours.move_to_end(name)
        if len(self.ours) > self.limit:
            self.ours.popitem(last=False)

    def __delitem__(self, name: str) -> None:
        if self.ours.pop(name, None) is None:
            super().__delitem__(name)


class TinyLoraResolver(LoRAResolver):
    """Finds the adapter that a request's `model` means, as vLLM's interface asks for it."""

    def __init__(self, settings: PluginSettings) -> None:
        self.settings = settings
        self.names = Names(settings.adapters)

    def means(self, name: str | None) -> bool:
        """Whether this name is for us to find, or to refuse."""
        return name is not None and (text.is_text(name) or self.names.path is not None)

    def text_of(self, name: str) -> str:
        """The text of the adapter that is meant, without spaces.

        Raises:
            RequestError: there is none, it is damaged, or this server does not take it.
        """
        if not text.is_text(name):
            found = self.names.text(name)
            if found is None:
                raise RequestError(
                    f"{name[:60]} is not one of the {len(self.names)} adapters of this server."
                )
            return found
        if len(name) > self.settings.text_limit:
            raise RequestError(
                f"The adapter's text has {len(name)} characters, but this server takes "
                f"{self.settings.text_limit} at most (text_limit)."
            )
        line = "".join(name.split())
        text.decode(line)
        if not self.settings.texts and not self.names.has_text(line):
            raise RequestError(
                "This server only serves the adapters of its own table (texts: false), and this "
                "text is not in it. Ask for an adapter by its name."
            )
        return line

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:
        """A request for the adapter; None: it is not for us, or refused."""
        if not self.means(lora_name):
            return None
        try:
            return self.request(lora_name, self.text_of(lora_name))
        except RequestError:
            return None

    def request(self, name: str, line: str, attempt: int = 0) -> Any:
        """vLLM's request for a text.

        The number follows from name and text, so that several API servers agree on it.
        """
        digest = hashlib.sha256(f"{name}\n{line}\n{attempt}".encode()).digest()
        number = FIRST_ID + int.from_bytes(digest[:8], "big") % NUM_IDS
        return LoRARequest(lora_name=name, lora_int_id=number, lora_path=line)


class Offered:
    """The adapters of an API server: what was asked for, and what was refused.

    Args:
        models: vLLM's table of models, which this joins.
    """

    def __init__(self, models: Any, settings: PluginSettings) -> None:
        self.resolver = TinyLoraResolver(settings)
        self.engine = models.engine_client
        self.requests = Requests(models.lora_requests, settings.remembered)
        self._refused: OrderedDict[str, str] = OrderedDict()  # texts, to the sentences
        self._lock = asyncio.Lock()
        models.lora_requests = self.requests
        models.lora_resolvers.append(self.resolver)
        offers.add(self)

    def has_named(self, called: str) -> bool:
        """Whether this is what vLLM calls one of ours."""
        name = called.rpartition("@")[0] or called
        return self.resolver.settings.native or not self.requests.ours.keys().isdisjoint(
            (called, name)
        )

    async def load(self, name: str) -> None:
        """Have the adapter in the engine and in the table, so that the request can go on.

        Raises:
            RequestError: it is unknown, damaged, of another base, or not taken here.
        """
        line = self.resolver.text_of(name)
        if self._has(name, line):
            return
        if line in self._refused:
            raise RequestError(self._refused[line])
        async with self._lock:
            if not self._has(name, line):
                await self._load(name, line)

    def _has(self, name: str, line: str) -> bool:
        held = self.requests.ours.get(name)
        if held is None or held.lora_path != line:
            return False
        self.requests.ours.move_to_end(name)
        return True

    async def _load(self, name: str, line: str) -> None:
        for attempt in range(3):  # another adapter may have the number, once in 2^31
            request = self.resolver.request(self._called(name, line), line, attempt)
            try:
                await self.engine.add_lora(request)
            except Exception as error:
                said = SAID.search(str(error))
                if said is None:
                    raise
                if "belongs to another adapter" in said[1] and attempt < 2:
                    continue
                self._refuse(line, said[1])
                raise RequestError(said[1]) from None
            self.requests[name] = request
            return

    def _called(self, name: str, line: str) -> str:
        """What vLLM calls it: another name where an older text of that name may still be running,
        because vLLM tells adapters in a batch apart by their names."""
        held = self.requests.ours.get(name)
        if held is None or held.lora_path == line:
            return name
        return f"{name}@{hashlib.sha256(line.encode()).hexdigest()[:8]}"

    def _refuse(self, line: str, sentence: str) -> None:
        self._refused[line] = sentence
        if len(self._refused) > REFUSED:
            self._refused.popitem(last=False)


def install() -> None:
    """Join vLLM's table of models, and its check of a request's model; once in a process."""
    if getattr(OpenAIServingModels, "_has_tinylora", False):
        return
    OpenAIServingModels._has_tinylora = True
    stock_init, stock_check = OpenAIServingModels.__init__, BaseServing._check_model

    def initialise(self: Any, engine_client: Any, *arguments: Any, **named: Any) -> None:
        stock_init(self, engine_client, *arguments, **named)
        config = engine_client.vllm_config
        if config.lora_config is not None:
            self.tinylora = Offered(self, settings_of(config))

    async def check_model(self: Any, request: Any) -> Any:
        offered, name = getattr(self.models, "tinylora", None), request.model
        if offered is None or not offered.resolver.means(name) or is_stock(self.models, name):
            return await stock_check(self, request)
        try:
            await offered.load(name)
        except RequestError as error:
            return self.create_error_response(
                str(error), "NotFoundError", HTTPStatus.NOT_FOUND, "model"
            )
        return None

    OpenAIServingModels.__init__ = initialise
    BaseServing._check_model = check_model
    stock_update = LoRARequestStates.update_scheduler_stats

    def update_scheduler_stats(self: Any, scheduler_stats: Any) -> None:
        stock_update(self, scheduler_stats)
        if scheduler_stats is not None:
            merge_ours(scheduler_stats.waiting_lora_adapters)
            merge_ours(scheduler_stats.running_lora_adapters)

    LoRARequestStates.update_scheduler_stats = update_scheduler_stats


def merge_ours(counts: dict[str, int]) -> None:
    """Put the counts of our adapters under one name, in place."""
    ours = [n for n in counts if text.is_text(n) or any(offer.has_named(n) for offer in offers)]
    if ours:
        counts[IN_METRICS] = sum(counts.pop(name) for name in ours)


def is_stock(models: Any, name: str) -> bool:
    """Whether vLLM itself serves this name: the base, or an ordinary LoRA."""
    return models.is_base_model(name) or dict.__contains__(models.lora_requests, name)
