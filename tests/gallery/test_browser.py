"""The page in a real browser: the system's chromium, driven by Playwright. Skipped where either is missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from galleries import HOSTILE, put_picture, put_record
from image2_cli.gallery import gallery

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
# Debian's name, Ubuntu's, Google's two, macOS'
NAMES_OF_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "Chromium")
CHROMIUM = next(filter(None, map(shutil.which, NAMES_OF_CHROMIUM)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
    pytest.mark.xdist_group("one browser is enough"),
]
WIDE, NARROW = (1280, 800), (360, 640)
TAKE = "addEventListener('copy', () => window.taken = document.activeElement.value)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """visit(folder, size, **context options) -> its page. Afterwards no page may have done what one on disk should not."""
    pages, trouble = [], []

    def visited(folder: Path, size: tuple[int, int] = WIDE, **options: Any) -> Any:
        gallery.write_page(str(folder))
        page, own = browser.new_page(viewport={"width": size[0], "height": size[1]}, **options), folder.as_uri() + "/"
        pages.append(page)
        page.set_default_timeout(5000)
        page.add_init_script("addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.blockedURI))")
        page.on("request", lambda request: None if request.url.startswith(own) else trouble.append(request.url))
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(dialog.message), dialog.dismiss()))
        page.goto(own + "index.html")
        return page

    yield visited
    for page in pages:
        page.close()
    assert [] == trouble


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """The folder of four pictures and an order that failed, newest first: fox 4, 3, 2, 1, the failure."""
    folder = tmp_path / "few"
    put_record(folder, 0, request={"prompt": "a refused owl", "n": 1, "seed": 7}, state="failed",
               server_message="refused by the service")
    for number in range(1, 5):
        put_picture(folder, f"fox {number}.png", number, f"fox {number}\nin <snow> & \"rain\"", width=300, height=200)
    return folder


# --- what it may not do


def test_hostile_records_run_nothing_and_ask_for_nothing(tmp_path: Path, visit: Callable[..., Any]) -> None:
    put_picture(tmp_path, "fox.png", 1, HOSTILE, status=HOSTILE, image={"revised_prompt": HOSTILE + "!"})
    put_record(tmp_path, 0, request={"prompt": HOSTILE, "n": 1}, state="failed", server_message=HOSTILE)
    page = visit(tmp_path)
    page.locator("#filter").fill("<script>")
    assert 2 == page.locator(".card:visible").count()
    page.locator("a.box").click()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert HOSTILE == page.locator("dialog .prompt").inner_text()


# --- choosing and copying


def test_chosen_pictures_are_kept_and_their_names_are_copied(few: Path, visit: Callable[..., Any]) -> None:
    page = visit(few)
    assert not page.locator("#names").is_visible()
    for place in (3, 0, 1, 1):  # the last click takes the choice back
        page.locator(".choose").nth(place).click()
    page.reload()
    assert ["true", "false", "false", "true"] == [
        button.get_attribute("aria-pressed") for button in page.locator(".choose").all()]
    page.locator("a.box").nth(2).click()
    page.locator(".mark").click()
    assert "Chosen" == page.locator(".mark").inner_text()
    page.keyboard.press("Escape")
    assert "Copy chosen names (3)" == page.locator("#names").inner_text()
    page.evaluate(TAKE)
    page.locator("#names").click()
    assert ("fox 4.png\nfox 2.png\nfox 1.png", "Copied") == (page.evaluate("taken"), page.locator("#names").inner_text())


def test_the_keyboard_alone_filters_opens_goes_on_copies_and_comes_back(few: Path, visit: Callable[..., Any]) -> None:
    page = visit(few)
    page.evaluate(TAKE)
    key, focused = page.keyboard.press, page.locator(":focus")
    key("Tab")
    assert "filter" == focused.get_attribute("id")
    page.keyboard.type("SNOW fox")
    assert "4 / 5" == page.locator("output").inner_text()
    key("Tab")
    assert "box" == focused.get_attribute("class")
    style = page.evaluate("(s => [s.outlineStyle, s.outlineWidth])(getComputedStyle(document.activeElement))")
    assert ["solid", "2px"] == style
    key("Enter")
    for name, place in (("Left", 4), ("Left", 3), ("Right", 4), ("Right", 1), ("Right", 2)):
        key(f"Arrow{name}")
        assert f"{place} / 4" == page.locator("#place").inner_text()
    key("Tab")
    key("Tab")
    assert "Copy prompt" == focused.inner_text()
    key("Enter")
    assert ('fox 3\nin <snow> & "rain"', "Copied") == (page.evaluate("taken"), page.locator("dialog .copy").inner_text())
    key("Escape")
    assert not page.locator("dialog").is_visible()
    assert "fox 3" in page.evaluate("document.activeElement.closest('.card').textContent")


# --- words, shapes, themes


def test_the_labels_speak_the_browsers_language(few: Path, visit: Callable[..., Any]) -> None:
    page = visit(few, locale="zh-CN")
    page.locator("a.box").first.click()
    page.locator(".mark").click()
    words = page.locator(".t, dt, .mark").all_text_contents() + page.evaluate(
        "[...document.querySelectorAll('[aria-label]')].map(one => one.ariaLabel)")
    assert [] == [word for word in words if not any("\u4e00" <= char <= "\u9fff" for char in word)]
    assert "zh" == page.evaluate("document.documentElement.lang")
    assert "筛选" == page.locator("#filter").get_attribute("placeholder")
    assert "fox 4" in page.locator("dialog .prompt").inner_text()
    assert "Close" == visit(few, locale="de-DE").locator("#close").text_content()


def test_without_scripts_every_picture_and_fact_is_there(few: Path, visit: Callable[..., Any]) -> None:
    page = visit(few, java_script_enabled=False)
    assert 5 == page.locator(".facts:visible").count()
    assert not page.locator("#filter, .choose").first.is_visible()


@pytest.mark.parametrize(("size", "count", "in_a_row", "width"), [
    (WIDE, 1, 1, 538), (WIDE, 2, 2, 538), (WIDE, 3, 3, 384), (WIDE, 7, 3, 384),
    ((1900, 1000), 3, 3, 570), ((1900, 1000), 30, 3, 570), (NARROW, 7, 1, 328)])
def test_equal_pictures_have_one_size_in_the_last_row_too(
        tmp_path: Path, visit: Callable[..., Any], size: tuple[int, int], count: int, in_a_row: int, width: int) -> None:
    """Three drafts stood in two rows, and an agent threw the page away for one of its own."""
    for number in range(count):
        put_picture(tmp_path, f"{number}.png", number, width=60, height=40)
    boxes = [card.bounding_box() for card in visit(tmp_path, size).locator(".card").all()]
    assert [width] * count == [round(box["width"]) for box in boxes]
    assert in_a_row == [box["y"] for box in boxes].count(boxes[0]["y"])


def test_pictures_of_any_shape_have_one_height_and_nothing_moves_when_they_come(
        tmp_path: Path, visit: Callable[..., Any]) -> None:
    for number, (width, height) in enumerate([(60, 40), (40, 40), (40, 60), (400, 10)]):
        put_picture(tmp_path, f"{number}.png", number, "word " * 90, width=width, height=height)
    page = visit(tmp_path)
    before = [one.bounding_box() for one in page.locator(".card").all()]
    page.wait_for_function("[...document.images].every(one => one.complete || one.loading === 'lazy')")
    assert before == [one.bounding_box() for one in page.locator(".card").all()]
    sizes = [(round(one["width"]), round(one["height"])) for one in (
        one.bounding_box() for one in page.locator(".box img").all())]
    assert [(1203, 256), (171, 256), (256, 256), (384, 256)] == sizes


def test_a_narrow_screen_is_never_scrolled_sideways(tmp_path: Path, visit: Callable[..., Any]) -> None:
    put_picture(tmp_path, "f" * 200 + ".png", 1, "word" * 500, width=1000, height=10, task_id="t" * 128)
    put_picture(tmp_path, "tall.png", 2, "a\n" * 300, width=10, height=1000)
    put_record(tmp_path, 3, request={"prompt": "W" * 900}, state="failed", server_message="M" * 200, status="s" * 40)
    page = visit(tmp_path, NARROW)
    page.locator(".choose").first.click()
    for number in range(2):
        assert 0 >= page.evaluate("document.documentElement.scrollWidth - innerWidth")
        page.locator("a.box").nth(number).click(position={"x": 5, "y": 5})
        inside = page.evaluate("[...document.querySelectorAll('dialog, .stage, .label')]"
                               ".map(part => part.scrollWidth - part.clientWidth)")
        assert [0, 0, 0] == inside
        page.keyboard.press("Escape")


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_large_view_shows_the_whole_picture(tmp_path: Path, visit: Callable[..., Any], size: tuple[int, int]) -> None:
    for number, (width, height) in enumerate([(3000, 200), (200, 3000), (1500, 1500)]):
        put_picture(tmp_path, f"{number}.png", number, "word " * 400, width=width, height=height)
    page = visit(tmp_path, size)
    page.locator("a.box").first.click()
    for ratio in (1.0, 200 / 3000, 15.0):
        page.wait_for_function("document.querySelector('.stage img').complete")
        stage, picture = (page.locator(one).bounding_box() for one in (".stage", ".stage img"))
        for start, length in (("x", "width"), ("y", "height")):
            assert stage[start] <= picture[start]
            assert picture[start] + picture[length] <= stage[start] + stage[length] + 0.5
        assert ratio == pytest.approx(picture["width"] / picture["height"], rel=0.1)
        page.keyboard.press("ArrowRight")


CONTRAST = """selectors => {
    const light = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const paper = light(getComputedStyle(document.body).backgroundColor);
    return selectors.map(selector => {
        const ink = light(getComputedStyle(document.querySelector(selector)).color);
        return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05);
    });
}"""


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_both_themes_are_readable(few: Path, visit: Callable[..., Any], scheme: str, is_dark: bool) -> None:
    page = visit(few, color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert is_dark is (sum(paper) < 200)
    inks = ["h1", ".prompt", ".summary", ".status", ".card .copy", ".failed .status", ".failed dt", ".failed dd"]
    assert min(page.evaluate(CONTRAST, inks)) >= 4.5
