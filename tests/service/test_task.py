"""The service's JSON as values: whatever it sends is a task or `NotATask`, and its texts are harmless."""

from __future__ import annotations

import json
from typing import Any

import pytest
from image2_cli.service import task as service
from image2_cli.service.task import ImageResult, NotATask, Task, error_text, find_task_id, is_task_id, parse_json, parse_task

LINK = {"url": "https://x/1.png"}
WHOLE = {**LINK, "status": "completed"}
FAILED = {"url": None, "status": "failed"}
WAIT = {"url": None, "status": "pending"}


def parsed(**fields: Any) -> Task:
    return parse_task(fields)


def outcome(status: Any = None, *items: Any, wanted: int = 1, **fields: Any) -> str:
    return parsed(task_id="t-1", status=status, data=list(items), **fields).outcome(wanted)


# --- what is a task, and where it stands


def test_images_at_once_are_all_that_will_ever_come():
    at_once = parsed(created=1, data=[{"url": "https://x/1.png", "revised_prompt": "A cat"}, {"b64_json": "AAAA"}])
    images = (ImageResult(0, "https://x/1.png", None, "A cat"), ImageResult(1, None, "AAAA"))
    assert (Task(None, None, None, images), "done") == (at_once, at_once.outcome(4))
    assert "done" == parsed(status="processing", data=[LINK]).outcome(1)


@pytest.mark.parametrize("word", [*service.DONE, " SUCCEEDED "])
def test_a_word_for_done_is_done_but_for_one_with_an_error_in_place_of_images(word):
    assert "done" == outcome(word) == outcome(word, {"url": None}) == outcome(word, WHOLE, FAILED, wanted=2)
    assert "done" == outcome(word, FAILED, {"url": None, "status": word}, wanted=2)
    assert "failed" == outcome(word, error="output withheld") == outcome(word, FAILED, wanted=2)
    assert "done" == outcome(word, LINK, error="one was withheld", wanted=2)


@pytest.mark.parametrize("word", [*service.BAD_ENDS, "GENERATION_FAILED", "timed out", "Request Moderated"])
def test_a_word_that_holds_a_bad_end_is_one_unless_an_image_is_there(word):
    assert "failed" == outcome(word) == outcome(word, FAILED) == outcome(word, WAIT)
    assert "done" == outcome(word, FAILED, LINK, wanted=2)


@pytest.mark.parametrize("word", ["moderating", "Canceling", "error-checking"])
def test_a_stage_is_no_end_whatever_its_word_holds(word):
    assert "running" == outcome(word) == outcome(word, WAIT)


@pytest.mark.parametrize("word", [*service.WAITING, "In Progress"])
def test_a_word_of_waiting_is_done_only_with_all_images_and_all_progress(word):
    assert "running" == outcome(word) == outcome(word, LINK) == outcome(word, LINK, progress=99)
    assert "running" == outcome(word, LINK, progress=100, wanted=2) == outcome(word, FAILED, wanted=2)
    assert "running" == outcome(word, error="slow")  # three times in a row is another's business
    assert "done" == outcome(word, LINK, progress=100) == outcome(word, WHOLE)
    assert "failed" == outcome(word, FAILED)


@pytest.mark.parametrize("word", ["Ready", "not completed", None])
def test_any_other_word_is_done_as_soon_as_every_image_is_there(word):
    assert "running" == outcome(word) == outcome(word, LINK, wanted=2) == outcome(word, LINK, {"url": None}, wanted=2)
    assert "done" == outcome(word, LINK) == outcome(word, LINK, FAILED, wanted=2) == outcome(word, WHOLE, LINK, wanted=2)
    assert "failed" == outcome(word, FAILED, {"url": None, "error": "no"}, wanted=2)
    assert "running" == outcome(word, WAIT, error="x")


@pytest.mark.parametrize(("image", "there", "over"), [
    (ImageResult(0), False, False), (ImageResult(0, url="u"), True, False), (ImageResult(0, data="d"), True, False),
    (ImageResult(0, url="u", status="Completed"), True, True), (ImageResult(0, status="completed"), False, False),
    (ImageResult(0, url="u", status="failed"), True, True), (ImageResult(0, status="completed", error="no"), False, True),
    (ImageResult(0, status="pending", error="no"), False, False)])
def test_an_image_is_over_when_it_is_there_or_ended_otherwise(image, there, over):
    assert (there, over) == (image.is_there, image.is_over)


@pytest.mark.parametrize("value", [
    None, [{}], {}, {"task_id": "../x"}, {"data": [{"url": None}]}, {"status": 3}, {"status": "\u200b"}, {"task_id": True},
    {"task_id": 1.5}, {"task_id": 2**64}, {"task_id": -(2**63) - 1}, {"status": "success", "data": {"x": 1}},
    {"id": "req-1", "error": "no"}, {"id": "req-1", "code": 7, "message": "no"}])
def test_what_has_neither_id_nor_status_nor_images_is_no_task(value):
    with pytest.raises(NotATask):
        parse_task(value)


@pytest.mark.parametrize(("value", "expected"), [
    ({"task_id": "a", "taskId": "b", "id": "c"}, "a"), ({"task_id": None, "taskId": "b", "id": "c"}, "b"),
    ({"id": "c", "status": "failed", "error": "no"}, "c"), ({"task_id": 0}, "0"), ({"task_id": 2**64 - 1}, str(2**64 - 1)),
    ({"task_id": -(2**63)}, str(-(2**63))), ({"code": 0, "data": {"id": 7, "status": "x"}}, "7"),
    ({"id": "req", "data": {"task_id": "a"}}, "a"),
    ({"task_id": "a", "data": {"status": "x"}}, "a"), ({"id": "a", "status": "x", "data": {"progress": 5}}, "a")])
def test_the_id_is_found_under_its_names_and_below_data(value, expected):
    assert expected == parse_task(value).id


def test_a_wrapped_answer_is_unwrapped_and_the_status_around_it_is_not_the_tasks():
    inner = {"task_id": "t", "status": "pending", "progress": 5, "data": [WAIT]}
    assert parse_task(inner) == parse_task({"code": 0, "message": "success", "status": "success", "data": inner})
    assert "no" == parse_task({"code": 7, "error": {"message": "no"}, "data": {"task_id": "t"}}).error
    (image,) = parse_task({"task_id": "t", "status": "done", "data": {"url": "https://x"}}).images
    assert "https://x" == image.url


@pytest.mark.parametrize(("text", "good"), [
    ("x" * 256, True), ("...", True), ("a/b=+~:c_d-1", True), ("", False), ("a/../b", False), ("./a", False),
    ("x" * 257, False), ("a\n", False), ("a%2f", False), ("é", False), ("a?b", False), (5, False)])
def test_only_a_plain_text_may_become_part_of_a_url(text, good):
    assert good is is_task_id(text)


@pytest.mark.parametrize(("sent", "seen"), [
    (0, 0), (45.5, 45.5), ("50", None), (True, None), (float("nan"), None), (10**400, None), (1e9, None),
    (-1e9, None)])
def test_an_odd_progress_is_no_news_and_no_error(sent, seen):
    progress = parsed(status="pending", progress=sent).progress
    assert (seen, type(seen)) == (progress, type(progress))


def test_ten_thousand_items_are_not_an_answer_to_an_order_of_ten():
    """And an item that is no object keeps its place."""
    images = parsed(status="completed", data=[None, *({"url": f"https://x/{i}"} for i in range(10_000))]).images
    assert (64, ImageResult(0), ImageResult(63, "https://x/62")) == (len(images), images[0], images[-1])


@pytest.mark.parametrize(("item", "url", "data"), [
    ({"url": " http://H/my red fox.png\n"}, "http://H/my red fox.png", None),
    ({"url": "//H/图/狐.png"}, "//H/图/狐.png", None), ({"url": "https://x/\u202egnp.exe"}, None, None),
    ({"url": "x" * 4096}, "x" * 4096, None), ({"url": "x" * 4097}, None, None),
    ({"url": 5, "b64_json": 6}, None, None), ({"url": " ", "b64_json": ""}, None, None),
    ({"url": "data:image/png;base64,AA=="}, None, "data:image/png;base64,AA=="),
    ({"url": "https://x", "b64_json": "AA=="}, "https://x", "AA==")])
def test_a_link_stays_as_it_came_unless_it_deceives_and_a_data_uri_is_data(item, url, data):
    (image,) = parsed(status="done", data=[item]).images
    assert (url, data) == (image.url, image.data)


# --- the service's words


@pytest.mark.parametrize(("value", "expected"), [
    ({"error": {"detail": {"msg": "words"}}}, "words"), ({"code": "words"}, "words"),
    ({"message": "", "error": "words"}, "words"), ({"error": {"a": {"b": {"c": {"message": "too deep"}}}}}, None),
    ({"message": None, "other": "x"}, None), ({"error": {"code": 5}}, None), ({"error": {"x": "y"}}, "x: y"),
    (None, None), ({"error": True}, None), (["a", {"msg": "b"}], "a; b"),
    ({"error": {"message": "words", "code": "x"}}, "words"), ({"title": "words", "status": 400}, "words"),
    ({"errors": [{"message": "words"}]}, "words"), ({"errors": {"size": ["words"]}}, "size: words"),
    ({"message": "failed", "errors": ["words"]}, "failed: words"), ({"code": 1, "data": None, "msg": "words"}, "words"),
    ({"detail": [{"loc": ["body", "size"], "msg": "words", "type": "value_error"}]}, "body.size: words"),
    ({"statusCode": 400, "message": ["words"], "error": "Bad Request"}, "words")])
def test_words_are_found_in_every_shape_and_at_any_depth_that_is_sane(value, expected):
    assert expected == error_text(value)


@pytest.mark.parametrize(("fields", "expected"), [
    ({"error": {"code": "policy", "message": "refused"}}, "refused"), ({"error": True}, "True"), ({"error": []}, None),
    ({"message": "blocked by us"}, "blocked by us"), ({"fail_reason": "x"}, "x"),
    ({"data": [WAIT, {"error": "too dark"}]}, "too dark")])
def test_a_failed_task_keeps_its_reason(fields, expected):
    assert expected == parsed(status="failed", **fields).reason
    assert parsed(status="pending", message="success").error is None


# --- bytes to JSON


@pytest.mark.parametrize("raw",
    [b"", b'{"a":', b"[" * 100_000, b'{"a":' * 100_000, b"{}{}"])
def test_what_is_no_json_is_not_a_task(raw):
    with pytest.raises(NotATask, match="not JSON"):
        parse_json(raw)


def test_10_000_items_of_many_fields_are_json_and_far_more_are_not_parsed():
    items = [dict.fromkeys("abcdefghijklmnopqrst")] * 10_000
    assert items == parse_json(json.dumps(items).encode())
    for raw in (b"0," * 250_000, b"[[[[]]]]," * 60_000, b'{"a":{}},' * 90_000):
        with pytest.raises(NotATask):
            parse_json(b"[%s0]" % raw)


@pytest.mark.parametrize(("raw", "value"), [
    (b"\xef\xbb\xbf{}", {}), (b'{"a": NaN, "b": -Infinity}', {"a": None, "b": None}),
    (b'{"a": 1, "a": 2}', {"a": 2}), (b'"\xff"', "\ufffd"), (b"18446744073709551615", 2**64 - 1),
    pytest.param(b"9" * 5_000_000, None, id="five million digits"),
    (b'"%s x"' % (b"A" * 300), "… x"),
    (b'{"url": "%s"}' % (b"A" * 300), {"url": "A" * 300}),
    (b'[{"b64_json": "%s"}]' % (b"A" * 999), [{"b64_json": "A" * 999}]),
    (('"' + "猫" * 400 + '"').encode(), "猫" * 400)])
def test_json_is_read_as_leniently_as_is_safe_and_without_long_runs(raw, value):
    assert value == parse_json(raw)


@pytest.mark.parametrize(("raw", "expected"), [
    (b'{"created": 1, "task_id": "t-1", "sta', "t-1"), (b'{"task_id"\n :\t"a.b:c_d-9"', "a.b:c_d-9"),
    (b'{"taskId": "t-1", "sta', "t-1"), (b'{"code": 0, "data": {"id": "t-1", "s', "t-1"),
    (b'{"task_id": "dGFz\\/ay0=", "s', "dGFz/ay0="), (b'{"task_id": 1894052936412340224,', "1894052936412340224"),
    (b'{"task_id": 1894052936412', None), (b'{"task_id": 1894052936412.5, ', None),
    (b'{"task_id": 999999999999999999999, ', None),
    (b'{"id": "req-1", "error": {"mess', None), (b'{"error": {"id": "req-1"', None), (b'{"data": [{"id": "img-1", ', None),
    (b'{"task_id": "t-1', None), (b'{"task_id": ".."}', None), (b'{"task_id": "' + b"x" * 257 + b'"', None),
    (b'{"message": "no \\"task_id\\": \\"evil\\""}', None), (b'\xff\x00"task_id":"t-1"\xff', "t-1"), (b"", None)])
def test_a_task_id_is_found_in_the_bytes_of_a_spoiled_answer(raw, expected):
    assert expected == find_task_id(raw) == find_task_id(bytearray(raw))
