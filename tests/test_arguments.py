"""The command line: every verb and flag of the design, mistakes collected, help that fits a screen."""

import pytest
from image2_cli import VERSION
from image2_cli.cli import arguments
from image2_cli.cli.arguments import parse, seconds
from image2_cli.errors import Image2Error

VERBS = ["generate", "batch", "wait", "status", "check", "gallery", "sandbox"]
EVERYWHERE = {"verbose": False, "sandbox": False, "out": None}
WAITS = {"timeout": "100", "poll_interval": None}
ORDER = {"image": None, "size": None, "n": None, "model": None, "set": None, "overwrite": False, "dry_run": False}
DEFAULTS = {
    "generate": {**EVERYWHERE, **WAITS, **ORDER, "prompt_word": None, "prompt": None, "prompt_file": None,
    "no_wait": False,
                 "no_download": False, "sync": False, "new": False},
    "batch FILE": {**EVERYWHERE, **WAITS, **ORDER, "file": "FILE", "max_images": "50", "concurrency": "8",
    "retry_failed": False,
                   "new": False},
    "wait": {**EVERYWHERE, **WAITS, "task_ids": [], "overwrite": False, "no_download": False},
    "status ID": {**EVERYWHERE, "task_id": "ID"},
    "check": EVERYWHERE,
    "gallery": {"verbose": False, "folder": None},
    "sandbox": {"verbose": False, "port": "0", "seconds": "4"},
}


def usage(*argv) -> str:
    with pytest.raises(Image2Error) as caught:
        parse(list(argv))
    assert "usage" == caught.value.code
    return caught.value.message


def parsed(*argv) -> dict:
    found, mistakes = parse(list(argv))
    assert [] == mistakes
    return vars(found)


@pytest.mark.parametrize("line", DEFAULTS)
def test_every_verb_has_its_flags_and_their_defaults(line):
    assert {"verb": line.split()[0], **DEFAULTS[line]} == parsed(*line.split())


def test_generate_takes_every_flag_as_it_was_written():
    assert {**DEFAULTS["generate"], "verb": "generate", "prompt_word": "a cat", "image": ["a.png", "https://x/b.png"],
            "size": "1x1", "n": "three", "model": "m", "set": ["a=1", "b=2"], "out": "o.png", "overwrite": True,
            "timeout": "7", "no_wait": True, "no_download": True, "sync": True, "new": True, "dry_run": True,
            "sandbox": True, "verbose": True, "poll_interval": "0.5"} == parsed(
        "generate", "--n", "three", "a cat", "--image", "a.png", "--size", "1x1", "--model=m", "--set", "a=1",
        "--set", "b=2", "--out", "o.png", "--overwrite", "--timeout", "7", "--no-wait", "--no-download", "--sync", "--new",
        "--dry-run", "--sandbox", "--image", "https://x/b.png", "-v", "--poll-interval", "0.5")


@pytest.mark.parametrize("flag", ["-o", "--out", "--output", "--out-dir"])
def test_the_output_place_has_the_names_people_try(flag):
    assert "x" == parsed("generate", "p", flag, "x")["out"]


@pytest.mark.parametrize("argv", [["-p", "a cat"], ["--prompt", "a cat"], ["--prompt=a cat"]])
def test_the_prompt_may_be_a_flag(argv):
    assert ("a cat", None) == (parsed("generate", *argv)["prompt"], parsed("generate", *argv)["prompt_word"])


def test_a_prompt_may_be_empty_or_look_like_a_verb_or_a_number():
    for prompt in ("", "wait", "generate", "-5 degrees outside", "--"[:1]):
        assert prompt == parsed("generate", prompt)["prompt_word"]
    assert "-x" == parsed("generate", "--", "-x")["prompt_word"]


def test_wait_takes_any_number_of_tasks():
    assert ["t-1", "t-2"] == parsed("wait", "t-1", "t-2", "--out", "o")["task_ids"]


def test_every_word_that_is_not_understood_is_named():
    found, mistakes = parse(["generate", "a", "red", "fox", "--colour", "--api-key=x", "--siz", "1"])
    assert "a" == found.prompt_word
    assert ["red is no flag or argument of generate", "fox is no flag or argument of generate"] == mistakes[:2]
    assert 6 == len(mistakes)


@pytest.mark.parametrize("half", ["--over", "--no-w", "--prompt-f=x", "--sand", "--siz=1x1", "--dry"])
def test_half_a_flag_is_no_flag(half):
    assert [half + " is no flag or argument of generate"] == parse(["generate", "p", half])[1]


@pytest.mark.parametrize("verb", VERBS)
def test_no_flag_takes_the_key(verb):
    for flag in ("--key=x", "--api-key=x", "--api_key=x", "--token=x"):
        _, mistakes = parse([verb, "x", flag])
        assert flag + " is no flag or argument of " + verb in mistakes


def test_without_a_verb_they_are_named():
    message = usage()
    assert all(verb in message for verb in VERBS) and "generate --help" in message


@pytest.mark.parametrize(("argv", "words"), [
    (["paint"], "paint"), (["generate", "--size"], "--size"), (["status"], "TASK_ID"), (["batch"], "FILE"),
    (["generate", "--no-wait=yes"], "--no-wait"), (["generate", "-p"], "-p/--prompt")])
def test_a_line_that_cannot_be_read_is_one_usage_error_that_names_the_help(argv, words):
    message = usage(*argv)
    assert words in message and "--help`." in message and message[0].isupper()


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_fits_a_screen_and_ends_with_an_example_and_the_exit_statuses(verb, capsys):
    with pytest.raises(SystemExit) as end:
        parse([verb, "--help"])
    assert 0 == end.value.code
    text = capsys.readouterr().out
    lines = text.rstrip().splitlines()
    assert len(lines) <= 50 and max(map(len, lines)) <= 110
    assert text.rstrip().endswith(arguments.EXITS)
    assert lines[-3].startswith("example: image2.py " + verb)


def test_the_help_names_every_verb_and_every_exit_status(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text for verb in VERBS)
    for status in ("0 ok", "1 bug", "2 usage", "3 rejected", "4 auth", "5 unavailable", "6 failed", "7 partial", "8 pending",
                   "9 unknown", "10 not saved", "130/143 interrupted"):
        assert status in text


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_every_verb_can_be_read(verb):
    import shlex

    _, summary, example = arguments.VERBS[verb]
    parsed(verb, *shlex.split(example))
    assert summary


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as end:
        parse(["--version"])
    assert (0, f"image2.py {VERSION}\n") == (end.value.code, capsys.readouterr().out)


@pytest.mark.parametrize(("text", "expected"),
    [("100", 100.0), ("0.001", 0.001), ("86400", 86400.0), (" 5 ", 5.0), ("1e3", 1000.0)])
def test_a_number_of_seconds_is_above_zero_and_at_most_a_day(text, expected):
    mistakes = []
    assert expected == seconds(text, "--timeout", mistakes)
    assert [] == mistakes


@pytest.mark.parametrize("text",
    ["0", "-1", "-0.0", "86400.1", "nan", "inf", "-inf", "", "soon", "1,5", "10s", "1e999"])
def test_any_other_number_of_seconds_is_a_mistake(text):
    mistakes = []
    assert seconds(text, "--timeout", mistakes) is None
    assert [f"--timeout {text} must be a number of seconds above 0, at most 86400"] == mistakes


def test_a_flag_may_have_a_bound_of_its_own():
    mistakes = []
    assert (3600.0, None) == (seconds("3600", "--x", mistakes, 3600), seconds("3601", "--x", mistakes, 3600))
    assert ["--x 3601 must be a number of seconds above 0, at most 3600"] == mistakes
