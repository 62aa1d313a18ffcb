"""One problem through every stage of a step: prompt, template, answer, extraction, verdict.

What a run does thousands of times in silence, once and in words: where a stage is wrong (a template
without the question, a budget that cuts answers off, an answer that is not found, a right answer
that the grader refuses) this shows which.
"""

from collections.abc import Iterator

from tinylora.models import Base
from tinylora.policy import UntrainedPolicy
from tinylora.prompts import text_of
from tinylora.rewards.verdict import Verdict
from tinylora.rollout.engine import Completion, Sampling
from tinylora.rollout.transformers import TransformersEngine
from tinylora.settings import TaskConfig
from tinylora.tasks.graders import grade_groups
from tinylora.tasks.task import Problem, Task, grader_of


def stages(
    base: Base, task: Task, problem: Problem, settings: TaskConfig
) -> Iterator[tuple[str, str]]:
    """The name of each stage and what came out of it, as it happens.

    The model answers greedily, with the task's budget.
    """
    text = text_of(base, settings)
    prompt = text.encode(problem)
    yield "problem", problem.prompt
    yield "gold answer", problem.gold
    yield f"the model reads ({len(prompt)} tokens)", base.tokenizer.decode(prompt)
    sampling = Sampling(0.0, task.max_new_tokens, text.eos_token_ids)
    engine = TransformersEngine(UntrainedPolicy(base.model))
    completion = engine.generate([prompt], 1, sampling, seed=0)[0][0]
    answer = text.decode(completion.token_ids)
    yield f"the model answers ({_length(completion, sampling)})", answer
    if task.answer_of is not None:
        yield "answer found in it", task.answer_of(answer) or "none"
    yield "verdict", _described(_grade(task, problem, answer))
    right = task.right_answer(problem) if task.right_answer else problem.solution
    if right is not None:
        yield "verdict on the reference answer", _described(_grade(task, problem, right))


def _grade(task: Task, problem: Problem, answer: str) -> Verdict:
    return grade_groups(grader_of(task), [problem], [[answer]])[0][0]


def _length(completion: Completion, sampling: Sampling) -> str:
    count = f"{len(completion.token_ids)} of at most {sampling.max_new_tokens} tokens"
    return f"{count}, cut off" if completion.truncated else count


def _described(verdict: Verdict) -> str:
    score = "not judged" if verdict.score is None else f"score {verdict.score:g}"
    details = [f"{name}: {value}" for name, value in verdict.details.items() if value != ""]
    return "; ".join([score, verdict.reason or "no reason given", *details])
