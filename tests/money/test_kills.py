"""Killed anywhere, nothing is lost: one charge, all pictures, no half file, or the honest word that nobody knows."""

from __future__ import annotations

import base64
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from aftermath import edit_record, records_in, run_next, state
from command import PNG, Command, kill, quick, until
from faulty import hang, ok, page, pending, picture, refuse, sync_completed
from laws import hold
from pictures import png
from platforms import needs_signals

pytestmark = [needs_signals, pytest.mark.slow]

STUCK = hang(30, picture(png(64, 64, noise_bytes=200_000)), -5)  # more than a buffer holds back
TWO = ["cat-2.png", "cat.png"]
N2 = ("--n", "2")


def parts(it: Command):
    return it.out.glob(".image2-*.part")


class Step(NamedTuple):
    """A step of an order of two pictures: what the service says, and what has happened when the run is there."""

    said: dict[str, tuple]  # by kind of request; the last answer repeats, so that the run goes no further
    asked: tuple[str, int]  # so many requests of a kind
    reached: Callable[[Command], object] = lambda it: True
    flags: tuple = ()

    def begin(self, it: Command):
        """A run that goes no further than this step."""
        for kind, answers in self.said.items():
            {"post": it.service.on_post, "poll": it.service.on_poll, "file": it.service.on_file}[kind](*answers)
        busy = it.begin(*N2, *self.flags)
        it.service.wait_for(*self.asked)
        until(lambda: self.reached(it))
        return busy


STEPS = {
    "in a back-off": Step({"post": (refuse(429, retry_after=15),)}, ("post", 1), lambda it: state(it.out) == "not_sent"),
    "in the POST": Step({"post": (hang(30),)}, ("post", 1)),
    "in the POST's answer, before its id": Step({"post": (hang(30, ok(), "head"),)}, ("post", 1)),
    "before the first look": Step({}, ("post", 1), lambda it: state(it.out) == "accepted", ("--poll-interval", "15")),
    "in a look": Step({"poll": (pending(10), hang(30))}, ("poll", 2)),
    "between looks": Step({"poll": (pending(10),)}, ("poll", 2), flags=("--poll-interval", "0.5")),
    "in the downloads": Step({"file": (STUCK,)}, ("file", 2), lambda it: any(part.stat().st_size for part in parts(it))),
    "between downloads": Step({"file": (picture(PNG), STUCK)}, ("file", 2), lambda it: it.pictures),
    "in the pause of a download": Step({"file": (page(500),)}, ("file", 4)),
}
ACCEPTED = list(STEPS)[3:]


def finish(it, done) -> None:
    """The order is done: paid once, both pictures there, nothing left over."""
    told = it.told(done)
    assert (0, ("cat.png", "cat-2.png"), True) == (done.exit, told.files, told.resumed), done
    assert (1, 1, TWO) == (len(it.service.posts), it.service.orders, it.pictures), done
    assert ["saved"] == [record["state"] for record in records_in(it.out)]


# --- SIGKILL


@pytest.mark.lowest
@pytest.mark.parametrize("step", ACCEPTED)
def test_after_a_kill_the_same_command_goes_on_and_does_not_pay_again(generate, step):
    kill(STEPS[step].begin(generate))
    generate.heal()
    finish(generate, generate.begin(*N2).finish())


@pytest.mark.parametrize(("step", "then"), [("in a back-off", 0), ("in the POST's answer, before its id", 9)])
def test_after_a_kill_before_the_answer_wait_has_nothing_to_wait_for(generate, run, step, then):
    kill(STEPS[step].begin(generate))
    generate.heal()
    assert "nothing_unfinished" == run("wait", "--out", "out", *quick()).json["status"]
    told = generate(*N2)
    assert (then, 1) == (told.exit, generate.service.orders), told.run


def test_a_kill_between_the_record_and_the_file_loses_nothing(generate, run):
    """The record names the file before the file has its name; no half file ever has it."""
    kill(STEPS["in the downloads"].begin(generate))
    assert [] == [path.name for path in generate.out.iterdir() if not path.name.startswith(".")]
    generate.heal()
    named = [{"index": index, "file": name, "url": "x", "sha256": "0" * 64, "error": None}
             for index, name in enumerate(("cat.png", "cat-2.png"))]
    edit_record(generate.out, images=named)
    finish(generate, run("wait", "--out", "out", *quick()))


# --- the synchronous endpoint, and pictures inside an answer: no task that could be asked again


def test_the_links_of_a_sync_answer_survive_a_kill(generate, run):
    generate.service.on_post(sync_completed())
    generate.service.on_file(STUCK)
    generate.killed("file", 2, *N2, "--sync")
    generate.service.on_file(picture(PNG))
    finish(generate, run("wait", "--out", "out", *quick()))


def test_the_pictures_inside_a_sync_answer_survive_a_kill(generate):
    """They are put aside before anything else, wherever between that and the files it then is."""
    item = {"b64_json": base64.b64encode(png(64, 64, noise_bytes=1_000_000)).decode()}
    generate.service.on_post(sync_completed(data=[item, item]))
    busy = generate.begin(*N2, "--sync")
    until(lambda: list(generate.out.rglob(".image2/*.data")))
    kill(busy)
    finish(generate, generate.begin(*N2, "--sync").finish())
    assert [] == list(generate.out.rglob(".image2/**/*.data"))


def dies(call: str, ending: str, before: bool = True) -> str:
    """Code that kills its process before or after it calls `os.CALL` for a file whose name ends so."""
    end = "os.kill(os.getpid(), signal.SIGKILL)"
    steps = f"{end} if hit else real(*names, **more)" if before else f"[real(*names, **more), hit and {end}][0]"
    return (f"import os, signal\nreal = os.{call}\ndef call(*names, **more):\n"
            f"    hit = str(names[-1]).endswith({ending!r})\n    return {steps}\nos.{call} = call\n")


@pytest.mark.parametrize(("flags", "call", "name"), [((), "link", "cat-2.png"), (("--overwrite",), "replace", "cat.png")])
def test_a_picture_that_came_whole_gets_its_name_after_a_kill_though_its_link_is_dead(generate, flags, call, name):
    """With --overwrite the old file was told as the picture that was paid for, and what had come was deleted."""
    generate.out.mkdir()
    (generate.out / "cat.png").write_bytes(png(32, 32))
    busy = generate.begin(*flags, env=generate.meddle(dies(call, name)))
    busy.communicate(timeout=20)
    assert (-9, 1) == (busy.returncode, len(list(parts(generate))))
    generate.service.on_file(refuse(404))
    told = generate(*flags, "--timeout", "5")
    assert (0, (name,), PNG) == (told.exit, told.files, (generate.out / name).read_bytes()), told.run


def test_pictures_that_are_on_disk_are_known_wherever_the_run_that_saved_them_was_killed(generate):
    """Killed behind the removal of the answer they came in, the order said "look again later" for ever."""
    generate.service.on_post(sync_completed(data=[{"b64_json": base64.b64encode(PNG).decode()}]))
    busy = generate.begin("--sync", env=generate.meddle(dies("unlink", ".data", before=False)))
    busy.communicate(timeout=20)
    assert (-9, ["cat.png"]) == (busy.returncode, generate.pictures)
    told = generate("--sync")
    assert (0, ("cat.png",), 1) == (told.exit, told.files, len(generate.service.posts)), told.run


def test_a_picture_without_a_link_is_left_as_it_was_edited_and_said_to_be_gone_where_it_is(generate):
    generate.service.on_post(sync_completed(data=[{"b64_json": base64.b64encode(PNG).decode()}]))
    assert 0 == generate("--sync").exit
    (generate.out / "cat.png").write_bytes(png(32, 32))
    edited = generate.begin("--sync").finish()
    assert (0, str(generate.out / "cat.png")) == (edited.exit, edited.json["images"][0]["path"]), edited
    (generate.out / "cat.png").unlink()
    told = generate("--sync")
    assert (10, "not_saved", "yes", None, 1) == (*told.end, told.answer["next"], len(generate.service.posts)), told.run
    assert not told.answer["error"]["retryable"] and "--new" in told.answer["error"]["message"]


def test_a_batch_whose_picture_without_a_link_is_gone_ends_in_no_next_that_ends_so_again(generate):
    batch = generate.by("batch")
    batch.service.on_post(sync_completed(data=[{"b64_json": base64.b64encode(PNG).decode()}]))
    assert 0 == batch().exit
    (batch.out / "cat.png").unlink()
    ends = [batch().run.json for _ in range(2)]
    assert [("yes", None)] * 2 == [(end["charged"], end["next"]) for end in ends], ends
    assert 1 == len(batch.service.posts)
    assert (0, 2) == (batch("--retry-failed").exit, len(batch.service.posts)), "it can be ordered anew, if it is wanted"


def test_base64_that_cannot_be_read_ends_no_run_in_a_next_that_ends_so_again(generate):
    generate.service.on_post(sync_completed(data=[{"b64_json": "<html>"}]))
    told = generate("--sync")
    assert (10, "damaged", "yes", None) == (*told.end, told.answer["next"]), told.run


# --- signals

CODE = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}


def stop(busy, signum=signal.SIGTERM):
    """Send the signal; the run, which must end within a second and with one JSON object."""
    busy.send_signal(signum)
    began = time.monotonic()
    done = busy.finish(timeout=20)
    seconds = time.monotonic() - began
    assert seconds < 1 + os.getloadavg()[0] / 4, f"it took {seconds:.2f} s\n{done}"
    assert CODE[signum] == (done.exit, done.json["error"]["code"]), done
    return done


@pytest.mark.parametrize(("step", "signum"), [
    ("before the first look", signal.SIGTERM), ("in a look", signal.SIGINT), ("in the downloads", signal.SIGTERM)])
def test_a_signal_is_answered_within_a_second_and_next_gets_the_pictures(generate, step, signum, tmp_path):
    done = stop(STEPS[step].begin(generate), signum)
    told = generate.told(done)
    assert ("task-1", "yes") == (told.task_id, told.charged), done
    generate.heal()
    finish(generate, run_next(told.answer, generate.service, tmp_path))


@pytest.mark.parametrize(("step", "charged", "then"), [("in a back-off", "no", 0), ("in the POST", "maybe", 9)])
def test_a_signal_before_the_answer_says_what_it_may_have_cost(generate, step, charged, then):
    told = generate.told(stop(STEPS[step].begin(generate), signal.SIGINT))
    assert (charged, None) == (told.charged, told.task_id), told.run
    assert charged == "no" or told.answer["next"] is None
    generate.heal()
    told = generate(*N2)
    assert (then, 1) == (told.exit, generate.service.orders), told.run


@pytest.mark.parametrize("how", ["whole", "cut behind its id"])
def test_an_answer_that_comes_just_after_the_signal_still_gives_its_task(generate, how):
    answered = threading.Event()
    generate.service.on_post((ok() if how == "whole" else hang(30, ok(), -1)).but(until=answered))
    busy = generate.begin(*N2)
    generate.service.wait_for("post")
    threading.Timer(0.3, answered.set).start()
    told = generate.told(stop(busy))
    assert ("yes", "task-1") == (told.charged, told.task_id), told.run


# --- two processes, several tasks


def test_a_signal_to_a_wait_for_several_loses_none_of_them(service, run, start, project, tmp_path):
    for prompt in ("a cat", "a dog"):
        assert 0 == run("generate", prompt, "--out", "out", "--no-wait").exit
    service.on_file(STUCK)
    busy = start("wait", "--out", "out", *quick())
    service.wait_for("file", 2)
    done = stop(busy)
    assert ("yes", True) == (done.json["charged"], bool(done.json["next"])), done
    service.on_file(picture(PNG))
    again = run_next(done.json, service, tmp_path)
    hold(again, None, project, 20)
    assert (0, 2) == (again.exit, service.orders)
    assert {"a-cat.png", "a-dog.png"} == {path.name for path in (project / "out").glob("*.png")}


def test_a_stopped_run_that_goes_on_after_another_has_finished_changes_nothing(generate, run):
    """SIGSTOP for a while (a laptop that sleeps), and `wait` meanwhile."""
    busy = STEPS["in a look"].begin(generate)
    busy.send_signal(signal.SIGSTOP)
    generate.heal()
    assert (0, TWO) == (run("wait", "--out", "out", *quick()).exit, generate.pictures)
    busy.send_signal(signal.SIGCONT)
    time.sleep(0.1)
    assert "yes" == stop(busy).json["charged"]
    assert (TWO, ["saved"]) == (generate.pictures, [record["state"] for record in records_in(generate.out)])
