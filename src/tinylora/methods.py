"""The methods that TinyLoRA is compared with, behind the same seam: one loop, one set of metrics.

    tinylora    u numbers for each group of modules                    num_groups * u
    lora-xs     the same layer with identity P and u = r^2 (2405.17604)  num_groups * r^2
    lora        PEFT's LoRA, alpha = r (2106.09685)                    sum of r (d_in + d_out)
    vera        PEFT's VeRA (2310.11454)                               sum of r + d_out
    bias-only   a vector added to each layer's output (2505.18706)       sum of d_out
    full        the layers' weights themselves                         sum of d_in d_out

All act on the linear layers that `targets` and `layers` name, so counts are those of the paper's
table 1. What is trained is fp32; `full` therefore needs fp32 weights.

Departures: (1) `full` leaves embeddings, head and norms alone, as table 1 counts it; (2) a
`bias-only` vector is beside the layer's own bias, where it has one.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from tinylora.adapter import attach, load
from tinylora.adapter.files import DTYPES, FILE_NAME, Store
from tinylora.adapter.modules import LinearMap, clean_name, linear_maps
from tinylora.adapter.sharing import groups_of
from tinylora.atomic import write_atomically
from tinylora.errors import RequestError
from tinylora.policy import Policy, TinyLoraPolicy, no_lora
from tinylora.settings import AdapterConfig

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True)
class Method:
    """How a method comes onto a model, and what it trains there."""

    attach: Callable[[Any, AdapterConfig], Policy]
    load: Callable[[Any, Path, AdapterConfig], Policy]
    count: Callable[[Sequence[LinearMap], AdapterConfig], int]


class _Weights:
    """What `bias-only` and `full` share: named fp32 tensors, kept in one safetensors file."""

    adapter: None = None

    def __init__(self, model: Any, config: AdapterConfig) -> None:
        self.model = model
        self.maps = linear_maps(model, config.targets, config.layers)
        self._frozen = [p for p in model.parameters() if p.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        self.trained: dict[str, nn.Parameter] = {}

    def parameters(self) -> list[nn.Parameter]:
        return list(self.trained.values())

    @property
    def num_trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.trained.values())

    def state_dict(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, parameter in self.trained.items():
            parameter.copy_(state[name])

    def write_lora(self, folder: Path) -> None:
        raise no_lora(self)

    def save(self, folder: Path, store: Store) -> int:
        return _write(folder / FILE_NAME, self.state_dict(), store)

    def reference(self) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def rollout(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def metrics(self) -> dict[str, float]:
        raise NotImplementedError

    def detach(self) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)


class BiasPolicy(_Weights):
    """One trained vector for each linear layer, added to its output by a hook."""

    def __init__(self, model: Any, config: AdapterConfig) -> None:
        super().__init__(model, config)
        self.is_on = True
        self._handles = []
        for linear in self.maps:
            zeros = torch.zeros(linear.d_out, device=next(linear.module.parameters()).device)
            self.trained[linear.name] = bias = nn.Parameter(zeros)
            hook = linear.module.register_forward_hook(self._adding(bias))
            self._handles.append(hook)

    def _adding(self, bias: nn.Parameter) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            return output + bias.to(output.dtype) if self.is_on else output

        return add

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True

    def metrics(self) -> dict[str, float]:
        return _norm(self.parameters())

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        super().detach()


class FullPolicy(_Weights):
    """The weights of the linear layers are trained in place; a copy of them is the reference "
    "policy."""

    def __init__(self, model: Any, config: AdapterConfig) -> None:
        super().__init__(model, config)
        for linear in self.maps:
            weight: Any = linear.module.weight
            if not linear.is_plain or weight.dtype != torch.float32:
                for parameter in self._frozen:
                    parameter.requires_grad_(True)
                raise RequestError(
                    f"method = full, but {linear.name} is "
                    f"{getattr(weight, 'dtype', 'not a matrix')}: steps as small as RL's would be "
                    "rounded away. Use --dtype fp32 without --quantize, or a method that trains "
                    "parameters of its own."
                )
            weight.requires_grad_(True)
            self.trained[linear.name] = cast(nn.Parameter, weight)
        self._before = self.state_dict()

    @contextmanager
    def reference(self) -> Iterator[None]:
        now = self.state_dict()
        self.load_state_dict(self._before)
        try:
            yield
        finally:
            self.load_state_dict(now)

    def metrics(self) -> dict[str, float]:
        return _norm([p.detach() - self._before[name] for name, p in self.trained.items()])

    def detach(self) -> None:
        self.load_state_dict(self._before)
        for parameter in self.trained.values():
            parameter.requires_grad_(False)
        super().detach()


class PeftPolicy:
    """An adapter of PEFT's, trained in fp32; its files are what `PeftModel.from_pretrained` reads.

    Rollouts run folded where the weights are plain fp32, as TinyLoRA's do.
    """

    adapter: None = None

    def __init__(self, model: Any, settings: Any, seed: int) -> None:
        from peft import get_peft_model
        from peft.tuners.tuners_utils import BaseTunerLayer

        self.model = model
        self._frozen = [p for p in model.parameters() if p.requires_grad]
        with torch.random.fork_rng(), warnings.catch_warnings():
            # PEFT asks transformers 5 for a property by its deprecated name.
            warnings.filterwarnings("ignore", message=".*gradient_checkpointing")
            torch.manual_seed(seed)
            self.peft: Any = get_peft_model(model, settings)
        self.settings = settings
        self.layers: list[Any] = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]

    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def num_trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    @contextmanager
    def reference(self) -> Iterator[None]:
        with self.peft.disable_adapter():
            yield

    @contextmanager
    def rollout(self) -> Iterator[None]:
        weights = [layer.get_base_layer().weight for layer in self.layers]
        if any(type(w) is not nn.Parameter or w.dtype != torch.float32 for w in weights):
            yield
            return
        saved = [weight.detach().clone() for weight in weights]
        with torch.no_grad(), self.peft.disable_adapter():
            try:
                for layer, weight in zip(self.layers, weights, strict=True):
                    weight += layer.get_delta_weight("default")
                yield
            finally:
                for weight, before in zip(weights, saved, strict=True):
                    weight.copy_(before)

    def state_dict(self) -> dict[str, Tensor]:
        named = self.model.named_parameters()
        return {name: p.detach().clone() for name, p in named if p.requires_grad}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state[name])

    def metrics(self) -> dict[str, float]:
        return _norm(self.parameters())

    def save(self, folder: Path, store: Store) -> int:
        from peft import get_peft_model_state_dict

        settings = self.settings.to_dict() | {"inference_mode": True}
        text = json.dumps(settings, indent=2, default=lambda kind: sorted(kind), sort_keys=True)
        write_atomically(folder / PEFT_CONFIG, text.encode())
        num_bytes = _write(folder / PEFT_WEIGHTS, get_peft_model_state_dict(self.peft), store)
        return num_bytes + len(text.encode())

    def write_lora(self, folder: Path) -> None:
        """Write the current parameters into a new folder, for engines that serve LoRA."""
        folder.mkdir()
        self.save(folder, "fp32")

    def load(self, folder: Path) -> "PeftPolicy":
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.peft, _read(folder / PEFT_WEIGHTS))
        return self

    def detach(self) -> None:
        self.peft.unload()
        for parameter in self._frozen:
            parameter.requires_grad_(True)


def _lora(model: Any, config: AdapterConfig) -> PeftPolicy:
    from peft import LoraConfig

    rank = config.rank
    names = _names(model, config)
    return PeftPolicy(model, LoraConfig(r=rank, lora_alpha=rank, target_modules=names), config.seed)


def _vera(model: Any, config: AdapterConfig) -> PeftPolicy:
    from peft import VeraConfig

    settings = VeraConfig(
        r=config.rank,
        target_modules=_names(model, config),
        projection_prng_key=config.seed,
    )
    return PeftPolicy(model, settings, config.seed)


def _names(model: Any, config: AdapterConfig) -> list[str]:
    maps = linear_maps(model, config.targets, config.layers)
    by_module = {id(module): name for name, module in model.named_modules()}
    return [by_module[id(linear.module)] for linear in maps]


def _tinylora(model: Any, config: AdapterConfig) -> TinyLoraPolicy:
    return TinyLoraPolicy(attach(model, config))


def _load_tinylora(model: Any, folder: Path, config: AdapterConfig) -> TinyLoraPolicy:
    return TinyLoraPolicy(load(model, folder / FILE_NAME))


def _load_weights(kind: type[BiasPolicy] | type[FullPolicy]) -> Callable[..., Policy]:
    def load_it(model: Any, folder: Path, config: AdapterConfig) -> Policy:
        state = _read(folder / FILE_NAME)
        policy = kind(model, config)
        policy.load_state_dict({clean_name(name): value for name, value in state.items()})
        return policy

    return load_it


def _num_grouped(maps: Sequence[LinearMap], config: AdapterConfig) -> int:
    names = [linear.name for linear in maps]
    return config.u * len(groups_of(names, config))


METHODS = {
    "tinylora": Method(_tinylora, _load_tinylora, _num_grouped),
    "lora-xs": Method(_tinylora, _load_tinylora, _num_grouped),
    "lora": Method(
        _lora,
        lambda model, folder, config: _lora(model, config).load(folder),
        lambda maps, config: sum(config.rank * (m.d_in + m.d_out) for m in maps),
    ),
    "vera": Method(
        _vera,
        lambda model, folder, config: _vera(model, config).load(folder),
        lambda maps, config: sum(config.rank + m.d_out for m in maps),
    ),
    "bias-only": Method(
        BiasPolicy, _load_weights(BiasPolicy), lambda maps, config: sum(m.d_out for m in maps)
    ),
    "full": Method(
        FullPolicy,
        _load_weights(FullPolicy),
        lambda maps, config: sum(m.d_in * m.d_out for m in maps),
    ),
}


def _write(path: Path, tensors: dict[str, Tensor], store: Store) -> int:
    stored = {name: t.detach().cpu().to(DTYPES[store]) for name, t in tensors.items()}
    data = save({name: tensor.contiguous() for name, tensor in stored.items()})
    write_atomically(path, data)
    return len(data)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise RequestError(
            f"{path.parent} does not contain {path.name}: the run has not finished, or it trained "
            "another method. Resume it with --resume."
        )
    return load_file(path)


def _norm(tensors: Sequence[Tensor]) -> dict[str, float]:
    """The norm of everything trained, as one vector."""
    norms = torch.stack([tensor.detach().norm() for tensor in tensors])
    return {"v_norm": float(norms.norm())}
