"""Many orders at once: each paid at most once, however often the batch is run, killed or refused; told in few words.

Every test is whole processes against real sockets; what the service would charge is counted by the service.
"""

import base64
import collections
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import types
from pathlib import Path

import pytest
from aftermath import edit_record, record_paths, run_next
from faulty import (
    closed_port,
    completed,
    failed,
    hang,
    ok,
    page,
    pending,
    picture,
    refuse,
    reset,
    sync_completed,
)
from image2_cli.batch import file as lines_room
from image2_cli.batch import summary as entries
from image2_cli.cli.progress import Progress
from image2_cli.clock import Clock, Interrupted
from image2_cli.order import engine as batch_room
from image2_cli.order import order as order_room
from image2_cli.order import record as recorded
from image2_cli.order import store as records_room
from image2_cli.sandbox.server import KEY, Sandbox
from laws import FAST, hold, records
from pictures import png
from platforms import needs_linux, needs_open_files_to_go, needs_posix, needs_signals
from running import CANARY, assert_no_key

LITTLE_S = 2.0  # a second, and what a busy machine adds to it


class Tasks:
    """Makes a service whose tasks take `seconds` and that takes `at_once` of them; others get a 429."""

    def __init__(self, service, seconds=0.2, at_once=1000):
        self.seconds, self.at_once = seconds, at_once
        self.refused, self.ends, self.most, self._lock = [], {}, 0, threading.Lock()
        service.on_post(self.post)
        service.on_poll(self.poll)

    def post(self, request):
        with self._lock:
            now = time.monotonic()
            running = sum(end > now for end in self.ends.values())
            if running >= self.at_once:
                self.refused.append(now)
                return refuse(429, "too many tasks at once")
            self.ends[request.task_id] = now + self.seconds
            self.most = max(self.most, running + 1)
        return ok()

    def poll(self, request):
        return completed() if time.monotonic() >= self.ends[request.task_id] else pending(0)

    def all_end(self):
        """What runs is done, and there is room for everything."""
        self.ends, self.seconds, self.at_once = dict.fromkeys(self.ends, 0), 0, 1000


def by_prompt(answers: dict, usual):
    """A callable for on_post or on_poll: the answer that the order's prompt asks for."""
    return lambda request: answers.get(request.order.get("prompt"), usual)


@pytest.fixture
def write(project):
    """Write a batch file: texts are prompts, objects are lines of JSONL; returns its path."""
    def written(*lines, name="orders.txt"):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (project / name).write_text("".join(text + "\n" for text in texts))
        return project / name
    return written


@pytest.fixture
def batch(run, service, project):
    """Run `batch` on the file that `write` wrote: (exit status, answer). The laws of every run are asserted."""
    def ran(*flags, file="orders.txt", budget=30, timeout=60, most=1, **options):
        done = run("batch", file, *FAST, *flags, timeout=timeout, **options)
        answer = hold(done, None, project, budget)
        assert all(count <= most for count in charges(service).values()), charges(service)
        return done.exit, answer
    return ran


def charges(service) -> collections.Counter:
    """How often each prompt was ordered, as the service would count it."""
    return collections.Counter(post.order.get("prompt") for post in service.posts if post.accepted)


def prompts(count: int) -> list:
    return ["picture number %d" % number for number in range(1, count + 1)]


def results(answer) -> list:
    with open(answer["results"], encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def counts(answer) -> tuple:
    """(completed, failed, pending, unknown)."""
    return tuple(answer["counts"][name] for name in ("completed", "failed", "pending", "unknown"))


def tokens(answer: dict) -> float:
    """Characters by four, paths apart."""
    text = json.dumps(answer, ensure_ascii=False)
    words = [word.strip("\"',") for word in text.split()]
    return (len(text) - sum(len(word) for word in words if word.count("/") + word.count("\\\\") > 1)) / 4


# --- input


def test_a_wrong_line_stops_all_of_them(batch, write, service, project):
    write({"prompt": "a cat"}, {"prompt": "a dog", "n": 0}, {"prompt": "a cow", "siez": "64x64"}, {"prompt": "an ox"})
    exit_status, answer = batch("--out", "out")
    assert (2, "usage", 0) == (exit_status, answer["error"]["code"], service.connections)
    assert 'line 2: --n "0" must' in answer["error"]["message"] and "line 3: no such field" in answer["error"]["message"]
    assert ["orders.txt"] == [path.name for path in project.iterdir()]


@pytest.mark.parametrize(("flags", "words"), [
    (["none.txt"], ["No such file"]),
    (["orders.txt", "--out", "x.png", "--max-images", "0", "--concurrency", "many", "--size", "big", "--set", "quality"],
     ["--out must be a folder", "--max-images", "--concurrency", "--size", "KEY=VALUE"]),
    (["orders.txt", "--max-images", "-1", "--concurrency", "65"], ["--max-images", "--concurrency"]),
])
def test_a_wrong_command_sends_nothing(flags, words, write, run, service, project):
    write("a cat")
    done = run("batch", *flags)
    answer = hold(done, None, project, 5)
    assert (2, 0, None) == (done.exit, service.connections, answer["next"])
    assert [] == [word for word in words if word not in answer["error"]["message"]]


def test_fields_of_the_lines_and_flags_of_the_command_reach_the_service(batch, write, service, project):
    (project / "a.png").write_bytes(png())
    write({"prompt": "one", "size": "32x32", "set": {"quality": "low"}}, {"prompt": "two", "image": "a.png", "name": "x"},
          {"prompt": "three", "n": 2, "model": "other", "out": "elsewhere/y.png"})
    exit_status, answer = batch("--size", "64x64", "--set", "quality=high", "--out", "out")
    assert (0, 4) == (exit_status, answer["counts"]["images"])
    sent = {post["prompt"]: post for post in service.json()}
    assert ("32x32", "low") == (sent["one"]["size"], sent["one"]["quality"])
    assert ("64x64", "high") == (sent["two"]["size"], sent["two"]["quality"])
    assert sent["two"]["image"][0].startswith("data:image/png;base64,")
    assert ("other", 2, True) == (sent["three"]["model"], sent["three"]["n"], sent["three"]["async"])
    made = sorted(path.relative_to(project).as_posix() for path in project.rglob("*.png") if path.name != "a.png")
    assert ["elsewhere/y-2.png", "elsewhere/y.png", "out/001-one.png", "out/x.png"] == made


# --- spending


def test_a_batch_of_too_many_images_is_refused_with_the_sum_of_what_would_be_ordered_now(batch, write, service):
    lines = [{"prompt": prompt, "n": 3} for prompt in prompts(17)]
    write(*lines)
    exit_status, answer = batch()
    assert (2, "too_many_images", "no", 0) == (exit_status, answer["error"]["code"], answer["charged"], len(service.posts))
    assert "51 images" in answer["error"]["message"] and "--max-images 50" in answer["error"]["message"]
    assert (0, 51) == (batch("--max-images", "51")[0], sum(post["n"] for post in service.json()))
    write(*lines, {"prompt": "one more"})
    assert (0, 18) == (batch("--max-images", "1")[0], service.orders)


def test_a_dry_run_shows_the_first_requests_and_sends_nothing(batch, write, service, project):
    write(*({"prompt": prompt, "n": 2} for prompt in prompts(30)))
    exit_status, answer = batch("--dry-run", "--size", "64x64", "--out", "out", key=None)
    assert (0, "dry_run", {"total": 30, "images": 60}) == (exit_status, answer["status"], answer["counts"])
    first = answer["requests"][0]
    names = ["001-picture-number-1.png", "001-picture-number-1-2.png"]
    assert [str(project / "out" / name) for name in names] == first["files"]
    assert {"model": "gpt-image-2", "prompt": "picture number 1", "n": 2, "size": "64x64", "async": True} == first["body"]
    assert service.base_url + "/api/v1/images/generations" == answer["request"]["url"]
    assert "60 images are more than --max-images 50" in answer["warnings"][0]
    assert (0, False) == (service.connections, (project / "out").exists())


# --- flow


def test_all_orders_are_made_and_told_in_input_order(batch, write, service, project):
    tasks = Tasks(service, 1)
    write(*prompts(30))
    exit_status, answer = batch("--out", "out")
    assert (0, "completed", (30, 0, 0, 0), None) == (exit_status, answer["status"], counts(answer), answer["next"])
    assert {prompt: 1 for prompt in prompts(30)} == charges(service)
    told = results(answer)
    assert list(range(1, 31)) == [one["line"] for one in told]
    names = ["%03d-picture-number-%d.png" % (number, number) for number in range(1, 31)]
    assert [str(project / "out" / name) for name in names] == [one["images"][0]["path"] for one in told]
    assert {(True, "completed", "yes", None)} == {
        (one["ok"], one["status"], one["charged"], one["error"]) for one in told}
    assert tasks.most > 8, "tasks wait for each other although the service takes them all"


def test_as_many_requests_are_in_flight_as_asked_for_and_no_more(batch, write, service):
    together, places = threading.Barrier(3), threading.Semaphore(3)

    def slow(request):
        assert places.acquire(blocking=False), "a fourth one"
        together.wait(10)
        places.release()
        return ok()

    service.on_post(slow)
    write(*prompts(12))
    assert (0, 12) == (batch("--concurrency", "3")[0], service.orders)


def test_a_429_slows_the_batch_until_the_service_takes_more_and_fails_nothing(batch, write, service):
    tasks = Tasks(service, 0.2, at_once=2)
    write(*prompts(40))

    def relief():
        service.wait_for("post", 20, 20)
        tasks.at_once, tasks.most = 1000, 0

    thread = threading.Thread(target=relief)
    thread.start()
    exit_status, answer = batch(budget=12)
    thread.join()
    assert (0, (40, 0, 0, 0), 40) == (exit_status, counts(answer), service.orders)
    assert all(one["error"] is None for one in results(answer))
    assert len(tasks.refused) <= 15
    assert tasks.most >= 5, "it stayed as slow as the service once was"


LATER = refuse(429, "slow down", retry_after=50)


@pytest.mark.parametrize(("posts", "expected"), [
    ([ok(), LATER], (8, "still_running", "yes", (1, 0, 3, 0))),
    ([LATER], (5, "rate_limited", "no", (0, 0, 4, 0))),  # as unavailable as one order
])
def test_a_retry_after_beyond_the_time_ends_the_run_at_once(posts, expected, batch, write, service):
    service.on_post(*posts)
    write(*prompts(4))
    exit_status, answer = batch("--concurrency", "1", "--timeout", "20", budget=3)
    assert expected == (exit_status, answer["error"]["code"], answer["charged"], counts(answer))
    assert (50, True, len(posts)) == (answer["error"]["retry_after_s"], bool(answer["next"]), len(service.posts))
    service.on_post(ok())
    assert (0, 4) == (batch()[0], service.orders)


def test_a_service_that_cannot_be_reached_is_told_soon(batch, write):
    """An agent's sandbox without network once cost the whole timeout, and said `still_running`."""
    write(*prompts(20))
    with closed_port() as nowhere:
        exit_status, answer = batch(base_url=nowhere, budget=5)
    assert (5, "network", "no", (0, 0, 20, 0)) == (exit_status, answer["error"]["code"], answer["charged"], counts(answer))
    assert {("network", "no")} == {(one["error"]["code"], one["charged"]) for one in results(answer)
                                   if one["error"]["code"] != "still_running"}


@pytest.mark.parametrize(("refusal", "exit_status", "code"), [
    (refuse(401, "invalid key " + CANARY), 4, "key_rejected"),
    (refuse(402, "no credits left"), 3, "insufficient_credits"),
])
def test_what_would_hit_every_order_stops_all_further_ones(refusal, exit_status, code, batch, write, service):
    service.on_post(ok(), ok(), refusal)
    write(*prompts(30))
    ended, answer = batch("--concurrency", "4")
    assert (exit_status, code, (2, 0, 28, 0)) == (ended, answer["error"]["code"], counts(answer))
    assert len(service.posts) <= 2 + 4
    service.on_post(ok())
    assert (0, 30) == (batch()[0], service.orders)


def test_a_key_that_is_rejected_by_a_poll_stops_all_orders_and_next_reaches_every_folder(batch, write, service, tmp_path):
    """It looked into the usual folder, where there was nothing, and answered that all is well."""
    Tasks(service, 0.1, at_once=2)
    service.on_poll(refuse(401, "revoked"))
    write(*({"prompt": prompt, "out": "it's %s/x.png" % prompt} for prompt in prompts(10)))
    exit_status, answer = batch("--concurrency", "2", "--timeout", "15", budget=8)
    assert (4, "key_rejected", "yes", (0, 0, 10, 0)) == (
        exit_status, answer["error"]["code"], answer["charged"], counts(answer))
    Tasks(service, 0).ends.update(dict.fromkeys((post.task_id for post in service.posts), 0))
    assert (0, service.orders) == (run_next(answer, service, tmp_path).exit, len(service.files))
    assert (0, 10) == (batch()[0], service.orders)


def test_next_of_tasks_whose_key_was_rejected_names_them(run, service, tmp_path):  # nothing on disk knows them
    service.on_poll(refuse(401, "revoked"))
    answer = run("wait", "task-1", "task-2", *FAST).json
    service.on_poll(completed())
    assert (0, 2) == (run_next(answer, service, tmp_path).exit, len(service.files))


# --- what becomes of a line


def test_each_line_ends_as_its_own_order_and_failed_ones_are_not_repeated(batch, write, service):
    service.on_post(by_prompt({"refused": refuse(400, "unsafe prompt"), "lost": reset(ok()), "failed at once": failed("no")},
                              ok()))
    service.on_poll(by_prompt({"failed": failed("the model refused")}, completed()))
    lines = ["good", "refused", "failed", "lost", "failed at once", "good too"]
    write(*lines)
    for repeated in (False, True):
        exit_status, answer = batch()
        assert (9, "outcome_unknown", (2, 3, 0, 1), 6) == (
            exit_status, answer["error"]["code"], counts(answer), len(service.posts))
        assert ["yes", "no", "maybe", "maybe", "maybe", "yes"] == [one["charged"] for one in results(answer)]
        codes = [one["error"] and one["error"]["code"] for one in results(answer)]
        assert [None, "rejected", "task_failed", "outcome_unknown", "task_failed", None] == codes, repeated
        assert [(2, "unsafe prompt"), (3, "the model refused")] == [
            (one["line"], one["server_message"]) for one in answer["failures"][:2]]
        assert (3, 4) == (len(answer["failures"]), answer["failures"][2]["line"])


def test_failed_lines_are_ordered_again_on_request_and_nothing_else(write, run, service, project):
    service.on_post(by_prompt({"refused": refuse(400, "unsafe"), "lost": reset(ok())}, ok()))
    service.on_poll(by_prompt({"failed": failed("no")}, completed()))
    write("good", "refused", "failed", "lost")
    assert 9 == run("batch", "orders.txt", *FAST).exit
    service.on_post(ok())
    service.on_poll(completed())
    answer = hold(run("batch", "orders.txt", *FAST, "--retry-failed"), None, project, 10)
    assert ((3, 0, 0, 1), "outcome_unknown") == (counts(answer), answer["error"]["code"])
    assert {"good": 1, "refused": 1, "failed": 2, "lost": 1} == charges(service)
    answer = hold(run("batch", "orders.txt", *FAST, "--new"), None, project, 10)
    assert ((4, 0, 0, 0), None) == (counts(answer), answer["error"])
    assert {"good": 1, "refused": 1, "failed": 2, "lost": 2} == charges(service)
    posts = len(service.posts)
    for flags in (["--new"], ["--retry-failed", "--overwrite"]):
        assert 0 == run("batch", "orders.txt", *FAST, *flags).exit
    assert posts == len(service.posts), "a line that was done was paid again"


@pytest.mark.parametrize("flag", ["--retry-failed", "--new"])
def test_what_the_service_has_forgotten_is_ordered_again_on_request_and_once(flag, batch, run, write, service, project):
    """--retry-failed only looked again. And records are neither in the order of their names, those of one second, nor of
    the clock: one was set back, and each run paid once more."""
    write("a cat")
    service.on_poll(refuse(404))
    assert 8 == batch("--timeout", "1")[0]
    edit_record(project / "image2-output", accepted_s=1, created_s=time.time() + 86400)
    (path,) = record_paths(project / "image2-output")
    path.rename(path.with_name("z.json"))
    for poll, flags, expected in [
        (refuse(404), [], (3, 1)), (pending(), [], (8, 1)),  # known again: the next one only looks
        (refuse(404), [flag], (3, 1)), (refuse(404), [], (3, 1)),
        *[(lambda request: refuse(404) if request.task_id == "task-1" else completed(), flags, (0, 2))
          for flags in ([flag], [flag], [])],
    ]:
        service.on_poll(poll)
        assert expected == (batch("--timeout", "2", *flags, most=2)[0], service.orders)
    done = run("wait", *FAST)
    assert (3, "task-1", True) == (done.exit, done.json["task_id"], "--new" in done.json["error"]["message"])


@pytest.mark.parametrize(("post", "exit_status", "code", "charged"), [
    (ok(), 6, "task_failed", "maybe"),
    (refuse(413, "too large"), 3, "request_too_large", "no"),
    (page(502), 9, "outcome_unknown", "maybe"),
])
def test_where_every_line_ended_alike_the_batch_ends_so_too(post, exit_status, code, charged, batch, write, service):
    service.on_post(post)
    service.on_poll(failed("no"))
    write(*prompts(5))
    for _ in range(2):
        ended, answer = batch()
        assert (exit_status, code, 5) == (ended, answer["error"]["code"], len(service.posts))
        assert {(code, charged)} == {(one["error"]["code"], one["charged"]) for one in [answer, *results(answer)]}


def test_a_line_that_got_some_of_its_pictures_keeps_them(batch, write, service):
    service.on_poll(completed(1))
    write({"prompt": "two cats", "n": 2})
    for _ in range(2):
        exit_status, answer = batch()
        assert (7, "some_failed", (0, 1, 0, 0), 1) == (
            exit_status, answer["error"]["code"], counts(answer), answer["counts"]["images"])
        assert os.path.exists(results(answer)[0]["images"][0]["path"])
    assert (1, 1) == (len(service.posts), len(service.files))


def test_pictures_in_the_answer_itself_are_saved(batch, write, service):
    service.on_post(sync_completed())
    write(*prompts(3))
    assert (0, (3, 0, 0, 0)) == (batch()[0], counts(batch()[1]))
    assert (3, 0) == (service.orders, len(service.polls))


def test_what_could_not_be_saved_is_saved_by_next(batch, write, service, project, tmp_path):
    service.on_file(lambda request: page(500) if "task-2-" in request.path else picture())
    write(*prompts(4))
    exit_status, answer = batch("--concurrency", "1", "--timeout", "6")
    assert (10, "not_saved", "yes", (3, 0, 1, 0)) == (
        exit_status, answer["error"]["code"], answer["charged"], counts(answer))
    service.on_file(picture())
    before = len(service.files)
    assert 0 == run_next(answer, service, tmp_path).exit
    assert (4, 1) == (service.orders, len(service.files) - before)


def test_a_picture_of_another_size_is_warned_of(batch, write, service):
    service.on_file(picture(png(32, 32)))
    write(*prompts(3))
    exit_status, answer = batch("--size", "64x64")
    assert (0, ["Line 1: Asked for 64x64, got 32x32. 2 more lines have warnings, see results."]) == (
        exit_status, answer["warnings"])


# --- again is free


def test_the_second_run_asks_the_service_nothing_but_for_a_picture_that_was_deleted(batch, write, service):
    write(*prompts(5), "picture number 1", "picture number 1")
    with_twins = {**dict.fromkeys(prompts(5), 1), "picture number 1": 3}
    _exit, first = batch(most=3)
    assert with_twins == charges(service)
    connections = service.connections
    exit_status, second = batch(most=3)
    assert (0, connections) == (exit_status, service.connections)
    assert [one["images"] for one in results(first)] == [one["images"] for one in results(second)]
    assert first["counts"] == second["counts"]
    os.unlink(results(first)[1]["images"][0]["path"])
    assert (0, 7, 8) == (batch(most=3)[0], service.orders, len(service.files))
    assert all(os.path.exists(one["images"][0]["path"]) for one in results(first))


def test_lines_may_be_added_moved_and_taken_away(batch, write, service):
    write("a cat", "a dog", "a cow")
    assert 0 == batch()[0]
    write("a bird", "# a comment", "a cow", "a cat")
    assert (0, (3, 0, 0, 0)) == (batch()[0], counts(batch()[1]))
    assert {"a cat": 1, "a dog": 1, "a cow": 1, "a bird": 1} == charges(service)


def die(process, folder):
    """Kill it. What it was writing is old enough from then on to be swept by the next run."""
    process.kill()
    process.communicate()
    for part in folder.rglob(".image2/*.part"):
        os.utime(part, (0, 0))


def test_a_batch_that_is_killed_again_and_again_pays_each_line_once(batch, write, start, service):
    Tasks(service, 0.15)
    file = write(*prompts(24))
    for moment in (("post", 3), ("file", 2), ("post", 14), ("poll", 40), ("file", 14)):
        killed = start("batch", "orders.txt", *FAST, "--concurrency", "3")
        while len([each for each in service.requests if each.kind == moment[0]]) < moment[1] and killed.poll() is None:
            time.sleep(0.01)
        die(killed, file.parent)
        assert {1} >= set(charges(service).values())
    exit_status, answer = batch()
    unknown = answer["counts"]["unknown"]
    assert (9 if unknown else 0, 24 - unknown) == (exit_status, answer["counts"]["completed"])
    assert unknown <= 5 * 3, "more than were in flight"
    posts = len(service.posts)
    assert (counts(answer), posts) == (counts(batch()[1]), len(service.posts))
    exit_status, answer = batch("--new", most=2)
    assert (0, 24, posts + unknown) == (exit_status, answer["counts"]["completed"], len(service.posts))


def test_what_another_run_ordered_until_a_moment_ago_is_seen(tmp_path):
    """Records that were read before the lock is taken miss the order of a run that ends in between."""
    found = lines_room.read("a cat\n", {"set": {}}, str(tmp_path), False, "somewhere", [])

    class JustEnded(records_room.Store):
        def lock(self, name, which):
            if name == found[0].mark:
                other = records_room.Store(str(tmp_path))
                record = other.create(name, "somewhere", found[0].request.described(), "x")
                other.save(record, False, state=recorded.SUBMITTED, task_id="task-1")
            return super().lock(name, which)

    tools = order_room.Tools(None, None, JustEnded(str(tmp_path)), None, "somewhere", True)
    (entry,) = entries.prepare(found, lambda place: tools, False, False)
    assert (False, True, "task-1") == (entry.to_order, entry.order.resumed, entry.order.task_id)


def test_two_batches_of_one_file_at_once_pay_each_line_once(batch, write, start, service, project):
    Tasks(service, 0.3)
    write(*prompts(16))
    both = [start("batch", "orders.txt", *FAST, "--concurrency", "3") for _ in range(2)]
    done = [each.finish() for each in both]
    assert {prompt: 1 for prompt in prompts(16)} == charges(service)
    for each in done:
        assert each.exit in (0, 8), each
        hold(each, None, project, 20)
    assert (0, 16) == (batch()[0], service.orders)
    assert 16 == len(list((project / "image2-output").glob("*.png")))


def test_a_second_batch_beside_one_that_is_ordering_waits_for_its_word(batch, write, start, service):
    """It ended in outcome_unknown, a second before the first one had the answer."""
    service.on_post(ok().but(delay=2))
    write("a cat")
    first = start("batch", "orders.txt", *FAST)
    service.wait_for("post")
    exit_status, answer = batch()
    assert (8, "maybe", (0, 0, 1, 0)) == (exit_status, answer["charged"], counts(answer))
    assert "another run is at 1 of them" in answer["error"]["message"]
    assert (0, 1) == (first.finish().exit, service.orders)


# --- the time is up


def test_a_batch_that_ran_out_of_time_is_finished_by_next_from_anywhere(batch, write, service, project, tmp_path):
    tasks = Tasks(service, 1000, at_once=3)
    (project / "a b.png").write_bytes(png())
    write({"prompt": "one", "out": "it's here/x.png"}, {"prompt": "two", "image": "a b.png"}, {"prompt": "three"},
          {"prompt": "four", "name": "y"}, {"prompt": "five"}, name="my orders.jsonl")
    exit_status, answer = batch("--timeout", "2", "--size", "64x64", "--set", 'style="a b"', "--image", "a b.png",
                                "--out", "out put", file="my orders.jsonl", budget=2)
    assert (8, "still_running", "yes", (0, 0, 5, 0)) == (
        exit_status, answer["error"]["code"], answer["charged"], counts(answer))
    assert 3 == service.orders
    told = results(answer)
    assert [False] * 5 == [one["ok"] for one in told], "a pending line is no success"
    assert ["no", "no", "yes", "yes", "yes"] == sorted(one["charged"] for one in told)
    tasks.all_end()
    done = run_next({"next": answer["next"].replace("--timeout 2", "--timeout 30")}, service, tmp_path)
    assert (0, 5, (5, 0, 0, 0)) == (done.exit, service.orders, counts(done.json)), done
    assert {"one": 1, "two": 1, "three": 1, "four": 1, "five": 1} == charges(service)
    assert all(post["size"] == "64x64" and post["style"] == "a b" and post["image"] for post in service.json())
    assert (project / "it's here" / "x.png").exists() and (project / "out put" / "y.png").exists()
    assert 3 == len(list((project / "out put").glob("00?-*.png")))


def test_neither_orders_nor_polls_without_an_answer_outlast_the_time(batch, write, service):
    service.on_post(ok(), hang(30))
    service.on_poll(hang(30))
    write(*prompts(3))
    exit_status, answer = batch("--timeout", "2", "--concurrency", "3", budget=2)
    assert (8, (0, 0, 1, 2), "yes") == (exit_status, counts(answer), answer["charged"])
    service.on_post(ok())
    service.on_poll(completed())
    exit_status, answer = batch()
    assert (9, (1, 0, 0, 2), 3) == (exit_status, counts(answer), len(service.posts))


# --- signals


@needs_signals
def test_a_signal_stops_the_batch_within_a_second_and_loses_nothing(write, start, service, project, tmp_path):
    tasks = Tasks(service, 1000, at_once=5)
    write(*prompts(12))
    busy = start("batch", "orders.txt", *FAST)
    service.wait_for("poll", 12)
    sent = time.monotonic()
    busy.send_signal(signal.SIGTERM)
    done = busy.finish(10)
    assert time.monotonic() - sent < LITTLE_S
    answer = hold(done, None, project, 20)
    assert (143, (0, 0, 12, 0), "yes") == (done.exit, counts(answer), answer["charged"])
    assert "0 of 12 orders are done, 5 go on at the service, 7 were not ordered" in answer["error"]["message"]
    posts = len(service.posts)
    time.sleep(0.3)
    assert posts == len(service.posts), "it went on ordering"
    tasks.all_end()
    done = run_next(answer, service, tmp_path)
    assert (0, dict.fromkeys(prompts(12), 1)) == (done.exit, charges(service)), done


def test_a_signal_before_the_first_order_ends_the_batch_as_stopped():
    clock = Clock()
    clock.stop(signal.SIGTERM)
    with pytest.raises(Interrupted):  # with no worker, as where all have seen the signal: it was told as still_running
        batch_room.Batch([], clock, clock.now() + 20, 0, None, None, None).run()


@needs_signals
def test_a_signal_while_orders_are_on_their_way_is_honest_about_them(write, start, service, project):
    service.on_post(ok(), ok(), hang(30))
    write(*prompts(40))
    busy = start("batch", "orders.txt", "--concurrency", "16", "--poll-interval", "30")
    service.wait_for("post", 18)
    sent = time.monotonic()
    busy.send_signal(signal.SIGINT)
    done = busy.finish(10)
    assert time.monotonic() - sent < LITTLE_S
    answer = hold(done, None, project, 20)
    assert (130, (0, 0, 24, 16)) == (done.exit, counts(answer))
    assert "2 go on at the service, 22 were not ordered, 16 may have been accepted" in answer["error"]["message"]
    assert {"outcome_unknown": 16, "still_running": 24} == collections.Counter(
        one["error"]["code"] for one in results(answer))


# --- the answer


@pytest.mark.parametrize("poll", ["good", "bad", "never"])
def test_the_answer_stays_small_however_large_the_batch(poll, batch, write, service):
    service.on_poll({"good": completed(), "bad": failed("because " * 60), "never": pending(10)}[poll])
    write(*(prompt + " " + "very " * 40 for prompt in prompts(100)))
    flags = ["--max-images", "100", "--concurrency", "16", "--size", "64x64"]
    exit_status, answer = batch(*flags, "--timeout", "4" if poll == "never" else "60", budget=60)
    assert {"good": 0, "bad": 6, "never": 8}[poll] == exit_status
    assert tokens(answer) <= 300, answer
    assert 100 == len(results(answer)) == answer["counts"]["total"]


@needs_open_files_to_go
def test_results_are_replaced_in_one_step(batch, write):
    write(*prompts(3))
    _exit, answer = batch()
    with open(answer["results"], encoding="utf-8") as before:
        inode = os.stat(answer["results"]).st_ino
        write(*prompts(5))
        batch()
        assert 3 == len([json.loads(line) for line in before]), "the file was written over under its reader"
    assert 5 == len(results(answer))
    assert inode != os.stat(answer["results"]).st_ino


def test_the_key_is_nowhere(batch, write, service, project, tmp_path):
    service.on_post(by_prompt({"refused": refuse(400, "no, " + CANARY)}, ok(status="pending " + CANARY)))
    service.on_poll(by_prompt({"failed": failed("your key " + CANARY)}, completed()))
    write("good", "refused", "failed")
    assert 7 == batch("--verbose")[0]
    assert 7 == batch()[0]
    assert_no_key(tmp_path)


@pytest.mark.parametrize("text", ["a cat\n# the key is " + CANARY, '{"prompt": "%s"}' % CANARY.replace("c", "\\u0063")])
def test_a_file_that_holds_the_key_is_refused(text, run, service, project):
    done = run("batch", "-", *FAST, stdin=text)
    assert (2, 0) == (done.exit, service.connections)
    assert_no_key(project)


# --- what people see


def test_off_a_terminal_there_is_a_line_every_ten_seconds():
    written, clock = [], types.SimpleNamespace(now=lambda: seconds)
    seconds = 0.0
    progress = Progress(written.append, clock, False)
    for seconds in range(25):
        progress.counted({"total": 4, "completed": seconds // 10, "failed": 1, "unknown": 0, "pending": 1})
    assert ["image2: 1 of 4 done, 1 failed after 10 s\n", "image2: 2 of 4 done, 1 failed after 20 s\n"] == written


@needs_posix
def test_on_a_terminal_there_is_a_bar_of_one_line(start, write, service):
    import pty

    Tasks(service, 0.6, at_once=3)
    write(*prompts(9))
    ours, theirs = pty.openpty()
    busy = start("batch", "orders.txt", *FAST, stderr=theirs)
    os.close(theirs)
    seen = bytearray()
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert 0 == busy.finish().exit
    shown = [text.rstrip() for text in seen.decode().split("\r")]
    bars = [text for text in shown if text.startswith("[")]
    assert bars and all(len(text) < 80 for text in bars), bars
    assert any("3 done" in text and "left" in text and "0 failed" in text for text in bars), bars
    assert "\n" not in seen.decode() and "" == shown[-1], "the bar was left behind"


@needs_linux
@pytest.mark.parametrize(("way", "concurrency", "most_mb"), [("file", 16, 60), ("poll", 2, 100), ("post", 2, 100)])
def test_memory_does_not_grow_with_the_pictures(way, concurrency, most_mb, start, write, service, project):
    """Those that came as base64 inside an answer were kept to the end, 2.7 MB a line."""
    data = png(64, 64, noise_bytes=2_000_000)
    inside = {} if way == "file" else {"data": [{"b64_json": base64.b64encode(data).decode()}]}
    service.on_file(picture(data))
    service.on_poll(completed(**inside))
    service.on_post(sync_completed(**inside) if way == "post" else ok())
    write(*prompts(40))
    busy = start("batch", "orders.txt", *FAST, "--concurrency", concurrency, stderr=subprocess.DEVNULL)
    peaks = []
    while busy.poll() is None:  # not ru_maxrss: that of a child begins with what the parent had at the fork
        peaks += re.findall(r"VmHWM:\s+(\d+)", Path("/proc/%d/status" % busy.pid).read_text())
        time.sleep(0.02)
    assert 0 == busy.finish().exit
    assert 40 == len(list((project / "image2-output").glob("*.png")))
    assert 20 < int(peaks[-1]) / 1024 <= most_mb


def test_several_tasks_can_be_waited_for_without_downloading(run, service, project):
    for prompt in prompts(3):
        assert 0 == run("generate", prompt, "--no-wait").exit
    done = run("wait", "--no-download", *FAST)
    assert (0, 3, 0) == (done.exit, len(done.json["images"]), len(service.files))
    assert ["finished"] * 3 == [record["state"] for record in records(project)]


@pytest.mark.parametrize(("count", "told"), [(10, True), (11, False)])
def test_the_paths_of_a_few_pictures_stand_in_the_answer(run, write, project, count, told):
    write(*prompts(count))
    answer = run("batch", "orders.txt", *FAST).json
    expected = sorted(str(path) for path in (project / "image2-output").glob("*.png"))
    assert count == len(expected)
    assert (expected if told else None) == answer.get("files")


def test_an_order_with_a_field_of_megabytes_is_not_paid_again(batch, write, service):
    """Its record was too large to be read, so the second run ordered it anew."""
    write({"prompt": "a cat", "set": {"mask": "x" * 9_000_000}})
    assert [0, 0] == [batch()[0], batch()[0]]
    assert {"a cat": 1} == charges(service)


def test_a_batch_whose_folder_was_moved_is_neither_paid_nor_fetched_again(batch, write, service, project):
    write(*prompts(2))
    assert 0 == batch("--out", "here")[0]
    (project / "here").rename(project / "there")
    exit_status, answer = batch("--out", "there")
    assert (0, 2, 2) == (exit_status, len(service.posts), len(service.files))
    assert {str(project / "there")} == {os.path.dirname(path) for path in answer["files"]}


def test_a_file_of_the_users_that_is_called_like_the_results_is_left_alone(batch, write, service, project):
    theirs = write({"prompt": "a cat"}, name="results.jsonl")
    before = theirs.read_bytes()
    for _ in range(2):
        exit_status, answer = batch("--out", ".", file="results.jsonl")
        assert (0, str(project / "results-2.jsonl")) == (exit_status, answer["results"])
    assert (before, 1) == (theirs.read_bytes(), service.orders)


@needs_signals
def test_a_batch_whose_working_folder_was_deleted_still_answers_a_signal(write, start, service, project, tmp_path):
    """There was a traceback and no answer."""
    service.on_poll(pending())
    (project / "inner").mkdir()
    file = write({"prompt": "a cat", "out": "inner/cat.png"})
    busy = start("batch", file, *FAST, "--out", tmp_path / "out", cwd=project)
    service.wait_for("poll")
    shutil.rmtree(project)
    busy.send_signal(signal.SIGTERM)
    done = busy.finish()
    assert (143, "yes", f"cd {project}") == (done.exit, done.json["charged"], done.json["next"].partition(" && ")[0])


@needs_signals
def test_a_stopped_batch_against_a_stand_in_cost_nothing_and_says_so(write, start):
    with Sandbox(60) as sandbox:
        write(*prompts(2))
        busy = start("batch", "orders.txt", *FAST, base_url=sandbox.base_url, key=KEY)
        deadline = time.monotonic() + 10
        while sandbox.orders < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        busy.send_signal(signal.SIGTERM)
        done = busy.finish()
    assert (143, "no", True) == (done.exit, done.json["charged"], done.json["sandbox"])


@pytest.mark.parametrize("name", ["-", pytest.param("/dev/fd/%d", marks=needs_posix)])
def test_next_of_a_batch_out_of_a_pipe_needs_the_pipe_no_more(name, start, batch, service, tmp_path):
    """`batch -` and `batch <(...)`: the pipe is empty when `next` comes."""
    service.on_poll(pending())
    source, sink = os.pipe()
    os.write(sink, b"\xef\xbb\xbfa cat\r\n# x\r\na dog\n")
    os.close(sink)
    file, options = ("-", {"stdin": source}) if name == "-" else (name % source, {"pass_fds": (source,)})
    done = start("batch", file, *FAST, "--timeout", "1", **options).finish()
    os.close(source)
    assert 8 == done.exit
    service.on_poll(completed())
    again = run_next({"next": done.json["next"] + " --timeout 20"}, service, tmp_path)  # of which 1 s is a part
    assert (0, {"a cat": 1, "a dog": 1}) == (again.exit, charges(service))
    assert (0, 2) == (batch(file="-", stdin="a cat\na dog\n")[0], service.orders)


def test_where_the_system_gives_too_few_threads_those_that_run_are_stopped(monkeypatch):
    begun = []

    def begin(thread):
        if begun:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        real(thread)

    real = threading.Thread.start
    batch = batch_room.Batch([], Clock(), time.monotonic() + 20, 2, lambda: None, lambda _counts: None, None)
    batch._at_work = 1  # so that the one waits for something to do
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", begin)
        with pytest.raises(RuntimeError):
            batch.run()
    begun[0].join(2)
    assert not begun[0].is_alive()
