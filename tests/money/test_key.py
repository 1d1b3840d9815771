"""The key goes to one host and into no text.

Every run of every test is searched for it (`running`, `laws`); here are the cases that try to get at it: other hosts,
proxies, netrc, redirects, a service that echoes it, a user who types it in the wrong place. And the shipped host, in
front of a certificate authority of the tests' own.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import ssl
import subprocess
import sys
from urllib.parse import quote, unquote

import pytest
import trustme
from aftermath import state
from command import quick
from faulty import Answer, ConnectProxy, Service, completed, cut, ok, pending, redirect, refuse
from laws import hold
from running import CANARY, SCRIPT

pytestmark = pytest.mark.slow

ESCAPED = CANARY.replace("c", "\\u0063")
QUOTED = 'canary"0123\\not/a<real>&\'one'  # well formed, and changed by every kind of quoting


def raw_json(text: str, status: int = 200) -> Answer:
    """This very JSON, with its own escapes."""
    return Answer(status, {"Content-Type": "application/json"}, body=text.encode())


def echoes(key: str) -> dict:
    """Where a service can put the key: how it answers the POST, and the looks."""
    escaped = "".join(f"\\u{ord(char):04x}" for char in key)
    image = {"url": f"ftp://127.0.0.1/{quote(key)}/a.png", "status": "completed", "revised_prompt": f"a cat {key}"}
    return {
        "in an error": ([raw_json(f'{{"error": {{"message": "the key {escaped} has no such model"}}}}', 401)], None),
        "far behind in an error, pierced": ([refuse(422, "\u200b" * 200_000 + "\u2060".join(key))], None),
        "as the task id": ([ok(task_id=key)], None),
        "in the task": ([ok(status=f"waiting for {key}")], [pending(status=key), completed(data=[image], error=key)]),
        "in Location": ([redirect(307, f"/{key}")], None),
        "in a header's name": ([Answer(raw=f"HTTP/1.1 200 OK\r\n{CANARY}: 1\r\n\r\n".encode())], None),
    }


@pytest.mark.parametrize(("where", "key"), [
    *((where, CANARY) for where in echoes(CANARY)), ("in an error", QUOTED), ("as the task id", QUOTED)],
    ids=lambda value: {CANARY: "plain", QUOTED: "quoted"}.get(value, value))
def test_a_service_that_echoes_the_key_puts_it_into_no_text(run, service, project, where, key):
    posts, polls = echoes(key)[where]
    service.on_post(*posts)
    service.on_poll(*(polls or [completed()]))
    done = run("generate", "a cat", *quick("--timeout", "1", "-v"), key=key)
    hold(done, service, project, 1, key)
    assert key not in unquote(done.stdout + done.stderr) and "Bearer" not in done.stderr
    assert "Bearer " + key == service.posts[0].headers["authorization"]


def test_a_key_with_a_slash_is_no_task_id_of_an_answer_that_was_cut(run, service, project):
    """As PHP's JSON escapes it, its text was searched for an id, and the key became the name of a task on disk."""
    key = "canary/0123/not-a-real-one"
    text = '{"task_id": "' + key.replace("/", "\\/") + '", "status": "pend'
    service.on_post(Answer(200, {"Content-Type": "application/json"}, body=text.encode()))
    done = run("generate", "a cat", *quick("--timeout", "1"), key=key)
    hold(done, service, project, 1, key)
    assert 9 == done.exit and key not in "".join(path.read_text() for path in project.rglob("*.json")), done


@pytest.mark.parametrize("verb", [("generate", "a cat"), ("check",)])
def test_what_a_failed_command_printed_is_no_key_and_breaks_no_answer(verb, project):
    """Its pieces, `"message":` among them, were withheld from the JSON itself; so no search for them here."""
    env = {**os.environ, "HOME": str(project), "IMAGE2_API_KEY": '{"error": {"code": 401, "message": "Unauthorized"}}'}
    done = subprocess.run([sys.executable, SCRIPT, *verb], cwd=project, env=env, capture_output=True, check=False)
    assert (4, "malformed_key") == (done.returncode, json.loads(done.stdout)["error"]["code"])
    assert b"Unauthorized" not in done.stdout + done.stderr


# --- where a user puts it by mistake

MISPLACED = {  # where: the words, and what is read
    "the prompt": (("generate", f"a cat with {CANARY}"), None),
    "the file's name": (("generate", "a cat", "--dry-run", "--out", f"{CANARY}.png"), None),
    "the sandbox's field": (("generate", "a cat", "--sandbox", "--set", f"user={CANARY}"), None),
    "a task id": (("wait", CANARY), None),
    "a batch": (("batch", CANARY), None),
    "a prompt that is read": (("generate", "--prompt-file", "-"), f"a cat\n{CANARY}\n"),
    "a batch that is read, escaped": (("batch", "--dry-run", "-"), f'{{"prompt": "{ESCAPED}"}}'),
}


@pytest.mark.parametrize("where", MISPLACED)
def test_a_key_in_the_wrong_place_is_neither_sent_nor_repeated(run, service, project, where):
    words, text = MISPLACED[where]
    done = run(*words, stdin=text)
    hold(done, service, project, 5)
    assert (2, 0, []) == (done.exit, service.connections, sorted(project.iterdir()))


@pytest.mark.parametrize(("file", "name", "charged"), [
    ("service/acceptance.py", "of_order", "maybe"), ("order/schedule.py", "is_whole", "yes")], ids=["POST", "look"])
def test_a_bug_is_told_as_one_with_what_it_may_have_cost_and_without_the_key(run, tmp_path, file, name, charged):
    broken = tmp_path / "broken"
    shutil.copytree(SCRIPT.parent, broken, ignore=shutil.ignore_patterns("__pycache__"))
    with (broken / "image2_cli" / file).open("a") as module:
        module.write(f"\n\ndef {name}(*_args):\n    raise KeyError({CANARY!r})\n")
    done = run("generate", "a cat", "-v", *quick(), script=broken / "image2.py")
    assert (1, "internal", charged) == (done.exit, done.json["error"]["code"], done.json["charged"]), done


# --- other hosts


def test_a_picture_s_host_sees_no_key_also_behind_a_redirect_and_no_login_of_a_netrc(run, service, project, tmp_path):
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n"
                     "default login anybody password anything\n")
    netrc.chmod(0o600)
    with Service() as other:
        service.on_file(redirect(302, f"{other.base_url}/generations/there-0.png"))
        done = run("generate", "a cat", *quick(), env={"NETRC": netrc})
        hold(done, service, project, 20)
        seen = [*service.files, *other.requests]
        assert (0, 2) == (done.exit, len(seen))
        assert [] == [request for request in seen if "authorization" in request.headers or CANARY in str(request)]
    assert {f"Bearer {CANARY}"} == {request.headers["authorization"] for request in [*service.posts, *service.polls]}


# --- the shipped host, in front of our own authority


@pytest.fixture
def shipped(run, tmp_path):
    """image2.vip as the tests have it: (a TLS service, a proxy that leads to it, `generate` through that proxy)."""
    authority, bundle = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))

    @contextlib.contextmanager
    def served(authority=authority, **options):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("image2.vip", **options).configure_cert(context)
        with Service(tls=context, base_url="https://image2.vip") as service, ConnectProxy(service.address) as proxy:
            env = {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": bundle}
            yield service, proxy, lambda: run("generate", "a cat", *quick(), base_url=None, env=env)
    return served


@pytest.mark.lowest
def test_a_whole_order_goes_to_the_shipped_host_and_nowhere_else(project, shipped):
    with shipped() as (service, proxy, generate):
        # an http:// link of an https service is asked by https
        service.on_poll(pending(50), completed(urls=["http://image2.vip/generations/a-0.png"]))
        done = generate()
        answer = hold(done, service, project, 20)
        assert (0, "saved") == (done.exit, state(project))
        assert "http://image2.vip/generations/a-0.png" == answer["images"][0]["url"]
        assert {"image2.vip:443"} == set(proxy.connects)
        assert {f"Bearer {CANARY}"} == {request.headers["authorization"] for request in service.posts + service.polls}
        assert [] == [file for file in service.files if "authorization" in file.headers]
        assert [] == [request for request in proxy.requests if CANARY in str(request) or "a cat" in str(request)]


@pytest.mark.parametrize("options", [
    {"not_before": datetime.datetime(2020, 1, 1), "not_after": datetime.datetime(2021, 1, 1)},
    {"authority": trustme.CA()}], ids=["expired", "of an authority nobody knows"])
def test_a_wrong_certificate_ends_it_before_anything_is_sent(project, shipped, options):
    with shipped(**options) as (service, proxy, generate):
        done = generate()
        answer = hold(done, service, project, 5)
        assert (5, "tls", False, []) == (done.exit, answer["error"]["code"], answer["error"]["retryable"], service.requests)
        assert ("no", "not_sent", 1) == (answer["charged"], state(project), len(proxy.connects))


def test_the_faults_of_a_submit_are_told_alike_through_tls(shipped):
    with shipped() as (service, _proxy, generate):
        service.on_post(refuse(429, retry_after=0), cut(ok(), 40))
        done = generate()
        assert (9, "maybe", 2) == (done.exit, done.json["charged"], len(service.posts))
