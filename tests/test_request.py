"""Flags or a batch line become one request, or the full list of what is wrong with them; nothing is sent to find out."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image2_cli.order import fields as room
from image2_cli.order.fields import ImageRequest, build, pair, shown, url_mistake

quick = settings(max_examples=150, deadline=None, database=None)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=10)
URI = "data:image/png;base64,iVBORw0KGgo="


def built(**fields) -> ImageRequest:
    request, mistakes = build({"prompt": "a cat", **fields})
    assert [] == mistakes
    return request


def mistakes_of(**fields) -> list:
    request, mistakes = build({"prompt": "a cat", **fields})
    assert request is None
    assert not [mistake for mistake in mistakes if "%s" in mistake]
    return mistakes


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


# --- the body


def test_the_smallest_order_is_model_prompt_n_and_async():
    assert {"model": "gpt-image-2", "prompt": "a cat", "n": 1, "async": True} == built().payload()


def test_the_synchronous_order_says_nothing_of_async():
    assert {"model": "gpt-image-2", "prompt": "a cat", "n": 1} == built().payload(asynchronous=False)


def test_every_field_reaches_the_body():
    request = built(size="1536x1024", n="3", model="gpt-image-9", image=["https://x/1.png", URI],
                    set=["quality=high", "seed=7"])
    assert {"model": "gpt-image-9", "prompt": "a cat", "n": 3, "quality": "high", "seed": 7, "size": "1536x1024",
            "image": ["https://x/1.png", URI], "async": True} == request.payload()


def test_a_record_names_a_reference_file_by_its_digest_and_never_carries_it():
    described = built(image=["https://x/1.png", URI]).described()
    digest = hashlib.sha256(URI.encode()).hexdigest()
    assert ["https://x/1.png", "image/png sha256:" + digest] == described["image"]
    assert "iVBOR" not in json.dumps(described)
    assert "image" not in built().described()
    assert built().payload() == built().described()


def test_a_long_field_is_named_by_its_digest_in_a_record_and_sent_whole():
    mask = "x" * 2_000_000
    request = built(set={"mask": mask, "seed": 7})
    assert (mask, 7) == (request.payload()["mask"], request.payload()["seed"])
    assert ("sha256:" + hashlib.sha256(json.dumps(mask).encode()).hexdigest(), 7) == (
        request.described()["mask"], request.described()["seed"])
    assert request.fingerprint() != built(set={"mask": mask + "y", "seed": 7}).fingerprint()
    one, other = ({name: mask for name in names} for names in ("ab", "ba"))  # the same order, written otherwise
    assert built(set={"masks": one}).fingerprint() == built(set={"masks": other}).fingerprint()


@pytest.mark.parametrize("fields", [{"image": ["https://x/" + "a" * 4000] * 130},
                                    {"set": {"field-%d" % number: "x" * 900 for number in range(600)}}])
def test_an_order_that_is_too_large_for_its_record_is_a_mistake(fields):
    """A record that is too large to be read again would be an order that is paid again."""
    assert ["the order has too many fields or reference URLs to be recorded"] == mistakes_of(**fields)


def test_the_same_order_to_the_same_place_has_the_same_fingerprint_and_no_other_has():
    one = built(set={"b": 1, "a": 2}, image=[URI])
    assert 32 == len(one.fingerprint("https://image2.vip", "/out"))
    assert one.fingerprint("s", "/out") == built(set={"a": 2, "b": 1}, image=[URI]).fingerprint("s", "/out")
    others = [one.fingerprint("s", "/out"), one.fingerprint("s", "/else"), one.fingerprint("s/out"), one.fingerprint(),
              built(prompt="a dog").fingerprint("s", "/out"), built(n=2).fingerprint("s", "/out"),
              built(size="auto").fingerprint("s", "/out"), built(model="m").fingerprint("s", "/out"),
              built(set={"a": 2}).fingerprint("s", "/out"), built(image=[URI + "A"]).fingerprint("s", "/out")]
    assert len(others) == len(set(others))


# --- what may be asked


@pytest.mark.parametrize("prompt", ["x", " a cat ", "猫" * 32000, "two\nlines", "😀"])
def test_a_prompt_is_sent_as_it_is(prompt):
    assert prompt == built(prompt=prompt).payload()["prompt"]


@pytest.mark.parametrize(("prompt", "words"), [
    (None, "empty"), ("", "empty"), (" \n\t", "empty"), (5, "empty"), (["a"], "empty"),
    ("x" * 32001, "the prompt has 32001 characters, 32000 are allowed"), ("a \udc80 cat", "not valid UTF-8"),
    ("\ud800", "not valid UTF-8"), ("\udfff", "not valid UTF-8")])
def test_a_prompt_that_says_nothing_or_too_much_is_refused(prompt, words):
    (mistake,) = mistakes_of(prompt=prompt)
    assert words in mistake


@pytest.mark.parametrize("size", [None, "auto", "1024x1024", "10x10", "99999x10"])
def test_a_size_is_width_by_height_or_auto(size):
    assert size == built(size=size).size


@pytest.mark.parametrize("size",
    ["", "1024", "1024X1024", "1024×1024", "0x1024", "1024x0", "-1x2", "1024x1024 ", "x", "AUTO",
                                  "1x1", "9x1024", "123456x1024", "1024x", "１０２４x1024", "1024x1024\n", 1024, True,
                                  [1], {}])
def test_any_other_size_is_refused(size):
    (mistake,) = mistakes_of(size=size)
    assert mistake.startswith("--size ") and "WIDTHxHEIGHT" in mistake


@pytest.mark.parametrize(("n", "expected"), [(None, 1), (1, 1), (10, 10), ("1", 1), ("10", 10), ("007", 7)])
def test_n_is_one_to_ten_and_one_where_it_is_not_given(n, expected):
    assert expected == built(n=n).n


@pytest.mark.parametrize("n", ["0", "11", 0, 11, -1, "-1", "", "1.0", 1.0, True, "two", "٣", "0001", "1\n", [1],
    {"a": 1}])
def test_any_other_n_is_refused(n):
    (mistake,) = mistakes_of(n=n)
    assert mistake.startswith("--n ") and "1 to 10" in mistake


@pytest.mark.parametrize("model", ["m", "x" * 100, "vendor/gpt-image-2:latest"])
def test_a_model_is_a_plain_name(model):
    assert model == built(model=model).model


@pytest.mark.parametrize("model", ["", " ", "a b", "x" * 101, "模型", "a\n", 5, 0, False, ["m"], []])
def test_any_other_model_is_refused(model):
    assert ["--model must be a model's name such as gpt-image-2"] == mistakes_of(model=model)


@pytest.mark.parametrize(("text", "key", "value"), [
    ("quality=high", "quality", "high"), ("seed=7", "seed", 7), ("on=true", "on", True), ("style=", "style", ""),
    ("a=b=c", "a", "b=c"), ('meta={"a": [1]}', "meta", {"a": [1]}), ('q="7"', "q", "7"), ("x=null", "x", None),
    ("x=NaN", "x", "NaN"), ("x=-Infinity", "x", "-Infinity"), ("x=[1,NaN]", "x", "[1,NaN]"), ("x={", "x", "{"),
    ("_a.b-c=1", "_a.b-c", 1), ("a" * 64 + "=1", "a" * 64, 1), ("x=" + "[" * 100_000, "x", "[" * 100_000),
    ("x=" + "9" * 5000, "x", "9" * 5000)])
def test_a_further_field_is_json_or_else_text(text, key, value):
    assert {key: value} == built(set=[text]).extra
    assert (key, value) == pair(text, [])


@pytest.mark.parametrize("text", ["quality", "=high", "", "a b=1", "1a=1", "a" * 65 + "=1", "é=1", "a\n=1", "-x=1"])
def test_a_further_field_without_a_name_or_a_value_is_refused(text):
    (mistake,) = mistakes_of(set=[text])
    assert "must be KEY=VALUE" in mistake
    found = []
    assert pair(text, found) is None
    assert [mistake] == found


@pytest.mark.parametrize(("key", "flag"),
    [("prompt", "the prompt"), ("size", "--size"), ("n", "--n"), ("model", "--model"),
                                           ("image", "--image"), ("async", "--sync")])
def test_a_field_that_has_its_own_flag_is_set_by_that_flag_alone(key, flag):
    for given_as in ([key + "=1"], {key: 1}):
        assert [f"--set {key}: use {flag} for this field"] == mistakes_of(set=given_as)


def test_a_field_is_set_once():
    assert ['--set "a" is given twice'] == mistakes_of(set=["a=1", "b=2", "a=1"])


@pytest.mark.parametrize(("value", "words"), [
    (float("inf"), "not finite"), (float("nan"), "not finite"), ([{"a": [float("-inf")]}], "not finite"),
    ("\udc80", "not valid UTF-8"), ({"\ud800": 1}, "not valid UTF-8"), (nested(33), "nested deeper than 32"),
    (nested(5000), "nested deeper than 32")])
def test_a_value_that_no_json_can_carry_is_refused(value, words):
    (mistake,) = mistakes_of(set={"a": value})
    assert mistake.startswith('--set "a" ') and words in mistake


def test_an_infinite_number_is_found_in_a_flag_too():
    assert ['--set "a" holds a number that is not finite'] == mistakes_of(set=["a=1e999"])


def test_a_value_may_be_nested_32_deep_and_hold_any_finite_number():
    assert nested(32) == built(set={"a": nested(32)}).extra["a"]
    assert {"a": 1e308, "b": {"c": [-0.5, None, False]}} == built(set={"a": 1e308, "b": {"c": [-0.5, None, False]}}).extra


@pytest.mark.parametrize("key", ["", "a b", "1", "é", "x" * 65])
def test_an_objects_field_has_a_plain_name_too(key):
    (mistake,) = mistakes_of(set={key: 1})
    assert "is no name of a body field" in mistake


@pytest.mark.parametrize("value", [5, "a=1", True, 1.5])
def test_set_is_a_list_of_pairs_or_an_object(value):
    (mistake,) = mistakes_of(set=value)
    assert "must be an object" in mistake


def test_every_mistake_is_named_at_once():
    found = mistakes_of(prompt="", size="big", n="11", model=" ", set=["x", "n=2", "y=1e999"])
    assert 7 == len(found)
    assert len(found) == len(set(found))


@quick
@given(st.dictionaries(st.sampled_from(["prompt", "size", "n", "model", "set"]), JSON))
def test_any_fields_are_a_request_that_can_be_sent_or_mistakes_in_short_words(fields):
    request, mistakes = build(fields)
    assert (request is None) == bool(mistakes)
    for mistake in mistakes:
        assert len(mistake) < 200 and "\n" not in mistake
    if request:
        body = json.dumps(request.payload(), allow_nan=False)
        assert request.payload() == json.loads(body)
        assert 32 == len(request.fingerprint("s"))


@quick
@given(st.lists(TEXT, max_size=3) | st.dictionaries(TEXT, JSON, max_size=3), TEXT)
def test_any_further_fields_are_taken_or_refused(extra, prompt):
    request, mistakes = build({"prompt": prompt, "set": extra})
    assert (request is None) == bool(mistakes)


def test_a_deep_value_where_a_word_belongs_is_a_mistake_not_a_crash():
    deep = json.loads("[" * 900 + "]" * 900)
    assert 4 == len(mistakes_of(size=deep, n=deep, model=deep, set=deep))


# --- what a reference may be


@pytest.mark.parametrize("url", [
    "https://example.com/reference.jpg", "http://x", "HTTPS://X/Y", "https://x:8080/a?b=c#d", "https://x?a=b",
    "https://x#a",
    "https://x/@a", "https://例え.jp/猫.png", "https://[::1]/a", "https://x/" + "a" * 4086])
def test_a_reference_url_is_http_or_https(url):
    assert url_mistake(url) is None


@pytest.mark.parametrize("url", [
    "", "x", "ftp://x/a", "file:///etc/passwd", "data:image/png;base64,AA", "https://", "https:///a",
    "https://user@x/a",
    "https://user:pw@x/a", "https://x/a b", "https://x/a\n", "https://x\\@y/", "https://x/a\\b", "https://x/\x00",
    "https://\x07x/",
    "https://x/\x7f", "https://x/\udc80", "https://x/" + "a" * 4087, " https://x"])
def test_any_other_reference_url_is_refused(url):
    assert shown(url) + " must be an http(s) URL without user name or blanks, or a local file" == url_mistake(url)


@quick
@given(TEXT)
def test_any_text_is_a_reference_url_or_is_not(text):
    for one in (text, "https://" + text):
        mistake = url_mistake(one)
        assert mistake is None or len(mistake) < 200


# --- a user's own text in a message


@pytest.mark.parametrize(("text", "expected"), [
    ("猫", '"猫"'), ('a"b', '"a\\"b"'), ("a\nb", '"a\\nb"'), ("x" * 60, '"' + "x" * 60 + '"'),
    ("x" * 61, '"' + "x" * 59 + '…"'), (5, '"5"'), (None, '"None"'), ("\n" * 60, '"' + "\\n" * 60 + '"')])
def test_a_text_is_shown_quoted_escaped_and_short(text, expected):
    assert expected == shown(text)


def test_the_bound_of_a_shown_text_can_be_chosen():
    assert '"xxxx…"' == shown("x" * 9, 5)
    assert '"xxxxx"' == shown("x" * 5, 5)


@quick
@given(JSON)
def test_anything_can_be_shown_in_a_few_characters(value):
    text = shown(value)
    assert text[0] == text[-1] == '"' and "\n" not in text and len(text) <= 6 * 60 + 2


def test_our_own_bounds_are_the_documented_ones():
    assert ("gpt-image-2", 32000, 32) == (room.MODEL, room.MAX_PROMPT, room.MAX_DEPTH)
