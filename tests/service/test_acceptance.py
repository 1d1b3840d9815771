"""What an answer means, each row on a real socket: every spending decision rests on this table."""

from __future__ import annotations

import email.utils
import time
from typing import Any

import pytest
from faulty import Answer, cut, hang, ok, page, raw, refuse, reset, sync_completed
from image2_cli.errors import Image2Error
from image2_cli.service.task import Task
from image2_cli.service.transport import retry_after
from requests.structures import CaseInsensitiveDict

ID = '{"created": 1, "task_id": "task-1", "status": "pending", "data": [{"url": null, "status": "pending"}]}'
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def says(status: int, code: Any = None, message: str = "no", **headers: Any) -> Answer:
    return refuse(status, message, code, **headers)


ACCEPTED = {
    "299": ok().but(status=299), "no status": ok(status=None), "no length": ok().but(content_length=None),
    "reset behind the id": reset(ok(), -1), "chunked, cut": cut(ok().but(chunked=True), -5),
    "length too large": ok().but(content_length=10_000), "length that is no number": ok().but(content_length="many"),
    "junk around it": Answer(body="<html>" + ID + "</html>"), "HTTP/1.0": raw("HTTP/1.0 200 OK\r\n\r\n" + ID),
    "a number of 5,000 digits": Answer(body='{"n": ' + "9" * 5000 + ', "task_id": "task-1"}'),
    "an error beside the id": Answer(body={"task_id": "task-1", "error": "slow"}),
    "a gateway's 504 around it": ok().but(status=504), "a 500 that names it": ok().but(status=500),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_2xx_with_a_task_id_is_accepted_however_it_comes(post, name):
    end = post(ACCEPTED[name])
    assert isinstance(end, Task), end
    assert "task-1" == end.id


@pytest.mark.parametrize("sent", ["../../admin", "$(reboot)", "x" * 257, 2**64, ["t"]])
def test_an_id_that_cannot_enter_a_url_is_shown_and_the_order_unknown(post, sent):
    end = post(Answer(body={"task_id": sent, "error": {"message": "hm"}}))
    assert ("outcome_unknown", "maybe", False) == (end.code, end.charged, end.may_resend)
    assert "its task id cannot be used" in end.message
    assert str(sent).strip()[:20] in end.message


def test_images_at_once_are_accepted_without_an_id(post):
    end = post(sync_completed())
    assert (None, True, "done") == (end.id, end.images[0].is_there, end.outcome(1))


#         code, exit, charged, retryable, may it be sent again by itself
REFUSED = ("rejected", 3, "no", False, False)
REFUSED_MAYBE = ("rejected", 3, "maybe", False, False)
TOO_LARGE = ("request_too_large", 3, "no", False, False)
CREDIT = ("insufficient_credits", 3, "no", False, False)
CREDIT_MAYBE = ("insufficient_credits", 3, "maybe", False, False)
KEY = ("key_rejected", 4, "no", False, False)
LATER = ("rate_limited", 5, "no", True, True)
AWAY = ("unavailable", 5, "no", True, True)
GATEWAY = ("unavailable", 5, "no", True, False)
UNKNOWN = ("outcome_unknown", 9, "maybe", False, False)

EXHAUSTED = {"error": {"code": 429, "message": "Resource has been exhausted (e.g. check quota).",
                       "status": "RESOURCE_EXHAUSTED"}}
ELSEWHERE = {"Location": "/elsewhere"}
ENDS = {
    KEY: {"401": page(401), "403": says(403), "403, empty": Answer(403),
          "403, JSON called HTML": says(403).but(headers={"Content-Type": "text/html"})},
    GATEWAY: {"403, page": page(403, "<html>Just a moment"), "403, empty page": page(403, ""), "408": page(408),
              "403, Cloudflare": Answer(403, body=b"error code: 1020")},
    CREDIT: {
        "402": says(402, retry_after=3), "429, code": says(429, "insufficient_quota"),
        "400": says(400, "insufficient_credits"), "403": says(403, "insufficient_user_quota"),
        "403, text called HTML": page(403, "quota: not enough credits"),
        "429, camel case": says(429, "InsufficientBalance"), "429, text": Answer(429, body=b"billing hard limit"),
        "429, credit": says(429, None, "Your credit balance is too low"), "429, 余额不足": says(429, None, "账户余额不足")},
    LATER: {
        "429": page(429), "429, Google": Answer(429, {}, EXHAUSTED), "429, cut": cut(says(429)).but(accepted=False),
        "429, its code, Retry-After": says(429, "insufficient_quota", retry_after=3),
        "429, load balancer": Answer(429, body=b"out of load balancers")},
    AWAY: {"425": Answer(425), "503, Retry-After": page(503, retry_after=0),
           **{str(status): page(status) for status in (521, 523, 525, 526, 530)}},
    TOO_LARGE: {"413 before reading": says(413).but(before_read=True)},
    REFUSED: {
        "403, policy": says(403, "content_policy_violation"), "403, 违规": says(403, None, "提示词违规"), "404": page(404),
        "404, model": says(404, "model_not_found"), "400, credit": says(400, None, "not enough credit to the artist"),
        "407": Answer(407), "418": page(418), "400, cut": cut(says(400), -3).but(accepted=False),
        "400, beside a task id": Answer(400, body={"task_id": "task-1", "error": "no"}),
        **{str(status): Answer(status, ELSEWHERE) for status in (301, 307, 308)}},  # by definition not processed
    REFUSED_MAYBE: {
        "409": says(409), "499": Answer(499), "200, msg": Answer(body={"code": "E1", "msg": "x"}),
        "200, moderation": Answer(body={"error": {"code": "moderation_blocked", "message": "x"}}),
        "201, request id": Answer(201, body={"id": "req-1", "error": {"message": "x"}})},
    CREDIT_MAYBE: {"200": Answer(body={"code": 1102, "message": "Account balance not enough"})},
    UNKNOWN: {
        # a 2xx without an error
        "{}": Answer(body={}), "200, code 200": Answer(body={"code": "200", "msg": "ok", "error": None}), "204": Answer(204),
        "list": Answer(body=[]), "HTML": page(200), "UTF-16": Answer(body=ID.encode("utf-16")),
        "pending, no id": Answer(body={"status": "pending", "data": [{"url": None}]}),
        # what may have been processed
        **{str(status): Answer(status, ELSEWHERE) for status in (302, 303, 300)},
        **{str(status): page(status) for status in (502, 520, 522, 524, 599)},
        "503, queued": says(503, None, "timed out after the job was queued"), "503, soon": page(503, retry_after="soon"),
        "500, Retry-After": says(500, retry_after=1), "504": says(504, "insufficient_quota"),
        # what broke
        "reset": reset(), "reset before reading": reset().but(before_read=True), "closed": cut(ok(), 0),
        "closed in a header": cut(ok(), 30), "closed before the id's last quote": cut(ok(), -69),
        "closed in a numeric id": cut(Answer(body={"task_id": 1894052936412340224}), -5),
        "length too small": ok().but(content_length=10),
        "two lengths": raw(HEAD + f"Content-Length: 5\r\nContent-Length: 9\r\n\r\n{ID}"),
        "broken chunks": raw(HEAD + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + ID),
        "no HTTP": raw("220 mail.example.com ESMTP\r\n"), "1,000 headers": raw(HEAD + "X: x\r\n" * 1000 + "\r\n" + ID),
        "101": raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n")},
}


@pytest.mark.parametrize(("expected", "name"), [(end, name) for end, answers in ENDS.items() for name in answers])
def test_every_end_of_an_order_has_its_row(post, expected, name):
    end = post(ENDS[expected][name])
    assert isinstance(end, Image2Error), end
    assert expected == (end.code, end.exit_status, end.charged, end.retryable, end.may_resend)
    assert "nothing was sent" not in end.message
    if expected == CREDIT_MAYBE:  # "run the same again" sent nothing, for the order may be charged
        assert "--new" in end.message and "the same again" not in end.message


@pytest.mark.parametrize("answer", [hang(30), hang(30, ok(), "head")], ids=["all", "body"])
def test_silence_after_the_order_is_unknown_within_its_time(post, answer):
    started = time.monotonic()
    end = post(answer, seconds=0.5)
    assert UNKNOWN == (end.code, end.exit_status, end.charged, end.retryable, end.may_resend)
    assert time.monotonic() - started < 3


WORDS = {  # the shapes of words in JSON: test_task
    "JSON": (says(422, "x", "the reason"), "the reason"), "HTML": (page(400), None),
    "plain text": (Answer(422, {"Content-Type": "text/plain"}, b"the reason\n"), "the reason"),
    "behind an echo": (says(400, message=f"image data:image/png;base64,{'A' * 20_000} too large"), "image … too large"),
    "binary": (Answer(400, body=b"\x00\x01\xff\xfe" * 9), None), "cut": (cut(says(400), -3).but(accepted=False), None),
}


@pytest.mark.parametrize("name", WORDS)
def test_the_services_words_are_given_or_else_the_advice_does_not_point_at_them(post, name):
    answer, expected = WORDS[name]
    end = post(answer)
    assert (expected, expected is not None) == (end.server_message, "server_message" in end.message)


ADVICE = {
    "address": (page(404), "IMAGE2_BASE_URL", "--model"),
    "model by its message": (says(404, None, "The model gpt-9 does not exist"), "--model", "endpoint"),
    "408": (Answer(408), "Run the same", "Mend"),
    "409": (says(409), "may be at work", "Mend"), "redirect": (Answer(307), "IMAGE2_BASE_URL", "Mend"),
    "gateway": (page(403), "gateway", "IMAGE2_API_KEY"), "key": (says(403), "IMAGE2_API_KEY", "gateway"),
    "unknown": (page(500), "--new", "Mend"), "2xx": (Answer(body={}), "neither a task id nor images", "Mend"),
    "local image": (says(400, None, "the picture"), "A URL may work", "It gave no reason"),
    "size, beside a local image": (says(400, None, "bad size"), "Mend", "A URL may work"),
    "URL": (says(400, None, "invalid image url"), "Mend", "A URL may work"),
}


@pytest.mark.parametrize("name", ADVICE)
def test_every_refusal_says_what_to_do(post, name):
    answer, has, lacks = ADVICE[name]
    message = post(answer, local="local" in name).message
    assert has in message
    assert lacks not in message


# --- looks

LOOKS = {
    "401": (says(401), "key_rejected"), "403": (says(403), "key_rejected"), "403, page": (page(403), "unavailable"),
    "403, policy": (says(403, "content_policy_violation"), "unavailable"), "404": (says(404), "task_not_found"),
    **{str(status): (says(status, retry_after=7), "unavailable") for status in (402, 410, 429, 503)},
    **{str(status): (Answer(status, ELSEWHERE), "unavailable") for status in (302, 307)},
    "HTML": (page(200), "unavailable"), "{}": (Answer(body={}), "unavailable"),
    "another task": (Answer(body={"task_id": "t-2", "status": "completed"}), "unavailable"),
    "a refused id": (Answer(body={"task_id": "../t-1", "status": "completed"}), "unavailable"),
    "reset": (reset(), "network"), "cut": (cut(Answer(body=ID), -5), "unavailable"), "silence": (hang(30), "network"),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_that_fails_says_how(look, name):
    answer, code = LOOKS[name]
    end = look(answer, seconds=0.5 if name == "silence" else 5)
    assert isinstance(end, Image2Error), end
    assert (code, False) == (end.code, end.may_resend)
    assert "nothing was sent" not in end.message
    if answer.status >= 400 and answer.headers:
        assert (answer.status, 7, "no") == (end.http_status, end.retry_after_s, end.server_message)


@pytest.mark.parametrize("body", [
    {"task_id": "t-1", "status": "pending"}, {"status": "pending"},
    {"code": 0, "message": "success", "data": {"status": "pending"}}])
def test_a_look_gives_the_task_with_its_id(look, body):
    assert ("t-1", "pending", "running") == (*look(Answer(202, body=body))[:2], look(Answer(body=body)).outcome(1))


def test_an_error_that_stands_alone_in_a_look_is_the_tasks(look):
    assert Task("t-1", None, None, (), "task expired") == look(Answer(body={"error": {"message": "task expired"}}))


# --- Retry-After

NOW = 1_800_000_000.0
DATE = email.utils.formatdate(NOW, usegmt=True)


@pytest.mark.parametrize(("value", "expected"), [
    ("0", 0), (" 7 ", 7), ("2.2", 3), ("9" * 300, 10**9),
    (email.utils.formatdate(NOW + 90, usegmt=True), 90), (DATE, 0), ("Fri, 15 Jan 2027 10:01:00 +0200", 60),
    ("Fri, 15 Jan 2027 08:00:30", 30), ("Fri, 31 Dec 9999 23:59:59 GMT", 10**9),
    *((nonsense, None) for nonsense in (
        "", "-1", "inf", "1e3", "3 s", "٣", "9" * 400,
        email.utils.formatdate(NOW - 1, usegmt=True), "Fri, 32 Jan 2027 08:00:00 GMT"))])
def test_retry_after_is_seconds_or_a_date_by_the_services_own_clock(value, expected):
    assert expected == retry_after(CaseInsensitiveDict({"retry-after": value, "date": DATE}))


def test_without_a_date_of_its_own_this_machines_clock_counts():
    until = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert retry_after({"Retry-After": until, "Date": "never"}) in (29, 30)
