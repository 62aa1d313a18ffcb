"""Learning: `grpo.py` is the paper's loop; its parts are `losses.py` (arithmetic), `batching.py`
(log-probabilities), `checkpoint.py` and `metrics.py`. `run.py` is a whole run.

`tinylora.train` is both this room and the function that trains, so the room can be called.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, config: Any = None, **options: Any) -> dict[str, Any]:
        """Train an adapter and write a run folder: `tinylora.train.run.train`, which see."""
        from tinylora.train.run import train

        return train(config, **options)


sys.modules[__name__].__class__ = _Callable
