"""The one law of money: the same command never pays twice, whatever became of its first run and however long ago.

Every row is two or three processes against real sockets, once by `generate` and once by a line of a `batch`. What the
service would charge is counted by the service, and what a fault leaves open it counts as charged.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import pytest
from aftermath import edit_record, record_paths, records_in, state
from command import PNG, QUICK, Command, kill, until
from faulty import Service, completed, failed, hang, ok, pending, picture, refuse, reset, sync_completed
from pictures import png
from platforms import needs_linux, needs_posix

pytestmark = pytest.mark.slow

DONE = (0, None, "yes")
UNKNOWN = (9, "outcome_unknown", "maybe")
ACCEPTED, FINISHED = ok(), completed()
MONTH = "import time\nreal = time.time\ntime.time = lambda: real() + 31 * 86400\n"
DIES_AT_THE_PRINT = """import os, signal
real = os.write
os.write = lambda to, data: os.kill(os.getpid(), signal.SIGKILL) if to == 1 else real(to, data)
"""


class Way(NamedTuple):
    """What became of the first run, and what the same command must say then: its end, and POSTs in all."""

    first: Callable[[Command], object]
    end: tuple
    posts: int = 1
    files: tuple = ("cat.png",)  # where it ends well
    fetched: int = 0  # pictures that the second run asks for


def ends(*end, post=ACCEPTED, poll=FINISHED, flags=()) -> Callable[[Command], object]:
    """The first run hears these answers and ends so."""
    def first(it):
        it.service.on_post(post)
        it.service.on_poll(poll)
        told = it(*flags)
        assert end == (told.exit, told.code), told.run
    return first


def killed_in_the_post(it):
    it.service.on_post(hang(30))
    it.killed("post")


def killed_in_the_post_long_ago(it):
    killed_in_the_post(it)
    edit_record(it.out, sent_s=time.time() - 16 * 60, created_s=time.time() - 16 * 60)


def killed_before_the_post(it):
    it.service.on_post(refuse(429, retry_after=15))
    busy = it.begin()
    it.service.wait_for("post")
    until(lambda: state(it.out) == "not_sent")
    kill(busy)


def killed_while_it_waited(it):
    it.service.on_poll(pending(10))
    it.killed("poll", 2)


def killed_in_the_download(it):
    it.service.on_file(hang(30, picture(PNG), -5))
    it.killed("file")


def nobody_reads_it(it):
    reader, writer = os.pipe()
    os.close(reader)
    busy = it.begin(stdout=writer)
    os.close(writer)
    assert 0 == busy.finish().exit


def killed_before_it_was_printed(it):
    busy = it.begin(env=it.meddle(DIES_AT_THE_PRINT))
    busy.communicate(timeout=20)
    assert (-9, ["cat.png"]) == (busy.returncode, it.pictures)


def deleted(it):
    assert 0 == it().exit
    (it.out / "cat.png").unlink()


def edited(it):
    assert 0 == it().exit
    (it.out / "cat.png").write_bytes(png(32, 32))


def copied(it):
    """Two files for one order."""
    assert 0 == it().exit
    for path in record_paths(it.out):
        (path.parent / re.sub("-0*1[0-9]{9}-", "-0000000007-", path.name)).write_bytes(path.read_bytes())
    assert 2 == len(record_paths(it.out))


def by_another_path(it):
    assert 0 == it().exit
    it.out.rename(it.project / "real")
    it.out.symlink_to("real")


def linked(it):
    assert 0 == it.by("generate")("--no-download").exit


def submitted(it):
    assert (0, []) == (it.by("generate")("--no-wait").exit, it.service.polls)


WAYS = {
    # never accepted: it is sent
    "refused for its words": Way(ends(3, "rejected", post=refuse(400)), DONE, 2),
    "refused for the time being": Way(ends(5, "unavailable", post=refuse(503, retry_after=3600)), DONE, 2),
    "killed before the POST": Way(killed_before_the_post, DONE, 2),
    # may have been accepted: nothing is sent, however old it is
    "a reset in the POST": Way(ends(9, "outcome_unknown", post=reset()), UNKNOWN),
    "killed in the POST": Way(killed_in_the_post, UNKNOWN),
    "killed in the POST 16 minutes ago": Way(killed_in_the_post_long_ago, UNKNOWN),
    # accepted: it is gone on with
    "its time was up": Way(ends(8, "still_running", poll=pending(10), flags=("--timeout", "0.5")), DONE, fetched=1),
    "submitted only": Way(submitted, DONE, fetched=1),
    "killed while it waited": Way(killed_while_it_waited, DONE, fetched=1),
    "killed in the download": Way(killed_in_the_download, DONE, fetched=1),
    "its key was rejected": Way(ends(4, "key_rejected", poll=refuse(401)), DONE, fetched=1),
    "not saved": Way(ends(10, "not_saved", poll=completed(urls=["ftp://127.0.0.1/a.png"])), DONE, fetched=1),
    "only its links were wanted": Way(linked, DONE, fetched=1),
    # saved: nothing is sent and nothing is fetched
    "finished": Way(ends(0, None), DONE),
    "finished, and nobody read its answer": Way(nobody_reads_it, DONE),
    "killed between its last record and its print": Way(killed_before_it_was_printed, DONE),
    "finished, and its record copied": Way(copied, DONE),
    "finished, the folder is a link now": Way(by_another_path, DONE),
    "finished with pictures inside the answer": Way(ends(0, None, post=sync_completed()), DONE),
    "its picture was deleted": Way(deleted, DONE, fetched=1),
    "its picture was edited": Way(edited, DONE, files=("cat-2.png",), fetched=1),
    # failed: nothing is sent
    "failed": Way(ends(6, "task_failed", poll=failed("no cats")), (6, "task_failed", "maybe")),
}
POSIX_ONLY = ("finished, the folder is a link now", "finished, and nobody read its answer",
              "killed between its last record and its print")


@pytest.mark.lowest
@pytest.mark.parametrize("way", [pytest.param(way, marks=needs_posix) if way in POSIX_ONLY else way for way in WAYS])
def test_the_same_command_never_pays_twice(command, way):
    """Saved pictures and an unknown fate name the way to order anew; a third run says what the second said."""
    row = WAYS[way]
    row.first(command)
    command.heal()
    posts, files = len(command.service.posts), len(command.service.files)
    second = command()
    assert row.end == second.end, second.run
    assert row.posts == len(command.service.posts), second.run
    assert row.fetched == len(command.service.files) - files - (row.posts - posts), second.run
    if row.end == DONE:
        assert (row.files, row.posts == 1) == (second.files, second.resumed), second.run
    else:
        assert not any(second.files), second.run
    if row.end == UNKNOWN:
        assert second.answer["next"] is None and "--new" in second.answer["error"]["message"], second.run
    if way == "finished":
        assert "--new" in second.warnings and time.strftime("%Y-%m-%d") in second.warnings, second.warnings
    if command.verb == "generate" and row.fetched:
        connections = command.service.connections
        third = command()
        assert (row.end, second.files, connections) == (third.end, third.files, command.service.connections), third.run
    if way == "failed":
        assert "no cats" == second.reason
    if way == "its picture was edited":
        assert [png(32, 32), PNG] == [(command.out / name).read_bytes() for name in ("cat.png", "cat-2.png")]


@pytest.mark.parametrize("way", ["killed in the POST", "finished"])
def test_a_clock_that_was_set_forward_changes_nothing(generate, way):
    WAYS[way].first(generate)
    generate.heal()
    told = generate(env=generate.meddle(MONTH))
    assert (WAYS[way].end, 1) == (told.end, len(generate.service.posts)), told.run


def test_some_failed_ends_the_same_way_again(command):
    command.service.on_poll(lambda request: ok(status="completed", data=[
        {"url": f"{request.base_url}/generations/{request.task_id}-0.png", "status": "completed"},
        {"url": None, "status": "failed", "error": "two are too many"}]))
    ends = [command("--n", "2") for _ in range(2)]
    assert [(7, "some_failed", "yes", "two are too many")] * 2 == [(*told.end, told.reason) for told in ends]
    assert [("cat.png", None)] * 2 == [told.files for told in ends]
    assert (1, 1) == (len(command.service.posts), len(command.service.files))


# --- --new


@pytest.mark.parametrize("way", ["a reset in the POST", "finished", "failed"])
def test_new_orders_and_is_what_the_command_means_from_then_on(command, way):
    """Of a batch it orders what went wrong: fifty lines that are done were not meant."""
    WAYS[way].first(command)
    command.heal()
    is_new = command.verb == "generate" or way in ("a reset in the POST", "failed")
    new = command("--new")
    assert (DONE, 1 + is_new, not is_new) == (new.end, len(command.service.posts), new.resumed), new.run
    again = command()
    assert (DONE, new.files, 1 + is_new) == (again.end, again.files, len(command.service.posts)), again.run
    assert new.files == (("cat-2.png",) if way == "finished" and is_new else ("cat.png",))


def test_new_that_was_killed_in_its_post_is_of_unknown_fate_though_a_picture_was_there_before(generate):
    assert 0 == generate().exit
    generate.service.on_post(hang(30))
    generate.killed("post", 1, "--new")
    generate.heal()
    assert (UNKNOWN, 2) == (generate().end, len(generate.service.posts))


def test_retry_failed_orders_failed_lines_again_and_no_other(generate):
    batch = generate.by("batch")
    generate.service.on_poll(failed("no cats"))
    assert 6 == generate().exit
    batch.heal()
    for _ in range(2):
        assert (DONE, 2) == (batch("--retry-failed").end, len(batch.service.posts))
    batch.service.on_post(reset())
    assert 9 == generate("--new").exit
    assert (UNKNOWN, 3) == (batch("--retry-failed").end, len(batch.service.posts))


# --- which commands are the same


@pytest.mark.parametrize("way", ["its time was up", "killed in the POST"])
def test_generate_and_a_line_of_a_batch_for_the_same_place_are_one_order(command, way):
    WAYS[way].first(command)
    command.heal()
    told = command.by({"generate": "batch", "batch": "generate"}[command.verb])()
    assert (WAYS[way].end, 1) == (told.end, len(command.service.posts)), told.run


def test_another_field_place_or_service_makes_it_another_order_and_nothing_else_does(service, run, project):
    for flags in (("out", "--size", "64x64"), ("out",), ("out/cat.png",), ("elsewhere",)):
        assert 0 == run("generate", "a cat", *QUICK, "--out", *flags).exit
    assert 0 == run("generate", "a cat", "--out", "out", "-v", "--overwrite", "--sync", "--timeout", "30").exit
    assert 4 == service.orders
    with Service() as other:
        assert 0 == run("generate", "a cat", "--out", "out", *QUICK, base_url=other.base_url).exit
        assert 1 == other.orders


# --- several at once


def test_three_at_once_make_one_order_and_all_name_its_pictures(command):
    command.service.on_post(ok().but(delay=0.5))
    told = [command.told(busy.finish()) for busy in [command.begin() for _ in range(3)]]
    assert [(DONE, ("cat.png",))] * 3 == [(each.end, each.files) for each in told], told
    assert (1, ["cat.png"]) == (len(command.service.posts), command.pictures)


@pytest.mark.parametrize(("verb", "said", "exit_status", "then"), [
    ("generate", ok(), 0, (DONE, 1)), ("generate", refuse(400), 3, (DONE, 2)), ("generate", reset(), 9, (UNKNOWN, 1)),
    ("batch", reset(), 9, (UNKNOWN, 1)), ("batch", hang(30), None, (UNKNOWN, 1))],
    ids=["accepted", "refused", "lost", "lost, batch", "killed"])
def test_beside_a_run_in_its_post_the_same_command_waits_and_then_does_as_the_law_says(
        generate, verb, said, exit_status, then):
    command, told_now = generate.by(verb), threading.Event()
    command.service.on_post(said.but(until=told_now), ok())
    first = command.begin()
    command.service.wait_for("post")
    second = command.begin()
    time.sleep(0.7)
    assert 1 == len(command.service.posts)
    if exit_status is None:
        kill(first)
    told_now.set()
    told = command.told(second.finish())
    assert then == (told.end, len(command.service.posts)), told.run
    if exit_status is not None:
        assert exit_status == first.finish().exit


def test_the_wait_for_a_run_in_its_post_ends_with_its_own_time(generate):
    told_now = threading.Event()
    generate.service.on_post(ok().but(until=told_now))
    first = generate.begin()
    generate.service.wait_for("post")
    told = generate("--timeout", "0.5")
    assert told.exit in (8, 9) and "maybe" == told.charged, told.run
    told_now.set()
    assert (0, 1) == (first.finish().exit, len(generate.service.posts))


def test_beside_a_run_that_saves_the_same_command_goes_on_and_both_name_the_same_files(generate):
    held = threading.Event()
    generate.service.on_file(picture(PNG).but(until=held))
    first = generate.begin()
    generate.service.wait_for("file")
    second = generate.begin()
    time.sleep(0.7)
    held.set()
    told = [generate.told(each.finish()) for each in (first, second)]
    assert [(DONE, ("cat.png",))] * 2 == [(each.end, each.files) for each in told], told
    assert (True, 1, ["cat.png"]) == (told[1].resumed, len(generate.service.posts), generate.pictures)


# --- guards of an order never stand before a picture that is paid for


@pytest.fixture
def disk(project):
    """out/ is a disk of 40 MB of its own; `disk(mb)` leaves so many free."""
    folder = project / "out"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")

    def leave(megabytes: int) -> None:
        with open(folder / ".filler", "wb") as file:
            file.write(bytes((40 - megabytes) << 20))

    yield leave
    subprocess.run(["umount", "-l", folder], check=True)


@needs_linux
@pytest.mark.parametrize("verb", ["generate", "batch", "wait"])
def test_a_disk_without_room_for_an_order_has_room_for_a_picture_that_is_paid_for(generate, disk, run, verb):
    submitted(generate)
    disk(2)
    done = run("wait", "--out", "out", *QUICK) if verb == "wait" else generate.by(verb)().run
    assert (0, 1, ["cat.png"]) == (done.exit, len(generate.service.posts), generate.pictures), done
    told = generate("--new")
    assert (2, "output_not_writable", 1) == (told.exit, told.code, len(generate.service.posts)), told.run


@needs_linux
def test_a_disk_that_fills_up_after_the_order_was_sent_still_keeps_its_task(generate, disk, run):
    """A batch tells no task ids: what was in no record was lost."""
    command = generate.by("batch")

    def fill(_request):
        with open(command.out / ".filler", "ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                while True:
                    try:
                        file.write(bytes(size))
                    except OSError:
                        break
        return ok()

    command.service.on_post(fill)
    done = command.begin().finish()
    assert (10, "yes") == (done.exit, done.json["charged"]), done
    assert ["task-1"] == [record["task_id"] for record in records_in(command.out)]
    (command.out / ".filler").unlink()
    command.heal()
    assert (0, 1, ["cat.png"]) == (run("wait", "--out", "out", *QUICK).exit, command.service.orders, command.pictures)


def test_a_bound_on_images_counts_only_what_would_be_ordered_now(generate, project):
    command = generate.by("batch")
    assert 0 == command("--n", "3").exit
    with (project / "orders.jsonl").open("a") as file:
        file.write('{"prompt": "a dog"}\n')
    assert (2, "too_many_images") == (told := command("--n", "3", "--max-images", "2")).end[:2], told.run
    assert 0 == command("--n", "3", "--max-images", "3").exit
    assert 2 == command.service.orders


# --- what every run writes before it sends


@pytest.mark.lowest
def test_the_intent_stands_on_disk_before_the_post_and_the_task_right_after_it(generate):
    seen = []
    generate.service.on_post(lambda request: seen.extend(records_in(generate.out)) or ok())
    generate.service.on_poll(lambda request: seen.extend(records_in(generate.out)) or completed())
    assert DONE == generate().end
    assert [("sending", None), ("accepted", "task-1")] == [(record["state"], record["task_id"]) for record in seen]
    (end,) = records_in(generate.out)
    assert ("saved", "cat.png") == (end["state"], end["images"][0]["file"])
    assert "a cat" == end["request"]["prompt"]
