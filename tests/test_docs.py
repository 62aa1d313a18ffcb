"""The pages say what is so: code runs, commands parse, links lead somewhere, messages exist."""

import ast
import dataclasses
import inspect
import re
import runpy
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging as transformers_logging

import tinylora
from helpers.documents import CHINESE, DOCS, MADE, PAGES, ROOT, TOP, blocks, commands, text_of
from tinylora.cli import VERBS, file_of, main
from tinylora.cli.options import split
from tinylora.cli.train import Request, resolve
from tinylora.pocket import model_folder
from tinylora.rewards.code.selftest import mechanism_for
from tinylora.rewards.code.toolbox import SandboxUnavailable

TASKS = DOCS / "tasks.md"
SMALL = ["--eval-problems=4", "--prompts-per-step=2", "--samples-per-prompt=2", "--device=cpu"]
RUN_BELOW = {TASKS}  # whose blocks belong together, and have tests of their own
WITH_CODE = [page for page in PAGES if blocks(page, "python")]
TO_RUN = [page for page in WITH_CODE if page not in RUN_BELOW and page not in CHINESE]
MOST_WORDS = 900  # of README
NEEDS_A_SERVER = "base_url="
SOURCES = [path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_the_examples_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (rows,), (file, _) = blocks(TASKS, "jsonl"), blocks(TASKS, "python")
    Path("pens.jsonl").write_text(rows, encoding="utf-8")
    Path("my_task.py").write_text(file, encoding="utf-8")
    written = blocks(TASKS, "sh")
    assert len(written) == 2
    for number, command in enumerate(written):
        argv = shlex.split(command)
        assert argv[:2] == ["tinylora", "train"]
        assert main([*argv[1:], *SMALL, f"--output=run{number}"]) == 0
        assert main(["check-rewards", *argv[3:4], *argv[4:6][: 2 if number == 0 else 0]]) == 0


def test_the_example_in_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _, function = blocks(TASKS, "python")
    Path("example.py").write_text(function, encoding="utf-8")
    assert runpy.run_path("example.py")["summary"]["steps"] == 2
    assert capsys.readouterr().out.splitlines()[-1] == "13"


@pytest.mark.parametrize("page", TO_RUN, ids=name_of)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one namespace, with the embedded model for those of the hub, and small steps."""
    if any("rewards.code" in block for block in blocks(page, "python")):
        try:
            mechanism_for(False)
        except SandboxUnavailable as reason:
            pytest.skip(str(reason))
    monkeypatch.chdir(tmp_path)
    transformers_logging.disable_progress_bar()
    here = [block for block in blocks(page, "python") if NEEDS_A_SERVER not in block]
    code = "\n".join(here)
    code = re.sub(r'"Qwen/[\w.-]+"', repr(str(model_folder())), code)
    code = code.replace("TrainConfig(", "TrainConfig(prompts_per_step=2, eval_samples=1, ")
    file = tmp_path / "page.py"
    file.write_text(code, encoding="utf-8")
    assert runpy.run_path(str(file))


@pytest.mark.parametrize("page", sorted({*WITH_CODE} & {*CHINESE}), ids=name_of)
def test_a_chinese_page_has_the_code_of_the_english_one(page: Path) -> None:
    """But for its comments."""
    english = import_chinese_pages().english_of(page)
    ours, theirs = ("\n".join(blocks(one, "python")) for one in (page, english))
    assert ast.dump(ast.parse(ours)) == ast.dump(ast.parse(theirs))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs, options and the settings that they make; targets of make; files that Python runs."""
    monkeypatch.chdir(ROOT)
    targets = set(re.findall(r"^([a-z0-9-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    for words in commands(page):
        if words[0] == "make":
            assert [w for w in words[1:] if "=" not in w and w not in targets] == [], words
        elif words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).is_file(), words
        elif "tinylora" in words:
            check_verb(words[words.index("tinylora") + 1 :])


def check_verb(words: list[str]) -> None:
    verb, *argv = words
    if "--help" in words or verb == "--version":
        return
    assert verb in VERBS, words
    if verb == "serve":  # whose other options are vLLM's
        return
    given = import_module(f"tinylora.cli.{file_of(verb)}").VERB.given(argv)
    if verb == "train":
        request, settings = split(Request, given)
        if not request.resume and str(request.recipe) != "RECIPE.yaml":
            resolve(request, settings)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page: Path) -> None:
    """`make docs` follows those inside the site, anchors too; here also from the other files."""
    made = {DOCS / "reference" / name for name in MADE}
    text = re.sub(r"^```.*?^```|`[^`]*`", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith(("http", "#")):
            place = (page.parent / link.split("#")[0]).resolve()
            assert place.exists() or place in made, link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_in_the_text_exist(page: Path) -> None:
    """Those that begin in a folder of the repository, written as code."""
    if page == DOCS / "log.md":  # what was where at its time
        return
    found = re.findall(
        r"`((?:src|tests|docs|recipes|examples|scripts|benchmarks)/[\w./-]+)", text_of(page)
    )
    assert [path for path in found if not (ROOT / path).exists()] == []


def test_the_readme_is_short() -> None:
    assert len(text_of(ROOT / "README.md").split()) <= MOST_WORDS


def test_troubleshooting_quotes_messages_that_exist() -> None:
    """A quotation between two dots, as it stands in the source."""
    said = "".join(
        node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "\0"
        for source in [*SOURCES, ""]
        for node in in_order(ast.parse(source))
    )
    said = " ".join(said.split())
    page = text_of(DOCS / "troubleshooting.md")
    titles = re.findall(r"^\*\*(.*?)\*\*", page, re.MULTILINE)
    quotes = [part.strip(" .") for title in titles for part in re.findall(r'"(.*?)"', title)]
    parts = [part.strip() for quote in quotes for part in re.split(r"\.\.\.|\d+", quote)]
    assert len(parts) > 20
    in_make = text_of(ROOT / "Makefile")
    assert [part for part in parts if part not in said and part not in in_make] == []


def in_order(tree: ast.AST) -> list[ast.AST]:
    """Nodes in the order of the text, as `ast.walk` is not."""
    return [tree, *(node for child in ast.iter_child_nodes(tree) for node in in_order(child))]


def test_the_log_has_an_index_of_all_entries() -> None:
    text = text_of(DOCS / "log.md")
    index, _, entries = text.partition("\n## 20")
    headings = re.findall(r"^## (.+)$", "## 20" + entries, re.MULTILINE)
    anchors = {anchor(heading) for heading in headings}
    linked = re.findall(r"\]\(#([^)]+)\)", index)
    assert [link for link in linked if link not in anchors | numbered(headings)] == []
    assert len(linked) > 20


def anchor(heading: str) -> str:
    """As Markdown's table of contents makes it."""
    kept = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
    return re.sub(r"[-\s]+", "-", kept)


def numbered(headings: list[str]) -> set[str]:
    """The anchors of headings that repeat an earlier one."""
    seen: dict[str, int] = {}
    for name in map(anchor, headings):
        seen[name] = seen.get(name, -1) + 1
    return {f"{name}_{count}" for name, most in seen.items() for count in range(1, most + 1)}


def test_every_chinese_page_follows_the_english_one() -> None:
    """A page names the hash of the English text that it was written after."""
    behind = import_chinese_pages().behind()
    assert behind == [], "bring them up to date, then: python scripts/chinese_pages.py --update"
    assert len(CHINESE) >= 9


def import_chinese_pages():
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("chinese_pages", ROOT / "scripts" / "chinese_pages.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_changed_english_page_leaves_the_chinese_one_behind(tmp_path: Path) -> None:
    pages = import_chinese_pages()
    (tmp_path / "a.md").write_text("# One\n", encoding="utf-8")
    chinese = tmp_path / "a.zh.md"
    chinese.write_text("# 一\n\n<!-- english: 0 -->\n", encoding="utf-8")
    assert pages.behind(tmp_path) == [chinese]
    pages.update(chinese)
    assert pages.behind(tmp_path) == []
    (tmp_path / "a.md").write_text("# Two\n", encoding="utf-8")
    assert pages.behind(tmp_path) == [chinese]


def test_the_pages_at_the_top_are_there() -> None:
    assert [path for path in TOP if not path.is_file()] == []
    assert tinylora.__version__  # what README's first line of Python imports


API = re.findall(r"^::: (tinylora\.\S+)", text_of(DOCS / "reference" / "api.md"), re.MULTILINE)


def documented(thing: Any) -> set[str]:
    """The names under `Args:` of a docstring."""
    text = inspect.cleandoc(thing.__doc__ or "")
    part = re.search(r"^Args:\n((?: {4,}.*\n?|\n)+)", text, re.MULTILINE)
    return set(re.findall(r"^ {4}(\w+):", part[1], re.MULTILINE)) if part else set()


@pytest.mark.parametrize("path", API)
def test_the_api_documents_every_argument(path: str) -> None:
    """Of functions, of methods with more than a name says, and of classes that are data."""
    module, _, name = path.rpartition(".")
    thing = getattr(import_module(module), name)
    if not inspect.isclass(thing):
        assert set(inspect.signature(thing).parameters) - documented(thing) == set()
        return
    if dataclasses.is_dataclass(thing):
        fields = {field.name for field in dataclasses.fields(thing) if field.init}
        assert fields - documented(thing) == set()
    for method, function in inspect.getmembers(thing, inspect.isfunction):
        if not method.startswith("_") and function.__module__ == module and function.__doc__:
            names = set(inspect.signature(function).parameters) - {"self"}
            assert names - documented(function) == set(), method
