"""How a task is read, asked and graded: a class for each group of settings.

A kind of task names the group that it reads (`tinylora.tasks.KINDS`); `TaskConfig` has all of them,
flat. What a group does not have, a task of that kind does not read.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tinylora.settings.base import CommaList, OrNone, Settings

TASK_HELP = "pocket, tables, chains, gsm8k, math, rg:NAME, ..., data.jsonl, or my_task.py:make"
TestSource = Literal["public", "private", "generated"]


class DataSettings(Settings):
    """Where a task's rows are."""

    data: Annotated[str | None, OrNone] = Field(
        default=None, description="a local file or folder with the task's rows (none: the hub)"
    )


class RewardSettings(Settings):
    """Which mathematical answers count."""

    reward_format: Literal["strict", "lenient"] = Field(
        default="strict",
        description="which answers count: in the format that the prompt asked for, or in any "
        "recognised form (both are always reported)",
    )


class FormatSettings(RewardSettings):
    """How a mathematical question is asked and answered."""

    prompt_template: Annotated[
        Literal["hash", "calculation", "boxed", "simplerl"] | None, OrNone
    ] = Field(
        default=None,
        description="how a mathematical question is put: answer after #### (hash; "
        "calculation for short ones), in a box, or as SimpleRL does (none: the task's)",
    )


class QuestionSettings(DataSettings, FormatSettings):
    """What every mathematical benchmark reads."""


class LevelSettings(Settings):
    """How hard the problems are."""

    level: Annotated[str | None, OrNone] = Field(
        default=None,
        description="how hard the problems of task chains and the training problems of task math "
        "are: 1 to 5, a range such as 3-5, hardest, or simplerl (only math; none: all)",
    )

    @model_validator(mode="after")
    def _level_is_one(self) -> Self:
        band = re.fullmatch(r"([1-5])(?:-([1-5]))?", self.level or "1")
        if self.level in ("hardest", "simplerl") or (band and band[1] <= (band[2] or band[1])):
            return self
        raise ValueError(
            f'level = "{self.level}" names no problems. Use 1 to 5, a range such as 3-5, hardest '
            "(5), or simplerl (SimpleRL's own set)."
        )


class ChainSettings(FormatSettings, LevelSettings):
    """What task chains reads."""


class MathematicsSettings(QuestionSettings, LevelSettings):
    """What task math reads."""


class ProgramSettings(DataSettings):
    """What a collection of competition problems reads."""

    sources: Annotated[tuple[str, ...], CommaList] = Field(
        default=(),
        description="which parts of a collection of programs: CODEFORCES,ATCODER,... or taco,... "
        "(none: all)",
    )
    test_sources: Annotated[tuple[TestSource, ...], CommaList] = Field(
        default=("public", "private", "generated"),
        min_length=1,
        description="which tests judge a program: public (in the statement), private, generated",
    )
    max_tests: int = Field(
        default=20, ge=1, description="maximum number of tests that judge a program"
    )
    max_eval_tests: Annotated[int | None, OrNone] = Field(
        default=None,
        ge=1,
        description="maximum number of tests that judge a program in evaluation (none: max_tests)",
    )
    min_tests: int = Field(
        default=1, ge=1, description="leave out problems with fewer tests (after the caps)"
    )
    max_test_bytes: int = Field(
        default=100_000, ge=1, description="maximum size of a problem's tests, in bytes"
    )
    tests_seed: int = Field(
        default=0,
        ge=0,
        description="seed for choosing which tests to keep when there are more than max_tests",
    )
    scheme: Literal["binary", "graded"] = Field(
        default="graded",
        description="reward of a program: all tests or nothing; or 0.5 for compiling and 0.5 k/n "
        "for k of n tests",
    )
    factors: Annotated[tuple[str, ...], CommaList] = Field(
        default=(),
        description="factors of a program's reward by source, difficulty or both, such as "
        "EASY=0.5,CODEFORCES:B=1.1; of several that apply, their product (none: 1)",
    )
    output_compare: Literal["auto", "tokens", "exact", "float"] = Field(
        default="auto",
        description="how a program's output is compared with the expected one; auto: word by word, "
        "decimal numbers within the tolerance that the statement names, letters in any case where "
        "it says so",
    )
    unsafe_no_sandbox: bool = Field(
        default=False, description="run programs without the sandbox (unsafe, and warned about)"
    )

    @field_validator("factors")
    @classmethod
    def _factors_are_some(cls, factors: tuple[str, ...]) -> tuple[str, ...]:
        for factor in factors:
            found = re.fullmatch(r"\w+(?::\w+)?=(\d+(?:\.\d*)?|\.\d+)", factor)
            if not found or float(found[1]) == 0:
                raise ValueError(
                    f'factors = "{factor}", but a factor is NAME=NUMBER or '
                    "SOURCE:DIFFICULTY=NUMBER, the number above 0, as in EASY=0.5."
                )
        return factors


class ContestSettings(ProgramSettings):
    """What task code_contests reads."""

    difficulties: Annotated[tuple[str, ...], CommaList] = Field(
        default=(), description="which problems of CodeContests: A,B,EASY,... (none: all)"
    )


class RowSettings(RewardSettings):
    """What rows of one's own read."""

    answer_format: Literal["exact", "any", "boxed", "hash"] = Field(
        default="exact",
        description="how rows of your own (data.jsonl) are graded: the completion is the answer, "
        "or mathematics in any form, in a box, after ####",
    )


class ChatSettings(Settings):
    """How the model is asked, whatever the task."""

    chat_template: Literal["auto", "off"] = Field(
        default="auto",
        description="ask through the tokenizer's chat template where it has one (auto), or as "
        "plain text (off: base models)",
    )
    enable_thinking: Annotated[bool | None, OrNone] = Field(
        default=None,
        description="what the chat template is told, for models that can think first, such as "
        "Qwen3 (none: nothing, the template decides)",
    )
    long_prompts: Literal["leave-out", "refuse"] = Field(
        default="leave-out",
        description="problems whose prompt and completion budget pass the model's context: leave "
        "them out and say how many, or refuse the task",
    )


class ChatAndRows(ChatSettings, RowSettings):
    """One group of options."""


class TaskConfig(ChatAndRows, ContestSettings, MathematicsSettings):
    """How a task is read, asked and graded; a `TrainConfig` has these settings too, flat."""


TASK_FIELDS = TaskConfig.model_fields
CHAT_FIELDS = tuple(ChatSettings.model_fields)  # of them, those that belong to the model
TASK_GROUPS: dict[str, type[Settings]] = {  # for help; what two groups have, the first one shows
    "task: mathematics": MathematicsSettings,
    "task: programs": ContestSettings,
    "task: chat and rows": ChatAndRows,
}
