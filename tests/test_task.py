"""The service's JSON as values: whatever it sends is a task or `NotATask`, and its texts are harmless."""

import json
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from image2_cli.service import task as room
from image2_cli.service.task import (
    ImageResult,
    NotATask,
    Task,
    clean,
    error_text,
    find_task_id,
    is_task_id,
    parse_json,
    parse_task,
    without,
)

quick = settings(max_examples=150, deadline=None, database=None)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
                    max_leaves=12)
WORDS = st.sampled_from(["completed", "Succeeded", "failed", "pending", "EXPIRED", "", "done", "\u202e", None, 7])
ITEM = st.dictionaries(st.sampled_from(["url", "b64_json", "revised_prompt", "status", "error"]),
                       JSON | WORDS | st.sampled_from(["https://x/a.png", "data:image/png;base64,AA=="]), max_size=5)
TASKISH = st.fixed_dictionaries({}, optional={
    "task_id": JSON | st.sampled_from(["t-1", "..", "a/b", 5, "x" * 129]), "status": WORDS | JSON, "progress": JSON,
    "data": st.lists(ITEM | JSON, max_size=5) | JSON, "error": JSON})
KEY = "canary-0123-not-a-real-one"


def parsed(**fields) -> Task:
    return parse_task(fields)


def outcome(status=None, *items) -> str:
    return parsed(task_id="t-1", status=status, data=list(items)).outcome


# --- what is a task, and where it stands


def test_the_pages_answers_are_read_as_they_stand():
    accepted = parsed(created=1, task_id="batch-uuid-example", status="pending", data=[{"url": None, "status": "pending"}])
    assert Task("batch-uuid-example", "pending", None, (ImageResult(0, status="pending"),)) == accepted
    done = parsed(created=1, task_id="t", status="completed", progress=100, error=None, data=[
        {"url": "https://image2.vip/generations/img_abc123.png", "revised_prompt": "A cute cat", "status": "completed"}])
    image = ImageResult(0, "https://image2.vip/generations/img_abc123.png", None, "A cute cat", "completed")
    assert Task("t", "completed", 100, (image,)) == done
    at_once = parsed(created=1, data=[{"url": "https://x/1.png", "revised_prompt": "A cat"}, {"b64_json": "AAAA"}])
    assert (None, None, "done") == (at_once.id, at_once.status, at_once.outcome)
    assert ((0, "https://x/1.png", None), (1, None, "AAAA")) == tuple((i.index, i.url, i.data) for i in at_once.images)


@pytest.mark.parametrize("word",
    ["completed", "Completed", "SUCCEEDED", "success", "done", "complete", "finished", " done "])
def test_every_word_for_done_is_done(word):
    assert "done" == outcome(word)


@pytest.mark.parametrize("word", [
    "failed", "Failed", "cancelled", "canceled", "EXPIRED", "rejected", "error", "failure", "errored", "timeout",
    "timed_out",
    "aborted"])
def test_every_word_for_over_is_failed_unless_an_image_is_there(word):
    assert "failed" == outcome(word)
    assert "failed" == outcome(word, {"status": "failed"})
    assert "done" == outcome(word, {"url": None, "status": "failed"}, {"url": "https://x/1.png"})


@pytest.mark.parametrize("word",
    ["pending", "processing", "queued", "in_progress", "moderating", "完成", "not completed"])
def test_an_unknown_word_means_still_running(word):
    assert "running" == outcome(word)
    assert "running" == outcome(word, {"url": "https://x/1.png", "status": "completed"}, {"url": None, "status": word})


@pytest.mark.parametrize(("items", "expected"), [
    ([{"url": "https://x/1.png", "status": "completed"}, {"url": None, "status": "failed"}], "done"),
    ([{"url": None, "status": "failed"}, {"url": None, "status": "Cancelled"}], "failed"),
    ([{"url": "https://x/1.png", "status": "completed"}, {"url": None, "status": "completed"}], "running"),
    ([{"url": "https://x/1.png"}, {"url": "https://x/2.png"}], "done"),
    ([{"url": "https://x/1.png"}, {"url": None, "status": "failed"}], "done"),
    ([{"url": "https://x/1.png"}, {"url": None}], "running"),
    ([{"url": None, "status": "pending"}], "running"),
    ([], "running"),
])
def test_without_a_status_of_its_own_a_task_stands_where_its_images_stand(items, expected):
    assert expected == outcome(None, *items)


def test_a_task_that_is_done_but_whose_images_all_failed_has_failed():
    assert "failed" == outcome("completed", {"url": None, "status": "failed"}, {"url": None, "status": "rejected"})
    assert "done" == outcome("completed", {"url": None, "status": "failed"}, {"url": None, "status": "completed"})
    assert "done" == outcome("completed", {"url": None})


def test_a_task_that_is_pending_but_whose_images_are_all_over_is_over():
    assert "done" == outcome("pending", {"url": "https://x/1.png", "status": "completed"})
    assert "failed" == outcome("pending", {"url": None, "status": "failed"})
    assert "running" == outcome("pending", {"url": "https://x/1.png"})


@pytest.mark.parametrize(("image", "there", "over"), [
    (ImageResult(0), False, False),
    (ImageResult(0, url="u"), True, False),
    (ImageResult(0, data="d"), True, False),
    (ImageResult(0, url="u", status="Completed"), True, True),
    (ImageResult(0, status="completed"), False, False),
    (ImageResult(0, status="FAILED"), False, True),
    (ImageResult(0, url="u", status="failed"), True, True),
    (ImageResult(0, url="u", status="pending"), True, False),
])
def test_an_image_is_over_when_it_is_there_or_ended_otherwise(image, there, over):
    assert (there, over) == (image.is_there, image.is_over)


@pytest.mark.parametrize("value", [
    None, 1, "completed", [], [{}], {}, {"task_id": None}, {"task_id": "../x"}, {"data": []}, {"data": [{}]},
    {"data": [{"url": None}]}, {"data": {"url": "https://x"}}, {"status": ""}, {"status": 3}, {"status": "\u200b"},
    {"error": "no"}, {"task_id": True}, {"task_id": 1.5}, {"task_id": 10**18}, {"task_id": -5 * 10**18}])
def test_what_has_neither_id_nor_status_nor_images_is_no_task(value):
    with pytest.raises(NotATask):
        parse_task(value)


@pytest.mark.parametrize("value", [{"task_id": "t"}, {"status": "x"}, {"data": [{"url": "https://x"}]},
                                   {"data": [{"status": "pending"}]}, {"data": [{"b64_json": "AA"}]}])
def test_any_one_of_id_status_and_images_makes_a_task(value):
    assert isinstance(parse_task(value), Task)


@pytest.mark.parametrize(("sent", "seen"), [
    (123, "123"), (0, "0"), (10**18 - 1, "9" * 18), (10**18, None), (-7, "-7"), (True, None), ("a" * 128, "a" * 128),
    ("a" * 129, None), (["t"], None)])
def test_a_numeric_task_id_is_taken_and_a_strange_one_is_not(sent, seen):
    assert seen == parsed(task_id=sent, status="pending").id


@pytest.mark.parametrize(("text", "good"), [
    ("batch-uuid-example", True), ("a.b_c:d-1", True), ("x", True), ("x" * 128, True), ("...", True), (".a", True),
    ("", False), (".", False), ("..", False), ("x" * 129, False), ("a/b", False), ("a b", False), ("a\n", False),
    ("a%2f", False), ("é", False), ("a?b", False), ("a;b", False), (None, False), (b"a", False), (5, False)])
def test_only_a_plain_text_may_become_part_of_a_url(text, good):
    assert good is is_task_id(text)


@pytest.mark.parametrize(("sent", "seen"), [
    (0, 0), (45.5, 45.5), (100, 100), (250, 250), (-3, -3), (None, None), ("50", None), (True, None), (False, None),
    (float("inf"), None), (float("-inf"), None), (float("nan"), None), (10**400, None), (1e9, None), (-1e9, None),
    (999_999_999.5, 999_999_999.5), (-999_999_999.5, -999_999_999.5),
    ([5], None)])
def test_an_odd_progress_is_no_news_and_no_error(sent, seen):
    progress = parsed(status="pending", progress=sent).progress
    assert (seen, type(seen)) == (progress, type(progress))


def test_ten_thousand_items_are_not_an_answer_to_an_order_of_ten():
    task = parsed(status="completed", data=[{"url": "https://x/%d" % i} for i in range(10_000)])
    assert list(range(64)) == [image.index for image in task.images]


def test_an_item_that_is_no_object_keeps_its_place():
    task = parsed(status="completed", data=[None, {"url": "https://x"}, 5])
    assert (ImageResult(0), ImageResult(1, "https://x"), ImageResult(2)) == task.images


@pytest.mark.parametrize(("item", "url", "data"), [
    ({"url": "https://x/a b.png"}, None, None),
    ({"url": "https://x/\u202egnp.exe"}, None, None),
    ({"url": "https://x/\x1b[2J"}, None, None),
    ({"url": "https://x/\n"}, None, None),
    ({"url": "https://x/\ud800"}, None, None),
    ({"url": "https://" + "x" * 4088}, "https://" + "x" * 4088, None),
    ({"url": "https://" + "x" * 4089}, None, None),
    ({"url": 5, "b64_json": 6}, None, None),
    ({"url": "", "b64_json": ""}, None, None),
    ({"url": "data:image/png;base64,AA=="}, None, "data:image/png;base64,AA=="),
    ({"url": "https://x", "b64_json": "AA=="}, "https://x", "AA=="),
])
def test_a_url_that_could_deceive_is_none_and_a_data_uri_is_data(item, url, data):
    (image,) = parsed(status="done", data=[item]).images
    assert (url, data) == (image.url, image.data)


def test_texts_are_cut_to_their_bounds():
    item = {"revised_prompt": "p" * 5_000_000, "status": "s" * 100, "error": "e" * 300}
    task = parsed(status="S" * 100, error={"message": "m" * 300}, data=[item])
    (image,) = task.images
    texts = (task.status, task.error, image.revised_prompt, image.status, image.error)
    assert (40, 200, 1000, 40, 200) == tuple(map(len, texts))
    assert all(text.endswith("…") for text in texts)


@quick
@given(JSON | TASKISH)
@example({"data": [{"url": "https://x", "status": None}], "status": [], "progress": 10**5000})
def test_any_json_is_a_task_or_not_a_task_and_its_texts_are_harmless_and_bounded(value):
    try:
        task = parse_task(value)
    except NotATask as reason:
        assert str(reason)
        return
    assert task.outcome in ("running", "done", "failed")
    assert task.id is None or is_task_id(task.id)
    texts = [(task.status, 40), (task.error, 200)]
    for image in task.images:
        texts += [(image.status, 40), (image.error, 200), (image.revised_prompt, 1000), (image.url, 4096)]
    for text, limit in texts:
        assert text is None or (0 < len(text) <= limit and clean(text, limit) == text)


# --- text is data


@pytest.mark.parametrize(("text", "expected"), [
    ("plain words", "plain words"),
    ("  two\r\nlines\tand \u2028more\x85 ", "two lines and more"),
    ("\x1b[31mred\x1b[0m\x07", "[31mred[0m"),
    ("a\u202eb\u2066c\u200fd", "abcd"),
    ("z\u200be\u200cr\u200do\ufeff\u2060", "zero"),
    ("va\ufe0fri\U000e0100a\u034fnt\u3164\u115f\u180e", "variant"),
    ("tag\U000e0041\U000e007f", "tag"),
    ("\ud800lone\udfff", "lone"),
    ("一只戴帽子的猫，水彩", "一只戴帽子的猫，水彩"),
    ("नमस्ते e\u0301", "नमस्ते e\u0301"),
    ("", None), ("   ", None), ("\u200b", None), (None, None), (5, None), (["x"], None), (b"x", None),
])
def test_cleaned_text_is_one_line_of_what_the_eye_can_see(text, expected):
    assert expected == clean(text)


@pytest.mark.parametrize(("length", "expected"), [(199, "x" * 199), (200, "x" * 200), (201, "x" * 199 + "…")])
def test_cleaned_text_is_cut_to_200_characters_with_a_sign(length, expected):
    assert expected == clean("x" * length)
    assert expected == error_text("x" * length)


def test_a_message_of_five_megabytes_costs_no_time():
    assert "x" * 9 + "…" == clean("x" * 5_000_000, 10)
    assert "x" == clean("\u200b" * 39 + "x" + "y" * 100, 10)  # four times the limit is looked at, no more


@quick
@given(TEXT, st.integers(1, 40))
def test_cleaned_text_is_bounded_stable_and_free_of_what_is_invisible(text, limit):
    line = clean(text, limit)
    if line is None:
        return
    assert 0 < len(line) <= limit
    assert line == clean(line, limit)
    assert not [char for char in line if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]
    assert not room.ZERO_WIDTH.search(line)


@pytest.mark.parametrize(("value", "expected"), [
    ("words", "words"),
    ({"message": "words", "code": "c"}, "words"),
    ({"error": {"message": "words"}}, "words"),
    ({"error": {"detail": {"msg": "words"}}}, "words"),
    ({"error": {"error": {"error": {"message": "too deep"}}}}, None),
    ({"detail": "words"}, "words"), ({"msg": "words"}, "words"), ({"code": "words"}, "words"),
    ({"message": "", "error": "words"}, "words"),
    ({"message": None, "other": "x"}, None),
    ({}, None), (None, None), (5, None), ([], None), ({"message": 5}, None), ({"error": True}, None),
])
def test_the_services_words_are_found_in_every_shape(value, expected):
    assert expected == error_text(value)


def test_the_words_of_a_failed_task_and_of_a_failed_image_are_kept():
    task = parsed(status="failed", error={"code": "policy", "message": "refused"}, data=[{"error": "too dark"}])
    assert ("refused", "too dark") == (task.error, task.images[0].error)


# --- bytes to JSON


@pytest.mark.parametrize("raw", [
    b"", b" ", b"<html>", b"{", b'{"a":', b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe", b"nope", b"{}{}",
    b'{"n": ' + b"9" * 10_000 + b"}"])
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
    (b'{"a": 1}', {"a": 1}),
    (b"\xef\xbb\xbf{}", {}),
    (b'{"a": NaN, "b": -Infinity}', {"a": None, "b": None}),
    (b'{"a": 1, "a": 2}', {"a": 2}),
    (b'"\xff"', "\ufffd"),
    ('"猫"'.encode(), "猫"),
    (bytearray(b"[]"), []),
])
def test_json_is_read_as_leniently_as_is_safe(raw, value):
    assert value == parse_json(raw)


@quick
@given(st.binary(max_size=60) | TASKISH.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_json_or_not_a_task(raw):
    try:
        value = parse_json(raw)
    except NotATask:
        return
    assert without(value, KEY) == value or KEY.encode() in raw


@pytest.mark.parametrize(("raw", "expected"), [
    (b'{"created": 1, "task_id": "t-1", "sta', "t-1"),
    (b'{"task_id"\n :\t"a.b:c_d-9"', "a.b:c_d-9"),
    (b'{"task_id": "t-1', None),
    (b'{"task_id": "t 1"}', None),
    (b'{"task_id": ".."}', None),
    (b'{"task_id": "."}', None),
    (b'{"task_id": ""}', None),
    (b'{"task_id": "' + b"x" * 128 + b'"', "x" * 128),
    (b'{"task_id": "' + b"x" * 129 + b'"', None),
    (b'{"task_id": null}', None),
    (b'{"message": "no \\"task_id\\": \\"evil\\""}', None),
    (b'\xff\x00"task_id":"t-1"\xff', "t-1"),
    (bytearray(b'"task_id":"t-1"'), "t-1"),
    (b"", None),
])
def test_a_task_id_is_found_in_the_bytes_of_a_spoiled_answer(raw, expected):
    assert expected == find_task_id(raw)


@quick
@given(st.integers(0, 200))
def test_a_cut_answer_gives_the_whole_task_id_or_none(at):
    raw = b'{"created": 1715881600, "task_id": "batch-uuid-example", "status": "pending", "data": []}'
    assert find_task_id(raw[:at]) in (None, "batch-uuid-example")


# --- the key comes back from nowhere


@pytest.mark.parametrize("text", [
    KEY, f"the key {KEY} is wrong", f"{KEY[:9]}\u200b{KEY[9:]}", f"{KEY[:9]}\u202e{KEY[9:]}", f"{KEY[:9]}\ufe0f{KEY[9:]}",
    KEY.replace("-", "%2D"), "\u200b50%" + KEY.replace("n", "%6e"),
    f"{KEY[:3]}\x00{KEY[3:]}", KEY + "x" * 200_000, "x" * 200_000 + KEY, f"{KEY[:9]}\u200b{KEY[9:]}" + "x" * 200_000])
def test_a_text_that_holds_the_key_is_withheld(text):
    for value in (text, [text], {"a": {"b": [text]}}, {text: 1}):
        kept = without(value, KEY)
        assert KEY not in json.dumps(kept)
        assert KEY not in str(clean(text if kept == text else "withheld", 1000))
        assert type(value) is type(kept)
    assert "(withheld: it held the key)" == without(text, KEY)


@pytest.mark.parametrize("text", ["\u732b\u200b\n", "100 % sure, https://x/a%20cat.png"])
def test_a_text_in_any_script_is_kept(text):
    assert text == without(text, KEY)


@quick
@given(JSON)
def test_a_value_without_the_key_stays_as_it_is(value):
    assert repr(value) == repr(without(value, KEY))


@quick
@given(TEXT, TEXT, st.integers(1, len(KEY) - 1), st.sampled_from(["", "\u200b", "\x00", "\u2066", "\ufe0f", "\udc80"]))
def test_cleaned_text_never_puts_a_split_key_together(before, after, at, between):
    kept = without(before + KEY[:at] + between + KEY[at:] + after, KEY)
    assert KEY not in kept
    assert KEY not in (clean(kept, 1000) or "")


def test_what_is_nested_too_deep_to_look_through_is_said_not_let_through():
    value = KEY
    for _ in range(5000):
        value = [value]
    with pytest.raises(RecursionError):
        without(value, KEY)
