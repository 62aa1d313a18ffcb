"""An adapter in other people's formats: each a folder that is whole or not there."""

from tinylora.export.lora import LoraWriter, to_lora

__all__ = ["LoraWriter", "to_lora"]
