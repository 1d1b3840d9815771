"""The test equipment does what it says: a fault that is not one would prove nothing about the tool."""

import contextlib
import json
import socket
import ssl
import time
from pathlib import Path

import pytest
import requests
import trustme
from faulty import (
    SUBMIT,
    Answer,
    ConnectProxy,
    Request,
    Service,
    completed,
    cut,
    drip,
    full_backlog,
    hang,
    ok,
    page,
    picture,
    redirect,
    refuse,
    reset,
    sync_completed,
)
from pictures import png
from platforms import KILLED, TICK_S, WINDOWS, needs_linux
from running import CANARY, SYSTEM, Run, assert_no_key, assert_no_leftovers

ORDER = {"prompt": "a cat", "async": True}


@pytest.fixture
def client():
    with requests.Session() as session:
        session.trust_env = False
        yield session


def talk(address, method="POST", path=SUBMIT, body=b"{}", length=None) -> tuple[bytes, str]:
    """Every byte of the answer to one request, and how the connection ended: "eof" or "reset"."""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length or len(body)}\r\n\r\n"
    with socket.create_connection(address, 5) as sock:
        try:
            sock.sendall(head.encode() + body)
        except ConnectionError:  # it may end before it has read all; macOS tells of a reset only once
            return listen(sock)[0], "reset"
        return listen(sock)


def listen(sock) -> tuple[bytes, str]:
    got = b""
    try:
        while piece := sock.recv(65536):
            got += piece
    except (ConnectionResetError, ConnectionAbortedError):  # the second is Windows' word
        return got, "reset"
    return got, "eof"


# What is counted

@pytest.mark.parametrize(("answer", "orders"), [
    (ok(), 1),
    (sync_completed(), 1),
    (refuse(429, retry_after=3), 0),
    (page(502), 0),
    (page(502).but(accepted=True), 1),
    (redirect(307, "/elsewhere"), 0),
    (cut(refuse(400)), 1),
    (reset(), 1),
    (reset().but(accepted=False), 0),
    (hang(0.01), 1),
    (Answer(raw=b"SSH-2.0-x\r\n"), 1),
    (reset().but(before_read=True), 0),
])
def test_orders_are_counted_at_their_worst(service, answer, orders):
    service.on_post(answer)
    with contextlib.suppress(requests.RequestException):
        requests.post(service.base_url + SUBMIT, json=ORDER, allow_redirects=False, timeout=5)
    assert (1, orders) == (len(service.posts), service.orders)
    assert (0 if answer.before_read else 1) == service.received


# The faults, byte by byte

def test_a_cut_ends_orderly_at_its_byte(service):
    healthy = picture(b"0123456789")
    whole = healthy.wire(Request("file", "GET", "/", {}))
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n") and whole.endswith(b"\r\n\r\n0123456789")
    for at, expected in [(0, b""), (20, whole[:20]), (-3, whole[:-3]), ("head", whole[:-10])]:
        service.on_file(cut(healthy, at))
        assert (expected, "eof") == talk(service.address, "GET", "/generations/t-0.png", b"")


def test_a_reset_is_a_reset_and_comes_at_its_byte(service):
    service.on_post(reset(), reset(ok(), at=12), Answer(reset=True))
    assert [(b"", "reset"), (b"HTTP/1.1 200", "reset"), (b"", "reset")] == [
        talk(service.address) for _ in range(3)
    ]


@pytest.mark.parametrize(("answer", "ending"), [
    (reset().but(before_read=True), "reset"),
    (cut(ok(), 0).but(before_read=True), "eof"),
    (refuse(413).but(before_read=True), "eof"),
])
def test_what_is_answered_before_the_reading_was_not_received(service, answer, ending):
    service.on_post(answer)
    got, how = talk(service.address, body=bytes(300_000), length=400_000)  # the rest never comes
    assert (ending, answer.status == 413) == (how, b"413" in got)
    assert (1, 0, 0) == (len(service.posts), service.received, service.orders)


def test_a_request_that_breaks_off_was_not_received(service):
    with socket.create_connection(service.address, 5) as sock:
        sock.sendall(f"POST {SUBMIT} HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{{".encode())
    assert b"{" == service.wait_for("post").body
    assert (0, 0) == (service.received, service.orders)


def test_hang_delay_and_drip_take_their_time(service):
    service.on_post(hang(0.2), hang(0.2, ok(), at=12), ok().but(delay=0.2, content_length=None),
                    drip(cut(ok(), 12), n=4, seconds=0.1))
    for expected in (b"", b"HTTP/1.1 200", None, b"HTTP/1.1 200"):  # None: all of it
        begun = time.monotonic()
        got, how = talk(service.address)
        assert 0.19 - TICK_S < time.monotonic() - begun < 1
        assert "eof" == how and expected in (None, got)


def test_every_framing_carries_the_same_body(service, client):
    data = png(5, 5)
    service.on_file(*(picture(data).but(**change) for change in (
        {}, {"chunked": True}, {"content_length": None}, {"content_length": str(len(data))}
    )))
    replies = [client.get(service.base_url + "/generations/t-0.png") for _ in range(4)]
    assert [data] * 4 == [reply.content for reply in replies]
    assert [None, None, "close", "close"] == [reply.headers.get("Connection") for reply in replies]
    longer = picture(data).but(content_length=len(data) + 1)
    service.on_file(longer, Answer(raw=b"HTTP/1.0 200 OK\r\n\r\nhello"))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.get(service.base_url + "/generations/t-0.png")
    assert b"hello" == client.get(service.base_url + "/generations/t-0.png").content


@needs_linux
def test_a_full_port_never_connects():
    with full_backlog() as url, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 0.2)


def test_what_an_answer_raises_reaches_the_test(client):
    def refuted(request):
        raise FileNotFoundError("no such dog")  # even what could be the network's own

    with pytest.raises(FileNotFoundError, match="dog"), Service() as service:
        service.on_post(refuted)
        with pytest.raises(requests.ConnectionError):
            client.post(service.base_url + SUBMIT, json=ORDER)


# TLS and the proxy

@pytest.fixture
def tls(tmp_path):
    """A server's context for image2.vip, and the path of the authority to trust."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("image2.vip").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return context, str(tmp_path / "ca.pem")


def test_a_healthy_end_closes_tls_and_a_cut_does_not(tls):
    context, authority = tls
    trusting = ssl.create_default_context(cafile=authority)
    with Service(tls=context) as service:
        service.on_poll(completed().but(content_length=None), cut(completed()))
        for ending in (contextlib.nullcontext(), pytest.raises(ssl.SSLEOFError)):
            with socket.create_connection(service.address, 5) as plain, trusting.wrap_socket(
                plain, server_hostname="image2.vip", suppress_ragged_eofs=False
            ) as sock:
                sock.sendall(b"GET /api/v1/images/tasks/t-1 HTTP/1.1\r\n\r\n")
                with ending:
                    assert listen(sock)[0].endswith(b"}")


def test_the_proxy_hands_on_every_byte_and_every_reset(service):
    service.on_post(cut(ok(), 12), reset(ok(), at=12))
    with ConnectProxy(service.address) as proxy:
        for ending in ("eof", "reset"):
            with socket.create_connection(proxy.address, 5) as sock:
                sock.sendall(b"CONNECT image2.vip:443 HTTP/1.1\r\n\r\n")
                assert b"HTTP/1.1 200 Connection established\r\n\r\n" == sock.recv(1000)
                sock.sendall(f"POST {SUBMIT} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}".encode())
                assert (b"HTTP/1.1 200", ending) == listen(sock)


# Running the script

SCRIPT = """
import json, os, sys, time
if sys.argv[1] == "sleep":
    time.sleep(60)
if sys.argv[1] == "leak":
    print("Bearer", os.environ["IMAGE2_API_KEY"], file=sys.stderr)
env = {name: os.environ[name] for name in os.environ}
print(json.dumps({"ok": True, "error": None, "next": None, "argv": sys.argv[1:], "env": env,
                  "cwd": os.getcwd(), "stdin": sys.stdin.buffer.read().decode()}))
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "stand_in.py"
    path.write_text(SCRIPT)
    return path


def test_a_run_sees_only_its_own_environment(run, script, service, project, monkeypatch):
    for name in ("HTTPS_PROXY", "REQUESTS_CA_BUNDLE", "SOMETHING"):
        monkeypatch.setenv(name, "the developer's")
    said = run("a", "b c", script=script, key=None, stdin="é\n", env={"MORE": 1, "LANG": None}).json
    # LC_CTYPE is Python's own, and what begins with two underscores macOS' and the Windows launcher's
    foreign = {name for name in said["env"] if name.startswith(("COVERAGE_", "LC_", "__"))}
    foreign |= {*SYSTEM, "USERPROFILE"} if WINDOWS else set()
    assert {"PATH", "HOME", "IMAGE2_BASE_URL", "MORE"} == set(said["env"]) - foreign
    assert (["a", "b c"], "é\n") == (said["argv"], said["stdin"])
    assert (str(project), service.base_url) == (said["cwd"], said["env"]["IMAGE2_BASE_URL"])
    assert Path(said["env"]["HOME"]).is_dir() and project != Path(said["env"]["HOME"])


GOOD = '{"ok": true, "error": null, "next": null}'


def bad(code="c", message="m", retryable=False) -> str:
    error = {"code": code, "message": message, "retryable": retryable}
    return json.dumps({"ok": False, "error": error, "next": None}) + "\n"


@pytest.mark.parametrize(("said", "status"), [
    ("", 0),                                     # nothing
    (GOOD, 0),                                   # no newline
    ("\n" + GOOD, 0),                            # a newline, but not behind it
    (GOOD + "\n" + GOOD + "\n", 0),              # two
    ("note\n" + GOOD + "\n", 0),                 # something besides
    ("[]\n", 0),                                 # no object
    (GOOD[:-1] + ', "x": NaN}\n', 0),            # no JSON
    (GOOD[:-1] + ', "x": "\udcff"}\n', 0),       # no UTF-8
    (GOOD[:-1] + ', "charged": true}\n', 0),     # a word that is not in the vocabulary
    ('{"ok": true, "error": null}\n', 0),        # no next
    (GOOD + "\n", 3),                            # ok, but the status says no
    (bad(), 0),                                  # and the other way round
    (bad(), 11),                                 # a status that is in no table
    (bad(code="Bad Code"), 3),
    (bad(message=""), 3),
    (bad(retryable=None), 3),
])
def test_an_answer_that_breaks_the_contract_fails_the_test(said, status):
    with pytest.raises((AssertionError, ValueError, KeyError)):
        _ = Run((), status, said, "", 0.0).json


@pytest.mark.parametrize("key", [CANARY, f" {CANARY}", "another-key-not-a-real-one\nX-Evil: 1"])
def test_a_run_that_shows_the_key_fails_the_test(run, script, key):
    with pytest.raises(AssertionError, match="the key was shown"):
        run("leak", script=script, key=key)


def test_a_run_that_does_not_end_is_killed_and_fails_the_test(start, script):
    busy = start("sleep", script=script)
    with pytest.raises(AssertionError, match="still running after 0.5 s"):
        busy.finish(timeout=0.5)
    assert KILLED == busy.returncode


def test_keys_and_leftovers_are_found_wherever_they_lie(tmp_path):
    assert_no_key(tmp_path)
    assert_no_leftovers(tmp_path)
    (tmp_path / ".deep" / "er").mkdir(parents=True)
    (tmp_path / ".deep" / "er" / ".x.part").write_bytes(b"\xff" + CANARY.encode())
    with pytest.raises(AssertionError, match="is in"):
        assert_no_key(tmp_path)
    with pytest.raises(AssertionError):
        assert_no_leftovers(tmp_path)
    (tmp_path / ".deep" / "er" / ".x.part").rename(tmp_path / ".deep" / CANARY)
    (tmp_path / ".deep" / CANARY).write_bytes(b"")
    with pytest.raises(AssertionError, match="in the name"):
        assert_no_key(tmp_path)
    with pytest.raises(AssertionError, match="is no folder"):
        assert_no_key(tmp_path / "missing")
