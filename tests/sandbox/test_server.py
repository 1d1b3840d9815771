"""The stand-in, asked over real HTTP: the page's contract, its refusals, and that it stays at home."""

from __future__ import annotations

import errno
import itertools
import json
import re
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterator

import pytest
import requests
from faulty import reset_at_close
from image2_cli.sandbox.server import KEY, Sandbox

GENERATIONS = "/api/v1/images/generations"
TASKS = "/api/v1/images/tasks/"
TOKEN = {"Authorization": f"Bearer {KEY}"}
CANARY = "canary-0123-not-a-real-one"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(seconds=0.2) as started:
        yield started


def ask(sandbox: Sandbox, method: str, path: str, body: Any = None, headers: dict[str, str] = TOKEN) -> requests.Response:
    """The answer to one request; a dict is sent as JSON."""
    data = json.dumps(body) if isinstance(body, dict) else body
    return requests.request(method, sandbox.base_url + path, data=data, headers=headers, timeout=10)


def order(sandbox: Sandbox, **fields: Any) -> dict[str, Any]:
    """The JSON answer to an order that must be accepted."""
    answer = ask(sandbox, "POST", GENERATIONS, {"prompt": "a cat", **fields})
    assert 200 == answer.status_code, answer.text
    return answer.json()


def looks(sandbox: Sandbox, task_id: str) -> list[dict[str, Any]]:
    """What every look told until the task was completed."""
    seen: list[dict[str, Any]] = []
    end = time.monotonic() + 10
    while not seen or seen[-1]["status"] != "completed":
        assert time.monotonic() < end
        seen.append(ask(sandbox, "GET", TASKS + task_id).json())
        time.sleep(0.005)
    return seen


def refusal(sandbox: Sandbox, *request: Any) -> tuple[int, str]:
    """(status, message) of a request that must be refused, in the shape of every refusal."""
    answer = ask(sandbox, *request)
    assert "application/json" == answer.headers["Content-Type"]
    error = answer.json()["error"]
    assert {"message", "code"} == error.keys()
    return answer.status_code, error["message"]


def sizes(sandbox: Sandbox, images: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """The sizes of the pictures behind their links."""
    assert all(image["url"].startswith(sandbox.base_url) for image in images)
    answers = [requests.get(image["url"], timeout=10) for image in images]
    assert [(200, "image/png")] * len(images) == [(one.status_code, one.headers["Content-Type"]) for one in answers]
    return [struct.unpack(">II", one.content[16:24]) for one in answers]


def post(*lines: str, body: str = '{"prompt": "a cat"}') -> bytes:
    """The bytes of an order with these header lines, and no others but the key."""
    return "\r\n".join([f"POST {GENERATIONS} HTTP/1.1", f"Authorization: Bearer {KEY}", *lines, "", body]).encode()


def raw(sandbox: Sandbox, sent: bytes) -> bytes:
    """What comes back for these very bytes, until the sandbox hangs up."""
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


# --- the page's contract


def test_an_async_order_answers_at_once_and_its_task_goes_on_to_the_pages_fields(sandbox: Sandbox) -> None:
    sandbox.seconds = 0.8  # a tenth of it is pending, which must be seen
    begun = time.monotonic()
    answer = order(sandbox, n=2, **{"async": True})
    assert time.monotonic() - begun < 0.8
    assert ["created", "task_id", "status", "data"] == list(answer)
    assert ("pending", [{"url": None, "status": "pending"}] * 2) == (answer["status"], answer["data"])
    assert abs(time.time() - answer["created"]) < 5
    *seen, task = looks(sandbox, answer["task_id"])
    assert ["created", "task_id", "status", "progress", "data", "error"] == list(task)
    assert (answer["created"], answer["task_id"], 100, None) == (
        task["created"], task["task_id"], task["progress"], task["error"])
    assert [["url", "revised_prompt", "status"]] * 2 == [list(image) for image in task["data"]]
    assert {("a cat", "completed")} == {(image["revised_prompt"], image["status"]) for image in task["data"]}
    progress = [one["progress"] for one in seen]
    assert sorted(progress) == progress and len(set(progress)) > 4 and progress[-1] < 100
    assert ["pending", "processing"] == [status for status, _ in itertools.groupby(one["status"] for one in seen)]
    assert all([{"url": None, "status": one["status"]}] * 2 == one["data"] for one in seen)


def test_a_sync_order_waits_and_then_has_its_images(sandbox: Sandbox) -> None:
    begun = time.monotonic()
    answer = order(sandbox, n=2)
    assert time.monotonic() - begun >= 0.2
    assert ["created", "data"] == list(answer)
    assert [["url", "revised_prompt"]] * 2 == [list(image) for image in answer["data"]]
    assert [(1024, 1024)] * 2 == sizes(sandbox, answer["data"])


@pytest.mark.parametrize("fields", [
    {"model": "gpt-image-2", "size": "1024x1024", "n": 1, "image": ["https://example.com/reference-image.jpg"]},
    {"image": ["data:image/png;base64,iVBORw0KGgo=", "http://example.com/a.jpg"]}, {"image": []},
    {"size": "16x4096", "n": 10}, {"size": "auto", "quality": {"any": []}, "seed": None}, {"prompt": "Кошка 🐈 \ud800"},
])
def test_what_the_page_shows_and_what_can_be_meant_is_accepted(sandbox: Sandbox, fields: dict[str, Any]) -> None:
    assert order(sandbox, **fields, **{"async": True})["task_id"]


@pytest.mark.parametrize("fields", [
    {"prompt": " \n", "n": 99}, {"prompt": 7}, {"model": "dall-e-3"}, {"async": 1},
    *({"size": size} for size in (
        "15x1024", "1024x4097", "1024X1024", "01024x1024", "1024x1024\n", "\u0661\u0662x1024", 1024)),
    *({"n": n} for n in (0, 11, 1.0, True)),
    *({"image": image} for image in (
        "https://example.com/a.png", [7], ["file:///cat.png"], ["data:text/html,x"], ["https://"])),
])
def test_every_wrong_field_is_named(sandbox: Sandbox, fields: dict[str, Any]) -> None:
    status, message = refusal(sandbox, "POST", GENERATIONS, {"prompt": "a cat", **fields})
    assert (400, list(fields)) == (status, [part.split()[0] for part in message.split("; ")])
    assert 0 == sandbox.orders


@pytest.mark.parametrize("sent", ["", "Bearer ", "Basic " + KEY, "Bearer " + CANARY, "Bearer " + KEY + "x",
                                  f"Bearer two {KEY}", KEY])
def test_nothing_is_ordered_or_told_without_the_sandboxs_own_key(sandbox: Sandbox, sent: str) -> None:
    task_id = order(sandbox, **{"async": True})["task_id"]
    headers = {"Authorization": sent} if sent else {}
    for request in (("POST", GENERATIONS, {"prompt": "a cat"}), ("GET", TASKS + task_id, None)):
        status, message = refusal(sandbox, *request, headers)
        assert 401 == status
        assert CANARY not in message
    assert 1 == sandbox.orders
    assert 200 == ask(sandbox, "GET", TASKS + task_id, None, {"Authorization": f"bearer {KEY}"}).status_code


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/"), ("GET", GENERATIONS), ("POST", "/sandbox"), ("POST", GENERATIONS + "/"), ("GET", TASKS),
    *(("GET", path) for path in (
        TASKS + "batch-uuid-example", TASKS + "sandbox-1024x1024x11-1795000000000-4000-7",
        TASKS + "sandbox-9999x1024x1-1795000000000-4000-7", "/generations/img_abc123.png")),
])
def test_what_is_not_there_is_404(sandbox: Sandbox, method: str, path: str) -> None:
    assert 404 == refusal(sandbox, method, path)[0]


# --- the official SDK


@pytest.mark.slow
@pytest.mark.parametrize("extra", [{}, {"async": True}])
def test_the_official_openai_sdk_orders_from_it(sandbox: Sandbox, extra: dict[str, Any]) -> None:
    openai = pytest.importorskip("openai", reason="the OpenAI SDK is not installed: pip install openai")
    client = openai.OpenAI(base_url=sandbox.base_url + "/api/v1", api_key=KEY, max_retries=0)
    answer = client.images.generate(model="gpt-image-2", prompt="a cat", size="64x48", n=2, extra_body=extra)
    task = looks(sandbox, answer.task_id)[-1] if extra else answer.model_dump()
    assert [(64, 48)] * 2 == sizes(sandbox, task["data"])
    assert (1, 2) == (sandbox.orders, sandbox.images)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key=CANARY).images.generate(model="gpt-image-2", prompt="a cat")


# --- ids and links


def test_no_two_tasks_of_one_moment_share_an_id(sandbox: Sandbox) -> None:
    assert 5000 == len({sandbox.accept({"prompt": "a cat", "size": "64x64", "n": 1}).id for _ in range(5000)})


def test_a_later_sandbox_finishes_the_task_of_one_that_is_gone() -> None:
    with Sandbox(seconds=0.4) as first:
        submitted = order(first, size="48x32", n=2, **{"async": True})
    with Sandbox(seconds=86_400) as second:
        seen = looks(second, submitted["task_id"])
        assert seen[0]["progress"] < 100
        assert submitted["created"] == seen[-1]["created"]
        assert [None] * 2 == [image["revised_prompt"] for image in seen[-1]["data"]]  # it is not known any more
        assert [(48, 32)] * 2 == sizes(second, seen[-1]["data"])
        assert 0 == second.orders
        waiting = order(second, **{"async": True})["task_id"]  # a task of a day, the longest that the command allows
        assert "pending" == ask(second, "GET", TASKS + waiting).json()["status"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "localhost:8484", "LOCALHOST", "[::1]:65535"])
def test_links_carry_the_own_name_that_the_client_used(sandbox: Sandbox, host: str) -> None:
    answer = ask(sandbox, "POST", GENERATIONS, {"prompt": "a cat"}, {**TOKEN, "Host": host})
    assert answer.json()["data"][0]["url"].startswith(f"http://{host}/generations/sandbox-")


@pytest.mark.parametrize("hosts", [["evil.example"], ["127.0.0.1.evil.example:80"], ["localhost@evil.example"], [""], [],
                                   ["127.0.0.1", "127.0.0.1"], ["0.0.0.0"]])
def test_a_name_that_is_not_this_machines_gets_nothing(sandbox: Sandbox, hosts: list[str]) -> None:
    sent = post("Content-Length: 19", *(f"Host: {host}" for host in hosts))
    for request in (sent, sent.replace(f"POST {GENERATIONS}".encode(), b"GET /sandbox")):
        assert raw(sandbox, request).startswith(b"HTTP/1.1 421 ")
    assert 0 == sandbox.orders


# --- what comes in may be anything


@pytest.mark.parametrize(("lines", "status"), [
    ([], 411), (["Transfer-Encoding: chunked", "Content-Length: 2"], 411), (["Content-Length: 1_0"], 411),
    (["Content-Length: 2", "Content-Length: 3"], 411), (["Content-Length: 1000"], 400), (["Content-Length: 0"], 400),
    (["Content-Length: 99999999999"], 413), (["X: " + "x" * 70_000], 431), (["X: y"] * 200, 431),
])
def test_a_body_that_cannot_be_measured_is_refused_at_once(sandbox: Sandbox, lines: list[str], status: int) -> None:
    begun = time.monotonic()
    answer = raw(sandbox, post("Host: localhost", *lines, body="{}"))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (1, 1) == (answer.count(b"HTTP/1.1"), answer.count(b'"error"'))
    assert time.monotonic() - begun < 1.5


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[" * 100_000, b"[]"], ids=["no text", "too deep", "a list"])
def test_a_body_that_is_no_json_object_is_refused(sandbox: Sandbox, body: bytes) -> None:
    assert 400 == refusal(sandbox, "POST", GENERATIONS, body)[0]
    assert 0 == sandbox.orders


def test_a_body_that_is_too_large_is_taken_to_its_end_so_that_no_reset_hides_the_refusal(sandbox: Sandbox) -> None:
    answer = raw(sandbox, post("Host: localhost", f"Content-Length: {65 << 20}", body="x" * (65 << 20)))
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n",
                                  b"HEAD / HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n"])
def test_garbage_gets_a_refusal_and_the_next_client_is_served(sandbox: Sandbox, sent: bytes) -> None:
    answer = raw(sandbox, sent)
    assert re.match(rb"HTTP/1.1 (400|414|501|505) ", answer)
    assert b"\r\nServer: image2-sandbox\r\n" in answer
    assert 200 == ask(sandbox, "GET", "/sandbox").status_code


# --- the server


def test_only_this_machine_can_ask_and_a_taken_port_keeps_its_errno(sandbox: Sandbox) -> None:
    assert f"http://127.0.0.1:{sandbox.port}" == sandbox.base_url
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.2", sandbox.port), timeout=1)
    with pytest.raises(OSError) as caught:
        Sandbox(port=sandbox.port)
    assert errno.EADDRINUSE == caught.value.errno


def test_a_batch_that_comes_at_once_is_served_at_once(sandbox: Sandbox) -> None:
    begun = time.monotonic()
    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda _: order(sandbox, n=2), range(40)))
    assert {"orders": 40, "images": 80} == ask(sandbox, "GET", "/sandbox", headers={}).json()
    assert time.monotonic() - begun < 4  # one after the other would be eight seconds


def test_a_client_that_goes_away_leaves_no_trace_and_its_order_counts(
        sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    sent = post("Host: localhost", "Content-Length: 19")
    with socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
        connection.sendall(sent)
        while not sandbox.orders:
            time.sleep(0.01)
        reset_at_close(connection)
    with socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
        connection.sendall(sent[:-9])
    time.sleep(0.4)
    assert 200 == ask(sandbox, "GET", "/sandbox").status_code
    assert ("", "") == capfd.readouterr()
    assert 1 == sandbox.orders


def test_after_stop_nobody_is_served_and_the_port_is_free_again() -> None:
    sandbox = Sandbox(seconds=30).start()
    with socket.create_connection(("127.0.0.1", sandbox.port)):  # one that is in the middle of things holds nothing up
        time.sleep(0.1)  # until it is served
        begun = time.monotonic()
        sandbox.stop()
        sandbox.stop()
        assert -1 == sandbox.fileno()
        assert time.monotonic() - begun < 0.4
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", sandbox.port), timeout=1)
        with Sandbox(port=sandbox.port) as second:
            assert sandbox.base_url == second.base_url


def test_the_log_has_one_line_a_request_and_no_secret() -> None:
    lines: list[str] = []
    with Sandbox(seconds=0, log=lines.append) as sandbox:
        order(sandbox)
        ask(sandbox, "GET", f"/sandbox?key={KEY}")
        raw(sandbox, b"garbage\r\n\r\n")
    assert [f"POST {GENERATIONS} 200", "GET /sandbox 200", "- - 400"] == lines
