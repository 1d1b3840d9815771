"""`status` and `wait` with a task's id: fresh agents looked a finished task up, and were left without its pictures."""

from __future__ import annotations

import shlex

import pytest
from faulty import completed, pending
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


def test_tasks_in_two_folders_that_still_run_are_gone_on_with_one_folder_at_a_time(run, service, project):
    service.on_poll(pending())
    for name in ("one", "two"):
        run("generate", f"number {name}", "--out", f"{name}/{name}.png", "--no-wait")
    answer = run("wait", "task-1", "task-2", "--timeout", "1", *FAST).json
    assert ("still_running", ["wait", "--out", str(project / "one")]) == (
        answer["error"]["code"], words_of(answer["next"]))
