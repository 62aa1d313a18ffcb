"""`tinylora check-rewards --one`: every stage of one problem, in words."""

import pytest

from tinylora import RequestError
from tinylora.cli import check_rewards


def test_one_problem_goes_through_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    check_rewards.run(["pocket", "--one", "--index", "2"])
    stages = [line[4:] for line in capsys.readouterr().out.splitlines() if line[:4] == "--- "]
    assert [stage.partition(" (")[0] for stage in stages] == [
        "problem",
        "gold answer",
        "the model reads",
        "the model answers",
        "answer found in it",
        "verdict",
        "verdict on the reference answer",
    ]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--index", "3"], "index = 3 without --one, which asks no model"),
        (["--dtype", "bf16"], "dtype = bf16 without --one"),
        (["--one", "--index", "4096"], "--index 4096, but task pocket has 4096 problems"),
    ],
)
def test_what_cannot_be_shown_is_refused(flags: list[str], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        check_rewards.run(["pocket", *flags])
