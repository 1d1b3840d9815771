"""Whole pictures pass, anything else is refused with a reason; in bounded time and flat memory."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc

import pictures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image2_cli.pictures import image_check

EVERY = pictures.every()


def inspect(data: bytes) -> image_check.Raster:
    return image_check.inspect(io.BytesIO(data))


def reason(data: bytes) -> str:
    with pytest.raises(image_check.NotRaster) as refusal:
        inspect(data)
    return str(refusal.value)


@pytest.mark.parametrize("name", EVERY)
@settings(deadline=None, max_examples=50)
@given(width=st.integers(1, 70), height=st.integers(1, 70))
def test_a_whole_picture_tells_its_format_its_size_and_its_end(name, width, height):
    data = getattr(pictures, name)(width, height)
    assert image_check.Raster(name, width, height, len(data)) == inspect(data)


@pytest.mark.parametrize("whole", [
    *EVERY.values(), pictures.png(30, 30, noise_bytes=3000), pictures.jpeg(64, 64, progressive=True),
], ids=[*EVERY, "png of many parts", "progressive"])
def test_a_cut_picture_is_refused_wherever_it_is_cut(whole):
    reasons = [reason(whole[:length]) for length in range(len(whole))]
    assert all(said.endswith(" that ends early") for said in reasons[30:])


@pytest.mark.parametrize("name", sorted({*EVERY} - {"gif"}))
@pytest.mark.parametrize("appended", [b"x", b"PK\x03\x04 a zip \0;", bytes(50), *EVERY.values()])
def test_what_is_appended_lies_behind_the_end(name, appended):
    assert inspect(EVERY[name]) == inspect(EVERY[name] + appended)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([b"", *EVERY.values()]), st.data())
def test_whatever_the_bytes_only_not_raster_is_raised(whole, data):
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at, patch = data.draw(st.integers(0, len(whole))), data.draw(st.binary(min_size=1, max_size=30))
        broken[at : at + len(patch)] = patch
    try:
        found = inspect(bytes(broken))
    except image_check.NotRaster as refusal:
        assert 0 < len(str(refusal)) < 130
    else:
        assert 0 < found.end <= len(broken)


OTHERS = {
    b"": "empty", b"\n  <!DOCTYPE html><svg></svg>": "HTML", b"<h1>Bad": "HTML",
    b'\xef\xbb\xbf{"error": "expired"}': "JSON", b"[1]": "JSON", "keine Datei: ä".encode(): "text",
    "nicht da".encode("utf-16"): "text", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>': "XML",
    b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg/>": "an SVG (vector)", b"%PDF-1.7\n\0": "a PDF",
    b"BM\x36\0\0\0\0\0\0\0\x36\0": "a BMP", b"II*\0\x08\0\0\0": "a TIFF", b"MM\0*\0\0": "a TIFF",
    pictures.box(b"ftyp", b"heic\0\0\0\0mif1"): "a HEIC", b"\xff\x0a\xfa\x1f": "a JPEG XL", bytes(60): "of an unknown kind",
    b"\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL", b"\x1f\x8b\x08\0\0\0<html>": "of an unknown kind",
}


@pytest.mark.parametrize("data", OTHERS)
def test_what_is_no_picture_is_called_what_it_is(data):
    assert f"{OTHERS[data]}, not a png, jpeg, webp, gif or avif image" == reason(data)
    is_text = OTHERS[data] in ("empty", "HTML", "JSON", "text", "XML", "an SVG (vector)")
    assert is_text is not bool(image_check.what_is(data).extension)


def sized(width: int, height: int) -> tuple[str, bytes]:
    """A PNG that claims this size, and what is said of it."""
    claimed = EVERY["png"].replace(struct.pack(">II", 16, 8), struct.pack(">II", width, height))
    limits = "(allowed: 1 to 65535 a side, 268435456 in all)"
    return f"a PNG with an absurd size of {width}x{height} pixels {limits}", claimed


@pytest.mark.parametrize(("expected", "data"), [
    sized(0, 8), sized(1, 65536), sized(20000, 20000),
    ("a PNG with a damaged header (copied as text?)", EVERY["png"].replace(b"\r\n", b"\n", 1)),
    ("a PNG with a damaged header (copied as text?)", EVERY["png"].replace(b"IHDR", b"IDAT")),
    ("a GIF that ends early", EVERY["gif"] + b"PK\x03\x04 a zip"),
    ("a JPEG with an absurd size of 0x0 pixels", EVERY["jpeg"].replace(b"\xff\xc0", b"\xff\xe1")),
    ("a WebP with an absurd size of 0x0 pixels", pictures.riff(pictures.riff_chunk(b"EXIF", bytes(30)))),
    ("an AVIF that ends early", EVERY["avif"].replace(b"mdat", b"free")),
    ("an AVIF with an absurd size of 0x0 pixels", EVERY["avif"].replace(b"ispe", b"skip")),
    ("an AVIF with a damaged box", EVERY["avif"] + b"\0\0\0\x07free"),
])
def test_a_damaged_picture_says_what_is_damaged(expected, data):
    assert reason(data).startswith(expected)


def test_a_jpeg_may_hold_another_jpeg_in_a_segment_and_escapes_restarts_and_filling_in_its_data():
    whole = EVERY["jpeg"]
    thumbnail = pictures.jpeg_segment(0xE1, b"Exif\0\0" + pictures.jpeg(1, 1))
    data = whole[:2] + thumbnail + b"\xff\xff\0" + whole[2:-2] + b"\xff\0\xff\xd0\xff\x01\xff\xff\xd9"
    assert ("jpeg", 16, 8, len(data)) == inspect(data)
    assert "a JPEG that ends early" == reason(data[:-2])


@pytest.mark.parametrize(("name", "mark"), [("jpeg", 2), ("png", 12)])
def test_an_end_across_two_pieces_is_found(name, mark):
    head, end = EVERY[name][:-mark], EVERY[name][-mark:]
    for begins_at in range(image_check.PIECE - mark, image_check.PIECE + len(head)):
        data = head.ljust(begins_at, b"\0") + end
        assert len(data) == inspect(data).end


def test_a_webp_may_be_lossy_or_extended_or_leave_its_last_pad_byte_out_of_its_size():
    lossy = pictures.riff_chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 300 | 1 << 14, 200) + b"data")
    assert ("webp", 300, 200, 12 + len(lossy)) == inspect(pictures.riff(lossy))
    extended = pictures.riff_chunk(b"VP8X", bytes(4) + b"\x1f\x03\0" + b"\x57\x02\0")
    assert (800, 600) == inspect(pictures.riff(extended + lossy))[1:3]
    unpadded = pictures.riff(EVERY["webp"][12:] + pictures.riff_chunk(b"EXIF", b"odd")[:-1])
    assert (len(unpadded), len(unpadded) + 1) == (inspect(unpadded).end, inspect(unpadded + b"\0").end)


def test_an_avif_is_as_large_as_its_largest_part_and_its_boxes_may_have_long_sizes_or_none():
    def long_box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body

    parts = b"".join(pictures.box(b"ispe", bytes(4) + struct.pack(">II", *part)) for part in [(4, 4), (16, 8), (2, 2)])
    start = pictures.box(b"ftyp", b"mif1\0\0\0\0avif") + long_box(b"meta", bytes(4) + pictures.box(b"ipco", parts))
    for rest in (pictures.box(b"mdat", b"data"), long_box(b"mdat", b"data"), b"\0\0\0\0mdatdata"):
        assert ("avif", 16, 8, len(start + rest)) == inspect(start + rest)


class Counted(io.BytesIO):
    largest = total = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.largest, self.total = max(self.largest, len(data)), self.total + len(data)
        return data


def test_memory_stays_flat_and_every_byte_is_read_about_once():
    file = Counted(pictures.png(noise_bytes=20 << 20))
    tracemalloc.start()
    try:
        found = image_check.inspect(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(file.getvalue()) == found.end
    assert peak < 2 << 20
    assert file.largest <= image_check.PIECE
    assert file.total < 1.05 * found.end


@pytest.mark.parametrize("data", [
    EVERY["jpeg"][:2] + b"\xff\xe1\0\2" * (4 << 20),
    EVERY["jpeg"][:2] + b"\xff" * (16 << 20),
    EVERY["avif"][:28] + pictures.box(b"free", b"") * (2 << 20),
    EVERY["avif"][:28] + pictures.box(b"meta", b"ispe\0\0\0\0\0\0\0\x08\0\0\0\x08" * 100) * 1000,
], ids=["jpeg segments", "jpeg filling", "avif boxes", "avif sizes"])
def test_a_file_made_to_waste_time_is_refused_soon(data):
    began = time.process_time()
    reason(data)
    assert time.process_time() - began < 2
