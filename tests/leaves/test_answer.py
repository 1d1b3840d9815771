"""The one JSON object a run ends with: its members and its bounds."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image2_cli.answer import MAX_BYTES, build, line, of_error
from image2_cli.clock import Clock
from image2_cli.errors import Image2Error
from image2_cli.main import Main

quick = settings(max_examples=60, deadline=None, database=None)
values = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
                                st.text(max_size=30), st.just("\ud800")),
                      lambda inner: st.one_of(st.lists(inner, max_size=4),
                                              st.dictionaries(st.text(max_size=8), inner, max_size=4)), max_leaves=20)


def images(count: int, **more) -> list:
    return [{"index": index, "path": f"/x/{index}.png", "url": f"https://x/{index}.png", **more} for index in range(count)]


def test_every_answer_has_the_documented_members_and_what_is_not_true_is_left_out():
    assert {"ok": True, "status": "completed", "task_id": None, "charged": "no", "images": [], "error": None, "next": None,
            "sandbox": True} == build("completed", sandbox=True, resumed=None, warnings=None)


def test_an_error_without_an_order_is_a_whole_answer_too():
    answer = of_error(Image2Error("tls", "words", remedy="do this"))
    assert {"ok": False, "status": "tls", "task_id": None, "charged": "no", "images": [], "next": "do this",
            "error": {"code": "tls", "message": "words", "retryable": False}} == answer


@quick
@given(values)
def test_any_answer_is_one_line_of_utf8_json(value):
    data = line(build("x", odd=value))
    assert (1, True) == (data.count(b"\n"), data.endswith(b"\n"))
    assert {"odd"} >= set(json.loads(data)) - set(build("x"))


def test_a_number_that_is_no_json_is_never_printed():
    with pytest.raises(ValueError):
        line(build("x", progress=float("nan")))


@pytest.mark.parametrize("answer", [
    build("x", images=images(300, revised_prompt="very " * 100)), build("x", images=images(64, url="u" * 4000)),
    build("dry_run", request={"body": {"prompt": "猫" * 30_000}}), of_error(Image2Error("usage", "x" * 600_000)),
    build("x", warnings=["w" * 9000] * 5), build("listed", orders=[{"prompt": "p" * 3000}] * 10)],
    ids=["many", "long links", "prompt", "message", "warnings", "orders"])
def test_an_answer_is_bounded_and_still_json(answer):
    data = line(answer)
    assert len(data) <= 16_384 and MAX_BYTES <= 16_384, len(data)
    assert answer["ok"] is json.loads(data)["ok"]


def test_a_small_answer_is_printed_whole_and_paths_of_a_batch_are_not_cut():
    answer = build("x", images=images(10, revised_prompt="kept"))
    assert answer == json.loads(line(answer))
    batch = build("completed", files=["/x/" + "long " * 400] * 10, results="/x/results.jsonl")
    assert batch["files"] == json.loads(line(batch))["files"]


@pytest.mark.parametrize("place", ["{}", 'no "{}"', "100%25 {}"])
def test_the_key_is_in_no_value_of_an_answer_as_it_is_or_quoted(monkeypatch, place):
    key = 'canary"0123\\not/a<real>one'
    monkeypatch.setenv("IMAGE2_API_KEY", key)
    for spelled in (key, json.dumps(key)[1:-1], quote(key, safe="")):
        data = json.loads(Main(Clock())._data(build("x", warnings=[place.format(spelled)])))
        assert [place.format("(withheld)")] == data["warnings"]


def test_a_text_for_people_is_waited_for_by_nobody(monkeypatch):
    """With -v and a pipe that nobody reads, 0.3 s of waiting kept an accepted order from its record."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    with os.fdopen(writer, "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        started, command = time.monotonic(), Main(Clock())
        for _ in range(5):
            command._tell("words\n")
        assert time.monotonic() - started < 0.2
        os.close(reader)
