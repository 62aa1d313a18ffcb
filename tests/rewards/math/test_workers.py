"""Workers that hang, hog memory, crash or never start, each by a word that the stand-in knows."""

import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tinylora.rewards.math import workers
from tinylora.rewards.math.workers import Pool

# The real program, but reading one of these powers does something else first.
STAND_IN = """
    import os, signal, sys, time
    from pathlib import Path
    from tinylora.rewards.math import symbolic

    if "broken" in sys.argv[0]:
        sys.modules["math_verify"] = None
    parse, once = symbolic._parse, Path(__file__).with_suffix(".once")

    def fall_over_once():
        if not once.exists():
            once.touch()
            os._exit(3)

    def spin():
        while True:
            pass

    ACTIONS = {
        "x^2": spin,
        "x^3": lambda: bytearray(8 << 30),
        "x^4": os.abort,
        "x^5": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "x^6": lambda: os._exit(3),
        "x^7": lambda: time.sleep(10**6),
        "x^8": lambda: 1 / 0,
        "2x-x": fall_over_once,
    }

    def strange_parse(text):
        ACTIONS.get(text, int)()
        return parse(text)

    symbolic._parse = strange_parse
    symbolic.main()
"""


@pytest.fixture
def strange(tmp_path, monkeypatch):
    """Makes a pool of stand-ins; the pool ends with the test."""
    pools = []

    def make(name="standin", **settings):
        program = tmp_path / f"{name}.py"
        program.write_text(textwrap.dedent(STAND_IN))
        monkeypatch.setattr(workers, "PROGRAM", program)
        pools.append(Pool(**{"size": 2, "cpu_s": 1.0, **settings}))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def test_an_answer_beyond_the_limits_is_wrong_and_costs_nobody_else(strange):
    answers = ["x^2", "x^3", "x^4", "x^5", "x+x-x", "x+1"]
    judged = strange().judge([("x", answer) for answer in answers])
    assert [j.equal for j in judged] == [False, False, False, False, True, False]
    assert all(j.reason.startswith("limit") for j in judged[:4])


def test_a_gold_answer_beyond_the_limits_cannot_be_judged(strange):
    spun, fine = strange().judge([("x^2", "x+1"), ("x+1", "1+x")])
    assert spun.equal is None
    assert spun.reason == "the gold answer cannot be read within the limits"
    assert fine.equal is True


def test_a_worker_that_dies_by_itself_is_tried_again(strange):
    assert strange().judge([("x", "2x-x")])[0].equal is True


def test_a_worker_that_dies_every_time_cannot_judge(strange):
    died, fine = strange().judge([("x", "x^6"), ("x+1", "1+x")])
    assert died.equal is None
    assert died.reason == "the comparison could not be run: its process ended with status 3"
    assert fine.equal is True


def test_a_failure_of_the_algebra_is_no_verdict(strange):
    judged = strange().judge([("x", "x^8")])[0]
    assert judged.equal is None
    assert judged.reason == "the comparison failed: ZeroDivisionError in the algebra"


def test_a_worker_that_neither_works_nor_answers_is_ended(strange):
    judged = strange(wall_s=0.2).judge([("x", "x^7")])[0]
    assert judged.equal is None
    assert judged.reason == (
        "the comparison could not be run: it gave no answer within 0.2 s on the clock"
    )


def test_without_math_verify_nothing_is_judged_and_the_cause_is_named(strange):
    judged = strange("broken").judge([("x", "x+x-x")])[0]
    assert judged.equal is None
    assert "math-verify cannot be imported" in judged.reason


def test_workers_start_when_needed_stay_and_are_replaced(strange):
    pool = strange(size=1)
    (worker,) = pool.workers.all
    assert worker.pid is None
    assert pool.judge([("x+1", "1+x")])[0].equal is True
    first = worker.pid
    assert pool.judge([("x+2", "2+x")])[0].equal is True
    assert worker.pid == first
    worker.kill()
    assert pool.judge([("x+3", "3+x")])[0].equal is True
    assert worker.pid != first


def test_few_questions_start_few_workers(strange):
    pool = strange(size=4)
    pool.judge([("x+1", "1+x")])
    pool.judge([("x+2", "2+x")])
    assert [worker.pid is not None for worker in pool.workers.all].count(True) == 1


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux to watch a process end")
def test_workers_end_with_a_parent_that_is_killed():
    code = """
        import os, signal
        from tinylora.rewards.math import workers
        workers.judge([("x+1", "1+x")])
        print(*[w.pid for w in workers._pool.workers.all if w.pid], flush=True)
        signal.pause()
    """
    source = str(Path(workers.__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    ) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    try:
        assert select.select([worker], [], [], 60)[0]
    finally:
        os.close(worker)
