"""The page of a folder, read as HTML: what it shows, what it must never show, and what it leaves alone."""

import base64
import hashlib
import html.parser
import os
import re
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from galleries import ODD_NAMES, put_picture, put_record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image2_cli.errors import Image2Error
from image2_cli.gallery import gallery, gallery_page
from platforms import WINDOWS, needs_posix

HOSTILE = ("</script></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'>"
           "<a href=javascript:alert(3)>&lt;{{cards}}")


class Page(html.parser.HTMLParser):
    """The page as a browser's parser sees it: every element, and the text by class of the nearest classed element."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "input"):
            self._open.append((tag, dict(attributes).get("class")))

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, text):
        name = next((name for _, name in reversed(self._open) if name), self._open[-1][0] if self._open else "")
        self.words.setdefault(name, []).append(text)

    def all(self, tag, cls=None):
        return [attributes for name, attributes in self.elements
                if name == tag and (cls is None or cls in (attributes.get("class") or "").split())]

    @property
    def kinds(self):
        """The kinds of the cards from the top."""
        return [attributes["class"].split()[1] for attributes in self.all("li", "card")]


def made(folder) -> Page:
    return Page(Path(gallery.write_page(str(folder))[0]).read_text(encoding="utf-8"))


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


# --- pictures


def test_pictures_stand_newest_first_with_their_prompts(tmp_path):
    for number, name in ((0, "old.png"), (9, "new.png"), (4, "middle.png")):
        put_picture(tmp_path, name, number)
    page = made(tmp_path)
    assert ["./new.png", "./middle.png", "./old.png"] == [image["src"] for image in page.all("img")]
    assert ["a fox, number 9", "a fox, number 4", "a fox, number 0"] == [image["alt"] for image in page.all("img")]


def test_any_file_name_becomes_a_relative_link_to_that_file(tmp_path):
    names = [name for name in ODD_NAMES if not WINDOWS or not set(name) & set('\\:*?"<>|\n')]
    for number, name in enumerate(names):
        put_picture(tmp_path, name, -number)
    page = made(tmp_path)
    urls = [image["src"] for image in page.all("img")]
    assert ["./" + name for name in names] == list(map(unquote, urls))
    assert urls == [link["href"] for link in page.all("a", "box")]
    assert {("", "", "", "")} == {(url.scheme, url.netloc, url.query, url.fragment) for url in map(urlsplit, urls)}


@needs_posix
def test_a_name_that_is_no_utf8_is_linked_byte_for_byte(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        put_picture(tmp_path, name)
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert "./caf%E9.png" == made(tmp_path).all("img")[0]["src"]


def test_a_picture_says_size_status_task_file_and_cost(tmp_path):
    put_picture(tmp_path, "fox.png", status="succeeded", task_id="task-77", image={"revised_prompt": "a red fox"})
    page = made(tmp_path)
    facts = " ".join(page.words["facts"])
    for words in ("48×32", "succeeded", "task-77", "fox.png", "charged", "a red fox"):
        assert words in facts
    assert ["48×32"] == page.words["size"]
    assert ["succeeded"] == page.words["status"]


def test_a_revised_prompt_that_is_the_prompt_is_not_told_twice(tmp_path):
    put_picture(tmp_path, prompt="a fox", image={"revised_prompt": " a  fox "})
    assert "Revised prompt" not in made(tmp_path).words["facts"]


def test_boxes_keep_the_pictures_shape_before_it_is_loaded(tmp_path):
    for number, (width, height) in enumerate([(48, 32), (32, 48), (400, 8)]):
        put_picture(tmp_path, f"{number}.png", number, width=width, height=height)
    page = made(tmp_path)
    assert [["card", "picture", "r240"], ["card", "picture", "r67"], ["card", "picture", "r150"]] == [
        card["class"].split() for card in page.all("li")]
    assert ".r150 { --ratio: 1.50 }" in "".join(page.words["style"])
    assert {("lazy", "async")} == {(image["loading"], image["decoding"]) for image in page.all("img")}


def test_a_moved_folder_still_finds_its_pictures(tmp_path):
    put_picture(tmp_path / "before", "a fox.png")
    (tmp_path / "before").rename(tmp_path / "after")
    assert ["./a%20fox.png"] == [image["src"] for image in made(tmp_path / "after").all("img")]


def test_a_picture_whose_file_is_gone_is_shown_as_missing(tmp_path):
    put_picture(tmp_path, "fox.png").unlink()
    path, counts = gallery.write_page(str(tmp_path))
    assert {"images": 0, "failed": 0, "missing": 1} == counts
    assert ["missing"] == Page(Path(path).read_text(encoding="utf-8")).kinds


def test_an_overwritten_picture_is_not_shown_under_the_older_prompt(tmp_path):
    put_picture(tmp_path, "fox.png", 1, "the older prompt")
    put_picture(tmp_path, "fox.png", 2, "the later prompt")
    page = made(tmp_path)
    assert ["picture", "replaced"] == page.kinds
    assert ["the later prompt"] == [image["alt"] for image in page.all("img")]


def test_a_placeholder_of_the_sandbox_says_so(tmp_path):
    put_picture(tmp_path, service="sandbox")
    assert "not charged (sandbox)" in made(tmp_path).words["facts"]


# --- orders without their pictures


@pytest.mark.parametrize(("fields", "kind", "cost"), [
    ({"state": "finished", "status": "failed", "error": {"code": "task_failed", "message": "words"}}, "failed",
     "May have been charged"),
    ({"state": "submitted", "error": {"code": "not_saved", "message": "words"}}, "unfinished", "Charged"),
    ({"state": "sending", "error": {"message": "words"}}, "unknown", "May have been charged"),
    ({"state": "not_sent", "error": {"message": "words"}}, "not_accepted", "Not charged"),
    ({"state": "finished", "error": {"message": "words"}, "service": "sandbox"}, "failed", "Not charged"),
])
def test_an_order_without_pictures_says_its_end_its_reason_and_its_cost(tmp_path, fields, kind, cost):
    put_record(tmp_path, **fields)
    page = made(tmp_path)
    assert [kind] == page.kinds
    assert ["words", cost] == [text for text in page.words["box"] if text.strip()][-2:]


def test_an_order_that_half_failed_shows_its_picture_and_the_failure(tmp_path):
    failed = {"index": 1, "path": None, "error": {"code": "task_failed", "message": "refused"}}
    picture = put_picture(tmp_path)
    put_record(tmp_path, request={"prompt": "two", "n": 2}, images=[
        {"index": 0, "path": str(picture), "width": 48, "height": 32, "error": None}, failed])
    path, counts = gallery.write_page(str(tmp_path))
    page = Page(Path(path).read_text(encoding="utf-8"))
    assert (["picture", "failed"], {"images": 1, "failed": 1}) == (page.kinds, counts)
    assert "refused" in page.words["box"]


def test_pictures_that_never_came_are_not_passed_over(tmp_path):
    picture = put_picture(tmp_path)
    put_record(tmp_path, request={"prompt": "three", "n": 3}, images=[{"index": 0, "path": str(picture)}])
    assert ["picture", "failed"] == made(tmp_path).kinds


def test_a_picture_named_but_not_there_yet_is_unfinished_not_missing(tmp_path):
    put_record(tmp_path, state="submitted", images=[{"index": 0, "path": str(tmp_path / "fox.png"), "error": None}])
    assert ["unfinished"] == made(tmp_path).kinds


def test_an_order_of_links_only_says_so(tmp_path):
    put_record(tmp_path, images=[{"index": 0, "path": None, "url": "https://image2.vip/a.png", "error": None}])
    page = made(tmp_path)
    assert ["not_downloaded"] == page.kinds
    assert "image2.vip" not in Path(tmp_path, "index.html").read_text(encoding="utf-8")


# --- hostile records


def test_nothing_in_a_record_is_markup(tmp_path):
    put_picture(tmp_path, "plain.png", 1)
    plain = made(tmp_path)
    put_picture(tmp_path, "plain.png", 1, HOSTILE, status=HOSTILE,
                image={"revised_prompt": HOSTILE + "!", "url": HOSTILE})
    hostile = made(tmp_path)
    shape = [(tag, sorted(attributes)) for tag, attributes in plain.elements]
    found = [(tag, sorted(attributes)) for tag, attributes in hostile.elements if tag not in ("dt", "dd")]
    assert [one for one in shape if one[0] not in ("dt", "dd")] == found
    assert HOSTILE == "".join(hostile.words["prompt"]).strip()


def test_only_pictures_inside_the_folder_are_shown(tmp_path):
    folder = tmp_path / "folder"
    put_picture(folder, "fox.png", 1)
    (tmp_path / "outside.png").write_bytes(b"private")
    (folder / "notes.txt").write_text("private")
    if not WINDOWS:
        (folder / "linked.png").symlink_to(tmp_path / "outside.png")
    paths = ["/etc/passwd", "../outside.png", "javascript:alert(1)", "https://evil.example/x.png", "//evil.example/x.png",
             "data:,x", "\0.png", "\ud800.png", "notes.txt", "linked.png", ".", "x" * 5000 + ".png", "", None]
    put_record(folder, 2, images=[{"index": index, "path": path, "error": None} for index, path in enumerate(paths)])
    page = made(folder)
    assert ["./fox.png"] == [image["src"] for image in page.all("img")]
    assert ["./fox.png"] == [link["href"] for link in page.all("a") if "href" in link]
    assert 12 * ["missing"] + ["not_downloaded", "picture"] == page.kinds


def test_what_the_eye_cannot_see_does_not_reach_the_page(tmp_path):
    put_picture(tmp_path, prompt="a\u202efox\u2066 \x00\x1b[31m\U000e0041 👩\u200d🚀\nnext")
    assert ["afox [31m 👩\u200d🚀\nnext"] == made(tmp_path).words["prompt"]


def test_huge_texts_are_cut(tmp_path):
    put_picture(tmp_path, prompt="x" * 900_000, status="s" * 9000)
    page = made(tmp_path)
    assert 32_001 == len(page.words["prompt"][0])
    assert 250 >= len(page.all("img")[0]["alt"])
    assert 60_000 > (tmp_path / "index.html").stat().st_size


def test_an_order_of_thousands_of_images_does_not_flood_the_page(tmp_path):
    put_record(tmp_path, images=[{"index": index, "path": "gone-%d.png" % index} for index in range(5000)])
    assert 70 > len(made(tmp_path).kinds)


ANY = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("fox.png"),
                   lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))
TEXT = st.none() | st.text() | st.just("fox.png")
FREE = {"request": st.fixed_dictionaries({}, optional={"prompt": ANY, "n": ANY, "size": ANY}), "error": ANY, "status": TEXT,
        "state": st.sampled_from(["finished", "submitted", "unknown"]), "created_s": st.none() | st.floats(0, 9e10),
        "images": st.lists(st.fixed_dictionaries({"index": st.integers()}, optional={
            "path": TEXT, "width": ANY, "height": ANY, "revised_prompt": TEXT,
            "error": st.none() | st.just({"message": 7})}))}
WRONG = {name: ANY for name in ("created_s", "state", "service", "request", "task_id", "status", "images", "error")}


@settings(max_examples=50, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(free=st.fixed_dictionaries({}, optional=FREE), wrong=st.fixed_dictionaries({}, optional=WRONG))
def test_records_of_any_content_and_types_still_make_a_page(tmp_path, free, wrong):
    put_picture(tmp_path, "good.png", 1)
    (tmp_path / "fox.png").write_bytes(b"x")
    put_record(tmp_path, 2, **free)
    put_record(tmp_path, 3, **wrong)
    page = made(tmp_path)
    assert len(page.kinds) >= 2
    assert {image["src"] for image in page.all("img")} <= {"./fox.png", "./good.png"}


# --- the page itself


def test_only_the_hashed_style_and_script_may_run(tmp_path):
    put_picture(tmp_path, prompt=HOSTILE)
    path, _ = gallery.write_page(str(tmp_path))
    text = Path(path).read_text(encoding="utf-8")
    page = Page(text)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for name in ("style", "script"):
        (inside,) = re.findall(f"<{name}>(.*?)</{name}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"'sha256-{digest}'" == rules[f"{name}-src"]
    assert ("'none'", "'self' file:", "'none'", "'none'") == tuple(
        rules[name] for name in ("default-src", "img-src", "base-uri", "form-action"))
    assert text.index("Content-Security-Policy") < text.index("<title>") < text.index("<style>")


def test_the_page_names_no_address_and_no_inline_handler(tmp_path):
    put_picture(tmp_path)
    page = made(tmp_path)
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
    assert not re.search(r"(https?:)?//[a-z]", "".join(page.words["style"]) + "".join(
        line for line in page.words["script"] if not line.strip().startswith("//")))
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.elements}


def test_a_checkout_with_windows_line_ends_makes_the_same_page(tmp_path, monkeypatch):
    put_picture(tmp_path)
    monkeypatch.setattr(gallery_page, "_moment", lambda seconds: "then")
    path, _ = gallery.write_page(str(tmp_path))
    expected = Path(path).read_bytes()
    windows = tmp_path / "windows.html"
    windows.write_bytes(Path(gallery_page.TEMPLATE).read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.setattr(gallery_page, "TEMPLATE", str(windows))
    gallery.write_page(str(tmp_path))
    assert expected == Path(path).read_bytes()


def test_every_element_that_acts_has_a_name(tmp_path):
    put_picture(tmp_path)
    page = made(tmp_path)
    assert all(image["alt"] for image in page.all("img"))
    assert all(field.get("aria-label") for field in page.all("input"))
    assert ["polite"] == [output["aria-live"] for output in page.all("output")]
    assert {"header", "main", "footer", "nav", "dialog"} <= {tag for tag, _ in page.elements}


def test_no_emoji_stands_in_the_template():
    template = Path(gallery_page.TEMPLATE).read_text(encoding="utf-8")
    assert not re.search("[\U0001f000-\U0001faff\u2600-\u27bf\ufe0f]", template)


# --- the file


def test_the_page_is_replaced_when_the_folder_has_grown_and_nothing_else_is_written(tmp_path):
    put_picture(tmp_path, "one.png", 1)
    gallery.write_page(str(tmp_path))
    put_picture(tmp_path, "two.png", 2)
    before = files(tmp_path)
    path, counts = gallery.write_page(str(tmp_path))
    assert ({"images": 2, "failed": 0}, str(tmp_path / "index.html")) == (counts, path)
    after = files(tmp_path)
    assert before.pop("index.html") != after.pop("index.html")
    assert before == after


@needs_posix
def test_the_marker_stands_at_the_top_however_long_the_title(tmp_path):
    folder = tmp_path / ("n" * 250)
    put_picture(folder)
    path, _ = gallery.write_page(str(folder))
    assert gallery.MARKER in Path(path).read_bytes()[:gallery.MARKER_WITHIN]


@pytest.mark.parametrize("content", [
    b"", b"x" * 3000 + b'<meta name="generator" content="image2 gallery">'])
def test_a_page_of_somebody_else_is_left_alone(tmp_path, content):
    put_picture(tmp_path)
    (tmp_path / "index.html").write_bytes(content)
    with pytest.raises(Image2Error) as caught:
        gallery.write_page(str(tmp_path))
    assert "usage" == caught.value.code
    assert "index.html" in caught.value.message
    assert content == (tmp_path / "index.html").read_bytes()


def linked_to_a_gallery(path):
    put_picture(path.parent / "other")
    path.symlink_to(gallery.write_page(str(path.parent / "other"))[0])


@pytest.mark.parametrize("make", [
    Path.mkdir, pytest.param(lambda path: os.mkfifo(path), marks=needs_posix, id="mkfifo"),
    pytest.param(lambda path: path.symlink_to("nowhere"), marks=needs_posix, id="a dangling link"),
    pytest.param(linked_to_a_gallery, marks=needs_posix)])
def test_a_folder_a_pipe_or_a_link_of_that_name_is_left_alone(tmp_path, make):
    put_picture(tmp_path)
    make(tmp_path / "index.html")
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(Image2Error, match="left alone"):
        gallery.write_page(str(tmp_path))
    assert before == sorted(map(str, tmp_path.rglob("*")))
    assert not (tmp_path / "index.html").is_file() or (tmp_path / "index.html").is_symlink()


def test_a_page_that_cannot_be_written_leaves_the_old_one_whole(tmp_path, monkeypatch):
    put_picture(tmp_path)
    path, _ = gallery.write_page(str(tmp_path))
    before = files(tmp_path)

    def refused(_from, _to):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(Image2Error) as caught:
        gallery.write_page(str(tmp_path))
    assert "output_not_writable" == caught.value.code
    assert before == files(tmp_path)


@needs_posix
def test_the_page_has_an_ordinary_files_mode(tmp_path):
    put_picture(tmp_path)
    mask = os.umask(0o022)
    try:
        path, _ = gallery.write_page(str(tmp_path))
    finally:
        os.umask(mask)
    assert 0o644 == stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("make", [lambda folder: None, lambda folder: (folder / ".image2").mkdir(parents=True)])
def test_a_folder_without_records_is_a_usage_error_and_stays_as_it_was(tmp_path, make):
    folder = tmp_path / "out put"
    make(folder)
    before = sorted(map(str, tmp_path.rglob("*")))
    with pytest.raises(Image2Error, match="generate --out") as caught:
        gallery.write_page(str(folder))
    assert "usage" == caught.value.code
    assert before == sorted(map(str, tmp_path.rglob("*")))


# --- the verb


def test_gallery_after_generate_shows_what_was_made(run, project):
    assert 0 == run("generate", "a red fox", "--out", "made", "--n", "2", "--poll-interval", "0.05").exit
    done = run("gallery", "made")
    assert (0, {"images": 2, "failed": 0}) == (done.exit, done.json["counts"])
    page = Page(Path(done.json["gallery"]).read_text(encoding="utf-8"))
    assert ["a red fox"] * 2 == [image["alt"] for image in page.all("img")]
    assert 2 == page.words["facts"].count("charged")


def test_gallery_of_a_folder_without_records_exits_2_and_says_what_to_name(run, project):
    done = run("gallery")
    assert (2, "usage") == (done.exit, done.json["error"]["code"])
    assert "image2-output" in done.json["error"]["message"]
    assert [] == list(project.iterdir())
