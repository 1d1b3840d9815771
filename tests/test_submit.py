"""At most one accepted POST an order, whatever happens to it, and an honest word on what it may have cost.

`orders` is counted by the service: what a fault leaves open it counts as accepted. Every row is a process against
real sockets.
"""

import email.utils
import gzip
import json
import os
import time
from typing import Any, NamedTuple

import pytest
from faulty import (
    Answer,
    Service,
    closed_port,
    completed,
    cut,
    drip,
    failed,
    full_backlog,
    hang,
    ok,
    page,
    pending,
    picture,
    redirect,
    refuse,
    reset,
    sync_completed,
)
from laws import FAST, hold, records, state
from platforms import TICK_S, needs_linux

# How an order can end: exit status, error.code, charged, the record's state, is there a `next`?
DONE = (0, None, "yes", "finished", False)
UNKNOWN = (9, "outcome_unknown", "maybe", "unknown", False)
REJECTED = (3, "rejected", "no", "not_sent", False)
NO_CREDIT = (3, "insufficient_credits", "no", "not_sent", False)
TOO_LARGE = (3, "request_too_large", "no", "not_sent", False)
NO_KEY = (4, "key_rejected", "no", "not_sent", False)
LIMITED = (5, "rate_limited", "no", "not_sent", False)
AWAY = (5, "unavailable", "no", "not_sent", False)
UNREACHED = (5, "network", "no", "not_sent", False)
FAILED = (6, "task_failed", "maybe", "finished", False)
PENDING = (8, "still_running", "yes", "submitted", True)
NO_IMAGES = (10, "no_images", "yes", "submitted", True)


class Row(NamedTuple):
    """What the service answers to the POSTs, how it must end, and how many POSTs may come."""

    answers: Any
    end: tuple
    posts: int = 1
    flags: tuple = ()
    timeout: float = 20


def raw(text: str) -> Answer:
    return Answer(raw=text.encode("latin-1"))


ID = '{"created": 1, "task_id": "task-1", "status": "pending", "data": [{"url": null, "status": "pending"}]}'
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
AT_ONCE = sync_completed()
LONG_AGO = "Wed, 21 Oct 2015 07:28:00 GMT"
BOM16 = ID.encode("utf-16")

ACCEPTED = {
    "plain": Row(ok(), DONE),
    "201": Row(ok().but(status=201), DONE),
    "202": Row(ok().but(status=202), DONE),
    "images at once although async": Row(AT_ONCE, DONE),
    "a task id although sync": Row(ok(), DONE, 1, ("--sync",)),
    "sync": Row(AT_ONCE, DONE, 1, ("--sync",)),
    "completed at once": Row(completed(), DONE),
    "completed at once, images later": Row(completed(data=[]), DONE),
    "failed at once": Row(failed(), FAILED),
    "no status": Row(ok(status=None), DONE),
    "no data": Row(ok(data=None), DONE),
    "unheard-of status": Row(ok(status="Warming-Up"), DONE),
    "the id is a number": Row(ok(task_id=12345), DONE),
    "cut JSON behind the id": Row(cut(ok(), -1), DONE),
    "cut JSON close behind the id": Row(cut(ok(), -68), DONE),
    "reset behind the id": Row(reset(ok(), -1), DONE),
    "the body hangs behind the id": Row(hang(30, ok(), -1), DONE, 1, (), 1),
    "drip": Row(drip(ok(), 10, 0.03), DONE),
    "slow to answer": Row(ok().but(delay=1), DONE),
    "chunked": Row(ok().but(chunked=True), DONE),
    "chunked, cut at the last chunk": Row(cut(ok().but(chunked=True), -5), DONE),
    "no length": Row(ok().but(content_length=None), DONE),
    "length too large": Row(ok().but(content_length=10_000), DONE),
    "length that is no number": Row(ok().but(content_length="many"), DONE),
    "negative length": Row(ok().but(content_length="-5"), DONE),
    "empty chunked head": Row(raw(HEAD + "Transfer-Encoding: chunked\r\n\r\n5f\r\n" + ID), DONE),
    "byte-order mark": Row(Answer(body="\ufeff" + ID), DONE),
    "junk around the id": Row(Answer(body="<html>" + ID + "</html>"), DONE),
    "two answers in one": Row(Answer(body=ID + ID), DONE),
    "compressed although not asked": Row(Answer(headers={"Content-Encoding": "gzip"},
                                                body=gzip.compress(ID.encode())), DONE),
    "HTTP/1.0": Row(raw("HTTP/1.0 200 OK\r\n\r\n" + ID), DONE),
    "100 before it": Row(raw("HTTP/1.1 100 Continue\r\n\r\n" + HEAD + "\r\n" + ID), DONE),
    "429, then accepted": Row([refuse(429), ok()], DONE, 2),
    "503, then accepted": Row([refuse(503), ok()], DONE, 2),
    "twice refused, then accepted": Row([refuse(429), page(503, retry_after=0), ok()], DONE, 3),
    "429 for one second": Row([refuse(429, retry_after=1), ok()], DONE, 2),
    "429 until a date": Row([refuse(429, retry_after=email.utils.formatdate(0, usegmt=True)), ok()], DONE, 2),
    "429 with a Retry-After of nonsense": Row([refuse(429, retry_after="soon"), ok()], DONE, 2),
    "429 with a negative Retry-After": Row([refuse(429, retry_after=-100), ok()], DONE, 2),
    "429 with an infinite Retry-After": Row([refuse(429, retry_after="inf"), ok()], DONE, 2),
    "429 with NaN as Retry-After": Row([refuse(429, retry_after="NaN"), ok()], DONE, 2),
    "429 until long ago": Row([refuse(429, retry_after=LONG_AGO), ok()], DONE, 2),
    "521, then accepted": Row([page(521), ok()], DONE, 2),
}

LOST = {
    "reset before a byte": Row(reset(), UNKNOWN),
    "reset before reading": Row(reset().but(before_read=True), UNKNOWN),
    "reset in the status line": Row(reset(ok(), 9), UNKNOWN),
    "reset in the body": Row(reset(ok(), -90), UNKNOWN),
    "closed before a byte": Row(cut(ok(), 0), UNKNOWN),
    "closed in the status line": Row(cut(ok(), 9), UNKNOWN),
    "closed behind the status line": Row(cut(ok(), 17), UNKNOWN),
    "closed in a header": Row(cut(ok(), 30), UNKNOWN),
    "closed behind the head": Row(cut(ok(), "head"), UNKNOWN),
    "closed before the id": Row(cut(ok(), -76), UNKNOWN),
    "closed in the id": Row(cut(ok(), -71), UNKNOWN),
    "closed before the id's last quote": Row(cut(ok(), -69), UNKNOWN),
    "silence": Row(hang(30), UNKNOWN, 1, (), 1),
    "silence in the head": Row(hang(30, ok(), 20), UNKNOWN, 1, (), 1),
    "silence in the body": Row(hang(30, ok(), "head"), UNKNOWN, 1, (), 1),
    "an endless drip": Row(drip(ok(), 1, 0.2), UNKNOWN, 1, (), 1),
    "silence, sync": Row(hang(30, AT_ONCE), UNKNOWN, 1, ("--sync",), 1),
    "empty 200": Row(Answer(), UNKNOWN),
    "204": Row(Answer(204), UNKNOWN),
    "HTML 200": Row(page(200), UNKNOWN),
    "cut images, sync": Row(cut(AT_ONCE, -10), UNKNOWN, 1, ("--sync",)),
    "a list": Row(Answer(body=[]), UNKNOWN),
    "null": Row(Answer(body="null"), UNKNOWN),
    "a text": Row(Answer(body='"accepted"'), UNKNOWN),
    "an empty object": Row(Answer(body={}), UNKNOWN),
    "an error with a 200": Row(Answer(body={"error": {"message": "hm"}}), UNKNOWN),
    "no id, no images": Row(Answer(body={"status": "pending", "data": [{"url": None}]}), UNKNOWN),
    "an id that climbs": Row(ok(task_id="../../admin"), UNKNOWN),
    "an id of dots": Row(ok(task_id=".."), UNKNOWN),
    "an id with a line end": Row(ok(task_id="task-1\n"), UNKNOWN),
    "an id that is a command": Row(ok(task_id="$(reboot)"), UNKNOWN),
    "an id of 129 characters": Row(ok(task_id="x" * 129), UNKNOWN),
    "length too small": Row(ok().but(content_length=10), UNKNOWN),
    "two lengths": Row(raw(HEAD + f"Content-Length: 5\r\nContent-Length: 9\r\n\r\n{ID}"), UNKNOWN),
    "broken chunks": Row(raw(HEAD + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + ID), UNKNOWN),
    "gzip that is none": Row(Answer(headers={"Content-Encoding": "gzip"}, body=ID), UNKNOWN),
    "no HTTP": Row(raw("220 mail.example.com ESMTP\r\n"), UNKNOWN),
    "a header line of 100,000": Row(raw(HEAD + "X: " + "x" * 100_000 + "\r\n\r\n" + ID), UNKNOWN),
    "1,000 headers": Row(raw(HEAD + "X: x\r\n" * 1000 + "\r\n" + ID), UNKNOWN),
    "UTF-16": Row(Answer(body=BOM16), UNKNOWN),
    "101": Row(raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"), UNKNOWN),
    "500": Row(page(500), UNKNOWN),
    "500 with an error": Row(refuse(500), UNKNOWN),
    "500 with Retry-After": Row(refuse(500, retry_after=1), UNKNOWN),
    "502": Row(page(502), UNKNOWN),
    "503 in bare HTML": Row(page(503), UNKNOWN),
    "503 without a body": Row(Answer(503), UNKNOWN),
    "504": Row(page(504, retry_after=1), UNKNOWN),
    "520": Row(page(520), UNKNOWN),
    "522": Row(page(522), UNKNOWN),
    "524": Row(page(524), UNKNOWN),
    "599": Row(page(599), UNKNOWN),
    "302": Row(redirect(302, "/elsewhere"), UNKNOWN),
    "303": Row(redirect(303, "/elsewhere"), UNKNOWN),
    "304": Row(Answer(304), UNKNOWN),
    "429, then a reset": Row([refuse(429), reset()], UNKNOWN, 2),
    "503, then 500": Row([refuse(503), page(500)], UNKNOWN, 2),
}

REFUSED = {
    "301 in a loop": Row(redirect(301, "/api/v1/images/generations"), REJECTED),
    "307 in a loop": Row(redirect(307, "/api/v1/images/generations"), REJECTED),
    "308 in a loop": Row(redirect(308, "/api/v1/images/generations"), REJECTED),
    "400": Row(refuse(400, "size must be smaller", "invalid_size"), REJECTED),
    "400 in HTML": Row(page(400), REJECTED),
    "400, cut": Row(cut(refuse(400), -3).but(accepted=False), REJECTED),
    "401": Row(refuse(401), NO_KEY),
    "402": Row(refuse(402), NO_CREDIT),
    "403": Row(page(403), NO_KEY),
    "404": Row(page(404), REJECTED),
    "405": Row(refuse(405), REJECTED),
    "408": Row(page(408), REJECTED),
    "409": Row(refuse(409), REJECTED),
    "413": Row(page(413), TOO_LARGE),
    "413 before the body was read": Row(refuse(413).but(before_read=True), TOO_LARGE),
    "418": Row(refuse(418), REJECTED),
    "422": Row(refuse(422, "unsafe prompt", "content_policy"), REJECTED),
    "451": Row(refuse(451), REJECTED),
    "429, the quota": Row(refuse(429, "You exceeded your current quota"), NO_CREDIT),
    "429, the balance": Row(refuse(429, "slow down", "insufficient_balance"), NO_CREDIT),
    "429, again and again": Row(refuse(429), LIMITED, 3),
    "429 in HTML": Row(page(429), LIMITED, 3),
    "429, too long": Row(refuse(429, retry_after=61), LIMITED, 1, (), 100),
    "429, longer than the time that is left": Row(refuse(429, retry_after=10), LIMITED, 1, (), 5),
    "429 until a date in an hour": Row(refuse(429, retry_after="(in an hour)"), LIMITED, 1),
    "503 with an error": Row(refuse(503), AWAY, 3),
    "503 with Retry-After": Row(page(503, retry_after=0), AWAY, 3),
    "503, too long": Row(page(503, retry_after=3600), AWAY, 1),
    "521": Row(page(521), AWAY, 3),
    "523": Row(page(523), AWAY, 3),
    "525": Row(page(525), AWAY, 3),
    "526": Row(page(526), AWAY, 3),
    "530": Row(page(530), AWAY, 3),
    "503, then 400": Row([refuse(503), refuse(400)], REJECTED, 2),
    "429, then 401": Row([refuse(429), refuse(401)], NO_KEY, 2),
}

ROWS = {**ACCEPTED, **LOST, **REFUSED}


@pytest.mark.parametrize("name", ROWS)
def test_an_order_is_accepted_once_at_most_and_told_honestly(run, service, project, name):
    row = ROWS[name]
    answers = row.answers if isinstance(row.answers, list) else [row.answers]
    service.on_post(*(_dated(answer) for answer in answers))
    done = run("generate", "a cat", *FAST, "--timeout", str(row.timeout), *row.flags)
    answer = hold(done, service, project, row.timeout)
    assert row.posts == len(service.posts)
    assert row.end == ending(done.exit, answer, state(project))
    assert len({post.headers["idempotency-key"] for post in service.posts}) == 1
    assert [True] * row.posts == [post.headers["authorization"].startswith("Bearer ") for post in service.posts]


def _dated(answer):
    if isinstance(answer, Answer) and answer.headers.get("Retry-After") == "(in an hour)":
        return answer.but(headers={"Retry-After": email.utils.formatdate(time.time() + 3600, usegmt=True)})
    return answer


def ending(exit_status: int, answer: dict, record: str | None) -> tuple:
    """The end of a run as the rows tell it."""
    code = answer["error"]["code"] if answer["error"] else None
    return exit_status, code, answer["charged"], record, answer["next"] is not None


@pytest.mark.parametrize("at", [*range(130, 300, 17)])
def test_wherever_an_answer_is_cut_the_order_is_followed_or_unknown(run, service, project, at):
    service.on_post(cut(ok("the-task"), at))
    done = run("generate", "a cat", *FAST, "--timeout", "10")
    answer = hold(done, service, project, 10)
    assert 1 == len(service.posts)
    assert ending(done.exit, answer, state(project)) in (DONE, UNKNOWN)
    known = b'"task_id": "the-task"' in ok("the-task").wire(service.posts[0])[:at]
    assert known is (done.exit == 0)


def test_a_refused_connection_is_tried_three_times_and_costs_nothing(run, project):
    with closed_port() as nowhere:
        done = run("generate", "a cat", "-v", base_url=nowhere)
    answer = hold(done, None, project, 100)
    assert UNREACHED == ending(done.exit, answer, state(project))
    assert 3 == done.stderr.count("image2: http: POST")


def test_a_name_that_is_not_found_costs_nothing(run, project):
    done = run("generate", "a cat", "--timeout", "30", base_url="https://no-such-host.invalid")
    answer = hold(done, None, project, 30)
    assert UNREACHED == ending(done.exit, answer, state(project))
    assert "nothing was sent" in answer["error"]["message"]


@needs_linux
def test_a_connect_that_hangs_costs_nothing_and_ends_with_the_budget(run, project):
    with full_backlog() as nowhere:
        done = run("generate", "a cat", "--timeout", "1", base_url=nowhere)
    answer = hold(done, None, project, 1)
    assert UNREACHED == ending(done.exit, answer, state(project))


def test_a_network_that_a_sandbox_forbids_is_named(run, project):
    with closed_port() as nowhere:
        done = run("generate", "a cat", "--timeout", "0.2", base_url=nowhere,
                   env={"CODEX_SANDBOX_NETWORK_DISABLED": "1"})
    answer = hold(done, None, project, 1)
    assert "Codex's sandbox may block the network" in answer["error"]["message"]


def test_a_refused_order_runs_again_when_the_network_is_back(run, service, project):
    with closed_port() as nowhere:
        assert 5 == run("generate", "a cat", "--timeout", "0.2", base_url=nowhere).exit
    done = run("generate", "a cat", *FAST)
    assert 0 == done.exit
    assert 1 == service.orders


def test_a_rejected_order_is_sent_anew_by_the_same_command(run, service, project):
    service.on_post(refuse(401), ok())
    assert 4 == run("generate", "a cat", *FAST).exit
    assert 0 == run("generate", "a cat", *FAST).exit
    assert 2 == len(service.posts)
    assert 1 == service.orders
    assert 1 == len(records(project))


def test_an_order_of_unknown_fate_is_not_repeated_unasked(run, service, project):
    service.on_post(reset())
    assert 9 == run("generate", "a cat").exit
    again = run("generate", "a cat")
    answer = hold(again, service, project, 5)
    assert (9, "outcome_unknown", "maybe") == ending(again.exit, answer, None)[:3]
    assert "--new" in answer["error"]["message"]
    assert 1 == len(service.posts)


def test_only_new_repeats_an_order_of_unknown_fate(run, service, project):
    service.on_post(reset(), ok())
    assert 9 == run("generate", "a cat").exit
    assert 0 == run("generate", "a cat", "--new", *FAST).exit
    assert 2 == len(service.posts)


def test_another_order_is_not_held_up_by_one_of_unknown_fate(run, service, project):
    service.on_post(reset(), ok())
    assert 9 == run("generate", "a cat").exit
    assert 0 == run("generate", "a dog", *FAST).exit


def test_how_long_to_wait_is_told_where_it_is_too_long(run, service, project):
    service.on_post(refuse(429, retry_after=3600))
    done = run("generate", "a cat")
    assert 3600 == hold(done, service, project, 5)["error"]["retry_after_s"]


def test_the_service_s_own_words_are_told(run, service, project):
    service.on_post(refuse(400, "size must be smaller"))
    error = hold(run("generate", "a cat"), service, project, 5)["error"]
    assert (400, "size must be smaller") == (error["http_status"], error["server_message"])


def test_retry_after_is_obeyed_to_the_second(run, service, project):
    service.on_post(refuse(503, retry_after=2), ok())
    assert 0 == run("generate", "a cat", *FAST).exit
    first, second = (post.at for post in service.posts)
    assert 2 - TICK_S <= second - first < 3


def test_back_off_grows(run, service, project):
    service.on_post(page(521))
    assert 5 == run("generate", "a cat").exit
    first, second, third = (post.at for post in service.posts)
    assert 0.375 - TICK_S <= second - first < 0.9
    assert 0.75 - TICK_S <= third - second < 1.5


def test_a_time_that_is_too_short_for_a_back_off_ends_at_once(run, service, project):
    service.on_post(page(521))
    done = run("generate", "a cat", "--timeout", "0.3")
    hold(done, service, project, 0.3)
    assert 1 == len(service.posts)


def test_an_answer_that_is_too_slow_for_a_task_id_is_not_followed_by_a_second_order(run, service, project):
    service.on_post(ok().but(delay=7), ok())
    done = run("generate", "a cat", "--timeout", "1")
    assert UNKNOWN == ending(done.exit, hold(done, service, project, 1), state(project))
    assert 9 == run("generate", "a cat", "--timeout", "1").exit
    assert 1 == len(service.posts)


def test_a_large_order_that_is_refused_before_it_was_read_is_told_as_refused(run, service, project):
    from pictures import png

    (project / "big.png").write_bytes(png(noise_bytes=6_000_000))
    service.on_post(refuse(413).but(before_read=True))
    done = run("generate", "a cat", "--image", "big.png")
    answer = hold(done, service, project, 10)
    assert done.exit in (3, 9)  # the refusal, or the reset that overtook it: both are honest
    assert ("no" if done.exit == 3 else "maybe") == answer["charged"]
    assert 0 == service.orders


def test_nothing_is_sent_where_the_record_cannot_be_written(run, service, project):
    if os.name != "posix" or os.geteuid() == 0:
        (project / "image2-output").mkdir()
        (project / "image2-output" / ".image2").write_text("a file in the way")
    else:
        (project / "image2-output" / ".image2").mkdir(parents=True, mode=0o500)
    done = run("generate", "a cat")
    assert (2, "output_not_writable") == (done.exit, done.json["error"]["code"])
    assert [] == service.requests


def test_the_body_is_what_the_page_documents(run, service, project):
    run("generate", "a cat", "--size", "512x512", "--n", "2", "--set", "quality=high",
        "--image", "https://example.com/a.png", *FAST)
    (post,) = service.posts
    assert {"model": "gpt-image-2", "prompt": "a cat", "size": "512x512", "n": 2, "quality": "high",
            "image": ["https://example.com/a.png"], "async": True} == json.loads(post.body)
    assert "application/json" == post.headers["content-type"]


def test_a_sync_order_does_not_ask_for_async(run, service, project):
    done = run("generate", "a cat", "--sync")
    assert 0 == done.exit
    assert "async" not in service.json()[0]
    assert [] == service.polls


def test_a_picture_as_base64_is_saved_like_any_other(run, service, project):
    import base64

    from pictures import png

    data = base64.b64encode(png(20, 10)).decode()
    service.on_post(sync_completed(data=[{"b64_json": data}, {"url": "data:image/png;base64," + data}]))
    done = run("generate", "a cat", "--sync", "--n", "2")
    answer = hold(done, service, project, 10)
    assert 0 == done.exit
    assert [(20, 10)] * 2 == [(image["width"], image["height"]) for image in answer["images"]]
    assert data[:40] not in done.stdout


def test_no_wait_ends_with_the_task_and_what_continues_it(run, service, project):
    service.on_poll(pending(), completed())
    done = run("generate", "a cat", "--no-wait")
    answer = hold(done, service, project, 5)
    assert (0, "task-1", "yes") == (done.exit, answer["task_id"], answer["charged"])
    assert answer["next"]
    assert [] == service.polls


def test_no_download_tells_the_links(run, service, project):
    done = run("generate", "a cat", "--no-download", *FAST)
    answer = hold(done, service, project, 5)
    assert 0 == done.exit
    assert answer["images"][0]["url"].startswith(service.base_url)
    assert [] == service.files


def test_two_orders_on_one_connection_are_two_orders(run, service, project):
    assert 0 == run("generate", "a cat", *FAST).exit
    assert 0 == run("generate", "a cat", *FAST).exit  # the first has its picture: this is a new order
    assert 2 == service.orders


def test_the_faults_of_this_file_are_seen_as_such():
    """A guard: the service's own counting tells a fault after reading from one before."""
    with Service() as service:
        assert 0 == service.orders
    assert picture().status == 200
    assert len(ROWS) > 120
