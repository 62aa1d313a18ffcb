"""How adapters are served in vLLM: what the plugin reads, and what `tinylora serve` passes to it.

vLLM carries the settings to all its processes as `--additional-config '{"tinylora": {...}}'`.
Without them the plugin serves texts in vLLM's own LoRA slots.
"""

from typing import Annotated

from pydantic import Field

from tinylora.settings.base import OrNone, Settings

DEFAULT_CORE_RANK = 2  # where nothing says what will be served
MAX_CORE_RANK = 64
ON_SERVER = "tinylora"  # the key in vLLM's additional_config


class ServedAdapters(Settings):
    """Which adapters a server takes, and from whom."""

    adapters: Annotated[str | None, OrNone] = Field(
        default=None,
        title="PATH",
        description="adapters by name: a table (names.tsv: name, tab, text), or a folder of "
        "adapter files and run folders (none: adapters only come as texts)",
    )
    texts: bool = Field(
        default=True,
        description="serve any adapter of this base that a request brings as text (false: only "
        "those of --adapters, by name or by their text)",
    )
    text_limit: int = Field(
        default=16384, ge=64, description="longest text that a request may bring, in characters"
    )
    remembered: int = Field(
        default=16384,
        ge=1,
        description="how many adapters the API server remembers; the one that was not asked for "
        "longest is forgotten first",
    )


class PluginSettings(ServedAdapters):
    """What the plugin in vLLM reads."""

    native: bool = Field(
        default=False,
        description="A and B once for all adapters, and a core R for each: thousands of slots, "
        "without ordinary LoRAs (false: vLLM's own LoRA slots, beside ordinary LoRAs)",
    )
    core_rank: Annotated[int | None, OrNone] = Field(
        default=None,
        ge=1,
        le=MAX_CORE_RANK,
        description="sum of the ranks of the bases of directions that adapters use (none: what "
        "the adapters of the table need, and 2 without one)",
    )
