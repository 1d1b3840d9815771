"""Downloads never lose a picture and never save junk: the room against a faulty service."""

import base64
import os
import re
import stat
import time
from pathlib import Path

import pytest
from faulty import HTML, cut, drip, hang, page, picture, redirect, refuse, reset
from image2_cli.clock import Clock
from image2_cli.pictures import download
from pictures import every, jpeg, png
from platforms import needs_linux, needs_posix

PNG = png(64, 64)
ORDER = "01234567-89ab-cdef-0123-456789abcdef"


class FastClock(Clock):
    """Pauses are over at once, but count."""

    ahead = 0.0

    def now(self):
        return super().now() + self.ahead

    def sleep(self, seconds):
        self.ahead += seconds


@pytest.fixture
def part(tmp_path):
    (tmp_path / "parts").mkdir()
    return download.make_parts(str(tmp_path / "parts"), ORDER, 1)[0]


def fetch(service, part, url="/generations/t-0.png", seconds=60.0, loopback=True, clock=None):
    clock = clock or FastClock()
    return download.fetch(service.base_url + url, part, loopback, clock, clock.now() + seconds)


def refusal(call, *args, **options) -> download.NotSaved:
    with pytest.raises(download.NotSaved) as caught:
        call(*args, **options)
    return caught.value


# --- a URL


@pytest.mark.parametrize("name", every())
def test_a_whole_picture_of_every_format_is_saved_as_what_it_is(service, part, name):
    service.on_file(picture(every()[name]))
    saved = fetch(service, part)
    assert (part, name, 16, 8) == saved[:4]
    assert every()[name] == Path(part).read_bytes()


UNWHOLE = {
    "cut with a length": cut(picture(PNG), -1),
    "cut without a length": cut(picture(PNG).but(content_length=None), -1),
    "cut before the body": cut(picture(PNG)),
    "cut before the head": cut(picture(PNG), 0),
    "cut in the head": cut(picture(PNG), 25),
    "a length that is too long": picture(PNG).but(content_length=len(PNG) + 1),
    "a length that is too short": picture(PNG).but(content_length=len(PNG) - 1),
    "a broken length, cut": cut(picture(PNG).but(content_length="many"), -1),
    "a negative length, cut": cut(picture(PNG).but(content_length="-5"), -1),
    "chunked and cut": cut(picture(PNG).but(chunked=True), -9),
    "chunked and cut without its last chunk, in the picture": cut(picture(PNG).but(chunked=True), -20),
    "a reset in the head": reset(picture(PNG), 20),
    "a reset in the body": reset(picture(PNG), -5),
    "a reset in the body without a length": reset(picture(PNG).but(content_length=None), -5),
    "an HTML page": page(200),
    "an HTML page called image/png": page(200).but(headers={"Content-Type": "image/png"}),
    "JSON": refuse(200, "no such file"),
    "nothing": picture(b""),
    "nothing without a length": picture(b"").but(content_length=None),
    "text": picture(b"hello"),
    "an SVG": picture(b'<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "a PNG in the middle of a page": picture(HTML.encode() + PNG),
    "gzip that is broken": picture(PNG).but(headers={"Content-Encoding": "gzip"}),
    "an empty 204": picture(b"").but(status=204),
    "a part, 206": picture(PNG[:50]).but(status=206),
    "a 500": page(500),
    "a 503 with a picture": picture(PNG).but(status=503),
    "a 429": refuse(429, retry_after=1),
    "a 304": picture(b"").but(status=304),
    "no HTTP": picture(PNG).but(raw=PNG),
}


@pytest.mark.parametrize("fault", UNWHOLE)
def test_what_is_no_whole_picture_is_asked_for_three_times_and_refused(service, part, fault):
    service.on_file(UNWHOLE[fault])
    clock = FastClock()
    error = refusal(fetch, service, part, clock=clock)
    assert ("not_saved", False, 3) == (error.code, error.stale, len(service.files))
    assert 1.125 <= clock.ahead <= 1.5  # half a second, then one, each a little less
    assert "%" not in error.message


@pytest.mark.parametrize("fault", UNWHOLE)
def test_a_passing_fault_costs_only_another_look(service, part, fault):
    service.on_file(UNWHOLE[fault], picture(PNG))
    assert "png" == fetch(service, part).format
    assert (2, PNG) == (len(service.files), Path(part).read_bytes())


@pytest.mark.parametrize("at", range(0, len(PNG), 7))
def test_a_png_cut_anywhere_is_refused_even_where_no_length_tells(service, part, at):
    service.on_file(picture(PNG[:at]).but(content_length=None))
    assert "no whole picture" in refusal(fetch, service, part).message


@pytest.mark.parametrize("answer", [
    picture(PNG).but(content_length=None),
    picture(PNG).but(content_length="many"),
    picture(PNG).but(chunked=True),
    picture(PNG).but(headers={"Content-Type": "text/html"}),
    picture(PNG).but(headers={"Content-Type": None}),
    drip(picture(PNG), 40, 0.001),
], ids=["no length", "a broken length", "chunked", "called HTML", "called nothing", "in small pieces"])
def test_a_whole_picture_is_saved_whatever_surrounds_it(service, part, answer):
    service.on_file(answer)
    assert (64, 64) == fetch(service, part)[2:4]
    assert (1, PNG) == (len(service.files), Path(part).read_bytes())


def test_what_was_longer_at_the_first_try_leaves_nothing_behind_the_second(service, part):
    service.on_file(picture(HTML.encode() * 50), picture(PNG))
    fetch(service, part)
    assert PNG == Path(part).read_bytes()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_expired_link_is_not_asked_again_but_called_stale(service, part, status):
    service.on_file(page(status))
    error = refusal(fetch, service, part)
    assert (True, status, 1) == (error.stale, error.http_status, len(service.files))


def test_a_picture_that_says_it_is_too_large_is_not_read(service, part):
    service.on_file(hang(30, picture(PNG).but(content_length=download.MAX_BYTES + 1), "head"))
    began = time.monotonic()
    assert "larger than 64 MB" in refusal(fetch, service, part).message
    assert 1 == len(service.files)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("how", ["chunked", "no length"])
def test_a_picture_that_becomes_too_large_is_given_up_at_the_bound(service, part, how):
    big = picture(PNG[:-12] + bytes(download.MAX_BYTES))
    service.on_file(big.but(chunked=True) if how == "chunked" else big.but(content_length=None))
    assert "larger than 64 MB" in refusal(fetch, service, part).message
    assert 1 == len(service.files)
    assert os.path.getsize(part) <= download.MAX_BYTES


def test_a_drip_ends_at_the_deadline(service, part):
    service.on_file(drip(picture(PNG).but(content_length=None), 1, 0.02))
    began = time.monotonic()
    assert "time was up" in refusal(fetch, service, part, seconds=1, clock=Clock()).message
    assert time.monotonic() - began < 2


def test_a_stall_ends_at_the_deadline(service, part):
    service.on_file(hang(30, picture(PNG), -5))
    began = time.monotonic()
    refusal(fetch, service, part, seconds=1, clock=Clock())
    assert time.monotonic() - began < 2.5


def test_a_stall_long_before_the_deadline_is_given_up_and_asked_again(service, part, monkeypatch):
    assert 20 == download.SILENCE_S
    monkeypatch.setattr(download, "SILENCE_S", 0.3)
    service.on_file(hang(30, picture(PNG), -5), picture(PNG))
    assert "png" == fetch(service, part).format


def test_no_try_begins_that_could_not_end_in_time(service, part):
    service.on_file(page(500))
    refusal(fetch, service, part, seconds=0.3)
    assert 1 == len(service.files)


def test_a_part_that_was_taken_away_is_not_made_anew(service, part):
    os.unlink(part)
    service.on_file(picture(PNG))
    assert "disk refused" in refusal(fetch, service, part).message
    assert "disk refused" in refusal(download.unpack, B64, part).message
    assert [] == os.listdir(os.path.dirname(part))


@needs_posix
def test_a_part_that_was_replaced_by_a_symlink_is_not_followed(service, part, tmp_path):
    (tmp_path / "precious").write_text("kept")
    os.unlink(part)
    os.symlink(tmp_path / "precious", part)
    service.on_file(picture(PNG))
    refusal(fetch, service, part)
    assert "kept" == (tmp_path / "precious").read_text()


def test_a_service_on_this_machine_is_not_asked_through_a_proxy(service, part, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert "png" == fetch(service, part).format


def test_a_download_carries_no_credential_of_any_kind(service, part, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password canary-login\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("IMAGE2_API_KEY", "canary-0123-not-a-real-one")
    service.on_file(redirect(302, "/other").but(headers={"Location": "/other", "Set-Cookie": "a=b"}), picture(PNG))
    fetch(service, part)
    fetch(service, part)
    for request in service.files:
        assert {"host", "user-agent", "accept-encoding", "accept", "connection"} >= set(request.headers) - {"cookie"}
        assert "canary" not in str(request.headers)
    assert "cookie" not in service.files[0].headers


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_and_the_extension_still_comes_from_the_bytes(service, part, status):
    service.on_file(redirect(status, "/elsewhere/cat.exe?x=1"), picture(jpeg()))
    assert "jpeg" == fetch(service, part).format
    assert ["/generations/t-0.png", "/elsewhere/cat.exe?x=1"] == [request.path for request in service.files]


def test_five_redirects_are_followed_and_a_sixth_is_not(service, part):
    service.on_file(*[redirect(302, "/a")] * 5, picture(PNG))
    fetch(service, part)
    assert 6 == len(service.files)
    service.on_file(redirect(302, "/a"))
    assert "redirected more than 5 times" in refusal(fetch, service, part).message
    assert 12 == len(service.files)


@pytest.mark.parametrize("where", ["ftp://127.0.0.1/a.png", "file:///etc/hostname", "http://me:pw@127.0.0.1/a.png",
                                   "http://[::1", "//127.0.0.1:notaport/a.png", "data:image/png;base64,AAAA"])
def test_a_redirect_to_what_must_not_be_asked_is_refused(service, part, where):
    service.on_file(redirect(302, where))
    refusal(fetch, service, part)


def test_a_redirect_to_nowhere_is_no_picture(service, part):
    service.on_file(redirect(302, "/a").but(headers={}))
    assert 302 == refusal(fetch, service, part).http_status


# --- what may be asked

INNER = re.findall(r"\S+", """
127.0.0.1 127.1 127.0.1 2130706433 0x7f.1 0x7f000001 0177.0.0.1 017700000001 127.0.0.1. localhost localhost.
LOCALHOST 0.0.0.0 0 [::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [::ffff:10.0.0.1]
[64:ff9b::7f00:1] [64:ff9b::10.1.2.3] [64:ff9b:1::7f00:1] [2002:7f00:1::] [2002:a00:1::] [2002:c0a8:101::1]
169.254.169.254 0xa9fea9fe 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1
224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 198.18.0.1 192.0.2.1 [fe80::1] [fc00::1] [fd12::1] [fec0::1]
[ff02::1] [2001:db8::1] [100::1] [fe80::1%25eth0] %31%32%37.0.0.1 １２７.0.0.1 ①②⑦.0.0.1 127。0。0。1 [::ffff:0:127.0.0.1]
""")
OUTER = ["8.8.8.8", "134744072", "[2606:4700::1111]", "[64:ff9b::8.8.8.8]", "[2002:808:808::1]", "[::ffff:8.8.8.8]"]


@pytest.mark.parametrize("host", INNER)
def test_an_inner_address_is_refused_in_every_spelling(host):
    refusal(download.check_url, "https://%s/a.png" % host, False)
    refusal(download.check_url, "https://%s:8443/a.png" % host, False)


@pytest.mark.parametrize("host", OUTER)
def test_a_public_address_may_be_asked(host):
    download.check_url("https://%s/a.png" % host, False)


@pytest.mark.parametrize("url", [
    "http://8.8.8.8/a.png", "ftp://8.8.8.8/a.png", "file:///etc/hostname", "//8.8.8.8/a.png", "a.png", "", "https://",
    "https:///a.png", "https://me@8.8.8.8/a.png", "https://me:pw@8.8.8.8/a.png", "https://@8.8.8.8/a.png",
    "https://8.8.8.8\\@127.0.0.1/a.png", "https://8.8.8.8:99999/a.png", "https://[::1/a.png", "javascript:alert(1)",
    "https://8.8.8.8:port/a.png", "data:image/png;base64,AAAA",
])
def test_what_is_no_plain_https_link_is_refused(url):
    refusal(download.check_url, url, False)


def test_on_loopback_plain_http_and_inner_addresses_are_the_services_own_but_nothing_else_is():
    for host in ("127.0.0.1:8080", "[::1]:8080", "10.0.0.1", "8.8.8.8"):
        download.check_url("http://%s/a.png" % host, True)
    for url in ("ftp://127.0.0.1/a", "file:///etc/hostname", "http://me:pw@127.0.0.1/a", "http://%31.0.0.1/a"):
        refusal(download.check_url, url, True)


def test_a_service_that_the_user_named_by_an_inner_address_may_give_links_to_itself_only():
    download.check_url("https://10.1.2.3:8443/a.png", False, "10.1.2.3:8443")
    for url in ("https://10.1.2.3/a.png", "https://10.1.2.4:8443/a.png", "http://10.1.2.3:8443/a.png"):
        refusal(download.check_url, url, False, "10.1.2.3:8443")


def test_a_name_that_only_the_proxy_knows_is_not_refused():
    download.check_url("https://image2.invalid/a.png", False)


# --- base64

B64 = base64.b64encode(PNG).decode()


@pytest.mark.parametrize("text", [
    B64, "data:image/png;base64," + B64, "data:;base64," + B64, B64.rstrip("="), B64.replace("+", "-").replace("/", "_"),
    "\n".join(B64[at:at + 76] for at in range(0, len(B64), 76)), " %s\n" % B64, base64.b64encode(PNG + b"x").decode(),
], ids=["plain", "data URI", "without a type", "no padding", "URL-safe", "in lines", "blanks around", "a byte more"])
def test_a_picture_inside_the_answer_is_saved_in_every_spelling(part, text):
    assert ("png", 64, 64) == download.unpack(text, part)[1:4]
    assert Path(part).read_bytes().startswith(PNG)


@pytest.mark.parametrize("text", [
    "", "=", "A", "not base64 at all!", B64[:-40], B64[:-41], "data:image/png;base64,", "data:image/png,hello", "ключ",
    base64.b64encode(HTML.encode()).decode(), "data:text/html;base64," + base64.b64encode(HTML.encode()).decode(),
    B64[:48] + "****" + B64[48:], "\ud800", "data:",
])
def test_base64_that_is_no_whole_picture_is_refused(part, text):
    assert "not_saved" == refusal(download.unpack, text, part).code


def test_a_large_picture_inside_the_answer_is_no_too_large_one(part):
    assert "png" == download.unpack(base64.encodebytes(png(64, 64, noise_bytes=8 << 20)).decode(), part).format


def test_base64_that_is_too_large_is_refused_before_it_is_decoded(part):
    assert 64 << 20 == download.MAX_BYTES
    text = "A" * (download.MAX_BYTES // 3 * 4 + 8)
    assert "larger than 64 MB" in refusal(download.unpack, text, part).message
    assert "larger than 64 MB" in refusal(download.unpack, text * 2, part).message
    assert 0 == os.path.getsize(part)


# --- names


@needs_posix
def test_a_name_that_is_taken_is_never_replaced_unasked(part, tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for taken in ("file", "folder", "link", "dangling"):
        assert not download.publish(part, str(tmp_path / taken), False)
        assert os.path.exists(part)
    assert "kept" == (tmp_path / "file").read_text()
    assert not (tmp_path / "nowhere").exists()


@needs_posix
def test_overwrite_replaces_a_link_and_not_what_it_leads_to(part, tmp_path):
    Path(part).write_bytes(PNG)
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "a.png").symlink_to(tmp_path / "precious")
    assert download.publish(part, str(tmp_path / "a.png"), True)
    assert ("kept", PNG) == ((tmp_path / "precious").read_text(), (tmp_path / "a.png").read_bytes())
    assert not (tmp_path / "a.png").is_symlink()


def test_publishing_takes_the_temporary_name_away(part, tmp_path):
    download.remove(str(tmp_path / "gone.part"))  # as another run may have done
    assert download.publish(part, str(tmp_path / "a.png"), False)
    assert not os.path.exists(part)


def test_without_hard_links_nothing_is_replaced_either(part, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links on FAT")))
    Path(part).write_bytes(PNG)
    (tmp_path / "taken").write_text("kept")
    assert not download.publish(part, str(tmp_path / "taken"), False)
    assert "kept" == (tmp_path / "taken").read_text()
    assert download.publish(part, str(tmp_path / "a.png"), False)
    assert PNG == (tmp_path / "a.png").read_bytes()
    assert not os.path.exists(part)


@needs_linux
def test_a_name_that_could_not_be_given_is_left_free(tmp_path):
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("/dev/shm and the test's folder are one file system, so nothing can fail here")
    part = download.make_parts("/dev/shm", ORDER, 1)[0]
    try:
        with pytest.raises(OSError):
            download.publish(part, str(tmp_path / "a.png"), False)
        assert not (tmp_path / "a.png").exists()
    finally:
        download.remove(part)


@needs_posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_picture_has_the_ordinary_mode_of_a_file(service, tmp_path, umask):
    service.on_file(picture(PNG))
    before = os.umask(umask)
    try:
        (part,) = download.make_parts(str(tmp_path), ORDER, 1)
        fetch(service, part)
        download.publish(part, str(tmp_path / "a.png"), False)
    finally:
        os.umask(before)
    assert oct(0o666 & ~umask) == oct(stat.S_IMODE((tmp_path / "a.png").stat().st_mode))


def test_the_leftovers_of_an_order_are_its_own(tmp_path):
    parts = download.make_parts(str(tmp_path), ORDER, 2)
    other = download.make_parts(str(tmp_path), ORDER[:-1] + "0", 1)
    (tmp_path / "a.part").touch()
    assert sorted(parts) == sorted(download.leftovers(str(tmp_path), ORDER))
    assert other == download.leftovers(str(tmp_path), ORDER[:-1] + "0")
    assert [] == download.leftovers(str(tmp_path / "nowhere"), ORDER)


@needs_posix
@pytest.mark.parametrize(("error", "reason"), [(OSError(28, "No space left"), "No space left"), (OSError("odd"), "odd")])
def test_parts_that_cannot_all_be_made_leave_none(tmp_path, monkeypatch, error, reason):
    real = os.open

    def full_after_two(path, *rest):
        if len(os.listdir(tmp_path)) == 2:
            raise error
        return real(path, *rest)

    monkeypatch.setattr(os, "open", full_after_two)
    assert f"the disk refused it ({reason})" == refusal(download.make_parts, str(tmp_path), ORDER, 3).message
    assert [] == os.listdir(tmp_path)


@needs_posix
def test_a_saved_picture_is_known_by_its_bytes(tmp_path):
    (tmp_path / "a.png").write_bytes(b"hello")
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert download.is_file_with(str(tmp_path / "a.png"), digest)
    (tmp_path / "a.png").write_bytes(b"hallo")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "a.png", tmp_path / "none", tmp_path, tmp_path / "fifo", "/dev/zero", "a\0b", "/proc/self/mem"):
        for other in (digest, "0" * 64, "f" * 64):
            assert not download.is_file_with(str(path), other)
