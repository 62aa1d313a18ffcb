"""An adapter in other people's formats: each a folder that is whole or not there; and the hub."""

from tinylora.adapter.lora_writer import LoraWriter
from tinylora.export.gguf import to_gguf
from tinylora.export.lora import to_lora
from tinylora.export.merged import to_merged
from tinylora.export.peft_tinylora import from_peft_tinylora, to_peft_tinylora
from tinylora.export.publish import publish, write_repository
from tinylora.export.sliders import to_sliders

__all__ = [
    "LoraWriter",
    "from_peft_tinylora",
    "publish",
    "to_gguf",
    "to_lora",
    "to_merged",
    "to_peft_tinylora",
    "to_sliders",
    "write_repository",
]
