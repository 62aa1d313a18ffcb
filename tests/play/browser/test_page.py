"""Both playgrounds in a real browser: what a reader sees, moves, shares and types."""

import pytest

from helpers.pages import Open, after, numbers, reading, settle

pytestmark = pytest.mark.browser
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def test_it_opens_with_the_trained_adapter(address: str, open_page: Open) -> None:
    page = open_page(address)
    settle(page)
    right, of = reading(page)
    assert right >= of - 1
    assert "base model" in page.inner_text("#interval")
    assert page.inner_text("#base").startswith("####")
    assert page.inner_text("#steered").startswith("3-2=1")
    assert page.inner_text("#base-verdict") == "wrong (5)"
    assert page.inner_text("#steered-verdict") == "right"
    assert page.inner_text("#bytes").startswith("13 numbers, 52 bytes")
    assert len(page.query_selector_all("#sliders input[type=range]")) == 13


def test_tokens_are_coloured_by_their_change(address: str, open_page: Open) -> None:
    page = open_page(address)
    settle(page)
    tokens = page.query_selector_all("#base .token, #steered .token")
    for token in tokens:
        change, kind = float(token.get_attribute("data-change")), token.get_attribute("class")
        assert ("up" in kind.split()) == (change >= 0.05)
        assert ("down" in kind.split()) == (change <= -0.05)
    first = page.query_selector("#base .token")
    assert "down" in first.get_attribute("class").split()  # with v, guessing is less likely
    after(page, lambda: page.keyboard.press("z"))
    assert page.query_selector_all("#steered .up, #steered .down") == []


def test_a_slider_moves_answer_gauge_and_text(address: str, open_page: Open) -> None:
    page = open_page(address)
    settle(page)
    before = page.inner_text("#steered"), reading(page), page.input_value("#text")
    page.focus("#v13")
    after(page, lambda: page.keyboard.press("End"))
    assert numbers(page)[12] == "4"
    assert page.input_value("#n13") == "4"
    now = page.inner_text("#steered"), reading(page), page.input_value("#text")
    assert [old != new for old, new in zip(before, now, strict=True)] == [True] * 3
    assert now[1][0] < before[1][0]
    after(page, lambda: page.keyboard.press("Backspace"))
    assert numbers(page)[12] == "0"


def test_typing_a_number_is_moving_its_slider(address: str, open_page: Open) -> None:
    page = open_page(address)
    settle(page)
    page.fill("#n2", "-1.5")
    after(page, lambda: page.keyboard.press("Tab"))
    assert numbers(page)[1] == "-1.5"
    assert page.input_value("#v2") == "-1.5"


def test_moved_numbers_are_bf16_so_that_thirteen_are_26_bytes(
    address: str, open_page: Open
) -> None:
    page = open_page(address)
    settle(page)
    page.focus("#strength")
    after(page, lambda: page.keyboard.press("ArrowRight"))
    assert page.inner_text("#bytes").startswith("13 numbers, 26 bytes")


def test_a_shared_link_brings_everything_back(address: str, open_page: Open) -> None:
    page = open_page(address)
    settle(page)
    page.fill("#temperature", "1")
    page.fill("#seed", "7")
    page.keyboard.press("Tab")
    page.keyboard.press("r")
    settle(page)
    after(page, lambda: page.click("#next"))
    link = page.evaluate("location.href")
    assert "#v=tl1" in link
    other = open_page(link)
    settle(other)
    for node in ("#base", "#steered", "#right"):
        assert other.inner_text(node) == page.inner_text(node)
    for node in ("#prompt", "#text", "#temperature", "#seed"):
        assert other.input_value(node) == page.input_value(node)
    assert numbers(other) == numbers(page)


def test_a_pasted_text_is_loaded_or_refused_with_a_sentence(address: str, open_page: Open) -> None:
    page = open_page(address)
    settle(page)
    trained = page.input_value("#text")
    after(page, lambda: page.click("[data-preset=zero]"))
    assert set(numbers(page)) == {"0"}
    page.fill("#text", trained[:-2] + "AA")
    page.keyboard.press("Enter")
    page.wait_for_selector("#problem-report:not([hidden])")
    assert "checksum does not match" in page.inner_text("#problem-report")
    page.fill("#text", f"  {trained} ")
    after(page, lambda: page.keyboard.press("Enter"))
    assert numbers(page)[12] == "-2.62"
    assert not page.is_visible("#problem-report")


def test_keys_lead_through_presets_training_and_problems(address: str, open_page: Open) -> None:
    page = open_page(address)
    settle(page)
    after(page, lambda: page.keyboard.press("["))
    assert page.inner_text("#step") == "after step 8"
    after(page, lambda: page.keyboard.press("z"))
    assert page.inner_text("#step") == "after step 0"
    base = reading(page)[0]
    assert page.inner_text("#steered") == page.inner_text("#base")
    after(page, lambda: page.keyboard.press("]"))
    assert page.inner_text("#step") == "after step 1"
    after(page, lambda: page.keyboard.press("t"))
    assert reading(page)[0] > base
    prompt = page.input_value("#prompt")
    after(page, lambda: page.keyboard.press("."))
    assert page.input_value("#prompt") != prompt
    after(page, lambda: page.keyboard.press(","))
    assert page.input_value("#prompt") == prompt
    page.focus("#prompt")
    page.keyboard.type("z")  # in a text it is a letter
    assert "z" in page.input_value("#prompt")
    after(page, lambda: page.keyboard.press("Control+Enter"))
    assert page.inner_text("#base-verdict") == ""  # it is not a problem of the task any longer


def test_tab_reaches_everything_that_can_be_moved(address: str, open_page: Open) -> None:
    page = open_page(address)
    settle(page)
    reached = set()
    for _ in range(70):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("document.activeElement.id || document.activeElement.dataset.preset")
        )
    wanted = {
        "prompt",
        "again",
        "zero",
        "trained",
        "scrubber",
        "strength",
        "v1",
        "v13",
        "n13",
        "map",
        "text",
        "share",
    }
    assert wanted - reached == set()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('input, textarea, select, button')].filter((node) =>"
        " !node.labels?.length && !node.getAttribute('aria-label') && !node.textContent).length"
    )
    assert unnamed == 0


def test_base_and_steered_draw_from_the_same_seed(address: str, open_page: Open) -> None:
    page = open_page(address)
    after(page, lambda: page.keyboard.press("z"))
    page.fill("#temperature", "2")
    after(page, lambda: page.keyboard.press("Tab"))
    answers = []
    for seed in ("1", "2"):
        page.fill("#seed", seed)
        after(page, lambda: page.keyboard.press("Tab"))
        answers.append(page.inner_text("#base"))
        assert page.inner_text("#steered") == answers[-1]
    assert answers[0] != answers[1]


def test_the_best_prompt_stands_beside_the_numbers(address: str, open_page: Open) -> None:
    page = open_page(address)
    settle(page)
    after(page, lambda: page.keyboard.press("p"))
    right, of = reading(page)
    assert right >= of - 4
    assert set(numbers(page)) == {"0"}
    assert "no prompt" in page.inner_text("#note")
    assert page.inner_text("#base").startswith("####")  # the base model has no prompt
    assert page.inner_text("#steered-verdict") == "right"


def test_the_line_of_a_slider_and_its_broken_bands(address: str, open_page: Open) -> None:
    page = open_page(address)
    settle(page, "no")
    assert len(page.query_selector_all("#chart circle.point")) == 17
    assert len(page.query_selector_all("#chart rect.broken")) >= 2
    band = page.evaluate("document.getElementById('strength').style.getPropertyValue('--band')")
    assert "--broken-band" in band
    assert "--safe-band" in band
    assert page.inner_text("#path").split() == ["0", "1", "2", "4", "8", "16"]


def test_a_phone_shows_all_of_it(address: str, open_page: Open) -> None:
    page = open_page(address, **PHONE)
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.evaluate("document.getElementById('v7').scrollIntoView({block: 'center'})")
    top = page.evaluate("document.getElementById('gauge').getBoundingClientRect().top")
    assert -1 <= top <= 1  # the gauge stays while the sliders are moved
    box = page.locator("#v7").bounding_box()
    assert box is not None
    assert box["height"] >= 24
    moved = lambda: page.touchscreen.tap(box["x"] + 5, box["y"] + box["height"] / 2)  # noqa: E731
    after(page, moved)
    assert float(numbers(page)[6]) < -3
