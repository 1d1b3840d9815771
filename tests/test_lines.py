"""A batch file is read whole before anything is sent: every wrong line is named, and every right one has its place."""

import json
import os

import pytest
from image2_cli.batch import file as lines
from pictures import png
from platforms import needs_posix

SERVICE = "https://image2.vip"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(text: str, out="out", overwrite=False, **defaults):
    """(lines, mistakes) of a batch file's text."""
    mistakes: list = []
    return lines.read(text, {"set": {}, **defaults}, out, overwrite, SERVICE, mistakes), mistakes


def good(text: str, **options) -> list:
    found, mistakes = parse(text, **options)
    assert [] == mistakes
    return found


def wrong(text: str, **options) -> list:
    found, mistakes = parse(text, **options)
    assert mistakes, f"nothing is said against {text!r}"
    return mistakes


def rows(*fields) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in fields)


def prompts(found) -> list:
    return [line.request.prompt for line in found]


# --- which text is which order


@pytest.mark.parametrize("row", ["a %s", '{"prompt": "a %s"}'])
def test_blank_lines_and_comments_are_passed_over_and_still_counted(row):
    found = good("# cats\n\n%s\n   \n  # dogs\n  %s  " % (row % "cat", row % "dog"))
    assert [(3, "a cat"), (6, "a dog")] == [(line.number, line.request.prompt) for line in found]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_any_system_ends_them(end):
    found = good("a cat" + end + "a dog" + end)
    assert [(1, "a cat"), (2, "a dog")] == [(line.number, line.request.prompt) for line in found]


@pytest.mark.parametrize("inside", ["\u2028", "\x85", "\x0c"])
def test_only_line_ends_end_a_line(inside):
    """json.dumps(ensure_ascii=False) leaves these as they are, and str.splitlines cuts at them."""
    text = '{"prompt": "one%stwo"}' if ord(inside) > 0x7F else 'one%stwo'
    assert ["one%stwo" % inside] == prompts(good(text % inside))


@pytest.mark.parametrize("text", ["", "\n \n", "# only a comment\n"])
def test_a_file_without_an_order_is_a_mistake(text):
    assert ["the batch file holds no order"] == wrong(text)


@pytest.mark.parametrize(("text", "numbers"), [
    ('[\n{"prompt": "a cat"},\n{"prompt": "a dog"}\n]\n', [1, 2, 4]),
    ('[{"prompt": "a cat"}, {"prompt": "a dog"}]', [1]),
    ('a cat\n{"prompt": "a dog"}\n', [1]),
    ('{"prompt": "a cat"}\n"a dog"\n', [2]),
    ('{"prompt": "a cat"}\n{"prompt": "a dog"\n', [2]),
    ('{"prompt": "a cat"}{"prompt": "a dog"}\n', [1]),
], ids=["a list over lines", "a list on a line", "a prompt first", "a text", "cut", "two on a line"])
def test_json_is_never_taken_for_prompts(text, numbers):
    """A JSON list was once three prompts: a bracket, an object, a bracket."""
    said = wrong(text)
    assert numbers == [int(one.split(":")[0].removeprefix("line ")) for one in said]
    assert all("JSON" in one for one in said)


def test_a_prompt_may_begin_with_a_bracket():
    assert ["[studio photo] a cat", "a dog"] == prompts(good("[studio photo] a cat\na dog"))


# --- mistakes


@pytest.mark.parametrize(("fields", "word"), [
    ({}, "prompt is empty"),
    ({"prompt": 5}, "prompt is empty"),
    ({"prompt": "\ud800"}, "UTF-8"),
    ({"prompt": "x", "size": 1024}, "WIDTHxHEIGHT"),
    ({"prompt": "x", "n": [1]}, "from 1 to 10"),
    ({"prompt": "x", "model": 5}, "model"),
    ({"prompt": "x", "set": "quality=high"}, "set must be an object"),
    ({"prompt": "x", "set": {"prompt": "y"}}, "use the prompt"),
    ({"prompt": "x", "image": 5}, "image must be"),
    ({"prompt": "x", "image": [5]}, "image must be"),
    ({"prompt": "x", "image": {"url": "https://x.example/a.png"}}, "image must be"),
    ({"prompt": "x", "image": "none.png"}, "no such file"),
    ({"prompt": "x", "image": "ftp://x.example/a.png"}, "http(s) URL"),
    ({"prompt": "x", "promt": "y"}, "no such field: \"promt\""),
    ({"prompt": "x", "name": "a", "out": "b.png"}, "contradict"),
    ({"prompt": "x", "name": ""}, "name must be text"),
    ({"prompt": "x", "name": 5}, "name must be text"),
    ({"prompt": "x", "name": "a\0b"}, "name must be text"),
    ({"prompt": "x", "name": "../b"}, "without a folder"),
    ({"prompt": "x", "name": "a\\b"}, "without a folder"),
    ({"prompt": "x", "name": ".."}, "without a folder"),
    pytest.param({"prompt": "x", "name": "n" * 300}, "not writable", marks=needs_posix),
    ({"prompt": "x", "out": ["a"]}, "out must be text"),
    ({"prompt": "x", "out": "taken/a.png"}, "a file in the way"),
])
def test_a_wrong_line_is_named_with_its_number(fields, word, here):
    (here / "taken").write_text("a file")
    text = rows({"prompt": "right"}) + "# a comment\n" + json.dumps(fields) + "\n" + rows({"prompt": "right too"})
    said = wrong(text)
    assert [True] == [one.startswith("line 3: ") for one in said], said
    assert word in said[0]


def test_every_mistake_of_every_line_is_named_at_once():
    said = wrong(rows({"prompt": "", "size": "big"}, {"prompt": "right"}, {"prompt": "x", "n": 0}) + "cut")
    assert ["line 1", "line 1", "line 3", "line 4"] == [one.split(":")[0] for one in said]


def test_of_very_many_wrong_lines_every_number_is_named():
    bad = set(range(1, 301)) - {50, 100, 101}
    said = wrong(rows(*({"prompt": "" if number in bad else "right"} for number in range(1, 301))))
    assert ["line %d" % number for number in range(1, 21)] == [one.split(":")[0] for one in said[:-1]]
    assert "also wrong: lines 21-49, 51-99, 102-300" == said[-1]


def test_too_many_lines_are_refused_before_they_are_looked_at():
    assert ["the batch file holds 10001 orders, 10000 are allowed"] == wrong("x\n" * 10_001)


# --- fields, defaults, references


def test_flags_are_the_defaults_of_every_line():
    found = good(rows({"prompt": "a"}, {"prompt": "b", "size": "64x64", "n": 3, "model": "other-1"},
                      {"prompt": "c", "n": None}),
                 size="512x512", n="2", model="gpt-image-2")
    assert [("512x512", 2, "gpt-image-2"), ("64x64", 3, "other-1"), ("512x512", 2, "gpt-image-2")] == [
        (line.request.size, line.request.n, line.request.model) for line in found]


def test_set_of_a_line_is_laid_over_set_of_the_command():
    found = good(rows({"prompt": "a", "set": {"quality": "low", "seed": 7}}, {"prompt": "b"}), set={"quality": "high"})
    assert [{"quality": "low", "seed": 7}, {"quality": "high"}] == [line.request.extra for line in found]


def test_an_image_is_a_url_a_file_or_a_list_of_them(here):
    (here / "a.png").write_bytes(png())
    url = "https://x.example/a.png"
    found = good(rows({"prompt": "1", "image": url}, {"prompt": "2", "image": ["a.png", url]}, {"prompt": "3"},
                      {"prompt": "4"}),
                 image=[str(here / "a.png")])
    kinds = [[image[:21] for image in line.request.images] for line in found]
    data = "data:image/png;base64"
    assert [[url[:21]], [data, url[:21]], [data], [data]] == kinds


def test_a_reference_file_is_read_once_for_all_lines(here):
    (here / "a.png").write_bytes(png())
    first, second = good(rows({"prompt": "1", "image": "a.png"}, {"prompt": "2", "image": ["a.png"]}))
    assert first.request.images[0] is second.request.images[0]


def test_references_of_one_line_that_are_too_large_together_are_refused(here, monkeypatch):
    monkeypatch.setattr(lines, "MAX_OF_ONE", lines.MAX_OF_ONE // 12)
    (here / "a.png").write_bytes(png(noise_bytes=1_250_000))
    said = wrong(rows({"prompt": "1", "image": ["a.png"] * 2}, {"prompt": "2", "image": ["a.png"] * 3}))
    assert ["line 2: the reference files of one order are too large together: 3 MB are allowed"] == said


# --- places


def places_of(found, here) -> list:
    paths = [os.path.relpath(os.path.join(line.place.folder, line.stem), here) for line in found]
    return [path.replace(os.sep, "/") for path in paths]


def test_a_line_without_a_name_is_called_by_its_position_and_first_words(here):
    found = good("# a comment\nA red fox!\n\n画一只猫\n\N{PARTY POPPER}\n")
    assert ["out/001-a-red-fox", "out/002-画一只猫", "out/003-image"] == places_of(found, here)


def test_name_and_out_decide_where_a_line_goes(here):
    found = good(rows({"prompt": "1", "name": "home"}, {"prompt": "2", "name": "v1.2"}, {"prompt": "3", "name": "gear.webp"},
                      {"prompt": "4", "out": "red/gear.png"}, {"prompt": "5", "out": "blue"},
                      {"prompt": "6", "out": str(here / "abs" / "x.jpg")}))
    assert ["out/home", "out/v1.2", "out/gear", "red/gear", "blue/005-5", "abs/x"] == places_of(found, here)
    assert [".png", ".png", ".webp", ".png", None, ".jpg"] == [line.place.suffix for line in found]


@pytest.mark.parametrize("name", ["it's", pytest.param('say "hi"', marks=needs_posix), "画", "-rf", "$HOME"])
def test_a_name_may_be_any_name_of_a_file(name, here):
    (line,) = good(rows({"prompt": "x", "name": name}))
    assert (name, ".png", str(here / "out")) == (line.place.stem, line.place.suffix, line.place.folder)


@pytest.mark.parametrize(("first", "second"), [
    ({"name": "a"}, {"name": "a"}),
    ({"name": "a.png"}, {"name": "a.jpg"}),
    ({"name": "a"}, {"out": "out/a.png"}),
    ({"out": "a.png"}, {"out": "./b/../a.png"}),
    ({"name": "a", "n": 2}, {"name": "a-2"}),
    ({"name": "a-2"}, {"name": "a", "n": 3}),
    ({}, {"name": "001-x"}),
])
def test_two_lines_for_one_file_name_are_a_mistake(first, second):
    """The suffix is no difference: the service may send either as PNG."""
    assert ["line 3: the same file name as line 1"] == wrong(
        rows({"prompt": "x", **first}) + "\n" + rows({"prompt": "y", **second}))


def test_the_same_name_in_two_folders_is_two_files():
    good(rows({"prompt": "x", "out": "a/x.png"}, {"prompt": "x", "out": "b/x.png"}, {"prompt": "x", "name": "x"}))


def test_a_line_knows_whether_it_speaks_of_the_working_folder(here):
    (here / "a.png").write_bytes(png())
    found = good(rows({"prompt": "1"}, {"prompt": "2", "out": "x.png"}, {"prompt": "3", "out": str(here / "y.png")},
                      {"prompt": "4", "image": "a.png"}, {"prompt": "5", "image": [str(here / "a.png")]},
                      {"prompt": "6", "image": "https://x.example/a.png"}, {"prompt": "7", "name": "z"}))
    assert [False, True, False, True, False, False, False] == [line.is_relative for line in found]


# --- marks: what makes a line of the next run the same line


def marks(text: str, **options) -> list:
    return [line.mark for line in good(text, **options)]


def test_identical_lines_are_different_orders_and_the_same_ones_next_time():
    text = "a cat\na cat\na dog\na cat\n"
    assert 4 == len(set(marks(text)))
    assert marks(text) == marks(text)


def test_a_line_is_the_same_order_wherever_it_stands_in_the_file():
    before, after = marks("a cat\na dog\n"), marks("# new\na bird\na dog\na cat\n")
    assert set(before) < set(after)


def test_plain_text_and_jsonl_of_the_same_order_are_the_same_line():
    assert marks("a cat") == marks(rows({"prompt": "a cat"})) == marks(rows({"prompt": "a cat", "n": 1}))


@pytest.mark.parametrize("change", [{"prompt": "b"}, {"n": 2}, {"size": "64x64"}, {"model": "m"}, {"set": {"seed": 1}},
                                    {"name": "x"}, {"out": "elsewhere.png"}, {"image": "https://x.example/a.png"}])
def test_whatever_changes_an_order_makes_it_another(change):
    assert marks(rows({"prompt": "a"})) != marks(rows({"prompt": "a", **change}))


def test_another_service_makes_it_another_order():
    (one,) = lines.read("a", {"set": {}}, "out", False, "sandbox", [])
    assert [one.mark] != marks("a", out="out")


def test_the_folder_is_no_part_of_the_order_for_it_may_be_moved():
    assert marks("a") == marks("a", out="elsewhere")
    assert marks(rows({"prompt": "a"})) == marks(rows({"prompt": "a", "out": "elsewhere"}))


@needs_posix
def test_the_same_line_for_two_folders_is_one_order_in_each_and_twice_for_one_folder_two(here):
    (here / "real").mkdir()
    (here / "alias").symlink_to("real")
    found = marks(rows(*({"prompt": "a", "out": out} for out in ("real", "other", "alias"))))
    assert found[0] == found[1] != found[2]


def test_a_changed_reference_file_makes_it_another_order(here):
    text = rows({"prompt": "a", "image": "a.png"})
    (here / "a.png").write_bytes(png())
    before = marks(text)
    (here / "a.png").write_bytes(png(32, 32))
    assert before != marks(text)
