"""Killed anywhere, nothing is lost: one charge, all pictures, no half file, or the honest word that nobody knows."""

import base64
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from aftermath import edit_record, pictures_in, record_paths, records_in, run_next
from faulty import completed, hang, ok, page, pending, picture, refuse, sync_completed
from image2_cli.cli.progress import Progress
from image2_cli.clock import Clock, Interrupted
from image2_cli.machine import settings
from image2_cli.order import record as recorded
from image2_cli.order import store as records
from image2_cli.order.fields import build
from image2_cli.order.order import Order, Tools
from image2_cli.order.output import resolve
from image2_cli.service.api import Api
from pictures import png
from platforms import needs_signals
from running import EXITS

pytestmark = needs_signals

PNG = png(64, 64)
BIG = png(64, 64, noise_bytes=200_000)  # more than a buffer holds back
B64 = base64.b64encode(PNG).decode()
QUICK = ("--out", "out", "--poll-interval", "0.05", "--timeout", "20")
ORDER = ("generate", "a cat", "--n", "2", *QUICK)
TWO = ["a-cat-2.png", "a-cat.png"]


def kill(process) -> int:
    """SIGKILL; how the process ended, which may have been before."""
    process.kill()
    process.communicate(timeout=5)
    return process.returncode


def until(true, seconds=10.0):
    """Wait for something to become true on disk."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.005)


def state(project) -> str:
    found = records_in(project / "out") if (project / "out").exists() else []
    return found[0]["state"] if found else ""


# The steps of an order. Each begins one that goes no further than its step, and returns the process.


def in_backoff(service, start, project):
    """Before the POST that is accepted: it was refused, and waits to be sent again."""
    service.on_post(refuse(429, retry_after=15))
    busy = start(*ORDER)
    service.wait_for("post")
    until(lambda: state(project) == recorded.NOT_SENT)
    return busy


def in_post(service, start, project):
    service.on_post(hang(30))
    busy = start(*ORDER)
    service.wait_for("post")
    return busy


def in_answer(service, start, project):
    """In the middle of the POST's answer, before its task id."""
    service.on_post(hang(30, ok(), "head"))
    busy = start(*ORDER)
    service.wait_for("post")
    return busy


def before_first_look(service, start, project):
    busy = start(*ORDER, "--poll-interval", "15")
    until(lambda: state(project) == recorded.SUBMITTED)
    return busy


def in_poll(service, start, project):
    service.on_poll(pending(10), hang(30))
    busy = start(*ORDER)
    service.wait_for("poll", 2)
    return busy


def between_polls(service, start, project):
    service.on_poll(pending(10))
    busy = start(*ORDER, "--poll-interval", "0.5")
    service.wait_for("poll", 2)
    return busy


def in_download(service, start, project):
    service.on_file(hang(30, picture(BIG), -5))
    busy = start(*ORDER)
    service.wait_for("file", 2)
    until(lambda: any(path.stat().st_size for path in (project / "out").glob(".image2-*.part")))
    return busy


def between_downloads(service, start, project):
    """One picture stands, the other hangs."""
    service.on_file(lambda request: hang(30, picture(PNG), -5) if "-1.png" in request.path else picture(PNG))
    busy = start(*ORDER)
    until((project / "out" / "a-cat.png").exists)
    return busy


def in_pause_of_download(service, start, project):
    service.on_file(page(500))
    busy = start(*ORDER)
    service.wait_for("file", 4)
    return busy


NOT_ACCEPTED, FATE_UNKNOWN = [in_backoff], [in_post, in_answer]
ACCEPTED = [before_first_look, in_poll, between_polls, in_download, between_downloads, in_pause_of_download]
STEPS = NOT_ACCEPTED + FATE_UNKNOWN + ACCEPTED


def heal(service):
    service.on_post(ok())
    service.on_poll(completed())
    service.on_file(picture(PNG))


# --- SIGKILL


@pytest.mark.parametrize("step", ACCEPTED)
@pytest.mark.parametrize("verb", [ORDER, ("wait", *QUICK)], ids=["the same command", "wait"])
def test_after_a_kill_the_task_is_gone_on_with_and_not_paid_again(service, start, run, project, step, verb):
    kill(step(service, start, project))
    heal(service)
    done = run(*verb)
    assert (0, "task-1", "yes", True) == (done.exit, done.json["task_id"], done.json["charged"], done.json["resumed"])
    assert [str(project / "out" / name) for name in reversed(TWO)] == [image["path"] for image in done.json["images"]]
    assert (1, 1, TWO) == (len(service.posts), service.orders, pictures_in(project / "out"))
    assert [recorded.FINISHED] == [record["state"] for record in records_in(project / "out")]


@pytest.mark.parametrize("step", ACCEPTED)
def test_after_a_kill_the_same_command_and_wait_both_at_once_end_well(service, start, project, step):
    kill(step(service, start, project))
    heal(service)
    together = threading.Barrier(2, timeout=20)  # neither may end before the other has begun

    def poll(request):
        if len(service.polls) - before <= 2:
            together.wait()
        return completed()

    before = len(service.polls)
    service.on_poll(poll)
    both = [start(*ORDER), start("wait", *QUICK)]
    for done in [busy.finish() for busy in both]:
        assert (0, "task-1") == (done.exit, done.json["task_id"]), done
        assert [str(project / "out" / name) for name in reversed(TWO)] == [image["path"] for image in done.json["images"]]
    assert (1, TWO) == (service.orders, pictures_in(project / "out"))


@pytest.mark.parametrize("step", NOT_ACCEPTED)
def test_after_a_kill_before_the_post_the_same_command_simply_orders(service, start, run, project, step):
    kill(step(service, start, project))
    heal(service)
    assert "nothing_unfinished" == run("wait", *QUICK).json["status"]
    assert (0, 1, TWO) == (run(*ORDER).exit, service.orders, pictures_in(project / "out"))


@pytest.mark.parametrize("step", FATE_UNKNOWN)
def test_after_a_kill_in_the_post_nobody_knows_and_nothing_is_repeated_unasked(service, start, run, project, step):
    kill(step(service, start, project))
    heal(service)
    assert "nothing_unfinished" == run("wait", *QUICK).json["status"]
    for _ in range(2):
        done = run(*ORDER)
        assert (9, "maybe", None) == (done.exit, done.json["charged"], done.json["next"])
        assert "--new" in done.json["error"]["message"]
    assert 1 == len(service.posts)
    assert (0, 2) == (run(*ORDER, "--new").exit, len(service.posts))


def test_a_killed_download_leaves_no_half_file_on_a_final_name(service, start, project):
    kill(in_download(service, start, project))
    assert [] == [path.name for path in (project / "out").iterdir() if not path.name.startswith(".")]


def test_a_kill_between_the_record_and_the_file_loses_nothing(service, start, run, project):
    """The record names the file before the file has its name."""
    kill(in_download(service, start, project))
    heal(service)
    named = [{"index": 0, "path": str(project / "out" / "a-cat.png"), "url": "x", "sha256": "0" * 64, "error": None}]
    edit_record(project / "out", images=named)
    assert (0, 1, TWO) == (run("wait", *QUICK).exit, service.orders, pictures_in(project / "out"))


def test_a_kill_between_the_name_and_the_end_of_the_part_leaves_one_file(service, start, run, project):
    """The file has both names for a moment."""
    kill(between_downloads(service, start, project))
    heal(service)
    identity = records_in(project / "out")[0]["id"]
    os.link(project / "out" / "a-cat.png", project / "out" / f".image2-{identity}-0badcafe.part")
    files = len(service.files)
    assert 0 == run("wait", *QUICK).exit
    assert (files + 1, TWO) == (len(service.files), pictures_in(project / "out"))


def test_a_picture_that_was_damaged_after_a_kill_is_had_again_beside_it(service, start, run, project):
    kill(between_downloads(service, start, project))
    heal(service)
    (project / "out" / "a-cat.png").write_bytes(PNG[:20])
    done = run("wait", *QUICK)
    assert 0 == done.exit
    assert PNG[:20] == (project / "out" / "a-cat.png").read_bytes()
    assert [PNG, PNG] == [Path(image["path"]).read_bytes() for image in done.json["images"]]


@pytest.mark.parametrize("after", [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8])
def test_whenever_it_is_killed_one_order_is_paid_and_nothing_is_lost(service, start, run, project, after):
    """Killed by the clock, wherever that is; a second and a third death follow before it may end."""
    service.on_post(ok().but(delay=0.03))
    service.on_poll(pending(10), pending(50), completed())
    service.on_file(picture(PNG).but(delay=0.05))
    kill(start(*ORDER))
    for pause in (after, 0.25, 0.3):
        busy = start(*ORDER)
        time.sleep(pause)
        kill(busy)
        if state(project) == recorded.FINISHED:
            break
    if state(project) != recorded.FINISHED:
        service.on_poll(completed())
        done = run(*ORDER)
        assert done.exit in (0, 9), done
        if done.exit == 9:
            assert "maybe" == done.json["charged"]
            assert len(service.posts) <= 1  # killed between "it is being sent" and the sending
            return
    assert (1, TWO) == (service.orders, pictures_in_spite_of_torn_saves(project))


def pictures_in_spite_of_torn_saves(project) -> list:
    """A kill in the middle of writing a record leaves a small `.part`, swept a minute later."""
    for path in (project / "out" / ".image2").glob("*.part"):
        os.utime(path, (0, 0))
    records.Store(str(project / "out")).all()
    return pictures_in(project / "out")


def test_killed_again_and_again_while_ten_pictures_are_saved(service, start, run, project):
    service.on_file(lambda request: picture(png(64, 64, noise_bytes=300_000)).but(drip=(100_000, 0.02)))
    for _ in range(4):
        files = len(service.files)
        busy = start("generate", "a cat", "--n", "10", *QUICK)
        service.wait_for("file", files + 3)
        kill(busy)
        for path in (project / "out").glob("*.png"):
            assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
        if state(project) == recorded.FINISHED:
            break
    done = run("wait", *QUICK)
    assert done.exit == 0
    assert (1, 10) == (service.orders, len(pictures_in_spite_of_torn_saves(project)))


# --- the synchronous endpoint: no task that could be asked again


def sync(*more):
    return ("generate", "a cat", "--n", "2", "--sync", *QUICK, *more)


@pytest.mark.parametrize("verb", [sync(), ("wait", *QUICK)], ids=["the same command", "wait"])
def test_links_of_a_sync_answer_survive_a_kill(service, start, run, project, verb):
    service.on_file(hang(30, picture(PNG), -5))
    busy = start(*sync())
    service.wait_for("file", 2)
    kill(busy)
    heal(service)
    done = run(*verb)
    assert (0, True, 1, 0) == (done.exit, done.json["resumed"], service.orders, len(service.polls))
    assert TWO == pictures_in(project / "out")


def test_links_of_a_sync_answer_are_had_by_the_same_command_and_wait_at_once(service, start, project):
    service.on_file(hang(30, picture(PNG), -5))
    busy = start(*sync())
    service.wait_for("file", 2)
    kill(busy)
    release = threading.Event()

    def file(request):
        release.wait(20)
        return picture(PNG)

    service.on_file(file)
    first = start(*sync())
    service.wait_for("file", 4)
    second = start("wait", *QUICK)
    time.sleep(0.5)
    release.set()
    assert [0, 0] == [process.finish().exit for process in (first, second)]
    assert (1, 4, TWO) == (service.orders, len(service.files), pictures_in(project / "out"))


@pytest.mark.parametrize("verb", [sync(), ("wait", *QUICK)], ids=["the same command", "wait"])
def test_pictures_inside_a_sync_answer_survive_a_kill(service, start, run, project, verb):
    """Killed as soon as the answer was put aside, wherever between that and the files it then was."""
    item = {"b64_json": base64.b64encode(png(64, 64, noise_bytes=1_000_000)).decode()}
    service.on_post(sync_completed(data=[item, item]))
    busy = start(*sync())
    until(lambda: list((project / "out" / ".image2").glob("*.data")))
    kill(busy)
    done = run(*verb)
    assert (0, 1) == (done.exit, service.orders)
    assert TWO == pictures_in_spite_of_torn_saves(project)
    assert [] == list((project / "out" / ".image2").glob("*.data"))


def test_pictures_put_aside_are_found_though_the_record_does_not_say_so(service, start, run, project):
    busy = in_post(service, lambda *_: start(*sync()), project)
    kill(busy)
    (path,) = record_paths(project / "out")
    Path(f"{path}.data").write_text(f'["{B64}", "{B64}"]')
    done = run(*sync())
    assert (0, "yes", 1) == (done.exit, done.json["charged"], len(service.posts))
    assert TWO == pictures_in(project / "out")


# --- signals

SIGNALS = [signal.SIGINT, signal.SIGTERM]
EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143}
CODE = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
WITHIN = 1.0  # seconds, from the signal to the end of the process


def stop(busy, signum):
    """Send the signal; the run, which must end in time and with one JSON object."""
    busy.send_signal(signum)
    began = time.monotonic()
    done = busy.finish(timeout=20)
    seconds = time.monotonic() - began
    assert seconds < WITHIN or seconds < WITHIN + 10 * slowness(), f"it took {seconds:.2f} s\n{done}"
    assert (EXIT[signum], CODE[signum]) == (done.exit, done.json["error"]["code"]), done
    assert done.exit in EXITS
    return done


def slowness() -> float:
    """Seconds that an empty Python takes: 0.02, or many times that on a machine that is busy with other things."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-S", "-c", "pass"], check=True)
    return time.monotonic() - began


@pytest.mark.parametrize("signum", SIGNALS)
@pytest.mark.parametrize("step", ACCEPTED)
def test_a_signal_is_answered_within_a_second_and_next_gets_the_pictures(service, start, project, step, signum):
    done = stop(step(service, start, project), signum)
    assert ("task-1", "yes") == (done.json["task_id"], done.json["charged"])
    assert [] == list((project / "out").glob(".image2-*.part"))
    heal(service)
    again = run_next(done.json, service, project)
    assert (0, 1, TWO) == (again.exit, service.orders, pictures_in(project / "out"))
    assert 2 == len(again.json["images"])


@pytest.mark.parametrize("signum", SIGNALS)
@pytest.mark.parametrize("step", NOT_ACCEPTED)
def test_a_signal_before_the_post_costs_nothing(service, start, run, project, step, signum):
    done = stop(step(service, start, project), signum)
    assert ("no", None) == (done.json["charged"], done.json["task_id"])
    heal(service)
    assert (0, 1) == (run(*ORDER).exit, service.orders)


@pytest.mark.parametrize("signum", SIGNALS)
@pytest.mark.parametrize("step", FATE_UNKNOWN)
def test_a_signal_in_the_post_says_that_nobody_knows(service, start, run, project, step, signum):
    done = stop(step(service, start, project), signum)
    assert ("maybe", None, None) == (done.json["charged"], done.json["task_id"], done.json["next"])
    heal(service)
    assert (9, 1) == (run(*ORDER).exit, len(service.posts))


@pytest.mark.parametrize("signum", SIGNALS)
def test_an_answer_that_comes_just_after_the_signal_still_gives_its_task(service, start, project, signum):
    service.on_post(ok().but(delay=0.5))
    busy = start(*ORDER)
    service.wait_for("post")
    time.sleep(0.2)
    done = stop(busy, signum)
    assert ("yes", "task-1") == (done.json["charged"], done.json["task_id"])
    assert (0, 1, TWO) == (run_next(done.json, service, project).exit, service.orders, pictures_in(project / "out"))


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_while_the_prompt_is_read_ends_before_anything_is_sent(service, start, project, signum):
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "w") as pipe:
        busy = start("generate", "--prompt-file", "-", *QUICK, stdin=read)
        pipe.write("a cat")
        pipe.flush()
        until(lambda: not select.select([read], [], [], 0)[0])  # it has been read: the run waits for more
        done = stop(busy, signum)
    assert ("no", None, 0) == (done.json["charged"], done.json["task_id"], len(service.posts))
    assert "" == done.stderr


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_while_packages_are_fetched_is_answered_and_ends_the_child(service, start, project, tmp_path, signum):
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin" / "uv"
    uv.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 30\n")
    uv.chmod(0o755)
    env = {"PATH": f"{uv.parent}:{os.environ['PATH']}"}
    busy = start("generate", "a cat", *QUICK, flags=("-S",), env=env)  # -S: no packages
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    done = stop(busy, signum)
    assert ("no", None, 0) == (done.json["charged"], done.json["task_id"], len(service.posts))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_while_another_run_saves_the_same_pictures_is_answered(service, start, project, signum):
    busy = in_download(service, start, project)
    service.on_poll(completed())
    second = start("wait", *QUICK)
    service.wait_for("poll", 2)
    time.sleep(0.4)
    done = stop(second, signum)
    assert ("yes", "task-1") == (done.json["charged"], done.json["task_id"])
    assert done.json["next"]
    heal(service)
    assert 0 < len(list((project / "out").glob(".image2-*.part")))  # the other's, which still lives
    stop(busy, signum)
    assert (0, TWO) == (run_next(done.json, service, project).exit, pictures_in(project / "out"))


@pytest.mark.parametrize("in_the_record", [False, True])
def test_a_signal_that_came_while_an_order_was_prepared_keeps_it_from_being_sent(
        service, tmp_path, monkeypatch, in_the_record):
    clock, place = Clock(), resolve(str(tmp_path / "out"))
    own = settings.Settings(service.base_url, settings.Key("canary-0123-not-a-real-one"), "a test")
    tools = Tools(Api(own, clock), clock, records.Store(place.folder), Progress(lambda _: None, clock, False),
                  own.service, True)
    order = Order(tools, place)
    asked, _ = build({"prompt": "a cat"})
    order.take(asked, "a-cat")
    if in_the_record:  # on a slow disk the longest part of it
        monkeypatch.setattr(os, "fsync", lambda _descriptor: clock.stop(signal.SIGTERM))
    else:
        clock.stop(signal.SIGTERM)
    with pytest.raises(Interrupted):
        order.submit(asked, clock.now() + 20)
    assert ("no", 0, 0) == (order.charged, len(service.posts), service.connections)
    assert recorded.NOT_SENT == records_in(place.folder)[0]["state"]


def test_a_second_signal_changes_nothing(service, start, project):
    busy = in_post(service, start, project)
    busy.send_signal(signal.SIGINT)
    time.sleep(0.1)
    assert 143 == stop(busy, signal.SIGTERM).exit


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_during_a_sync_download_keeps_its_links(service, start, project, signum):
    service.on_file(hang(30, picture(PNG), -5))
    busy = start(*sync())
    service.wait_for("file", 2)
    done = stop(busy, signum)
    assert ("yes", None) == (done.json["charged"], done.json["task_id"])
    heal(service)
    assert (0, 1, TWO) == (run_next(done.json, service, project).exit, service.orders, pictures_in(project / "out"))


# --- two processes, several tasks


def pause_polls(service, count):
    """Polls answer `completed` once `count` of them have come, so that nobody ends before all have begun."""
    together = threading.Barrier(count, timeout=20)
    seen = []

    def poll(request):
        seen.append(1)
        if len(seen) <= count:
            together.wait()
        return completed()

    service.on_poll(poll)


def test_two_waits_on_one_task_save_it_once_and_both_say_where(service, start, run, project):
    assert 0 == run("generate", "a cat", "--n", "2", "--no-wait", *QUICK).exit
    pause_polls(service, 2)
    ends = [busy.finish() for busy in [start("wait", "task-1", *QUICK) for _ in range(2)]]
    assert [0, 0] == [done.exit for done in ends]
    assert ends[0].json["images"] == ends[1].json["images"]
    assert (2, TWO) == (len(service.files), pictures_in(project / "out"))


def test_a_wait_beside_a_living_generate_ends_well_and_so_does_that(service, start, project):
    service.on_poll(pending(10))
    busy = start(*ORDER)
    service.wait_for("poll", 2)
    pause_polls(service, 2)
    ends = [process.finish() for process in (start("wait", *QUICK), busy)]
    assert [0, 0] == [done.exit for done in ends]
    assert ends[0].json["images"] == ends[1].json["images"]
    assert (1, 2, TWO) == (service.orders, len(service.files), pictures_in(project / "out"))


def test_a_wait_for_several_tasks_gets_them_all(service, run, project):
    for prompt in ("a cat", "a dog", "a bird"):
        assert 0 == run("generate", prompt, "--no-wait", *QUICK).exit
    done = run("wait", "task-3", "task-1", *QUICK)
    assert (0, ["a-bird.png", "a-cat.png", "results.jsonl"]) == (done.exit, names(project))
    done = run("wait", *QUICK)
    assert (0, "task-2", 3) == (done.exit, done.json["task_id"], service.orders)
    assert ["a-bird.png", "a-cat.png", "a-dog.png", "results.jsonl"] == names(project)


def names(project):
    return sorted(path.name for path in (project / "out").iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_while_several_tasks_are_waited_for_names_what_gets_them_all(service, start, run, project, signum):
    for prompt in ("a cat", "a dog"):
        assert 0 == run("generate", prompt, "--no-wait", *QUICK).exit
    service.on_poll(hang(30))
    busy = start("wait", *QUICK)
    service.wait_for("poll")
    done = stop(busy, signum)
    assert ("yes", True) == (done.json["charged"], bool(done.json["next"]))
    heal(service)
    assert (0, 2) == (run_next(done.json, service, project).exit, service.orders)
    assert {"a-cat.png", "a-dog.png"} <= set(names(project))


def test_after_a_kill_while_several_tasks_were_waited_for_wait_gets_them_all(service, start, run, project):
    for prompt in ("a cat", "a dog"):
        assert 0 == run("generate", prompt, "--no-wait", *QUICK).exit
    service.on_file(hang(30, picture(PNG), -5))
    busy = start("wait", *QUICK)
    service.wait_for("file", 2)
    kill(busy)
    heal(service)
    assert (0, 2) == (run("wait", *QUICK).exit, service.orders)
    assert {"a-cat.png", "a-dog.png"} <= set(names(project))
    assert [] == list((project / "out").glob(".image2-*.part"))


def test_tasks_of_two_services_in_one_folder_do_not_mix(service, start, run, project):
    from faulty import Service

    with Service() as other:
        assert 0 == run("generate", "a dog", "--no-wait", *QUICK, base_url=other.base_url).exit
        kill(in_poll(service, start, project))
        heal(service)
        assert (0, TWO) == (run("wait", *QUICK).exit, pictures_in(project / "out"))
        assert [] == other.polls
        assert 0 == run("wait", *QUICK, base_url=other.base_url).exit
        assert ["a-cat-2.png", "a-cat.png", "a-dog.png"] == pictures_in(project / "out")
    assert (1, 1) == (service.orders, other.orders)


def test_a_stopped_run_that_goes_on_after_another_has_finished_changes_nothing(service, start, run, project):
    """SIGSTOP for a while (a laptop that sleeps), and `wait` meanwhile."""
    busy = in_poll(service, start, project)
    busy.send_signal(signal.SIGSTOP)
    heal(service)
    assert (0, TWO) == (run("wait", *QUICK).exit, pictures_in(project / "out"))
    busy.send_signal(signal.SIGCONT)
    subprocess.run(["sleep", "0.1"], check=True)
    service.on_poll(completed())
    done = stop(busy, signal.SIGTERM)
    assert ("yes", TWO) == (done.json["charged"], pictures_in(project / "out"))
    assert [recorded.FINISHED] == [record["state"] for record in records_in(project / "out")]
