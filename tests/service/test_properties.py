"""Any JSON, any bytes, any cut: only the documented ends, never a POST that may go again where one was accepted.

`IMAGE2_TEST_TIMES=20` tries twenty times as many.
"""

from __future__ import annotations

import os
import string
from typing import Any

import pytest
from endings import ORDER, ended
from faulty import Answer, Service, cut, reset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image2_cli.clock import Clock
from image2_cli.errors import CODES
from image2_cli.service.api import Api
from image2_cli.service.task import Task, is_task_id
from image2_cli.text import clean
from running import CANARY

TIMES = int(os.environ.get("IMAGE2_TEST_TIMES", "1"))
lawful = settings(max_examples=120 * TIMES, deadline=None, derandomize=True, database=None,
                  suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])

NAMES = ("task_id", "taskId", "id", "status", "progress", "data", "error", "detail", "errors", "loc", "msg", "url",
         "b64_json", "revised_prompt", "message", "code", "type", "created", CANARY)
WORDS = ("completed", "failed", "pending", "task-1", "..", "a/b", "insufficient_quota", "content_policy_violation",
         "the model is unknown", "data:image/png;base64,iVBORw0KGgo=", "余额不足", CANARY, "\u200b".join(CANARY), "\ud800",
         "\x1b[2J", "")
texts = st.sampled_from(WORDS) | st.text(max_size=20)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -1, 0, 100, 1e308])
values = st.recursive(st.none() | st.booleans() | numbers | texts, lambda inner: st.lists(inner, max_size=4)
                      | st.dictionaries(st.sampled_from(NAMES) | texts, inner, max_size=6), max_leaves=20)
tasks = st.fixed_dictionaries({}, optional={name: values for name in NAMES[:9]})
bodies = tasks | values.filter(lambda value: not isinstance(value, (str, bytes))) | st.binary(max_size=300) | st.text(
    string.printable, max_size=200)
statuses = st.just(200) | st.sampled_from([201, 204, 302, 307, 400, 401, 402, 403, 404, 425, 429, 500, 503, 521]) | (
    st.integers(200, 999))
headers = st.dictionaries(
    st.sampled_from(["Retry-After", "Date", "Content-Type", "Content-Encoding", "Location", "Connection", "X-Other"]),
    st.sampled_from(["3600", "-1", "nan", "gzip", "deflate", "/elsewhere", "close", "text/html", CANARY])
    | st.text(string.ascii_letters + string.digits + " ,;=/%\x1b\u00e9", max_size=20), max_size=3)
answers = st.builds(Answer, status=statuses, headers=headers, body=bodies, chunked=st.booleans(),
                    content_length=st.sampled_from(["auto", "auto", None, 0, 5, 10_000, "x", "-3"]))
cuts = st.integers(0, 400) | st.integers(-120, -1) | st.just("head")
faults = answers | st.builds(cut, answers, cuts) | st.builds(reset, answers, cuts)


@pytest.fixture(scope="module")
def lasting():
    with Service() as service:
        yield service, Api(service.base_url, CANARY, Clock())


@lawful
@given(answer=faults)
def test_any_answer_to_an_order_is_a_task_or_an_error_that_is_honest_about_money(lasting, answer):
    service, api = lasting
    before = service.received
    service.on_post(answer)
    end = ended(api.submit, ORDER, "order-1", 2)
    assert 1 == service.received - before
    assert CANARY not in repr(end)
    if isinstance(end, Task):
        says_unknown = answer.status >= 500 or answer.status in (302, 303)  # and still names a task: it is looked at
        assert (200 <= answer.status < 300 or says_unknown) and (
            is_task_id(end.id) or any(image.is_there for image in end.images))
        return
    assert end.code in CODES and end.code not in ("internal", "usage", "task_not_found", "network", "tls")
    assert end.charged in (["maybe"] if service.posts[-1].accepted and 200 <= answer.status < 300 else ["no", "maybe"])
    refused = answer.status in (425, 429, 503, 521, 523, 525, 526, 530)
    assert not end.may_resend or (refused and end.charged == "no")


@lawful
@given(answer=faults)
def test_any_answer_to_a_look_is_the_task_or_an_error_of_a_look(lasting, answer):
    service, api = lasting
    service.on_poll(answer)
    end: Any = ended(api.look, "task-1", 2)
    assert CANARY not in repr(end)
    if isinstance(end, Task):
        assert "task-1" == end.id
        assert end.outcome(1) in ("running", "done", "failed")
        texts = [(end.status, 40), (end.error, 200), (end.reason, 200)]
        for image in end.images:
            texts += [(image.status, 40), (image.error, 200), (image.revised_prompt, 1000)]
        assert all(text is None or (0 < len(text) <= limit and clean(text, limit) == text) for text, limit in texts)
    else:
        assert end.code in ("task_not_found", "key_rejected", "network", "unavailable")
        assert not end.may_resend
