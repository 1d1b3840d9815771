"""The key goes to one host and into no text.

Every run of every test is searched for it (`running`, `laws`); here are the cases that try to get at it: other hosts,
proxies, netrc, redirects, a service that echoes it, a user who types it in the wrong place. And the shipped host, in
front of a certificate authority of the tests' own.
"""

import datetime
import json
import ssl
from urllib.parse import quote, unquote

import pytest
import trustme
from faulty import (
    Answer,
    ConnectProxy,
    Service,
    completed,
    cut,
    failed,
    hang,
    ok,
    page,
    pending,
    redirect,
    refuse,
    reset,
    sync_completed,
)
from laws import FAST, hold, records, state
from running import CANARY

HOST = "https://image2.vip"
QUOTED = 'canary"0123\\not/a<real>&\'one'  # well formed, and changed by every kind of quoting
ESCAPED = "".join("\\u%04x" % ord(char) for char in CANARY)
PIERCED = "\u200b".join(CANARY)


def keyed(text: str) -> Answer:
    return Answer(body=lambda request: json.loads(text.replace("TASK", request.task_id)))


def raw_json(text: str, status: int = 200) -> Answer:
    """This very JSON, with its own escapes."""
    return Answer(status, {"Content-Type": "application/json"}, body=text.encode())


def echoes(key: str) -> dict:
    """Where a service can put the key: how it answers the POST, the polls, the files."""
    long = "x" * (200 - 6) + key
    return {
        "in an error": ([refuse(400, f"the key {key} has no such model")], None),
        "in an error, escaped": ([raw_json('{"error": {"message": "bad key %s"}}'
                                           % "".join("\\u%04x" % ord(char) for char in key), 401)], None),
        "in an error, with zero-width characters": ([refuse(422, "\u200b".join(key))], None),
        "in an error, where it is cut": ([refuse(422, long)], None),
        "far behind in an error, pierced": ([refuse(422, "\u200b" * 200_000 + "\u2060".join(key))], None),
        "in an HTML page": ([page(500, f"<html>{key}</html>")], None),
        "as the task id": ([ok(task_id=key)], None),
        "in a cut answer": ([cut(ok(task_id=key), -3)], None),
        "in a cut answer, escaped": ([raw_json('{"task_id": "%s", "st' % ESCAPED)], None),
        "in the status": ([ok(status=f"waiting for {key}")], [pending(status=key), completed(status=key), completed()]),
        "in the names of members": ([ok(**{key: 1})], [pending(**{key: {key: key}}), completed()]),
        "in the task's error": ([ok()], [failed(f"{key} is not allowed")]),
        "in an image's error": ([ok()], [completed(data=[{"status": "failed", "url": None, "error": key}])]),
        "in the revised prompt": ([ok()], [completed(data=[{"url": "https://127.0.0.1:1/a.png", "status": "completed",
                                                            "revised_prompt": f"a cat {key}"}])]),
        "in the link": ([ok()], [completed(urls=[f"https://127.0.0.1:1/{quote(key)}/a.png"])]),
        "in the login of the link": ([ok()], [completed(urls=[f"https://{key}@127.0.0.1:1/a.png"])]),
        "in images at once": ([sync_completed(urls=[f"https://127.0.0.1:1/{key}.png"])], None),
        "as base64": ([sync_completed(data=[{"b64_json": key}])], None),
        "in Retry-After": ([refuse(429, retry_after=key)], None),
        "in Location": ([redirect(307, f"/{key}")], [redirect(307, f"/{key}"), completed()]),
        "in Content-Length": ([ok().but(content_length=quote(key))], [completed()]),
        "in the reason": ([Answer(raw=f"HTTP/1.1 400 {key}\r\nContent-Length: 0\r\n\r\n".encode())], None),
        "instead of HTTP": ([Answer(raw=f"{key}\r\n\r\n".encode())], None),
        "in a header's name": ([Answer(raw=f"HTTP/1.1 200 OK\r\n{CANARY}: 1\r\n\r\n".encode())], None),
    }


QUOTABLE = ("in an error", "in an error, escaped", "as the task id", "in the revised prompt", "in the link", "in Location",
            "in the names of members", "in an error, where it is cut", "in Content-Length")


@pytest.mark.parametrize("where, key", [*((where, CANARY) for where in echoes(CANARY)),
                                        *((where, QUOTED) for where in QUOTABLE)],
                         ids=lambda value: {CANARY: "plain", QUOTED: "quoted"}.get(value, value))
def test_a_service_that_echoes_the_key_puts_it_into_no_text(run, service, project, where, key):
    posts, polls = echoes(key)[where]
    service.on_post(*posts)
    service.on_poll(*(polls or [completed()]))
    done = run("generate", "a cat", *FAST, "--timeout", "1", "-v", key=key)
    hold(done, service, project, 1, key)
    assert key not in unquote(done.stdout + done.stderr)
    assert "Bearer " + key == service.posts[0].headers["authorization"]


@pytest.mark.parametrize("answers", [[reset()], [hang(20)], [refuse(429), reset()], [page(502)]],
                         ids=["reset", "hang", "429", "502"])
def test_the_log_for_people_masks_the_key(run, service, project, answers):
    service.on_post(*answers)
    done = run("generate", "a cat", "-v", "--timeout", "2")
    hold(done, service, project, 2)
    assert f"POST {service.base_url}/api/v1/images/generations" in done.stderr
    assert "Bearer" not in done.stderr


def test_the_log_tells_each_exchange(run, service, project):
    service.on_poll(pending(), completed())
    done = run("generate", "a cat", "-v", *FAST)
    hold(done, service, project, 5)
    lines = [line for line in done.stderr.splitlines() if line.startswith("image2: http: ")]
    assert ["POST", "GET", "GET", "GET"] == [line.split()[2] for line in lines]
    assert all(" -> 200, " in line and line.endswith(" s") for line in lines)


# --- where a user puts it by mistake

MISPLACED = {
    "the prompt": ("generate", f"a cat with {CANARY}"),
    "a flag of its own": ("generate", "a cat", "--api-key", CANARY),
    "a flag with an equals sign": ("generate", "a cat", f"--api-key={CANARY}"),
    "the size": ("generate", "a cat", "--size", CANARY),
    "the timeout": ("generate", "a cat", "--timeout", CANARY),
    "the file's name": ("generate", "a cat", "--out", f"{CANARY}.png"),
    "the folder": ("generate", "a cat", "--out", f"{CANARY}/pictures"),
    "a further field": ("generate", "a cat", "--set", f"user={CANARY}"),
    "the model": ("generate", "a cat", "--model", CANARY),
    "a reference": ("generate", "a cat", "--image", f"https://example.com/{CANARY}.png"),
    "a missing reference": ("generate", "a cat", "--image", f"{CANARY}.png"),
    "a dry run": ("generate", CANARY, "--dry-run"),
    "the sandbox's prompt": ("generate", CANARY, "--sandbox"),
    "the verb": (CANARY,),
    "a task id": ("wait", CANARY),
    "a task id to look at": ("status", CANARY),
    "a gallery": ("gallery", CANARY),
    "a batch": ("batch", CANARY),
    "a port": ("sandbox", "--port", CANARY),
}


@pytest.mark.parametrize("where", MISPLACED)
def test_a_key_in_the_wrong_place_is_not_repeated(run, service, project, where):
    done = run(*MISPLACED[where])
    hold(done, service, project, 5)
    assert 2 == done.exit
    assert [] == service.requests
    assert [] == sorted(project.iterdir())


@pytest.mark.parametrize("flags", [(), ("--dry-run",), ("--sandbox",)], ids=["order", "dry run", "sandbox"])
def test_a_key_in_the_prompt_s_file_is_neither_sent_nor_repeated(run, service, project, flags):
    done = run("generate", "--prompt-file", "-", *flags, stdin=f"a cat\n{CANARY}\n")
    hold(done, service, project, 5)
    assert 2 == done.exit
    assert [] == service.requests


def test_a_malformed_key_is_not_shown_by_pieces(run, service, project):
    done = run("generate", "a cat", key=f"{CANARY}\nX-Other: {CANARY[::-1]}")
    answer = hold(done, service, project, 5)
    assert (4, "malformed_key") == (done.exit, answer["error"]["code"])
    assert CANARY[::-1] not in done.stdout + done.stderr
    assert [] == service.requests


def test_the_key_is_in_no_traceback_of_a_bug(run, service, project, tmp_path):
    broken = tmp_path / "broken" / "scripts"
    import shutil

    from running import SCRIPT

    shutil.copytree(SCRIPT.parent, broken, ignore=shutil.ignore_patterns("__pycache__"))
    api = broken / "image2_cli" / "service" / "api.py"
    text = api.read_text()
    api.write_text(text.replace("return verdict.of_order(reply)", "raise KeyError(self._auth._key)"))
    assert text != api.read_text()
    done = run("generate", "a cat", "-v", script=broken / "image2.py")
    assert (1, "internal") == (done.exit, done.json["error"]["code"])
    assert CANARY not in done.stdout + done.stderr
    assert "maybe" == done.json["charged"]


# --- other hosts

@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_order_follows_no_redirect_to_another_host(run, service, project, status):
    with Service() as other:
        service.on_post(redirect(status, other.base_url + "/api/v1/images/generations"))
        done = run("generate", "a cat")
        hold(done, service, project, 5)
        assert (1, []) == (len(service.posts), other.requests)
        assert done.exit in (3, 9)


def test_a_picture_s_host_sees_no_key_also_behind_a_redirect(run, service, project):
    with Service() as other:
        service.on_poll(completed(urls=[f"{service.base_url}/generations/here-0.png"]))
        service.on_file(redirect(302, f"{other.base_url}/generations/there-0.png"))
        done = run("generate", "a cat", *FAST)
        hold(done, service, project, 5)
        assert 0 == done.exit
        seen = [*service.files, *other.requests]
        assert 2 == len(seen)
        assert [] == [request for request in seen if "authorization" in request.headers or CANARY in str(request)]


def test_a_netrc_neither_replaces_the_key_nor_reaches_a_picture_s_host(run, service, project, tmp_path):
    netrc = tmp_path / "home" / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n"
                     "default login anybody password anything\n")
    netrc.chmod(0o600)
    done = run("generate", "a cat", *FAST, env={"NETRC": netrc})
    hold(done, service, project, 5)
    assert 0 == done.exit
    assert {f"Bearer {CANARY}"} == {request.headers["authorization"] for request in [*service.posts, *service.polls]}
    assert "authorization" not in service.files[0].headers


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"])
def test_a_service_on_this_machine_is_not_asked_through_a_proxy(run, service, project, name):
    with ConnectProxy(None, status=502) as proxy:
        done = run("generate", "a cat", *FAST, env={name: proxy.url})
        hold(done, service, project, 5)
        assert 0 == done.exit
        assert 0 == proxy.connections


# --- the shipped host, in front of our own authority

class Shipped:
    """image2.vip as the tests have it: a TLS service, a proxy that leads to it, and the authority's file."""

    def __init__(self, folder):
        self.authority = trustme.CA()
        self.bundle = folder / "authority.pem"
        self.authority.cert_pem.write_to_path(str(self.bundle))

    def context(self, *names, authority=None, **options) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        (authority or self.authority).issue_cert(*(names or ("image2.vip",)), **options).configure_cert(context)
        return context

    def environment(self, proxy) -> dict:
        return {"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": self.bundle}


@pytest.fixture
def shipped(tmp_path):
    return Shipped(tmp_path)


def test_a_whole_order_goes_to_the_shipped_host_and_nowhere_else(run, project, shipped):
    with Service(tls=shipped.context(), base_url=HOST) as service, ConnectProxy(service.address) as proxy:
        service.on_poll(pending(50), completed())
        done = run("generate", "a cat", *FAST, base_url=None, env=shipped.environment(proxy))
        answer = hold(done, service, project, 20)
        assert (0, "finished") == (done.exit, state(project))
        assert answer["images"][0]["url"].startswith(HOST)
        assert {"image2.vip:443"} == set(proxy.connects)
        assert {f"Bearer {CANARY}"} == {request.headers["authorization"] for request in service.posts + service.polls}
        assert [] == [file for file in service.files if "authorization" in file.headers]


def test_the_proxy_sees_neither_key_nor_order(run, project, shipped):
    with Service(tls=shipped.context(), base_url=HOST) as service, ConnectProxy(service.address) as proxy:
        assert 0 == run("generate", "a cat", *FAST, base_url=None, env=shipped.environment(proxy)).exit
        assert [] == [request for request in proxy.requests if CANARY in str(request) or "a cat" in str(request)]


def _expired(shipped):
    return shipped.context(not_before=datetime.datetime(2020, 1, 1), not_after=datetime.datetime(2021, 1, 1))


CERTIFICATES = {
    "of another host": lambda shipped: shipped.context("example.com"),
    "of a look-alike": lambda shipped: shipped.context("image2.vip.example.com"),
    "expired": _expired,
    "of an authority nobody knows": lambda shipped: shipped.context(authority=trustme.CA()),
}


@pytest.mark.parametrize("name, verb", [
    *((name, ("generate", "a cat")) for name in CERTIFICATES),
    *(("expired", verb) for verb in (("wait", "task-1"), ("status", "task-1"), ("check",))),
], ids=lambda value: value if isinstance(value, str) else value[0])
def test_a_wrong_certificate_ends_it_before_anything_is_sent(run, project, shipped, name, verb):
    with Service(tls=CERTIFICATES[name](shipped), base_url=HOST) as service, ConnectProxy(service.address) as proxy:
        done = run(*verb, base_url=None, env=shipped.environment(proxy))
        answer = hold(done, service, project, 5)
        assert (5, "tls", False) == (done.exit, answer["error"]["code"], answer["error"]["retryable"])
        assert [] == service.requests
        if verb[0] == "generate":
            assert ("no", "not_sent", 1) == (answer["charged"], state(project), len(proxy.connects))


def test_a_wrong_certificate_of_a_picture_s_host_keeps_the_link(run, project, shipped, service):
    # the service is on this machine, the picture's host is not trusted
    with Service(tls=shipped.context("127.0.0.1", authority=trustme.CA())) as other:
        service.on_poll(completed(urls=[f"https://127.0.0.1:{other.address[1]}/generations/a-0.png"]))
        done = run("generate", "a cat", *FAST, "--timeout", "1")
        answer = hold(done, service, project, 1)
        assert (10, "not_saved", "yes") == (done.exit, answer["error"]["code"], answer["charged"])
        assert [] == other.requests


def test_a_ca_bundle_counts_for_a_service_on_this_machine_too(run, project, shipped):
    with Service(tls=shipped.context("127.0.0.1")) as service, ConnectProxy(None, status=502) as proxy:
        done = run("generate", "a cat", *FAST, base_url=service.base_url, env=shipped.environment(proxy))
        hold(done, service, project, 10)
        assert 0 == done.exit
        assert 0 == proxy.connections


PROXIES = {
    "refuses": lambda: ConnectProxy(None, status=403),
    "wants a login": lambda: ConnectProxy(None, status=407),
    "is broken": lambda: ConnectProxy(None, status=502),
    "hangs up": lambda: ConnectProxy(None),
    "hangs": lambda: ConnectProxy(None, silence=30),
}


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_that_does_not_connect_costs_nothing(run, project, shipped, name):
    with PROXIES[name]() as proxy:
        done = run("generate", "a cat", "--timeout", "1", base_url=None, env=shipped.environment(proxy))
        answer = hold(done, None, project, 1)
        assert (5, "network", "no") == (done.exit, answer["error"]["code"], answer["charged"])
        assert "not_sent" == state(project)


def test_a_host_that_speaks_no_tls_costs_nothing(run, project, shipped):
    with Service() as plain, ConnectProxy(plain.address) as proxy:
        done = run("generate", "a cat", "--timeout", "1", base_url=None, env=shipped.environment(proxy))
        answer = hold(done, plain, project, 1)
        assert (5, "no", "not_sent") == (done.exit, answer["charged"], state(project))
        assert [] == plain.requests


@pytest.mark.parametrize("name", ["missing", "garbage", "folder"])
def test_a_broken_ca_bundle_is_named(run, project, shipped, tmp_path, name):
    bundle = tmp_path / "bundle"
    if name == "folder":
        bundle.mkdir()
    elif name == "garbage":
        bundle.write_text("this is no certificate\n")
    with Service(tls=shipped.context(), base_url=HOST) as service, ConnectProxy(service.address) as proxy:
        done = run("generate", "a cat", "--timeout", "5", base_url=None,
                   env={"HTTPS_PROXY": proxy.url, "REQUESTS_CA_BUNDLE": bundle})
        answer = hold(done, service, project, 5)
        assert (5, "tls", "no") == (done.exit, answer["error"]["code"], answer["charged"])
        assert [] == service.requests


def test_a_proxy_setting_of_nonsense_costs_nothing(run, project):
    done = run("generate", "a cat", "--timeout", "1", base_url=None, env={"HTTPS_PROXY": "http://:bad:port:/"})
    answer = hold(done, None, project, 1)
    assert (5, "network", "no") == (done.exit, answer["error"]["code"], answer["charged"])


def test_the_faults_of_a_submit_are_told_alike_through_tls(run, project, shipped):
    with Service(tls=shipped.context(), base_url=HOST) as service, ConnectProxy(service.address) as proxy:
        for answers, exit_status, posts in (([reset()], 9, 1), ([cut(ok(), 40)], 9, 1), ([cut(ok(), -2)], 0, 1),
                                            ([refuse(429), ok()], 0, 2), ([page(500)], 9, 1)):
            service.requests.clear()
            service.on_post(*answers)
            done = run("generate", "a cat", "--new", *FAST, "--timeout", "10", base_url=None,
                       env=shipped.environment(proxy))
            hold(done, service, project, 10)
            assert (exit_status, posts) == (done.exit, len(service.posts)), answers


def test_a_key_is_in_no_record(run, service, project):
    assert 0 == run("generate", "a cat", *FAST).exit
    assert CANARY not in json.dumps(records(project))
