"""The playground's answers are those of the rollouts; its letters are those of the grader."""

import pytest
import torch

from tinylora.errors import RequestError
from tinylora.play.instructions import Instruction, best
from tinylora.play.opening import Playground
from tinylora.play.steering import Question
from tinylora.rollout.engine import Sampling
from tinylora.tasks.task import Problem

EXAMPLE = Instruction(
    "an example",
    turns=(
        {"role": "user", "content": "Tom has 3 eggs. Tom buys 4 more. How many eggs now?"},
        {"role": "assistant", "content": "3+4=7\n#### 7"},
    ),
)


def trained(playground: Playground) -> torch.Tensor:
    return playground.path[16]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("instruction", [Instruction("none"), EXAMPLE])
def test_both_answers_are_those_of_the_rollout_engine(
    playground: Playground, temperature: float, instruction: Instruction
) -> None:
    """Also where the steered prompt is longer, and the other rows are padded."""
    steering, problem = playground.steering, playground.problems[1]
    v, prompted = trained(playground), instruction.before(problem)
    sampling = Sampling(temperature, steering.budget, steering.text.eos_token_ids)
    texts = {"base": "", "steered": ""}
    for pair in steering.answers(Question(problem, prompted, temperature, seed=4), v):
        for side, token in pair.items():
            texts[side] += token.text if token else ""
    for side, values, asked in (("base", 0 * v, problem), ("steered", v, prompted)):
        [[completion]] = steering.engine.generate_population(
            [steering.text.encode(asked)], values[None], sampling, seed=4
        )
        assert texts[side] == steering.text.decode(completion.token_ids)
    assert texts["base"] != texts["steered"]


def test_the_change_of_a_token_is_that_of_two_forward_passes(playground: Playground) -> None:
    steering, problem, v = playground.steering, playground.problems[0], trained(playground)
    said = list(steering.answers(Question(problem, problem), v))
    prompt, model = steering.text.encode(problem), steering.adapter.model
    for side in ("base", "steered"):
        tokens = [pair[side] for pair in said if pair[side]]
        answer = "".join(token.text for token in tokens if token)
        ids = [*steering.text.tokenize(answer), *steering.text.eos_token_ids]
        assert len(ids) == len(tokens)
        rows = torch.tensor([prompt + ids] * 2)
        with torch.no_grad(), steering.adapter.per_row(torch.stack([0 * v, v])):
            logprobs = model(rows).logits.log_softmax(-1)[:, len(prompt) - 1 : -1]
        chosen = logprobs.gather(-1, torch.tensor([ids] * 2)[..., None]).squeeze(-1)
        found = torch.tensor([[t.logprob, t.change] for t in tokens if t])
        expected = torch.stack([chosen[int(side == "steered")], chosen[1] - chosen[0]], dim=1)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_letters_are_the_graders_and_nonsense_is_broken(playground: Playground) -> None:
    steering, v, problems = playground.steering, trained(playground), playground.problems
    letters = steering.measure(torch.stack([0 * v, v, 6 * v]), problems)
    sampling = Sampling(0.0, steering.budget, steering.text.eos_token_ids)
    prompts = [steering.text.encode(problem) for problem in problems]
    for values, found in zip((0 * v, v), letters, strict=False):
        steering.adapter.set_values(values)
        rows = steering.engine.generate(prompts, 1, sampling, seed=0)
        answers = [steering.text.decode(row[0].token_ids) for row in rows]
        right = [steering.judge(*pair).is_right for pair in zip(problems, answers, strict=True)]
        assert [letter == "r" for letter in found] == right
    steering.adapter.zero()
    assert letters[1].count("r") >= 7 > 3 > letters[0].count("r")
    assert letters[0].count("b") == 0
    assert letters[2].count("b") >= 7


def test_a_v_that_makes_nan_is_broken_and_never_right(playground: Playground) -> None:
    v = torch.full_like(trained(playground), 1e30)
    assert playground.steering.measure(v[None], playground.problems[:2]) == ["bb"]


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [([0.0] * 12, "12 numbers were given, but this adapter has 13"), ([1e39] * 13, "inf or nan")],
)
def test_wrong_numbers_are_refused(
    playground: Playground, numbers: list[float], sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        playground.steering.values(numbers)


def test_a_prompt_beyond_the_context_is_refused(playground: Playground) -> None:
    problem = Problem("Tom has 3 coins. " * 100, "")
    with pytest.raises(RequestError, match="the model's context ends at 512 tokens"):
        next(playground.steering.answers(Question(problem, problem), trained(playground)))


def test_the_best_prompt_is_a_worked_example(playground: Playground) -> None:
    """The embedded model knows how to solve, and an example elicits it as v does."""
    tried = best(playground.steering, playground.train[:16])
    assert tried[0].accuracy >= 0.9
    assert len(tried[0].instruction.turns) == 2
    plain = next(one for one in tried if one.instruction.name == "no prompt")
    assert plain.accuracy <= 0.5
    assert float(playground.steering.adapter.v.detach().abs().sum()) == 0


def test_prompts_that_do_not_fit_are_left_out(
    playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = playground.train[:12]
    longest = max(len(playground.steering.text.encode(problem)) for problem in train)
    model = playground.steering.adapter.model
    room = longest + playground.steering.budget
    monkeypatch.setattr(model.config, "max_position_embeddings", room)
    names = [tried.instruction.name for tried in best(playground.steering, train)]
    assert names == ["no prompt"]
