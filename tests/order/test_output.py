"""Where pictures go: what `--out` means, whether it can be written, and names every file system takes."""

import os
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image2_cli.errors import Image2Error
from image2_cli.order import output
from image2_cli.order.output import Output, extension_for, first_number, mistake, path_of, resolve, room_mistake, slug
from platforms import needs_posix

quick = settings(max_examples=150, deadline=None, database=None)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- what --out means


@pytest.mark.parametrize(("out", "expected"), [
    ("", ("image2-output", None, None)), ("../v1.2", ("../v1.2", None, None)), ("fox.png/", ("fox.png", None, None)),
    (".png", (".png", None, None)), ("~/fox.png", (".", "fox", ".png")), ("a.pdf/a:b.png", ("a.pdf", "a:b", ".png")),
    *((f"a.b{ending}", (".", "a.b", ending)) for ending in (".JPG", ".jpeg", ".webp", ".gif", ".avif"))])
@needs_posix
def test_a_path_that_ends_like_an_image_is_a_file_and_anything_else_a_folder(out, expected, monkeypatch, folder):
    monkeypatch.setenv("HOME", str(folder))
    found = resolve(out)
    assert expected == (os.path.relpath(found.folder), found.stem, found.suffix)
    assert os.path.isabs(found.folder) and mistake(found, "posix") is None
    assert [] == list(folder.iterdir())  # looking makes nothing


@needs_posix
def test_a_working_folder_that_is_gone_is_said_so(folder, monkeypatch):
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    with pytest.raises(Image2Error, match="deleted"):
        resolve("icons")
    assert Output("/tmp/icons") == resolve("/tmp/icons")


# --- whether it can be written


@pytest.mark.parametrize(("out", "words"), [
    ("a/logo.svg", 'type "logo.png"'), ("x.BMP", 'type "x.png"'), ("folder.png", "is a folder with a picture's ending"),
    *((out, "taken\" is a file in the way of the folder") for out in ("taken", "taken/below/fox.png")),
    *(pytest.param(*row, marks=needs_posix) for row in [
        ("link", "link\" is a file in the way of the folder"),
        ("fox.png ", "blank at its end"), ("folder ", "blank at its end"),
        ("caf\udce9", "is no UTF-8"),  # `next` named another folder, and the batch there was paid a second time
        *((out, "not writable") for out in ("new/" + "x" * 248 + ".png", "/".join(["x" * 200] * 25), "a\0b"))])])
def test_where_no_picture_can_be_written_is_told_before_paying(out, words, folder):
    (folder / "taken").write_text("mine")
    (folder / "folder.png").mkdir()
    if os.name != "nt":
        (folder / "link").symlink_to("nowhere")
    said = mistake(resolve(out))
    assert said.startswith("--out") and words in said and len(said) < 350


def test_an_existing_folder_may_be_called_anything_and_a_file_is_no_mistake(folder):
    for name in ("logo.svg", "fox.png"):
        (folder / name).mkdir()
    (folder / "dog.png").write_text("mine")
    assert [None] * 3 == [mistake(resolve(out)) for out in ("logo.svg", "fox.png/", "dog.png")]


@pytest.mark.parametrize(("path", "words"), [
    ("C:\\x\\NUL", "device"), ("/x/aux/fox.png", "device"), ("C:/x/com1.tar.png", "device"), ("C:/x/nul .png", "device"),
    ("C:/x/a:b.png", "no name on Windows"), ("C:/x/dot./fox.png", "no name"), ("//server/share/../com10.png", None),
    ("\\\\?\\C:\\x\\fox.png", None)])
def test_names_that_windows_cannot_have_are_refused_there_and_only_there(path, words):
    said = output._name_mistake(path, "nt")
    assert said is None if words is None else words in said
    assert output._name_mistake(path, "posix") is None


def test_too_little_room_is_a_mistake_of_its_own(monkeypatch, folder):
    """It must never stand before a picture that is paid for."""
    assert room_mistake(str(folder), 1) is None and "MB free" in room_mistake(str(folder), 2**40)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=40 << 20))
    assert (None, None) == (room_mistake(str(folder / "not" / "yet"), 2), mistake(resolve(None)))
    assert "has 40 MB free, 48 are wanted for 3 images" in room_mistake(str(folder / "not" / "yet"), 3)


# --- names


@pytest.mark.parametrize(("text", "expected"), [
    ("A red fox, in SNOW!", "a-red-fox-in-snow"), ("../../etc/passwd", "etc-passwd"), ("...", "image"), (None, "image"),
    ("LPT9!", "image-lpt9"), ("nul and void", "nul-and-void"), ("snake_case", "snake-case"), ("\ud800x", "x"),
    ("word " * 20, "-".join(["word"] * 8)), ("x" * 32 + " " + "y" * 7, "x" * 32 + "-" + "y" * 7),
    ("x" * 32 + " " + "y" * 8, "x" * 32), ("🦊️ fox", "fox"), ("𠮷" * 40, "𠮷" * 24),
    ("สุนัขจิ้งจอก ในหิมะ", "สุนัขจิ้งจอก-ในหิมะ"),
    ("ثَعْلَبٌ أَحْمَر", unicodedata.normalize("NFC", "ثَعْلَبٌ-أَحْمَر")),
    (unicodedata.normalize("NFD", "Con cáo đỏ"), "con-cáo-đỏ"), ("İSTANBUL", "i\u0307stanbul"),
    ("\u0301 fox", "fox"), ("नमस्ते" * 20, "नमस्ते" * 5 + "नम")])
def test_a_files_stem_is_the_prompts_first_words_with_their_marks(text, expected):
    assert expected == slug(text)


@quick
@given(TEXT)
def test_any_text_gives_a_name_every_file_system_takes(text):
    stem = slug(text)
    assert stem and len(stem) <= 46 and len(stem.encode("utf-8")) <= 106 and stem == unicodedata.normalize("NFC", stem)
    assert not [char for char in stem if unicodedata.category(char)[0] in "CZSP" and char != "-"]
    assert stem[0].isalnum() and stem[-1] != "-" and output._name_mistake(stem + ".png", "nt") is None


def test_the_first_name_has_no_number_and_taken_ones_are_passed_over_whatever_their_ending(folder):
    place = resolve(None)
    assert [os.path.join(place.folder, name) for name in ("fox.png", "fox-2.png", "fox-10.webp")] == [
        path_of(place, "fox", 1, ".png"), path_of(place, "fox", 2, ".png"), path_of(place, "fox", 10, ".webp")]
    os.mkdir(place.folder)
    assert 1 == first_number(place, "fox", 4)
    for taken, count, expected in (("fox.webp", 1, 2), ("fox-4.gif", 2, 2), ("fox-4.gif", 3, 5), ("fox-2.avif", 1, 3)):
        open(os.path.join(place.folder, taken), "w").close()
        assert expected == first_number(place, "fox", count)
    assert (1, 1) == (first_number(place, "dog", 4), first_number(place._replace(overwrite=True), "fox", 4))


@pytest.mark.parametrize(("suffix", "saved", "expected"), [
    (None, ".bmp", ".bmp"), (".PNG", ".png", ".PNG"), (".JPEG", ".jpg", ".JPEG"), (".png", ".jpg", ".jpg"),
    (".png", ".png.damaged", ".png.damaged")])
def test_the_bytes_decide_on_the_ending_and_the_user_on_its_spelling(suffix, saved, expected):
    assert expected == extension_for(Output("/out", "fox" if suffix else None, suffix), saved)
