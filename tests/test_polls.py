"""Polls are free: a failed one never loses a task, and what a task says is taken as it is meant.

Every case is a process against real sockets; no case may send a second order.
"""

import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import running
from faulty import (
    Answer,
    Service,
    completed,
    cut,
    drip,
    failed,
    hang,
    ok,
    page,
    pending,
    picture,
    redirect,
    refuse,
    reset,
)
from laws import FAST, hold, state
from pictures import png
from platforms import TICK_S, needs_posix

DONE = (0, None, "yes", "finished", False)
KEY = (4, "key_rejected", "yes", "submitted", True)
FAILED = (6, "task_failed", "maybe", "finished", False)
PARTIAL = (7, "some_failed", "yes", "finished", False)
PENDING = (8, "still_running", "yes", "submitted", True)
NO_IMAGES = (10, "no_images", "yes", "submitted", True)
NOT_SAVED = (10, "not_saved", "yes", "submitted", True)


class Row(NamedTuple):
    """The answers to the polls, the last one again and again, and how the run must end."""

    answers: Any
    end: tuple = DONE
    flags: tuple = ()
    timeout: float = 20


def said(**fields) -> Answer:
    """A poll's answer with exactly these members."""
    return Answer(body=fields)


def item(request, index=0, **fields) -> dict:
    return {"url": f"{request.base_url}/generations/{request.task_id}-{index}.png", "status": "completed", **fields}


def with_items(*items: dict, **fields) -> Answer:
    """A poll's answer whose items are `items`; {} is a whole image."""
    def body(request):
        data = [item(request, index) if one == {} else one for index, one in enumerate(items)]
        return {"task_id": request.task_id, "data": data, **fields}
    return Answer(body=body)


FAILED_ITEM = {"url": None, "status": "failed", "error": "unsafe"}
WAITING_ITEM = {"url": None, "status": "pending"}

TROUBLES = {
    "reset": reset(),
    "reset in the body": reset(completed(), -5),
    "closed": cut(completed(), 0),
    "empty": Answer(),
    "half a head": cut(completed(), 12),
    "cut": cut(completed(), -5),
    "cut before the body": cut(completed()),
    "HTML": page(200),
    "204": Answer(204),
    "400": refuse(400),
    "402": refuse(402),
    "405": refuse(405),
    "408": page(408),
    "409": refuse(409),
    "410": refuse(410),
    "422": refuse(422),
    "429": refuse(429),
    "500": page(500),
    "502": page(502),
    "503": page(503),
    "504": page(504),
    "520": page(520),
    "526": page(526),
    "301": redirect(301, "/elsewhere"),
    "302": redirect(302, "https://example.com/"),
    "307": redirect(307, "/api/v1/images/tasks/task-1"),
    "404": refuse(404, "not yet known"),
    "a list": Answer(body=[]),
    "null": Answer(body="null"),
    "text": Answer(body='"completed"'),
    "an empty object": said(),
    "an error with a 200": said(error={"message": "try again"}),
    "another task": completed(task_id="task-77"),
    "garbage": Answer(raw=b"\0\1\2\3\r\n\r\n"),
    "two lengths": Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\n{}"),
    "status is a number": said(status=7),
    "status is a list": said(status=["completed"]),
    "data is text": said(status="pending", data="soon"),
    "items are text": said(status="pending", data=["soon", None, 5, []]),
}


def dozens(table: dict) -> list:
    """The names of a table, a dozen a run: a process costs more than a look."""
    names = list(table)
    return [names[start : start + 12] for start in range(0, len(names), 12)]


@pytest.mark.parametrize("names", dozens(TROUBLES), ids="-".join)
def test_a_failed_look_never_ends_a_task(run, service, project, names):
    troubles = [TROUBLES[name] for name in names]
    service.on_poll(pending(10), *troubles, completed())
    done = run("generate", "a cat", *FAST, "--timeout", "20")
    answer = hold(done, service, project, 20)
    assert DONE == ending(done.exit, answer, project)
    assert 2 + len(troubles) == len(service.polls)
    assert {"/api/v1/images/tasks/task-1"} == {poll.path for poll in service.polls}


def ending(exit_status: int, answer: dict, project) -> tuple:
    code = answer["error"]["code"] if answer["error"] else None
    return exit_status, code, answer["charged"], state(project), answer["next"] is not None


STILL_RUNNING = {
    **{f"status {word!r}": pending(status=word)
       for word in ("in_queue", "Warming Up", "完成", "", None, "x" * 500, "completed?", 5, True, {}, [])},
    **{f"progress {value!r}": pending(value)
       for value in (None, "50%", 250, -3, 1e308, True, {}, [], "NaN", 10**30, 33.333333333, float("nan"),
                     float("-inf"), 80, 20, 0)},
    "no progress, no error, no created": said(status="pending"),
    "an empty status": said(task_id="task-1", status=""),
}


@pytest.mark.parametrize("names", dozens(STILL_RUNNING), ids="-".join)
def test_odd_words_and_numbers_mean_that_it_is_still_running(run, service, project, names):
    service.on_poll(*(STILL_RUNNING[name] for name in names), completed())
    done = run("generate", "a cat", *FAST, "--timeout", "20")
    assert DONE == ending(done.exit, hold(done, service, project, 20), project)
    assert 1 + len(names) == len(service.polls)


SAYINGS = {
    **{f"done is {word}": Row([pending(50), completed(status=word)])
       for word in ("completed", "COMPLETED", "Succeeded", "success", "done", "Finished")},
    **{f"over is {word}": Row(failed(status=word), FAILED)
       for word in ("failed", "FAILED", "Cancelled", "canceled", "expired", "rejected", "error")},
    "the id is missing": Row(with_items({}, task_id=None, status="completed")),
    "statuses only on the items": Row([with_items(WAITING_ITEM), with_items({})]),
    "no status anywhere, but the image": Row(with_items({"status": None, "url": "{}"}), NOT_SAVED, (), 1),
    "the status says pending, the items are done": Row(with_items({}, status="pending")),
    "one of two failed": Row(with_items({}, FAILED_ITEM, status="completed"), PARTIAL, ("--n", "2")),
    "one of two failed, only the items say it": Row(with_items(FAILED_ITEM, {}), PARTIAL, ("--n", "2")),
    "the task failed, one image is there": Row(with_items({}, FAILED_ITEM, status="failed"), PARTIAL, ("--n", "2")),
    "both items failed": Row(with_items(FAILED_ITEM, FAILED_ITEM), FAILED, ("--n", "2")),
    "fewer images than ordered": Row(completed(n=1), PARTIAL, ("--n", "3")),
    "more images than ordered": Row(completed(n=3), DONE, ("--n", "1")),
    "failed without a reason": Row(failed(error=None), FAILED),
    "completed without images, for good": Row(completed(data=[]), NO_IMAGES),
    "completed without images, with nulls": Row(completed(data=[None, WAITING_ITEM]), NO_IMAGES),
    "completed without data": Row(completed(data=None), NO_IMAGES),
    "completed, the images a look later": Row([completed(data=[]), completed(data=[]), completed()]),
    "drip": Row(drip(completed(), 20, 0.02)),
    "chunked": Row(completed().but(chunked=True)),
    "no length": Row(completed().but(content_length=None)),
    "never done": Row(pending(40), PENDING, (), 0.5),
    "never an answer": Row(reset(), PENDING, (), 0.5),
    "always 404, while it is young": Row(refuse(404), PENDING, (), 0.5),
    "always 500": Row(page(500), PENDING, (), 0.5),
    "always another task": Row(completed(task_id="task-77"), PENDING, (), 0.5),
    "always a redirect": Row(redirect(302, "/api/v1/images/tasks/task-1"), PENDING, (), 0.5),
    "hangs": Row(hang(30), PENDING, (), 0.5),
    "hangs in the body": Row(hang(30, completed(), -5), PENDING, (), 0.5),
    "drips for ever": Row(drip(completed(), 1, 0.2), PENDING, (), 0.5),
    "401": Row(refuse(401), KEY),
    "403": Row(page(403), KEY),
    "429 with a Retry-After that is too long": Row(refuse(429, retry_after=3600), PENDING, (), 0.5),
    "429 with a Retry-After of nonsense": Row([refuse(429, retry_after="\u00a7"), completed()]),
}


@pytest.mark.parametrize("name", SAYINGS)
def test_what_a_task_says_is_taken_as_it_is_meant(run, service, project, name):
    row = SAYINGS[name]
    service.on_poll(*(row.answers if isinstance(row.answers, list) else [row.answers]))
    done = run("generate", "a cat", *FAST, "--timeout", str(row.timeout), *row.flags)
    answer = hold(done, service, project, row.timeout)
    assert row.end == ending(done.exit, answer, project)
    assert "task-1" == answer["task_id"]


@pytest.mark.parametrize("trouble", [pending(40), page(500), hang(30), refuse(404), redirect(307, "/x")],
                         ids=["pending", "500", "hangs", "404", "redirect"])
def test_next_goes_on_from_any_folder_and_costs_nothing(run, service, project, tmp_path, trouble):
    service.on_poll(trouble)
    first = run("generate", "a cat", "--out", "it's here", *FAST, "--timeout", "0.3").json
    assert ("still_running", "task-1") == (first["error"]["code"], first["task_id"])
    service.on_poll(pending(60), completed())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = running.whole({"PATH": os.environ["PATH"], "HOME": str(elsewhere), "IMAGE2_API_KEY": running.CANARY,
                                 "IMAGE2_BASE_URL": service.base_url})
    shell = subprocess.run(first["next"] + " --poll-interval 0.05", shell=True, cwd=elsewhere, env=environment,
                           capture_output=True, timeout=30)
    second = running.Run((first["next"],), shell.returncode, shell.stdout.decode(), shell.stderr.decode(), 0)
    answer = hold(second, service, project, 30)
    assert (0, True, "task-1") == (second.exit, answer.get("resumed"), answer["task_id"])
    assert project / "it's here" == Path(answer["images"][0]["path"]).parent
    assert [] == sorted(elsewhere.iterdir())
    assert 1 == service.orders


def test_the_same_command_goes_on_with_the_task(run, service, project):
    service.on_poll(pending(40))
    assert 8 == run("generate", "a cat", *FAST, "--timeout", "0.3").exit
    service.on_poll(completed())
    done = run("generate", "a cat", *FAST)
    answer = hold(done, service, project, 10)
    assert (0, True, "task-1") == (done.exit, answer.get("resumed"), answer["task_id"])
    assert 1 == len(service.posts)


def test_an_order_whose_key_was_rejected_while_it_ran_is_finished_with_a_good_one(run, service, project):
    service.on_poll(refuse(401))
    first = run("generate", "a cat", *FAST)
    assert KEY == ending(first.exit, hold(first, service, project, 10), project)
    service.on_poll(completed())
    second = run("wait", *FAST)
    assert 0 == second.exit
    assert DONE == ending(second.exit, hold(second, service, project, 10), project)


def test_a_retry_after_of_a_poll_is_obeyed(run, service, project):
    service.on_poll(refuse(429, retry_after=1), completed())
    assert 0 == run("generate", "a cat", *FAST).exit
    first, second = (poll.at for poll in service.polls)
    assert 1 - TICK_S <= second - first < 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_key_follows_no_redirect(run, service, project, status):
    with Service() as other:
        service.on_poll(redirect(status, other.base_url + "/api/v1/images/tasks/task-1"), completed())
        done = run("generate", "a cat", *FAST)
        hold(done, service, project, 10)
        assert 0 == done.exit
        assert [] == other.requests


def test_a_task_that_nobody_knows_ends_after_a_few_looks(run, service, project):
    service.on_poll(refuse(404))
    done = run("wait", "no-such-task", *FAST)
    answer = hold(done, service, project, 10)
    assert (3, "task_not_found", "maybe") == (done.exit, answer["error"]["code"], answer["charged"])
    assert 3 == len(service.polls)
    assert [] == service.posts


def test_status_looks_once(run, service, project):
    service.on_poll(pending(40))
    done = run("status", "task-9")
    answer = hold(done, service, project, 5)
    assert (0, "pending", 40) == (done.exit, answer["status"], answer["progress"])
    assert answer["next"]
    assert 1 == len(service.polls)
    assert [] == sorted(project.iterdir())


@pytest.mark.parametrize("answer, end", [
    (refuse(404), (3, "task_not_found", "maybe")), (failed(), (6, "task_failed", "maybe")),
    (refuse(401), (4, "key_rejected", "yes")), (page(500), (5, "unavailable", "yes")),
    (reset(), (5, "network", "yes")), (completed(), (0, None, "yes")),
], ids=["404", "failed", "401", "500", "reset", "completed"])
def test_status_tells_how_a_look_ended(run, service, project, answer, end):
    service.on_poll(answer)
    done = run("status", "task-9")
    told = hold(done, service, project, 5)
    assert end == (done.exit, told["error"] and told["error"]["code"], told["charged"])


def test_status_gives_up_on_a_service_that_hangs(run, service, project):
    service.on_poll(hang(30))
    done = run("status", "task-9", timeout=25)
    assert 5 == done.exit
    assert done.seconds < 20


def test_wait_finishes_a_task_of_another_machine(run, service, project):
    done = run("wait", "task-of-another", "--out", "there", *FAST)
    answer = hold(done, service, project, 10)
    assert 0 == done.exit
    assert project / "there" == Path(answer["images"][0]["path"]).parent
    assert [] == service.posts


def test_wait_for_several_tells_the_images_of_all(run, service, project):
    service.on_poll(lambda request: failed() if request.task_id == "b" else completed())
    done = run("wait", "a", "b", "c", *FAST)
    answer = hold(done, service, project, 10)
    assert [True, True] == [Path(image["path"]).exists() for image in answer["images"] if image["path"]]
    assert done.exit in (6, 7)
    assert [] == service.posts


def test_wait_for_several_ends_with_the_budget_although_all_hang(run, service, project):
    service.on_poll(hang(30))
    done = run("wait", *(f"task-{number}" for number in range(9)), *FAST, "--timeout", "1")
    hold(done, service, project, 1)
    assert 8 == done.exit


def test_wait_without_an_id_finishes_what_is_unfinished(run, service, project):
    service.on_poll(pending())
    for prompt in ("a cat", "a dog"):
        assert 8 == run("generate", prompt, *FAST, "--timeout", "0.2").exit
    service.on_poll(completed())
    done = run("wait", *FAST)
    answer = done.json
    assert 0 == done.exit
    assert ["a-cat.png", "a-dog.png"] == sorted(Path(image["path"]).name for image in answer["images"])
    assert 2 == service.orders
    again = run("wait", *FAST)
    assert (0, "nothing_unfinished") == (again.exit, again.json["status"])


def test_the_time_of_a_run_is_the_time_it_was_given(run, service, project):
    service.on_poll(pending(40))
    began = time.monotonic()
    done = run("generate", "a cat", *FAST, "--timeout", "2")
    assert 8 == done.exit
    assert 1.5 < time.monotonic() - began < 4


def test_a_picture_that_comes_late_is_still_saved(run, service, project):
    service.on_poll(pending(90).but(delay=0.2), completed())
    service.on_file(picture(png(30, 20)).but(delay=2))
    done = run("generate", "a cat", *FAST, "--timeout", "1.5")
    hold(done, service, project, 1.5)
    assert 0 == done.exit


HALF = {"status": "completed", "data": [{"url": "http://127.0.0.1:1/0.png", "status": "completed"}, {"status": "pending"}]}


@pytest.mark.parametrize("post, poll", [(ok(**HALF), completed()), (ok(), completed(n=1)), (ok(), completed(**HALF))],
                         ids=["in the answer to the order", "too few", "one without a link"])
def test_completed_a_moment_early_loses_no_picture(run, service, project, post, poll):
    service.on_post(post)
    service.on_poll(poll, completed())
    done = run("generate", "a cat", "--n", "2", *FAST)
    hold(done, service, project, 10)
    assert (0, 2) == (done.exit, len(done.json["images"]))


def test_a_completed_task_of_errors_alone_has_failed(run, service, project):
    service.on_poll(completed(data=[{"error": "policy"}, {"error": {"message": "policy"}}]))
    done = run("generate", "a cat", "--n", "2", *FAST)
    hold(done, service, project, 10)
    assert (6, "task_failed", "policy", None) == (done.exit, done.json["error"]["code"],
                                                  done.json["error"]["server_message"], done.json["next"])
    assert "ended without a picture" in done.json["error"]["message"]


def test_the_order_of_the_images_is_that_of_the_service(run, service, project):
    service.on_file(lambda request: picture(png(10 + int(request.path[-5]), 10)))
    done = run("generate", "a cat", "--n", "4", *FAST)
    answer = hold(done, service, project, 10)
    assert [(0, 10), (1, 11), (2, 12), (3, 13)] == [(image["index"], image["width"]) for image in answer["images"]]
    assert ["a-cat.png", "a-cat-2.png", "a-cat-3.png", "a-cat-4.png"] == [
        Path(image["path"]).name for image in answer["images"]]


@needs_posix
def test_the_command_on_stderr_continues_the_run(run, service, project):
    service.on_poll(pending())
    done = run("generate", "a cat", *FAST, "--timeout", "0.2")
    line = next(line for line in done.stderr.splitlines() if "submitted task" in line)
    words = shlex.split(line.partition("if this run is killed: ")[2])
    assert words[-4:] == ["wait", "task-1", "--out", str(project / "image2-output")]


def test_these_tables_hold_what_they_should():
    """A guard: a table that shrinks is seen."""
    assert len(TROUBLES) > 35
    assert len(STILL_RUNNING) > 25
    assert len(SAYINGS) > 40
    assert ok().status == 200
