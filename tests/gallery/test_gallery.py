"""The page of a folder, read as HTML: what it shows, what it must never show, and what it leaves alone."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import os
import re
from pathlib import Path
from typing import Any, Callable
from urllib.parse import unquote, urlsplit

import pytest
from galleries import CREATED_S, HOSTILE, put_picture, put_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image2_cli.errors import Image2Error
from image2_cli.gallery import gallery
from image2_cli.order.record import ImageError, SavedImage, moment
from platforms import WINDOWS, needs_posix

ODD_NAMES = ["a b.png", "quo'te\".png", "ha#sh.png", "100%41.png", "what?.png", "雪地里的狐狸.png", "new\nline.png",
             "javascript:alert(1).png", "<b>&amp;.png", "back\\slash.png"]  # as POSIX takes them


class Page(html.parser.HTMLParser):
    """The page as a browser's parser sees it: every element, and the text by class of the nearest classed element."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.text = Path(path).read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: dict[str, list[str]] = {}
        self._open: list[str] = []  # the classes of the elements around
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input"):
            self._open.append(dict(attrs).get("class", ""))

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, text: str) -> None:
        self.words.setdefault(next((name for name in reversed(self._open) if name not in ("", "t")), ""), []).append(text)

    def all(self, tag: str, cls: str = "") -> list[dict[str, str]]:
        return [found for name, found in self.elements if name == tag and cls in found.get("class", "")]

    @property
    def kinds(self) -> list[str]:
        """The kinds of the cards from the top."""
        return [found["class"].split()[1] for found in self.all("li", "card")]

    @property
    def shown(self) -> list[str]:
        """The files shown, from the top."""
        return [unquote(image["src"])[2:] for image in self.all("img")]


def made(folder: Path) -> Page:
    return Page(gallery.write_page(str(folder))[0])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- pictures and their order


def test_pictures_stand_newest_first_and_a_batch_in_its_own_order_where_its_newest_would(tmp_path: Path) -> None:
    for number, line in enumerate((2, 1, 3), 10):
        put_picture(tmp_path, f"first-{line}.png", number, batch_line=line)
    for number, line in enumerate((3, 1), 30):  # ordered again: the same lines are another batch
        put_picture(tmp_path, f"again-{line}.png", number, batch_line=line)
    for number, name in ((5, "before.png"), (20, "between.png"), (40, "after.png")):
        put_picture(tmp_path, name, number)
    assert ["after.png", "again-1.png", "again-3.png", "between.png", "first-1.png", "first-2.png", "first-3.png",
            "before.png"] == made(tmp_path).shown
    assert "a fox, number 40" == made(tmp_path).all("img")[0]["alt"]


def test_any_file_name_becomes_a_relative_link_to_that_file(tmp_path: Path) -> None:
    names = [name for name in ODD_NAMES if not WINDOWS or not set(name) & set('\\:*?"<>|\n')]
    for number, name in enumerate(names):
        put_picture(tmp_path, name, -number)
    page = made(tmp_path)
    urls = [image["src"] for image in page.all("img")]
    assert names == page.shown
    assert urls == [link["href"] for link in page.all("a", "box")]
    assert {("", "", "", "")} == {(url.scheme, url.netloc, url.query, url.fragment) for url in map(urlsplit, urls)}


def test_a_picture_says_size_further_fields_status_task_file_and_cost(tmp_path: Path) -> None:
    request = {"prompt": "a fox", "size": "auto", "n": 1, "model": "m", "image": ["https://x/y.png"], "async": True,
               "quality": "high", "seed": 7, "hd": True, "style": {"deep": []}}
    put_picture(tmp_path, width=400, height=8, request=request, task_id="task-77", image={"revised_prompt": "a red fox"})
    page = made(tmp_path)
    facts = [text for text in page.words["facts"] if text.strip()]
    assert ["Revised prompt", "a red fox", "Status", "completed", "Size", "400×8",
            "Further fields", "quality high · seed 7 · hd true · style",
            "Cost", "charged", "Task", "task-77", "File", "fox.png", "Ordered", moment(CREATED_S)] == facts
    assert ["400×8 · quality high · seed 7 · hd true · style"] == page.words["size"]
    assert "status" not in page.words, "that it came, everybody sees"


def test_a_picture_of_the_sandbox_cost_nothing_and_a_prompt_that_was_kept_is_told_once(tmp_path: Path) -> None:
    put_picture(tmp_path, prompt="a fox", service="sandbox", image={"revised_prompt": "a fox"})
    facts = " ".join(made(tmp_path).words["facts"])
    assert "Revised prompt" not in facts
    assert "not charged  (sandbox)" in facts


def test_a_file_that_was_replaced_is_not_shown_under_the_older_prompt(tmp_path: Path) -> None:
    for number, prompt in enumerate(("the older prompt", "the later prompt")):
        put_picture(tmp_path, "fox.png", number, prompt)
    page = made(tmp_path)
    assert (["picture", "replaced"], ["the later prompt"]) == (page.kinds, [image["alt"] for image in page.all("img")])


# --- orders without their pictures


@pytest.mark.parametrize(("fields", "kind", "cost"), [
    ({"state": "failed", "request": {"prompt": "of an unknown number"}}, "failed", "may have been charged"),
    ({"state": "accepted"}, "unfinished", "charged"),
    ({"state": "sending"}, "unknown", "may have been charged"),
    ({"state": "unknown"}, "unknown", "may have been charged"),
    ({"state": "not_sent"}, "not_accepted", "not charged"),
    ({"state": "linked", "images": [SavedImage(0, url="https://image2.vip/a.png")]}, "linked", "charged"),
    ({"state": "saved"}, "failed", "charged"),
    ({"state": "partial"}, "failed", "charged"),
    ({"state": "failed", "service": "sandbox"}, "failed", "not charged"),
])
def test_an_order_without_pictures_says_its_end_its_reason_and_its_cost(
        tmp_path: Path, fields: dict[str, Any], kind: str, cost: str) -> None:
    put_record(tmp_path, server_message="words", **fields)
    page = made(tmp_path)
    said = {text.strip() for text in page.words["facts"]} - {"", "(sandbox)"}
    assert [kind] == page.kinds
    assert {"Status", *gallery.KINDS[kind], "words", "Cost", cost, "Task", "task-0", "Ordered", moment(CREATED_S)} == said
    assert "image2.vip" not in page.text


def test_of_what_is_not_there_an_order_says_each_kind_once(tmp_path: Path) -> None:
    put_picture(tmp_path, "there.png")
    refused = [SavedImage(index, error=ImageError("task_failed", server_message=f"refused {index}")) for index in (1, 2)]
    damaged = SavedImage(3, file="fox.png.damaged", error=ImageError("damaged"))
    put_record(tmp_path, 1, state="partial", request={"prompt": "six", "n": 6},
               images=[SavedImage(0, file="there.png"), *refused, damaged, SavedImage(4, file="gone.png")])
    put_record(tmp_path, 2, state="accepted", images=[SavedImage(0, file="not-yet.png")])
    path, counts = gallery.write_page(str(tmp_path))
    page = Page(path)
    assert ["unfinished", "picture", "failed", "damaged", "missing", "replaced"] == page.kinds
    assert {"images": 1, "failed": 1, "missing": 1, "replaced": 1, "damaged": 1, "unfinished": 1} == counts
    assert " refused 1" in page.words["facts"]


# --- hostile records


def test_nothing_in_a_record_is_markup(tmp_path: Path) -> None:
    def shape(page: Page) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(found)) for tag, found in page.elements if tag not in ("dt", "dd", "span")]

    put_picture(tmp_path, "plain.png", 1)
    plain = made(tmp_path)
    put_picture(tmp_path, "plain.png", 1, status=HOSTILE, image={"revised_prompt": HOSTILE, "url": HOSTILE},
                request={"prompt": HOSTILE, "size": HOSTILE, HOSTILE: HOSTILE})
    hostile = made(tmp_path)
    assert shape(plain) == shape(hostile)
    assert HOSTILE == "".join(hostile.words["prompt"]).strip()


def test_only_regular_pictures_of_the_folder_itself_are_shown(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    put_picture(folder, "fox.png", 1)
    for path in (tmp_path / "outside.png", folder / "notes.txt"):
        path.write_bytes(b"private")
    (folder / "folder.png").mkdir()
    if not WINDOWS:
        (folder / "linked.png").symlink_to(tmp_path / "outside.png")
        os.mkfifo(folder / "pipe.png")
    names = ["/etc/passwd", "../outside.png", str(tmp_path / "outside.png"), "javascript:alert(1)", "data:,x", "\0.png",
             "notes.txt", "linked.png", "pipe.png", "folder.png", "..", "x" * 5000 + ".png"]
    for number, name in enumerate(names, 2):
        put_record(folder, number, images=[SavedImage(0, file=name)])
    page = made(folder)
    assert ["fox.png"] == page.shown
    assert ["./fox.png"] == [link["href"] for link in page.all("a") if "href" in link]
    assert set(page.kinds) == {"missing", "failed", "picture"}  # "failed": a saved one without a name that a file can have


def test_what_the_eye_cannot_see_does_not_reach_the_page_and_huge_texts_are_cut(tmp_path: Path) -> None:
    put_picture(tmp_path, prompt="a\u202efox\u2066 \x00\x1b[31m\U000e0041 👩🚀\nnext")
    assert ["afox [31m 👩🚀\nnext"] == made(tmp_path).words["prompt"]
    put_picture(tmp_path, prompt="x" * 900_000)
    page = made(tmp_path)
    assert 32_001 == len(page.words["prompt"][0])
    assert 251 >= len(page.all("img")[0]["alt"])
    assert 60_000 > len(page.text)


ANY = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("fox.png"),
                   lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))
IMAGES = st.lists(st.fixed_dictionaries({}, optional={
    name: ANY for name in ("file", "width", "height", "revised_prompt", "error", "url")}), max_size=4)
FIELDS = {name: ANY for name in ("created_s", "request", "status", "server_message", "batch_line", "task_id", "error_code")}


@settings(max_examples=50, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wrong=st.fixed_dictionaries({}, optional={**FIELDS, "images": IMAGES | ANY}))
def test_records_of_any_content_still_make_a_page(tmp_path: Path, wrong: dict[str, Any]) -> None:
    put_picture(tmp_path, "good.png", 1)
    (tmp_path / "fox.png").write_bytes(b"x")
    record = put_record(tmp_path, 2)
    (path,) = (tmp_path / ".image2").rglob(f"{record.fingerprint}*")
    path.write_text(json.dumps({**json.loads(record.as_text()), **wrong}), encoding="ascii")
    page = made(tmp_path)
    assert "picture" in page.kinds
    assert set(page.shown) <= {"fox.png", "good.png"}


# --- the page itself


def test_only_the_hashed_style_and_script_may_run_and_nothing_is_asked_elsewhere(tmp_path: Path) -> None:
    put_picture(tmp_path, prompt=HOSTILE)
    page = made(tmp_path)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for name in ("style", "script"):
        (inside,) = re.findall(f"<{name}>(.*?)</{name}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"'sha256-{digest}'" == rules[f"{name}-src"]
        assert not re.search(r"(https?:)?//[a-z]", inside)
    assert ("'none'", "'self' file:", "'none'", "'none'") == tuple(
        rules[name] for name in ("default-src", "img-src", "base-uri", "form-action"))
    assert page.text.index("Content-Security-Policy") < page.text.index("<title>") < page.text.index("<style>")
    for tag, found in page.elements:
        assert tag not in ("link", "iframe", "object", "base", "form")
        assert not [name for name in found if name.startswith("on") or name == "style"], (tag, found)


def test_the_template_is_small_begins_as_ours_and_knows_the_chinese_of_every_label() -> None:
    template = Path(gallery.TEMPLATE).read_bytes()
    assert len(template) < 13_900
    assert template.startswith(gallery.BEGINNING)
    chinese = set(re.findall(r'"([^"]+)": "[^"]*[\u4e00-\u9fff]', template.decode()))
    labels = {words for pair in gallery.KINDS.values() for words in pair if words} | set(gallery.CHARGED.values())
    assert labels <= chinese
    assert not re.search("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f]", template.decode())


# --- the file


@pytest.mark.parametrize("make", [
    lambda path: path.write_text("mine"), Path.mkdir,
    pytest.param(lambda path: os.mkfifo(path), marks=needs_posix, id="a pipe"),
    pytest.param(lambda path: path.symlink_to("nowhere"), marks=needs_posix, id="a dangling link"),
    pytest.param(lambda path: path.symlink_to("/dev/zero"), marks=needs_posix, id="a link to what never ends")])
def test_what_is_not_ours_is_left_alone_and_the_page_gets_the_next_name(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    put_picture(tmp_path)
    make(tmp_path / "index.html")
    before = os.lstat(tmp_path / "index.html")
    for _ in range(2):
        assert str(tmp_path / "index-2.html") == gallery.write_page(str(tmp_path))[0]
    after = os.lstat(tmp_path / "index.html")
    assert (before.st_mode, before.st_ino, before.st_mtime) == (after.st_mode, after.st_ino, after.st_mtime)
    assert not (tmp_path / "nowhere").exists()


def test_the_page_follows_its_folder_and_one_that_cannot_be_written_leaves_the_old_one_whole(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        put_picture(tmp_path, f"{number}.png", number)
        before = files(tmp_path)
        assert (str(tmp_path / "index.html"), {"images": number, "failed": 0}) == gallery.write_page(str(tmp_path))
        assert before != files(tmp_path)
        assert {**before, "index.html": b""} == {**files(tmp_path), "index.html": b""}  # nothing else is written
    before = files(tmp_path)

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(Image2Error) as caught:
        gallery.write_page(str(tmp_path))
    assert ("output_not_writable", before) == (caught.value.code, files(tmp_path))


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: (folder / ".image2").mkdir(parents=True)])
def test_a_folder_without_records_is_a_usage_error_and_stays_as_it_was(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    folder = tmp_path / "out put"
    make(folder)
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(Image2Error, match="generate --out") as caught:
        gallery.write_page(str(folder))
    assert ("usage", before) == (caught.value.code, sorted(map(str, tmp_path.rglob("*"))))


# --- the verb


def test_gallery_after_generate_shows_what_was_made(run: Callable[..., Any], project: Path) -> None:
    assert 0 == run("generate", "a red fox", "--out", "made", "--n", "2", "--poll-interval", "0.05").exit
    done = run("gallery", "made")
    assert (0, {"images": 2, "failed": 0}) == (done.exit, done.json["counts"])
    assert ["a red fox"] * 2 == [image["alt"] for image in Page(done.json["gallery"]).all("img")]


