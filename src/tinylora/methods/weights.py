"""Methods that train tensors of the model itself: `bias-only` and `full`.

What is trained is fp32; `full` therefore needs fp32 weights.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from tinylora.adapter.files import FILE_NAME, Store
from tinylora.adapter.modules import clean_name, linear_maps
from tinylora.errors import RequestError
from tinylora.methods.files import norm, read, write
from tinylora.policy import Policy, no_lora
from tinylora.settings import AdapterConfig


class Weights:
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
        return write(folder / FILE_NAME, self.state_dict(), store)

    def reference(self) -> AbstractContextManager[Any]:
        raise NotImplementedError

    def rollout(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def metrics(self) -> dict[str, float]:
        raise NotImplementedError

    def detach(self) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(True)


class BiasPolicy(Weights):
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
        return norm(self.parameters())

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        super().detach()


class FullPolicy(Weights):
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
        return norm([p.detach() - self._before[name] for name, p in self.trained.items()])

    def detach(self) -> None:
        self.load_state_dict(self._before)
        for parameter in self.trained.values():
            parameter.requires_grad_(False)
        super().detach()


def loader(kind: type[BiasPolicy] | type[FullPolicy]) -> Callable[..., Policy]:
    def load_it(model: Any, folder: Path, config: AdapterConfig) -> Policy:
        state = read(folder / FILE_NAME)
        policy = kind(model, config)
        policy.load_state_dict({clean_name(name): value for name, value in state.items()})
        return policy

    return load_it
