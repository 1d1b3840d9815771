"""The key goes to one host and into no text; one POST an order; signals, threads, the log."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, unquote

import pytest
from endings import ORDER, ended
from faulty import Answer, Service, completed, cut, failed, hang, ok, page, pending, refuse, reset, sync_completed
from image2_cli.clock import Clock, Interrupted
from image2_cli.service.api import Api
from image2_cli.service.task import Task
from running import CANARY

QUOTED = 'canary"0123\\not/a<real>&\'one'  # well formed, and changed by every kind of quoting


def api(service: Service, key: str = CANARY, clock: Any = None, **more: Any) -> Api:
    return Api(service.base_url, key, clock or Clock(), **more)


# --- what is sent


def test_an_order_is_one_post_of_these_bytes_with_key_and_order_id(service):
    api(service).submit(ORDER, "order-1", 5)
    (request,) = service.requests
    assert ("POST", "/api/v1/images/generations", ORDER) == (request.method, request.path, request.body)
    assert ("application/json", "order-1", f"Bearer {CANARY}", "identity") == tuple(
        request.headers[name] for name in ("content-type", "idempotency-key", "authorization", "accept-encoding"))


@pytest.mark.parametrize(("task_id", "path"), [("a/b=", "a%2Fb%3D"), ("a+b:c~d", "a%2Bb%3Ac~d")])
def test_a_task_id_enters_the_url_percent_encoded(service, task_id, path):
    service.on_poll(completed(task_id=task_id))
    assert task_id == api(service).look(task_id, 5).id
    assert f"/api/v1/images/tasks/{path}" == service.polls[0].path


def test_an_order_takes_a_fresh_connection_and_looks_share_one(service):
    asked = api(service)
    for _ in range(2):
        asked.submit(ORDER, "order-1", 5)
    assert 2 == service.connections
    for _ in range(5):
        asked.look("task-1", 5)
    assert 2 == service.connections


# --- what comes back


def echoes(key: str) -> dict[str, tuple[Any, Any]]:
    """Where a service can put the key: how it answers the POST, the look. Whole runs of it: money/test_key."""
    pierced, escaped = "\u200b".join(key), "".join(f"\\u{ord(char):04x}" for char in key)
    return {
        "error, pierced": (refuse(422, pierced), failed(pierced)),
        "plain text": (Answer(400, {"Content-Type": "text/plain"}, f"bad {key}".encode()), page(500, f"<html>{key}")),
        "task id, cut": (cut(ok(task_id=key), -3), completed(task_id=key)),
        "task id, refused": (ok(task_id=f"{key}<"), None),
        "task id, cut and escaped": (Answer(body=f'{{"task_id": "{escaped}", "st'.encode()), None),
        "names": (ok(**{key: 1}), pending(**{key: {key: key}})),
        "link": (sync_completed(urls=[f"https://x/{key}.png"]), completed(urls=[f"https://x/{quote(key, safe='')}/a.png"])),
        "base64": (sync_completed(data=[{"b64_json": key}]), None),
        "length": (ok().but(content_length=quote(key)), completed().but(content_length=quote(key))),
        "reason": (Answer(raw=f"HTTP/1.1 400 {key}\r\nContent-Length: 0\r\n\r\n".encode()), None),
        "instead of HTTP": (Answer(raw=f"{key}\r\n\r\n".encode()), Answer(raw=f"{key}\r\n\r\n".encode())),
        "proxy's header": (Answer(400, {"X-Other": quote(key), "Content-Type": quote(key)}), None),
    }


@pytest.mark.parametrize("key", [CANARY, QUOTED], ids=["plain", "quoted"])
@pytest.mark.parametrize("where", echoes(CANARY))
def test_a_service_that_echoes_the_key_puts_it_into_no_value_no_error_and_no_log(service, where, key):
    lines: list[str] = []
    asked = api(service, key, log=lines.append)
    said_to_post, said_to_look = echoes(key)[where]
    service.on_post(said_to_post or ok())
    service.on_poll(said_to_look or completed())
    for end in (ended(asked.submit, ORDER, "order-1", 5), ended(asked.look, "task-1", 5)):
        seen = repr(end) if isinstance(end, Task) else repr((end.message, end.as_json(), end.args))
        for text in (seen, unquote(seen), re.sub("[\u200b\u2060]", "", seen), "".join(lines)):
            assert key not in text and json.dumps(key)[1:-1] not in text
    assert f"Bearer {key}" == service.requests[0].headers["authorization"]


# --- the log


def test_the_log_has_a_line_for_each_exchange(service):
    lines: list[str] = []
    service.on_post(refuse(429), reset())
    service.on_poll(hang())
    asked = api(service, log=lines.append)
    for _ in range(2):
        ended(asked.submit, ORDER, "order-1", 5)
    ended(asked.look, "task-1", 0.2)
    expected = (r"attempt 1: POST \S+/generations -> 429, 33 bytes, \d\.\d\d s\nattempt 2: POST \S+ -> no answer, 0 bytes, "
                r"\S+ s\nattempt 1: GET \S+/task-1 -> given up, 0 bytes, \S+ s")
    assert re.fullmatch(expected, "\n".join(lines)), lines


# --- signals, the sandbox


def test_a_signal_before_an_order_lets_nothing_out(service):
    clock = Clock()
    clock.stop(2)
    with pytest.raises(Interrupted) as caught:
        api(service, clock=clock).submit(ORDER, "order-1", 5)
    assert ("no", []) == (caught.value.charged, service.requests)


@pytest.mark.parametrize(("server", "expected"), [("image2-sandbox", True), ("nginx", False)])
def test_a_sandbox_on_this_machine_is_known_by_what_it_says(service, server, expected):
    service.on_poll(completed().but(headers={"Server": server}))
    asked = api(service)
    assert not asked.is_stand_in
    asked.look("task-1", 5)
    assert expected is asked.is_stand_in
