"""The one table of order fields: every field reaches the body by every way in, or all that is wrong is named at once."""

import hashlib
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from image2_cli.batch.file import read
from image2_cli.cli.arguments import parse
from image2_cli.order.fields import FIELDS, ImageRequest, build, url_mistake, words

quick = settings(max_examples=100, deadline=None, database=None)
TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=10)
URI = "data:image/png;base64,iVBORw0KGgo="
# a value of each field as a flag has it, and as the body carries it
VALUES = {"prompt": ("a cat", "a cat"), "size": ("1536X1024", "1536x1024"), "n": ("3", 3), "model": ("gpt-image-9",) * 2,
          "image": ("https://x/1.png", ["https://x/1.png"]), "set": ("seed=7", {"seed": 7})}


def built(**given_fields) -> ImageRequest:
    request, mistakes = build({"prompt": "a cat", **given_fields})
    assert [] == mistakes
    return request


def mistakes_of(**given_fields) -> list:
    request, mistakes = build({"prompt": "a cat", **given_fields})
    assert request is None and len(mistakes) == len(set(mistakes))
    return mistakes


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


# --- every way in


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_field_reaches_the_body_by_every_way_in_and_survives_in_next(field, tmp_path):
    flag, value = VALUES[field.name]
    typed = vars(parse(["generate", *([] if field.name == "prompt" else ["-p", "a cat"]), field.flag, flag])[0])
    ways = [build(typed)[0], build(vars(parse(["generate", *words(typed)])[0]))[0]]
    for one in (value, flag if field.name != "set" else value):
        ways += [read(json.dumps({"prompt": "a cat", field.name: one}), {}, str(tmp_path), False, "s").lines[0].request]
    if field.name != "prompt":
        defaults = vars(parse(["batch", "FILE", field.flag, flag])[0])
        ways += [read("a cat", defaults, str(tmp_path), False, "s").lines[0].request]
    body = value if field.name == "set" else {field.name: value}
    assert [body] * len(ways) == [{name: request.payload().get(name) for name in body} for request in ways]
    assert 1 == len({request.fingerprint("s", "fox") for request in ways})


# --- the body


def test_a_record_names_reference_files_and_long_fields_by_their_digest():
    mask = "x" * 2_000_000
    described = built(image=["https://x/1.png", URI], set={"mask": mask, "seed": 7}).described()
    assert ["https://x/1.png", f"image/png sha256:{hashlib.sha256(URI.encode()).hexdigest()}"] == described["image"]
    assert (f"sha256:{hashlib.sha256(json.dumps(mask).encode()).hexdigest()}", 7) == (described["mask"], described["seed"])
    assert mask == built(set={"mask": mask}).payload()["mask"]
    assert mask[:9999] == built(prompt=mask[:9999]).described()["prompt"]
    # a record that is too large to be read again would be an order that is paid again
    assert ["the order has too many fields or reference URLs to be recorded"] == mistakes_of(
        image=["https://x/" + "a" * 4000] * 130)


def test_the_same_order_to_the_same_place_has_the_same_fingerprint_and_no_other_has():
    long = "x" * 2_000_000
    one, other = (built(set={name: {inner: long for inner in names} for name in names}) for names in ("ab", "ba"))
    assert one.fingerprint("s", "fox") == one.fingerprint("s", "fox", 1) == other.fingerprint("s", "fox")
    others = [*(one.fingerprint(*place) for place in (("s", "fox"), ("s", ""), ("t", "fox"), ("s", "fox", 2))),
              *(built(**more).fingerprint("s", "fox") for more in (
                  {"n": 2}, {"size": "auto"}, {"model": "m"},
                  {"prompt": "a dog"}, {"image": [URI]}, {"image": [URI + "A"]}))]
    assert len(others) == len(set(others)) and {32} == set(map(len, others))


# --- what may be asked


@pytest.mark.parametrize(("name", "value", "expected"), [
    *(("prompt", text, text) for text in (" a cat ", "猫" * 32000, "two\nlines")),
    *(("size", text, text) for text in (None, "10x10", "99999x10")), ("size", "AUTO", "auto"),
    *(("size", text, "1536x1024") for text in ("1536×1024", "1536*1024", " 1536 x 1024\n")),
    *(("n", value, n) for value, n in ((None, 1), (10, 10), ("007", 7))),
    *(("model", text, text) for text in ("m", "x" * 100, "vendor/gpt-image-2:latest"))])
def test_a_good_value_is_sent(name, value, expected):
    assert expected == built(**{name: value}).payload().get(name)


WRONG = {
    "prompt": [" \n\t", 5, "x" * 32001, "a \udc80 cat"],
    "size": ["", "9x1024", "123456x1024", "１０２４x1024", 1024],
    "n": ["0", 11, "", 1.0, True, "٣", "0001", "1\n"],
    "model": ["a b", "x" * 101, "模型", "a\n", 0],
    "image": [5, [5], ["a.png"], ["data:text/html,x"]],
    "set": [5, "a=1", ["quality"], ["=high"], ["a b=1"], ["1a=1"], ["é=1"], {"x" * 65: 1}, ["a=1", "b=2", "a=1"],
            ["a=1e999"], {"a": [{"b": float("inf")}]}, {"a": {"\ud800": 1}}, {"a": nested(33)}, {"a": nested(5000)},
            *([f"{name}=1"] for name in ("prompt", "size", "n", "model", "image", "async"))]}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_one_short_mistake_that_begins_with_its_flag_or_its_field(name, value):
    for in_line in (False, True):
        request, said = build({"prompt": "a cat", name: value}, in_line)
        assert request is None and 1 == len(said) and len(said[0]) < 200 and "\n" not in said[0]
        assert said[0].startswith("the prompt " if name == "prompt" else f"{name} " if in_line else f"--{name} ")


@pytest.mark.parametrize(("text", "value"), [
    ("a=true", True), ("a=", ""), ("a=b=c", "b=c"), ('a={"a": [1]}', {"a": [1]}), ('a="7"', "7"), ("a=null", None),
    ("a=" + "[" * 100_000, "[" * 100_000), ("a=" + "9" * 5000, "9" * 5000)])
def test_a_further_field_is_json_or_else_text(text, value):
    assert value == built(set=[text]).payload()["a"] or "9" * 5000 == value
    assert nested(32) == built(set={"_a.b-c": nested(32)}).payload()["_a.b-c"]


def test_every_mistake_is_named_at_once():
    deep = nested(900)
    assert 4 <= len(mistakes_of(size=deep, n=deep, model=deep, set=deep))


@quick
@given(st.dictionaries(st.sampled_from([field.name for field in FIELDS]), JSON))
def test_any_values_are_a_request_that_can_be_sent_or_mistakes_in_short_words(values):
    request, mistakes = build(values)
    assert (request is None) == bool(mistakes)
    assert all(len(mistake) < 250 and "\n" not in mistake for mistake in mistakes)
    if request:
        assert request.payload() == json.loads(json.dumps(request.payload(), allow_nan=False))


TYPED = TEXT.filter(bool)


@quick
@given(st.fixed_dictionaries({}, optional={field.name: st.lists(TYPED, min_size=1, max_size=3) if field.repeatable else TYPED
                                           for field in FIELDS}))
@example({"prompt": "—fox", "set": ["-a"]})
def test_any_texts_of_flags_are_the_same_ones_in_next(values):
    found, mistakes = parse(["generate", *words(values)])
    assert [] == mistakes and values == {name: value for name, value in vars(found).items() if name in VALUES and value}


# --- sizes


@pytest.mark.parametrize(("called", "size"), [
    ("16:9", "1536x864"), ("2/3", "1024x1536"), ("1:1", "1024x1024"), ("1.91:1", "1536x800"), ("landscape", "1536x1024"),
    ("1k", "1024x1024"), (1024, "1024x1024"), ("1024px", "1024x1024"), ("1024,768", "1024x768"),
    ("1024 by 768", "1024x768")])
def test_a_size_by_another_name_is_refused_with_the_size_to_type(called, size):
    assert size == built(size=size).fields["size"] and f"type {size}" in mistakes_of(size=called)[0]


# --- what a reference may be


@pytest.mark.parametrize(("good", "urls"), [
    (True, ["HTTPS://X/Y", "http://x:80/a?b=c#d", "https://x/@a", "https://例え.jp/猫", "https://[::1]/" + "a" * 4082]),
    (False, ["file:///etc/passwd", "https:///a", "https://user:pw@x/a", "https://x/a b", "https://x/a\n", "https://x\\@y/",
             "https://x/\x7f", "https://x/\udc80", "https://x/" + "a" * 4087, " https://x"])])
def test_a_reference_url_is_http_or_https_and_any_other_is_refused(good, urls):
    for url in urls:
        assert good is (url_mistake(url) is None), url
