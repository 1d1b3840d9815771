"""For any JSON, any bytes and any cut the laws of `laws.hold` are kept, whichever request they answer.

A process a case is slow, so there are few cases, each rich; `IMAGE2_TEST_TIMES=20` tries twenty times as many.
"""

import json
import os
import string
import tempfile
from pathlib import Path

import pytest
import running
from faulty import Answer, Service, completed, cut, ok, pending, picture, reset
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from laws import FAST, UNSEEN, hold, records
from pictures import every, png
from running import CANARY

TIMES = int(os.environ.get("IMAGE2_TEST_TIMES", "1"))
BUDGET_S = 1.0


def lawful(cases: int):
    """`cases` of them, always the same, and none again to make a failing one smaller."""
    return settings(max_examples=cases * TIMES, deadline=None, derandomize=True, database=None,
                    phases=[Phase.explicit, Phase.generate], suppress_health_check=[HealthCheck.too_slow])



NAMES = ("task_id", "status", "progress", "data", "error", "url", "b64_json", "revised_prompt", "message", "code",
         "created", CANARY)
WORDS = ("completed", "failed", "pending", "Succeeded", "task-1", "..", "a/b", "data:image/png;base64,iVBORw0KGgo=",
         "http://127.0.0.1:1/a.png", "https://127.0.0.1:1/\u202ea.png", "file:///etc/passwd", CANARY,
         "\u200b".join(CANARY), "猫", "\ud800", "\x1b[2J", "")
texts = st.one_of(st.sampled_from(WORDS), st.text(max_size=20))
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -1, 0, 50, 100, 1e308]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.sampled_from(NAMES), texts), inner,
                                                                         max_size=6)),
    max_leaves=20)
items = st.lists(st.one_of(values, st.fixed_dictionaries({}, optional={
    "url": st.one_of(texts, values), "b64_json": texts, "revised_prompt": texts, "status": texts, "error": values})),
    max_size=12)
tasks = st.fixed_dictionaries({}, optional={
    "task_id": st.one_of(st.just("task-1"), texts, values), "status": st.one_of(texts, values), "progress": values,
    "data": st.one_of(items, values), "error": values, "message": values})
bodies = st.one_of(
    tasks.map(json.dumps).map(str.encode), values.map(json.dumps).map(str.encode), st.binary(max_size=300),
    st.text(string.printable, max_size=200).map(str.encode))
statuses = st.one_of(st.just(200), st.sampled_from([201, 202, 204, 301, 302, 307, 400, 401, 402, 404, 409, 429, 500, 502,
                                                    503, 524]), st.integers(200, 999))
headers = st.dictionaries(
    st.sampled_from(["Retry-After", "Content-Type", "Content-Encoding", "Location", "Connection", "X-Other"]),
    st.one_of(st.sampled_from(["3600", "-1", "nan", "gzip", "deflate", "/elsewhere", "close", "text/html", CANARY]),
              st.text(string.ascii_letters + string.digits + " ,;=/%\x1b\u00e9", max_size=20)), max_size=3)
answers = st.builds(Answer, status=statuses, headers=headers, body=bodies, chunked=st.booleans(),
                    content_length=st.sampled_from(["auto", "auto", None, 0, 5, 10_000, "x", "-3"]))
cuts = st.one_of(st.integers(0, 400), st.integers(-120, -1), st.just("head"))
faults = st.one_of(answers, st.builds(cut, answers, cuts), st.builds(reset, answers, cuts))


def law(posts=None, polls=None, files=None, argv=("generate", "a cat"), budget=BUDGET_S) -> tuple:
    """One run in a new folder against a service that says this; the laws hold. Returns (run, answer, orders)."""
    with tempfile.TemporaryDirectory(prefix="image2-law-") as folder, Service() as service:
        project = Path(folder) / "project"
        project.mkdir()
        for script, said in ((service.on_post, posts), (service.on_poll, polls), (service.on_file, files)):
            if said:
                script(*said)
        done = running.run(*argv, *FAST, "--timeout", str(budget), "-v", cwd=project, base_url=service.base_url,
                           env={"HOME": folder})
        answer = hold(done, service, project, budget)
        _check_record(answer, project)
        assert not UNSEEN.search(done.stderr.replace("\n", "")), done.stderr
        return done, answer, service.orders


def _check_record(answer: dict, project: Path) -> None:
    """Record and answer never contradict each other about the money."""
    for record in records(project):
        possible = {"not_sent": "no", "sending": "maybe", "unknown": "maybe", "submitted": "yes"}
        assert possible.get(record["state"], answer["charged"]) == answer["charged"], (record, answer)


@lawful(16)
@given(answer=faults)
def test_any_answer_to_an_order(answer):
    done, told, orders = law(posts=[answer])
    if told["charged"] == "no":
        assert 0 == orders or not 200 <= answer.status < 300


@lawful(12)
@given(answer=st.one_of(tasks.map(json.dumps).map(str.encode), bodies).map(lambda body: Answer(body=body)))
def test_any_body_of_an_accepted_order(answer):
    done, told, orders = law(posts=[answer])
    assert told["charged"] in ("yes", "maybe")


@lawful(10)
@given(polls=st.lists(faults, min_size=1, max_size=6))
def test_any_answers_to_polls_lose_no_task(polls):
    done, told, orders = law(polls=[*polls, completed()])
    assert "task-1" == told["task_id"]
    assert told["charged"] in ("yes", "maybe")
    assert told["ok"] or done.exit in (4, 6, 7, 8, 10)


@lawful(12)
@given(task=tasks)
def test_any_task_that_is_told_for_good(task):
    done, told, orders = law(polls=[pending(10), Answer(body=json.dumps({"task_id": "task-1", **task}).encode())])
    assert "task-1" == told["task_id"]


whole = st.sampled_from([*every().values(), png(40, 30, noise_bytes=3000)])
spoiled = st.one_of(
    st.builds(lambda data, at: data[:at], whole, st.integers(0, 400)),
    st.builds(lambda data, at, byte: data[:at] + bytes([byte]) + data[at + 1 :], whole, st.integers(0, 120),
              st.integers(0, 255)),
    st.builds(lambda data, more: data + more, whole, st.binary(max_size=50)),
    st.binary(max_size=300))


@lawful(6)
@given(files=st.lists(st.one_of(spoiled.map(picture), faults, whole.map(picture)), min_size=2, max_size=5))
def test_any_file_is_saved_whole_or_not_at_all(files):
    done, told, orders = law(files=files, argv=("generate", "a cat", "--n", "2"))
    assert done.exit in (0, 10)
    assert 2 == len(told["images"])
    assert "yes" == told["charged"]


@pytest.mark.parametrize("kind", sorted(every()))
def test_a_picture_cut_anywhere_is_not_saved(kind):
    data = every()[kind]
    places = sorted({0, 1, 8, len(data) // 2, len(data) - 12, len(data) - 1})
    without_length = [picture(data[:at]).but(content_length=None) for at in places]
    done, told, orders = law(files=without_length, argv=("generate", "a cat", "--n", "2"), budget=3)
    assert 10 == done.exit
    assert [None, None] == [image["path"] for image in told["images"]]


@lawful(8)
@given(at=st.integers(0, 330))
def test_any_cut_of_everything(at):
    law(posts=[cut(ok(), at)], polls=[cut(pending(), at), cut(completed(), at + 60), completed()],
        files=[cut(picture(), at), picture()])
