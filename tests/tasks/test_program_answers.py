"""The program that an answer gives: fences of every spelling, prose around them, and none."""

import pytest

from tinylora.tasks.program_answers import program_in

INSIDE = "#include <cstdio>\nint main() {}\n"
CODE = '#include <cstdio>\nint main() {\n    puts("1");\n}'


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("So:\n```cpp\nA\n```\nor\n```c++\nB\n```\n", "\nB\n"),
        ("```cpp\nA\n```\nrun it:\n```python\nB\n```", "\nA\n"),
        ("```cpp\nA\n```\nbetter:\n```cpp\nB", "\nA\n"),  # the budget ended the second
        ("only:\n```cpp\nB", "\nB"),
        ("```\nA\n```", "\nA\n"),
        (f"{INSIDE}```\nIt reads\n```\ninput\n```", INSIDE),  # from an open fence on
        (INSIDE, INSIDE),
        ("<think>\n```cpp\nA\n```\n</think>\n```cpp\nB\n```", "\nB\n"),
        ("I do not know.", None),
        ("```python\nprint(1)\n```", None),
        ("", None),
    ],
)
def test_the_last_fenced_block_of_cpp_is_the_program(answer: str, program: str | None) -> None:
    found = program_in(answer)
    assert found == program or (found or "").strip() == (program or "").strip() != ""


def found(answer: str) -> str:
    return (program_in(answer) or "").strip()


LANGUAGES = [
    "cpp", "c++", "C++", "cc", "cxx", "c++20", "cpp20", "c++14", "C++11", "c++17", "cpp17", "c",
    "hpp", "{.cpp}", ".cpp", "gnu++17", "language-cpp", "cplusplus", "", "text", "plaintext",
    "cpp title=a.cpp",
]  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("fence", ["```", "````", "~~~", "  ```", "\u200b```"])
def test_fences_and_languages_of_every_spelling(language: str, fence: str) -> None:
    answer = f"So:\n{fence}{language}\n{CODE}\n{fence.lstrip(chr(0x200B))}\nDone."
    assert found(answer) == CODE


@pytest.mark.parametrize(
    "answer",
    [
        f"We need #include <cstdio> and int main() here:\n```\n{CODE}\n```",
        f"#include is a directive.\nint main() is where it starts.\n```\n{CODE}\n```",
        f"```cpp\n{CODE}```",
        f'```cpp\n{CODE}\n```\nThe loop is\n```cpp\nputs("1");\n```',
        f"```cpp #include <cstdio>\n{CODE.split(chr(10), 1)[1]}\n```",
        "\n".join(f"> {line}" for line in f"```cpp\n{CODE}\n```".split("\n")),
        f"<answer>\n```cpp\n{CODE}\n```\n</answer>",
        f"<answer>\n{CODE}\n</answer>",
        f"<code>\n{CODE}\n</code>",
        f"<pre><code>{CODE}</code></pre>",
        f"\\begin{{lstlisting}}[language=C++]\n{CODE}\n\\end{{lstlisting}}",
        f"{CODE}\nExample:\n```\n1\n```",
        f"Here it is.\n\n{CODE}\n\nIt prints 1.",
        f"<think>```cpp\nno\n```</think>{CODE}",
        f"```cpp\r\n{CODE}\r\n```\r\n",
        f"```json\n{{}}\n```\n```cpp\n{CODE}\n```",
    ],
)
def test_what_is_around_a_program_is_not_compiled(answer: str) -> None:
    assert found(answer) == CODE


def test_a_fence_inside_a_raw_string_does_not_end_the_program() -> None:
    code = 'const char *s = R"(\n```\n)";\nint main() {}'
    assert found(f"```cpp\n{code}\n```") == code


@pytest.mark.parametrize(
    ("line", "compiled"),
    [
        ('freopen("input.txt", "r", stdin);', "(stdin);"),
        (
            'if (std::freopen("a.out", "w", stdout) == NULL) return 1;',
            "if ((stdout) == NULL) return 1;",
        ),
        ('freopen("log", "w", stderr);', 'freopen("log", "w", stderr);'),
    ],
)
def test_freopen_of_the_standard_streams_does_nothing(line: str, compiled: str) -> None:
    code = "int main() {{\n    {}\n}}"
    assert found(f"```cpp\n{code.format(line)}\n```") == code.format(compiled)


@pytest.mark.parametrize(
    "unit", ["```\n", "#include\n", "main(", "freopen(", "<code>", "> ```", "` "]
)
def test_a_huge_answer_is_read_at_once(unit: str) -> None:
    """A pattern that takes quadratic time would take hours."""
    program_in(unit * ((1 << 18) // len(unit)))
