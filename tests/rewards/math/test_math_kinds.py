"""Kinds of answers that graders get wrong: each with the right ones beside the wrong ones."""

import pytest

from tinylora.rewards.math import grade, grade_many

RIGHT = {
    "letters": [("7t^2", "7 t^2"), ("9 km", "9"), (r"4\text{ m}", "4"), ("2 hours", "2 h"),
                ("7", "7 red marbles"), (r"\frac{3}{8} v", r"\frac{3v}{8}")],
    "units": [(r"3\text{ m}", r"300\text{ cm}"), (r"2\text{ min}", "120 seconds"),
              (r"30\text{ mph}", r"30\text{ miles per hour}"), (r"\$2.50", "250 cents"),
              (r"45^\circ", r"\frac{\pi}{4}"), (r"30.5^\circ", r"30^\circ 30'"),
              ("3 (pears)", "3"), ("7", r"7\ (\text{kg})")],
    "percent": [(r"35\%", "0.35"), ("0.35", r"35\%"), ("35", r"35\%"), (r"\frac54", r"125\%"),
                (r"300\%", "3")],
    "choices": [("D", r"\textbf{(D)}\ 2\sqrt{5}"), (r"2\sqrt5", r"\textbf{(D)}\ 2\sqrt{5}"),
                ("(D) 17", "D"), ("D", "Option D"), ("D", r"D.\ 17"), ("D", "The answer is D")],
    "numbers": [(r"\frac{3000!}{2999!}", "3000"), ("2^{90000}", "4^{45000}"),
                (r"\frac{5}{7}", "0.7142857142857143"), (r"\frac{1}{6}", "0.16666666666666666"),
                ("1", r"0.9999\ldots"), ("2500000", "2 500 000"), ("3 million dollars", "3000000")],
    "sets": [("(2, 9]", r"2 < \mu \le 9"),
             (r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R}\setminus\{0\}"),
             (r"t<1 \text{ or } t=4", r"(-\infty,1)\cup\{4\}"), ("(0,4)", "|x-2|<2"),
             ("(1,5)", "]1, 5["), ("[0,3]", r"[0,1]\cup[1,3]"), ("(3,8)", r"y>3 \text{ and } y<8"),
             (r"$2 \le k<6:[2,6)$", "[2,6)"), ("(4,\\infty)", "(4, inf)")],
    "remarks": [("g(x)=3", r"g(x)=3 \text{ for every } x"), ("8", r"8 \text{ (see the figure)}"),
                (r"\frac{22}{3}", r"\frac{22}{3} \text{ (about 7.33)}"),
                ("8", r"\text{The number of ways is } 8"), (r"n\pi", r"n\pi, n \in \mathbb{Z}")],
    "names": [("40", "a_{12} = 40"), ("(3,4)", "y=4, x=3"), ("4,5,6", "(a,b,c)=(4,5,6)"),
              ("g(x)=x+1", "g(u)=u+1"), (r"\frac{\pi}{2}+n\pi", r"\frac{\pi}{2}+k\pi")],
    "spelling": [(r"3\ln 5", "3 ln 5"), (r"\ln 5", r"\mathrm{ln}(5)"), (r"3\sqrt{17}", "3√17"),
                 ("x^{12}", "x¹²"), (r"\frac{3}{4}", "¾"), ("-8", "－8"), ("24", "二十四"),  # noqa: RUF001
                 ("8", r"\textcolor{blue}{8}"), ("8", r"{\Large 8}"), ("8", "**8**"), ("8", "8th"),
                 ("no solution", r"\text{There are no real solutions}")],
}  # fmt: skip
WRONG = {
    "letters": [("7t^2", "7"), ("7 t", "7"), (r"\frac{2}{5} pqr", r"\frac25"), ("7", "7pqr"),
                ("4abc", "4 apples"), ("5 V", "5")],
    "units": [(r"3\text{ m}", r"3\text{ cm}"), (r"\$4", "4 cents"),
              (r"2\text{ h}", r"2\text{ min}"),
              (r"45^\circ", r"\frac{\pi}{3}"), (r"7\text{ kg}", r"7\text{ m}")],
    "percent": [("0.4", r"0.4\%"), ("2", r"2\%"), ("40", r"4000\%"), (r"7\%", r"700\%")],
    "choices": [("D", "(C) 17"), ("D", "C. D"), ("D", "A B C D"), ("D", r"\text{D is wrong}"),
                ("17", "(D) 18"), ("D", "D or E")],
    "numbers": [(r"\frac{1}{3000!}", r"\frac{1}{3001!}"), (r"\frac{1}{3000!}", "0"),
                (r"5^{-90000}", r"7^{-90000}"), ("e^{-900}", "0"), (r"e^{-900}", "e^{-901}"),
                (r"\sqrt{10^{30}+1}", "1000000000000000"), (r"\frac12", "0.500000000000000000001"),
                ("43/5", "4 3/5"), ("24", "2 4"), ("3,125", "125,3"), ("(3,125)", "3125")],
    "sets": [("(2,9]", r"2 \le \mu \le 9"), ("(0,2)", r"(0,1)\cup(1,2)"), ("x<3", "y<3"),
             (r"t<1 \text{ or } t=4", r"(-\infty,1)"), ("(3,8)", r"y>3 \text{ or } y<8")],
    "remarks": [("8", "8 (or 9)"), ("8", r"8 \text{ dozens}"), ("8", r"8 \text{ cubed}"),
                ("8", r"8 \text{ is false}"), ("8", r"8 \text{ perhaps nine}"),
                ("8", r"\text{The answer is not } 8"), (r"2\cos(x)", r"2\cos(y)"),
                ("f(x)=2x+c", "f(x)=2x")],
    "names": [("40", "-a = 40"), ("(3,4)", "y=3, x=4"), ("g(x)=x+1", "g(u)=u+2"),
              ("n+1", "k+1"), ("40", "a^2 = 40")],
}  # fmt: skip


def boxed(pairs):
    return [(gold, rf"\boxed{{{answer}}}") for gold, answer in pairs]


@pytest.mark.parametrize("kind", RIGHT)
def test_right_answers_in_another_form_are_right(kind):
    verdicts = grade_many(boxed(RIGHT[kind]), "boxed")
    refused = [pair for pair, v in zip(RIGHT[kind], verdicts, strict=True) if v.score != 1]
    assert refused == []


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_answers_that_look_right_are_wrong(kind):
    verdicts = grade_many(boxed(WRONG[kind]), "boxed")
    accepted = [pair for pair, v in zip(WRONG[kind], verdicts, strict=True) if v.score != 0]
    assert accepted == []


@pytest.mark.parametrize(
    ("line", "score"),
    [
        ("**24**", 1), ("= 24", 1), (": 24", 1), ("Answer: 24", 1), ("$24 in all", 1),
        ("24 cows a week", 1), ("24/week", 1), ("<<20+4=24>>24", 1), ("24 (6 cows, 4 legs)", 1),
        ("24; that is all", 1), ("24[/INST]", 1), ("24<|return|>", 1),
        ("6 + 18 = 24", 1), ("6 * 4 = 24", 1), ("**6 * 4 = 24**", 1), ("6 * 4 = 25", 0),
        ("24, 25", 0), ("24 (maybe 25)", 0), ("24 - 25", 0), ("24!", 0), ("24 million", 0),
        ("24 or so", 0), ("25 cows", 0),
    ],
)  # fmt: skip
def test_what_follows_the_hash_marks(line, score):
    assert grade("24", f"#### {line}", "hash").score == score


@pytest.mark.parametrize(
    ("completion", "score"),
    [
        (r"<think>\boxed{9}", 0), (r"<think>\boxed{9}</think> So no.", 0),
        (r"<think>\boxed{9}</think> The answer is 8.", 0),
        (r"<think>\boxed{8}</think> \boxed{9}", 1), (r"x</think>\boxed{9}", 1),
        ("<think>8?</think><answer>9</answer>", 1), (r"\boxed 9", 1),
        (r"\boxed{9}<end_of_turn>\boxed{8}", 1), ("La respuesta es 9.", 1), ("答案是9。", 1),
        ("### Answer\n9", 1), ("So there will be only 9 cows.", 1),
        ("The answer is 9, I think.", 1),
        ("Nobody says that the answer is 8, and I doubt that the answer is 9.", 0),
        ("Thus there are 9 or 10 cows.", 0), ("So x is either 8 or it is 9.", 0),
    ],
)  # fmt: skip
def test_only_the_final_turn_and_only_what_it_states_counts(completion, score):
    assert grade("9", completion).score == score
