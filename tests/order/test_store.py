"""Records carry an order over any death of its process: one folder of them, with one process and with two."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import threading
import time
import uuid

import pytest
from aftermath import record_paths, records_in
from image2_cli.order.record import ACCEPTED, FAILED, NOT_SENT, SAVED, SENDING, UNKNOWN, Record
from image2_cli.order.state_folder import _place_of
from image2_cli.order.store import Store, write_file
from platforms import needs_posix
from running import SCRIPT

SERVICE = "https://image2.test"
F = "f" * 32


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def made(store, fingerprint=F, sync=False, **changes):
    known = {"sequence": 1, "created_s": 1_795_000_000.0, **changes}
    record = Record(str(uuid.uuid4()), fingerprint, SERVICE, **known)
    store.save(record, sync)
    return record


# --- one record


@needs_posix
def test_records_are_for_their_owner_only(store, tmp_path):
    before = os.umask(0)
    try:
        store.stash(made(store, state=ACCEPTED), ["abc"])
        made(store, state=SAVED)
        store.lock(F)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / ".image2").rglob("*")}
    assert {0o600, 0o700} == set(modes.values()), modes
    assert ("*\n", 0o700) == ((tmp_path / ".image2" / ".gitignore").read_text(),
                              stat.S_IMODE((tmp_path / ".image2").stat().st_mode))


@pytest.mark.parametrize(("state", "folder"), [(NOT_SENT, ".image2"), (ACCEPTED, ".image2"), (FAILED, "done")])
def test_settled_records_lie_apart_and_each_is_read_as_it_was_saved(store, tmp_path, state, folder):
    record = made(store, state=state, task_id="t-1", server_message="words")
    (path,) = record_paths(tmp_path)
    assert (folder, True) == (path.parent.name, path.name.startswith(F))
    assert record == Store(str(tmp_path)).newest(F) == store.of_task("t-1", SERVICE)
    assert store.of_task("t-1", "https://other.test") is None and store.of_task("t-2", SERVICE) is None


def test_a_record_moves_with_its_state_and_is_never_two_files(store, tmp_path):
    record = made(store, state=ACCEPTED, task_id="t-1")
    for state in (SAVED, ACCEPTED, FAILED):
        record.state = state
        store.save(record)
        assert [state] == [one["state"] for one in records_in(tmp_path)]
        assert state == Store(str(tmp_path)).newest(F).state
    record.state = SENDING  # by another process that had read it settled
    other = Store(str(tmp_path))
    found = other.newest(F)
    found.state = ACCEPTED
    other.save(found)
    assert [ACCEPTED] == [one["state"] for one in records_in(tmp_path)]


@pytest.fixture
def synced(monkeypatch):
    """The names of what was synced, by the real thing, in order; one that is in `refused` cannot be."""
    names, refused, real = [], set(), os.fsync

    def fsync(descriptor):
        names.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "record")
        if names[-1] in refused:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return names, refused


@needs_posix
def test_what_must_outlive_a_loss_of_power_is_synced_and_a_note_costs_none(store, synced):
    record = made(store, sync=True)
    assert ["record", "folder"] == synced[0]
    store.save(record)
    store.stash(record, ["abc"])
    assert ["record", "folder"] * 2 == synced[0]  # the stash is all there is of a picture
    synced[1].add("folder")  # some network folders cannot
    store.save(record, sync=True)


@needs_posix
def test_a_save_that_fails_leaves_the_old_record_whole_and_no_part(store, tmp_path, synced):
    record = made(store)
    synced[1].add("record")
    record.state = SENDING
    with pytest.raises(OSError):
        store.save(record, sync=True)
    assert [NOT_SENT] == [one["state"] for one in records_in(tmp_path)]
    assert [] == list(tmp_path.rglob("*.part"))


@needs_posix
def test_a_record_is_written_over_in_its_own_blocks_where_a_full_disk_has_no_others(store, tmp_path):
    record = made(store, state=SENDING, server_message="x" * 2000)
    record.state, record.task_id, record.server_message = ACCEPTED, "t-1", None
    assert store.write_over(record)
    assert [(ACCEPTED, "t-1")] == [(one["state"], one["task_id"]) for one in records_in(tmp_path)]
    record.server_message = "x" * 20_000
    assert not store.write_over(record)
    os.unlink(record_paths(tmp_path)[0])
    assert not store.write_over(record)


def test_a_record_that_is_behind_on_disk_takes_no_task_away(store):
    """The disk was full when the task id came, and the order forgot it as it began to save."""
    record = made(store, state=SENDING)
    record.state, record.task_id = ACCEPTED, "task-1"
    assert record is store.reload(record)
    store.save(record)
    other = store.newest(F)
    other.status = "news"
    store.save(other)
    assert "news" == store.reload(record).status


@pytest.mark.parametrize("state", [SENDING, UNKNOWN, NOT_SENT])
def test_an_order_whose_pictures_were_kept_is_known_to_be_accepted(store, state):
    """Killed after the answer was kept and before the record said so."""
    record = made(store, state=state)
    store.stash(record, ["abc", None])
    assert (ACCEPTED if state != NOT_SENT else NOT_SENT) == store.newest(F).state
    assert ["abc", None] == store.stashed(record)
    store.drop_stash(record)
    assert [] == store.stashed(record)


@pytest.mark.parametrize("content", ["", "null", '{"a": 1}', '["abc', "\xff"])
def test_a_torn_stash_is_passed_over(store, tmp_path, content):
    record = made(store)
    (tmp_path / ".image2" / f"{record.id}.data").write_text(content, encoding="latin-1")
    assert [] == store.stashed(record)


def test_the_part_of_a_killed_save_is_swept_when_nobody_can_be_at_it(store, tmp_path):
    made(store)
    old, new = (tmp_path / ".image2" / f"{name}.part" for name in ("old", "new"))
    for path in (old, new):
        path.write_text("{")
    os.utime(old, (time.time() - 120,) * 2)
    assert 1 == len(Store(str(tmp_path)).all())
    assert (False, True) == (old.exists(), new.exists())


@needs_posix
def test_a_state_folder_of_another_user_is_not_used(store, monkeypatch):
    made(store)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 12345)
    assert "belongs to another user" in Store(store.folder).problem() and Store(store.folder).newest(F) is None


# --- many records


def test_the_highest_sequence_is_what_the_command_means_whatever_the_clock_says(store):
    first = made(store, state=SAVED, created_s=2e9)
    second = made(store, state=UNKNOWN, sequence=10, created_s=1.0)
    assert second.id == store.newest(F).id != first.id


@pytest.mark.parametrize("content", [b"", b"{}"])
def test_an_order_whose_only_record_cannot_be_read_may_have_been_accepted(store, tmp_path, content):
    """Its name says that there was one. A record of root's, in a folder that a container shares, was paid for again."""
    made(store, state=ACCEPTED, task_id="t-1")
    (path,) = record_paths(tmp_path)
    path.write_bytes(content)
    assert (UNKNOWN, 1) == (store.newest(F).state, store.newest(F).sequence)
    assert [] == store.all()


def test_what_is_no_record_hides_no_other(store, tmp_path):
    good = made(store, state=ACCEPTED, task_id="t-1")
    names = [path.name for path in record_paths(tmp_path)]
    (tmp_path / ".image2" / "done").mkdir(exist_ok=True)
    for name in (names[0].replace("-0001-", "-0002-"), f"{F}-0003-1-{'a' * 12}-saved.json", "x.json", f"{F}.json"):
        (tmp_path / ".image2" / ("done" if "saved" in name else "") / name).write_text("{")
    renamed = names[0].replace("-0001-", "-0009-")  # its name says something else than it does
    (tmp_path / ".image2" / renamed).write_bytes((tmp_path / ".image2" / names[0]).read_bytes())
    assert good.id == store.newest(F).id == store.of_task("t-1", SERVICE).id
    assert [good.id] == [record.id for record in store.all()] == [record.id for record in store.unfinished(SERVICE)]


def test_a_folder_without_records_has_none_and_gets_nothing(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        store = Store(str(folder))
        assert ([], None, [], {}) == (store.all(), store.newest(F), store.unfinished(SERVICE), store.states())
    assert [] == list(tmp_path.iterdir())


def test_an_order_is_found_by_names_alone_however_many_are_done(store, tmp_path, monkeypatch):
    """At 5,000 finished orders a command took 0.8 s instead of 0.2."""
    record = made(store, state=ACCEPTED, task_id="t-1")
    (tmp_path / ".image2" / "done").mkdir(exist_ok=True)
    for number in range(2000):
        (tmp_path / ".image2" / "done" / f"{number:032x}-0001-1795000000-{number:012x}-saved.json").write_text("{}")
    opened, real = [], os.open
    monkeypatch.setattr(os, "open", lambda path, *more, **names: opened.append(path) or real(path, *more, **names))
    fresh = Store(str(tmp_path))
    assert record.id == fresh.newest(F).id
    assert [record.id] == [one.id for one in fresh.unfinished(SERVICE)]
    assert record.id == fresh.of_task("t-1", SERVICE).id
    assert {"saved": 2000, ACCEPTED: 1} == fresh.states()
    assert len(opened) < 30, opened


# --- locks


def elsewhere(folder, code: str) -> subprocess.Popen:
    """Python with a `store` of that folder in another process."""
    begin = (f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n"
             f"from image2_cli.order.store import Store\nstore = Store({str(folder)!r})\n")
    return subprocess.Popen([sys.executable, "-c", begin + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "gives it back"])
def test_a_lock_is_held_until_its_process_is_killed_or_gives_it_back(store, tmp_path, how):
    busy = elsewhere(tmp_path, "print(store.lock('f'), flush=True); input(); store.unlock('f'); print(flush=True); input()")
    assert "True\n" == busy.stdout.readline()
    assert [False, True] == [store.lock(one) for one in "fg"]
    if how == "killed":
        busy.kill()
        busy.wait(5)
    else:
        busy.stdin.write("\n")
        busy.stdin.flush()
        busy.stdout.readline()
    assert store.lock("f")
    busy.kill()
    busy.communicate()


def test_a_lock_that_this_run_holds_is_taken_once_by_any_of_its_threads(store):
    taken = []
    threads = [threading.Thread(target=lambda: taken.append(store.lock("f"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [True] * 8 == taken


@pytest.mark.slow
def test_two_names_of_one_place_are_held_until_both_are_given_back(store, tmp_path):
    """Among 10,000 lines one place in twenty runs is shared; the lock of the second was given back with the first."""
    dice, places = random.Random(1), {}
    one = other = ""
    while one == other:
        one = f"{dice.getrandbits(128):032x}"
        other = places.setdefault(_place_of(one), one)
    assert store.lock(one) and store.lock(other)
    store.unlock(one)
    script = ("import sys; sys.path.insert(0, sys.argv[1]); from image2_cli.order.store import Store\n"
              "print(Store(sys.argv[2]).lock(sys.argv[3]))")
    words = [sys.executable, "-c", script, str(SCRIPT.parent), str(tmp_path), other]
    assert "False" == subprocess.run(words, capture_output=True, text=True).stdout.strip()


def test_an_order_may_replace_its_own_picture_and_none_that_another_of_its_run_was_paid_for(store):
    assert [True, True, False, False] == [store.claim("cat.png", name) for name in "bbac"]
    assert store.claim("another.png", "a")


# --- the one atomic writer


@needs_posix
def test_a_page_is_an_ordinary_file_and_one_that_cannot_take_its_name_leaves_no_part(tmp_path):
    before = os.umask(0o027)
    try:
        write_file(str(tmp_path / "index.html"), "words \ud800")
    finally:
        os.umask(before)
    assert 0o640 == stat.S_IMODE((tmp_path / "index.html").stat().st_mode)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(OSError):
        write_file(str(tmp_path / "folder.html"), "words")
    assert [] == list(tmp_path.rglob("*.part"))
    assert "words ?" == (tmp_path / "index.html").read_text()
