"""The verbs: a `Run` in, an answer and an exit status out. Wires the rooms, prints nothing.

What is slow to load is imported where it is first used, as in `run`.
"""

from __future__ import annotations

import os
import sys

from .. import answer
from ..errors import OK, Image2Error
from ..machine import settings as settings_room
from ..machine.inputs import is_read_once, read_text, references
from ..order import fields as request
from ..order import output as places
from . import arguments


def go(run):
    """Run the verb that the command names: (answer, exit status). Raises `Image2Error` and `Interrupted`."""
    verb = {"generate": generate, "wait": wait, "status": status, "check": check, "gallery": gallery, "batch": batch,
            "sandbox": sandbox}[run.options.verb]
    run.refuse_key_in(*sys.argv[1:])  # before a folder is called like it, or an answer repeats it
    return verb(run)


def generate(run):
    """Order, wait, download."""
    options = run.options
    if is_read_once(options.prompt_file) and not options.dry_run:
        run.ensure_packages()  # it may start another process, which must find stdin unread
    asked, place = _checked_order(run)
    if options.dry_run:
        return _dry_run(run, asked, place)
    with run.service(place.folder) as tools:
        from ..order.order import Order

        run.order = order = Order(tools, place)
        order.take(asked, place.stem or places.slug(asked.prompt), options.new)
        if not order.resumed:
            order.submit(asked, run.deadline, not options.sync)
        if options.no_wait and order.task_id and (order.resumed or order.task.outcome == "running"):
            return run.answer(status=order.task.status if order.task else "submitted", go_on=True)
        return _finish(run, order)


def wait(run):
    """Go on with tasks that exist; never orders."""
    from ..service.task import is_task_id

    ids = list(dict.fromkeys(run.options.task_ids))
    run.mistakes += ["%s is no task id" % request.shown(one) for one in ids if not is_task_id(one)]
    place = run.checked_place(1)
    with run.service(place.folder) as tools:
        from ..order.order import Order

        if ids:
            records = [tools.store.of_task(one, tools.service) for one in ids]
            orders = [Order(tools, place, record, one) for record, one in zip(records, ids)]
        else:
            orders = [Order(tools, place, record, record.get("task_id"))
                      for record in tools.store.unfinished(tools.service)]
        if not orders:
            return answer.plain("nothing_unfinished", **run.stand_in()), OK
        if len(orders) > 1:
            from ..batch.many import wait_for_all

            return wait_for_all(run, orders, tools)
        run.order = orders[0]
        return _finish(run, orders[0])


def status(run):
    """One look at a task."""
    from ..service.task import is_task_id

    task_id = run.options.task_id
    if not is_task_id(task_id):
        run.mistakes.append("%s is no task id" % request.shown(task_id))
    run.refuse_mistakes()
    place = places.resolve(run.options.out)
    with run.service(None) as tools:
        from ..order.order import Order

        run.order = order = Order(tools, place, None, task_id)
        order.task = run.api.look(task_id)
        if order.task.outcome == "failed":
            raise order.failure()
        return run.answer(go_on=order.task.outcome == "running")


def check(run):
    """Is everything ready?"""
    run.refuse_mistakes()
    from .check import Check

    return Check(run).run()


def gallery(run):
    """One page of a folder's pictures."""
    run.refuse_mistakes()
    from ..gallery.gallery import write_page

    folder = os.path.abspath(os.path.expanduser(run.options.folder or places.DEFAULT_FOLDER))
    path, counts = write_page(folder)
    return answer.plain("completed", gallery=path, counts=counts), OK


def batch(run):
    """Many orders."""
    from ..batch.many import run_batch

    return run_batch(run)


def sandbox(run):
    """Serve the stand-in; it goes on when the answer is given."""
    from ..sandbox.server import KEY, Sandbox

    port, seconds = run.options.port, arguments.seconds(run.options.seconds, "--seconds", run.mistakes, 3600)
    if not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        run.mistakes.append("--port %s must be a number from 0 to 65535" % request.shown(port))
    run.refuse_mistakes()
    try:
        sandbox = Sandbox(seconds, int(port), run.log).start()
    except OSError as error:
        raise Image2Error("usage", "Port %s of 127.0.0.1 cannot be used (%s). Choose another --port."
                          % (port, error.strerror or error)) from None
    exports = {settings_room.BASE_NAME: sandbox.base_url, settings_room.KEY_NAME: KEY}
    run.write("image2: the sandbox serves at %s until Ctrl-C; to use it:\n%s" % (sandbox.base_url, "".join(
        "export %s=%s\n" % pair for pair in exports.items())))
    run.serving = sandbox
    return answer.plain("serving", base_url=sandbox.base_url, export=exports, sandbox=True), OK


def _finish(run, order):
    order.follow(run.deadline)
    if run.options.no_download:
        order.leave()
    else:
        order.collect(run.deadline)
    return run.answer()


def _checked_order(run):
    options, mistakes = run.options, run.mistakes
    fields = {name: getattr(options, name) for name in ("size", "n", "model", "set")}
    fields["prompt"] = _prompt(run)
    fields["image"] = references(options.image, mistakes) if options.image else []
    asked, found = request.build(fields)
    mistakes += found
    for one, other in (("sync", "no_wait"), ("no_download", "overwrite"), ("no_wait", "no_download")):
        if getattr(options, one) and getattr(options, other):
            mistakes.append("--%s and --%s contradict each other" % (one.replace("_", "-"), other.replace("_", "-")))
    if asked:
        run.refuse_key_in(asked.prompt)  # it may have come from a file
    return asked, run.checked_place(asked.n if asked else 1)


def _prompt(run):
    options = run.options
    given = [text for text in (options.prompt_word, options.prompt, options.prompt_file) if text is not None]
    if len(given) > 1:
        run.mistakes.append("the prompt is given %d times: use one of PROMPT, --prompt, --prompt-file" % len(given))
        return "given"
    if options.prompt_file is None:
        return given[0] if given else ""
    text, wrong = read_text(options.prompt_file, run.clock)
    if wrong:
        run.mistakes.append("--prompt-file " + wrong)
        return "given"
    return text.strip()


def _dry_run(run, asked, place):
    base = settings_room.base_url()
    body = asked.payload(not run.options.sync)
    if asked.images:
        body["image"] = asked.described()["image"]
    stem = place.stem or places.slug(asked.prompt)
    first = places.first_number(place, stem, asked.n)
    files = [places.path_of(place, stem, first + step, place.suffix or ".png") for step in range(asked.n)]
    return answer.plain("dry_run", request={"method": "POST", "url": base + "/api/v1/images/generations",
                                            "body": body}, files=files, **run.stand_in()), OK
