"""The key comes from one variable or that one name of one file; the base URL from the real environment alone."""

import os
import socket
import sys
import traceback

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from image2_cli.errors import Image2Error
from image2_cli.machine import settings as room
from platforms import needs_posix

quick = hypothesis_settings(max_examples=150, deadline=None, database=None)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
DOTENV = "." + "env"  # scanners take a plain mention of its name beside network code for theft
KEY = "canary-0123-not-a-real-one"
OTHER = "canary-4567-not-a-real-one"
FILE = "the dotenv file of the working folder"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder, with another project's file above it."""
    (tmp_path / DOTENV).write_text(f"IMAGE2_API_KEY={OTHER}\n")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(environment) -> Image2Error:
    with pytest.raises(Image2Error) as caught:
        room.read(environment)
    return caught.value


def with_file(folder, content, environment=None):
    (folder / DOTENV).write_bytes(content if isinstance(content, bytes) else content.encode())
    return room.read(environment or {})


# --- the key


def test_the_key_of_the_environment_comes_first(folder):
    settings = with_file(folder, f"IMAGE2_API_KEY={OTHER}", {"IMAGE2_API_KEY": KEY})
    assert (KEY, "the environment", "https://image2.vip") == (str(settings.key), settings.key_source, settings.base_url)
    assert settings.is_sandbox is False


@pytest.mark.parametrize("blank", ["", "\t\n"])
def test_a_blank_variable_is_none_and_the_key_comes_from_the_working_folders_file(folder, blank):
    settings = with_file(folder, f"IMAGE2_API_KEY={KEY}\n", {"IMAGE2_API_KEY": blank})
    assert (KEY, FILE) == (str(settings.key), settings.key_source)


@pytest.mark.parametrize("content", [
    f"export IMAGE2_API_KEY={KEY}", f"IMAGE2_API_KEY = '{KEY}'", f'IMAGE2_API_KEY="{KEY}"  # mine',
    f"\ufeffIMAGE2_API_KEY={KEY}", f"# caf\u00e9\nIMAGE2_API_KEY={KEY}\n".encode("latin-1"),
    f"A=1\r\nIMAGE2_API_KEY={KEY}\r\n",
    f"this is no assignment at all\nIMAGE2_API_KEY={KEY}", f"IMAGE2_API_KEY=one-to-be-replaced\nIMAGE2_API_KEY={KEY}",
    b"\x00\xff\xfe\n" + f"IMAGE2_API_KEY={KEY}\n".encode(), f"# IMAGE2_API_KEY='a\nIMAGE2_API_KEY={KEY} # '",
    f'IMAGE2_API_KEY="{KEY}\\n"'])
def test_the_file_may_be_written_in_any_usual_way(folder, monkeypatch, content):
    assert KEY == with_file(folder, content).key
    monkeypatch.setitem(sys.modules, "dotenv", None)
    assert KEY in room.known_secrets({})
    with pytest.raises(ImportError):
        room.read({})


@pytest.mark.parametrize("content", [
    "", "IMAGE2_API_KEY", "IMAGE2_API_KEY=", "IMAGE2_API_KEY='  '", f"# IMAGE2_API_KEY={KEY}", f"MY_IMAGE2_API_KEY={KEY}",
    f"IMAGE2_API_KEY_2={KEY}", f"image2_api_key={KEY}", f"IMAGE2_API_KEY={KEY}".encode("utf-16")])
def test_a_file_without_the_name_or_a_value_holds_no_key(folder, content):
    (folder / DOTENV).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert "missing_key" == refused({}).code


def test_the_file_is_not_read_where_it_is_larger_than_64_kib(folder):
    line = f"IMAGE2_API_KEY={KEY}\n"
    assert KEY == with_file(folder, line + "#" * (64 * 1024 - len(line))).key
    (folder / DOTENV).write_text(line + "#" * (64 * 1024 - len(line) + 1))
    assert "missing_key" == refused({}).code


def test_no_other_variable_of_the_file_has_any_effect_nor_is_any_put_in(folder):
    before = dict(os.environ)
    names = ("IMAGE2_BASE_URL", "HTTPS_PROXY", "https_proxy", "REQUESTS_CA_BUNDLE", "LD_PRELOAD", "PYTHONPATH", "PATH")
    settings = with_file(folder, "".join(f"{name}=https://evil.example\n" for name in names)
                         + "IMAGE2_API_KEY=${PATH}-$PATH-key\n")
    assert ("${PATH}-$PATH-key", "https://image2.vip") == (settings.key, settings.base_url)
    assert before == dict(os.environ)


def test_a_file_above_the_working_folder_is_another_projects(folder):
    error = refused({})
    assert ("missing_key", 4, "no") == (error.code, error.exit_status, error.charged)
    assert "IMAGE2_API_KEY" in error.message and "https://image2.vip" in error.message and "not in the chat" in error.message


@needs_posix
@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "socket", "dangling", "loop"])
def test_what_is_no_regular_file_is_never_opened(folder, kind):
    path = folder / DOTENV
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(DOTENV)  # relative: such a name may have no more than 108 bytes, 104 on macOS
    else:
        path.symlink_to({"device": "/dev/zero", "dangling": "/nowhere/at/all", "loop": path}[kind])
    assert "missing_key" == refused({}).code


@needs_posix
def test_a_link_to_a_regular_file_is_followed(folder):
    (folder / "keys").write_text(f"IMAGE2_API_KEY={KEY}")
    (folder / DOTENV).symlink_to("keys")
    assert KEY == room.read({}).key


@needs_posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_passed_over(folder):
    (folder / DOTENV).write_text(f"IMAGE2_API_KEY={KEY}")
    (folder / DOTENV).chmod(0)
    assert "missing_key" == refused({}).code


@needs_posix
def test_a_working_folder_that_is_gone_holds_no_key(folder):
    folder.rmdir()
    assert "missing_key" == refused({}).code
    assert KEY == room.read({"IMAGE2_API_KEY": KEY}).key


@pytest.mark.parametrize("key", ["x" * 8, "x" * 512, "!~" * 4, f" {KEY}\n", 'quote"back\\slash'])
def test_a_key_has_8_to_512_visible_ascii_characters(key):
    assert key.strip() == room.read({"IMAGE2_API_KEY": key}).key


@pytest.mark.parametrize("key", [
    "x" * 7, "x" * 513, f"{KEY}\r\nX-Evil: 1", f"Bearer {KEY}", f"{KEY}\x00", f"\x1b{KEY}", f"{KEY}\x7f", f"{KEY}é",
    f"{KEY}\u200b", f"\ufeff{KEY}", f"“{KEY}”", f"{KEY}\udcff"])
def test_any_other_key_is_malformed_and_not_shown(folder, key):
    error = refused({"IMAGE2_API_KEY": key})
    assert ("malformed_key", 4, "no") == (error.code, error.exit_status, error.charged)
    assert "the environment" in error.message and "canary" not in error.message and "canary" not in repr(error)


@pytest.mark.parametrize("value", ['"canary\\nline-one"', "'canary line one'", '"canary\nline-one"', "canary-é-one"])
def test_a_malformed_key_of_the_file_is_not_shown_either(folder, value):
    (folder / DOTENV).write_bytes(f"IMAGE2_API_KEY={value}\n".encode())
    error = refused({})
    assert "malformed_key" == error.code and FILE in error.message
    assert "canary" not in "".join(traceback.format_exception(error)).partition("Error: ")[2]


def test_the_key_is_in_no_repr():
    settings = room.read({"IMAGE2_API_KEY": KEY})
    for text in (repr(settings), str(settings), "%s" % (settings,), repr(settings.key), f"{[settings.key]}"):
        assert KEY not in text and "***" in text


@quick
@given(TEXT)
@example("x" * 8)
@example("\x85" + "x" * 9)
def test_any_variable_is_a_good_key_or_a_refusal_that_does_not_show_it(text):
    try:
        key = room.read({"IMAGE2_API_KEY": text}).key
    except Image2Error as error:
        other = {"missing_key": "", "malformed_key": "a b"}[error.code]
        assert refused({"IMAGE2_API_KEY": other}).message == error.message  # whatever the key
    else:
        assert key == text.strip() and key.isascii() and key.isprintable() and " " not in key and 8 <= len(key) <= 512


@quick
@given(st.binary(max_size=80).map(lambda rest: b"IMAGE2_API_KEY=" + rest) | st.binary(max_size=80))
def test_any_bytes_in_the_file_are_a_key_or_a_refusal(content):
    with open(DOTENV, "wb") as file:
        file.write(content)
    try:
        room.read({})
    except Image2Error as error:
        assert error.code in ("missing_key", "malformed_key")


# --- the base URL


def base(text) -> str:
    return room.base_url({"IMAGE2_BASE_URL": text})


@pytest.mark.parametrize("text", ["", "  ", "/", "\n"])
def test_without_a_base_url_it_is_the_services_own(text):
    assert "https://image2.vip" == base(text) == room.base_url({})


@pytest.mark.parametrize(("text", "expected"), [
    ("https://image2.vip/", "https://image2.vip"),
    (" https://gateway.example:8443/image2/ ", "https://gateway.example:8443/image2"),
    ("HTTPS://Example.COM", "HTTPS://Example.COM"),
    ("https://xn--r8jz45g.jp", "https://xn--r8jz45g.jp"),
    ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ("http://127.0.0.1:8484", "http://127.0.0.1:8484"),
    ("HTTP://LocalHost:80", "HTTP://LocalHost:80"),
    ("http://[::1]:8080", "http://[::1]:8080"),
    ("https://image2.vip/a/@/b", "https://image2.vip/a/@/b"),
])
def test_a_base_url_is_https_or_http_on_this_machine(text, expected):
    assert expected == base(text)


REFUSED = {  # by the words of the refusal
    # plain http to anybody else however it is dressed up, and other schemes
    "must be https": ["http://image2.vip", "HTTP://image2.vip", "http://127.1", "http://2130706433", "http://0x7f.0.0.1",
                      "http://127.0.0.01", "http://127.0.0.1.evil.example", "http://localhost.", "http://0.0.0.0",
                      "http://[::]", "http://[0:0:0:0:0:0:0:1]", "ftp://image2.vip", "//image2.vip"],
    "names no host": ["file:///etc/passwd", "image2.vip", "https:image2.vip", "https:///image2.vip", "https://:8443",
                      "https://image2.vip%40evil.example", "https://a_b", "https://a,b"],
    "user name": ["https://user@image2.vip", "https://user:pw@image2.vip", "https://@image2.vip", "https://:pw@x",
                  "https://image2.vip:443@evil.example"],
    # two readers take these for different hosts
    "characters": ["https://evil.example\\@image2.vip", "https://a b", "https://image2.vip\nX: y", "https://image2.vip\x00",
                   "https://例え.jp", "https://image2。vip", "https://ｉmage2.vip", "https://x\udc80",
                   "https://image2.vip℀.evil.example"],
    # a path cannot follow these
    "query": ["https://image2.vip?x=1", "https://image2.vip/?", "https://image2.vip/#", "https://x#@evil",
              "https://image2.vip/#frag"],
    "is no URL": ["https://x:99999", "https://x:port", "https://x:-1", "https://[::1", "https://x:80:90"],
    "no": ["https://[x]", "https://[::g]", "https://[fe80::1%25eth0]"],  # Pythons differ in what they read there
}


@pytest.mark.parametrize(("text", "words"), [(text, words) for words, texts in REFUSED.items() for text in texts])
def test_any_other_base_url_is_refused_in_words(text, words):
    with pytest.raises(Image2Error) as caught:
        base(text)
    error = caught.value
    assert ("usage", 2) == (error.code, error.exit_status)
    assert error.message.startswith("IMAGE2_BASE_URL ") and words in error.message and "Unset it" in error.message
    assert not [part for part in ("evil", "pw", "user@") if part in error.message]  # what was given may hold a login


def test_a_wrong_base_url_is_told_before_the_key_is_looked_for():
    assert "usage" == refused({"IMAGE2_BASE_URL": "http://image2.vip"}).code


@quick
@given(TEXT, st.sampled_from(["", "https://", "http://", "http://127.0.0.1", "https://image2.vip"]))
def test_any_base_url_is_taken_only_if_its_host_is_beyond_doubt(text, before):
    from urllib3.util import parse_url

    try:
        url = base(before + text)
    except Image2Error as error:
        assert "usage" == error.code
        return
    parts = parse_url(url + "/api/v1/x")
    assert parts.auth is None and parts.query is None and parts.fragment is None and parts.host
    assert "https" == parts.scheme or parts.host in ("localhost", "[::1]") or parts.host.startswith("127.")


@pytest.mark.parametrize(("expected", "hosts"), [
    (True, ["127.0.0.1", "127.200.249.250", "127.199.9.10", "localhost", "::1"]),
    (False, ["", "127.0.0", "128.0.0.1", "127.0.0.256", "127.260.0.1", "127.0.0.300", "127.0.0.1000", "1127.0.0.1",
             "127.0.0.1\n", "x127.0.0.1", "LOCALHOST", "::2"])])
def test_this_machine_is_known_by_spellings_nobody_can_mistake(expected, hosts):
    assert {host: expected for host in hosts} == {host: room.is_loopback(host) for host in hosts}


def test_settings_know_whether_the_service_is_on_this_machine():
    for text, expected in (("https://[::1]:80", True), ("https://image2.vip", False)):
        assert expected is room.read({"IMAGE2_API_KEY": KEY, "IMAGE2_BASE_URL": text}).is_loopback


# --- the stand-in, the secrets, the host's sandbox


def test_the_stand_in_has_a_key_of_its_own_and_a_lasting_name():
    settings = room.for_sandbox("http://127.0.0.1:4321", "sandbox-key")
    assert ("sandbox-key", "sandbox", True, "sandbox") == (
        str(settings.key), settings.key_source, settings.is_sandbox, settings.service)
    assert "sandbox-key" not in repr(settings)
    assert "https://image2.vip" == room.read({"IMAGE2_API_KEY": KEY}).service


@pytest.mark.parametrize(("sign", "expected"), [
    ({}, None), ({"CODEX_SANDBOX": ""}, None), ({"CODEX_SANDBOX": "seatbelt"}, "Codex"),
    ({"CODEX_SANDBOX_NETWORK_DISABLED": "1"}, "Codex"), ({"SANDBOX_RUNTIME": "1"}, "Claude Code"),
    ({"CURSOR_SANDBOX": "1"}, "Cursor")])
def test_a_hosts_sandbox_is_known_by_its_variable(sign, expected):
    known = room.host_sandbox(sign)
    assert expected == (known and known[0])


@pytest.mark.parametrize(("key", "expected"), [
    (f" {KEY}\n", [KEY]), (f"{KEY}\n{OTHER} x", [KEY, OTHER]), ("x" * 8, ["x" * 8]), ("x" * 7, [])])
def test_the_secrets_of_a_run_are_the_key_or_the_pieces_of_a_malformed_one(key, expected):
    assert expected == room.known_secrets({"IMAGE2_API_KEY": key})


def test_the_secrets_of_a_run_are_known_from_the_file_too(folder):
    assert [] == room.known_secrets({})
    (folder / DOTENV).write_text(f"IMAGE2_API_KEY='{KEY}\n{OTHER}'")
    assert [KEY, OTHER] == room.known_secrets({})


def test_the_package_is_not_needed_where_no_file_names_the_key(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "dotenv", None)
    (folder / DOTENV).write_text("OTHER=1")
    assert "missing_key" == refused({}).code
