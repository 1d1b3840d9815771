"""Whole pictures pass, anything else is refused with a reason; in bounded time and flat memory."""

import io
import struct
import time
import tracemalloc

import pictures
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from image2_cli.pictures import containers
from image2_cli.pictures import image_check as raster

EVERY = pictures.every()
FORMATS = sorted(EVERY)
sizes = st.integers(1, 70)
slow_machines_are_fine = settings(deadline=None)


def inspect(data: bytes) -> raster.Raster:
    return raster.inspect(io.BytesIO(data))


def reason(data: bytes) -> str:
    with pytest.raises(raster.NotRaster) as refusal:
        inspect(data)
    return str(refusal.value)


@pytest.mark.parametrize("name", FORMATS)
@slow_machines_are_fine
@given(width=sizes, height=sizes)
def test_a_whole_picture_tells_its_format_its_size_and_its_end(name, width, height):
    data = getattr(pictures, name)(width, height)
    assert raster.Raster(name, width, height, len(data)) == inspect(data)


def test_every_format_has_an_extension():
    assert FORMATS == sorted(raster.EXTENSIONS)


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_picture_is_refused_wherever_it_is_cut(name):
    for length in range(len(EVERY[name])):
        said = reason(EVERY[name][:length])
    assert said.endswith(" that ends early")


@slow_machines_are_fine
@given(st.data())
def test_a_cut_picture_of_many_parts_is_refused(data):
    whole = data.draw(st.sampled_from([
        pictures.png(30, 30, noise_bytes=3000), pictures.jpeg(64, 64, progressive=True), pictures.gif(20, 20, frames=3),
        pictures.avif(data=bytes(3000))]))
    reason(whole[: data.draw(st.integers(0, len(whole) - 1))])


@pytest.mark.parametrize("name", FORMATS)
@slow_machines_are_fine
@given(appended=st.binary(min_size=1, max_size=40))
def test_what_is_appended_lies_behind_the_end(name, appended):
    assume(appended[4:8] not in (b"mdat", b"free", b"skip", b"uuid", b"moov"))  # an AVIF may have more of these
    assert inspect(EVERY[name]) == inspect(EVERY[name] + appended)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_a_second_picture_lies_behind_the_end_of_the_first(name, second):
    assert inspect(EVERY[name]) == inspect(EVERY[name] + EVERY[second])


@slow_machines_are_fine
@given(st.binary(max_size=300), st.sampled_from([b"", *(data[:40] for data in EVERY.values())]))
def test_whatever_the_bytes_only_not_raster_is_raised(data, head):
    only_not_raster(head + data)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(FORMATS), st.data())
def test_whatever_is_overwritten_only_not_raster_is_raised(name, data):
    whole = bytearray(EVERY[name])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(whole) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8))
        whole[at : at + len(patch)] = patch
    only_not_raster(bytes(whole))


def only_not_raster(data: bytes):
    try:
        found = inspect(data)
    except raster.NotRaster as refusal:
        assert 0 < len(str(refusal)) < 110
    else:
        assert 0 < found.end <= len(data)


def test_one_flipped_bit_anywhere_in_a_png_is_refused():
    whole = pictures.png(noise_bytes=50)
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        reason(bytes(flipped))


def test_a_flipped_bit_far_into_a_large_png_is_refused():
    flipped = bytearray(pictures.png(noise_bytes=3 * containers.PIECE))
    flipped[2 * containers.PIECE + 5] ^= 1
    assert "a PNG with a damaged noIs chunk" == reason(bytes(flipped))


# --- reasons ---


@pytest.mark.parametrize(("data", "expected"), [
    (b"", "empty"),
    (b"<!DOCTYPE html><title>502</title>", "HTML, not an image"),
    (b"\n  <html><svg></svg>", "HTML, not an image"),
    (b"<h1>Bad gateway</h1>", "HTML, not an image"),
    (b'\xef\xbb\xbf{"error": "expired"}', "JSON, not an image"),
    (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML, not an image"),
    (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg/>", "an SVG: vector, not a raster image"),
    (b"%PDF-1.7", "a PDF, not an image"),
    (b"BM" + bytes(60), "not an image format known here (png, jpeg, webp, gif, avif)"),
    (pictures.box(b"ftyp", b"heic\0\0\0\0mif1"), f"HEIC or MP4: {containers.UNKNOWN}"),
])
def test_what_is_no_picture_is_called_what_it_is(data, expected):
    assert expected == reason(data)


def png_of(*chunks):
    return pictures.PNG_SIGNATURE + b"".join(pictures.png_chunk(*chunk) for chunk in chunks)


def png_header(width=1, height=1, depth=8, colour=2, methods=bytes(3)):
    return b"IHDR", struct.pack(">IIBB", width, height, depth, colour) + methods


IDAT, IEND = (b"IDAT", b"some"), (b"IEND", b"")


DAMAGED = {
    "a PNG without picture data": [png_of(png_header(), IEND), png_of(png_header(), (b"IDAT", b""), IEND)],
    "a PNG with a damaged IEND chunk": [png_of(png_header(), IDAT, (b"IEND", b"?"))],
    "a PNG with a damaged chunk header": [png_of(png_header(), IDAT, (b"ID\0T", b""))],
    "a PNG with a damaged header": [
        png_of(IDAT, png_header(), IEND),
        *(png_of(png_header(**wrong), IDAT, IEND)
          for wrong in ({"methods": bytes(4)}, {"depth": 4}, {"colour": 1}, {"methods": b"\0\1\0"}))],
    "a PNG with a damaged signature (copied as text?)": [EVERY["png"].replace(b"\r\n", b"\n", 1)],
    "a JPEG without picture data": [b"\xff\xd8\xff\xd9"],
    "a JPEG with a damaged frame header": [
        EVERY["jpeg"].replace(b"\xff\xc0", b"\xff\xe1"), EVERY["jpeg"].replace(b"\xff\xc0\0\x0b", b"\xff\xc0\0\x0c"),
        b"\xff\xd8" + pictures.jpeg_segment(0xC0, b"\x08\0\x08\0\x08\0")],
    "a JPEG with a damaged segment": [
        EVERY["jpeg"].replace(b"\xff\xdb\0\x43", b"\xff\xdb\0\x01"), EVERY["jpeg"][:-2] + EVERY["jpeg"],
        EVERY["jpeg"][:-2] + b"\xff\x42\0\2\xff\xd9"],
    "a GIF without picture data": [pictures.gif(frames=0), EVERY["gif"][:30] + b"\0;"],
    "a GIF with a damaged block": [EVERY["gif"][:-1] + b"?;"],
    "a WebP with a damaged first chunk": [pictures.riff(pictures.riff_chunk(b"EXIF", b"some"))],
    "a WebP without picture data": [pictures.riff(pictures.riff_chunk(b"VP8X", bytes(10)))],
    "a WebP with a damaged chunk": [pictures.riff(EVERY["webp"][12:] + b"EXIF\xff\0\0\0")],
    "an AVIF that ends early": [EVERY["avif"].replace(b"mdat", b"free")],
    "an AVIF with an absurd size of 0x0 pixels": [EVERY["avif"].replace(b"ispe", b"skip")],
    "an AVIF with a damaged iloc box": [EVERY["avif"].replace(b"\x44\0\0\1", b"\x44\0\0\2")],
    "an AVIF with a damaged box": [EVERY["avif"] + bytes(4) + b"free", EVERY["avif"].replace(b"\x14ispe", b"\x15ispe")],
}


@pytest.mark.parametrize("expected", DAMAGED)
def test_a_damaged_picture_says_what_is_damaged(expected):
    assert [expected] * len(DAMAGED[expected]) == [reason(data) for data in DAMAGED[expected]]


@pytest.mark.parametrize(("width", "height"), [(0, 8), (8, 0), (65536, 1), (1, 65536), (20000, 20000)])
@pytest.mark.parametrize("name", ["png", "avif"])
def test_an_absurd_size_is_refused(name, width, height):
    data = png_of(png_header(width, height), IDAT, IEND) if name == "png" else pictures.avif(width, height)
    assert f"with an absurd size of {width}x{height} pixels" in reason(data)


# --- what the formats allow ---


def test_a_jpeg_may_hold_another_jpeg_in_a_segment_and_escapes_restarts_and_filling_in_its_data():
    whole = EVERY["jpeg"]
    thumbnail = pictures.jpeg_segment(0xE1, b"Exif\0\0" + pictures.jpeg(1, 1))
    data = whole[:2] + thumbnail + whole[2:-2] + b"\xff\0\xff\xd0\xff\x01\xff\xff\xd9"
    assert ("jpeg", 16, 8, len(data)) == inspect(data)


def test_a_jpeg_marker_across_two_pieces_is_found():
    for shift in range(-3, 3):
        filling = bytes(containers.PIECE + shift)
        data = EVERY["jpeg"][:-2] + filling + b"\xff\xd9"
        assert len(data) == inspect(data).end
    for ends_at in range(containers.PIECE - 2, containers.PIECE + 3):
        data = EVERY["jpeg"][:-2].ljust(ends_at - 2, b"\0") + b"\xff\xd9"
        assert ends_at == inspect(data).end


def test_a_gif_may_hold_extensions_and_local_colours():
    screen, frame = EVERY["gif"][:19], bytearray(EVERY["gif"][19:-1])
    frame[9] = 0x81
    comment = b"!\xfe" + pictures.gif_sub_blocks(b"; " * 300)
    data = screen + comment + frame[:10] + bytes(12) + frame[10:] + b";"
    assert ("gif", 16, 8, len(data)) == inspect(data)


def test_a_webp_may_be_lossy_or_extended():
    lossy = pictures.riff_chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 300 | 1 << 14, 200) + b"data")
    data = pictures.riff(lossy)
    assert ("webp", 300, 200, len(data)) == inspect(data)
    extended = pictures.riff_chunk(b"VP8X", bytes(4) + b"\x1f\x03\0" + b"\x57\x02\0")
    data = pictures.riff(extended + pictures.riff_chunk(b"EXIF", b"odd") + lossy)
    assert ("webp", 800, 600, len(data)) == inspect(data)


def test_a_webp_may_leave_its_last_pad_byte_out_of_its_size():
    chunks = EVERY["webp"][12:] + pictures.riff_chunk(b"EXIF", b"odd")[:-1]
    data = pictures.riff(chunks)
    assert len(data) == inspect(data).end == inspect(data + b"\0").end


def test_an_avif_is_as_large_as_its_largest_part():
    for parts in ([(4, 4), (16, 8)], [(16, 8), (4, 4)]):
        sizes = b"".join(pictures.box(b"ispe", bytes(4) + struct.pack(">II", *part)) for part in parts)
        iloc = pictures.box(b"iloc", bytes(8))
        meta = bytes(4) + iloc + pictures.box(b"iprp", pictures.box(b"ipco", sizes))
        data = pictures.box(b"ftyp", b"mif1\0\0\0\0avif") + pictures.box(b"meta", meta) + pictures.box(b"mdat", b"")
        assert ("avif", 16, 8, len(data)) == inspect(data)


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("missing", [0, 1])
def test_all_that_an_avif_points_to_must_be_there(version, missing):
    """Two extents of one item behind a base offset, and (versions 1 and 2) an item in the meta box."""
    wide = "I" if version == 2 else "H"
    in_file, in_meta = (struct.pack(">H", method) if version else b"" for method in (0, 1))
    index = bytes(4) if version else b""
    ispe = pictures.box(b"ispe", bytes(4) + struct.pack(">II", 16, 8))
    properties = pictures.box(b"iprp", pictures.box(b"ipco", ispe))

    def upto_mdat(base):
        extents = [index + struct.pack(">HH", *extent) for extent in ((0, 40), (40, 60))]
        items = [struct.pack(f">{wide}", 1) + in_file + struct.pack(">HIH", 0, base, 2) + b"".join(extents)]
        if version:
            extent = index + struct.pack(">HH", 9999, 9999)
            items += [struct.pack(f">{wide}", 2) + in_meta + struct.pack(">HIH", 0, base, 1) + extent]
        head = bytes([version, 0, 0, 0, 0x22, 0x44]) + struct.pack(f">{wide}", len(items))
        meta = pictures.box(b"meta", bytes(4) + pictures.box(b"iloc", head + b"".join(items)) + properties)
        return pictures.box(b"ftyp", b"avif\0\0\0\0") + meta

    base = len(upto_mdat(0)) + 8
    data = upto_mdat(base) + pictures.box(b"mdat", bytes(100 - missing))
    if missing:
        assert "an AVIF that ends early" == reason(data)
    else:
        assert ("avif", 16, 8, len(data)) == inspect(data)


def test_an_avif_box_may_have_a_long_size():
    def long_box(kind, body):
        return struct.pack(">I4sQ", 1, kind, 16 + len(body)) + body

    ispe = long_box(b"ispe", bytes(4) + struct.pack(">II", 16, 8))
    meta = bytes(4) + long_box(b"iloc", bytes(8)) + long_box(b"iprp", long_box(b"ipco", ispe))
    data = long_box(b"ftyp", b"avif") + long_box(b"meta", meta) + long_box(b"mdat", b"data")
    assert ("avif", 16, 8, len(data)) == inspect(data)


def test_an_avif_cut_between_two_boxes_is_refused():
    """Whole boxes to the last byte, but the picture was in a second mdat that did not arrive."""
    whole = pictures.avif(data=b"first half" + pictures.box(b"mdat", b"second half"))
    torn = whole.replace(pictures.box(b"mdat", b"second half"), b"")
    torn = torn.replace(struct.pack(">I", 8 + 29) + b"mdat", struct.pack(">I", 18) + b"mdat")
    assert "an AVIF that ends early" == reason(torn)


# --- cost ---


class Counted(io.FileIO):
    largest = total = 0

    def read(self, size=-1):
        data = super().read(size)
        self.largest, self.total = max(self.largest, len(data)), self.total + len(data)
        return data


def test_memory_stays_flat_and_every_byte_is_read_about_once(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(pictures.png(noise_bytes=40 << 20))
    with Counted(path) as file:
        tracemalloc.start()
        try:
            found = raster.inspect(file)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert path.stat().st_size == found.end
    assert peak < 1 << 20
    assert file.largest <= 256 * 1024
    assert file.total < 1.05 * found.end


def test_the_position_of_the_file_does_not_matter():
    file = io.BytesIO(EVERY["png"])
    file.seek(30)
    assert inspect(EVERY["png"]) == raster.inspect(file)


MANY = 1500  # parts, against a bound of 1000


@pytest.mark.parametrize("data", [
    EVERY["gif"][:-1] + b"!\xfe" + b"\1." * MANY,
    EVERY["jpeg"][:-2] + b"\xff\xe1\0\2" * MANY,
    EVERY["png"][:-12] + pictures.png_chunk(b"tEXt", b"") * MANY,
    pictures.riff(EVERY["webp"][12:] + pictures.riff_chunk(b"EXIF", b"") * MANY),
    EVERY["avif"] + pictures.box(b"free", b"") * MANY,
], ids=["gif", "jpeg", "png", "webp", "avif"])
def test_a_file_of_more_parts_than_any_picture_has_is_refused(data, monkeypatch):
    monkeypatch.setattr(containers, "MOST_LOOKS", 1000)
    assert reason(data).endswith("in more parts than any picture has")


@pytest.mark.parametrize("data", [
    EVERY["gif"][:-1] + b"!\xfe" + b"\1." * (16 << 20),
    EVERY["jpeg"][:-2] + b"\xff\xff" * (16 << 20),
    EVERY["avif"][:28] + pictures.box(b"meta", bytes(4) + pictures.box(b"meta", b"") * (2 << 20)),
], ids=["gif", "jpeg filling", "avif nested"])
def test_a_file_made_to_waste_time_is_refused_soon(data):
    began = time.process_time()
    reason(data)
    assert time.process_time() - began < 5
