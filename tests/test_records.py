"""Records carry an order over any death of its process: one folder of them, with one process and with two."""

import base64
import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from aftermath import record_paths, records_in
from image2_cli.order.record import FINISHED, NOT_SENT, SENDING, SUBMITTED, UNKNOWN
from image2_cli.order.store import FILES, OWNER, Store
from pictures import png
from platforms import needs_open_files_to_go, needs_posix
from running import SCRIPT

SERVICE = "https://image2.test"
PNG = png(64, 64)
B64 = base64.b64encode(PNG).decode()
QUICK = ("--out", "out", "--poll-interval", "0.05", "--timeout", "20")
SHORT = ("--out", "out", "--poll-interval", "0.05", "--timeout", "0.3")


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def made(store, fingerprint="f", **changes):
    """A record of an order whose process is gone."""
    record = store.create(fingerprint, SERVICE, {"prompt": "a cat"}, "a-cat")
    store.save(record, False, **changes)
    store.unlock(record["id"], OWNER)
    return record


def continued(store, fingerprint="f"):
    return store.to_continue(fingerprint, SERVICE)


def elsewhere(folder, code: str) -> str:
    """Run Python with a `store` of that folder in another process, to its end; what it printed."""
    return _process(folder, code).communicate(timeout=20)[0]


def _process(folder, code):
    begin = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r})\n" \
            f"from image2_cli.order.record import *\nfrom image2_cli.order.store import *\nstore = Store({str(folder)!r})\n"
    return subprocess.Popen([sys.executable, "-c", begin + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- one record


def test_the_intent_stands_on_disk_before_create_returns(store, tmp_path):
    record = store.create("f", SERVICE, {"prompt": "a cat"}, "a-cat")
    (path,) = record_paths(tmp_path)
    told = json.loads(path.read_text())
    assert (NOT_SENT, None, [], SERVICE) == (told["state"], told["task_id"], told["images"], told["service"])
    assert (False, None) == (told["overwrite"], told["suffix"])  # until the command that sends it says so
    assert '\n "state": "not_sent"' in path.read_text()  # people can read it
    assert dict(record) == told
    assert [dict(record)] == [dict(one) for one in Store(str(tmp_path)).all()]


@needs_posix
def test_records_are_for_their_owner_only_and_never_for_git(store, tmp_path):
    record = store.create("f", SERVICE, {}, "")
    store.save(record, False, state=SENDING)
    store.stash(record, [B64])
    folder = tmp_path / ".image2"
    assert "*\n" == (folder / ".gitignore").read_text()
    assert "0o700" == oct(stat.S_IMODE(folder.stat().st_mode))
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir() if path.name != ".gitignore"}
    assert {"0o600"} == set(modes.values()), modes
    assert 3 == len(modes)  # the record, its stash, the locks


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_git_sees_none_of_it(store, tmp_path):
    made(store)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    seen = subprocess.run(["git", "status", "--porcelain", "-uall"], cwd=tmp_path, check=True, capture_output=True)
    assert b"" == seen.stdout


def test_what_is_saved_is_what_the_next_run_reads(store, tmp_path):
    record = made(store, state=SUBMITTED, task_id="t-1", images=[{"index": 0, "path": "/é\ud800", "error": None}])
    (again,) = Store(str(tmp_path)).all()
    assert (dict(record), record.path) == (dict(again), again.path)


@pytest.fixture
def synced(monkeypatch):
    """The names of what was synced, by the real thing, in order; one that is in `refused` cannot be."""
    names, refused, real = [], set(), os.fsync

    def fsync(descriptor):
        names.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "record")
        if names[-1] in refused:
            raise OSError(22, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return names, refused


@needs_posix
def test_the_intent_outlives_a_loss_of_power_and_a_note_costs_no_sync(store, synced):
    record = store.create("f", SERVICE, {}, "")
    assert ["record", "folder"] == synced[0]
    store.save(record, False, state=SENDING)
    store.stash(record, [B64])
    assert ["record", "folder"] * 2 == synced[0]  # the stash is all there is of a picture


@needs_posix
def test_a_file_system_that_cannot_sync_a_folder_keeps_the_record(store, synced, tmp_path):
    synced[1].add("folder")
    store.create("f", SERVICE, {}, "")
    assert [NOT_SENT] == [record["state"] for record in records_in(tmp_path)]


def test_the_name_of_a_record_tells_when_it_was_ordered(store):
    record = store.create("f", SERVICE, {}, "")
    began = time.strftime("%Y%m%dT%H%M%S", time.gmtime(record["created_s"]))
    assert f"{began}-{record['id'][:8]}.json" == os.path.basename(record.path)
    assert record["created_s"] == record["sent_s"] == pytest.approx(time.time(), abs=5)


def test_a_record_takes_over_what_another_run_wrote(store, tmp_path):
    record = made(store)
    (other,) = Store(str(tmp_path)).all()
    store.save(other, False, state=FINISHED, status="completed")
    store.reload(record)
    assert FINISHED == record["state"]
    Path(record.path).write_text("{")
    store.reload(record)
    assert FINISHED == record["state"]  # a torn file is no news


def test_a_record_that_is_behind_on_disk_takes_no_task_away(store):
    """The disk was full when the task id came, and the order forgot it as it began to save."""
    record = made(store, state=SENDING)
    record.update(state=SUBMITTED, task_id="task-1")
    store.reload(record)
    assert (SUBMITTED, "task-1") == (record["state"], record["task_id"])


def test_a_save_that_fails_leaves_the_old_record_whole_and_no_part(store, tmp_path, monkeypatch):
    record = made(store)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        store.save(record, True, state=SENDING)
    assert [NOT_SENT] == [one["state"] for one in records_in(tmp_path)]
    assert [] == [path for path in (tmp_path / ".image2").iterdir() if path.name.endswith(".part")]


@needs_posix
def test_a_record_is_written_over_in_its_own_blocks_where_a_full_disk_has_no_others(store, tmp_path, synced):
    record = made(store, state=SUBMITTED, status="x" * 2000)
    record.update(status="completed", task_id="t-1")
    assert store.write_over(record)
    assert ([dict(record)], ["record"]) == (records_in(tmp_path), synced[0][2:])
    record["images"] = [{"index": 0, "url": "x" * 20_000}]
    assert not store.write_over(record)
    assert [[]] == [one["images"] for one in records_in(tmp_path)]
    os.unlink(record.path)
    assert not store.write_over(record)


def test_a_page_that_cannot_take_its_name_leaves_no_part(store, tmp_path, monkeypatch):
    (tmp_path / "index.html").mkdir()
    parts, real = [], os.replace
    monkeypatch.setattr(os, "replace", lambda part, path: (parts.append(Path(part)), real(part, path)))
    with pytest.raises(OSError):
        store.put(str(tmp_path / "index.html"), "words")
    assert [(tmp_path / ".image2", ".part", False)] == [(part.parent, part.suffix, part.exists()) for part in parts]


def test_the_part_of_a_killed_save_is_swept_when_nobody_can_be_at_it(store, tmp_path):
    record = made(store)
    old, new = (Path(f"{record.path}.{name}.part") for name in ("old", "new"))
    for path in (old, new):
        path.write_text("{")
    os.utime(old, (time.time() - 120,) * 2)
    assert 1 == len(store.all())
    assert (False, True) == (old.exists(), new.exists())


@needs_posix
def test_a_part_that_went_away_as_it_was_looked_at_is_no_trouble(store, tmp_path):
    made(store)
    (tmp_path / ".image2" / "gone.part").symlink_to("nowhere")
    assert 1 == len(store.all())
    assert (tmp_path / ".image2" / "gone.part").is_symlink()


def test_the_pictures_of_an_answer_are_kept_until_they_are_dropped(store):
    record = made(store)
    assert [] == store.stashed(record)
    store.stash(record, [B64, None])
    assert [B64, None] == store.stashed(record)
    store.drop_stash(record)
    store.drop_stash(record)
    assert [] == store.stashed(record)


@pytest.mark.parametrize("content", ["", "{", "null", "3", '{"a": 1}', '["%s"' % B64, "\xff"])
def test_a_torn_stash_is_passed_over(store, content):
    record = made(store)
    Path(record.path + ".data").write_text(content, encoding="latin-1")
    assert [] == store.stashed(record)


# --- many records


def test_a_torn_record_hides_no_other(store, tmp_path):
    good = made(store, state=SUBMITTED, task_id="t-1")
    (tmp_path / ".image2" / "20200101T000000-bad.json").write_text("{")
    assert [good["id"]] == [record["id"] for record in store.all()] == [record["id"] for record in store.unfinished(SERVICE)]
    assert good["id"] == store.of_task("t-1", SERVICE)["id"] == continued(store)["id"]


def test_a_folder_without_records_has_none(tmp_path):
    assert [] == Store(str(tmp_path / "nowhere")).all()
    (tmp_path / ".image2").write_text("in the way")
    assert [] == Store(str(tmp_path)).all()


def test_a_record_is_found_by_its_task_and_its_service_only(store):
    record = made(store, state=SUBMITTED, task_id="t-1")
    assert record["id"] == store.of_task("t-1", SERVICE)["id"]
    assert [None] * 3 == [store.of_task(*what) for what in (("t-0", SERVICE), ("t-2", SERVICE), ("t-1", "https://other.test"))]
    assert ([], None) == (store.unfinished("https://other.test"), store.to_continue("f", "https://other.test"))


# --- what the same command goes on with


@pytest.mark.parametrize(("state", "goes_on"), [(NOT_SENT, True), (SENDING, True), (UNKNOWN, True), (SUBMITTED, True),
                                                (FINISHED, False)])
def test_the_same_command_goes_on_with_what_is_open(store, state, goes_on):
    record = made(store, state=state)
    found = continued(store)
    assert (record["id"] if goes_on else None) == (found and found["id"])
    assert continued(store, "another order") is None


@pytest.mark.parametrize("state", [SENDING, UNKNOWN])
@pytest.mark.parametrize(("age", "counts"), [(0, True), (14 * 60 + 50, True), (15 * 60 + 1, False), (1e6, False)])
def test_an_unknown_fate_counts_for_fifteen_minutes(store, state, age, counts):
    made(store, state=state, sent_s=time.time() - age)
    assert counts is (continued(store) is not None)


def test_an_unknown_fate_of_a_clock_that_was_set_back_still_counts(store):
    made(store, state=UNKNOWN, sent_s=time.time() + 3600)
    assert UNKNOWN == continued(store)["state"]


@pytest.mark.parametrize(("states", "first"), [
    ((UNKNOWN, SUBMITTED), SUBMITTED), ((NOT_SENT, SUBMITTED), SUBMITTED), ((NOT_SENT, UNKNOWN), UNKNOWN),
    ((FINISHED, NOT_SENT), NOT_SENT), ((NOT_SENT, SENDING), SENDING), ((FINISHED, FINISHED), None),
])
def test_sending_again_is_the_last_thing_to_do(store, states, first):
    for state in states:
        made(store, state=state)
    found = continued(store)
    assert first == (found and found["state"])


def test_only_what_was_accepted_and_is_not_settled_is_unfinished(store):
    for number, state in enumerate((NOT_SENT, SENDING, UNKNOWN, SUBMITTED, FINISHED)):
        made(store, str(number), state=state)
    assert [SUBMITTED] == [record["state"] for record in store.unfinished(SERVICE)]


def test_records_come_oldest_first(store):
    first = made(store, "1")
    os.rename(first.path, os.path.join(os.path.dirname(first.path), "20010101T000000-00000000.json"))
    second = made(store, "2")
    assert [first["id"], second["id"]] == [record["id"] for record in store.all()]


# --- locks


def test_an_order_may_replace_its_own_picture_and_none_that_another_of_its_run_was_paid_for(store):
    assert [True, True, False, False] == [store.claim("cat.png", name) for name in "bbac"]
    assert store.claim("another.png", "a")


def test_what_a_living_process_owns_is_not_gone_on_with_and_what_a_dead_one_owned_is(store, tmp_path):
    code = "record = store.create('f', %r, {}, ''); print(record['id'], flush=True); sys.stdin.read()" % SERVICE
    owner = _process(tmp_path, code)
    name = owner.stdout.readline().strip()
    assert (None, False) == (continued(store), store.lock(name, OWNER))
    assert store.lock(name, FILES)  # the other lock is another one
    free = made(store)
    free.path = str(Path(free.path).rename(tmp_path / ".image2" / "30000101T000000-last.json"))
    assert free["id"] == continued(store)["id"]
    store.save(free, False, state=FINISHED)
    owner.kill()
    owner.communicate(timeout=5)
    assert name == continued(store)["id"]
    # and now it is this process that owns it
    assert "None\n" == elsewhere(tmp_path, "print(store.to_continue('f', %r))" % SERVICE)
    store.unlock(name, OWNER)
    assert "None\n" != elsewhere(tmp_path, "print(store.to_continue('f', %r))" % SERVICE)


def test_a_lock_is_of_one_order_and_of_one_kind(store, tmp_path):
    assert (0, 1) == (OWNER, FILES)  # other versions of this tool lock the same bytes
    store.lock("one", FILES)
    code = "print(store.lock('one', FILES), store.lock('one', OWNER), store.lock('two', FILES))"
    assert "False True True\n" == elsewhere(tmp_path, code)
    assert store.lock("one", FILES)  # once more by the same run
    store.unlock("one", FILES)
    assert "True True True\n" == elsewhere(tmp_path, code)
    store.unlock("never locked", FILES)


def test_an_order_that_ended_while_its_lock_was_taken_is_not_gone_on_with(store, tmp_path):
    """Another run finished it between this run's reading and its lock."""
    record = made(store, state=SUBMITTED)
    reading = Store.all

    def stale(self):
        found = reading(self)
        elsewhere(tmp_path, "(one,) = store.all(); store.save(one, False, state=FINISHED)")
        return found

    store.all = stale.__get__(store)
    assert continued(store) is None
    assert "True\n" == elsewhere(tmp_path, "print(store.lock(%r, OWNER))" % record["id"])


@needs_open_files_to_go
def test_where_no_lock_can_be_kept_the_work_goes_on(store, tmp_path):
    record = made(store, state=SUBMITTED)
    os.unlink(tmp_path / ".image2" / "locks")
    os.mkdir(tmp_path / ".image2" / "locks")
    assert record["id"] == Store(str(tmp_path)).to_continue("f", SERVICE)["id"]


def test_many_threads_share_one_file_of_locks(tmp_path, monkeypatch):
    """On Windows a lock that was taken through one descriptor cannot be given back through another."""
    opened, real = [], os.open

    def slow(path, *rest, **more):
        if str(path).endswith("locks"):
            opened.append(path)
            time.sleep(0.05)
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", slow)
    store = Store(str(tmp_path))
    threads = [threading.Thread(target=store.lock, args=(f"order-{number}", FILES)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len(opened)


@pytest.mark.parametrize(("number", "busy", "task_id"), [(5, 6, "task-1"), (32, 7, None)])
def test_a_record_that_somebody_looks_at_is_written_a_moment_later(store, tmp_path, monkeypatch, number, busy,
                                                                      task_id):
    """Windows refuses to replace a file that is open; a task id must not be lost to a virus scanner."""
    record, refusals, real = made(store), [], os.replace

    def replace(part, path):
        if len(refusals) < busy:
            refusals.append(PermissionError(13, "in use"))
            refusals[-1].winerror = number
            raise refusals[-1]
        real(part, path)

    monkeypatch.setattr(os, "replace", replace)
    began = time.monotonic()
    with contextlib.nullcontext() if task_id else pytest.raises(PermissionError):
        store.save(record, False, task_id="task-1")
    assert (busy, task_id) == (len(refusals), records_in(tmp_path)[0]["task_id"])
    assert 0.5 < time.monotonic() - began < 1.6


def test_a_folder_that_forbids_writing_is_not_tried_again(store, monkeypatch):
    tries = []

    def replace(part, path):
        tries.append(path)
        raise PermissionError(13, "Permission denied")

    record = made(store)
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError):
        store.save(record, False)
    assert 1 == len(tries)
