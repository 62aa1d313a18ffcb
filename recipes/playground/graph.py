"""The embedded model with its adapter as one ONNX graph, with v among its inputs.

The graph is the model that answers everywhere else: Transformers' own modules with this project's
hooks on them, traced by `torch.export`. The hooks run `per_row`, so that every row of a batch has a
v of its own. What a space of v means stands outside: `mixing` is the matrix that takes v to all R,
so one graph serves every adapter of the same rank and layers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from transformers import DynamicCache

from tinylora.adapter import TinyLora, attach
from tinylora.settings import AdapterConfig

INPUTS = ("input_ids", "position_ids", "mask", "v", "mixing", "keys", "values")
OUTPUTS = ("logits", "new_keys", "new_values")
OPSET = 20


class Graph(nn.Module):
    """One forward pass as tensors alone.

    Args:
        adapter: one number for each place in each R (`projection = identity`).
    """

    def __init__(self, adapter: TinyLora) -> None:
        super().__init__()
        self.model: Any = adapter.model
        self.adapter = adapter

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        mask: Tensor,
        v: Tensor,
        mixing: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, T, vocabulary), and the keys and values with the new tokens'.

        Args:
            input_ids, position_ids: (B, T).
            mask: (B, 1, T, S + T), added to the scores: 0, or very negative where it is hidden.
            v: (B, n).
            mixing: (n, modules * rank^2), v to the numbers of all R.
            keys, values: of the S tokens before, (layers, B, heads, S, head size).
        """
        cache = DynamicCache(list(zip(keys.unbind(0), values.unbind(0), strict=True)))
        cores = (v @ mixing).view(-1, *self.adapter.v.shape)
        with self.adapter.per_row(cores):
            output = self.model(
                input_ids=input_ids,
                position_ids=position_ids,
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            )
        new_keys = torch.stack([layer.keys for layer in cache.layers])
        new_values = torch.stack([layer.values for layer in cache.layers])
        return output.logits, new_keys, new_values


def attach_cores(model: nn.Module, config: AdapterConfig) -> TinyLora:
    """An adapter of the same modules and rank, in which v is all R in a row."""
    free = {"u": config.rank**2, "num_groups": None, "projection": "identity", "n_tie": None}
    return attach(model, AdapterConfig(**{**config.model_dump(), **free}))


def mixing(adapter: TinyLora, modules: list[str]) -> Tensor:
    """The matrix (numbers, modules * rank^2) from an adapter's v to all R in `Graph`."""
    groups, u = adapter.v.shape
    rank = adapter.config.rank
    matrix = torch.zeros(groups, u, len(modules), rank**2)
    for place, name in enumerate(modules):
        item = adapter.maps[name]
        matrix[item.group, :, place] = item.P.flatten(1)
    return matrix.view(groups * u, -1)


def export(adapter: TinyLora, path: Path) -> int:
    """Write the graph of an adapter of `attach_cores`; returns its bytes."""
    graph, config = Graph(adapter).eval(), adapter.model.config
    some = torch.export.Dim.AUTO  # which sizes are equal, and that one is a sum, is inferred
    past = (config.num_hidden_layers, 2, config.num_key_value_heads, 5,
            config.hidden_size // config.num_attention_heads)  # fmt: skip
    example = (
        torch.zeros(2, 3, dtype=torch.long),
        torch.zeros(2, 3, dtype=torch.long),
        torch.zeros(2, 1, 3, 8),
        torch.zeros(2, 7),
        torch.zeros(7, adapter.v.numel()),
        torch.zeros(past),
        torch.zeros(past),
    )
    free = ((0, 1), (0, 1), (0, 2, 3), (0, 1), (0,), (1, 3), (1, 3))
    shapes = tuple(dict.fromkeys(dims, some) for dims in free)
    program = torch.onnx.export(
        graph,
        example,
        dynamo=True,
        dynamic_shapes=shapes,
        input_names=list(INPUTS),
        output_names=list(OUTPUTS),
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    found = in_half(without_traces(program.model_proto))
    onnx.checker.check_model(found)
    path.write_bytes(found.SerializeToString())
    return path.stat().st_size


def without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without what the exporter notes for people: a third of its bytes."""
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    return model


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same numbers in fewer bytes: fp32 weights that bf16 holds, as bf16 and a cast."""
    casts = []
    for kept in model.graph.initializer:
        if kept.data_type != TensorProto.FLOAT:
            continue
        bits = numpy_helper.to_array(kept).view(np.uint32)
        if bits.size < 64 or (bits & 0xFFFF).any():
            continue
        name, half = kept.name, f"{kept.name}_bf16"
        kept.ClearField("float_data")
        kept.name, kept.data_type = half, TensorProto.BFLOAT16
        kept.raw_data = (bits >> 16).astype("<u2").tobytes()
        casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
