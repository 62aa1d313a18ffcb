"""Mathematics: what counts as an answer, what counts as equal, and what can go wrong around it."""

import threading

import pytest

from tinylora.rewards.math import grade, grade_many
from tinylora.rewards.math.grading import MAX_ANSWER

EQUAL = [
    # numbers
    ("5", "5"), ("5", "5."), ("5", "5.0"), ("5", "05"), ("5", "+5"), ("5", r"\text{5}"),
    ("5", r"$5$"), ("5", r"\$5"), ("5", "$5.00"), ("1234", "1,234"), ("1234", r"1{,}234"),
    ("1234", r"1,\!234"), ("-3", "\u22123"), ("12", r"4 \times 3"), ("12", r"\frac{36}{3}"),
    ("0.5", r"\frac12"), ("0.5", "1/2"), ("0.5", ".5"), (r"\frac{1}{2}", r"\dfrac{2}{4}"),
    (r"\frac{7}{4}", "1.75"), (r"1\frac34", "7/4"), ("7/4", "1 3/4"), ("27.0", "27"),
    ("3e8", r"3 \times 10^8"), ("3e8", r"3.0\cdot10^{8}"), ("2.5e-3", "0.0025"),
    ("1.5e10", "1.5 x 10^10"), ("8", "2^3"), ("24", "4!"), ("3", r"\sqrt{9}"),
    ("-2", r"\sqrt[3]{-8}"),
    ("10", r"\binom{5}{2}"), (r"\frac{1}{3}", "0.333333"), ("2.5 million", "2,500,000"),
    # percent, units, labels
    (r"5.3\%", "5.3"), ("5.3", r"5.3\%"), ("28%", "28 percent"), ("0.6", r"60\%"),
    ("20", r"20\text{ cm}"), (r"20\text{ cm}^2", r"20\,\mathrm{cm^2}"),
    ("12 hours", "12 h"), ("9 min", r"9\text{ minutes}"),
    (r"45^\circ", "45"), ("90", "90°"), ("5", "5 apples"), ("18", "18 dollars"),
    # closed expressions
    (r"2\sqrt{3}", r"\sqrt{12}"), (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt{2}}"),
    (r"\frac{3\pi}{4}", r"0.75\pi"), ("1-i", "-i+1"), (r"\log 2", r"\ln 2"),
    # names and equations
    ("5", "x = 5"), ("x=5", "5"), ("x = 5", "x=5"), ("30", r"\angle ABC = 30^\circ"),
    ("C(h)=4h+4", "C(h)=4+4h"), ("5", r"x = \frac{10}{2} = 5"), ("11", r"x \approx 11"),
    ("17.1 ft", r"\approx 17.10"),
    # several answers
    ("1,2", "2, 1"), ("1,2", r"\{2, 1\}"), ("1, 2", r"2 \text{ and } 1"), ("3 or 4", "x=4, x=3"),
    ("(1,2)", r"\left(1, 2\right)"), (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
    ("[2,3)", "[2, 3)"), ("(-1, 0.5)", r"(-1, \frac12)"), ("100, 200", "200, 100"),
    # intervals
    (r"(-2,\infty)", r"(-2, +\infty)"), (r"[-2,7]", r"-2 \le x \le 7"),
    (r"(-\infty,3]", r"x\leq 3"),
    (r"\{x|-2\leq x<1\}", "[-2,1)"), (r"(-\infty,0)\cup(1,\infty)", "x<0 or x>1"),
    (r"\{x \mid x \neq 3\}", r"(-\infty,3)\cup(3,\infty)"),
    # words and choices
    ("C", "(C)"), (r"\text{(C)}", "C"), (r"\text{Even}", "even"),
    (r"\text{no solution}", r"\emptyset"),
    (r"\mathbb{R}", "all real numbers"),
    # matrices
    (r"\left[\begin{array}{l}1\\2\end{array}\right]", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{pmatrix}1&\frac12\\0&1\end{pmatrix}",
     r"\begin{bmatrix}1 & 0.5 \\ 0 & 1\end{bmatrix}"),
]  # fmt: skip

BY_ALGEBRA = [
    ("2n+1", "1 + 2n"), (r"\frac{n!}{k!(n-k)!}", r"\binom{n}{k}"), ("x^2+y^2=1", "1-x^2-y^2=0"),
    (r"\log(x)", r"\ln x"), (r"\sin^2 x", r"1-\cos^2 x"), (r"(x+1, 2x)", r"(1+x, x+x)"),
    (r"\{a+b, ab\}", r"\{ba, b+a\}"),
]  # fmt: skip

DIFFERENT = [
    # what math-verify takes for 5
    ("5", "6=5"), ("5", "5=6"), ("5", r"5 \approx 6"), ("5", r"5 \text{ (not 6)}"), ("5", r"500\%"),
    ("5", r"5 \ne 6"), ("5", "5 or 6"), ("5", r"5 \pm 1"), ("5", "5?"), ("5", "x=5=6"),
    ("5", "2x=5"), ("5", "(5,5)"), ("5", "5, 5"), ("5", r"\{5, 6\}"), ("5", "5x"),
    ("5", "5 million"),
    # near and twisted
    ("5", "5.01"), ("5", "-5"), ("5", "50"), ("5", "5^2"), ("5", "5!"), (r"\frac{14}{3}", "143"),
    (r"\frac{14}{3}", r"\frac{3}{14}"), (r"\frac{1}{3}", "0.33"), ("0.006", r"5.907\times10^{-3}"),
    (r"2\sqrt3", r"3\sqrt2"), (r"\sqrt2", "1.41"), ("3.61e-10", "2.54e-10"), ("1e-9", "0"),
    (r"20\text{ cm}", r"20\text{ m}"), ("6", "6m"), ("6m", "6"), ("m", "5m"),
    ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("[2,3)", "(2,3)"), ("1,2", "1"), ("1,2", "1,2,3"),
    ("1,1,2", "1,2,2"), ("x=5", "y=5"), ("x<5", "x>5"), ("x<5", r"x \le 5"), ("[2,7]", "2<x<7"),
    ("C", "D"), ("C", "(A), (C)"), ("odd", "oddd"), (r"\text{odd}", "even"), ("5", "five or so"),
    (r"\infty", r"-\infty"), ("5", "nan"), ("5", r"\infty-\infty"), ("123", "\uff11\uff12\uff14"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&23&4\end{pmatrix}"),
    ("2n+1", "2n-1"), ("2n+1", "2m+1"), ("x+1", r"x+1 \text{ or } x"),
    (r"10^{-20}\pi", r"10^{-19}\pi"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_answers_are_right(gold, answer):
    assert grade(gold, rf"So it is \boxed{{{answer}}}.", "boxed").score == 1


def test_answers_that_only_algebra_equates_are_right():
    verdicts = grade_many([(gold, rf"\boxed{{{answer}}}") for gold, answer in BY_ALGEBRA])
    assert [v.score for v in verdicts] == [1.0] * len(BY_ALGEBRA)


def test_different_answers_are_wrong():
    pairs = [(gold, rf"\boxed{{{answer}}}") for gold, answer in DIFFERENT]
    accepted = [pair for pair, v in zip(pairs, grade_many(pairs), strict=True) if v.score != 0]
    assert accepted == []


@pytest.mark.parametrize(
    ("completion", "boxed", "hashed", "lenient"),
    [
        (r"\boxed{18}", 1, 0, 1),
        ("#### 18", 0, 1, 1),
        ("####18", 0, 1, 1),
        ("#### $18.00", 0, 1, 1),
        (r"\boxed{17} or \boxed{18}", 1, 0, 0),  # joined by "or": two answers
        (r"\boxed{17}. I see a slip. It is \boxed{18}.", 1, 0, 1),
        (r"\boxed{18}. I see a slip. It is \boxed{17}.", 0, 0, 0),
        (r"\boxed{\frac{36}{2}}", 1, 0, 1),
        (r"\boxed{18", 0, 0, 0),
        (r"\fbox{18}", 1, 0, 1),
        ("The answer is 18.", 0, 0, 1),
        ("The final answer is $18$. I hope it is correct.", 0, 0, 1),
        ("**Answer:** 18", 0, 0, 1),
        ("They pay 9 * 2.\nA: 18", 0, 0, 1),
        (r"Hence \[x = 18.\]", 0, 0, 1),
        (r"Hence $x = 18$.", 0, 0, 1),
        (r"From $x = 18$ follows nothing", 0, 0, 0),
        ("18", 0, 0, 1),
        ("So they pay 18", 0, 0, 0),  # never the last number of a text
        ("9 and 9 make\n18", 0, 0, 0),
        ("", 0, 0, 0),
        (r"\boxed{}", 0, 0, 0),
        ("#### ", 0, 0, 0),
        ("The answer is clear from $9+9=18$, as we saw", 0, 0, 0),
    ],
)
def test_where_the_answer_is_looked_for(completion, boxed, hashed, lenient):
    in_box, in_hash = grade("18", completion, "boxed"), grade("18", completion, "hash")
    assert (in_box.score, in_hash.score) == (boxed, hashed)
    assert in_box.details["strict"] == boxed
    assert in_hash.details["strict"] == hashed
    assert in_box.details["lenient"] == in_hash.details["lenient"] == lenient
    assert grade("18", completion, "any").score == lenient


def test_the_answer_found_has_one_spelling():
    found = [
        grade("5", text).details["answer"]
        for text in (r"\boxed{\dfrac12}", r"\boxed{ \frac{1}{2} }")
    ]
    assert found == [r"\frac{1}{2}"] * 2
    assert grade("5", "no idea at all, I am afraid").details["answer"] is None


@pytest.mark.parametrize(
    "gold", [r"$\frac{1}{2}$", r"We get \boxed{\frac12}.", "half of 1 is\n#### 0.5"]
)
def test_a_gold_answer_may_stand_in_its_solution(gold):
    assert grade(gold, r"\boxed{0.5}", "boxed").score == 1


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        ("", "empty"),
        ("  $ $ ", "empty"),
        (r"\frac{x}{", "cannot be read"),
        ("The series converges for x > 1 and diverges elsewhere", "prose"),
    ],
)
def test_a_gold_answer_that_says_nothing_cannot_be_judged(gold, reason):
    verdict = grade(gold, r"\boxed{x+1}")
    assert verdict.score is None
    assert reason in verdict.reason
    assert verdict.details["strict"] is None


def test_no_answer_is_wrong_whatever_the_gold_answer_is():
    assert grade(r"\frac{x}{", "I do not know what to say about it.").score == 0


def test_a_gold_answer_in_words_matches_its_own_words():
    gold = "The series converges for x > 1 and diverges elsewhere"
    assert grade(gold, rf"\boxed{{\text{{{gold}}}.}}").score == 1


HOSTILE = [
    "9**9**9**9", r"2^{1000000000}", "100000!", "((3!)!)!", r"\binom{1000000000}{500000000}",
    r"\sum_{k=1}^{100000} \sin(k)", r"(x+y+z)^{200}", "(" * 1400, "x+" * 700 + "x",
    r"\frac{1}{1+" * 100 + "1" + "}" * 100, "1" * 10**5, r"\boxed{" * 5000, "{" * 10**5,
    "\\" * 10**5, "$1$ " * 25_000, "=".join("x" * 700), "__import__('os').system('true')",
]  # fmt: skip


def test_hostile_answers_are_wrong_and_hold_nobody_up():
    """Judged together with honest ones, from a thread that is not the main one."""
    pairs = [("5", rf"\boxed{{{answer}}}") for answer in HOSTILE] + [("n+1", r"\boxed{1+n}")] * 8
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.extend(grade_many(pairs)))
    thread.start()
    thread.join()
    assert [v.score for v in verdicts] == [0.0] * len(HOSTILE) + [1.0] * 8


@pytest.mark.parametrize(
    "repeated",
    [
        "5 m per ",
        "word ",
        "a, ",
        r"x\approx ",
        "1,111,",
        "answer: ",
        r"\boxed{",
        "\n A",
        " ",
        "=a^",
        "ab_",
    ],
)
def test_repetitions_that_blow_up_a_pattern_end(repeated):
    """A pattern that tries every way to cut such a text would not come back from here."""
    short, long = repeated * 200, repeated * 10_000
    pairs = [
        (gold, rf"\boxed{{{short}2y!! = 5 {short}}}")
        for gold in ("5", "x=5", "20 cm", "odd", "(1,2)")
    ]
    assert [v.score for v in grade_many(pairs)] == [0.0] * len(pairs)
    assert grade("5", long).score == 0


def test_an_answer_too_long_to_compare_is_wrong_unless_it_is_the_gold_answer():
    gold = "+".join(f"x_{{{i}}}" for i in range(400))
    assert len(gold) > MAX_ANSWER
    assert grade(gold, rf"\boxed{{{gold}}}").score == 1
    assert grade("5", rf"\boxed{{{gold}}}").reason == f"limit: an answer of {len(gold)} characters"


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match=r'answer_format = "box".*any, boxed, hash'):
        grade("5", "5", "box")
