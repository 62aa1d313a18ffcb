"""vLLM's managers of adapters, with TinyLoRA's beside or in place of ordinary LoRAs.

vLLM has two: one in each worker, which loads what a request names, and one at the model, which
keeps what is loaded and puts it into slots. Here an adapter is its numbers until it gets a slot,
which is one row of a table of cores; which slot a token has is looked up once for each batch.
"""

import os
import re
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from vllm import envs
from vllm.lora.layers import LoRAMappingType
from vllm.lora.lora_model import LoRAModel
from vllm.lora.lora_weights import LoRALayerWeights
from vllm.lora.model_manager import LRUCacheLoRAModelManager
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
from vllm.utils.gpu_sync_debug import gpu_sync_allowed
from vllm.utils.torch_utils import async_tensor_h2d
from vllm.v1.worker import lora_model_runner_mixin

from tinylora.adapter import files, text
from tinylora.adapter.contents import AdapterFile
from tinylora.errors import RequestError
from tinylora.settings.serving import DEFAULT_CORE_RANK, ON_SERVER, PluginSettings
from tinylora.vllm_plugin import layers
from tinylora.vllm_plugin.base import Frame, Plan, ServedBase, as_lora, frame_of
from tinylora.vllm_plugin.names import Names

NOTHING: dict[str, Any] = {}  # the LoRAs of an adapter of ours
SENTENCE = "[tinylora] {} [/tinylora]"  # of a worker, so that the API server finds it
SAID = re.compile(r"\[tinylora\] (.*?) \[/tinylora\]", re.DOTALL)


def install() -> None:
    """Workers make our manager where they would make vLLM's."""
    layers.install()
    lora_model_runner_mixin.LRUCacheWorkerLoRAManager = WorkerManager


def settings_of(vllm_config: Any) -> PluginSettings:
    """What `--additional-config` says to the plugin.

    Raises:
        RequestError: a setting is unknown, or has a wrong value.
    """
    additional = vllm_config.additional_config
    given = additional.get(ON_SERVER, {}) if isinstance(additional, dict) else {}
    return PluginSettings(**given)


class CoreAdapter(LoRAModel):
    """An adapter as vLLM's manager keeps it: its numbers, as bytes, because there are thousands.

    Args:
        path: what it was loaded from, by which two adapters under one id are told apart.
        plan: None: the zero adapter, with which vLLM warms up.
    """

    def __init__(self, lora_id: int, path: str, plan: Plan | None, v: Tensor) -> None:
        super().__init__(lora_id, 1 if plan is None else plan.rank, NOTHING)
        self.modules_to_save = NOTHING
        self.path, self.plan = path, plan
        self.numbers = v.float().numpy().tobytes()

    def cores(self) -> Tensor:
        """R of every layer of the plan, (layers, r, r)."""
        assert self.plan is not None
        v = torch.frombuffer(bytearray(self.numbers), dtype=torch.float32)
        return self.plan.cores(v.view(-1, self.plan.P.shape[1]))  # (num_groups, u)


class CoreManager(LRUCacheLoRAModelManager):
    """Keeps adapters as numbers, and gives them slots in a table of cores."""

    def __init__(self, *, core_rank: int, num_stages: int, **arguments: Any) -> None:
        self.core_rank, self.num_stages = core_rank, num_stages
        self._offsets: dict[Frame, int] = {}  # of frames among the directions of a part
        self._written: set[tuple[Frame, str]] = set()
        self._rows: WeakKeyDictionary[Plan, Tensor] = WeakKeyDictionary()  # places of their layers
        super().__init__(**arguments)
        self._slot_of: dict[int, int] = {}
        self._paths: dict[int, str] = {}  # of those that have slots
        self._free = list(reversed(range(self.lora_slots)))

    def _create_lora_modules(self) -> None:
        with layers.native_layers(self.core_rank):
            super()._create_lora_modules()
        self._places: dict[str, tuple[Any, int, int]] = {}  # layer, its part, place among all parts
        total = 0
        for name, module in self.modules.items():
            parts = self.packed_modules.get(name, [name])
            if len(parts) == module.n_slices:
                self._places |= {p: (module, i, total + i) for i, p in enumerate(parts)}
            total += module.n_slices
        shape = self.lora_slots + 1, total, self.core_rank, self.core_rank
        self.cores = torch.zeros(shape, device=self.device)  # fp32; the last slot stays zero
        self.token_slots = torch.full(
            (self.max_num_batched_tokens,), -1, dtype=torch.long, device=self.device
        )
        total = 0
        for module in self.modules.values():
            module.cores = self.cores[:, total : total + module.n_slices]
            module.token_slots = self.token_slots
            total += module.n_slices

    def check(self, contents: AdapterFile, name: str) -> None:
        """Refuse an adapter whose directions have no room, before anything is made of them.

        Raises:
            RequestError: so it is.
        """
        frame = frame_of(contents.config)
        used = sum(rank for rank, *_ in self._offsets)
        if frame not in self._offsets and used + frame[0] > self.core_rank:
            raise RequestError(
                f"{name} needs {frame[0]} directions of its own in each layer, but this server "
                f"has room for {self.core_rank} (core_rank), and {used} are in use. Start it with "
                f"a core_rank of {used + frame[0]} or more."
            )

    def enter(self, plan: Plan) -> None:
        """Write A and B of the plan's layers, those that are not there yet.

        Raises:
            RequestError: vLLM has no layer for one of them.
        """
        if plan in self._rows:
            return
        found = {name: self._places[name] for name in plan.names if name in self._places}
        missing = [name for name in plan.names if name not in found]
        if missing and self.num_stages == 1:  # in a pipeline, others have them
            raise RequestError(
                f"The adapter acts on {missing[0]}, which vLLM does not compute as a layer that "
                "takes an adapter here. Serve it in vLLM's own slots (native: false), or leave "
                "lora_target_modules out."
            )
        offset = self._offsets.setdefault(plan.frame, sum(rank for rank, *_ in self._offsets))
        for name, (module, part, _) in found.items():
            if (plan.frame, name) not in self._written:
                module.write_outer(part, offset, *plan.outer[name])
                self._written.add((plan.frame, name))
        rows = [found[name][2] if name in found else -1 for name in plan.names]
        self._rows[plan] = torch.tensor(rows)

    def activate_adapter(self, lora_id: int) -> bool:
        """Give the adapter a slot, where it has none; the one that rested longest loses its own."""
        if lora_id in self._slot_of:
            self._active_adapters.touch(lora_id)
            return False
        if not self._free:
            self._active_adapters.remove_oldest()
        adapter, slot = self._registered_adapters[lora_id], self._free.pop()
        self.cores[slot].copy_(self._row(adapter))
        self._slot_of[lora_id], self._paths[lora_id] = slot, adapter.path
        self._active_adapters[lora_id] = None
        return True

    def touch(self, lora_id: int, path: str) -> bool:
        """Whether this adapter has a slot, which then stays its own for a while."""
        if self._slot_of.get(lora_id) is None or self._paths[lora_id] != path:
            return False
        self._registered_adapters.touch(lora_id)
        self._active_adapters.touch(lora_id)
        return True

    def _row(self, adapter: CoreAdapter) -> Tensor:
        """R of every part of every layer, (parts, core_rank, core_rank)."""
        row = torch.zeros(self.cores.shape[1:])
        plan = adapter.plan
        if plan is not None:
            rows, offset = self._rows[plan], self._offsets[plan.frame]
            inside = slice(offset, offset + plan.rank)
            is_here = rows >= 0
            row[rows[is_here], inside, inside] = adapter.cores()[is_here]
        return row

    def _deactivate_adapter(self, lora_id: int) -> None:
        slot = self._slot_of.pop(lora_id, None)
        if slot is not None:
            del self._paths[lora_id]
            self._free.append(slot)

    def _add_adapter(self, lora: CoreAdapter) -> None:
        self._registered_adapters[lora.id] = lora

    def remove_all_adapters(self) -> None:
        super().remove_all_adapters()
        self._slot_of.clear()
        self._paths.clear()
        self._free = list(reversed(range(self.lora_slots)))

    def set_adapter_mapping(self, mapping: Any) -> None:
        """Look up the slot of every token of the batch; -1, the last slot, without an adapter."""
        if mapping.type != LoRAMappingType.LANGUAGE:
            return
        ids, inverse = np.unique(np.asarray(mapping.index_mapping), return_inverse=True)
        slots = np.array([self._slot_of[int(i)] if i > 0 else -1 for i in ids], dtype=np.int64)
        rows = slots[inverse]
        async_tensor_h2d(rows, device=self.device, out=self.token_slots[: len(rows)])


class WorkerManager(LRUCacheWorkerLoRAManager):
    """Loads adapters in a worker: ours from a text or a file, ordinary ones as vLLM does."""

    def __init__(self, vllm_config: Any, device: torch.device, *arguments: Any) -> None:
        super().__init__(vllm_config, device, *arguments)
        model = vllm_config.model_config
        self.settings = settings_of(vllm_config)
        self.base = ServedBase(model.model, model.dtype, model.quantization)

    def create_lora_manager(self, model: Any, vllm_config: Any) -> Any:
        if self.settings.native:
            self._check_native()
            self._prepare(model, vllm_config)
        return super().create_lora_manager(model, vllm_config)

    def _check_native(self) -> None:
        """Refuse what the native way lacks, before anything is made.

        Raises:
            RequestError: so it is.
        """
        refused = {
            "--fully-sharded-loras": self.lora_config.fully_sharded_loras,
            "VLLM_LORA_ENABLE_DUAL_STREAM": envs.VLLM_LORA_ENABLE_DUAL_STREAM,
            "--enable-tower-connector-lora": self.lora_config.enable_tower_connector_lora,
        }
        for name, is_set in refused.items():
            if is_set:
                raise RequestError(
                    f"{name} does not go together with native TinyLoRA adapters, which share one A "
                    "and one B. Leave it out, or set native to false."
                )

    def _prepare(self, model: Any, vllm_config: Any) -> None:
        """Make the factors that adapters will need, and a manager that has room for them."""
        known = [text.decode(line) for line in Names(self.settings.adapters).texts().values()]
        frames = {frame_of(contents.config) for contents in known}
        needed = sum(frame[0] for frame in frames) or DEFAULT_CORE_RANK
        core_rank = max(needed, self.settings.core_rank or 0)
        if self.lora_config.target_modules is None:
            targets = {t for c in known for t in c.config.targets}
            targets |= set(self.base.default_targets())
            self.lora_config.target_modules = sorted({t.rpartition(".")[2] for t in targets})
        with suppress(RequestError):  # adapters that come may have settings that fit
            self.base.prepare(DEFAULT_CORE_RANK)
        stages = vllm_config.parallel_config.pipeline_parallel_size

        def manager(**arguments: Any) -> CoreManager:
            return CoreManager(core_rank=core_rank, num_stages=stages, **arguments)

        self._manager_cls = manager

    def _load_adapter(self, lora_request: Any) -> Any:
        try:
            contents = contents_of(lora_request.lora_path)
            if contents is None:
                return self._ordinary(lora_request)
            return self._ours(lora_request, contents)
        except RequestError as error:
            raise RequestError(SENTENCE.format(error)) from None

    def _ordinary(self, lora_request: Any) -> Any:
        if self.settings.native:
            raise RequestError(
                f"{lora_request.lora_path} is not a TinyLoRA adapter, and this server shares one A "
                "and one B among all adapters (native). Serve ordinary LoRAs from a server "
                "without it."
            )
        return super()._load_adapter(lora_request)

    def _ours(self, lora_request: Any, contents: AdapterFile) -> Any:
        name, manager = short(lora_request), self._adapter_manager
        if self.settings.native:
            manager.check(contents, name)
        plan = self.base.plan(contents, name)
        if self.settings.native:
            manager.enter(plan)
            path = lora_request.lora_path
            return CoreAdapter(lora_request.lora_int_id, path, plan, contents.v)
        if plan.rank > self.lora_config.max_lora_rank:
            raise RequestError(
                f"{name} has rank {plan.rank}, but this server's slots hold "
                f"{self.lora_config.max_lora_rank}. Start it with a larger --max-lora-rank."
            )
        return LoRAModel(lora_request.lora_int_id, plan.rank, self._weights(plan, contents.v))

    def _weights(self, plan: Plan, v: Tensor) -> dict[str, Any]:
        """The adapter as vLLM keeps a LoRA, by vLLM's names of the layers."""
        mapper = getattr(self._adapter_manager.model, "hf_to_vllm_mapper", None)
        rename = None if mapper is None else mapper.get_rename_mapper()
        dtype = self.lora_config.lora_dtype
        made = {}
        for name, (A, B) in as_lora(plan, v).items():
            place = renamed(name, rename)
            made[place] = LoRALayerWeights(place, plan.rank, plan.rank, A.to(dtype), B.to(dtype))
        return made

    def _apply_adapters(self, lora_requests: set[Any]) -> None:
        """Have the adapters of a batch in slots; called for every batch."""
        if not self.settings.native:
            super()._apply_adapters(lora_requests)
            return
        touch = self._adapter_manager.touch
        for request in lora_requests:
            if request and not touch(request.lora_int_id, request.lora_path):
                self.add_adapter(request)

    def add_adapter(self, lora_request: Any) -> bool:
        """As vLLM's, in a time that does not depend on how many are loaded."""
        if not self.settings.native:
            return bool(super().add_adapter(lora_request))
        manager = self._adapter_manager
        held = manager.get_adapter(lora_request.lora_int_id)
        if held is not None and held.path not in (lora_request.lora_path, ""):
            raise RequestError(
                SENTENCE.format(
                    f"The id {lora_request.lora_int_id} belongs to another adapter already."
                )
            )
        with gpu_sync_allowed():
            if held is None or lora_request.load_inplace:
                adapter = self._load_adapter(lora_request)
                lora_request.load_inplace = False  # else it would be loaded anew at every step
                manager.remove_adapter(adapter.id)
                if len(manager) + 1 > manager.capacity:
                    manager.remove_oldest_adapter()
                manager.add_adapter(adapter)
            manager.activate_adapter(lora_request.lora_int_id)
        return True

    def add_dummy_lora(self, lora_request: Any, rank: int) -> bool:
        if not self.settings.native:
            return bool(super().add_dummy_lora(lora_request, rank))
        adapter = CoreAdapter(lora_request.lora_int_id, "", None, torch.zeros(0))
        return bool(self._adapter_manager.add_adapter(adapter))


def contents_of(path: str) -> AdapterFile | None:
    """The adapter that a request names by its text or its file; None: an ordinary LoRA.

    Raises:
        RequestError: it is damaged.
    """
    if text.is_text(path):
        return files.read(path)
    is_file = path.endswith(".safetensors") and os.path.isfile(path)
    is_run = os.path.isfile(os.path.join(path, files.FILE_NAME)) and not os.path.isfile(
        os.path.join(path, files.PEFT_SETTINGS)
    )
    return files.read(path) if is_file or is_run else None


def short(lora_request: Any) -> str:
    """What sentences call the adapter of a request."""
    name = str(lora_request.lora_name)
    return name if len(name) <= 60 else f"{name[:40]}...{name[-12:]}"


def renamed(name: str, mapper: Any) -> str:
    """vLLM's name of a layer."""
    if mapper is None:
        return name
    found: str = mapper._map_name(f"{name}.weight")
    return found.removesuffix(".weight")
