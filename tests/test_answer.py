"""The one JSON object a run ends with: the members everybody relies on, nothing that only costs words."""

import json
import shlex
import subprocess
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image2_cli import answer
from image2_cli.errors import CODES, NO_PICTURE, Image2Error, of_image
from image2_cli.service.task import ImageResult, Task
from platforms import needs_posix

quick = settings(max_examples=100, deadline=None, database=None)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
MEMBERS = ["ok", "status", "task_id", "charged", "images", "error", "next"]
PROMPT = "a red fox in snow"


def order(charged="yes", **known):
    """What `answer` reads of an order."""
    given = {"task": None, "record": None, "images": [], "task_id": "t-1", "resumed": False, "warnings": []}
    return SimpleNamespace(charged=charged, **{**given, **known})


def saved(index=0, **more):
    return {"index": index, "path": f"/out/fox-{index}.png", "width": 1024, "height": 1024, "sha256": "ab" * 32,
            "url": f"https://image2.vip/generations/{index}.png", "revised_prompt": PROMPT, "error": None, **more}


def task(status="completed", progress=None, *images):
    return Task("t-1", status, progress, images)


def test_an_order_that_went_well_has_the_documented_answer():
    made = order(task=task(), images=[saved(revised_prompt="A fox")], record={"request": {"prompt": PROMPT}})
    told = answer.of_order(made)
    assert {"ok": True, "status": "completed", "task_id": "t-1", "charged": "yes",
            "images": [{"index": 0, "path": "/out/fox-0.png", "width": 1024, "height": 1024,
                        "url": "https://image2.vip/generations/0.png", "revised_prompt": "A fox"}],
            "error": None, "next": None} == told
    assert MEMBERS == list(told)


def test_a_revised_prompt_that_only_repeats_the_prompt_is_left_out():
    record = {"request": {"prompt": "a  red fox\nin snow"}}
    (image,) = answer.of_order(order(task=task(), images=[saved()], record=record))["images"]
    assert "revised_prompt" not in image


@pytest.mark.parametrize("record", [None, {}, {"request": None}, {"request": {}}])
def test_an_order_that_was_not_recorded_here_has_no_prompt_to_compare_with(record):
    (image,) = answer.of_order(order(task=task(), images=[saved()], record=record))["images"]
    assert PROMPT == image["revised_prompt"]


def test_an_image_that_is_not_there_keeps_its_place_with_path_and_url_null():
    error = {"code": "task_failed", "message": "no"}
    image = {"index": 1, "path": None, "url": None, "revised_prompt": None, "error": error}
    told = answer.of_order(order(task=task(), images=[saved(), image]), Image2Error("some_failed", "words"))
    assert {"index": 1, "path": None, "url": None, "error": error} == told["images"][1]
    assert (False, "yes", "some_failed") == (told["ok"], told["charged"], told["error"]["code"])


def test_before_any_is_saved_the_images_are_those_of_the_task_that_can_be_had_or_failed():
    seen = task("processing", 50, ImageResult(0, "https://x/0.png", None, "A fox"), ImageResult(1),
                ImageResult(2, error="dark"), ImageResult(3, data="AAAA"))
    told = answer.of_order(order(task=seen))
    assert [{"index": 0, "path": None, "url": "https://x/0.png", "revised_prompt": "A fox"},
            {"index": 2, "path": None, "url": None, "error": of_image("task_failed", NO_PICTURE, "dark")}] == told["images"]


@pytest.mark.parametrize(("status", "of_task", "error", "expected"), [
    ("submitted", "pending", None, "submitted"), (None, "queued", None, "queued"),
    (None, "queued", "still_running", "queued"),
    (None, None, "still_running", "still_running"), (None, None, None, "completed")])
def test_the_status_is_ours_where_given_else_the_services_word_else_the_code(status, of_task, error, expected):
    told = answer.of_order(order(task=task(of_task)), Image2Error(error, "words") if error else None, status)
    assert expected == told["status"]


def test_without_a_task_the_status_is_the_code():
    told = answer.of_order(order("no", task_id=None), Image2Error("network", "words"))
    assert ("network", None, []) == (told["status"], told["task_id"], told["images"])


@pytest.mark.parametrize(("charged", "error", "expected"), [
    ("yes", None, "yes"), ("yes", "network", "yes"), ("yes", "not_saved", "yes"),
    ("maybe", "outcome_unknown", "maybe"),
    ("maybe", "network", "maybe"), ("no", "network", "no"), ("no", "outcome_unknown", "maybe"),
    ("no", "internal", "maybe"),
    ("yes", "task_failed", "maybe"), ("no", None, "no")])
def test_charged_speaks_of_the_order(charged, error, expected):
    made = order(charged, task=task(), record={"request": {}})
    assert expected == answer.of_order(made, Image2Error(error, "words") if error else None)["charged"]
    assert "no" == answer.of_order(made, Image2Error(error, "words") if error else None, stand_in=True)["charged"]


@pytest.mark.parametrize(("record", "expected"), [(None, "maybe"), ({"state": "submitted"}, "yes")])
def test_a_task_the_service_does_not_know_is_paid_for_only_if_a_record_says_so(record, expected):
    assert expected == answer.of_order(order("yes", record=record), Image2Error("task_not_found", "words"))["charged"]


def test_what_is_not_true_is_left_out_and_what_is_true_is_told_once():
    plain = answer.of_order(order(task=task("pending", 40)))
    assert [*MEMBERS, "progress"] == list(plain)
    told = answer.of_order(order(task=task("pending", 0), resumed=True, warnings=["b", "a", "b"]), stand_in=True,
                           next_command="image2.py wait")
    assert (True, True, ["b", "a"], 0) == (told["sandbox"], told["resumed"], told["warnings"], told["progress"])
    assert "image2.py wait" == told["next"]
    assert "progress" not in answer.of_order(order(task=task("completed", 100)))


@pytest.mark.parametrize("code", CODES)
def test_an_error_without_an_order_is_a_whole_answer_too(code):
    told = answer.of_error(Image2Error(code, "words", http_status=500, remedy="cmd"))
    assert MEMBERS == list(told)
    assert (False, code, None, CODES[code][1], [], "cmd") == (
        told["ok"], told["status"], told["task_id"], told["charged"], told["images"], told["next"])
    assert {"code": code, "message": "words", "retryable": CODES[code][2], "http_status": 500} == told["error"]


def test_a_verb_that_makes_nothing_says_what_it_found():
    told = answer.plain("ready", checks=[1])
    assert [*MEMBERS, "checks"] == list(told)
    assert {"ok": True, "status": "ready", "task_id": None, "charged": "no", "images": [], "error": None, "next": None,
            "checks": [1]} == told


# --- its text


def test_the_text_is_one_line_readable_in_any_script():
    line = answer.text({"status": "完成", "images": [], "message": "two\nlines\u2028\x00\x1b"})
    assert "完成".encode() in line
    assert line.endswith(b"\n") and 1 == line.count(b"\n") and b"\x1b" not in line
    assert b'{"status": ' in line


def test_a_lone_surrogate_does_not_break_the_text():
    assert {"a": "x?y", "images": []} == json.loads(answer.text({"a": "x\ud800y", "images": []}))


def test_a_number_that_is_no_json_is_never_printed():
    with pytest.raises(ValueError, match="JSON"):
        answer.text({"a": float("nan"), "images": []})


def test_an_answer_is_bounded_and_says_what_it_left_out():
    words = "w" * 1000
    many = [saved(index, url="https://x/" + "u" * 300, revised_prompt=words) for index in range(50)]
    told = json.loads(answer.text({**answer.plain("completed"), "images": many}))
    assert [image["path"] for image in many] == [image["path"] for image in told["images"]]
    assert not [image for image in told["images"] if "revised_prompt" in image or "url" in image]
    unsaved = [saved(index, path=None, url="https://x/" + "u" * 4000, revised_prompt=words) for index in range(50)]
    line = answer.text({**answer.plain("completed"), "images": unsaved, "warnings": ["old"]})
    assert len(line) <= answer.MAX_BYTES
    told = json.loads(line)
    assert list(range(10)) == [image["index"] for image in told["images"]]
    assert all(len(image["url"]) > 4000 and "revised_prompt" not in image for image in told["images"])
    assert ["old", "40 more images are left out here."] == told["warnings"]


def test_a_small_answer_is_printed_whole():
    told = {**answer.plain("completed"), "images": [saved()]}
    assert told == json.loads(answer.text(told))


def test_every_text_of_an_answer_can_be_changed_but_not_its_shape():
    value = {"a": "x", "b": ["x", {"x": ("x", 1)}], "c": None, "d": 1.5, "e": True}
    assert {"a": "X", "b": ["X", {"x": ["X", 1]}], "c": None, "d": 1.5, "e": True} == answer.changed(value, str.upper)


@quick
@given(st.recursive(TEXT | st.none() | st.integers(), max_leaves=8, extend=lambda inner:
                    st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3)))
def test_any_answer_is_one_line_of_utf8_json(value):
    line = answer.text({"value": value, "images": []})
    assert 1 == line.count(b"\n") and isinstance(json.loads(line.decode("utf-8")), dict)


# --- what it costs


def tokens(told, *apart) -> float:
    """Characters / 4, without the paths and prompts."""
    return (len(answer.text(told).decode()) - sum(map(len, apart))) / 4


def test_an_answer_keeps_to_its_budget():
    one = answer.of_order(order(task=task(), images=[saved()], record={"request": {"prompt": PROMPT}}))
    assert tokens(one, saved()["path"]) <= 130
    four = answer.of_order(order(task=task(), images=[saved(i) for i in range(4)], record={"request": {"prompt": PROMPT}}))
    assert tokens(four, *[saved(i)["path"] for i in range(4)]) <= 250


# --- a command that runs as it stands


@needs_posix
@pytest.mark.parametrize("words",
    [["a", "b c"], ["it's", '"', "$HOME", "`id`", ";", "*", "", "\n", "猫", "--x=y", "\\"]])
def test_a_command_runs_as_it_stands(words):
    command = answer.shell(words)
    assert words == shlex.split(command)
    printed = subprocess.run(["sh", "-c", "printf '%s\\0' " + command], capture_output=True, check=True).stdout
    assert words == printed.decode().split("\0")[:-1]


def test_on_windows_a_command_is_quoted_as_windows_does(monkeypatch):
    monkeypatch.setattr(answer, "os", SimpleNamespace(name="nt"))
    assert 'python3 "C:\\a b\\image2.py" wait' == answer.shell(["python3", "C:\\a b\\image2.py", "wait"])
