"""Records carry an order over any death of its process: the room alone, two processes, and whole runs."""

from __future__ import annotations

import base64
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
from aftermath import edit_record, pictures_in, record_paths, records_in, run_next
from faulty import completed, failed, hang, ok, page, pending, picture, refuse, reset, sync_completed
from image2_cli import place as places
from image2_cli import records
from image2_cli.api import Api
from image2_cli.clock import Clock
from image2_cli.errors import Image2Error
from image2_cli.order import Order, Tools
from image2_cli.records import FILES, FINISHED, NOT_SENT, OWNER, SENDING, SUBMITTED, UNKNOWN, Store
from image2_cli.request import build
from image2_cli.settings import Key, Settings
from pictures import png
from platforms import needs_linux, needs_open_files_to_go, needs_posix
from running import CANARY, SCRIPT, assert_no_key

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
            f"from image2_cli.records import *\nfrom image2_cli import records\nstore = Store({str(folder)!r})\n"
    return subprocess.Popen([sys.executable, "-c", begin + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- one record -----------------------------------------------------------------------------------------


def test_the_intent_stands_on_disk_before_create_returns(store, tmp_path):
    record = store.create("f", SERVICE, {"prompt": "a cat"}, "a-cat")
    (path,) = record_paths(tmp_path)
    told = json.loads(path.read_text())
    assert (NOT_SENT, None, [], SERVICE) == (told["state"], told["task_id"], told["images"], told["service"])
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


def test_the_part_of_a_killed_save_is_swept_when_nobody_can_be_at_it(store, tmp_path):
    record = made(store)
    old, new = (Path(f"{record.path}.{name}.part") for name in ("old", "new"))
    for path in (old, new):
        path.write_text("{")
    os.utime(old, (time.time() - 120,) * 2)
    assert 1 == len(store.all())
    assert (False, True) == (old.exists(), new.exists())


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


@pytest.mark.parametrize("state", [SENDING, UNKNOWN])
def test_an_order_whose_pictures_were_kept_is_known_to_be_accepted(store, state):
    """Killed after the answer was kept and before the record said so."""
    record = made(store, state=state)
    store.stash(record, [B64])
    assert [record["id"]] == [one["id"] for one in store.unfinished(SERVICE)]
    assert SUBMITTED == continued(store)["state"]


# --- records that are none --------------------------------------------------------------------------------


def spoiled(store, **changes):
    record = made(store, state=SUBMITTED, task_id="t-1", **changes)
    return record, Path(record.path)


GARBAGE = {
    "empty": b"", "torn": b'{"version": 1, "id": "', "null": b"null", "a list": b"[]", "no UTF-8": b"\xff\xfe{}",
    "nested": b"[" * 100_000, "binary": bytes(1000), "a number": b"1e999", "huge": b" " * (records.MAX_RECORD + 1) + b"{}",
    "of another version": b'{"version": 2, "id": "01234567-89ab-cdef-0123-456789abcdef"}',
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_record_is_passed_over(store, tmp_path, name):
    good = made(store, state=SUBMITTED, task_id="t-1")
    (tmp_path / ".image2" / "20200101T000000-bad.json").write_bytes(GARBAGE[name])
    assert [good["id"]] == [record["id"] for record in store.all()]
    assert good["id"] == continued(store)["id"]


@pytest.mark.parametrize("what", [
    "a folder", *(pytest.param(what, marks=needs_posix) for what in ("a FIFO", "a dangling link", "a device"))])
def test_what_is_no_file_is_passed_over(store, tmp_path, what):
    good, path = made(store), tmp_path / ".image2" / "20200101T000000-bad.json"
    {"a folder": path.mkdir, "a FIFO": lambda: os.mkfifo(path), "a dangling link": lambda: path.symlink_to("nowhere"),
     "a device": lambda: path.symlink_to("/dev/zero")}[what]()
    assert [good["id"]] == [record["id"] for record in store.all()]


WRONG = {
    "id": [None, 5, "", "../../../etc/passwd-0123456789abcdefg", "x" * 36, []], "state": [None, 5, "odd", [], {}],
    "service": [None, 5, []], "fingerprint": [None, 5], "stem": [None, 5, "../x", "a/b", "/etc/cron.d/x", "a\\b", "a\0b"],
    "request": [None, [], "text"], "task_id": [5, "", "..", "a/b", "a b", [], "x" * 129], "status": [5, [], {}],
    "created_s": ["now", True, -1, float("nan"), float("inf"), 10**400], "sent_s": ["now", [], float("nan"), 10**400],
    "accepted_s": ["now", float("inf"), {}], "version": [None, 0, 2, "1"],
    "images": [None, {}, "x", [1], [[]], [None], [{}], [{"index": "0"}], [{"index": []}], [{"index": 0, "path": 5}],
               [{"index": 0, "url": []}], [{"index": 0, "error": "x"}], [{"index": 0, "sha256": 1}],
               [{"index": 0, "revised_prompt": {}}]],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_record_of_wrong_types_is_passed_over(store, field, value):
    record, path = spoiled(store)
    assert 1 == len(store.all())
    path.write_text(json.dumps({**record, field: value}))
    assert [] == store.all()
    assert ([], None, None) == (store.unfinished(SERVICE), store.of_task("t-1", SERVICE), continued(store))


@pytest.mark.parametrize("field", ["version", "id", "state", "service", "fingerprint", "stem", "request", "images"])
def test_a_record_without_a_field_is_passed_over(store, field):
    record, path = spoiled(store)
    path.write_text(json.dumps({name: value for name, value in record.items() if name != field}))
    assert [] == store.all()


def test_a_folder_without_records_has_none(tmp_path):
    assert [] == Store(str(tmp_path / "nowhere")).all()
    (tmp_path / ".image2").write_text("in the way")
    assert [] == Store(str(tmp_path)).all()


def test_a_record_is_found_by_its_task_and_its_service_only(store):
    record = made(store, state=SUBMITTED, task_id="t-1")
    assert record["id"] == store.of_task("t-1", SERVICE)["id"]
    assert (None, None) == (store.of_task("t-2", SERVICE), store.of_task("t-1", "https://other.test"))
    assert ([], None) == (store.unfinished("https://other.test"), store.to_continue("f", "https://other.test"))


# --- what the same command goes on with -----------------------------------------------------------------


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


# --- locks ------------------------------------------------------------------------------------------------


def test_what_a_living_process_owns_is_not_gone_on_with_and_what_a_dead_one_owned_is(store, tmp_path):
    code = "record = store.create('f', %r, {}, ''); print(record['id'], flush=True); sys.stdin.read()" % SERVICE
    owner = _process(tmp_path, code)
    name = owner.stdout.readline().strip()
    assert (None, False) == (continued(store), store.lock(name, OWNER))
    assert store.lock(name, FILES)  # the other lock is another one
    owner.kill()
    owner.communicate(timeout=5)
    assert name == continued(store)["id"]
    # and now it is this process that owns it
    assert "None\n" == elsewhere(tmp_path, "print(store.to_continue('f', %r))" % SERVICE)
    store.unlock(name, OWNER)
    assert "None\n" != elsewhere(tmp_path, "print(store.to_continue('f', %r))" % SERVICE)


def test_a_lock_is_of_one_order_and_of_one_kind(store, tmp_path):
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


@pytest.mark.parametrize("number", [5, 32])
def test_a_record_that_somebody_looks_at_is_written_a_moment_later(store, tmp_path, monkeypatch, number):
    """Windows refuses to replace a file that is open; a task id must not be lost to a virus scanner."""
    record, refusals, real = made(store), [], os.replace

    def replace(part, path):
        if len(refusals) < 3:
            refusals.append(PermissionError(13, "in use"))
            refusals[-1].winerror = number
            raise refusals[-1]
        real(part, path)

    monkeypatch.setattr(os, "replace", replace)
    store.save(record, False, state=SUBMITTED, task_id="task-1")
    assert (3, "task-1") == (len(refusals), records_in(tmp_path)[0]["task_id"])


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


def test_a_record_that_was_moved_with_its_pictures_knows_where_they_are(tmp_path):
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "cat.png").write_bytes(PNG)
    images = [{"index": 0, "path": str(tmp_path / "before" / "cat.png")}, {"index": 1, "path": "/gone.png"}]
    made(Store(str(tmp_path / "before")), images=images)
    (tmp_path / "before").rename(tmp_path / "after")
    (record,) = Store(str(tmp_path / "after")).all()
    assert [str(tmp_path / "after" / "cat.png"), "/gone.png"] == [image["path"] for image in record.images]


@pytest.mark.parametrize("width", [float("nan"), "64", [64], True, {}])
def test_a_side_of_a_picture_that_is_no_number_is_not_known(store, tmp_path, width):
    """NaN is no JSON: the answer that carried it was left out, with exit 0."""
    made(store, images=[{"index": 0, "width": width, "height": 64}])
    (record,) = Store(str(tmp_path)).all()
    assert (None, 64) == (record.images[0]["width"], record.images[0]["height"])


# --- whole runs -------------------------------------------------------------------------------------------


def test_the_intent_stands_before_the_post_and_the_task_right_after_it(service, run, project):
    seen = []

    def post(request):
        seen.extend(records_in(project / "out"))
        return ok()

    def poll(request):
        seen.extend(records_in(project / "out"))
        return completed()

    service.on_post(post)
    service.on_poll(poll)
    done = run("generate", "a cat", *QUICK)
    assert 0 == done.exit
    before, after = seen
    assert (SENDING, None) == (before["state"], before["task_id"])
    assert (SUBMITTED, "task-1") == (after["state"], after["task_id"])
    (end,) = records_in(project / "out")
    assert (FINISHED, done.json["images"][0]["path"]) == (end["state"], end["images"][0]["path"])


def test_no_record_holds_a_key_or_a_picture(service, run, project, tmp_path):
    (tmp_path / "cat.png").write_bytes(PNG)
    service.on_post(sync_completed(data=[{"b64_json": B64, "revised_prompt": f"the key is {CANARY}"}]))
    done = run("generate", "a cat", "--image", tmp_path / "cat.png", "--sync", *QUICK)
    assert 0 == done.exit
    assert_no_key(project)
    for path in (project / "out" / ".image2").iterdir():
        assert B64[:60] not in path.read_text(), path
    assert "sha256:" in record_paths(project / "out")[0].read_text()


def test_the_same_command_after_it_got_its_pictures_orders_anew(service, run, project):
    first, second = run("generate", "a cat", *QUICK), run("generate", "a cat", *QUICK)
    assert (0, 0, 2) == (first.exit, second.exit, service.orders)
    assert ("task-2", None) == (second.json["task_id"], second.json.get("resumed"))
    assert ["a-cat-2.png", "a-cat.png"] == pictures_in(project / "out")


def test_the_same_command_after_its_time_was_up_goes_on_with_its_task(service, run, project):
    service.on_poll(pending(10))
    first = run("generate", "a cat", *SHORT)
    assert (8, "yes", "task-1") == (first.exit, first.json["charged"], first.json["task_id"])
    service.on_poll(completed())
    second = run("generate", "a cat", *QUICK)
    assert (0, "task-1", True, 1) == (second.exit, second.json["task_id"], second.json["resumed"], service.orders)
    assert ["a-cat.png"] == pictures_in(project / "out")


@pytest.mark.parametrize("change", [["a dog"], ["a cat", "--n", "2"], ["a cat", "--size", "64x64"],
                                    ["a cat", "--out", "elsewhere"], ["a cat", "--out", "out/cat.png"],
                                    ["a cat", "--set", "quality=high"], ["a cat", "--new"]])
def test_another_order_and_new_never_go_on_with_it(service, run, project, change):
    service.on_poll(pending(10), completed())
    run("generate", "a cat", "--timeout", "0.01", "--poll-interval", "5", "--out", "out")
    done = run("generate", *QUICK, *change)
    assert (0, 2) == (done.exit, service.orders)


def test_two_parallel_identical_commands_make_two_orders(service, start, project):
    service.on_post(ok().but(delay=0.6))
    both = [start("generate", "a cat", *QUICK) for _ in range(2)]
    ends = [busy.finish() for busy in both]
    assert [0, 0] == [done.exit for done in ends]
    assert 2 == service.orders
    assert {"task-1", "task-2"} == {done.json["task_id"] for done in ends}
    assert ["a-cat-2.png", "a-cat.png"] == pictures_in(project / "out")
    assert 2 == len({done.json["images"][0]["path"] for done in ends})


UNKNOWN_FATES = {"a reset": reset(), "a bare 502": page(502), "an empty 200": ok().but(body=b"")}


@pytest.mark.parametrize("fault", UNKNOWN_FATES)
def test_an_order_of_unknown_fate_is_repeated_only_when_told_or_after_fifteen_minutes(service, run, project, fault):
    service.on_post(UNKNOWN_FATES[fault])
    first, second = run("generate", "a cat", *QUICK), run("generate", "a cat", *QUICK)
    for done in (first, second):
        assert (9, "maybe", "outcome_unknown") == (done.exit, done.json["charged"], done.json["error"]["code"])
        assert None is done.json["next"]
    assert 1 == len(service.posts)
    assert "--new" in second.json["error"]["message"]
    edit_record(project / "out", sent_s=time.time() - 14 * 60)
    assert (9, 1) == (run("generate", "a cat", *QUICK).exit, len(service.posts))
    edit_record(project / "out", sent_s=time.time() - 15 * 60 - 5)
    service.on_post(ok())
    assert (0, 2) == (run("generate", "a cat", *QUICK).exit, len(service.posts))


def test_new_orders_again_although_the_fate_is_unknown(service, run, project):
    service.on_post(reset(), ok())
    assert 9 == run("generate", "a cat", *QUICK).exit
    done = run("generate", "a cat", "--new", *QUICK)
    assert (0, 2) == (done.exit, len(service.posts))


def test_after_new_timed_out_the_same_command_goes_on_with_it(service, run, project):
    service.on_post(reset(), ok())
    service.on_poll(pending(10))
    assert 9 == run("generate", "a cat", *QUICK).exit
    assert 8 == run("generate", "a cat", "--new", *SHORT).exit
    service.on_poll(completed())
    done = run("generate", "a cat", *QUICK)
    assert (0, True, 2) == (done.exit, done.json["resumed"], len(service.posts))


def test_what_was_refused_is_simply_sent_again_and_leaves_one_record(service, run, project):
    service.on_post(refuse(400), ok())
    first, second = run("generate", "a cat", *QUICK), run("generate", "a cat", *QUICK)
    assert (3, 0, 2, 1) == (first.exit, second.exit, len(service.posts), service.orders)
    assert [FINISHED] == [record["state"] for record in records_in(project / "out")]


def test_a_task_that_failed_is_settled_and_the_same_command_orders_anew(service, run, project):
    service.on_poll(failed(), completed())
    first = run("generate", "a cat", *QUICK)
    assert (6, [FINISHED]) == (first.exit, [record["state"] for record in records_in(project / "out")])
    assert "nothing_unfinished" == run("wait", *QUICK).json["status"]
    second = run("generate", "a cat", *QUICK)
    assert (0, "task-2") == (second.exit, second.json["task_id"])


def test_wait_without_an_id_leaves_another_services_records_alone(service, run, project):
    service.on_poll(pending(10))
    assert 8 == run("generate", "a cat", *SHORT).exit
    edit_record(project / "out", service="https://image2.vip")
    before = [path.read_bytes() for path in record_paths(project / "out")]
    service.on_poll(completed())
    polls = len(service.polls)
    done = run("wait", *QUICK)
    assert (0, "nothing_unfinished", polls) == (done.exit, done.json["status"], len(service.polls))
    assert before == [path.read_bytes() for path in record_paths(project / "out")]
    assert (0, 2) == (run("generate", "a cat", *QUICK).exit, service.orders)
    assert before[0] in [path.read_bytes() for path in record_paths(project / "out")]  # of one second, in any order


def test_a_torn_record_spoils_neither_wait_nor_the_next_order(service, run, project):
    service.on_poll(pending(10))
    assert 8 == run("generate", "a cat", *SHORT).exit
    for name, content in GARBAGE.items():
        (project / "out" / ".image2" / f"0-{name}.json").write_bytes(content)
    service.on_poll(completed())
    done = run("wait", *QUICK)
    assert (0, "task-1") == (done.exit, done.json["task_id"])
    assert ["a-cat.png"] == pictures_in(project / "out")


def test_a_task_whose_record_was_torn_is_still_had_by_its_id(service, run, project):
    service.on_poll(pending(10))
    assert 8 == run("generate", "a cat", *SHORT).exit
    (path,) = record_paths(project / "out")
    path.write_text(path.read_text()[:100])
    service.on_poll(completed())
    done = run("wait", "task-1", *QUICK)
    assert (0, 1) == (done.exit, service.orders)
    assert 1 == len(pictures_in(project / "out"))


def test_a_foreign_record_can_make_no_file_outside_its_folder(service, run, project):
    service.on_poll(pending(10))
    assert 8 == run("generate", "a cat", *SHORT).exit
    edit_record(project / "out", stem="../../escaped")
    service.on_poll(completed())
    assert 0 == run("wait", *QUICK).exit
    assert 0 == run("wait", "task-1", *QUICK).exit
    assert [] == [path for path in project.parent.rglob("escaped*")]


@pytest.mark.parametrize("what", ["a file", pytest.param("a dangling link", marks=needs_posix)])
def test_a_place_where_no_record_can_stand_is_found_before_paying(service, run, project, what):
    (project / "out").mkdir()
    blocked = project / "out" / ".image2"
    blocked.write_text("in the way") if what == "a file" else blocked.symlink_to(project / "nowhere" / "deep")
    done = run("generate", "a cat", *QUICK)
    assert (2, "output_not_writable", "no", 0) == (done.exit, done.json["error"]["code"], done.json["charged"],
                                                   len(service.posts))


@pytest.mark.parametrize("out", [
    *(pytest.param(out, marks=needs_posix) for out in ("/proc", "/proc/image2", "/dev/null/x", "/dev/full")), "file/deeper",
    "file"])
def test_an_output_place_that_cannot_be_written_is_found_before_paying(service, run, project, out):
    (project / "file").write_text("mine")
    done = run("generate", "a cat", "--out", out)
    assert (2, "output_not_writable", 0) == (done.exit, done.json["error"]["code"], len(service.posts))
    assert "mine" == (project / "file").read_text()


@pytest.fixture
def read_only(project):
    """out/ is a read-only file system from `read_only(True)` on, as in an agent's sandbox; root is stopped too."""
    folder = project / "out"
    folder.mkdir()

    def switch(on, check=True):
        command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs"] if on else ["umount", "-l"]
        return subprocess.run([*command, str(folder)], check=check, capture_output=True).returncode

    if switch(True, check=False):
        pytest.skip("mounting needs root")
    switch(False)
    yield switch
    switch(False, check=False)


@needs_linux
def test_a_read_only_folder_is_found_before_paying(service, run, read_only):
    read_only(True)
    done = run("generate", "a cat", *QUICK)
    assert (2, "output_not_writable", 0) == (done.exit, done.json["error"]["code"], len(service.posts))


@needs_linux
def test_a_folder_that_becomes_read_only_after_paying_loses_nothing(service, run, project, read_only):
    def poll(request):
        read_only(True)
        return completed()

    service.on_poll(poll, completed())
    done = run("generate", "a cat", *QUICK)
    assert (10, "yes", "task-1") == (done.exit, done.json["charged"], done.json["task_id"])
    assert done.json["images"][0]["url"] and done.json["warnings"]
    read_only(False)
    again = run_next(done.json, service, project).json
    assert (True, "task-1", 1) == (again["ok"], again["task_id"], service.orders)
    assert ["a-cat.png"] == pictures_in(project / "out")


@needs_linux
@pytest.mark.parametrize("verb", [("wait",), ("wait", "task-1"), ("wait", "task-1", "--no-download")])
def test_wait_says_that_a_folder_is_read_only(run, read_only, verb):
    read_only(True)
    done = run(*verb, *QUICK)
    assert (2, "output_not_writable") == (done.exit, done.json["error"]["code"])


def test_pictures_in_an_answer_that_cannot_be_kept_are_saved_all_the_same(service, run, project):
    def post(request):
        (path,) = record_paths(project / "out")
        Path(f"{path}.data").mkdir()
        return sync_completed(data=[{"b64_json": B64}])

    service.on_post(post)
    done = run("generate", "a cat", "--sync", *QUICK)
    assert 0 == done.exit
    assert any("could not be kept" in warning for warning in done.json["warnings"])
    assert ["a-cat.png"] == pictures_in(project / "out")


def test_a_picture_the_user_moved_away_is_had_again_for_nothing(service, run, project):
    service.on_file(lambda request: page(410) if "-1.png" in request.path else picture(PNG))
    assert 10 == run("generate", "a cat", "--n", "2", *QUICK).exit
    for path in (project / "out").glob("*.png"):
        path.unlink()
    service.on_file(picture(PNG))
    assert (0, 1) == (run("wait", *QUICK).exit, service.orders)
    assert 2 == len(pictures_in(project / "out"))


@needs_posix
def test_wait_does_not_read_what_is_no_file_though_a_record_names_it(service, run, project):
    service.on_poll(pending(10))
    assert 8 == run("generate", "a cat", *SHORT).exit
    os.mkfifo(project / "fifo")
    edit_record(project / "out", images=[{"index": 0, "path": str(project / "fifo"), "sha256": "0" * 64}])
    service.on_poll(completed())
    assert 0 == run("wait", *QUICK, timeout=10).exit


def test_a_hung_order_is_not_repeated_by_the_same_command(service, start, run, project):
    """Killed in the POST: the fate is unknown, and the honest word is exit 9."""
    service.on_post(hang(30))
    busy = start("generate", "a cat", *QUICK)
    service.wait_for("post")
    busy.kill()
    busy.communicate()
    service.on_post(ok())
    done = run("generate", "a cat", *QUICK)
    assert (9, "maybe", 1) == (done.exit, done.json["charged"], len(service.posts))


@needs_open_files_to_go
def test_where_no_lock_can_be_kept_the_pictures_are_saved_and_said_so(service, run, project):
    (project / "out" / ".image2" / "locks").mkdir(parents=True)
    done = run("generate", "a cat", *QUICK)
    assert (0, ["a-cat.png"]) == (done.exit, pictures_in(project / "out"))


@needs_posix
def test_the_same_order_by_another_path_to_its_folder_goes_on_with_its_task(service, run, project):
    service.on_poll(pending())
    (project / "out").mkdir()
    (project / "alias").symlink_to("out")
    assert 8 == run("generate", "a cat", *SHORT).exit
    service.on_poll(completed())
    done = run("generate", "a cat", *QUICK, "--out", "alias")
    assert (0, True, 1) == (done.exit, done.json.get("resumed"), service.orders)


def test_an_order_whose_sending_cannot_be_recorded_is_not_sent_and_costs_nothing(service, tmp_path):
    place, clock = places.resolve(str(tmp_path)), Clock()
    api = Api(Settings(service.base_url, Key(CANARY), "here"), clock)
    tools = Tools(api, clock, Store(place.folder), None, SERVICE, True)
    request, _mistakes = build({"prompt": "a cat"})
    order = Order(tools, place)
    order.take(request, "a-cat")
    (tmp_path / ".image2").rename(tmp_path / "elsewhere")
    with pytest.raises(Image2Error) as told:
        order.submit(request, clock.now() + 5)
    assert ("output_not_writable", "no", 0) == (told.value.code, order.charged, len(service.posts))


def test_the_command_that_orders_decides_on_overwriting(service, run, project):
    """A first try that was refused had --overwrite; the second one replaced a file unasked."""
    (project / "cat.png").write_bytes(b"mine")
    service.on_post(refuse(400), ok())
    assert 3 == run("generate", "a cat", *QUICK, "--out", "cat.png", "--overwrite").exit
    assert 0 == run("generate", "a cat", *QUICK, "--out", "cat.png").exit
    assert (b"mine", PNG) == ((project / "cat.png").read_bytes(), (project / "cat-2.png").read_bytes())


@pytest.mark.parametrize("verb", [("generate", "a cat", "--sync"), ("wait",)])
def test_pictures_that_came_without_a_url_are_not_lost_to_no_download(service, start, run, project, verb):
    service.on_post(sync_completed(data=[{"b64_json": B64}]))
    if verb == ("wait",):  # killed when the answer was put aside, before its pictures were saved
        run("generate", "a cat", "--sync", "--no-download", *QUICK)
    done = run(*verb, "--no-download", *QUICK)
    assert (10, "yes", "not_saved") == (done.exit, done.json["charged"], done.json["images"][0]["error"]["code"])
    again = run_next(done.json, service, project)
    assert (0, 1, ["a-cat.png"]) == (again.exit, service.orders, pictures_in(project / "out"))


def test_orders_of_one_run_never_replace_each_others_pictures(service, run, project):
    for _ in range(2):
        run("generate", "a cat", "--new", "--no-wait", *QUICK)
    (project / "out" / "a-cat.png").write_bytes(b"old")
    done = run("wait", "--overwrite", *QUICK)
    assert (0, ["a-cat-2.png", "a-cat.png"]) == (done.exit, sorted(Path(one["path"]).name for one in done.json["images"]))
    assert PNG == (project / "out" / "a-cat.png").read_bytes()


@pytest.mark.parametrize("task_id", ["-abc", "--new"])
def test_a_task_id_that_begins_like_a_flag_can_be_gone_on_with(service, run, project, task_id):
    service.on_post(ok(task_id))
    service.on_poll(pending())
    done = run("generate", "a cat", *SHORT)
    service.on_poll(completed())
    again = run_next(done.json, service, project)
    assert (8, 0, task_id) == (done.exit, again.exit, again.json["task_id"])


def test_asking_for_links_only_forgets_no_file(service, run, project):
    first = run("generate", "a cat", *QUICK).json
    links = run("wait", first["task_id"], "--no-download", *QUICK)
    assert (0, first["images"]) == (links.exit, links.json["images"])
    assert first["images"][0]["path"] == records_in(project / "out")[0]["images"][0]["path"]
