"""Downloads never lose a picture and never save junk: against a faulty service on a real socket."""

from __future__ import annotations

import base64
import concurrent.futures
import gzip
import hashlib
import os
import ssl
import time
from pathlib import Path

import pytest
from faulty import HTML, Service, cut, drip, hang, page, picture, ranged, redirect, refuse, reset
from image2_cli.clock import Clock
from image2_cli.pictures import download
from pictures import every, jpeg, png
from platforms import needs_posix

PNG, BIG = png(64, 64), png(64, 64, noise_bytes=200_000)
BMP = b"BM" + (1000).to_bytes(4, "little") + bytes(4) + b"\x36\0\0\0" + bytes(986)
B64 = base64.b64encode(PNG).decode()
ORDER = "01234567-89ab-cdef-0123-456789abcdef"


class FastClock(Clock):
    """Nothing but its pauses takes time, and they are over at once."""

    ahead = 0.0

    def now(self):
        return self.ahead

    def sleep(self, seconds):
        self.ahead += seconds


@pytest.fixture
def part(tmp_path):
    (tmp_path / "parts").mkdir()
    return download.new_part(str(tmp_path / "parts"), ORDER, 0)


def fetch(service, part, url="/generations/t-0.png", seconds=60.0, clock=None):
    clock = clock or FastClock()
    return download.fetch(url, part, download.Source(service.base_url, clock), clock.now() + seconds)


def refusal(call, *args, **options) -> download.NotSaved:
    with pytest.raises(download.NotSaved) as caught:
        call(*args, **options)
    assert caught.value.message[0].isupper() and caught.value.message.endswith(".")
    return caught.value


# --- a link

@pytest.mark.parametrize(("name", "answer"), [
    *((name, picture(data)) for name, data in every().items()),
    ("png", picture(png()).but(content_length="many")),
    ("png", picture(png()).but(chunked=True)),
    ("png", picture(png()).but(content_length=None, headers={"Content-Type": "text/html", "Content-Encoding": "br"})),
    ("png", picture(gzip.compress(png())).but(headers={"Content-Encoding": "gzip"})),
    ("png", picture(png()).but(hints=(103, 103))),
])
def test_a_whole_picture_is_saved_at_once_as_what_it_is_whatever_surrounds_it(service, part, name, answer):
    data = every()[name]
    service.on_file(answer)
    extension = ".jpg" if name == "jpeg" else f".{name}"
    digest = hashlib.sha256(data).hexdigest()
    assert download.Saved(part, name, extension, 16, 8, len(data), digest) == fetch(service, part)
    assert (1, data) == (len(service.files), Path(part).read_bytes())


FAULTS = {
    "cut before the body": cut(picture(PNG)),
    "a length that is too long": picture(PNG).but(content_length=len(PNG) + 1),
    "chunked and cut in the picture": cut(picture(PNG).but(chunked=True), -20),
    "a reset in the body": reset(picture(PNG), -5),
    "an HTML page called image/png": page(200).but(headers={"Content-Type": "image/png"}),
    "nothing": picture(b""),
    "gzip that is broken": picture(gzip.compress(PNG)[:-9]).but(headers={"Content-Encoding": "gzip"}),
    "a part, 206": picture(PNG[:50]).but(status=206),
    "a 500": page(500), "a 404": page(404), "a 410": page(410),
    "a 503 with a picture": picture(PNG).but(status=503),
    "no HTTP": picture(PNG).but(raw=PNG),
    "a redirect to nowhere": redirect(302, ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_tries_go_on_while_there_is_time_and_end_with_a_reason_or_the_picture(service, part, fault):
    service.on_file(FAULTS[fault])
    clock, gone = FastClock(), fault in ("a 404", "a 410")
    error = refusal(fetch, service, part, clock=clock)
    assert ("not_saved", gone, False) == (error.code, error.stale, error.is_begun)
    assert (10 if gone else 50) < clock.now() < (25 if gone else 61)
    assert len(service.files) >= 5
    service.on_file(FAULTS[fault], FAULTS[fault], picture(PNG))
    saved = fetch(service, part)
    assert ("png", None, PNG) == (saved.format, saved.damaged, Path(part).read_bytes())


@pytest.mark.parametrize(("headers", "pause"), [
    ({"retry_after": 3}, 3), ({"retry_after": "Wed, 21 Oct 2015 07:28:07 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 7)])
def test_retry_after_is_obeyed_by_the_servers_own_clock(service, part, headers, pause):
    service.on_file(refuse(429, **headers), picture(PNG))
    clock = FastClock()
    fetch(service, part, clock=clock)
    assert pause == clock.ahead


def test_a_retry_after_beyond_the_deadline_ends_the_tries_and_nonsense_is_passed_over(service, part):
    service.on_file(*(refuse(503, retry_after=asked) for asked in ("-5", "soon", 0, 600)))
    assert "The link answered 503." == refusal(fetch, service, part).message
    assert 4 == len(service.files)
    service.on_file(refuse(404, retry_after=12))
    assert refusal(fetch, service, part).stale
    assert 7 == len(service.files)  # three tries at least


def test_a_picture_that_is_too_large_is_not_read_or_given_up_at_the_bound(service, part, monkeypatch):
    assert 64 << 20 == download.MAX_BYTES
    service.on_file(hang(30, picture(PNG).but(content_length=download.MAX_BYTES + 1), "head"))
    assert "larger than 64 MB" in refusal(fetch, service, part).message
    monkeypatch.setattr(download, "MAX_BYTES", 1 << 20)
    for framing in ({"chunked": True}, {"content_length": None}):
        service.on_file(picture(PNG + bytes(2 << 20)).but(**framing))
        assert "larger than 1 MB" in refusal(fetch, service, part).message
        assert os.path.getsize(part) <= 1 << 20
    assert 3 == len(service.files)
    Path(part).write_bytes(bytes(900_000))
    service.on_file(ranged(bytes(1_200_000)))
    assert "larger than 1 MB" in refusal(fetch, service, part).message
    assert 4 == len(service.files)  # what goes on counts with what was there
    Path(part).write_bytes(bytes(900_000))
    service.on_file(picture(BIG))
    assert len(BIG) == fetch(service, part).bytes  # what begins anew does not


@pytest.mark.parametrize("answer", [drip(picture(PNG).but(content_length=None), 1, 0.02), hang(30, picture(PNG), -5)],
                         ids=["a drip", "a stall"])
def test_a_slow_answer_ends_at_the_deadline(service, part, answer):
    service.on_file(answer)
    began = time.monotonic()
    refusal(fetch, service, part, seconds=1, clock=Clock())
    assert time.monotonic() - began < 2.5


# --- going on

def test_a_download_goes_on_where_it_stopped(service, part):
    def short(request):
        request.headers["range"] += "119999"
        return ranged(BIG)(request)

    service.on_file(cut(picture(BIG).but(headers={"ETag": '"v1"'}), 90_000), short, cut(ranged(BIG), 40_000), ranged(BIG))
    assert None is fetch(service, part).damaged
    assert BIG == Path(part).read_bytes()
    asked = [(request.headers.get("range"), request.headers.get("if-range")) for request in service.files]
    assert [(None, None), ("bytes=88896-119999", '"v1"'), ("bytes=118976-", '"v1"'), ("bytes=157795-", '"v1"')] == asked
    assert service.files[-1].sent < 60_000


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', None])
def test_the_next_run_goes_on_too_and_only_a_strong_etag_is_asked_for(service, part, etag):
    service.on_file(cut(ranged(BIG, etag), 90_000))
    error = refusal(fetch, service, part, seconds=0.2)
    assert error.is_begun
    service.on_file(cut(ranged(BIG, etag), 60_000), ranged(BIG, etag))
    assert hashlib.sha256(BIG).hexdigest() == fetch(service, part).sha256
    assert (etag == '"v1"') is ("if-range" in service.files[-1].headers)
    assert service.files[-1].sent < 70_000
    fetch(service, part)  # what a killed run left may be whole, and nothing else known of it
    assert service.files[-1].sent < 2000 and BIG == Path(part).read_bytes()


OTHER = png(64, 64, (1, 2, 3), noise_bytes=210_000)


@pytest.mark.parametrize("answer", [ranged(OTHER), ranged(OTHER, '"v2"'), picture(OTHER), page(416)],
                         ids=["under the same ETag", "another ETag", "no ranges", "416"])
@pytest.mark.parametrize("is_same_run", [True, False])
def test_where_it_is_another_picture_it_begins_anew(service, part, answer, is_same_run):
    Path(part).write_bytes(BIG[:150_000])
    service.on_file(*[cut(ranged(BIG), -9)] * is_same_run, answer, ranged(OTHER))
    fetch(service, part)
    assert OTHER == Path(part).read_bytes()


@pytest.mark.parametrize(("alike", "etag"), [(BIG[:-20] + b"abcd" + BIG[-16:], '"v2"'), (BIG + b"more", '"v1"')])
def test_another_etag_or_length_is_another_picture_though_if_range_was_passed_over(service, part, alike, etag):
    def deaf(request):
        request.headers.pop("if-range", None)
        return ranged(alike, etag)(request)

    service.on_file(cut(ranged(BIG), 90_000), deaf)
    fetch(service, part)
    assert (3, alike) == (len(service.files), Path(part).read_bytes())


def test_a_download_that_gets_on_waits_no_longer_each_time(service, part):
    service.on_file(*[cut(ranged(BIG), 15_000)] * 12, ranged(BIG))
    clock = FastClock()
    fetch(service, part, clock=clock)
    assert clock.ahead < 13


def test_a_page_in_between_takes_nothing_away_from_what_is_there(service, part):
    service.on_file(cut(ranged(BIG), 90_000), page(200), page(500), ranged(BIG))
    fetch(service, part)
    assert BIG == Path(part).read_bytes()
    assert service.files[-1].sent < 130_000


# --- what came whole, and is no good picture

SPOILED = BIG[:4] + BIG[8:]
NONE = "not a png, jpeg, webp, gif or avif image."
KEPT = {
    "a PNG without its end": (BIG[:-12], "png", ".png.damaged", "A PNG that ends early."),
    "a BMP": (BMP, "bmp", ".bmp", f"A BMP, {NONE}"),
    "something": (bytes(range(256)), "unknown", ".bin.damaged", f"Of an unknown kind, {NONE}"),
}


@pytest.mark.parametrize("framing", [{}, {"content_length": None}], ids=["length", "close"])
@pytest.mark.parametrize("name", KEPT)
def test_what_came_whole_twice_is_kept_under_an_honest_name(service, part, name, framing):
    data, kind, extension, damaged = KEPT[name]
    service.on_file(picture(data).but(**framing))
    saved = fetch(service, part)
    assert (kind, extension, damaged) == (saved.format, saved.extension, saved.damaged)
    assert (None, len(data)) == (saved.width, saved.bytes)
    assert (2, data) == (len(service.files), Path(part).read_bytes())
    assert all("range" not in request.headers for request in service.files)


def test_what_came_whole_and_damaged_is_kept_where_no_time_is_left_to_ask_again(service, part):
    service.on_file(picture(PNG[:-12]))
    assert ".png.damaged" == fetch(service, part, seconds=0.2).extension
    service.on_file(picture(PNG[:-12]), page(200))
    assert ".png.damaged" == fetch(service, part).extension
    service.on_file(picture(PNG[:-12]).but(content_length=None))
    refusal(fetch, service, part, seconds=0.2)  # a cut cannot be told from its end
    service.on_file(picture(BIG[:-12]), cut(picture(BIG[:-12]), 90_000))
    assert refusal(fetch, service, part).is_begun  # it is not there any more


@pytest.mark.parametrize("answer", [
    ranged(SPOILED), cut(picture(PNG).but(content_length=None), -1), picture(PNG).but(content_length=len(PNG) - 1),
], ids=["pieced together wrongly", "cut without a length", "a length that is too short"])
def test_what_came_damaged_and_not_twice_alike_is_fetched_anew(service, part, answer):
    Path(part).write_bytes(SPOILED[:100_000])
    service.on_file(answer, picture(BIG[:-12]), picture(BIG))
    assert None is fetch(service, part).damaged
    assert BIG == Path(part).read_bytes()


# --- safety

@pytest.mark.parametrize("make", [
    pytest.param(lambda *_: None, id="nothing"),
    pytest.param(lambda _, path: os.mkdir(path), id="a folder"),
    pytest.param(os.symlink, id="a link", marks=needs_posix),
    pytest.param(lambda _, path: os.mkfifo(path), id="a FIFO", marks=needs_posix),
])
def test_only_our_own_regular_file_is_written_and_none_made_anew(service, part, tmp_path, make):
    (tmp_path / "precious").write_bytes(PNG)
    os.unlink(part)
    make(tmp_path / "precious", part)
    before = os.listdir(tmp_path / "parts")
    for error in (refusal(fetch, service, part), refusal(download.unpack, B64, part)):
        assert error.message.startswith("The disk refused it (")
    assert (PNG, before) == ((tmp_path / "precious").read_bytes(), os.listdir(tmp_path / "parts"))


def test_a_download_carries_no_credential_and_no_proxy_to_this_machine(service, part, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password canary-login\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("IMAGE2_API_KEY", "canary-0123-not-a-real-one")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    service.on_file(redirect(302, "/other").but(headers={"Location": "/other", "Set-Cookie": "a=b"}), picture(PNG))
    fetch(service, part)
    for request in service.files:
        assert {"host", "user-agent", "accept-encoding", "accept", "connection", "cookie"} >= set(request.headers)
        assert "canary" not in str(request.headers)


def test_five_redirects_of_any_kind_are_followed_and_a_sixth_is_not(service, part):
    where = "/图/cat.exe?x=1".encode().decode("latin-1")
    service.on_file(*[redirect(status, where) for status in (301, 302, 303, 307, 308)], picture(jpeg()))
    assert ".jpg" == fetch(service, part).extension  # from the bytes, never from the name
    assert {"/%E5%9B%BE/cat.exe?x=1"} == {request.path for request in service.files[1:]}
    service.on_file(redirect(302, "/a"))
    assert "redirected more than 5 times" in refusal(fetch, service, part).message
    service.on_file(redirect(302, "file:///etc/hostname"))
    assert "gave a link" in refusal(fetch, service, part).message
    assert 13 == len(service.files)


def test_an_http_link_of_an_https_service_is_asked_by_https_and_a_strange_certificate_ends_it(part, tmp_path, monkeypatch):
    authority = pytest.importorskip("trustme").CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Service(tls=context) as service:
        source = download.Source(service.base_url, FastClock())
        link = service.base_url.replace("https:", "http:") + "/generations/t-0.png"
        message = refusal(download.fetch, link, part, source, source.clock.now() + 60).message
        assert ("certificate" in message, 1) == (True, service.connections)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        assert "png" == download.fetch(link, part, source, source.clock.now() + 60).format


# --- base64

@pytest.mark.parametrize("text", [
    B64, "data:;base64," + B64, B64.rstrip("="), B64.replace("+", "-").replace("/", "_"), base64.encodebytes(PNG).decode(),
], ids=["plain", "data URI", "no padding", "URL-safe", "in lines"])
def test_a_picture_inside_the_answer_is_saved_in_every_spelling(part, text):
    Path(part).write_bytes(bytes(2000))
    assert ".png.damaged" == download.unpack(B64[:-40], part).extension
    saved = download.unpack(text, part)
    assert ("png", 64, 64, None) == (saved.format, saved.width, saved.height, saved.damaged)
    assert PNG == Path(part).read_bytes()


@pytest.mark.parametrize("text", ["", "A", "data:image/png;base64,", "ключ", "\ud800", B64[:48] + "****" + B64[48:],
                                  base64.b64encode(HTML.encode()).decode()])
def test_base64_that_is_no_picture_is_refused(part, text):
    assert "not_saved" == refusal(download.unpack, text, part).code


@pytest.mark.slow
def test_base64_that_is_too_large_is_refused_before_it_is_decoded(part):
    text = "A" * (download.MAX_BYTES // 3 * 4 + 8)
    for large in (text, text * 2):
        assert "larger than 64 MB" in refusal(download.unpack, large, part).message
    assert 0 == os.path.getsize(part)


# --- names

@needs_posix
@pytest.mark.parametrize("links", [True, False])
def test_a_name_that_is_taken_is_never_replaced_unasked(part, tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links on FAT")))
    Path(part).write_bytes(PNG)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for taken in ("file", "folder", "link", "dangling"):
        assert not download.publish(part, str(tmp_path / taken), False)
    assert ("kept", False) == ((tmp_path / "file").read_text(), (tmp_path / "nowhere").exists())
    assert download.publish(part, str(tmp_path / "a.png"), False)
    assert (PNG, False) == ((tmp_path / "a.png").read_bytes(), os.path.exists(part))
    assert download.publish(str(tmp_path / "a.png"), str(tmp_path / "link"), True)  # the link, not what it leads to
    assert ("kept", PNG) == ((tmp_path / "file").read_text(), (tmp_path / "link").read_bytes())


@needs_posix
def test_without_links_many_at_once_get_a_name_each_and_no_empty_file_ever_stands_there(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(95, "no links")))
    monkeypatch.setattr(os, "rename", lambda old, new, real=os.rename: (time.sleep(0.005), real(old, new)))
    parts = [download.new_part(str(tmp_path), ORDER, n) for n in range(8)]
    for n, path in enumerate(parts):
        Path(path).write_text(str(n))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda path: download.publish(path, str(tmp_path / "a"), False), parts))
    assert [False] * 7 + [True] == sorted(given)
    assert 8 == len(os.listdir(tmp_path)) and (tmp_path / "a").stat().st_size == 1


@pytest.mark.parametrize(("failures", "reason", "expected"), [(3, 32, True), (99, 5, False)])
def test_a_file_that_a_viewer_holds_open_is_tried_for_a_moment(part, tmp_path, monkeypatch, failures, reason, expected):
    in_use = PermissionError(13, "in use")
    in_use.winerror = reason
    tries, real = [in_use] * failures, os.replace

    def replace(old, new):
        if tries:
            raise tries.pop()
        real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    assert expected is download.publish(part, str(tmp_path / "a.png"), True)
    assert expected is not os.path.exists(part)
    in_use.winerror = None
    tries.append(in_use)
    with pytest.raises(PermissionError):
        download.publish(part, str(tmp_path / "b.png"), True)


@needs_posix
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_picture_has_the_ordinary_mode_of_a_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        part = download.new_part(str(tmp_path), ORDER, 0)
    finally:
        os.umask(before)
    download.publish(part, str(tmp_path / "a.png"), False)
    assert 0o100666 & ~umask == (tmp_path / "a.png").stat().st_mode


def test_the_leftovers_of_an_order_are_its_own(tmp_path):
    parts = [download.new_part(str(tmp_path), ORDER, index) for index in (0, 1)]
    other = download.new_part(str(tmp_path), ORDER[:-1] + "0", 0)
    (tmp_path / "a.part").touch()
    assert sorted(parts) == download.leftovers(str(tmp_path), ORDER)
    assert [other] == download.leftovers(str(tmp_path), ORDER[:-1] + "0")
    assert [] == download.leftovers(str(tmp_path / "nowhere"), ORDER)
    assert "disk refused" in refusal(download.new_part, str(tmp_path / "nowhere"), ORDER, 0).message


@needs_posix
def test_a_saved_picture_is_known_by_its_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(b"hello")
    digest = hashlib.sha256(b"hello").hexdigest()
    assert download.is_file_with(str(tmp_path / "a.png"), digest)
    (tmp_path / "link").symlink_to(tmp_path / "a.png")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "link", tmp_path / "none", tmp_path, tmp_path / "fifo", "/dev/zero", "a\0b"):
        assert not download.is_file_with(str(path), digest)
    (tmp_path / "a.png").write_bytes(b"hallo")
    assert not download.is_file_with(str(tmp_path / "a.png"), digest)
