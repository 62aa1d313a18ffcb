"""When two outputs are the same; each line here is a mistake that some grader has made."""

import pytest

from tinylora.rewards.code.outputs import Comparison


def same(got, wanted, compare="tokens", tolerance=1e-6):
    return Comparison(compare, tolerance).is_same(got.encode(), wanted.encode())


@pytest.mark.parametrize("got", ["1 2\n3\n", "1 2 3", " 1\t2\r\n3  \n\n", "1\n2\n3"])
def test_tokens_ignore_blanks_and_line_ends(got):
    assert same(got, "1 2\n3\n")


@pytest.mark.parametrize(
    "got", ["1 2", "1 2 3 4", "3 2 1", "1 2 2 3", "12 3", "1 2 3.0", "1 2 03", "", "1 2 3\0"]
)
def test_tokens_are_counted_ordered_and_literal(got):
    assert not same(got, "1 2 3")


def test_letters_keep_their_case_save_in_yes_and_no():
    assert not same("alice", "Alice")
    assert same("Yes NO 3", "YES no 3")
    assert not same("yes", "no")
    assert not same("yes", "YES", "exact")


def test_only_ascii_blanks_separate():
    assert not Comparison("tokens").is_same("1\x852".encode("latin1"), b"1 2")


@pytest.mark.parametrize("got", ["a b\nc\n", "a b\nc", "a b\r\nc\r\n"])
def test_exact_forgives_the_last_line_end_and_carriage_returns(got):
    assert same(got, "a b\nc\n", "exact")


@pytest.mark.parametrize("got", ["a  b\nc\n", "a b \nc\n", "a b c\n", "a b\nc\n\n", "a b\n\nc\n"])
def test_exact_forgives_nothing_else(got):
    assert not same(got, "a b\nc\n", "exact")


@pytest.mark.parametrize(
    ("got", "wanted"),
    [("3.0000009", "3"), ("-0.0", "0"), ("1e3", "1000"), (".5", "0.5"), ("1000000.9", "1e6"),
     ("x 2.0", "x 2"), ("+5", "5"), ("007", "7")],
)  # fmt: skip
def test_floats_within_the_tolerance(got, wanted):
    assert same(got, wanted, "float")


@pytest.mark.parametrize(
    ("got", "wanted"),
    [("3.000004", "3"), ("1000001", "1000000"), ("nan", "1"), ("inf", "1"), ("1_0", "10"),
     ("0x10", "16"), ("1e999", "1"), ("1.0 2.0", "1.0"), ("1.0", "1.0 2.0"), ("-5", "5"),
     ("9007199254740993", "9007199254740992"), ("1" * 5000, "2" * 5000), ("", "0.0")],
)  # fmt: skip
def test_floats_beyond_the_tolerance_and_what_is_no_number(got, wanted):
    assert not same(got, wanted, "float")


def test_the_tolerance_is_a_setting():
    assert same("3.01", "3.0", "float", tolerance=0.01)
    assert not same("3.01", "3.0", "float", tolerance=0.001)


def test_the_same_word_is_the_same_float():
    assert same("nan", "nan", "float")


@pytest.mark.parametrize(
    ("got", "wanted"),
    [("0.5", "0.5000000000"), ("7.478708665", "7.4787086646"), ("-0.0", "0.000"), ("x 1", "x 1")],
)
def test_auto_compares_decimals_within_the_tolerance(got, wanted):
    assert same(got, wanted, "auto")


@pytest.mark.parametrize(
    ("got", "wanted"), [("3.0", "3"), ("0.5001", "0.5"), ("1e3", "1000"), ("v1.2.4", "v1.2.3")]
)
def test_auto_is_exact_where_no_decimal_is_wanted(got, wanted):
    assert not same(got, wanted, "auto")


@pytest.mark.parametrize(
    ("got", "wanted"),
    [("1000000907.0", "1000000007"), ("1e18", "999999999999999989"), ("1.0e18", "1" + "0" * 17),
     ("50000000000000001.0", "50000000000000000"), ("1e999999", "1" * 40), ("2.5", "3")],
)  # fmt: skip
def test_a_whole_number_is_exact_however_the_answer_is_written(got, wanted):
    assert not same(got, wanted, "float")


def test_a_whole_number_may_be_written_with_a_point():
    assert same("50000000000000000.0", "50000000000000000", "float")
    assert same("1e18", "1" + "0" * 18, "float")
    assert same("999999.9", "1000000", "float")


def test_blanks_count_in_a_picture_of_signs():
    picture = "  *\n ***\n*****\n"
    assert same("  *  \n ***\n*****", picture, "auto")
    assert not same("*\n***\n*****", picture, "auto")
    assert same("*\n***\n*****", picture, "tokens")
    assert same("1\n2", "  1\n  2\n", "auto")


def test_any_case_is_a_setting():
    assert Comparison(any_case=True).is_same(b"ALICE 2", b"Alice 2")
    assert not Comparison(any_case=True).is_same(b"ALICE", b"Bob")


@pytest.mark.parametrize("kind", ["auto", "tokens", "exact", "float"])
@pytest.mark.parametrize("word", ["1" * (1 << 20) + "x", "1 " * (1 << 19), "." * (1 << 20)])
def test_outputs_of_a_megabyte_are_compared_at_once(kind, word):
    """A pattern that takes quadratic time would take hours."""
    assert not same(word, "1" * (1 << 20), kind)
    assert not same(word, "0.5", kind)
    assert same(word, word, kind)
