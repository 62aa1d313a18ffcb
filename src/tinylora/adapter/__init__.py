"""Attach v to a model, save it, load it: the few names that the rest of the package uses."""

from tinylora.adapter.fold import FoldReport
from tinylora.adapter.layer import TinyLora, attach
from tinylora.adapter.loading import load
from tinylora.settings import AdapterConfig

__all__ = ["AdapterConfig", "FoldReport", "TinyLora", "attach", "load"]
