"""On the pretended GPU: a whole run (`run FOLDER SETTING=VALUE ...`), or a token (`token`).

Prints a JSON line; a mixed device ends it with a traceback.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"  # a mode of torch belongs to one thread

import torch

import tinylora
from helpers.pretended_gpu import PretendedGpu
from tinylora.adapter import modules
from tinylora.models import load_model
from tinylora.policy import UntrainedPolicy
from tinylora.rollout.engine import Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import unflatten

# A weight of the stand-in has a type of its own, where a real one is a plain parameter.
modules.LinearMap.is_plain = property(lambda self: True)  # type: ignore[assignment]


def run(folder: str, *settings: str) -> dict[str, Any]:
    """Two steps on pocket by these settings; what ran on the device."""
    given = dict(setting.split("=", 1) for setting in settings)
    small = {"steps": 2, "prompts_per_step": 4, "eval_problems": 8, "eval_samples": 1}
    config = {"device": "gpu:0", "max_new_tokens": 12, "layers": "2-3", **small, **given}
    with PretendedGpu() as gpu:
        tinylora.train(unflatten({**config, "output": folder}))
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return {"steps": len(lines), "kernels": gpu.kernels, "waits": dict(gpu.waits)}


def token() -> dict[str, float]:
    """Kernels that the adapter adds to a linear layer and token, and waits of the host a token."""
    prompts, short, long = [[5, 6, 7], [8, 9, 4]], 6, 16

    def count(policy: Any, num_tokens: int) -> tuple[int, int]:
        engine = TransformersEngine(policy)
        with PretendedGpu() as gpu:
            engine.generate(prompts, 2, Sampling(1.0, num_tokens, ()), seed=0)
        return gpu.kernels, sum(gpu.waits.values())

    def each(policy: Any) -> tuple[float, float]:
        """Kernels and waits of one more token."""
        few, many = count(policy, short), count(policy, long)
        kernels, waits = (b - a for a, b in zip(few, many, strict=True))
        return kernels / (long - short), waits / (long - short)

    with PretendedGpu():
        model = load_model("pocket", "bf16", "gpu:0").model
    plain, waits = each(UntrainedPolicy(model))
    with PretendedGpu():
        adapter = tinylora.attach(model, tinylora.AdapterConfig(rank=1))
        adapter.set_values(torch.full_like(adapter.v, 0.1))
    adapted, _ = each(adapter)
    return {"kernels": (adapted - plain) / len(adapter.maps), "waits": waits}


what, *arguments = sys.argv[1:]
print(json.dumps({"run": run, "token": token}[what](*arguments)))
