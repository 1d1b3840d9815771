"""The answer: how much it says, every exit status by a real run, and whatever surrounds the process.

Budgets are in tokens, which are characters divided by four, paths and prompt apart.
"""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from aftermath import pictures_in, run_next
from faulty import closed_port, completed, failed, full_backlog, hang, ok, page, pending, picture, refuse, reset
from image2_cli import errors, main
from image2_cli.clock import Clock
from laws import FAST, hold, records
from pictures import png
from platforms import needs_linux, needs_posix, needs_signals
from running import CANARY, SCRIPT, whole


def tokens(done, project) -> float:
    """The size of an answer; a folder counts one character, a prompt none."""
    text = done.stdout
    for path, short in ((project, "/"), (SCRIPT, "/"), (sys.executable, "python3")):
        text = text.replace(json.dumps(str(path))[1:-1], short)  # as it stands in JSON: Windows' have backslashes
    return len(text) / 4


ACCEPTED = ok("batch-3f2b8c1a-5f0e-4d5c-9a77-0c1d2e3f4a5b")


# --- budgets

@pytest.mark.parametrize("n, budget", [(1, 130), (4, 250)])
def test_images_are_told_within_their_budget(run, service, project, n, budget):
    service.on_post(ACCEPTED)
    done = run("generate", "A cute cat sitting by the window, warm sunlight on its fur", "--n", str(n), "--size",
               "1024x1024", *FAST)
    answer = hold(done, service, project, 10)
    assert n == len(answer["images"])
    assert all(image["path"] and image["url"] for image in answer["images"])
    assert tokens(done, project) <= budget


ERRORS = {  # name: (exit status, answer to the order, answer to a look)
    "rejected": (3, refuse(400, "Your request was rejected as a result of our safety system.", "content_policy")),
    "insufficient_credits": (3, refuse(402, "Insufficient credits: 0 left, 1 needed.")),
    "key_rejected": (4, refuse(401, "Invalid API key provided.", "invalid_api_key")),
    "rate_limited": (5, refuse(429, "Rate limit reached, try again later.", retry_after=3600)),
    "unavailable": (5, page(503, retry_after=3600)),
    "outcome_unknown": (9, reset()),
    "task_failed": (6, ACCEPTED, failed("The prompt was refused by the content policy.")),
    "some_failed": (7, ACCEPTED, completed(n=1)),
    "still_running": (8, ACCEPTED, pending(40)),
    "no_images": (10, ACCEPTED, completed(data=[])),
    "not_saved": (10, ACCEPTED, completed(urls=["http://127.0.0.1:1/generations/img_abc123.png"])),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_told_within_its_budget(run, service, project, name):
    exit_status, post, *polls = ERRORS[name]
    service.on_post(post)
    service.on_poll(*(polls or [completed()]))
    done = run("generate", "a cat", "--n", "2" if name == "some_failed" else "1", *FAST, "--timeout", "3")
    answer = hold(done, service, project, 3)
    assert (exit_status, name) == (done.exit, answer["error"]["code"])
    share = 32 * len(answer["images"])  # what an error has to say beside: which image, its link, and why
    assert tokens(done, project) <= 110 + share, done.stdout


@pytest.mark.parametrize("out, key, code", [
    (".", None, "missing_key"), pytest.param("/dev/null/x", CANARY, "output_not_writable", marks=needs_posix)])
def test_what_is_missing_is_told_within_the_budget_of_an_error(run, project, out, key, code):
    done = run("generate", "a cat", "--out", out, key=key)
    assert code == done.json["error"]["code"]
    assert tokens(done, project) <= 110, done.stdout


# --- every exit status

def test_a_bug_is_told_as_one(run, tmp_path):
    broken = tmp_path / "broken" / "scripts"
    shutil.copytree(SCRIPT.parent, broken, ignore=shutil.ignore_patterns("__pycache__"))
    with (broken / "image2_cli" / "order" / "polling.py").open("a") as file:
        file.write("\n\ndef wait_for(*_args):\n    raise RuntimeError('a bug')\n")
    done = run("generate", "a cat", script=broken / "image2.py")
    assert (1, "internal") == (done.exit, done.json["error"]["code"])


def test_every_exit_status_is_reached_by_a_real_run():
    """Besides the errors: 0 and 1 above, 2 by the mistakes below, 130 and 143 by test_kills."""
    reached = {status for status, *_ in ERRORS.values()} | {0, 1, 2, 130, 143}
    assert {0, *(status for status, *_ in errors.CODES.values())} == reached


@needs_linux  # elsewhere a full backlog does not hang
def test_a_signal_while_nothing_was_sent_costs_nothing(start, service, project):
    with full_backlog() as nowhere:
        busy = start("generate", "a cat", base_url=nowhere)
        for _ in range(100):
            if list(project.rglob(".image2/*.json")):
                break
            time.sleep(0.05)
        busy.send_signal(signal.SIGTERM)
        done = busy.finish(5)
    answer = hold(done, None, project, 10)
    assert (143, "no") == (done.exit, answer["charged"])


@needs_signals
def test_a_signal_behind_a_cut_answer_keeps_its_task_id(start, service, project):
    service.on_post(hang(30, ok("the-task"), -1))
    busy = start("generate", "a cat")
    service.wait_for("post")
    time.sleep(0.3)
    busy.send_signal(signal.SIGTERM)
    done = busy.finish(5)
    answer = hold(done, service, project, 10)
    assert (143, "the-task", "yes") == (done.exit, answer["task_id"], answer["charged"])


# --- mistakes

def test_every_mistake_of_an_order_is_named_at_once(run, service, project):
    (project / "note.txt").write_text("no picture")
    done = run("generate", "", "--prompt", "twice", "--n", "11", "--size", "huge", "--image", "missing.png", "--image",
               "note.txt", "--image", "ftp://example.com/a.png", "--set", "quality", "--set", "n=2", "--timeout", "0",
               "--poll-interval", "x", "--sync", "--no-wait", "--model", "a b", "--frobnicate")
    answer = hold(done, service, project, 5)
    assert (2, "usage") == (done.exit, answer["error"]["code"])
    for word in ("prompt", "--n", "--size", "missing.png", "note.txt", "ftp://", "quality", "n:", "--timeout",
                 "--poll-interval", "--sync", "--model", "--frobnicate"):
        assert word in answer["error"]["message"], word
    assert [] == service.requests


MISTAKES = {
    "no verb": (),
    "an unknown verb": ("draw", "a cat"),
    "no prompt": ("generate",),
    "a flag without its value": ("generate", "a cat", "--size"),
    "two prompts": ("generate", "a cat", "a dog"),
    "a missing prompt file": ("generate", "--prompt-file", "missing.txt"),
    "n of 0": ("generate", "a cat", "--n", "0"),
    "endless": ("generate", "a cat", "--timeout", "inf"),
    "set over a flag": ("generate", "a cat", "--set", "prompt=other"),
    "no task id": ("status", "../../etc"),
    "an empty task id": ("wait", ""),
    "a port of 70,000": ("sandbox", "--port", "70000"),
    "a port too long to be a number": ("sandbox", "--port", "9" * 5000),
    "no batch": ("batch", "missing.txt"),
    "a bound too long to be a number": ("batch", "missing.txt", "--max-images", "9" * 5000),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_sends_nothing_and_makes_nothing(run, service, project, name):
    done = run(*MISTAKES[name])
    answer = hold(done, service, project, 5)
    assert (2, "usage") == (done.exit, answer["error"]["code"])
    assert tokens(done, project) <= 110, done.stdout
    assert [] == service.requests
    assert [] == sorted(project.iterdir())


def test_a_dry_run_needs_neither_key_nor_packages_nor_network(run, project):
    done = run("generate", "a cat", "--dry-run", "--n", "2", "--set", 'style="bold"', "--set", "seed=7", key=None,
               env={"IMAGE2_NO_INSTALL": "1"}, flags=("-S",), base_url=None)
    answer = done.json
    assert (0, "dry_run", "no") == (done.exit, answer["status"], answer["charged"])
    assert "https://image2.vip/api/v1/images/generations" == answer["request"]["url"]
    assert {"prompt": "a cat", "n": 2, "style": "bold", "seed": 7}.items() <= answer["request"]["body"].items()
    assert [str(project / "image2-output" / name) for name in ("a-cat.png", "a-cat-2.png")] == answer["files"]
    assert [] == sorted(project.iterdir())


# --- prompts and stdin

@pytest.mark.parametrize("text", ["a cat", "a cat\n", "\ufeffa cat", "ein Kätzchen 🐈\nin zwei Zeilen"],
                         ids=["plain", "a line", "byte-order mark", "lines"])
def test_a_prompt_comes_from_stdin(run, service, project, text):
    done = run("generate", "--prompt-file", "-", *FAST, stdin=text)
    assert 0 == done.exit
    assert text.strip().lstrip("\ufeff") == service.json()[0]["prompt"]


@pytest.mark.parametrize("stdin", [b"", b"\xff\xfe\x00", b"x" * 1_100_000, None],
                         ids=["empty", "not UTF-8", "too long", "closed"])
def test_a_prompt_from_stdin_that_is_none_is_a_mistake(run, service, project, stdin):
    done = run("generate", "--prompt-file", "-", stdin=stdin)
    assert (2, []) == (done.exit, service.requests)


# --- what surrounds the process

@needs_posix
@pytest.mark.parametrize("argv", [("generate", "a cat", *FAST), ("--help",), ("generate",)],
                         ids=["generate", "help", "usage"])
def test_a_closed_stdout_does_not_stop_the_work(start, service, project, argv):
    reader, writer = os.pipe()
    os.close(reader)
    busy = start(*argv, stdout=writer)
    os.close(writer)
    done = busy.finish(20)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if "a cat" in argv:
        assert (0, ["a-cat.png"]) == (done.exit, pictures_in(project / "image2-output"))


@needs_posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_a_full_stdout_ends_without_a_traceback(start, service, project):
    with open("/dev/full", "wb") as full:
        done = start("generate", "a cat", *FAST, stdout=full).finish(20)
    assert "Traceback" not in done.stderr
    assert ["a-cat.png"] == pictures_in(project / "image2-output")


@needs_posix
def test_no_stdout_and_no_stderr_at_all_are_survived(service, project):
    script = 'exec "$0" "$1" generate "a cat" --poll-interval 0.05 >&- 2>&- <&-'
    environment = whole({"PATH": os.environ["PATH"], "HOME": str(project), "IMAGE2_API_KEY": CANARY,
                         "IMAGE2_BASE_URL": service.base_url})
    done = subprocess.run(["sh", "-c", script, sys.executable, str(SCRIPT)], cwd=project, env=environment, timeout=30)
    assert 0 == done.returncode
    assert ["a-cat.png"] == pictures_in(project / "image2-output")


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
                                    {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "de_DE.ISO-8859-1"}],
                         ids=lambda value: "-".join(value.values()))
def test_any_locale_tells_any_script(run, service, project, locale):
    done = run("generate", "一只猫 🐈", *FAST, env=locale)
    answer = hold(done, service, project, 10)
    assert 0 == done.exit
    assert "一只猫" in Path(answer["images"][0]["path"]).name
    assert "一只猫 🐈" == service.json()[0]["prompt"]


@pytest.mark.parametrize("verb", [(), ("generate",), ("batch",), ("wait",), ("status",), ("check",), ("gallery",),
                                  ("sandbox",)], ids=lambda verb: verb[0] if verb else "all")
def test_help_prints_in_ascii_too(run, verb):
    done = run(*verb, "--help", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}, flags=("-S",))
    assert 0 == done.exit
    assert "exit: 0 ok" in done.stdout


@pytest.fixture
def installed(tmp_path):
    """The skill as an installer leaves it: copied, and reached through a link."""
    folder = tmp_path / "agents" / "skills" / "image2"
    folder.mkdir(parents=True)
    shutil.copytree(SCRIPT.parent, folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "claude").mkdir()
    (tmp_path / "claude" / "image2").symlink_to(folder, target_is_directory=True)
    return tmp_path / "claude" / "image2" / "scripts" / "image2.py"


@needs_posix
@pytest.mark.parametrize("flags", [(), ("-I",), ("-P",), ("-B", "-E")], ids=["plain", "-I", "-P", "-B -E"])
def test_a_copy_runs_through_a_link_from_any_folder(run, service, project, installed, flags):
    if flags == ("-P",) and sys.version_info < (3, 11):
        pytest.skip("-P came with Python 3.11")
    (project / "image2_cli").mkdir()
    (project / "requests.py").write_text("raise SystemExit('the wrong requests')")
    done = run("generate", "a cat", *FAST, script=installed, flags=flags)
    hold(done, service, project, 10)
    assert 0 == done.exit


@needs_posix
def test_next_of_a_copy_runs_from_any_folder(run, service, project, installed, tmp_path):
    service.on_poll(pending())
    done = run("generate", "a cat", *FAST, "--timeout", "0.2", script=installed)
    service.on_poll(completed())
    assert 0 == run_next(done.json, service, tmp_path).exit
    assert ["a-cat.png"] == pictures_in(project / "image2-output")


def test_a_sandbox_s_run_costs_nothing_and_leaves_a_person_s_key_and_service_alone(run, service, project):
    done = run("generate", "a cat", "--sandbox", "--size", "64x32", "--poll-interval", "0.5", "-v")
    answer = hold(done, service, project, 20)
    assert (0, True, "no") == (done.exit, answer["sandbox"], answer["charged"])
    assert [] == service.requests
    assert (64, 32) == (answer["images"][0]["width"], answer["images"][0]["height"])


def test_check_costs_nothing_and_tells_what_to_do(run, service, project):
    service.on_poll(refuse(404))
    done = run("check")
    assert (0, "ready") == (done.exit, done.json["status"])
    service.on_poll(refuse(401))
    done = run("check")
    assert (4, "key_rejected") == (done.exit, done.json["error"]["code"])
    with closed_port() as nowhere:
        assert 5 == run("check", base_url=nowhere).exit
    assert 4 == run("check", key=None).exit
    assert [] == service.posts


# --- reference files

SECRET = b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n"


@pytest.mark.parametrize("content", [SECRET, b"\x89PNG\r\n\x1a\n" + SECRET, png()[:-20], None],
                         ids=["a private key", "a private key behind a picture's first bytes", "a cut picture", "nothing"])
def test_only_a_whole_picture_leaves_the_machine(run, service, project, content):
    """What else is none stands in test_reference."""
    if content:
        (project / "cat.png").write_bytes(content)
    done = run("generate", "a cat", "--image", "cat.png")
    assert 2 == done.exit
    assert "cat.png" in done.json["error"]["message"]
    assert "OPENSSH" not in done.stdout + done.stderr
    assert [] == service.requests


def test_what_is_appended_to_a_picture_stays_here(run, service, project):
    (project / "cat.txt").write_bytes(png() + SECRET)
    assert 0 == run("generate", "a cat", "--image", "cat.txt", *FAST).exit
    (sent,) = service.json()[0]["image"]
    assert png() == base64.b64decode(sent.partition(",")[2])
    assert sent[:100] not in json.dumps(records(project))


def test_a_picture_of_another_size_is_a_success_with_a_warning(run, service, project):
    service.on_file(picture(png(20, 10)))
    done = run("generate", "a cat", "--size", "1024x1024", *FAST)
    answer = hold(done, service, project, 10)
    assert (0, ["Asked for 1024x1024, got 20x10."]) == (done.exit, answer["warnings"])


def test_an_answer_that_cannot_be_made_is_one_object_all_the_same(capfdbinary):
    class Broken:
        options, order, many = types.SimpleNamespace(verbose=False), None, None
        charged, serving = "yes", None

        def failed(self, _error):
            raise ZeroDivisionError

    run = main._Main(["--nonsense"], "image2.py", Clock())
    run.verb = Broken()
    assert 1 == run.run()
    told = json.loads(capfdbinary.readouterr().out)
    assert ("internal", "yes") == (told["error"]["code"], told["charged"])
