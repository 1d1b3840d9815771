"""Where pictures go: what `--out` means, whether it can be written, and names every file system takes."""

import os
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image2_cli.errors import Image2Error
from image2_cli.order import output as room
from image2_cli.order.output import Place, extension_for, first_number, mistake, path_of, resolve, slug
from platforms import needs_posix

quick = settings(max_examples=150, deadline=None, database=None)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
as_root = hasattr(os, "geteuid") and os.geteuid() == 0


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def facts(out, **more):
    place = resolve(out, **more)
    return os.path.relpath(place.folder), place.stem, place.suffix


# --- what --out means


@pytest.mark.parametrize(("out", "expected"), [
    (None, ("image2-output", None, None)), ("", ("image2-output", None, None)), ("a/b/", ("a/b", None, None)),
    (".", (".", None, None)), ("../x/y", ("../x/y", None, None)), ("v1.2", ("v1.2", None, None)),
    ("fox.tiff", ("fox.tiff", None, None)), ("fox.png/", ("fox.png", None, None)), (".png", (".png", None, None)),
    ("a/fox.JPG", ("a", "fox", ".JPG")), ("a.b.png", (".", "a.b", ".png")), ("狐狸.jpeg", (".", "狐狸", ".jpeg")),
    *((f"fox{ending}", (".", "fox", ending)) for ending in (".png", ".jpg", ".webp", ".gif", ".avif"))])
@needs_posix
def test_a_path_that_ends_like_an_image_is_a_file_and_anything_else_a_folder(out, expected):
    assert expected == facts(out)
    assert os.path.isabs(resolve(out).folder)


def test_a_path_may_start_at_home(monkeypatch, folder):
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    assert Place(str(folder / "pics"), "fox", ".png") == resolve("~/pics/fox.png")


def test_overwriting_is_kept_for_files_and_folders():
    assert (True, True, False, False) == tuple(
        resolve(out, flag).overwrite for flag in (True, False) for out in ("fox.png", "icons"))


@needs_posix
def test_a_working_folder_that_is_gone_is_said_so(folder, monkeypatch):
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    with pytest.raises(Image2Error) as caught:
        resolve("icons")
    assert "output_not_writable" == caught.value.code and "deleted" in caught.value.message
    assert Place("/tmp/icons") == resolve("/tmp/icons")


# --- whether it can be written


@pytest.mark.parametrize("out", [None, "a/b/c", "fox.png", ".", "a/" + "x" * 200 + ".png"])
def test_a_place_that_can_be_made_is_no_mistake_and_is_not_made_by_looking(out, folder):
    assert mistake(resolve(out), 10) is None
    assert [] == list(folder.iterdir())


@pytest.mark.parametrize("out", ["taken", "taken/below/it", "taken/fox.png", pytest.param("taken-link", marks=needs_posix)])
def test_a_file_or_a_dangling_link_in_the_way_is_named(out, folder):
    (folder / "taken").write_text("mine")
    if out == "taken-link":
        (folder / out).symlink_to("nowhere")
    wrong = mistake(resolve(out), 1)
    assert "is a file in the way of the folder" in wrong and "taken" in wrong


@needs_posix
@pytest.mark.parametrize("out", ["caf\udce9", "caf\udce9.png"])
def test_a_name_that_no_answer_could_tell_is_refused(out):
    """`next` named another folder, and the batch there was paid a second time."""
    assert "is no UTF-8" in mistake(resolve(out), 1)


def test_a_folder_that_is_called_like_a_picture_is_named_and_a_file_is_no_mistake(folder):
    (folder / "fox.png").mkdir()
    assert "is a folder with a picture's ending" in mistake(resolve("fox.png"), 1)
    assert mistake(resolve("fox.png/"), 1) is None
    (folder / "dog.png").write_text("mine")
    assert mistake(resolve("dog.png"), 1) is None


@needs_posix
@pytest.mark.parametrize("out", ["x" * 248 + ".png", "x" * 300, "/".join(["x" * 200] * 25), "a\0b", "a/b\0/c.png"])
def test_a_name_the_disk_cannot_take_is_found_before_paying(out):
    wrong = mistake(resolve(out), 1)
    assert wrong.startswith("--out ") and "not writable" in wrong and len(wrong) < 350


@needs_posix
@pytest.mark.skipif(as_root, reason="root may write everywhere")
def test_a_read_only_folder_is_found_before_paying(folder):
    (folder / "locked").mkdir(mode=0o500)
    for out in ("locked", "locked/below", "locked/fox.png"):
        assert "is not writable" in mistake(resolve(out), 1)
    with pytest.raises(Image2Error) as caught:
        room.make(str(folder / "locked" / "below"))
    assert "output_not_writable" == caught.value.code


def test_too_little_room_is_told_in_megabytes(monkeypatch):
    monkeypatch.setattr(room, "_free_bytes", lambda folder: 40 * 1024 * 1024)
    assert mistake(resolve(None), 2) is None
    assert "has 40 MB free, 48 are wanted for 3 images" in mistake(resolve(None), 3)


def test_the_free_room_of_this_disk_is_a_number(folder):
    assert 0 < room._free_bytes(str(folder)) < 2**60


def test_making_a_folder_makes_its_parents_and_leaves_nothing_else(folder):
    room.make(str(folder / "a" / "b"))
    room.make(str(folder / "a" / "b"))
    assert (folder / "a" / "b").is_dir() and [] == list((folder / "a" / "b").iterdir())


@needs_posix
def test_a_folder_that_cannot_be_made_is_said_before_anything_is_sent(folder):
    (folder / "file").write_text("mine")
    for path in (folder / "file" / "below", "/proc/image2-output"):
        with pytest.raises(Image2Error) as caught:
            room.make(str(path))
        assert ("output_not_writable", 2, "no") == (caught.value.code, caught.value.exit_status, caught.value.charged)
        assert "Nothing was sent" in caught.value.message


# --- names


@pytest.mark.parametrize(("text", "expected"), [
    ("A red fox, in SNOW!", "a-red-fox-in-snow"), ("../../etc/passwd", "etc-passwd"), ("...", "image"), (None, "image"),
    ("一只戴帽子的猫", "一只戴帽子的猫"), ("CON", "image-con"), ("nul and void", "image-nul-and-void"),
    ("console", "console"), ("LPT9 x", "image-lpt9-x"), ("snake_case", "snake-case"), ("-rf *", "rf"), ("a\0b\nc", "a-b-c"),
    ("\ud800x", "x"), ("word " * 20, "-".join(["word"] * 8)), ("a" * 400 + " b", "a" * 32),
    ("x" * 32 + " " + "y" * 7, "x" * 32 + "-" + "y" * 7), ("x" * 32 + " " + "y" * 8, "x" * 32),
    ("🦊 fox", "fox"), ("𠮷" * 40, "image"), ("猫" * 32, "猫" * 32)])
def test_a_files_stem_is_the_prompts_first_words(text, expected):
    assert expected == slug(text)


@quick
@given(TEXT)
def test_any_text_gives_a_name_every_file_system_takes(text):
    stem = slug(text)
    assert stem and len(stem) <= 46 and len(stem.encode("utf-8")) <= 106
    assert not set(stem) & set('/\\:*?"<>|. \0\n') and stem[0] != "-" and stem[-1] != "-"
    assert not [char for char in stem if unicodedata.category(char)[0] in "CZ"]
    assert not room.WINDOWS_DEVICES.match(stem)


def test_the_first_name_has_no_number_and_the_next_ones_have(folder):
    place = resolve("fox.png")
    assert [str(folder / name) for name in ("fox.png", "fox-2.png", "fox-10.webp")] == [
        path_of(place, "fox", 1, ".png"), path_of(place, "fox", 2, ".png"), path_of(place, "fox", 10, ".webp")]


def test_names_that_are_taken_are_passed_over_whatever_their_ending(folder):
    place = resolve(None)
    os.mkdir(place.folder)
    assert 1 == first_number(place, "fox", 4)
    for taken, count, expected in (("fox.webp", 1, 2), ("fox-4.gif", 2, 2), ("fox-4.gif", 3, 5), ("fox-2.avif", 1, 3)):
        open(os.path.join(place.folder, taken), "w").close()
        assert expected == first_number(place, "fox", count)
    assert 1 == first_number(place, "dog", 4)
    assert 1 == first_number(place._replace(overwrite=True), "fox", 4)


@needs_posix
def test_a_dangling_link_takes_a_name_too(folder):
    (folder / "fox.png").symlink_to("nowhere")
    assert 2 == first_number(resolve("fox.png"), "fox", 1)


@pytest.mark.parametrize(("suffix", "format_name", "expected"), [
    (None, "png", ".png"), (None, "jpeg", ".jpg"), (None, "gif", ".gif"), (None, "avif", ".avif"),
    (".PNG", "png", ".PNG"), (".jpeg", "jpeg", ".jpeg"), (".JPEG", "jpeg", ".JPEG"),
    (".png", "jpeg", ".jpg"), (".jpg", "png", ".png"), (".jpeg", "webp", ".webp")])
def test_the_bytes_decide_on_the_ending_and_the_user_on_its_spelling(suffix, format_name, expected):
    assert expected == extension_for(Place("/out", "fox" if suffix else None, suffix), format_name)
