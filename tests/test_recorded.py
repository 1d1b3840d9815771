"""What passes for a record, and what is passed over: one file, read as a later run reads it."""

import json
import os
import time

import pytest
from image2_cli.order import output as place
from image2_cli.order import record as recorded
from image2_cli.order.record import MAX_RECORD, SENDING, STATES, SUBMITTED, UNKNOWN, Record
from platforms import needs_posix

# every member at an edge of what is allowed
RECORD = {"version": 1, "id": "01234567-89ab-cdef-0123-456789abcdef", "created_s": 0, "sent_s": 1e11 - 1,
          "state": SUBMITTED, "service": "", "fingerprint": "", "request": {}, "stem": "", "overwrite": False,
          "task_id": None, "accepted_s": None, "status": None, "suffix": None, "images": [{"index": 0}], "error": None}


@pytest.fixture
def read(tmp_path):
    """Write a record, or bytes, and read it."""
    def bound(value=None, **changes):
        path = tmp_path / ".image2" / "one.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(value if value is not None else json.dumps({**RECORD, **changes}).encode())
        return recorded.read(str(path))

    return bound


def test_a_record_is_read_with_its_path(read, tmp_path):
    record = read()
    assert (RECORD, str(tmp_path / ".image2" / "one.json")) == (dict(record), record.path)


@pytest.mark.parametrize("content", [
    b"", b'{"version": 1, "id": "', b"null", b"[]", b"3", b"1e999", b"\xff\xfe{}", b"[" * 100_000, bytes(1000),
    b'{"version": 2, "id": "01234567-89ab-cdef-0123-456789abcdef"}'], ids=lambda content: repr(content[:16]))
def test_what_is_no_record_is_passed_over(read, content):
    assert read(content) is None


@pytest.mark.parametrize(("size", "is_read"), [(MAX_RECORD, True), (MAX_RECORD + 1, False)])
def test_the_largest_record_is_read_and_no_larger_file(read, size, is_read):
    assert 8_000_000 == MAX_RECORD
    assert is_read is (read(json.dumps(RECORD).encode().ljust(size)) is not None)


@pytest.mark.parametrize("what", [
    "nothing", "a folder", *(pytest.param(what, marks=needs_posix) for what in ("a FIFO", "a dangling link", "a device"))])
def test_what_is_no_file_is_passed_over(tmp_path, what):
    path = tmp_path / "one.json"
    {"nothing": lambda: None, "a folder": path.mkdir, "a FIFO": lambda: os.mkfifo(path),
     "a dangling link": lambda: path.symlink_to("nowhere"), "a device": lambda: path.symlink_to("/dev/zero")}[what]()
    assert recorded.read(str(path)) is None


def test_a_file_of_another_kind_is_not_read(tmp_path):
    (tmp_path / "one.json.data").write_text(json.dumps(RECORD))
    assert recorded.read(str(tmp_path / "one.json.data")) is None


WRONG = {
    "id": [None, 5, "", "../../../etc/passwd-0123456789abcdefg", "x" * 36, [], "0" * 35, "0" * 37],
    "state": [None, 5, "odd", [], {}], "service": [None, 5, []], "fingerprint": [None, 5],
    "stem": [None, 5, "../x", "a/b", "/etc/cron.d/x", "a\0b"], "request": [None, [], "text"],
    "task_id": [5, "", "..", "a/b", "a b", [], "x" * 129], "status": [5, [], {}], "suffix": [5, []],
    "created_s": ["now", True, -1, float("nan"), float("inf"), 10**400, 10**11],
    "sent_s": ["now", [], float("nan"), 10**400],
    "accepted_s": ["now", float("inf"), {}], "version": [None, 0, 2, "1"],
    "images": [None, {}, "x", [1], [[]], [None], [{}], [{"index": "0"}], [{"index": []}], [{"index": 0, "path": 5}],
               [{"index": 0, "url": []}], [{"index": 0, "error": "x"}], [{"index": 0, "sha256": 1}],
               [{"index": 0, "revised_prompt": {}}], [{"index": 0}, {"index": True}]],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_record_of_wrong_types_is_passed_over(read, field, value):
    assert read(**{field: value}) is None


@pytest.mark.parametrize("field", ["version", "id", "state", "service", "fingerprint", "stem", "request", "images"])
def test_a_record_without_a_field_is_passed_over(read, field):
    assert read(json.dumps({name: value for name, value in RECORD.items() if name != field}).encode()) is None


@pytest.mark.parametrize("field", recorded.OPTIONAL)
def test_a_field_that_an_older_version_did_not_write_is_none(read, field):
    assert read(json.dumps({name: value for name, value in RECORD.items() if name != field}).encode())[field] is None


@pytest.mark.parametrize("state", STATES)
def test_an_order_whose_pictures_were_kept_is_known_to_be_accepted(read, tmp_path, state):
    """Killed after the answer was kept and before the record said so."""
    assert state == read(state=state)["state"]
    (tmp_path / ".image2" / "one.json.data").touch()
    assert (SUBMITTED if state in (SENDING, UNKNOWN) else state) == read(state=state)["state"]


@pytest.mark.parametrize("name", ["we\\ird", "a b", ".hidden", "caf\u00e9\udce9", "a\nb", "x" * 200])
def test_every_name_that_may_be_given_to_a_picture_may_stand_in_its_record(read, name):
    """`--out we\\ird.png` made a record that was never read again, so that the same command paid twice."""
    stem = place.resolve(f"{name}.png").stem
    assert stem == read(stem=stem)["stem"]


def test_a_record_that_was_moved_with_its_pictures_knows_where_they_are(read, tmp_path):
    before, here = tmp_path / "before", str(tmp_path / "cat.png")
    paths = [str(before / "cat.png"), str(before / "gone.png"), None, ""]
    images = [{"index": 0, "path": path} for path in paths]
    assert paths == [image["path"] for image in read(images=images).images]
    (tmp_path / "cat.png").touch()
    assert [here, *paths[1:]] == [image["path"] for image in read(images=images).images]
    before.mkdir()
    (before / "cat.png").touch()  # it was copied, not moved
    assert paths == [image["path"] for image in read(images=images).images]


@pytest.mark.parametrize("width", [float("nan"), "64", [64], True, {}])
def test_a_side_of_a_picture_that_is_no_number_is_not_known(read, width):
    """NaN is no JSON: the answer that carried it was left out, with exit 0."""
    assert [{"index": 0, "width": None, "height": 64}] == read(images=[{"index": 0, "width": width, "height": 64}]).images


def test_an_order_is_as_old_as_its_last_sending_and_never_of_the_future():
    assert 100 == pytest.approx(Record(sent_s=time.time() - 100, created_s=0).age_s, abs=5)
    assert 0 == Record(sent_s=time.time() + 3600).age_s


@pytest.mark.parametrize("sent", [None, 0])
def test_an_order_without_a_time_is_older_than_any_bound(sent):
    assert time.time() - 5 < Record(sent_s=sent).age_s
