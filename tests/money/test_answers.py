"""The answer: how much it says, every exit status by a real run, and whatever surrounds the process.

Budgets are in tokens, which are characters divided by four, paths and prompt apart.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys

import pytest
from command import quick, until
from faulty import closed_port, completed, failed, ok, page, pending, refuse, reset
from image2_cli import errors
from laws import assert_answer_budget, hold
from platforms import needs_posix
from running import CANARY, SCRIPT, whole

pytestmark = pytest.mark.slow

ACCEPTED = ok("batch-3f2b8c1a-5f0e-4d5c-9a77-0c1d2e3f4a5b")


# --- budgets


@pytest.mark.parametrize(("n", "budget"), [(1, 135), (4, 260)])
def test_images_are_told_within_their_budget(run, service, project, n, budget):
    service.on_post(ACCEPTED)
    done = run("generate", "A cute cat sitting by the window, warm sunlight on its fur", *quick(
        "--n", str(n), "--size", "1024x1024"))
    answer = hold(done, service, project, 20)
    assert (n, 0) == (len(answer["images"]), done.exit)
    assert all(image["path"] and image["url"] and image["bytes"] for image in answer["images"])
    assert {"ok", "status", "task_id", "charged", "images", "error", "next"} == set(answer)
    assert_answer_budget(done, budget, *(image["path"] for image in answer["images"]))


ERRORS = {  # code: (exit status, answer to the order, answer to a look)
    "rejected": (3, refuse(400, "Your request was rejected as a result of our safety system.", "content_policy")),
    "request_too_large": (3, refuse(413, "too large")),
    "insufficient_credits": (3, refuse(402, "Insufficient credits: 0 left, 1 needed.")),
    "key_rejected": (4, refuse(401, "Invalid API key provided.", "invalid_api_key")),
    "rate_limited": (5, refuse(429, "Rate limit reached, try again later.", retry_after=3600)),
    "unavailable": (5, page(503, retry_after=3600)),
    "outcome_unknown": (9, reset()),
    "task_failed": (6, ACCEPTED, failed("The prompt was refused by the content policy.")),
    "some_failed": (7, ACCEPTED, completed(n=1)),
    "still_running": (8, ACCEPTED, pending(40)),
    "no_images": (10, ACCEPTED, completed(data=[])),
    "not_saved": (10, ACCEPTED, completed(urls=["ftp://127.0.0.1/generations/img_abc123.png"])),
}


@pytest.mark.parametrize("code", ERRORS)
def test_an_error_is_told_within_its_budget_the_first_time_and_again(run, service, project, code):
    exit_status, post, *polls = ERRORS[code]
    seconds = "1" if code == "still_running" else "5"  # a busy machine needs more than one for the looks of `no_images`
    service.on_post(post)
    service.on_poll(*(polls or [completed()]))
    for _ in range(2 if exit_status in (6, 9) else 1):
        done = run("generate", "a cat", *quick("--n", "2" if code == "some_failed" else "1", "--timeout", seconds))
        answer = hold(done, service, project, 3)
        assert (exit_status, code) == (done.exit, answer["error"]["code"])
        share = 32 * len(answer["images"]) + (30 if answer.get("warnings") else 0)  # which image, its link, and why
        assert_answer_budget(done, 110 + share, project)
        message = answer["error"]["message"].lower()
        assert ("nothing was sent" in message) <= (answer["charged"] == "no"), message
        assert "--new" not in (answer["next"] or "") and (exit_status in (8, 10)) == bool(answer["next"]), done


def test_a_missing_key_is_told_within_the_budget_of_an_error(run, service, project):
    done = run("generate", "a cat", key=None)
    assert (4, "missing_key", "no", 0) == (
        done.exit, done.json["error"]["code"], done.json["charged"], service.connections)
    assert_answer_budget(done, 110, project)


# --- every exit status, and messages that do not contradict it


def test_every_exit_status_is_reached_by_a_real_run():
    """Besides the errors: 0 above, 1 by test_key, 2 by the mistakes, 130 and 143 by test_kills."""
    reached = {status for status, *_ in ERRORS.values()} | {0, 1, 2, 130, 143}
    assert {0, *(code.exit_status for code in errors.CODES.values())} == reached


# --- mistakes


def test_every_mistake_of_an_order_is_named_at_once(run, service, project):
    (project / "note.txt").write_text("no picture")
    done = run("generate", "", "--prompt", "twice", "--n", "11", "--size", "huge", "--image", "missing.png", "--image",
               "note.txt", "--image", "ftp://example.com/a.png", "--set", "quality", "--set", "n=2", "--timeout", "0",
               "--poll-interval", "x", "--sync", "--no-wait", "--model", "a b", "--frobnicate")
    answer = hold(done, service, project, 5)
    assert (2, "usage") == (done.exit, answer["error"]["code"])
    for word in ("prompt", "--n", "--size", "missing.png", "note.txt", "ftp://", "quality", "n", "--timeout",
                 "--poll-interval", "--sync", "--model", "--frobnicate"):
        assert word in answer["error"]["message"], word
    assert (0, ["note.txt"]) == (service.connections, [path.name for path in project.iterdir()])


LONG = "猫" * 30_000
TWENTY_PATHS = [word for number in range(20) for word in ("--image", f"{number}/{'x' * 30_000}.png")]


@pytest.mark.parametrize("argv", [
    ("generate", LONG, "--dry-run", "--set", f"note={LONG}"), ("generate", "a cat", *TWENTY_PATHS, "--out", LONG),
    ("wait", LONG), ("batch", LONG)], ids=["dry run", "20 paths", "wait", "batch"])
def test_no_answer_is_longer_than_16_kb_however_long_its_question(run, service, project, argv):
    done = run(*argv)
    hold(done, service, project, 10)
    assert len(done.stdout.encode()) < 16_384
    assert [] == service.requests


def test_a_batch_and_a_wait_of_long_words_stay_within_16_kb(run, service, project):
    service.on_poll(failed("because " * 3000))
    (project / "orders.txt").write_text("".join(f"{number} {LONG[:8000]}\n" for number in range(40)))
    hold(run("batch", "orders.txt", *quick()), None, project, 20)
    hold(run("wait", *(f"{number}-{'x' * 200}" for number in range(40)), *quick()), None, project, 20)


# --- what surrounds the process


@needs_posix
def test_a_closed_stdout_is_nobodys_trouble(start):
    reader, writer = os.pipe()
    os.close(reader)
    busy = start("--help", stdout=writer)
    os.close(writer)
    done = busy.finish(20)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert done.exit in (0, 2)


@needs_posix
def test_a_stdout_and_a_stderr_that_are_full_and_that_nobody_reads_hold_nothing_up(start, service, project):
    """A pipe that nobody read once held a paid order for ever."""
    ends = [os.pipe() for _ in range(2)]
    for _reader, writer in ends:
        os.set_blocking(writer, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
    busy = start("generate", "a cat", "-v", *quick(), stdout=ends[0][1], stderr=ends[1][1])
    until((project / "image2-output" / "a-cat.png").exists)
    for reader, writer in ends:
        os.read(reader, 1 << 20)
        os.close(writer)
    assert 0 == busy.finish(20).exit
    for reader, _writer in ends:
        os.close(reader)


@needs_posix
def test_no_stdout_and_no_stderr_at_all_or_a_full_disk_behind_them_are_survived(service, project):
    environment = whole({"PATH": os.environ["PATH"], "HOME": str(project), "IMAGE2_API_KEY": CANARY,
                         "IMAGE2_BASE_URL": service.base_url})
    for number, streams in enumerate((">&- 2>&- <&-", ">/dev/full 2>/dev/full")):
        script = f'exec "$0" "$1" generate "cat {number}" --poll-interval 0.1 {streams}'
        done = subprocess.run(["sh", "-c", script, sys.executable, str(SCRIPT)], cwd=project, env=environment, timeout=30)
        assert done.returncode == 0 or (number and done.returncode in (1, 120))
        assert (project / "image2-output" / f"cat-{number}.png").exists()


def test_a_sandbox_s_run_costs_nothing_and_leaves_a_person_s_key_and_service_alone(run, service, project):
    done = run("generate", "a cat", "--sandbox", "--timeout", "0.5", key=None)
    answer = hold(done, service, project, 20)
    assert (8, True, "no", []) == (done.exit, answer["sandbox"], answer["charged"], service.requests)
    assert 0 == run("generate", "a cat", *quick()).exit
    assert 1 == service.orders, "what the stand-in made is no order of the service"


def test_check_costs_nothing_and_tells_what_to_do(run, service):
    service.on_poll(refuse(404))
    assert (0, "ready") == ((done := run("check")).exit, done.json["status"])
    service.on_poll(refuse(401))
    assert (4, "key_rejected", "no") == ((done := run("check")).exit, done.json["error"]["code"], done.json["charged"])
    with closed_port() as nowhere:
        assert (5, []) == (run("check", "--timeout", "1", base_url=nowhere).exit, service.posts)


@needs_posix
def test_on_a_terminal_a_line_moves_and_is_gone_before_the_indented_answer(start, service):
    import pty  # no such module on Windows

    service.on_poll(pending(), pending(), pending(), completed())
    ours, theirs = pty.openpty()
    busy = start("generate", "a cat", *quick("--poll-interval", "0.6"), stdout=theirs, stderr=theirs)
    assert 0 == busy.wait(20)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so where nothing more will come
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    told, _, answer = shown.decode().partition("{")
    assert re.search(r"\r(\[[#.]+\] +\d+% )?\w+ 1 s", told) and told.endswith("\r"), told
    assert answer.startswith('\r\n  "ok": true,\r\n'), answer


DENIED = """
import errno, os, socket
def denied(*_):
    raise OSError(errno.{code}, os.strerror(errno.{code}))
socket.socket = type("Denied", (socket.socket,), {{"{call}": denied}})
"""
VERBS = ["generate a-cat --sandbox", "batch orders.txt --sandbox", "wait t-1 --sandbox", "status t-1 --sandbox",
         "check --sandbox", "sandbox"]
CALLS = [("__init__", "EPERM"), ("bind", "EACCES"), ("connect", "EPERM")]


@needs_posix
@pytest.mark.parametrize(("verb", "call", "code"), [
    (verb, *denied) for verb in VERBS for denied in CALLS if (verb, denied[0]) != ("sandbox", "connect")])
def test_a_host_that_denies_sockets_is_named_and_nothing_is_called_a_bug(run, project, tmp_path, verb, call, code):
    """As seatbelt and seccomp do, loopback too."""
    (tmp_path / "denied").mkdir()
    (tmp_path / "denied" / "sitecustomize.py").write_text(DENIED.format(code=code, call=call))
    (project / "orders.txt").write_text("a cat\n")
    env = {"PYTHONPATH": tmp_path / "denied", "CODEX_SANDBOX": "seatbelt"}
    done = run(*verb.split(), *([] if verb == "sandbox" else ["--timeout", "4"]), env=env)
    error = done.json["error"]
    assert (5, "network") == (done.exit, error["code"]), done
    assert "Codex" in error["message"] and "network_access" in error["message"]
