"""Orders are gone on with by the next run, whatever ended the last one, and never paid twice: whole runs."""

import base64
import os
import subprocess
import time
from pathlib import Path

import pytest
from aftermath import edit_record, pictures_in, record_paths, records_in, run_next
from faulty import completed, failed, hang, ok, page, pending, picture, refuse, reset, sync_completed
from image2_cli.clock import Clock
from image2_cli.errors import Image2Error
from image2_cli.machine.settings import Key, Settings
from image2_cli.order import output as places
from image2_cli.order.fields import build
from image2_cli.order.order import Order, Tools
from image2_cli.order.record import FINISHED, SENDING, SUBMITTED
from image2_cli.order.store import OWNER, Store
from image2_cli.service.api import Api
from pictures import png
from platforms import needs_linux, needs_open_files_to_go, needs_posix
from running import CANARY, assert_no_key

PNG = png(64, 64)
B64 = base64.b64encode(PNG).decode()
QUICK = ("--out", "out", "--poll-interval", "0.05", "--timeout", "20")
SHORT = ("--out", "out", "--poll-interval", "0.05", "--timeout", "0.3")


# --- whole runs


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
    (project / "out" / ".image2" / "0-torn.json").write_text("{")
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
    tools = Tools(api, clock, Store(place.folder), None, service.base_url, True)
    request, _mistakes = build({"prompt": "a cat"})
    order = Order(tools, place)
    order.take(request, "a-cat")
    (tmp_path / ".image2").rename(tmp_path / "elsewhere")
    with pytest.raises(Image2Error) as told:
        order.submit(request, clock.now() + 5)
    assert ("output_not_writable", "no", 0) == (told.value.code, order.charged, len(service.posts))


def test_an_order_whose_fate_became_unknown_while_the_machine_slept_is_not_repeated(service, tmp_path):
    """The 15 minutes counted from the sending: a laptop that was closed in the POST woke to an order that was forgotten."""
    class Asleep(Clock):
        slept = -16 * 60

        def wall(self):
            return super().wall() + self.slept

    def wake(request):
        Asleep.slept = 0
        return page(502)

    service.on_post(wake)
    place, clock, store = places.resolve(str(tmp_path)), Asleep(), Store(str(tmp_path))
    tools = Tools(Api(Settings(service.base_url, Key(CANARY), "here"), clock), clock, store, None, service.base_url, True)
    request, _mistakes = build({"prompt": "a cat"})
    order = Order(tools, place)
    order.take(request, "a-cat")
    with pytest.raises(Image2Error):
        order.send(request, 5)
    store.unlock(order.record["id"], OWNER)
    with pytest.raises(Image2Error) as told:
        Order(tools, place).take(request, "a-cat")
    assert ("outcome_unknown", 1) == (told.value.code, len(service.posts))


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
