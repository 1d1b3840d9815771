"""What services really answer: an order is accepted at most once and told honestly, a look is free, a picture arrives.

Every row is one process against real sockets. What each of the many answers means is asked of `service` and `pictures`
alone, by their own tests; here stands what a whole run makes of a kind, down to the state of its record.
"""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from command import PNG, quick
from faulty import Answer, completed, drip, failed, ok, page, pending, picture, ranged, raw, refuse, reset
from laws import hold, state
from pictures import PNG_SIGNATURE, jpeg, png

pytestmark = pytest.mark.slow

# How an order can end: exit status, error.code, charged, the record's state, is there a `next`?
DONE = (0, None, "yes", "saved", False)
REJECTED = (3, "rejected", "no", "not_sent", False)
REJECTED_MAYBE = (3, "rejected", "maybe", "unknown", False)
AWAY = (5, "unavailable", "no", "not_sent", False)
FAILED = (6, "task_failed", "maybe", "failed", False)
UNKNOWN = (9, "outcome_unknown", "maybe", "unknown", False)
DAMAGED = (10, "damaged", "yes", "partial", False)


class Row(NamedTuple):
    """What the service says to the POSTs, looks or files; how the run ends; a piece of the reason; how many POSTs came."""

    said: Any
    end: tuple = DONE
    reason: str = ""
    posts: int = 1


def listed(said) -> list:
    return said if isinstance(said, list) else [said]


def judge(row: Row, run, service, project) -> dict:
    done = run("generate", "a cat", *quick())
    answer = hold(done, service, project, 20)
    error = answer["error"] or {}
    assert row.end == (done.exit, error.get("code"), answer["charged"], state(project), answer["next"] is not None), done
    assert row.posts == len(service.posts), done
    assert row.reason in error.get("server_message", ""), done
    assert not row.reason or row.reason not in error["message"], "the service's words are data"
    return answer


ORDERS = {
    "hints before it": Row(ok().but(hints=(103,))),
    "429 that speaks of a quota, then accepted": Row([Answer(429, {"Retry-After": "1"}, {"error": {
        "code": 429, "message": "Resource has been exhausted (e.g. check quota).", "status": "RESOURCE_EXHAUSTED"}}), ok()],
        posts=2),
    "429, then a reset": Row([refuse(429, retry_after=0), reset()], UNKNOWN, posts=2),
    "an error in a 200": Row(Answer(body={"error": {"code": "moderation_blocked", "message": "no cats"}}), REJECTED_MAYBE,
                             "no cats"),
    "403 for its words": Row(refuse(403, "no cats", "content_policy_violation"), REJECTED, "no cats"),
    "403 of a gateway": Row(page(403), AWAY),
}


@pytest.mark.lowest
@pytest.mark.parametrize("name", ORDERS)
def test_an_order_is_accepted_once_at_most_and_told_honestly(run, service, project, name):
    row = ORDERS[name]
    service.on_post(*listed(row.said))
    judge(row, run, service, project)
    assert 1 == len({post.headers["idempotency-key"] for post in service.posts})


def test_an_id_of_a_path_and_base64_is_asked_for_as_it_is(run, service, project):
    service.on_post(ok(task_id="a/dGFzay0x=="))
    service.on_poll(completed(task_id="a/dGFzay0x=="))
    assert "a/dGFzay0x==" == judge(Row(None), run, service, project)["task_id"]
    assert {"/api/v1/images/tasks/a%2FdGFzay0x%3D%3D"} == {poll.path for poll in service.polls}


# --- looks


LOOKS = {
    "done is Ready": Row([pending(50), completed(status="Ready")]),
    "over is Request Moderated": Row(failed("blocked", status="Request Moderated"), FAILED, "blocked"),
    "completed without images, with an error": Row(completed(data=[], error={"message": "output withheld"}), FAILED,
                                                   "output withheld"),
    "pending for ever with an error": Row(pending(error="blocked"), FAILED, "blocked"),
    "410 for ever": Row(refuse(410, "task expired"), FAILED, "task expired"),
}


@pytest.mark.parametrize("name", LOOKS)
def test_what_a_task_says_is_taken_as_it_is_meant(run, service, project, name):
    service.on_poll(*listed(LOOKS[name].said))
    assert "task-1" == judge(LOOKS[name], run, service, project)["task_id"]


def test_more_images_than_were_ordered_are_not_saved_and_warned_of(run, service, project):
    service.on_poll(completed(n=300))
    answer = judge(Row(None), run, service, project)
    assert (1, 1, 1) == (len(answer["images"]), len(service.files), len(answer["warnings"]))


# --- pictures

BMP = b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + bytes(4)
ODD_PNG = PNG_SIGNATURE + PNG[8:33] + struct.pack(">I", 4) + b"tEXtab\0c" + b"oops" + PNG[33:]
B64 = base64.b64encode(PNG).decode()


def links(*urls) -> Answer:
    return completed(urls=list(urls))


FILES = {
    "a relative link with blanks": Row((links("/my red fox.png"), picture(PNG))),
    "raw UTF-8 in a Location": Row((completed(), [raw(
        "HTTP/1.1 302 Found\r\nLocation: " + "/图片/狐.png".encode().decode("latin-1") + "\r\nContent-Length: 0\r\n\r\n"),
        picture(PNG)])),
    "a blank behind it, a host without a scheme": Row((lambda r: links(r.base_url[5:] + "/x.png\n"), picture(PNG))),
    "404 until the CDN has it": Row((completed(), [page(404), picture(PNG)])),
    "gzip that is none": Row((completed(), picture(PNG).but(headers={"Content-Encoding": "gzip"}))),
    "hints before it": Row((completed(), picture(PNG).but(hints=(103,)))),
    "an expired link": Row(([completed(), lambda r: links(f"{r.base_url}/generations/fresh-0.png")],
                            [lambda r: picture(PNG) if "fresh" in r.path else page(410, retry_after=50)])),
    "inside the look": Row((completed(data=[{"b64_json": B64}]), page(500))),
    "a wrong checksum in a text": Row((completed(), picture(ODD_PNG))),
    "a JPEG without its end": Row((completed(), picture(jpeg()[:-2])), DAMAGED),
}


@pytest.mark.lowest
@pytest.mark.parametrize("name", FILES)
def test_a_picture_that_is_paid_for_arrives(run, service, project, name):
    row = FILES[name]
    polls, files = row.said
    service.on_poll(*listed(polls))
    service.on_file(*listed(files))
    answer = judge(row, run, service, project)
    (image,) = answer["images"]
    if row.end == DONE:
        assert "a-cat.png" == Path(image["path"]).name
        assert (Path(image["path"]).read_bytes() in (PNG, ODD_PNG)) and B64[:40] not in json.dumps(answer)
    else:
        assert image["path"].endswith(".damaged") and Path(image["path"]).exists() and answer["warnings"]
    assert 1 == service.orders


@pytest.mark.parametrize(("data", "name"), [(BMP, "cat.bmp"), (jpeg(), "cat.jpg")], ids=["BMP", "JPEG"])
def test_another_kind_and_size_come_under_an_honest_name_and_with_warnings(run, service, project, data, name):
    service.on_file(picture(data))
    done = run("generate", "a cat", "--out", "cat.png", "--size", "1024x1024", *quick())
    answer = hold(done, service, project, 20)
    assert (str(project / name), data) == (answer["images"][0]["path"], (project / name).read_bytes())
    assert answer["warnings"] and answer["next"] is None
    assert name == "cat.bmp" or (0, True) == (done.exit, "16x8" in " ".join(answer["warnings"]))


def test_a_slow_download_goes_on_over_several_runs_and_is_checked_like_any_other(run, service, project):
    """2.1 MB at 15 KB/s began anew for ever."""
    data = png(64, 64, noise_bytes=300_000)
    service.on_file(drip(ranged(data), 50_000, 0.2))
    for _ in range(5):
        done = run("generate", "a cat", *quick("--timeout", "0.7"))
        if done.exit == 0:
            break
        assert "not_saved" == done.json["error"]["code"], done
    assert (0, 1) == (done.exit, service.orders)
    assert data == (project / "image2-output" / "a-cat.png").read_bytes()
    assert sum(file.sent for file in service.files) < 2 * len(data)
