"""The answer: how much it says, every exit status by a real run, and whatever surrounds the process.

Budgets are in tokens, which are characters divided by four, paths and prompt apart.
"""

from __future__ import annotations

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
from faulty import closed_port, completed, failed, ok, page, pending, picture, refuse, reset
from image2_cli import errors, main
from image2_cli.clock import Clock
from laws import FAST, hold
from pictures import every, png
from platforms import needs_linux, needs_posix, needs_signals
from running import CANARY, SCRIPT


def tokens(done, project) -> float:
    """The size of an answer; a folder counts one character, a prompt none."""
    text = done.stdout
    for path, short in ((project, "/"), (SCRIPT, "/"), (sys.executable, "python3")):
        text = text.replace(json.dumps(str(path))[1:-1], short)  # as it stands in JSON: Windows' have backslashes
    return len(text) / 4


def ids(request) -> str:
    return "batch-3f2b8c1a-5f0e-4d5c-9a77-0c1d2e3f4a5b"


# --- budgets

@pytest.mark.parametrize("n, budget", [(1, 130), (4, 250)])
def test_images_are_told_within_their_budget(run, service, project, n, budget):
    service.on_post(ok(ids(None)))
    done = run("generate", "A cute cat sitting by the window, warm sunlight on its fur", "--n", str(n), "--size",
               "1024x1024", *FAST)
    answer = hold(done, service, project, 10)
    assert n == len(answer["images"])
    assert all(image["path"] and image["url"] for image in answer["images"])
    assert tokens(done, project) <= budget


ERRORS = {
    "rejected": ([refuse(400, "Your request was rejected as a result of our safety system.", "content_policy")], []),
    "insufficient_credits": ([refuse(402, "Insufficient credits: 0 left, 1 needed.")], []),
    "key_rejected": ([refuse(401, "Invalid API key provided.", "invalid_api_key")], []),
    "rate_limited": ([refuse(429, "Rate limit reached, try again later.", retry_after=3600)], []),
    "unavailable": ([page(503, retry_after=3600)], []),
    "outcome_unknown": ([page(502)], []),
    "unknown, reset": ([reset()], []),
    "task_failed": ([ok(ids(None))], [failed("The prompt was refused by the content policy.")]),
    "still_running": ([ok(ids(None))], [pending(40)]),
    "no_images": ([ok(ids(None))], [completed(data=[])]),
    "not_saved": ([ok(ids(None))], [completed(urls=["http://127.0.0.1:1/generations/img_abc123.png"])]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_told_within_its_budget(run, service, project, name):
    posts, polls = ERRORS[name]
    service.on_post(*posts)
    service.on_poll(*(polls or [completed()]))
    done = run("generate", "a cat", *FAST, "--timeout", "1")
    answer = hold(done, service, project, 1)
    assert answer["error"]
    share = 32 * len(answer["images"])  # what an error has to say beside: which image, its link, and why
    assert tokens(done, project) <= 110 + share, done.stdout


@pytest.mark.parametrize("argv, options", [
    (("generate",), {}), (("generate", "a cat"), {"key": None}), (("wait", "../x"), {}),
    pytest.param(("generate", "a cat", "--out", "/dev/null/x"), {}, marks=needs_posix),
], ids=["usage", "no key", "no task id", "no place"])
def test_a_mistake_is_told_within_the_budget_of_an_error(run, project, argv, options):
    done = run(*argv, **options)
    assert done.exit in (2, 4)
    assert tokens(done, project) <= 110, done.stdout


# --- every exit status

def _internal(run, service, tmp_path):
    broken = tmp_path / "broken" / "scripts"
    shutil.copytree(SCRIPT.parent, broken, ignore=shutil.ignore_patterns("__pycache__"))
    with (broken / "image2_cli" / "waiting.py").open("a") as file:
        file.write("\n\ndef wait_for(*_args):\n    raise RuntimeError('a bug')\n")
    return run("generate", "a cat", script=broken / "image2.py")


def _partial(run, service, tmp_path):
    service.on_poll(completed(n=1))
    return run("generate", "a cat", "--n", "2", *FAST)


def _answered(post=None, poll=None, file=None):
    def way(run, service, tmp_path):
        for script, answer in ((service.on_post, post), (service.on_poll, poll), (service.on_file, file)):
            if answer:
                script(answer)
        return run("generate", "a cat", *FAST, "--timeout", "1")
    return way


WAYS = {
    0: _answered(),
    1: _internal,
    2: lambda run, service, tmp_path: run("generate"),
    3: _answered(refuse(400)),
    4: lambda run, service, tmp_path: run("generate", "a cat", key=None),
    5: _answered(refuse(429)),
    6: _answered(poll=failed()),
    7: _partial,
    8: _answered(poll=pending()),
    9: _answered(reset()),
    10: _answered(file=page(200)),
}


@pytest.mark.parametrize("exit_status", WAYS)
def test_every_exit_status_is_reached_by_a_real_run(run, service, tmp_path, exit_status):
    done = WAYS[exit_status](run, service, tmp_path)
    assert exit_status == done.exit
    assert (exit_status == 0) is done.json["ok"]
    assert service.orders <= 1


@needs_signals
@pytest.mark.parametrize("sent, exit_status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_answered_with_the_task_and_what_continues_it(start, service, project, sent, exit_status):
    service.on_poll(pending())
    busy = start("generate", "a cat", *FAST)
    service.wait_for("poll")
    busy.send_signal(sent)
    done = busy.finish(5)
    answer = hold(done, service, project, 30)
    assert (exit_status, "task-1", "yes") == (done.exit, answer["task_id"], answer["charged"])
    assert answer["next"]


@needs_linux  # elsewhere a full backlog does not hang
def test_a_signal_while_nothing_was_sent_costs_nothing(start, service, project):
    from faulty import full_backlog

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
    from faulty import hang

    service.on_post(hang(30, ok("the-task"), -1))
    busy = start("generate", "a cat")
    service.wait_for("post")
    time.sleep(0.3)
    busy.send_signal(signal.SIGTERM)
    done = busy.finish(5)
    answer = hold(done, service, project, 10)
    assert (143, "the-task", "yes") == (done.exit, answer["task_id"], answer["charged"])


def test_the_table_of_exit_statuses_is_complete():
    assert {*WAYS, 130, 143} == {0, *(code[0] for code in errors.CODES.values())}


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
    "an empty prompt": ("generate", "  "),
    "a prompt of 40,000": ("generate", "x" * 40_000),
    "half a flag": ("generate", "a cat", "--over"),
    "a flag without its value": ("generate", "a cat", "--size"),
    "two prompts": ("generate", "a cat", "a dog"),
    "a missing prompt file": ("generate", "--prompt-file", "missing.txt"),
    "n of 0": ("generate", "a cat", "--n", "0"),
    "n of 1.5": ("generate", "a cat", "--n", "1.5"),
    "n of ١": ("generate", "a cat", "--n", "١"),
    "endless": ("generate", "a cat", "--timeout", "inf"),
    "never": ("generate", "a cat", "--timeout", "nan"),
    "backwards": ("generate", "a cat", "--timeout", "-1"),
    "set over a flag": ("generate", "a cat", "--set", "prompt=other"),
    "no task id": ("status", "../../etc"),
    "an empty task id": ("wait", ""),
    "a port of 70,000": ("sandbox", "--port", "70000"),
    "no batch": ("batch", "missing.txt"),
}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=needs_posix) if name == "a prompt of 40,000" else name  # Windows' command lines are shorter
    for name in MISTAKES])
def test_a_mistake_sends_nothing_and_makes_nothing(run, service, project, name):
    done = run(*MISTAKES[name])
    hold(done, service, project, 5)
    assert 2 == done.exit
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


@pytest.mark.parametrize("pair, value", [
    ("a=1", 1), ("a=1.5", 1.5), ("a=true", True), ("a=null", None), ("a=high", "high"), ('a="1"', "1"), ("a=", ""),
    ("a=b=c", "b=c"), ('a={"b": [1]}', {"b": [1]}), ("a=[1", "[1"), ("a=NaN", "NaN"), ("a=猫", "猫"),
])
def test_set_takes_json_or_text(run, pair, value):
    done = run("generate", "a cat", "--dry-run", "--set", pair)
    assert value == done.json["request"]["body"]["a"]


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
    if argv[0] == "generate" and len(argv) > 1:
        assert 0 == done.exit
        assert (project / "image2-output" / "a-cat.png").exists()


@needs_posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is Linux's")
def test_a_full_stdout_ends_without_a_traceback(start, service, project):
    with open("/dev/full", "wb") as full:
        done = start("generate", "a cat", *FAST, stdout=full).finish(20)
    assert "Traceback" not in done.stderr
    assert (project / "image2-output" / "a-cat.png").exists()


@needs_posix
def test_no_stdout_and_no_stderr_at_all_are_survived(service, project):
    script = 'exec "$0" "$1" generate "a cat" --poll-interval 0.05 >&- 2>&- <&-'
    environment = {"PATH": os.environ["PATH"], "HOME": str(project), "IMAGE2_API_KEY": CANARY,
                   "IMAGE2_BASE_URL": service.base_url}
    done = subprocess.run(["sh", "-c", script, sys.executable, str(SCRIPT)], cwd=project, env=environment, timeout=30)
    assert 0 == done.returncode
    assert (project / "image2-output" / "a-cat.png").exists()


@pytest.mark.parametrize("locale", [{"LANG": "C"}, {"LC_ALL": "POSIX"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
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
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "IMAGE2_API_KEY": CANARY,
                   "IMAGE2_BASE_URL": service.base_url}
    service.on_poll(completed())
    again = subprocess.run(done.json["next"], shell=True, cwd="/", env=environment, capture_output=True, timeout=30)
    assert 0 == again.returncode, again
    assert (project / "image2-output" / "a-cat.png").exists()


def test_a_sandbox_s_run_costs_nothing_and_says_so(run, service, project):
    done = run("generate", "a cat", "--sandbox", "--size", "64x32", "--poll-interval", "0.5", key=None)
    answer = hold(done, service, project, 20)
    assert (0, True, "no") == (done.exit, answer["sandbox"], answer["charged"])
    assert [] == service.requests
    assert (64, 32) == (answer["images"][0]["width"], answer["images"][0]["height"])


def test_a_person_s_key_stays_out_of_the_sandbox(run, project):
    done = run("generate", "a cat", "--sandbox", "--size", "64x32", "--poll-interval", "0.5", "-v", base_url=None)
    hold(done, None, project, 20)
    assert 0 == done.exit


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


def _not_a_picture(path: Path, kind: str):
    if kind == "a private key called cat.png":
        path.write_bytes(SECRET)
    elif kind == "a link to a private key":
        (path.parent / "somebodys-secret").write_bytes(SECRET)
        path.symlink_to("somebodys-secret")
    elif kind == "a private key behind a picture's first bytes":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + SECRET)
    elif kind == "a cut picture":
        path.write_bytes(png()[:-20])
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "/dev/zero":
        path.symlink_to("/dev/zero")
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a loop of links":
        path.symlink_to(path.name)
    elif kind == "an SVG":
        path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><text>secret</text></svg>')
    elif kind == "30 MB":
        path.write_bytes(png(noise_bytes=30_000_000))


@needs_posix
@pytest.mark.parametrize("kind", ["a private key called cat.png", "a link to a private key", "a cut picture", "a FIFO",
                                  "a private key behind a picture's first bytes", "/dev/zero", "a folder",
                                  "a loop of links", "an SVG", "30 MB", "nothing"])
def test_only_a_whole_picture_leaves_the_machine(run, service, project, kind):
    _not_a_picture(project / "cat.png", kind)
    done = run("generate", "a cat", "--image", "cat.png", timeout=20)
    assert 2 == done.exit
    assert "cat.png" in done.json["error"]["message"]
    assert "OPENSSH" not in done.stdout + done.stderr
    assert [] == service.requests


@pytest.mark.parametrize("kind", sorted(every()))
def test_what_is_appended_to_a_picture_stays_here(run, service, project, kind):
    picture_of_kind = every()[kind]
    (project / "cat.txt").write_bytes(picture_of_kind + SECRET)
    done = run("generate", "a cat", "--image", "cat.txt", *FAST)
    assert 0 == done.exit
    import base64

    (sent,) = service.json()[0]["image"]
    assert picture_of_kind == base64.b64decode(sent.partition(",")[2])
    assert sent[:100] not in json.dumps([path.read_text() for path in project.rglob("*.json")])


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


@pytest.mark.parametrize("argv", [("batch", "orders.txt", "--max-images", "9" * 5000), ("sandbox", "--port", "9" * 5000)])
def test_a_number_too_long_to_be_one_is_a_usage_error(run, project, argv):
    (project / "orders.txt").write_text("a cat")
    assert (2, "usage") == ((done := run(*argv)).exit, done.json["error"]["code"])
