"""One local file becomes one data: URI, or a message that names the path and what is wrong with it."""

import base64
import os
import socket
import subprocess
import sys
from pathlib import Path

import pictures
import pytest
from image2_cli.order import reference
from image2_cli.pictures import image_check as raster
from platforms import needs_posix

SCRIPTS = Path(reference.__file__).parents[2]
EVERY = pictures.every()
ALLOWED = "(allowed: a whole png, jpeg, webp, gif or avif file of at most 20 MiB)"


def refusal(path) -> str:
    with pytest.raises(reference.ReferenceProblem) as problem:
        reference.data_uri(path)
    return str(problem.value)


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.partition(",")[2], validate=True)


def in_a_process(path, before="", after="", cwd=None) -> str:
    """What a process without a terminal prints that is asked for this picture, with code before and after."""
    program = ("import os, sys; sys.path.insert(0, sys.argv[1])\n"
               "from image2_cli.order import reference\n"
               f"{before}\n"
               "try: reference.data_uri(sys.argv[2])\n"
               "except reference.ReferenceProblem as problem: print(problem)\n"
               f"{after}")
    return subprocess.run([sys.executable, "-c", program, SCRIPTS, path], cwd=cwd, text=True, stdout=subprocess.PIPE,
                          timeout=30, start_new_session=True).stdout


@pytest.fixture()
def file(tmp_path):
    def write(data: bytes, name="picture.png"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("name", sorted(EVERY))
def test_the_type_is_told_from_the_bytes_and_nothing_appended_to_them_leaves_the_machine(file, name):
    uri = reference.data_uri(file(EVERY[name] + b"PK\3\4 a zip with the user's secrets", "picture.txt"))
    assert f"data:image/{name};base64," == uri[: uri.index(",") + 1]
    assert EVERY[name] == decoded(uri)


def test_a_path_may_be_relative_or_start_at_home(file, monkeypatch):
    path = file(EVERY["png"])
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    expected = reference.data_uri(str(path))
    assert expected == reference.data_uri("picture.png") == reference.data_uri("~/picture.png")


@needs_posix
def test_a_link_to_a_picture_is_followed(file, tmp_path):
    (tmp_path / "link.png").symlink_to(file(EVERY["png"]))
    assert EVERY["png"] == decoded(reference.data_uri(tmp_path / "link.png"))


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "nowhere.png"
    assert f"{path}: no such file {ALLOWED}" == refusal(path)


@needs_posix
def test_a_folder_is_named(tmp_path):
    assert f"{tmp_path}: a folder, not a file {ALLOWED}" == refusal(tmp_path)


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "empty"),
    (EVERY["png"][:-1], "a PNG that ends early"),
    (b"<svg/>", "an SVG: vector, not a raster image"),
    (b"root:x:0:0", raster.UNKNOWN),
])
def test_what_is_no_whole_picture_is_refused_with_the_reason(file, data, reason):
    path = file(data)
    assert f"{path}: {reason} {ALLOWED}" == refusal(path)


@needs_posix
def test_a_path_that_cannot_exist_is_a_message(file, tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert "cannot be read" in refusal(tmp_path / "loop.png")
    assert "null" in refusal("a\0b.png")
    assert "cannot be read" in refusal(file(b"") / "under-a-file.png")
    assert "cannot be read" in refusal("x" * 5000)


@needs_posix
def test_a_file_without_permission_is_named(file):
    """In a process of its own, which is nobody where the tests run as root (root may read everything)."""
    path = file(EVERY["png"])
    path.chmod(0)
    asked = in_a_process("picture.png", before="if os.geteuid() == 0: os.setuid(65534)", cwd=path.parent)
    assert f"picture.png: no permission to read it {ALLOWED}\n" == asked


@needs_posix
@pytest.mark.parametrize("kind", ["pipe", "device", "endless device", "terminal"])
def test_a_pipe_or_a_device_is_refused_and_never_waited_for(tmp_path, kind):
    """In a process of its own, so that one that hangs fails the test instead of hanging it."""
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    ends = os.openpty() if kind == "terminal" else ()
    paths = {"pipe": str(path), "device": "/dev/null", "endless device": "/dev/zero"}
    target = paths.get(kind) or os.ttyname(ends[1])
    asked = in_a_process(target, after="try: open('/dev/tty'); print('and that terminal is ours now')\nexcept OSError: pass")
    for end in ends:
        os.close(end)
    assert f"{target}: a pipe or a device, not a file {ALLOWED}\n" == asked


@needs_posix
def test_a_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the names of sockets are short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.png")
        assert refusal("socket.png").startswith("socket.png: cannot be read (")


def test_a_file_of_the_limit_is_sent_and_one_byte_more_is_not(file):
    small = pictures.png(noise_bytes=reference.LIMIT)
    whole = pictures.png(noise_bytes=reference.LIMIT - (len(small) - reference.LIMIT))
    assert reference.LIMIT == len(whole) == 20 << 20  # as the message says
    assert len(whole) == len(decoded(reference.data_uri(file(whole))))
    path = file(whole + b"\0")
    assert f"{path}: too large {ALLOWED}" == refusal(path)


@needs_posix
def test_a_huge_file_is_refused_without_reading_it_all(tmp_path):
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert f"{path}: too large {ALLOWED}" == refusal(path)


def test_the_file_is_opened_only_once(file):
    """What was swapped in between a look and a second opening would leave the machine unseen."""
    path, modes = str(file(EVERY["png"])), []
    sys.addaudithook(lambda event, args: modes.append(args[1]) if event == "open" and args[0] == path else None)
    reference.data_uri(path)
    assert ["r", None] == modes  # one open() and the os.open() in it
