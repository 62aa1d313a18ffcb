r"""Named templates: how a mathematical question is put to a model.

`boxed` is Qwen2.5-Math's evaluation prompt (qwen25-math-cot), `simplerl` SimpleRL's (the paper's
for MATH), `hash` asks for GSM8K's own format in verl's words, `calculation` for the same format
without an invitation to reason at length. A model without a chat template reads the same
instruction in plain text.
"""

from dataclasses import dataclass
from typing import Literal

from tinylora.tasks.task import Problem

BOX = r"Please reason step by step, and put your final answer within \boxed{}."
HASH = 'Let\'s think step by step and output the final answer after "####".'
CALCULATION = 'Show the calculation. End with "#### " and the number.'


@dataclass(frozen=True)
class Template:
    """How a question is asked.

    Args:
        answer_format: the form that the prompt asks for, as the grader calls it.
        instruction: the sentence that says so.
        system: the system turn; None: the model's own, if it has one.
        after: what follows the question in the user's turn.
    """

    answer_format: Literal["boxed", "hash"]
    instruction: str
    system: str | None = None
    after: str = ""

    def ask(self, question: str) -> Problem:
        """The question as a problem that has no gold answer yet."""
        plain = f"Question: {question}\n{self.instruction}\nAnswer:"
        return Problem(question + self.after, "", system=self.system, plain=plain)


def written(answer: str, answer_format: str) -> str:
    """An answer in the format that a prompt asked for."""
    return rf"\boxed{{{answer}}}" if answer_format == "boxed" else f"#### {answer}"


TEMPLATES = {
    "hash": Template("hash", HASH, after=f" {HASH}"),
    "calculation": Template("hash", CALCULATION, after=f" {CALCULATION}"),
    "boxed": Template("boxed", BOX, system=BOX),
    "simplerl": Template("boxed", BOX, "You are a helpful assistant.", f"\n{BOX}"),
}
