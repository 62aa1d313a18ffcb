"""Learning: an algorithm is a step that `loop.py` takes again and again.

`grpo.py` is the paper's loop, `losses.py` its arithmetic, `batching.py` its log-probabilities.
"""

from tinylora.algorithms.es import SearchStep
from tinylora.algorithms.grpo import GrpoStep
from tinylora.algorithms.loop import Run, Step
from tinylora.algorithms.npg import NpgStep
from tinylora.algorithms.sft import SftStep
from tinylora.settings import Algorithm, Grpo, Npg, Sft


def make_step(run: Run, settings: Algorithm) -> Step:
    """The step that these settings ask for.

    Raises:
        RequestError: the policy's model, or the policy, cannot be trained so.
    """
    if isinstance(settings, Grpo):
        return GrpoStep(run, settings)
    if isinstance(settings, Npg):
        return NpgStep(run, settings)
    if isinstance(settings, Sft):
        return SftStep(run, settings)
    return SearchStep(run, settings)
