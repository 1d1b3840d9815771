"""The command line: every verb and flag of the design, and what agents and people type instead of it."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from image2_cli.cli import arguments
from image2_cli.cli.arguments import VERBS, VERSION, parse, seconds
from image2_cli.cli.guesses import OTHERS, masked
from image2_cli.errors import Image2Error
from image2_cli.order.fields import FIELDS

ALWAYS = {"verbose": False, "sandbox": False, "out": None}
COMMON = {**ALWAYS, "timeout": "100"}
WAITS = {**COMMON, "poll_interval": None}
ORDER = {**{field.name: None for field in FIELDS[1:]}, "overwrite": False, "dry_run": False, "new": False}
DEFAULTS = {
    "generate": {**WAITS, **ORDER, "prompt_word": None, "prompt": None, "prompt_file": None, "no_wait": False,
                 "no_download": False, "sync": False},
    "batch FILE": {**WAITS, **ORDER, "file": "FILE", "directory": None, "max_images": "50", "concurrency": "8",
                   "retry_failed": False},
    "wait": {**WAITS, "task_ids": [], "directory": None, "overwrite": False, "no_download": False},
    "status ID": {**COMMON, "task_id": "ID"}, "status": {**COMMON, "task_id": None}, "check": COMMON,
    "gallery": {**ALWAYS, "folder": None}, "sandbox": {**ALWAYS, "port": "0", "seconds": "4"},
}
SECRET = "hunter2-hunter2"
STATUSES = ("0 ok", "1 bug", "2 usage", "3 rejected", "4 auth", "5 unavailable", "6 failed", "7 partial", "8 pending",
            "9 unknown", "10 not saved", "130/143 interrupted")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("brief.md", "photo.png", "cat"):
        (tmp_path / name).write_text("mine")


def mistakes_of(line: str) -> list:
    """What is said against a command, however it is said."""
    try:
        return parse(shlex.split(line))[1]
    except Image2Error as error:
        assert "usage" == error.code
        return [error.message]


def parsed(line: str) -> dict:
    found, mistakes = parse(shlex.split(line))
    assert [] == mistakes
    return vars(found)


@pytest.mark.parametrize("line", DEFAULTS)
def test_every_verb_has_its_flags_and_their_defaults(line):
    assert {"verb": line.split()[0], **DEFAULTS[line]} == parsed(line)
    assert parsed(f"{line} -v")["verbose"]


def test_generate_takes_every_flag_as_it_was_written():
    assert {**DEFAULTS["generate"], "verb": "generate", "prompt_word": "a cat", "image": ["a.png", "https://x/b.png"],
            "size": "1x1", "n": "three", "model": "m", "set": ["a=1", "b=2"], "out": "o.png", "timeout": "7", "new": True,
            "no_download": True, "dry_run": True, "sandbox": True, "verbose": True, "poll_interval": "0.5"} == parsed(
                "generate --n three 'a cat' --image a.png --size 1x1 --model=m --set a=1 --set b=2 --out o.png --timeout 7 "
                "--no-download --new --dry-run --sandbox -i https://x/b.png -v --poll-interval 0.5")


@pytest.mark.parametrize(("line", "expected"), [
    *((f"generate p {flag} x", {"out": "x"}) for flag in ("-o", "--out", "--output", "--out-dir")),
    *((f"generate {words}", {"prompt": "a cat"}) for words in ("-p 'a cat'", "--prompt 'a cat'", "'--prompt=a cat'")),
    *((f"generate {shlex.quote(word)}", {"prompt_word": word})
      for word in ("", "wait", "-5 degrees outside", "-", "- item")),
    ("generate -- -x", {"prompt_word": "-x"}), ("generate --prompt=-x", {"prompt": "-x"}),
    ("generate --prompt -", {"prompt": "-"}), ("generate --prompt-file -", {"prompt_file": "-"}),
    ("generate -n3 x", {"n": "3"}), ("generate x -n 3 -i a.png", {"n": "3", "image": ["a.png"]}),
    ("generate --image a.png 'make it like photo.png'", {"prompt_word": "make it like photo.png"}),
    ("wait t-1 t-2 --out o", {"task_ids": ["t-1", "t-2"], "out": "o"}),
    ("batch f --new --retry-failed", {"new": True, "retry_failed": True}), ("check --timeout 5", {"timeout": "5"})])
def test_what_is_meant_beyond_doubt_works(line, expected):
    found = parsed(line)
    assert expected == {name: found[name] for name in expected}


# command -> what each of its mistakes says; each stands for its kind
TYPED = {
    "generate brief.md": ["--prompt-file brief.md"], "generate @brief.md": ["--prompt-file brief.md"],
    "generate cat": ["--prompt for these very words"],
    "generate x -o a.png --out b.png": ["--out is given twice"], "generate x -p y": ["the prompt is given 2 times"],
    "generate x --sync --no-wait": ["contradict"], "generate x --no-download --overwrite": ["contradict"],
    "generate x --no-wait --no-download": ["contradict"],
    "generate -n3 a -- -x": ["quote the prompt: image2.py generate 'a -x' -n3"],
    "generate --image a.png b.png 'merge them'": ["repeat --image for each file (--image b.png), or type --out b.png"],
    "generate a red fox --out f.png": ["quote the prompt: image2.py generate 'a red fox' --out f.png"],
    f"generate a fox sk-{SECRET}": ["quote the prompt: image2.py generate 'a fox (withheld)'"],
    "generate x --aspect-ratio 16:9": ["--size 1536x864"], "generate x --quality high": ["--set quality=high"],
    "generate x --style": ["--set style=VALUE"], "generate x --negative-prompt 'no fur'": ["--set 'negative_prompt=no fur'"],
    "generate x --width 1536 --height 1024": ["--size 1536xHEIGHT", "--size WIDTHx1024"],
    "generate --transparent 'a fox'": ["background=transparent"],
    "generate x --output-file f.png": ["--out f.png"], "generate --text 'a fox'": ["--prompt 'a fox'"],
    "generate x --images 3": ["--n 3"], "generate x --preview": ["type --dry-run"],
    "generate --prompt_file b.md": ["--prompt-file b.md"], "generate x --Size 1x1": ["--size 1x1"],
    "generate x -out f.png": ["--out f.png"], "generate x —size 1x1": ["--size 1x1"],
    f"--api-key {SECRET} generate x": ["put --api-key", "IMAGE2_API_KEY"],
    "--sandbox generate x": ["put --sandbox after the verb: image2.py generate x --sandbox"],
    "--size 1x1 --n 2 batch f": ["put --size after the verb: image2.py batch f --size 1x1 --n 2"],
    "generate x --colour red": ["generate has no flag --colour"],
    "--sandbox batch --colour f": ["verb: image2.py batch f --sandbox", "no flag --colour"],
    "generate x --siez 1x1": ["did you mean --size"], "generate x --size": ["--size needs a value"],
    "generate x --no-wait=yes": ['leave "yes" out'], "generate x --new true": ['leave "true" out'],
    "generate x --force": ["--overwrite to replace files, or --new"], "generate x --base-url https://x": ["IMAGE2_BASE_URL"],
    "batch --prompts p.txt --count 3": ["batch p.txt", "--n 3"], "wait --new": ["never orders"],
    "status a b": ['status takes one TASK_ID: "b"'], "check x": ["check takes no further word"],
    "status --id=t-1": ["image2.py status t-1"], "gallery --out icons": ["image2.py gallery icons"],
    "paint": ["Name a verb: generate"], "": ["Name a verb"], "create x": ["type `image2.py generate`"],
    "'a red fox'": ["image2.py generate 'a red fox'"], "batch": ["FILE"], "--sandbox": ["Name a verb"],
    **{f"generate p {half}": [f"generate has no flag {half}"] for half in ("--over", "--no-w", "--sand", "--dry")}}


@pytest.mark.parametrize("line", TYPED)
def test_what_is_not_meant_beyond_doubt_is_one_mistake_that_says_what_to_type(line):
    said = mistakes_of(line)
    if len(said) == 2 and "the prompt is given" in said[1]:
        said.pop()
    assert len(TYPED[line]) == len(said), said
    for words, mistake in zip(TYPED[line], said):
        assert words in mistake and SECRET not in mistake and "\n" not in mistake and not mistake.endswith("..")


@pytest.mark.parametrize("verb", VERBS)
def test_a_guessed_flag_and_its_value_are_one_mistake_of_every_verb(verb):
    known = arguments._verb_parser(verb)._option_string_actions
    for guess in [guess for guess in OTHERS if f"--{guess}" not in known]:
        for line in (f"{verb} word --{guess} 7", f"{verb} word --{guess.replace('-', '_')}=7"):
            said = [one for one in mistakes_of(line) if "no further word" not in one and "one too many" not in one]
            assert 1 == len(said) and guess in said[0].replace("_", "-"), said


def test_the_command_that_a_mistake_names_is_right():
    """The second command of an agent must succeed."""
    for line, (words, *_more) in TYPED.items():
        typed = words.partition("image2.py ")[2].strip("`")
        if typed and "(withheld)" not in typed and "verb" not in words.partition(":")[0].replace("the verb", ""):
            assert [] == mistakes_of(typed) or typed == "generate", line


@pytest.mark.parametrize("flag", ["--key", "--api_key", "--token", "--access-token", "-k"])
@pytest.mark.parametrize("verb", VERBS)
def test_no_flag_takes_the_key_and_its_value_is_never_repeated(verb, flag):
    for line in (f"{verb} {flag} {SECRET}", f"{verb} {flag}={SECRET}", f"{flag} {SECRET} {verb}",
                 f"{flag}={SECRET} {verb} x y"):
        said = " ".join(mistakes_of(line))
        assert "IMAGE2_API_KEY" in said and SECRET not in said


@pytest.mark.parametrize(("text", "is_key"), [
    ("sk-abcdefgh12345", True), ("Bearer abc", True), ("IMAGE2_API_KEY=abc", True), ("A1b2C3d4E5f6G7h8I9j0K", True),
    ("0123456789abcdef0123456789abcdef", True), ("eyJhbGciOiJIUzI1NiJ9.e30.x", True),
    ("3f2a4c1e-9b7d-4e21-8f00-1234567890ab", False), ("images/My-Photo-Of-2024-In-Rome.png", False),
    ("/home/Someone/Pictures2024/IMG20241122", False), ("https://x.example/AbC123dEf456GhI789jKl", False)])
def test_what_looks_like_a_key_is_withheld_and_nothing_else(text, is_key):
    assert is_key == (masked(text) != text)


def test_long_words_are_cut():
    long = "x" * 5000
    for line in (f"generate {long} {long} --output-file {long}/f.png", f"generate x --{long} y", f"--out {long} wait"):
        assert len(" ".join(mistakes_of(line))) < 2000


# --- help


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_fits_a_screen_and_ends_with_an_example_and_the_exit_statuses(verb, capsys):
    with pytest.raises(SystemExit) as end:
        parse([verb, "--help"])
    text = capsys.readouterr().out.rstrip()
    lines = text.splitlines()
    assert 0 == end.value.code and len(lines) <= 40 and max(map(len, lines)) <= 100
    assert text.endswith(arguments.EXITS) and lines[-4].startswith(f"example: image2.py {verb}")


@pytest.mark.parametrize(("line", "words"), [
    *((line, [*(f"  {verb} " for verb in VERBS), *STATUSES]) for line in ("-h", "--sandbox --help")),
    *((line, [f"image2.py {VERSION}\n"]) for line in ("--version", "generate --version"))])
def test_the_help_names_every_verb_and_every_exit_status_and_the_version_is_told(line, words, capsys):
    with pytest.raises(SystemExit) as end:
        parse(line.split())
    said = capsys.readouterr().out
    assert 0 == end.value.code and all(word in said for word in words)
    assert "--version" not in line or [said] == words


@pytest.mark.slow
def test_reading_a_command_loads_nothing_slow():
    """dataclasses (for inspect) and tempfile cost more than all of argparse."""
    scripts = Path(arguments.__file__).parents[2]
    code = "import sys; from image2_cli.cli import arguments; arguments.parse(sys.argv[1:]); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-S", "-c", code, "generate", "x"], cwd=scripts, capture_output=True, text=True)
    assert not {"dataclasses", "inspect", "tempfile", "hashlib", "difflib", "requests"} & set(loaded.stdout.split())
    assert "image2_cli.order.fields" in loaded.stdout


# --- numbers of seconds


@pytest.mark.parametrize("text", ["0", "-1", "86400.1", "nan", "inf", "", "soon", "x" * 99])
def test_a_number_of_seconds_is_above_zero_and_at_most_a_day(text):
    assert [0.001, 86400.0, 5.0] == [seconds(good, "--timeout") for good in ("0.001", "86400", " 5 ")]
    with pytest.raises(ValueError, match="^--timeout .{2,23} must be a number of seconds above 0, at most 86400$"):
        seconds(text, "--timeout")
    with pytest.raises(ValueError, match="at most 60$"):
        seconds("61", "--timeout", 60)


@pytest.mark.parametrize("line", ["generate x --out=--", "wait --timeout=--", "generate --prompt=-- --size 64x64"])
def test_a_flag_whose_value_argparse_takes_for_an_end_of_flags_needs_one(line):
    """On some Pythons it was as if it had not been given: paid into the default folder."""
    assert any("needs a value" in mistake for mistake in mistakes_of(line)), line
