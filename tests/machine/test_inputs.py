"""What a command reads besides its own line: texts in the encodings that shells and editors write, and what is no text."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from image2_cli.clock import Clock, Interrupted
from image2_cli.machine import inputs
from platforms import needs_posix
from running import SCRIPT

TEXT = "a fox, 狐, 🦊\n"


def read(path: object, most: int = 1000) -> str:
    return inputs.read_text(str(path), Clock(), most)


@pytest.mark.parametrize("raw", [
    TEXT.encode(), TEXT.encode("utf-8-sig"), b"\xff\xfe" + TEXT.encode("utf-16-le"), b"\xfe\xff" + TEXT.encode("utf-16-be")])
def test_a_text_is_read_as_utf_8_or_as_utf_16_with_its_mark(raw, tmp_path):
    (tmp_path / "prompt").write_bytes(raw)
    assert TEXT == read(tmp_path / "prompt")


@pytest.mark.parametrize(("raw", "words"), [
    (TEXT.encode("utf-16-le"), "UTF-16 without its mark; save it as UTF-8"),
    (b"PNG\0\0\0\rIHDR", "it holds NUL bytes: no text"),
    ("ein Füchslein".encode("latin-1"), "not UTF-8 text"),
    (b"x" * 1001, "more than 1000 bytes"),
    (None, "No such file"), ("a\0b", "null"),
    ("folder", "Is a directory" if os.name != "nt" else "Permission denied")])
def test_what_is_no_text_is_named_with_what_is_wrong(raw, words, tmp_path):
    path = tmp_path / "prompt"
    if raw == "folder":
        path.mkdir()
    elif isinstance(raw, bytes):
        path.write_bytes(raw)
    with pytest.raises(inputs.InputProblem) as caught:
        read(f"{path}\0" if raw == "a\0b" else path)
    assert words in str(caught.value) and "prompt" in str(caught.value)


@needs_posix
def test_a_pipe_that_nobody_closes_is_not_deaf_to_signals(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    clock = Clock()
    threading.Timer(0.1, clock.stop, [15]).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        inputs.read_text(str(tmp_path / "pipe"), clock, 1000)
    assert 1 > time.monotonic() - began
    os.close(os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK))  # lets the thread go


@needs_posix
def test_stdin_and_pipes_are_read_once_and_files_again(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    known = {"-": True, "pipe": True, "file": False, ".": False, "missing": False, "": False}
    assert known == {name: inputs.is_read_once(name if name in "-" else str(tmp_path / name)) for name in known}
    assert inputs.is_read_once("/dev/zero") and not inputs.is_read_once(None)


@pytest.mark.slow
@needs_posix
@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}])
def test_stdin_and_words_are_utf_8_in_any_locale(locale):
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "from image2_cli.machine import inputs; from image2_cli.clock import Clock\n"
            "word, text = inputs.argument_text(sys.argv[2]), inputs.read_text('-', Clock(), 99)\n"
            "print(ascii([inputs.something_is_piped(), word, text]))")
    command = [sys.executable, "-c", code, str(SCRIPT.parent), "狐"]
    done = subprocess.run(command, env={**os.environ, **locale}, input=TEXT.encode(), capture_output=True)
    assert ascii([True, "狐", TEXT]) == done.stdout.decode().strip(), done
