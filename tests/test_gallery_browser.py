"""The page in a real browser: the system's chromium, driven by Playwright. Skipped where either is missing."""

import functools
import http.server
import shutil
import threading
import time

import pytest
from galleries import ODD_NAMES, put_picture, put_record
from image2_cli.gallery import gallery
from platforms import needs_posix

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
# Debian's name, Ubuntu's, Google's two, macOS'
NAMES_OF_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "Chromium")
CHROMIUM = next(filter(None, map(shutil.which, NAMES_OF_CHROMIUM)), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
    pytest.mark.xdist_group("one browser is enough"),
]
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]
HOSTILE = ("</script></p><script>alert(1)</script><img src=http://127.0.0.1:9/x.png onerror=alert(2)>"
           "<svg onload=alert(3)><a href='javascript:alert(4)' style='background:url(http://127.0.0.1:9/y)'>"
           "\u202exof {{cards}}")
WIDE, NARROW = (1280, 800), (360, 640)


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


class Heard:
    """What a page did that a page on disk should not: `trouble` is empty where all is well."""

    def __init__(self, page, own):
        self.requests, self.trouble = [], []
        page.on("request", lambda request: self._asked(request.url, own))
        page.on("console", lambda message: self.trouble.append(message.text))
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("dialog", lambda dialog: (self.trouble.append(dialog.message), dialog.dismiss()))

    def _asked(self, url, own):
        self.requests.append(url)
        if not url.startswith(own):
            self.trouble.append("asked for " + url)

    @property
    def pictures(self):
        return {url for url in self.requests if url.endswith(".png")}


@pytest.fixture
def visit(browser):
    """visit(url, size, **context options) -> (page, what it did); any violation of the page's policy is heard too."""
    contexts = []

    def visited(url, size=WIDE, script=None, **options):
        contexts.append(browser.new_context(viewport={"width": size[0], "height": size[1]}, **options))
        contexts[-1].set_default_timeout(5000)
        page = contexts[-1].new_page()
        page.add_init_script("addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.blockedURI))")
        if script:
            page.add_init_script(script)
        heard = Heard(page, url.rpartition("/")[0] + "/")
        page.goto(url)
        return page, heard

    yield visited
    for context in contexts:
        context.close()


@pytest.fixture
def few(tmp_path):
    """The page of four pictures and an order that failed, newest first: fox 4, 3, 2, 1, the failure."""
    folder = tmp_path / "few"
    put_record(folder, 0, request={"prompt": "a refused owl", "n": 1}, status="failed",
               error={"code": "task_failed", "message": "refused by the service"})
    for number in range(1, 5):
        put_picture(folder, f"fox {number}.png", number, f"fox {number}\nin <snow> & \"rain\"", width=300, height=200)
    return (gallery.write_page(str(folder)), folder)[1]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The page of 300 pictures of three shapes."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(300):
        put_picture(folder, f"picture {number}.png", number, f"number {number} " + "words " * (number % 40),
                    width=(64, 96, 64)[number % 3], height=(64, 64, 96)[number % 3])
    gallery.write_page(str(folder))
    return folder


@pytest.fixture(scope="module")
def serve():
    """serve(folder) -> the address of its page over http."""
    servers = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_words):
            pass

        def do_GET(self):
            if self.path == "/favicon.ico":  # every browser asks the page's own server for it
                self.send_response(204)
                self.end_headers()
            else:
                super().do_GET()

    def served(folder):
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return "http://127.0.0.1:%d/index.html" % servers[-1].server_address[1]

    yield served
    for server in servers:
        server.shutdown()
        server.server_close()


def on_disk(folder):
    return (folder / "index.html").as_uri()


def shown(page):
    return [text.partition(" in ")[0] for text in page.locator(".card:visible .prompt").all_inner_texts()]


def has_focus(page, selector):
    return page.evaluate("selector => document.activeElement.matches(selector)", selector)


# --- what it may not do


def test_hostile_records_run_nothing_and_ask_for_nothing(tmp_path, visit):
    put_picture(tmp_path, "fox.png", 1, HOSTILE, status=HOSTILE, image={"revised_prompt": HOSTILE + "!"})
    put_record(tmp_path, 0, request={"prompt": HOSTILE, "n": 1}, error={"code": "task_failed", "message": HOSTILE})
    gallery.write_page(str(tmp_path))
    page, heard = visit(on_disk(tmp_path))
    page.locator("#filter").fill("<script>")
    assert 2 == page.locator(".card:visible").count()
    page.locator("a.box").click()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert [] == heard.trouble
    assert {"fox.png"} == {url.rpartition("/")[2] for url in heard.pictures}
    assert HOSTILE.replace("\u202e", "") == page.locator("dialog .prompt").inner_text()


@needs_posix
@pytest.mark.parametrize("how", ["file", "http"])
def test_every_file_name_shows_its_picture(tmp_path, visit, serve, how):
    for number, name in enumerate(ODD_NAMES):
        put_picture(tmp_path, name, number, width=number + 10)
    gallery.write_page(str(tmp_path))
    page, heard = visit(serve(tmp_path) if how == "http" else on_disk(tmp_path), (1280, 2400))
    page.wait_for_load_state("networkidle")
    widths = page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert list(range(len(ODD_NAMES) + 9, 9, -1)) == widths
    assert [] == heard.trouble


def test_the_policy_stops_what_the_page_does_not_bring(few, visit):
    page, heard = visit(on_disk(few))
    page.evaluate("""() => {
        const script = document.createElement("script"), style = document.createElement("style");
        try { script.text = "document.title = 'taken'"; } catch {}
        style.textContent = "h1 { font-size: 99px }";
        document.body.append(script, style, Object.assign(new Image(), { src: "http://127.0.0.1:9/x.png" }));
        fetch("http://127.0.0.1:9/").catch(() => 0);
    }""")
    page.wait_for_function("performance.now() > 0")
    page.wait_for_timeout(200)
    assert "few" == page.title()
    assert "99px" != page.evaluate("getComputedStyle(document.querySelector('h1')).fontSize")
    assert {"policy: inline", "policy: http://127.0.0.1:9/x.png", "policy: http://127.0.0.1:9/"} <= set(heard.trouble)


# --- by keyboard


def test_the_keyboard_alone_filters_opens_goes_on_copies_and_comes_back(few, visit):
    page, heard = visit(on_disk(few))
    key = page.keyboard.press
    key("Tab")
    assert has_focus(page, "#filter")
    page.keyboard.type("SNOW fox")
    assert ["fox 4", "fox 3", "fox 2", "fox 1"] == shown(page)
    assert "4 of 5" == page.locator("output").inner_text()
    key("Tab")
    assert has_focus(page, ".card a.box")
    key("Enter")
    assert "1 / 4" == page.locator("#place").inner_text()
    for name, place in (("ArrowRight", "2 / 4"), ("ArrowLeft", "1 / 4"), ("ArrowLeft", "4 / 4"), ("ArrowRight", "1 / 4"),
                        ("ArrowRight", "2 / 4")):
        key(name)
        assert place == page.locator("#place").inner_text()
    assert "fox 3" in page.locator("dialog .prompt").inner_text()
    key("Tab")
    assert has_focus(page, "dialog .copy")
    key("Enter")
    page.locator("dialog .copy", has_text="Copied").wait_for()
    key("Escape")
    assert not page.locator("dialog").is_visible()
    assert "fox 3" in page.evaluate("document.activeElement.closest('.card').textContent")
    key("Shift+Tab")
    key("Shift+Tab")
    key("Shift+Tab")
    assert has_focus(page, "#filter")
    key("Control+A")
    key("Control+V")
    assert 'fox 3 in <snow> & "rain"' == page.locator("#filter").input_value().replace("\n", " ")
    assert [] == heard.trouble


@pytest.mark.parametrize("large", [False, True])
def test_copying_works_where_the_clipboard_is_kept_from_the_page(few, visit, large):
    page, heard = visit(on_disk(few), script="Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.evaluate("""addEventListener("copy", () => window.taken = document.activeElement.value)""")
    if large:
        page.locator(".box").first.click()
    button = page.locator("dialog .copy" if large else ".card .copy").first
    button.focus()
    page.keyboard.press("Enter")
    assert "Copied" == button.inner_text()
    assert 'fox 4\nin <snow> & "rain"' == page.evaluate("taken")
    assert has_focus(page, ".copy")
    assert "Copied: the prompt" in page.locator("[role=status].unseen").all_text_contents()
    assert [] == heard.trouble


def test_a_failed_order_opens_with_its_reason(few, visit):
    page, _ = visit(on_disk(few))
    page.locator(".failed .box").click()
    words = page.locator("dialog").inner_text()
    assert "refused by the service" in words
    assert "may have been charged" in words
    assert not page.locator("dialog .open").is_visible()


def test_a_click_beside_the_large_picture_closes_it(few, visit):
    page, _ = visit(on_disk(few))
    page.locator(".box").first.click()
    page.locator(".stage img").click()
    assert page.locator("dialog").is_visible()
    page.mouse.click(5, 5)
    assert not page.locator("dialog").is_visible()


def test_nothing_found_is_said(few, visit):
    page, _ = visit(on_disk(few))
    page.locator("#filter").fill("whale")
    assert ("0 of 5", True) == (page.locator("output").inner_text(), page.locator("#empty").is_visible())
    page.locator("#filter").fill("failed")
    assert ["a refused owl"] == shown(page)


def test_what_has_the_focus_shows_it(few, visit):
    page, _ = visit(on_disk(few))
    for _ in range(4):
        page.keyboard.press("Tab")
        style = page.evaluate("(s => [s.outlineStyle, s.outlineWidth])(getComputedStyle(document.activeElement))")
        assert ["solid", "2px"] == style


def test_without_scripts_every_picture_and_fact_is_there(few, visit):
    page, _ = visit(on_disk(few), java_script_enabled=False)
    assert 5 == page.locator(".facts:visible").count()
    assert not page.locator("#filter").is_visible()


# --- many pictures, small screens, both themes


SHIFTS = """window.shifts = [];
    new PerformanceObserver(list => list.getEntries().forEach(entry => window.shifts.push(
        [entry.value, ...entry.sources.map(source => source.node && source.node.className)])))
    .observe({ type: "layout-shift", buffered: true });"""


def test_of_300_pictures_only_the_near_ones_are_loaded_and_nothing_jumps(many, visit, serve):
    page, heard = visit(serve(many), script=SHIFTS)
    page.wait_for_load_state("networkidle")
    at_first = len(heard.pictures)
    assert 4 <= at_first <= 60
    page.mouse.move(600, 500)
    for _ in range(6):
        page.mouse.wheel(0, 700)
        page.wait_for_timeout(60)
    page.wait_for_load_state("networkidle")
    assert at_first < len(heard.pictures) < 150
    assert [] == page.evaluate("shifts")
    assert [] == heard.trouble


def test_a_page_of_300_pictures_answers_at_once_and_filters_within_a_blink(many, visit):
    begun = time.monotonic()
    page, _ = visit(on_disk(many))
    page.locator("#filter").fill("number 299")
    assert 1 == page.locator(".card:visible").count()
    assert time.monotonic() - begun < 5  # seen: 1 s on two cores that had nine other things to do
    spent_ms = page.evaluate("""() => {
        const filter = document.querySelector("#filter"), begun = performance.now();
        for (const words of ["n", "number 2", "words", "nothing", ""]) {
            filter.value = words;
            filter.dispatchEvent(new Event("input"));
            document.body.offsetHeight;
        }
        return (performance.now() - begun) / 5;
    }""")
    assert spent_ms < 150


def test_a_narrow_screen_is_never_scrolled_sideways(tmp_path, visit):
    put_picture(tmp_path, "f" * 200 + ".png", 1, "word" * 500, width=1000, height=10, task_id="t" * 128)
    put_picture(tmp_path, "tall.png", 2, "a\n" * 300, width=10, height=1000)
    put_record(tmp_path, 3, request={"prompt": "W" * 900}, error={"message": "M" * 400}, status="s" * 40)
    gallery.write_page(str(tmp_path))
    page, _ = visit(on_disk(tmp_path), NARROW)
    for number in range(3):
        assert 0 >= page.evaluate("document.documentElement.scrollWidth - innerWidth")
        page.locator(".box").nth(number).click()
        inside = page.evaluate("[...document.querySelectorAll('dialog, .stage, .label')]"
                               ".map(part => part.scrollWidth - part.clientWidth)")
        assert [0, 0, 0] == inside
        page.keyboard.press("Escape")
    assert 3 * [True] == page.evaluate("[...document.querySelectorAll('.card')].map(card => card.offsetWidth > 280)")


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_large_view_shows_the_whole_picture(tmp_path, visit, size):
    for number, (width, height) in enumerate([(3000, 200), (200, 3000), (1500, 1500)]):
        put_picture(tmp_path, f"{number}.png", number, "word " * 400, width=width, height=height)
    gallery.write_page(str(tmp_path))
    page, _ = visit(on_disk(tmp_path), size)
    page.locator(".box").first.click()
    for ratio in (1.0, 200 / 3000, 15.0):
        page.wait_for_function("document.querySelector('.stage img').complete")
        stage, picture = (page.locator(one).bounding_box() for one in (".stage", ".stage img"))
        assert picture["x"] >= stage["x"] and picture["x"] + picture["width"] <= stage["x"] + stage["width"] + 0.5
        assert picture["y"] >= stage["y"] and picture["y"] + picture["height"] <= stage["y"] + stage["height"] + 0.5
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
def test_both_themes_are_readable(few, visit, scheme, is_dark):
    page, _ = visit(on_disk(few), color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert is_dark is (sum(paper) < 200)
    ratios = page.evaluate(CONTRAST, ["h1", ".prompt", ".summary", ".status", ".copy", ".failed .status", ".facts dt"])
    assert min(ratios) >= 4.5


def test_motion_is_left_out_where_it_is_not_wanted(few, visit):
    page, _ = visit(on_disk(few), reduced_motion="reduce")
    page.locator(".box").first.click()
    assert [] == page.evaluate("document.getAnimations().map(animation => animation.animationName)")
    assert "0s" == page.evaluate("getComputedStyle(document.querySelector('.box img')).transitionDuration")
