"""`wait` and `status` never order: what exists is finished, and what is there is told, from disk alone."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from aftermath import edit_record, run_next
from command import PNG, quick
from faulty import closed_port, completed, failed, ok, page, pending, refuse, reset, sync_completed
from laws import hold

pytestmark = pytest.mark.slow


# --- wait


@pytest.mark.lowest
def test_wait_finishes_a_task_of_another_machine_and_records_it(service, run, project):
    for _ in range(2):
        done = run("wait", "task-of-another", "--out", "there", *quick())
        answer = hold(done, service, project, 20)
        assert (0, project / "there", "yes") == (done.exit, Path(answer["images"][0]["path"]).parent, answer["charged"])
    assert ([], 1) == (service.posts, len(service.files))


def test_wait_without_an_id_finishes_what_is_unfinished_in_the_folder(service, run, project):
    for prompt in ("a cat", "a dog"):
        assert 0 == run("generate", prompt, "--no-wait").exit
    done = run("wait", *quick())
    hold(done, None, project, 20)
    assert (0, 2) == (done.exit, service.orders)
    assert {"a-cat.png", "a-dog.png"} == {path.name for path in (project / "image2-output").glob("*.png")}
    connections = service.connections
    again = run("wait", *quick())
    assert (0, "nothing_unfinished", connections) == (again.exit, again.json["status"], service.connections)


def test_a_picture_that_is_gone_is_not_told_as_there_and_is_fetched_by_its_old_link_where_its_task_is_forgotten(
        service, generate):
    """The order was called failed, and `next` was to pay again."""
    assert 0 == generate().exit
    (generate.out / "cat.png").unlink()
    looked = generate("--no-wait")
    assert (0, (None,), True) == (looked.exit, looked.files, "wait" in looked.answer["next"]), looked.run
    service.on_poll(refuse(410, "task expired"))
    told = generate()
    assert (0, ["cat.png"], 1) == (told.exit, generate.pictures, len(service.posts)), told.run


@pytest.mark.parametrize(("reference", "words"), [
    ("fox.png", ("generate", "dusk", "--image", "fox.png", "--out", "fox.png")),
    ("fox-2.png", ("generate", "dusk", "--image", "fox-2.png", "--out", "fox.png", "--n", "2")),
    ("fox.gif", ("generate", "dusk", "--image", "fox.gif", "--out", "fox.png")),
    ("image2-output/dusk.png", ("generate", "dusk", "--image", "image2-output/dusk.png")),
    ("fox.png", ("batch", "lines.jsonl"))],
    ids=["itself", "a number", "another ending", "the prompt's name", "another line's"])
def test_a_picture_that_would_replace_a_reference_is_refused(service, run, project, reference, words):
    """Each run would be another order: three runs of one command paid three times."""
    (project / "image2-output").mkdir()
    (project / reference).write_bytes(PNG)
    (project / "lines.jsonl").write_text('{"prompt": "a fox", "out": "fox.png"}\n{"prompt": "dusk", "image": "fox.png"}')
    done = run(*words, "--overwrite")
    assert (2, True, []) == (done.exit, "replace the reference" in done.json["error"]["message"], service.posts)


def test_a_picture_that_was_edited_and_cannot_be_fetched_again_is_told_as_it_is(service, generate):
    assert 0 == generate().exit
    (generate.out / "cat.png").write_bytes(PNG + b"edited")
    service.on_poll(refuse(410, "task expired"))
    service.on_file(refuse(404))
    done = generate.begin("--timeout", "4").finish()
    assert (0, str(generate.out / "cat.png"), 1) == (done.exit, done.json["images"][0]["path"], len(service.posts)), done


def test_a_picture_that_came_late_is_found_by_wait(service, run, project):
    service.on_poll(completed(n=1))
    short = run("generate", "a dog", "--n", "2", *quick("--timeout", "8"))
    assert (7, "some_failed") == (short.exit, short.json["error"]["code"])
    service.on_poll(completed())
    done = run("wait", short.json["task_id"], *quick())
    assert (0, 2) == (done.exit, len([image for image in done.json["images"] if image["path"]])), done


def test_next_of_tasks_whose_key_was_rejected_names_them(service, run, tmp_path):
    """Nothing on disk knows them."""
    service.on_poll(refuse(401, "revoked"))
    answer = run("wait", "task-1", "task-2", *quick()).json
    assert "yes" == answer["charged"]
    service.on_poll(completed())
    assert (0, 2) == (run_next(answer, service, tmp_path).exit, len(service.files))


@pytest.mark.parametrize(("verb", "poll", "end"), [
    ("wait", refuse(404), (3, "task_not_found", "maybe")), ("wait", page(500), (8, "still_running", "yes")),
    ("status", refuse(404), (3, "task_not_found", "maybe")), ("status", page(500), (5, "unavailable", "yes")),
    ("status", failed("no"), (6, "task_failed", "maybe")), ("status", pending(40), (0, None, "yes")),
    ("status", completed(), (0, None, "yes"))],
    ids=["wait, 404", "wait, 500", "404", "500", "failed", "pending", "completed"])
def test_what_became_of_a_named_task_and_what_it_may_have_cost_is_told_honestly(service, run, project, verb, poll, end):
    service.on_poll(poll)
    done = run(verb, "task-9", *(quick("--timeout", "3") if verb == "wait" else ()))
    answer = hold(done, service, project, 3)
    error = answer["error"] or {"code": None, "message": ""}
    assert (end, []) == ((done.exit, error["code"], answer["charged"]), service.posts), done
    assert "nothing was sent" not in error["message"].lower()
    if verb == "status":
        assert ([], 1) == (sorted(project.iterdir()), len(service.polls)), "it looks once and makes nothing"
    if done.exit == 0:
        assert answer["status"] == ("pending" if answer.get("progress") else "completed")
        assert "wait task-9" in answer["next"]


def test_without_a_key_a_named_task_is_still_paid_for(service, run, project):
    done = run("wait", "task-9", key=None)
    assert (4, "missing_key", "yes") == (done.exit, done.json["error"]["code"], done.json["charged"])


def test_a_network_lost_while_it_waited_never_says_that_nothing_was_sent(service, generate):
    service.on_poll(pending(10), reset())
    told = generate("--timeout", "1")
    assert (8, "still_running", "yes") == told.end
    message = told.answer["error"]["message"].lower()
    assert "nothing was sent" not in message and "run the same again" not in message, message


def test_links_only_forgets_no_file_and_pictures_without_a_link_are_not_lost_to_it(service, generate, run):
    first = generate()
    links = run("wait", "task-1", "--out", "out", "--no-download", *quick()).json
    assert (True, first.answer["images"]) == (links["ok"], links["images"])
    service.on_post(sync_completed(data=[{"b64_json": base64.b64encode(PNG).decode()}]))
    told = generate("--new", "--no-download")
    assert (10, "yes") == (told.exit, told.charged), told.run
    assert (0, []) == (run("wait", "--out", "out", *quick()).exit, service.polls[1:])


def test_wait_leaves_another_services_records_alone(service, generate, run):
    assert 0 == generate("--no-wait").exit
    edit_record(generate.out, service="https://image2.vip")
    done = run("wait", "--out", "out", *quick())
    assert (0, "nothing_unfinished", []) == (done.exit, done.json["status"], service.polls)


# --- status without an id


@pytest.fixture
def offline(run):
    """Run a command without a key and without a network."""
    def bound(*argv, **options):
        with closed_port() as nowhere:
            return run(*argv, base_url=options.pop("base_url", nowhere), key=None, **options)
    return bound


def test_status_says_from_disk_alone_what_was_ordered_and_its_next_finishes_it(service, run, offline, project, tmp_path):
    service.on_post(*[ok()] * 2, reset(), refuse(400, "bad"), ok())
    service.on_poll(completed(), failed("no dogs"))
    for prompt, flags in (("a cat", ()), ("a dog", ()), ("a bird", ()), ("a cow", ()), ("an ox", ("--no-wait",))):
        run("generate", prompt, *quick(), *flags)
    requests = len(service.requests)
    done = offline("status", base_url=service.base_url)
    answer = hold(done, None, project, 5)
    assert (0, requests) == (done.exit, len(service.requests)), done
    orders = {order["prompt"]: order for order in answer["orders"]}
    states = {"a cat": "completed", "a dog": "failed", "a bird": "unknown", "a cow": "not_ordered", "an ox": "accepted"}
    assert states == {prompt: order["state"] for prompt, order in orders.items()}
    assert {"an ox", "a bird"} == {order["prompt"] for order in answer["orders"][:3]} - {"a cow"}, "what is open comes first"
    assert [str(project / "image2-output" / "a-cat.png")] == orders["a cat"]["paths"]
    assert ("task-1", "task-2") == (orders["a cat"]["task_id"], orders["a dog"]["task_id"])
    assert 5 == answer["counts"]["total"]
    service.on_poll(completed())
    assert (0, len(service.posts)) == (run_next(answer, service, tmp_path).exit, 5)
    (project / "image2-output" / "a-cat.png").unlink()
    again = offline("status", base_url=service.base_url).json
    orders = {order["prompt"]: order for order in again["orders"]}
    assert (None, "completed", 1) == (again["next"], orders["an ox"]["state"], len(orders["an ox"]["paths"]))
    assert [] == orders["a cat"]["paths"], "a picture that was deleted since is not named as there"


def test_status_looks_into_this_folder_and_those_just_below_or_where_it_is_told(service, run, offline, project):
    for out in (".", "pictures", "deep/er", "image2-output"):
        assert 0 == run("generate", f"for {out}", "--out", out, "--no-wait").exit
    found = {order["prompt"] for order in offline("status").json["orders"]}
    assert {"for .", "for pictures", "for image2-output"} == found
    found = [order["prompt"] for order in offline("status", "--out", "deep/er").json["orders"]]
    assert ["for deep/er"] == found


def test_status_shows_ten_at_most_and_counts_all(service, run, offline, project):
    (project / "orders.txt").write_text("".join(f"picture {number} {'very ' * 300}\n" for number in range(14)))
    assert 0 == run("batch", "orders.txt", *quick()).exit
    done = offline("status")
    answer = hold(done, None, project, 5)
    assert (10, 14) == (len(answer["orders"]), answer["counts"]["total"])
    assert all(len(order["prompt"]) <= 200 for order in answer["orders"])


def test_status_of_nothing_says_so_and_makes_nothing(offline, project):
    answer = offline("status").json
    assert (True, [], []) == (answer["ok"], answer["orders"], sorted(project.iterdir()))
