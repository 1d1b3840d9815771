"""A batch file is read whole before anything is sent: every wrong line is named, every right one has its output, and what
is no batch is refused by its name instead of being paid for row by row."""

import json
import os

import pytest
from corpus import FOREIGN, PROMPTS
from hypothesis import given, settings
from hypothesis import strategies as st
from image2_cli.batch.file import read
from image2_cli.batch.formats import rows_of
from image2_cli.order import reference
from image2_cli.order.fields import build
from pictures import png
from platforms import needs_posix

SERVICE = "https://image2.vip"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def good(text: str, out="out", **defaults) -> list:
    found = read(text, defaults, out, False, SERVICE)
    assert [] == found.mistakes
    return found.lines


def wrong(text: str, out="out", **defaults) -> list:
    found = read(text, defaults, out, False, SERVICE)
    assert found.mistakes, f"nothing is said against {text!r}"
    return found.mistakes


def rows(*fields) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in fields)


def prompts(found) -> list:
    return [line.request.prompt for line in found]


# --- which text is which order


@pytest.mark.parametrize("text", PROMPTS)
def test_prompts_stay_prompts_whatever_they_hold(text):
    assert [line.strip() for line in text.splitlines() if line.strip()] == prompts(good(text))


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in FOREIGN.items() for text in texts])
def test_a_foreign_file_is_refused_once_by_its_name_with_what_to_send_instead(name, text):
    """1.0 paid for every row, the header too."""
    (mistake,) = wrong(text)
    assert name in mistake and "JSONL, one order a line" in mistake


@pytest.mark.parametrize("text", [
    '[{"prompt": "a cat"}, "a dog"]', "a cat\na dog",
    json.dumps([{"prompt": "a cat"}, {"prompt": "a dog"}], indent=2), '\ufeff{"prompt": "a cat"}\r\n{"prompt": "a dog"}\r\n',
    '\ufeffa cat\ra dog\r', "\n\n a cat \n\n\ta dog\n"])
def test_prompts_jsonl_and_a_json_list_are_batches(text):
    assert ["a cat", "a dog"] == prompts(good(text))


@pytest.mark.parametrize("row", ["a {}", '{{"prompt": "a {}"}}'])
def test_comments_are_passed_over_and_counted_in_a_warning(row):
    found = read(f"# cats\n\n{row.format('cat')}\n   \n  # dogs\n  {row.format('dog')}  ", {}, "out", False, SERVICE)
    assert [(3, "a cat"), (6, "a dog")] == [(line.number, line.request.prompt) for line in found.lines]
    assert ["2 line(s) passed over: they begin with #."] == found.warnings
    assert [] == read("a cat", {}, "out", False, SERVICE).warnings


@pytest.mark.parametrize("inside", ["\u2028", "\x85", "\x0c"])
def test_only_line_ends_end_a_line(inside):
    """json.dumps(ensure_ascii=False) leaves these as they are, and str.splitlines cuts at them."""
    expected = f"one{inside}two"
    assert [expected] == prompts(good(rows({"prompt": expected}) if ord(inside) > 0x7F else expected))


# --- broken JSON


@pytest.mark.parametrize(("text", "words"), [
    *((text, ["the batch file holds no order"]) for text in ("\n \n", "# only a comment\n", "\ufeff", "[]")),
    ('{"orders": [{"prompt": "a fox"}]}', ['line 1: no field "orders"', 'line 1: "prompt" is missing']),
    ('{"prompt": "a cat"}\n{"prompt": "a dog"\n', ["line 2, column 19: no JSON: expecting ',' delimiter"]),
    ("{'prompt': 'a cat'}", ["line 1, column 2: no JSON: expecting property name enclosed in double quotes"]),
    ('[{"prompt": "a cat"}\n {"prompt": "a dog"}]', ["the JSON is broken: line 2, column 2: no JSON: expecting ','"]),
    ('[{"prompt": "a cat"}, 5, null]', ["entries 2-3: an entry of the JSON list is an object or a text"]),
    ('{\n "prompt": "a cat"\n}\n{\n "prompt": "a dog"\n}\n', ["line 4, column 1: no JSON: one object a line"]),
    ('{"prompt": "a cat"}\n"a dog"\n', ["line 2: not a JSON object"]),
    ('{"prompt": "a"}\n' + "[" * 100_000, ["line 2: JSON that is nested too deep"]),
    ("".join('{"prompt": "a"\n' for _ in range(50)),
     ["line 1, column 15: no JSON: expecting ',' delimiter", "lines 2-50: no JSON object either"])])
def test_no_order_and_bad_json_are_named_once_with_line_column_and_what_was_expected(text, words):
    said = wrong(text)
    assert len(words) == len(said), said
    assert all(word in one and len(one) < 300 for word, one in zip(words, said))


# --- mistakes


@pytest.mark.parametrize(("fields", "word"), [
    ({}, '"prompt" is missing'), ({"prompt": None}, '"prompt" is missing'), ({"prompt": ""}, "the prompt is empty"),
    ({"prompt": "x", "size": "16:9"}, "size \"16:9\" must be"), ({"prompt": "x", "image": "none.png"}, "no such file"),
    ({"prompt": "x", "promt": "y"}, 'no field "promt": write prompt'), ({"text": "x"}, 'no field "text": write prompt'),
    ({"prompt": "x", "filename": "y.png"}, 'no field "filename": write name'), ({"prompt": "x", "count": 2}, "write n"),
    ({"prompt": "x", "quality": "high"}, 'write it in set: {"set": {"quality": …}}'),
    ({"prompt": "x", "zzz": 1}, "allowed: prompt, image"), ({"prompt": "x", "name": "a", "out": "b.png"}, "contradict"),
    ({"prompt": "x", "name": ""}, "name must be text"), ({"prompt": "x", "name": "a\\b"}, "without a folder"),
    ({"prompt": "x", "name": "logo.svg"}, 'type "logo.png"'), ({"prompt": "x", "out": ["a"]}, "out must be text")])
def test_a_wrong_line_is_named_with_its_number_and_what_to_write(fields, word):
    (mistake,) = wrong(rows({"prompt": "right"}) + "# a comment\n" + rows(fields, {"prompt": "right too"}))
    assert mistake.startswith("line 3: ") and word in mistake and len(mistake) < 400
    assert wrong(json.dumps([{"prompt": "right"}, fields]))[0].startswith("entry 2: ")


def test_every_mistake_of_every_line_is_named_at_once_and_of_very_many_every_number():
    said = wrong(rows({"prompt": "", "size": "big"}, {"prompt": "right"}, {"prompt": "x", "n": 0}))
    assert ["line 1", "line 1", "line 3"] == [one.split(":")[0] for one in said]
    assert ["the batch file holds 10001 orders, 10000 are allowed"] == wrong("x\n" * 10_001)
    bad = set(range(1, 301)) - {50, 100, 101}
    said = wrong(rows(*({"prompt": "" if number in bad else "right"} for number in range(1, 301))))
    assert [f"line {number}" for number in range(1, 21)] == [one.split(":")[0] for one in said[:-1]]
    assert "also wrong: lines 21-49, 51-99, 102-300" == said[-1]
    assert "…: no JSON object either" in wrong('5\n{"prompt": "a"}\n' * 400)[1]
    assert len("; ".join(wrong(rows(*({"prompt": "x", "image": "y" * 4000} for _ in range(5000)))))) < 12_000


# --- fields, defaults, references


def test_an_image_is_a_url_a_file_or_a_list_of_them_and_a_file_is_read_once(here, monkeypatch):
    (here / "a.png").write_bytes(png())
    url = "https://x.example/a.png"
    found = good(rows({"prompt": "1", "image": url}, {"prompt": "2", "image": ["a.png", url]}, {"prompt": "3"}),
                 image=["a.png"])
    data = "data:image/png;base64"
    assert [[url[:21]], [data, url[:21]], [data]] == [[image[:21] for image in line.request.images] for line in found]
    assert found[1].request.images[0] is found[2].request.images[0]
    monkeypatch.setattr(reference, "MAX_OF_ORDER", 200)
    assert "line 2: image the reference files of one order" in wrong(rows({"prompt": "1"},
                                                            {"prompt": "2", "image": ["a.png"] * 3}))[0]


# --- outputs


def test_name_out_and_position_decide_where_a_line_goes(here):
    found = good(rows({"prompt": "1", "name": "home"}, {"prompt": "2", "name": "v1.2"}, {"prompt": "3", "name": "gear.webp"},
                      {"prompt": "4", "out": "red/gear.png"}, {"prompt": "5", "out": "blue"}, {"prompt": "画一只猫"},
                      {"prompt": "7", "out": str(here / "abs" / "x.jpg")}))
    assert ["out/home", "out/v1.2", "out/gear", "red/gear", "blue/005-5", "out/006-画一只猫", "abs/x"] == [
        os.path.relpath(os.path.join(line.output.folder, line.stem), here).replace(os.sep, "/") for line in found]
    assert [".png", ".png", ".webp", ".png", None, None, ".jpg"] == [line.output.suffix for line in found]
    assert [False, False, False, True, True, False, False] == [line.is_relative for line in found]


@pytest.mark.parametrize(("first", "second"), [
    ({"name": "a.png"}, {"name": "a.jpg"}), ({"name": "a"}, {"out": "out/a.png"}), ({}, {"name": "001-x"}),
    ({"out": "a.png"}, {"out": "./b/../a.png"}), ({"name": "a-2"}, {"name": "a", "n": 3})])
def test_two_lines_for_one_file_name_are_a_mistake(first, second):
    """The suffix is no difference: the service may send either as PNG."""
    assert ["line 2: the same file name as line 1"] == wrong(rows({"prompt": "x", **first}, {"prompt": "y", **second}))
    good(rows({"prompt": "x", "out": "a/x.png"}, {"prompt": "x", "out": "b/x.png"}, {"prompt": "x", "name": "x"}))


# --- what makes a line of the next run the same line


def fingerprints(text: str, **options) -> list:
    return [line.fingerprint for line in good(text, **options)]


def test_identical_lines_are_different_orders_and_the_same_ones_next_time_wherever_they_stand():
    text = "a cat\na cat\na dog\na cat\n"
    assert 4 == len(set(fingerprints(text))) and fingerprints(text) == fingerprints(text)
    assert set(fingerprints("a cat\na dog\n")) < set(fingerprints("# new\na bird\na dog\na cat\n"))


def test_plain_text_jsonl_a_list_and_generate_order_the_same():
    named = rows({"prompt": "a cat", "name": "fox"})
    for text, stem in (("a cat", ""), (rows({"prompt": "a cat", "n": 1}), ""), ('["a cat"]', ""), (named, "fox")):
        assert [build({"prompt": "a cat"})[0].fingerprint(SERVICE, stem)] == fingerprints(text)


@needs_posix
def test_the_folder_is_no_part_of_the_order_for_it_may_be_moved_or_have_two_names(here):
    assert fingerprints("a") == fingerprints("a", out="elsewhere") == fingerprints(rows({"prompt": "a", "out": "third"}))
    (here / "real").mkdir()
    (here / "alias").symlink_to("real")
    found = fingerprints(rows(*({"prompt": "a", "out": out} for out in ("real", "other", "alias"))))
    assert found[0] == found[1] != found[2]
    assert [read("a", {}, "out", False, "sandbox").lines[0].fingerprint] != fingerprints("a")


def test_ten_thousand_lines_are_read_in_linear_time_and_odd_rows_cost_nothing():
    assert 10_000 == len(good("\n".join(f"a fox, number {number}" for number in range(10_000))))
    for row in ('"' * 5_000, '"a",' * 2_000, "|" * 5_000 + "x", "- " * 5_000, ";" * 5_000 + " ", "1. " * 2_000):
        read(f"{row}\n{row}x\n", {}, "out", False, SERVICE)


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(st.sampled_from([*'a\n,;\t"{}[]:|-1 #\\', "prompt", ".png"]), max_size=30).map("".join))
def test_any_text_is_rows_or_mistakes(text):
    found = rows_of(text)
    assert not (found.rows and found.mistakes and "{" not in text) and all(len(one) < 400 for one in found.mistakes)
