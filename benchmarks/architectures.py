"""What works on which architecture: the page docs/models.md, printed.

    python benchmarks/architectures.py > docs/models.md          # all of them, some five minutes
    python benchmarks/architectures.py llama gemma2              # these rows

Each is a tiny random model of Transformers' own class, saved to a folder and put through the
commands: `--dry-run`, `inspect`, two steps of GRPO, the rollouts' log-probabilities against those
of a plain forward pass, the adapter's file on a second copy, the exports. The same probe is a test:
`make test-models`.
"""

import contextlib
import io
import os
import sys
import tempfile
import warnings
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
HEAD = """# Models

What works on which architecture. Printed by `python benchmarks/architectures.py` (transformers
{transformers}, torch {torch}, CPU), which puts a tiny random model of each through the commands.
`make test-models` is the same as a test.

- **share**: how much of the weights in the model's blocks the default targets adapt. Fused experts
  are not linear layers, so no adapter acts on them; `inspect`, `--dry-run` and the start of a run
  say the share and what the rest is.
- **rollout**: log-probabilities of sampled tokens against a plain forward pass, prompts of several
  lengths (at most {close:g} apart). **training**: two steps of GRPO, in which trainer and engine
  are compared. **file**: the adapter's file on another copy of the model.
- **PEFT LoRA**, **merged**: what is exported answers as the adapter does, in logits. **GGUF**:
  written for llama.cpp in its layout; `-`: llama.cpp's converter does not know the architecture,
  keeps its layers in another form, or was not compared with ours.

Scaled or capped logits (Gemma 2 and 3n, Cohere, Granite, MiniCPM3, nanochat, Falcon-H1) go through
the model's own function of its last hidden state. Hybrid and recurrent models sample with their own
cache, prompts of one length at a time, and train with one completion in a row. Of models of several
modalities the language part is adapted. Models with an attention of their own (ALiBi, GPT-Neo) get
masks of tokens only.
"""


def main(names: list[str]) -> None:
    """Print the page, or the rows of some architectures."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # before it is read
    sys.path.insert(0, str(TESTS))
    import torch
    import transformers
    from transformers.utils import logging

    from helpers.architectures import COLUMNS, probe
    from helpers.decoders import ALL

    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    if not names:
        versions = {"transformers": transformers.__version__, "torch": torch.__version__}
        print(HEAD.format(**versions, close=2e-3))
    print(f"| architecture | {' | '.join(COLUMNS)} |")
    print(f"|---|{'---|' * len(COLUMNS)}")
    notes = []
    for name in names or ALL:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            cells = probe(name, Path(folder)).cells
        shown = []
        for column in COLUMNS:
            cell = cells.get(column, "-")
            if cell not in ("ok", "-") and column != "share":
                notes.append(f"- {name}, {column}: {cell.partition(': ')[2] or cell}")
                cell = "refused" if column != "GGUF" else "-"
            shown.append(cell)
        print(f"| {name} | {' | '.join(shown)} |", flush=True)
    reasons = [note for note in notes if ", GGUF: " not in note]
    print("\nWhat is refused:\n" * bool(reasons), *reasons, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
