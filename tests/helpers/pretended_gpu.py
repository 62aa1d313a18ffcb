"""A device `gpu:0` on a machine without one: tensors that claim to be there and compute on the CPU.

It refuses what a GPU refuses, an operation on tensors of two devices (0-dim CPU tensors and CPU
indices may), and counts what makes the host wait for a GPU: reading a value, copying to the host,
sizes that depend on data. Importing this module gives torch's private backend a name, for the whole
process: use it in a process of its own.
"""

from collections import Counter
from typing import Any, ClassVar

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("gpu")
torch._C._set_only_lift_cpu_tensors(True)

PLACE = torch.device("gpu", 0)
INDEXING = {
    *("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"),
    *("aten::_unsafe_index", "aten::_unsafe_index_put"),
}
READS = {"aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal"}
DATA_SIZED = {
    *("aten::nonzero", "aten::masked_select", "aten::unique_dim", "aten::_unique2"),
    *("aten::unique_consecutive", "aten::repeat_interleave"),
}


class OnGpu(Tensor):
    """A tensor that claims to be on the device; `held` is what it computes with."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "OnGpu":
        shown: Any = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=PLACE,
        )
        shown.held = held
        return shown

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return PretendedGpu.active[-1].handle(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"OnGpu({self.held!r})"

    def tolist(self) -> Any:
        PretendedGpu.active[-1].waits["tolist"] += 1
        return self.held.tolist()

    def numpy(self) -> Any:
        raise TypeError("A tensor on gpu:0 cannot become a NumPy array. Use Tensor.cpu() first.")


class PretendedGpu(TorchDispatchMode):
    """Inside, `gpu:0` is there; `kernels` and `waits` (by kind) count what ran on it."""

    active: ClassVar[list["PretendedGpu"]] = []

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0
        self.waits: Counter[str] = Counter()

    def __enter__(self) -> "PretendedGpu":
        self.active.append(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.active.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.handle(func, args, kwargs or {})

    def handle(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run an operation as the device would, or refuse it."""
        name = func._schema.name
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        is_on_gpu = any(isinstance(x, OnGpu) for x in tensors)
        if name == "aten::_to_copy":
            return self._copied(args[0], kwargs)
        if name == "aten::copy_":
            self._note_copy(args[1], isinstance(args[0], OnGpu))
            _held(args[0]).copy_(_held(args[1]))
            return args[0]
        if is_on_gpu:
            self.kernels += not _is_view(func)
            self._refuse_mixing(name, args, tensors)
            if name in READS or name in DATA_SIZED or _has_boolean_index(name, args):
                self.waits[name] += 1
        is_made_there = _is_gpu(kwargs.get("device"))
        if is_made_there:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        out = func(*pytree.tree_map(_held, args), **pytree.tree_map(_held, kwargs))
        if not is_on_gpu and not is_made_there:
            return out
        shown = pytree.tree_map(lambda x: OnGpu(x) if isinstance(x, Tensor) else x, out)
        return return_and_correct_aliasing(func, args, kwargs, shown) if is_on_gpu else shown

    def _copied(self, source: Tensor, kwargs: dict[str, Any]) -> Tensor:
        device = kwargs.get("device")
        goes_there = isinstance(source, OnGpu) if device is None else _is_gpu(device)
        self._note_copy(source, goes_there)
        rest = {
            name: value
            for name, value in kwargs.items()
            if name not in ("device", "non_blocking", "pin_memory")
        }
        copy = torch.ops.aten._to_copy.default(_held(source), **rest)
        return OnGpu(copy) if goes_there else copy

    def _note_copy(self, source: Any, goes_there: bool) -> None:
        if isinstance(source, OnGpu) and not goes_there:
            self.waits["copy to the host"] += 1

    def _refuse_mixing(self, name: str, args: Any, tensors: list[Tensor]) -> None:
        is_indexing = name in INDEXING
        for tensor in tensors:
            is_elsewhere = not isinstance(tensor, OnGpu) and tensor.device.type != "meta"
            is_index = is_indexing and tensor is not args[0]
            if is_elsewhere and tensor.dim() > 0 and not is_index:
                raise RuntimeError(
                    f"{name}: expected all tensors on the same device, but found gpu:0 and "
                    f"{tensor.device}"
                )


def _is_view(func: Any) -> bool:
    """Another shape of the same memory, for which nothing runs."""
    aliases = [result.alias_info for result in func._schema.returns]
    is_alias = any(alias is not None and not alias.is_write for alias in aliases)
    return is_alias or func._schema.name == "aten::_unsafe_view"


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "gpu"


def _has_boolean_index(name: str, args: Any) -> bool:
    return name in INDEXING and any(
        isinstance(index, OnGpu) and index.dtype == torch.bool for index in args[1]
    )
