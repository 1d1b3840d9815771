"""Many orders at once: each paid at most once, however often the batch is run, killed or refused; told in few words.

Every test is whole processes against real sockets; what the service would charge is counted by the service. What one
line becomes, and the same line again, is the law of `test_law`, asked of `batch` there.
"""

from __future__ import annotations

import collections
import json
import os
import signal
import time

import pytest
from aftermath import run_next
from command import kill, quick
from faulty import closed_port, completed, failed, hang, ok, pending, refuse, reset
from laws import hold, tokens
from pictures import png
from platforms import needs_posix, needs_signals
from running import CANARY
from tasks import Tasks

pytestmark = pytest.mark.slow


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
        done = run("batch", file, *quick(*flags), timeout=timeout, **options)
        answer = hold(done, None, project, budget)
        assert all(count <= most for count in charges(service).values()), charges(service)
        return done.exit, answer
    return ran


def charges(service) -> collections.Counter:
    """How often each prompt was ordered, as the service would count it."""
    return collections.Counter(post.order.get("prompt") for post in service.posts if post.accepted)


def prompts(count: int) -> list:
    return [f"picture number {number}" for number in range(1, count + 1)]


def results(answer) -> list:
    with open(answer["results"], encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def counts(answer) -> tuple:
    return tuple(answer["counts"][name] for name in ("completed", "failed", "pending", "unknown"))


# --- input


def test_a_dry_run_shows_the_first_requests_and_sends_nothing(batch, write, service, project):
    write(*({"prompt": prompt, "n": 2} for prompt in prompts(30)))
    exit_status, answer = batch("--dry-run", "--size", "64x64", "--out", "out", key=None)
    assert (0, "dry_run", 30, 60) == (exit_status, answer["status"], answer["counts"]["total"], answer["counts"]["images"])
    assert "--max-images" in answer["warnings"][0]
    first = answer["requests"][0]
    assert str(project / "out" / "001-picture-number-1.png") == first["files"][0]
    assert {"model": "gpt-image-2", "prompt": "picture number 1", "n": 2, "size": "64x64", "async": True} == first["body"]
    assert (0, False) == (service.connections, (project / "out").exists())


# --- flow


@pytest.mark.lowest
def test_all_orders_are_made_and_told_in_input_order(batch, write, service, project):
    tasks = Tasks(service, 0.5)
    write(*prompts(30))
    exit_status, answer = batch("--out", "out")
    assert (0, "completed", (30, 0, 0, 0), None) == (exit_status, answer["status"], counts(answer), answer["next"])
    assert {prompt: 1 for prompt in prompts(30)} == charges(service)
    told = results(answer)
    assert list(range(1, 31)) == [one["line"] for one in told]
    names = [f"{number:03d}-picture-number-{number}.png" for number in range(1, 31)]
    assert [str(project / "out" / name) for name in names] == [one["images"][0]["path"] for one in told]
    assert {(True, "completed", "yes", None)} == {
        (one["ok"], one["status"], one["charged"], one["error"]) for one in told}
    assert tasks.most > 8, "tasks wait for each other although the service takes them all"
    assert "files" not in answer, "paths of a few pictures only stand there"


def test_a_service_that_cannot_be_reached_is_told_soon(batch, write):
    """An agent's sandbox without network once cost the whole timeout, and said `still_running`."""
    write(*prompts(20))
    with closed_port() as nowhere:
        exit_status, answer = batch(base_url=nowhere, budget=5)
    assert (5, "network", "no", (0, 0, 20, 0)) == (exit_status, answer["error"]["code"], answer["charged"], counts(answer))


def test_what_would_hit_every_order_stops_all_further_ones(batch, write, service):
    service.on_post(ok(), ok(), refuse(402, "no credits left"))
    write(*prompts(30))
    exit_status, answer = batch("--concurrency", "4")
    assert (3, "insufficient_credits", (2, 0, 28, 0)) == (exit_status, answer["error"]["code"], counts(answer))
    assert len(service.posts) <= 2 + 4
    service.on_post(ok())
    assert (0, 30) == (batch()[0], service.orders)


# --- what becomes of a line


def test_each_line_ends_as_its_own_order(batch, write, service):
    unsafe = refuse(403, "unsafe prompt", "content_policy_violation")
    service.on_post(by_prompt({"refused": unsafe, "lost": reset(), "failed at once": failed(CANARY)}, ok()))
    service.on_poll(by_prompt({"failed": failed("the model refused")}, completed()))
    write("good", "refused", "failed", "lost", "failed at once", "good too")
    for posts in (6, 7):  # what was refused is sent again, nothing else
        exit_status, answer = batch()
        assert (9, "outcome_unknown", (2, 3, 0, 1), posts) == (
            exit_status, answer["error"]["code"], counts(answer), len(service.posts))
        assert ["yes", "no", "maybe", "maybe", "maybe", "yes"] == [one["charged"] for one in results(answer)]
        codes = [one["error"] and one["error"]["code"] for one in results(answer)]
        assert [None, "rejected", "task_failed", "outcome_unknown", "task_failed", None] == codes
        assert [(2, "unsafe prompt"), (3, "the model refused")] == [
            (one["line"], one["server_message"]) for one in answer["failures"][:2]]


# --- again is free


def test_a_second_run_asks_the_service_nothing_also_in_a_folder_that_was_moved_and_twins_are_orders_of_their_own(
        batch, write, service, project):
    write(*prompts(5), "picture number 1", "picture number 1")
    _exit, first = batch("--out", "here", most=3)
    assert {**dict.fromkeys(prompts(5), 1), "picture number 1": 3} == charges(service)
    connections = service.connections
    exit_status, second = batch("--out", "here", most=3)
    assert (0, connections) == (exit_status, service.connections)
    assert [one["images"] for one in results(first)] == [one["images"] for one in results(second)]
    assert first["counts"] == second["counts"]
    (project / "here").rename(project / "there")
    exit_status, moved = batch("--out", "there", most=3)
    assert (0, 7, 7) == (exit_status, len(service.posts), len(service.files))
    assert {str(project / "there")} == {os.path.dirname(path) for path in moved["files"]}


@pytest.mark.lowest
def test_a_batch_that_is_killed_again_and_again_pays_each_line_once(batch, write, start, service):
    Tasks(service, 0.15)
    file = write(*prompts(24))
    for kind, count in (("post", 3), ("file", 2), ("post", 14), ("file", 14)):
        killed = start("batch", "orders.txt", *quick("--concurrency", "3"))
        while len([each for each in service.requests if each.kind == kind]) < count and killed.poll() is None:
            time.sleep(0.01)
        kill(killed)
        for part in file.parent.rglob(".image2/**/*.part"):
            os.utime(part, (0, 0))  # old enough from now on to be swept by the next run
        assert {1} >= set(charges(service).values())
    exit_status, answer = batch()
    unknown = answer["counts"]["unknown"]
    assert (9 if unknown else 0, 24 - unknown) == (exit_status, answer["counts"]["completed"])
    assert unknown <= 4 * 3, "more than were in flight"


# --- the time is up, and signals


def test_a_batch_that_ran_out_of_time_is_finished_by_next_from_anywhere(batch, write, service, project, tmp_path):
    tasks = Tasks(service, 1000, at_once=3)
    (project / "a b.png").write_bytes(png())
    write({"prompt": "one", "out": "it's here/x.png"}, {"prompt": "two", "image": "a b.png"}, {"prompt": "three"},
          {"prompt": "four", "name": "y"}, {"prompt": "five"}, name="my orders.jsonl")
    exit_status, answer = batch("--timeout", "1", "--size", "64x64", "--set", 'style="a b"', "--image", "a b.png",
                                "--out", "out put", file="my orders.jsonl", budget=2)
    assert (8, "still_running", "yes", (0, 0, 5, 0)) == (
        exit_status, answer["error"]["code"], answer["charged"], counts(answer))
    assert (3, ["no", "no", "yes", "yes", "yes"]) == (service.orders, sorted(one["charged"] for one in results(answer)))
    tasks.ends, tasks.seconds, tasks.at_once = dict.fromkeys(tasks.ends, 0), 0, 1000
    done = run_next({"next": answer["next"].replace("--timeout 1", "--timeout 30 --poll-interval 0.1")}, service, tmp_path)
    assert (0, 5, (5, 0, 0, 0)) == (done.exit, service.orders, counts(done.json)), done
    assert {("64x64", "a b", True)} == {
        (post.order["size"], post.order["style"], bool(post.order["image"])) for post in service.posts}
    assert (project / "it's here" / "x.png").exists() and (project / "out put" / "y.png").exists()


@needs_signals
def test_a_signal_stops_the_batch_within_a_second_and_is_honest_about_every_line(write, start, service, project, tmp_path):
    service.on_post(ok(), ok(), hang(30))
    service.on_poll(pending())
    write(*prompts(30))
    busy = start("batch", "orders.txt", *quick("--concurrency", "16"))
    service.wait_for("post", 17)
    sent = time.monotonic()
    busy.send_signal(signal.SIGINT)
    done = busy.finish(10)
    assert time.monotonic() - sent < 2
    answer = hold(done, None, project, 20)
    pending_, unknown = answer["counts"]["pending"], answer["counts"]["unknown"]
    assert (130, 30, len(service.posts) - 2) == (done.exit, pending_ + unknown, unknown)
    assert "2 go on at the service" in answer["error"]["message"]
    assert {"outcome_unknown": unknown, "still_running": pending_} == collections.Counter(
        one["error"]["code"] for one in results(answer))


# --- the answer


@pytest.mark.parametrize("poll", ["good", "bad"])
def test_the_answer_stays_small_however_large_the_batch(poll, batch, write, service, project):
    service.on_poll({"good": completed(), "bad": failed("because " * 60)}[poll])
    write(*(prompt + " " + "very " * 40 for prompt in prompts(60)))
    exit_status, answer = batch("--max-images", "60", "--concurrency", "16", "--size", "64x64", budget=60)
    assert {"good": 0, "bad": 6}[poll] == exit_status
    assert tokens(json.dumps(answer), project) <= 320, answer
    assert 60 == len(results(answer)) == answer["counts"]["total"]


def test_a_file_of_the_users_that_is_called_like_the_results_is_left_alone(batch, write, project):
    theirs = write({"prompt": "a cat"}, name="results.jsonl")
    before = theirs.read_bytes()
    for _ in range(2):
        exit_status, answer = batch("--out", ".", file="results.jsonl")
        assert (0, str(project / "results-2.jsonl"), before) == (exit_status, answer["results"], theirs.read_bytes())
    assert 1 == len(results(answer))


@needs_posix
def test_next_of_a_batch_out_of_a_pipe_needs_the_pipe_no_more(start, batch, service, tmp_path):
    """`batch <(...)`: the pipe is empty when `next` comes."""
    service.on_poll(pending())
    source, sink = os.pipe()
    os.write(sink, b"\xef\xbb\xbfa cat\r\n# x\r\na dog\n")
    os.close(sink)
    done = start("batch", f"/dev/fd/{source}", *quick("--timeout", "1"), pass_fds=(source,)).finish()
    os.close(source)
    assert 8 == done.exit
    service.on_poll(completed())
    longer = done.json["next"].replace("--timeout 1", "--timeout 20 --poll-interval 0.1")
    again = run_next({"next": longer}, service, tmp_path)
    assert (0, {"a cat": 1, "a dog": 1}) == (again.exit, charges(service))
    assert (0, 2) == (batch(file="-", stdin="a cat\na dog\n")[0], service.orders)
