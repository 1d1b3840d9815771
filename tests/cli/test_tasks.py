"""`status` and `wait` with a task's id: fresh agents looked a finished task up, and were left without its pictures."""

from __future__ import annotations

import shlex

import pytest
from faulty import Service, completed, failed, ok, pending, refuse
from laws import FAST

pytestmark = pytest.mark.slow


def words_of(command: str) -> list[str]:
    """The words of a `next`, without Python and the script."""
    return shlex.split(command)[2:]


def test_status_of_a_completed_task_names_its_links_and_the_command_that_saves_them(run, service, project):
    service.on_poll(pending(), completed())
    run("generate", "a cat", "--out", "art/cat.png", "--no-wait")
    assert words_of(run("status", "task-1").json["next"]) == ["wait", "task-1", "--out", str(project / "art")]
    seen = run("status", "task-1").json
    assert [seen["status"], seen["images"][0]["path"]] == ["completed", None]
    assert seen["images"][0]["url"].endswith("/task-1-0.png")
    saved = run(*words_of(seen["next"]), *FAST).json
    assert [str(project / "art" / "cat.png")] == [image["path"] for image in saved["images"]]
    after = run("status", "task-1").json
    assert (None, saved["images"][0]["path"]) == (after["next"], after["images"][0]["path"])


def test_wait_finds_where_its_tasks_were_ordered(run, service, project):
    """They were saved into image2-output, and stayed unfinished where they had been ordered."""
    for name in ("one", "two"):
        run("generate", f"number {name}", "--out", f"{name}/{name}.png", "--no-wait")
    saved = run("wait", "task-1", "task-2", *FAST).json
    wanted = {str(project / name / f"{name}.png") for name in ("one", "two")}
    assert wanted == {image["path"] for image in saved["images"]}
    assert {"completed": 2, "total": 2} == run("status").json["counts"]
    assert not (project / "image2-output").exists()
    elsewhere = run("wait", "task-1", "--out", "three", *FAST).json
    assert str(project / "three") in elsewhere["images"][0]["path"]


def test_tasks_in_two_folders_that_still_run_are_gone_on_with_together(run, service, project, tmp_path):
    """`next` named the first folder alone, and the other picture never came."""
    service.on_poll(pending())
    for name in ("one", "two"):
        run("generate", f"number {name}", "--out", f"{name}/{name}.png", "--no-wait")
    answer = run("wait", "task-1", "task-2", "--timeout", "1", *FAST).json
    service.on_poll(completed())
    saved = run(*words_of(answer["next"]), *FAST, cwd=tmp_path).json
    assert ("still_running", True) == (answer["error"]["code"], saved["ok"])
    assert {str(project / name / f"{name}.png") for name in ("one", "two")} == {image["path"] for image in saved["images"]}


def test_a_file_that_was_edited_is_not_told_as_the_picture_by_status(run, project):
    run("generate", "a cat", "--out", "cat.png", *FAST)
    (project / "cat.png").write_bytes(b"mine")
    seen = run("status", "task-1").json
    image = seen["images"][0]
    assert (None, False, ["wait", "task-1", "--out", str(project)]) == (
        image["path"], "bytes" in image, words_of(seen["next"]))


def test_a_task_that_was_given_up_and_is_completed_after_all_can_be_had(run, service):
    service.on_poll(failed("no cats"))
    assert 6 == run("generate", "a cat", *FAST).exit
    service.on_poll(completed())
    seen = run("status", "task-1").json
    assert ("completed", "yes", "wait") == (seen["status"], seen["charged"], words_of(seen["next"])[0])
    assert run(*words_of(seen["next"]), *FAST).json["images"][0]["path"]


def test_what_is_no_task_id_is_refused_before_it_is_looked_up(run):
    done = run("wait", "a/../b", "task-1")
    assert (2, "usage") == (done.exit, done.json["error"]["code"])


def test_status_puts_what_is_open_first_and_leads_to_no_other_services_orders(run, service):
    run("generate", "a cat", "--no-wait")
    service.on_post(refuse(400, "no"))
    for number in range(12):
        run("generate", f"refused {number}", *FAST)
    service.on_post(ok())
    with Service() as other:
        run("generate", "a dog", "--no-wait", base_url=other.base_url)
    seen = run("status").json
    assert {"a cat", "a dog"} == {order["prompt"] for order in seen["orders"][:2]}
    run(*words_of(seen["next"]), *FAST)
    assert run("status").json["next"] is None, "the other service's is not for this one to finish"


@pytest.mark.parametrize("text", [b"", b"\xef\xbb\xbf\n", b"# nothing\n"])
def test_a_batch_of_nothing_is_a_mistake(run, project, text):
    (project / "orders.txt").write_bytes(text)
    done = run("batch", "orders.txt")
    assert (2, True) == (done.exit, "holds no order" in done.json["error"]["message"])


@pytest.mark.parametrize("field", ['"out": "\\ud800/x.png"', '"image": "\\ud800.png"', '"image": "a\\u0000b.png"'])
def test_a_path_that_no_file_can_have_is_a_mistake_of_its_line(run, project, field):
    (project / "orders.jsonl").write_text(f'{{"prompt": "a cat", {field}}}')
    done = run("batch", "orders.jsonl", "--overwrite")
    assert (2, True) == (done.exit, "line 1" in done.json["error"]["message"]), done


def test_next_of_a_folder_that_is_called_like_a_picture_means_the_folder(run, service):
    service.on_poll(pending())
    answer = run("generate", "a cat", "--out", "foo.png/", "--timeout", "1", *FAST).json
    service.on_poll(completed())
    assert 0 == run(*words_of(answer["next"]), *FAST).exit


def test_files_are_no_folders_to_look_in(run, project):
    """Three hundred of them would hide the folder behind them."""
    for number in range(300):
        (project / f"{number:03d}.txt").touch()
    run("generate", "a cat", "--out", "zoo/cat.png", "--no-wait")
    assert ["a cat"] == [order["prompt"] for order in run("status").json["orders"]]


def test_a_task_whose_folder_cannot_be_written_is_saved_where_nothing_is_known_of_it(run, project, tmp_path):
    run("generate", "a cat", "--out", "art/cat.png", "--no-wait")
    denies = "import os\nreal = os.access\nos.access = lambda path, mode: not path.endswith('art') and real(path, mode)\n"
    (tmp_path / "sitecustomize.py").write_text(denies)  # root may write everywhere
    image = run("wait", "task-1", *FAST, env={"PYTHONPATH": tmp_path}).json["images"][0]
    assert image["path"].startswith(str(project / "image2-output"))
