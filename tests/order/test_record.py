"""What passes for a record, what is passed over, and what an order may have cost."""

from __future__ import annotations

import json

import pytest
from image2_cli.order.record import (
    CHARGED,
    MAX_IMAGES,
    ImageError,
    Record,
    SavedImage,
    charged,
    end_of,
    is_file_name,
    moment,
    parse,
)

RECORD = Record("01234567-89ab-cdef-0123-456789abcdef", "f" * 32, "https://image2.vip", "accepted", request={"n": 2},
                stem="a-cat", images=[SavedImage(0)])
VALUE = json.loads(RECORD.as_text())


def read(**changes):
    return parse(json.dumps({**VALUE, **changes}).encode())


def test_what_is_written_is_what_is_read():
    assert RECORD == parse(RECORD.as_text().encode())
    assert '\n "state": "accepted"' in RECORD.as_text(), "people can read it"


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "id": "', b"null", b"[]", b"\xff\xfe{}", b"[" * 100_000],
                         ids=lambda content: repr(content[:16]))
def test_what_is_no_record_is_passed_over(content):
    assert parse(content) is None


WRONG = {
    "id": [None, 5, "../../../etc/passwd-0123456789abcdefg", "0" * 37], "state": [None, {}, "finished"],
    "service": [None, 5, "https://x/\u202e"], "fingerprint": [None, 5], "stem": ["../x", "a\0b", ".."],
    "request": [None, []], "task_id": [5, "", "..", "a/../b", "a b", "x" * 257], "version": [None, 1, "2"],
    "images": [None, {}, [{}] * (MAX_IMAGES + 1)],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values],
                         ids=repr)
def test_a_record_that_could_mislead_is_passed_over(field, value):
    assert read(**{field: value}) is None


@pytest.mark.parametrize(("changes", "name", "expected"), [
    *(({name: value}, name, 0) for name in ("created_s", "sent_s", "accepted_s", "sequence")
      for value in ("now", True, -1, float("nan"), 10**400, 1e11)),
    ({"status": "\x1b[2J\u202edone"}, "status", "[2Jdone"), ({"status": 5}, "status", None),
    ({"server_message": ["x"]}, "server_message", None), ({"overwrite": "yes"}, "overwrite", False),
    ({"suffix": "../x"}, "suffix", None), ({"suffix": ".png"}, "suffix", ".png"), ({"batch_line": "1"}, "batch_line", None),
    ({"request": {"n": True}}, "wanted", 0), ({"request": {"n": 11}}, "wanted", 0),
    ({"request": {"prompt": "a\u202e cat"}}, "prompt", "a cat"),
], ids=repr)
def test_an_odd_value_that_decides_nothing_is_as_if_it_were_not_there(changes, name, expected):
    assert expected == getattr(read(**changes), name)


@pytest.mark.parametrize(("entry", "expected"), [
    (5, SavedImage(0)), ({"index": 7, "file": "../x.png"}, SavedImage(0)), ({"file": "/etc/passwd"}, SavedImage(0)),
    ({"file": "a.png", "width": float("nan"), "height": "64", "bytes": -1}, SavedImage(0, file="a.png")),
    ({"url": "https://x/\x1b"}, SavedImage(0)), ({"part": "x", "sha256": 5}, SavedImage(0)),
    ({"error": {"code": "usage", "message": "x"}}, SavedImage(0)), ({"error": "x"}, SavedImage(0))], ids=repr)
def test_an_odd_entry_of_an_image_says_nothing_of_it(entry, expected):
    assert [expected] == read(images=[entry]).images


def test_the_message_of_an_image_s_error_is_never_read_from_a_file():
    (image,) = read(images=[{"error": {"code": "not_saved", "message": "OBEY", "server_message": "words"}}]).images
    assert ("words", False) == (image.error.as_json()["server_message"], "OBEY" in json.dumps(image.error.as_json()))


@pytest.mark.parametrize("name", ["we\\ird", ".hidden", "caf\u00e9\udce9", "a\nb", "10:30", "x" * 255])
def test_every_name_that_may_be_given_to_a_picture_may_stand_in_its_record(name):
    """`--out we\\ird.png` made a record that was never read again, so that the same command paid twice."""
    record = Record(RECORD.id, "f", "s", stem=name)
    assert record == parse(record.as_text().encode()) and is_file_name(name)


@pytest.mark.parametrize("state", CHARGED)
def test_what_an_order_may_have_cost_is_decided_by_its_record_alone(state):
    expected = {"not_sent": "no", "sending": "maybe", "unknown": "maybe", "failed": "maybe"}.get(state, "yes")
    record = Record("i", "f", "s", state)
    assert [expected, "no"] == [charged(record), charged(record, is_sandbox=True)]


@pytest.mark.parametrize("name", ["x" * 256, "", None, 5, ".", "..", "a/b", "a\0b"], ids=lambda name: repr(name)[:20])
def test_a_name_that_no_folder_takes_stands_in_no_record(name):
    assert not is_file_name(name)


def test_an_image_s_error_says_what_its_code_means_or_what_this_run_knows():
    assert ["The service made no picture of it.", "404"] == [
        error.as_json()["message"] for error in (ImageError("task_failed"), ImageError("task_failed", "404"))]


@pytest.mark.parametrize(("changes", "name", "expected"), [
    ({"request": {"n": 1}}, "wanted", 1), ({"request": {"n": 10}}, "wanted", 10), ({"request": {"n": 0}}, "wanted", 0),
    ({"created_s": 0.5}, "created_s", 0.5), ({"fingerprint": "f" * 64}, "fingerprint", "f" * 64),
    ({"status": "x" * 41}, "status", "x" * 39 + "\u2026"), ({"images": [{}] * MAX_IMAGES}, "images", [
        SavedImage(index) for index in range(MAX_IMAGES)])], ids=lambda value: repr(value)[:40])
def test_a_value_at_the_edge_of_what_may_stand_is_read(changes, name, expected):
    assert expected == getattr(read(**changes), name)


MADE, LOST = SavedImage(0, file="a.png"), SavedImage(0, error=ImageError("task_failed", server_message="too dark"))
UNSAVED, DAMAGED = SavedImage(0, error=ImageError("not_saved")), SavedImage(0, error=ImageError("damaged"))


@pytest.mark.parametrize(("state", "n", "images", "code", "words"), [
    ("partial", 3, [MADE], "some_failed", "2 of 3 images did not come"),
    ("partial", 3, [MADE, LOST], "some_failed", "2 of 3 images did not come"),
    ("partial", None, [MADE, LOST], "some_failed", "1 of 2 images did not come"),
    ("partial", 1, [MADE, MADE], None, ""), ("partial", 2, [MADE, UNSAVED], "not_saved", "1 of 2 images are paid for"),
    ("saved", 2, [MADE, DAMAGED], "damaged", "1 of 2 images cannot be used"), ("saved", 3, [MADE], None, ""),
    ("accepted", 3, [MADE, LOST], None, ""), ("linked", 3, [MADE], None, ""), ("not_sent", 1, [], None, ""),
    ("sending", 1, [], "outcome_unknown", "not repeated"), ("unknown", 1, [], "outcome_unknown", "not repeated"),
    ("failed", 2, [LOST], "task_failed", "The task failed")])
def test_how_an_order_stands_is_told_from_its_record(state, n, images, code, words):
    error = end_of(Record("i", "f", "s", state, request={"n": n}, images=images))
    assert (code, True) == (error and error.code, words in str(error))


def test_a_partial_order_tells_the_first_words_of_the_service():
    error = end_of(Record("i", "f", "s", "partial", request={"n": 2}, images=[MADE, LOST]))
    assert error and "too dark" == error.server_message


@pytest.mark.parametrize(("seconds", "expected"), [
    (1_700_000_000.0, "2023-11-1"), *((seconds, "earlier") for seconds in (0.0, -1.0, 4e9, 5e9, float("nan")))])
def test_a_time_nobody_can_have_written_is_not_told_as_one(seconds, expected):
    assert moment(seconds).startswith(expected)
