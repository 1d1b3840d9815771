"""One exchange on real sockets: what never left, what an answer may weigh, what is passed over before it. TLS and the key's
way round proxies: money/test_key."""

from __future__ import annotations

import contextlib
import gzip
import socket
import sys
import threading
import time
import tracemalloc
import zlib
from typing import Any, Callable, Iterator

import pytest
from endings import ORDER, ended
from faulty import Answer, ConnectProxy, closed_port, completed, full_backlog, ok
from image2_cli.clock import Clock
from image2_cli.errors import HostSandbox, Image2Error
from image2_cli.service import transport
from image2_cli.service.api import Api
from image2_cli.service.task import Task
from platforms import needs_linux
from running import CANARY

ID = b'{"task_id": "task-1", "status": "pending"}'
NOT_SENT = ("network", 5, "no", True, True)  # code, exit, charged, retryable, may it be sent again by itself
NEVER_SENT = ("network", 5, "no", False, False)
TLS = ("tls", 5, "no", False, False)


def facts(error: Image2Error) -> tuple[Any, ...]:
    assert isinstance(error, Image2Error), error
    assert "nothing was sent" in error.message
    return error.code, error.exit_status, error.charged, error.retryable, error.may_resend


# --- what never left


def test_a_name_that_is_not_found_sent_nothing_and_a_hosts_sandbox_is_named(post):
    end = post(base_url="http://no-such-name.invalid", host_sandbox=HostSandbox("Codex", "a setting"))
    assert NOT_SENT == facts(end)
    assert "(the name was not found); nothing was sent. Codex's sandbox may block the network" in end.message
    assert end.message.endswith("ask the user to allow it: a setting.")


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the name `many.test` have the addresses of these base URLs, told once `asked` returns."""
    genuine = socket.getaddrinfo

    def have(*base_urls: str, asked: Callable[[], Any] = bool) -> None:
        def find(host: str, *more: Any, **named: Any) -> Any:
            if host != "many.test":
                return genuine(host, *more, **named)
            asked()
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(url.rpartition(":")[2])))
                    for url in base_urls]

        monkeypatch.setattr(socket, "getaddrinfo", find)
    return have


def test_an_order_that_was_given_up_before_it_left_never_leaves(post, service, many):
    late = threading.Event()
    many(service.base_url, asked=lambda: late.wait(5))
    assert NOT_SENT == facts(post(base_url="http://many.test", seconds=0.2))
    late.set()
    time.sleep(0.3)
    assert 0 == service.received


@needs_linux
def test_a_name_whose_first_addresses_are_dead_is_reached_by_its_third(post, service, many, monkeypatch):
    monkeypatch.setattr(transport, "CONNECT_S", transport.CONNECT_S / 20)
    with full_backlog() as first, full_backlog() as second:
        many(first, second, service.base_url)
        started = time.monotonic()
        assert "task-1" == post(base_url="http://many.test").id
    assert 2 / 5 <= time.monotonic() - started < 1.5 - 0.1
    assert 2 * transport.CONNECT_S * 20 < 30 / 3  # at full length, well within the 30 s of a look


def test_the_time_to_connect_is_not_the_time_for_tls_or_an_answer(post, monkeypatch):
    monkeypatch.setattr(transport, "CONNECT_S", 0.2)
    assert "task-1" == post(ok().but(delay=0.5)).id
    with ConnectProxy(None, status=502, silence=0.5) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert "answered 502" in post(base_url="https://image2.test").message


@pytest.mark.parametrize("call", ["__init__", "connect"])
def test_a_sandbox_that_denies_sockets_is_said_so(post, monkeypatch, call):
    def deny(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    with closed_port() as base_url, monkeypatch.context() as patch:
        patch.setattr("urllib3.util.connection.socket.socket", type("Denied", (socket.socket,), {call: deny}))
        end = post(base_url=base_url)
    assert NEVER_SENT == facts(end)
    assert "a sandbox on this machine forbids network connections" in end.message


# --- proxies


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize(("fault", "words", "again"), [
    (403, "answered 403", False), (407, "answered 407", False), (502, "answered 502", True),
    ("closed", "did not connect", True), ("hangs up", "closed without an answer", True),
    ("silent", "no answer in time", True), ("no url", "cannot be used", False), ("socks", "PySocks", False)])
def test_a_proxy_that_does_not_connect_is_named_and_sent_nothing(post, monkeypatch, name, fault, words, again):
    if fault == "socks":
        monkeypatch.setitem(sys.modules, "socks", None)
        monkeypatch.setattr("requests.adapters.SOCKSProxyManager", _no_socks)
    silence = 2 if fault == "silent" else 0
    with closed_port() as closed, ConnectProxy(None, status=fault if isinstance(fault, int) else 200,
        silence=silence) as proxy:
        urls = {"closed": closed, "no url": "http://[::1", "socks": "socks5://127.0.0.1:1"}
        monkeypatch.setenv(name, urls.get(str(fault), proxy.url))
        end = post(base_url="https://image2.test", seconds=0.5 if silence else 5)
    assert (NOT_SENT if again else NEVER_SENT) == facts(end)
    assert words in end.message
    assert name.upper() in end.message and "image2.test" in end.message


def _no_socks(*_: Any, **__: Any) -> None:
    from requests.exceptions import InvalidSchema

    raise InvalidSchema("Missing dependencies for SOCKS support.")


@contextlib.contextmanager
def answering(say: Callable[[socket.socket], None]) -> Iterator[str]:
    """A peer that hears one client's first bytes and then lets `say` speak; gives its address."""
    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as peer:
            peer.recv(65536)
            say(peer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_peer_that_answers_tls_with_something_else_is_not_tried_again(post):
    with answering(lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as address:
        end = post(base_url=f"https://{address}")
    assert TLS == facts(end)
    assert "TLS failed" in end.message


# --- what comes before an answer, and how it is packed


def test_any_1xx_before_the_answer_is_passed_over(post, look):
    hints = (102, 103, 100, 199)
    assert "task-1" == post(ok().but(hints=hints)).id
    assert "completed" == look(completed(task_id="t-1").but(hints=hints)).status


PACKED = {
    "gzip": ("X-GZIP", gzip.compress(ID)), "deflate": ("deflate", zlib.compress(ID)), "says so, is not": ("gzip", ID),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("drip", [None, (1, 0)])
def test_one_layer_of_packing_nobody_asked_for_is_undone_where_the_bytes_are_so(post, name, drip):
    encoding, body = PACKED[name]
    assert "task-1" == post(Answer(headers={"Content-Encoding": encoding}, body=body, drip=drip)).id


@pytest.mark.parametrize("body", [gzip.compress(ID)[:-12], gzip.compress(gzip.compress(ID)), b"\x1f"],
    ids=["cut", "twice", "a byte"])
def test_what_cannot_be_unpacked_is_unknown(post, body):
    end = post(Answer(headers={"Content-Encoding": "gzip"}, body=body, content_length=None))
    assert isinstance(end, Task) or "outcome_unknown" == end.code


MANY = 100_000_000


def weighed(kind: str, head: bytes, filling: bytes, tail: bytes = b"", packed: bool = False,
            status: int = 200) -> tuple[Any, float]:
    """How an exchange ends, and the MB it takes, with a service that answers with this much, made as it goes."""
    def say(peer: socket.socket) -> None:
        block = filling * (1_000_000 // len(filling))
        parts = [head, *[block] * (MANY // len(block)), tail]
        if packed:
            packer = zlib.compressobj(6, zlib.DEFLATED, 31)
            parts = [b"".join(map(packer.compress, parts)) + packer.flush()]
        encoding = b"Content-Encoding: gzip\r\n" if packed else b""
        peer.sendall(b"HTTP/1.1 %d X\r\nConnection: close\r\n%b\r\n" % (status, encoding))
        for part in parts:
            peer.sendall(part)

    with answering(say) as address:
        api = Api(f"http://{address}", CANARY, Clock())
        tracemalloc.start()
        end = ended(api.submit, ORDER, "order-1", 50) if kind == "post" else ended(api.look, "t-1", 50)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
    return end, peak


WEIGHTS = {
    "a gzip bomb": ((b'{"data": [{"b64_json": "', b"x", b'"}]}', True), "outcome_unknown"),
    "brackets": ((b"[", b"[],", b"0]"), "outcome_unknown"),
    "a task with a tail": ((b'{"task_id": "task-1", "message": "', b"x"), "task-1"),
    "an error": ((b'{"message": "', b"x", b'"}', False, 400), "rejected"),
}


@pytest.mark.parametrize("kind", ["post", "look"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_100_mb_of_anything_but_pictures_weigh_little(name, kind):
    content, expected = WEIGHTS[name]
    end, size = weighed(kind, *content)
    told = end.id if isinstance(end, Task) else end.code
    assert told == (expected if kind == "post" else "unavailable")
    assert size < 60


def test_ten_large_pictures_in_one_answer_arrive():
    end, size = weighed("look", b'{"task_id": "t-1", "status": "completed", "data": [{"b64_json": "', b"AAAA", b'"}]}')
    assert MANY == len(end.images[0].data)
    assert size < 5 * MANY / 1e6
