"""The key comes from one variable or that one name of one file; the base URL from the real environment alone."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from image2_cli.errors import Image2Error
from image2_cli.machine import settings
from platforms import needs_posix

quick = hypothesis_settings(max_examples=100, deadline=None, database=None)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
KEY = "canary-0123-not-a-real-one"
OTHER = "canary-4567-not-a-real-one"
FILE = ".env in the working folder"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder, with another project's file above it."""
    (tmp_path / ".env").write_text(f"IMAGE2_API_KEY={OTHER}\n")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def refused(environment: dict) -> Image2Error:
    """The refusal, which shows nothing of the key, whatever it is."""
    with pytest.raises(Image2Error) as caught:
        settings.read(environment)
    error = caught.value
    assert (4, "no") == (error.exit_status, error.charged)
    assert "canary" not in error.message + repr(error)
    return error


def write(content: str | bytes) -> None:
    Path(".env").write_bytes(content if isinstance(content, bytes) else content.encode())


# --- where the key comes from

def test_the_key_of_the_environment_comes_first():
    write(f"IMAGE2_API_KEY={OTHER}")
    assert ("https://image2.vip", KEY, "the environment") == settings.read({"IMAGE2_API_KEY": KEY})


@pytest.mark.parametrize("blank", ["", "\t\n"])
def test_a_blank_variable_is_none_and_the_key_comes_from_the_working_folders_file(blank):
    write(f"IMAGE2_API_KEY={KEY}\n")
    assert (KEY, FILE) == settings.read({"IMAGE2_API_KEY": blank})[1:3]


@pytest.mark.parametrize("content", [
    f"export IMAGE2_API_KEY={KEY}", f"IMAGE2_API_KEY = '{KEY}'", f'IMAGE2_API_KEY="{KEY}"  # it\'s mine',
    f"\ufeffIMAGE2_API_KEY={KEY}\r\n".encode("utf-16-le"), f"\ufeff# caf\u00e9\r\nIMAGE2_API_KEY={KEY} # x\r\nB=2",
    f"# caf\u00e9\nIMAGE2_API_KEY={KEY}\n".encode("latin-1"), f"no assignment\nIMAGE2_API_KEY_OLD=x\nIMAGE2_API_KEY={KEY}"])
def test_the_file_may_be_written_in_any_usual_way(monkeypatch, content):
    write(content)
    assert (KEY, FILE) == settings.read({})[1:3]
    monkeypatch.setitem(sys.modules, "dotenv", None)
    assert [secret for secret in settings.known_secrets({}) if KEY in secret], "a bare machine must not show it either"
    with pytest.raises(ImportError):
        settings.read({})


LINES = {  # what is wrong with it is said
    f"A=1\nsetx IMAGE2_API_KEY \"{KEY}\"": "line 2 has words in front",
    f"\ufeff$Env:IMAGE2_API_KEY=\"{KEY}\"\r\n": "line 1 has words in front",
    f"IMAGE2_API_KEY: {KEY}": "line 1 has no `=` behind the name",
    f"IMAGE2_API_KEY='{KEY}\nB='": "line 1 opens a quote that it does not close",
    f"IMAGE2_API_KEY={OTHER}\nB=1\nexport IMAGE2_API_KEY={KEY}": "stands there twice, in the lines 1 and 3",
}


@pytest.mark.parametrize("content", LINES)
def test_a_line_that_is_wrong_is_named_with_what_is_wrong(content):
    write(content)
    error = refused({})
    assert "malformed_key" == error.code
    assert LINES[content] in error.message and FILE in error.message
    assert [secret for secret in settings.known_secrets({}) if KEY in secret or OTHER in secret]


@pytest.mark.parametrize("content", [
    "IMAGE2_API_KEY", "IMAGE2_API_KEY='  '", f"# IMAGE2_API_KEY={KEY}", f"MY_IMAGE2_API_KEY={KEY}"])
def test_a_file_without_the_name_or_a_value_holds_no_key(content):
    write(content)
    assert "missing_key" == refused({}).code


def test_the_file_is_not_read_where_it_is_larger_than_64_kib():
    write(f"IMAGE2_API_KEY={KEY}\n".ljust(64 * 1024, "#"))
    assert KEY == settings.read({}).key
    write(f"IMAGE2_API_KEY={KEY}\n".ljust(64 * 1024 + 1, "#"))
    assert "missing_key" == refused({}).code


def test_no_other_variable_of_the_file_has_any_effect_nor_is_any_put_in():
    before = dict(os.environ)
    names = ("IMAGE2_BASE_URL", "HTTPS_PROXY", "REQUESTS_CA_BUNDLE", "PATH")
    write("".join(f"{name}=https://evil.example\n" for name in names) + "IMAGE2_API_KEY=a$PATH-key\n")
    assert ("https://image2.vip", "a$PATH-key") == settings.read({})[:2]
    assert before == dict(os.environ)


def test_a_file_above_the_working_folder_is_another_projects(folder):
    error = refused({})
    assert "missing_key" == error.code
    assert "IMAGE2_API_KEY is not set" in error.message and "https://image2.vip" in error.message


@needs_posix
@pytest.mark.parametrize("kind", ["folder", "fifo", "/dev/zero", "/nowhere/at/all", "/proc/kmsg"])
def test_what_is_no_regular_file_is_never_read_and_hangs_nothing(folder, kind):
    path = folder / ".env"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(kind)
    began = time.monotonic()
    assert "missing_key" == refused({}).code
    assert 1 > time.monotonic() - began
    (folder / "keys").write_text(f"IMAGE2_API_KEY={KEY}")
    path.rmdir() if kind == "folder" else path.unlink()
    path.symlink_to("keys")
    assert KEY == settings.read({}).key


# --- what a key looks like

@pytest.mark.parametrize("key", ["x" * 8, "x" * 512, f" {KEY}\n", 'quote"back\\slash', "a$PATH-key", "bearer-of"])
def test_a_key_has_8_to_512_visible_ascii_characters(key):
    assert key.strip() == settings.read({"IMAGE2_API_KEY": key}).key


MALFORMED = {
    "8 to 512 visible": ["x" * 7, "x" * 513, f"{KEY}\r\nX-Evil: 1", f"{KEY}é", "canary one"],
    "quotes around it": [f"'{KEY}'", f"“{KEY}”", f"{KEY}’"],
    "nothing replaced": ["${{ secrets.CANARY }}", "$IMAGE2_API_KEY", "%IMAGE2_API_KEY%"],
    "its own name in front": [f"IMAGE2_API_KEY: {KEY}"],
    "`Bearer` in front": [f"bearer:{KEY}", f"Authorization: Bearer {KEY}"],
    "example of a manual": ["your_image2_api_key", "<canary-key>", "sk-........"],
}


@pytest.mark.parametrize(("words", "key"), [(words, key) for words, keys in MALFORMED.items() for key in keys])
def test_any_other_key_is_malformed_in_words_and_not_shown(words, key):
    error = refused({"IMAGE2_API_KEY": key})
    assert "malformed_key" == error.code
    assert words in error.message and "from the environment" in error.message


def test_the_key_is_in_no_repr():
    found = settings.read({"IMAGE2_API_KEY": KEY})
    for text in (repr(found), str(found), repr(found.key), f"{[found.key]}"):
        assert KEY not in text and "***" in text


@quick
@given(st.binary(max_size=80).map(lambda rest: b"IMAGE2_API_KEY=" + rest) | st.binary(max_size=80))
def test_any_bytes_in_the_file_are_a_key_or_a_refusal_and_its_secrets_are_known(content):
    write(content)
    secrets = settings.known_secrets({})
    try:
        assert settings.read({}).key.strip("'\"") in secrets
    except Image2Error as error:
        assert error.code in ("missing_key", "malformed_key")


# --- the base URL

def base(text: str) -> str:
    return settings.base_url({"IMAGE2_BASE_URL": text})


@pytest.mark.parametrize(("text", "expected"), [
    *((text, "https://image2.vip") for text in (
        "", " /\n", "https://image2.vip//api//v1//", "HTTPS://Image2.VIP:443/api")),
    (" https://gateway.example:8443/Image2/api/v1 ", "https://gateway.example:8443/Image2"),
    ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
    ("HTTP://LocalHost:80", "http://localhost"),
    ("http://127.200.249.250:8484/api", "http://127.200.249.250:8484"),
    *((text, text) for text in ("http://[::1]:8080", "https://image2.vip/a/@/myapi")),
])
def test_a_base_url_is_https_or_http_on_this_machine_and_one_service_has_one_name(text, expected):
    assert expected == base(text)


@pytest.mark.parametrize("text", [
    # plain http to anybody else, however it is dressed up
    "http://image2.vip", "http://127.1", "http://2130706433", "http://127.0.0.01", "http://127.260.0.1",
    "http://127.0.0.1.evil.example", "http://localhost.", "http://0.0.0.0",
    "ftp://image2.vip", "image2.vip", "https:///image2.vip", "https://:8443", "https://a_b", "https://x:99999", "https://[::g]",
    # a login; what two readers take for different hosts; what no path can follow
    "https://user:pw@image2.vip", "https://image2.vip:443@evil.example", "https://evil.example\\@image2.vip",
    "https://image2.vip%40evil.example", "https://image2.vip\nX: y", "https://image2。vip",
    "https://image2.vip?x=1", "https://image2.vip/#frag"])
def test_any_other_base_url_is_refused_and_not_shown(text):
    with pytest.raises(Image2Error) as caught:
        settings.read({"IMAGE2_BASE_URL": text})  # before the key is looked for
    error = caught.value
    assert ("usage", 2) == (error.code, error.exit_status)
    assert error.message.startswith("IMAGE2_BASE_URL must be https://") and "Unset it" in error.message
    assert not [part for part in ("evil", "pw", "user:") if part in error.message]


@quick
@given(TEXT, st.sampled_from(["", "https://", "http://", "http://127.0.0.1", "https://image2.vip"]))
def test_any_base_url_is_taken_only_if_its_host_is_beyond_doubt(text, before):
    from urllib3.util import parse_url

    try:
        url = base(before + text)
    except Image2Error as error:
        assert "usage" == error.code
        return
    assert url == base(url + "/api/v1/")
    parts = parse_url(url + "/api/v1/x")
    assert parts.auth is None and parts.query is None and parts.fragment is None and parts.host
    assert "https" == parts.scheme or parts.host in ("localhost", "[::1]") or parts.host.startswith("127.")


# --- the host's sandbox, the secrets

@pytest.mark.parametrize(("sign", "expected"), [
    ({"CODEX_SANDBOX": ""}, None), ({"CODEX_SANDBOX": "seatbelt"}, "Codex"),
    ({"SANDBOX_RUNTIME": "1"}, "Claude Code"), ({"CURSOR_SANDBOX": "1"}, "Cursor")])
def test_a_hosts_sandbox_is_known_by_its_variable(sign, expected):
    known = settings.host_sandbox(sign)
    assert expected == (known and known.name)


@pytest.mark.parametrize(("key", "expected"), [
    (f"{KEY}\n{OTHER} x", [KEY, OTHER]), ("x" * 8, ["x" * 8]), ("x" * 7, []), (f'IMAGE2_API_KEY="{KEY}"', [KEY])])
def test_the_secrets_of_a_run_are_the_key_or_the_pieces_of_a_malformed_one(key, expected):
    assert expected == settings.known_secrets({"IMAGE2_API_KEY": key})
