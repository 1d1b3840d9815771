"""The placeholders, read by the specification of PNG and by hand: whole, of the asked size, and plainly placeholders."""

from __future__ import annotations

import struct
import time
import zlib

import pytest
from image2_cli.sandbox import pictures
from image2_cli.sandbox.server import Task


def read(content: bytes) -> tuple[int, int, bytes, list[bytes]]:
    """(width, height, palette, rows) of a PNG that is read to the last byte."""
    assert b"\x89PNG\r\n\x1a\n" == content[:8]
    chunks, at = {}, 8
    while at < len(content):
        length, name = struct.unpack_from(">I4s", content, at)
        chunks[name] = content[at + 8:at + 8 + length]
        at += 12 + length
        assert struct.pack(">I", zlib.crc32(name + chunks[name])) == content[at - 4:at]
    assert [b"IHDR", b"tEXt", b"PLTE", b"IDAT", b"IEND"] == list(chunks)
    width, height, *kind = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert [8, 3, 0, 0, 0] == kind  # eight bits, a palette
    pixels, palette = zlib.decompress(chunks[b"IDAT"]), chunks[b"PLTE"]
    assert height * (width + 1) == len(pixels)
    assert max(pixels) < len(palette) // 3
    assert {0} == set(pixels[::width + 1])  # no filter
    return width, height, palette, [pixels[at + 1:at + 1 + width] for at in range(0, len(pixels), width + 1)]


@pytest.mark.parametrize(("width", "height"), [(16, 16), (4096, 17), (17, 4096), (1024, 1024)])
def test_a_picture_has_exactly_the_size_asked_for(width: int, height: int) -> None:
    assert (width, height) == read(pictures.draw(width, height, ["SANDBOX"], 0.2))[:2]


def test_the_pictures_of_a_task_and_of_two_tasks_differ() -> None:
    drawn = [Task(512, 512, 3, 0, 0, serial).picture(index) for serial in (7, 8) for index in range(3)]
    assert 6 == len(set(drawn))
    assert 6 == len({read(content)[2] for content in drawn})  # their colours, too


def test_a_picture_says_sandbox_in_letters_that_can_be_read() -> None:
    rows = read(pictures.draw(512, 512, ["SANDBOX", "512x512"], 0.3))[3]
    dots = {bytes(1 if place == pictures.INK else 0 for place in row) for row in rows}
    scale = 9  # pixels of a dot at this size
    for part in range(7):
        line = "0".join(pictures.FONT[letter].split()[part] for letter in "SANDBOX")
        wanted = b"".join(bytes([int(dot)]) * scale for dot in line)
        assert any(wanted in row for row in dots)


@pytest.mark.parametrize(("width", "height", "shown"), [(64, 64, True), (4096, 20, True), (40, 40, False), (16, 999, False)])
def test_a_label_that_does_not_fit_is_left_out(width: int, height: int, shown: bool) -> None:
    rows = read(pictures.draw(width, height, ["SANDBOX", f"{width}x{height}", "10/10"], 0))[3]
    assert shown == any(pictures.INK in row for row in rows)


def test_a_picture_is_quick_and_small() -> None:
    for side, seconds, limit in ((1024, 0.1, 30_000), (4096, 1.0, 300_000)):
        took = []
        for _ in range(3):  # the best of three: other tests run beside this one
            begun = time.perf_counter()
            content = pictures.draw(side, side, ["SANDBOX", f"{side}x{side}"], 0.5)
            took.append(time.perf_counter() - begun)
        assert min(took) < seconds
        assert len(content) < limit
