"""One local file becomes one data: URI, or a message that names the path, what is wrong with it and what to do."""

import base64
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pictures
import pytest
from image2_cli.order import reference
from image2_cli.order.reference import ReferenceProblem, References, image_of
from platforms import needs_posix

EVERY = pictures.every()
ALLOWED = "(allowed: a whole png, jpeg, webp, gif or avif file of at most 20 MiB)"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


def refusal(path) -> str:
    with pytest.raises(ReferenceProblem) as problem:
        image_of(str(path))
    return str(problem.value)


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2], validate=True)


@pytest.fixture
def file(tmp_path):
    def write(data: bytes, name="picture.png") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


@pytest.mark.parametrize("name", sorted(EVERY))
def test_the_type_is_told_from_the_bytes_and_nothing_appended_to_them_leaves_the_machine(file, name):
    appended = b"" if name == "gif" else b"PK\3\4 a zip with the user's secrets"  # behind a GIF's end, it is no whole one
    uri = image_of(str(file(EVERY[name] + appended, "picture.txt")))
    assert f"data:image/{name};base64," == uri[: uri.index(",") + 1]
    assert EVERY[name] == decoded(uri)


def test_a_url_is_carried_as_it_is_and_any_other_scheme_is_refused():
    assert "https://x.example/a.png" == image_of("https://x.example/a.png")
    assert "must be an http(s) URL" in refusal("ftp://x.example/a.png") and "data:" in refusal("data:image/png;base64,AA")


def test_a_path_may_be_relative_or_start_at_home_or_be_a_link(file, monkeypatch):
    path = file(EVERY["png"])
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    assert image_of(str(path)) == image_of("picture.png") == image_of("~/picture.png")
    if os.name != "nt":
        Path("link.png").symlink_to(path)
        assert image_of(str(path)) == image_of("link.png")


@pytest.mark.parametrize(("name", "data", "words", "command"), [
    ("photo.jpg", HEIC, "HEIC", "sips -s format png photo.jpg --out photo.png"),
    ("my scan.tiff", b"II*\0" + bytes(64), "TIFF", "magick 'my scan.tiff' 'my scan.png'"),
    ("-x.psd", b"8BPS" + bytes(64), "", "magick ./-x.psd ./-x.png")])
@needs_posix
def test_what_is_no_png_is_refused_with_the_command_that_makes_one_of_it(file, monkeypatch, name, data, words, command):
    monkeypatch.chdir(file(data, name).parent)
    said = refusal(name)
    assert ALLOWED in said and words in said and command in said
    assert all(len(shlex.split(one)) >= 3 for one in said.split("`")[1::2])


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (EVERY["png"][:-1], "ends early"),
                                              (b"root:x:0:0", "not a png")])
def test_what_is_no_whole_picture_is_refused_with_the_reason(file, data, reason):
    said = refusal(file(data))
    assert reason in said and said.endswith(ALLOWED)


@needs_posix
def test_what_cannot_be_read_is_named(file, tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    for path, words in ((tmp_path / "nowhere.png", "no such file"), (tmp_path, "a folder, not a file"), ("a\0b.png", "null"),
                        (tmp_path / "loop.png", "cannot be read"), ("x" * 5000, "cannot be")):
        assert words in refusal(path) and len(refusal(path)) < 400


ASK = """
import sys
from image2_cli.order import reference
try: reference.image_of(sys.argv[1])
except reference.ReferenceProblem as problem: print(problem)
try: open("/dev/tty"); print("and that terminal is ours now")
except OSError: pass
"""


@needs_posix
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "endless device", "terminal"])
def test_a_pipe_or_a_device_is_refused_and_never_waited_for(tmp_path, kind):
    """In a process of its own without a terminal, so that one that hangs fails the test instead of hanging it."""
    os.mkfifo(tmp_path / "pipe.png")
    ends = os.openpty()
    target = {"pipe": str(tmp_path / "pipe.png"), "endless device": "/dev/zero", "terminal": os.ttyname(ends[1])}[kind]
    asked = subprocess.run([sys.executable, "-c", ASK, target], cwd=Path(reference.__file__).parents[2], text=True,
                           stdout=subprocess.PIPE, timeout=30, start_new_session=True).stdout
    for end in ends:
        os.close(end)
    assert f'"{target}": a pipe or a device, not a file {ALLOWED}\n' == asked


def test_a_file_of_the_limit_is_sent_and_one_byte_more_is_not(file, monkeypatch):
    small = pictures.png(noise_bytes=reference.LIMIT)
    whole = pictures.png(noise_bytes=reference.LIMIT - (len(small) - reference.LIMIT))
    assert reference.LIMIT == len(whole) == 20 << 20  # as the message says
    assert len(whole) == len(decoded(image_of(str(file(whole)))))
    monkeypatch.chdir(file(whole + b"\0").parent)
    said = refusal("picture.png")
    with (file(b"", "sparse.png")).open("r+b") as sparse:
        sparse.truncate(1 << 40)
    assert "too large" in refusal("sparse.png")
    assert "too large (allowed" in said and "sips -Z 2048 picture.png --out picture-small.png" in said


def test_the_file_is_opened_only_once(file):
    """What was swapped in between a look and a second opening would leave the machine unseen."""
    path, modes = str(file(EVERY["png"])), []
    sys.addaudithook(lambda event, args: modes.append(args[1]) if event == "open" and args[0] == path else None)
    references = References()
    assert references.images([path]) == references.images([path])
    assert ["r", None] == modes  # one open() and the os.open() in it


def test_the_references_of_an_order_and_of_a_run_are_bounded(file, monkeypatch):
    path = str(file(pictures.png(noise_bytes=900_000)))
    monkeypatch.setattr(reference, "MAX_OF_ORDER", 3 << 20)
    assert (2, []) == (len(References().images([path] * 2)[0]), References().images([path, "https://x/a"])[1])
    assert ["the reference files of one order are 2 MB together, 2 are allowed"] == References().images([path] * 3)[1]
    monkeypatch.setattr(reference, "MAX_OF_ALL", 1 << 20)
    assert "of all orders" in References().images([path])[1][0]
