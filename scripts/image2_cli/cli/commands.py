"""The verbs: a `Run` in, an answer and an exit status out. Wires the rest, prints nothing.

What is slow to load is imported where it is first used, as in `run`.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Optional

from ..answer import build
from ..errors import OK, Image2Error
from ..machine import settings
from ..machine.inputs import InputProblem, argument_text, is_read_once, read_text, something_is_piped
from ..order.fields import FIELDS, ImageRequest, words
from ..order.fields import build as build_request
from ..order.output import Output, make, mistake, paths_to_be, replaced_reference, resolve, slug
from ..text import shown
from .run import End, Run, cannot_listen

MAX_PROMPT_BYTES, MAX_BATCH_BYTES = 1_000_000, 16_000_000
MAX_CONCURRENCY = 64


def go(run: Run) -> End:
    """Run the verb that the command names. Raises `Image2Error` and `Interrupted`."""
    verbs = {"generate": generate, "wait": wait, "status": status, "check": check, "gallery": gallery, "batch": batch,
             "sandbox": sandbox}
    run.refuse_key_in(*sys.argv[1:])  # before a folder is called like it, or an answer repeats it
    try:
        return verbs[run.options.verb](run)
    finally:
        run.close()


def generate(run: Run) -> End:
    """Order, wait, download."""
    options = run.options
    prompt, wrong = _prompt(run)
    given = _fields(run)
    output = resolve(options.out, options.overwrite)
    if given["image"]:
        from ..order.reference import References

        places = [(output.folder, output.stem or slug(prompt))] if options.overwrite else []
        replaced = replaced_reference(given["image"], places)
        run.mistakes += [replaced] if replaced else []
        given["image"], found = References().images(given["image"])
        run.mistakes += [f"--image {text}" for text in found]
    request, found = build_request({**given, "prompt": prompt})
    run.mistakes += [text for text in ([wrong] if wrong else []) + found if not (wrong and text.startswith("the prompt "))]
    output = _checked_output(run, output)
    if request is None:
        raise Image2Error("usage", "There is no prompt. Nothing was sent.")
    run.refuse_key_in(request.prompt)  # it may have come from a file
    if options.dry_run:
        return _dry_run(run, request, output)
    return _order(run, request, output)


def _order(run: Run, request: ImageRequest, output: Output) -> End:
    if not run.options.sandbox and not os.path.lexists(os.path.join(output.folder, ".image2")):
        run.read_settings()  # nothing was ordered here: without a key there is nothing to do, and nothing to load for it
    from ..order.engine import Engine
    from ..order.order import new_order
    from ..order.record import CHARGED
    from ..order.saving import path_on_disk

    options = run.options
    plan = run.plan(asynchronous=not options.sync, waits=not options.no_wait, downloads=not options.no_download,
                    reorder=CHARGED if options.new else ())
    fingerprint = request.fingerprint(run.service, output.stem or "")
    run.order = order = new_order(run.store(output.folder), output, request, output.stem or slug(request.prompt),
                                  fingerprint, run.service)
    run.same_command = _same_generate(run, request)
    engine = Engine([order], run.tools, plan)
    run.decide(engine, None)
    engine.run()
    is_open = order.error is None and not any(path_on_disk(image, output.folder) for image in order.record.images)
    if options.no_wait and is_open and not order.is_reported:
        return run.end(status=order.task.status or "submitted", goes_on=True)
    return run.end()


def wait(run: Run) -> End:
    """Go on with tasks that exist; never orders."""
    from ..order.engine import Engine
    from ..order.order import Order
    from ..order.store import Store
    from ..service.task import is_task_id

    ids = list(dict.fromkeys(run.options.task_ids))
    run.mistakes += [f"{shown(one)} is no task id" for one in ids if not is_task_id(one)]
    if run.options.directory:
        _go_to(run, run.options.directory)
    output = resolve(run.options.out, run.options.overwrite)
    if ids:
        orders = run.orders_of(list(filter(is_task_id, ids)), output)
    else:
        store, folder = Store(output.folder), output._replace(stem=None, suffix=None)  # each order keeps its own name
        orders = [Order(store, folder, record) for record in store.unfinished(run.service)]
    for place in dict.fromkeys(order.output for order in orders) or [output]:
        make(_checked_output(run, place).folder)
    if not orders:
        return build("nothing_unfinished", sandbox=run.options.sandbox or None), OK
    engine = Engine(orders, lambda: run.tools(len(orders) > 1), run.plan(downloads=not run.options.no_download))
    run.order = orders[0] if len(orders) == 1 else None
    if run.order is None:
        from ..batch.summary import Summary

        folders = {order.output.folder for order in orders}
        same = run.command("wait", *ids, out=folders.pop()) if len(folders) == 1 else run.command(
            "wait", *ids, out="", directory=os.getcwd())  # where to look for each
        run.summary = Summary(engine, orders[0].output.folder, same, lambda folder: run.command("wait", out=folder),
                              lambda: run.is_sandbox, True, [])
    engine.decide()
    engine.run()
    return run.summary.end(None) if run.summary else run.end()


def status(run: Run) -> End:
    """One look at a task; without an id, what the records say."""
    from .reports import list_orders, look_at

    return list_orders(run) if run.options.task_id is None else look_at(run, run.options.task_id)


def check(run: Run) -> End:
    """Is everything ready?"""
    from .reports import Check

    seconds = run.seconds("timeout", 30.0)
    run.refuse_mistakes()
    return Check(run, min(30.0, seconds)).run()


def gallery(run: Run) -> End:
    """One page of a folder's pictures."""
    run.refuse_mistakes()
    from ..gallery.gallery import write_page

    path, counts = write_page(os.path.abspath(os.path.expanduser(run.options.folder or "image2-output")))
    return build("completed", gallery=path, counts=counts), OK


def batch(run: Run) -> End:
    """Many orders."""
    from ..batch.file import read
    from ..order.record import FAILED_OR_PARTIAL, SENDING, UNKNOWN

    options = run.options
    if options.directory:
        _go_to(run, options.directory)
    if is_read_once(options.file) and not options.dry_run:
        run.ensure_packages()  # it may start another process, which must find stdin unread
    limit = _whole(run, options.max_images, "--max-images", 100_000)
    concurrency = _whole(run, options.concurrency, "--concurrency", MAX_CONCURRENCY)
    text: Optional[str] = None
    try:
        text = read_text(options.file, run.clock, MAX_BATCH_BYTES)
    except InputProblem as problem:
        run.mistakes.append(f"FILE {problem}")
    place = resolve(options.out, options.overwrite)
    if place.stem:
        run.mistakes.append("--out must be a folder: names of files stand in the lines (name, out)")
    defaults = _fields(run)
    found = read(text or "", defaults, options.out, options.overwrite, run.service)
    run.mistakes += found.mistakes if text is not None else []
    output = _checked_output(run, place)
    from .batch import dry_run, run_lines

    run.refuse_key_in(text, [(line.request.described(), line.output.named) for line in found.lines])
    if options.dry_run:
        return dry_run(run, found, limit)
    reorder = FAILED_OR_PARTIAL if options.retry_failed or options.new else ()
    plan = run.plan(concurrency=concurrency, reorder=(*reorder, SENDING, UNKNOWN) if options.new else reorder)
    return run_lines(run, found, output, text or "", defaults, limit, plan)


def _go_to(run: Run, folder: str) -> None:
    """Relative paths, `.env` too, are those of this folder. Absolute: another process may start in place of this one."""
    try:
        if not os.path.isabs(folder):
            raise OSError(0, "must be an absolute path")
        os.chdir(folder)
    except OSError as error:
        run.mistakes.append(f"--directory {shown(folder)}: {error.strerror or error}")


def sandbox(run: Run) -> End:
    """Serve the stand-in; it goes on when the answer is given."""
    from ..sandbox.server import KEY, Sandbox

    port = run.options.port
    seconds = run.seconds("seconds")
    if not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        run.mistakes.append(f"--port {shown(port)} must be a number from 0 to 65535")
    run.refuse_mistakes()
    try:
        server = Sandbox(seconds, int(port), run.log).start()
    except OSError as error:
        raise cannot_listen(error, port) from None
    exports = {settings.BASE_NAME: server.base_url, settings.KEY_NAME: KEY}
    lines = "".join(f"export {name}={value}\n" for name, value in exports.items())
    run.write(f"image2: the sandbox serves at {server.base_url} until Ctrl-C; to use it:\n{lines}")
    run.serving = server
    return build("serving", base_url=server.base_url, export=exports, sandbox=True), OK


def _fields(run: Run) -> dict[str, Any]:
    """What the command gives of the fields of an order, but its prompt; paths are right in any folder."""
    given = {field.name: getattr(run.options, field.name) for field in FIELDS if field.name != "prompt"}
    if given["image"]:
        given["image"] = [one if "://" in one or one.startswith("data:") else os.path.abspath(os.path.expanduser(one))
                          for one in given["image"]]
    return given


def _prompt(run: Run) -> tuple[str, Optional[str]]:
    """The prompt that the command gives, and what is wrong with it."""
    options = run.options
    given = next((text for text in (options.prompt_word, options.prompt, options.prompt_file) if text is not None), None)
    if given and given != "-" and options.prompt_file is None and given.isascii():
        return given, None
    if given is None:
        return "", "there is no prompt; to read it from stdin, add --prompt-file -" if something_is_piped() else None
    if given != "-" and options.prompt_file is None:
        return argument_text(given), None
    if is_read_once(given) and not options.dry_run:
        run.ensure_packages()  # it may start another process, which must find stdin unread
    try:
        return read_text(given, run.clock, MAX_PROMPT_BYTES).strip(), None
    except InputProblem as problem:
        return "", f"--prompt-file {problem}"


def _checked_output(run: Run, output: Output) -> Output:
    """The output place; raises what is wrong with all of the command."""
    run.seconds("poll_interval")
    run.seconds("timeout")
    others = len(run.mistakes)
    wrong = mistake(output)
    run.mistakes += [wrong] if wrong else []
    run.refuse_mistakes("usage" if others or not wrong else "output_not_writable")
    return output


def _same_generate(run: Run, request: ImageRequest) -> str:
    """The command again, for an answer that can only be had by repeating it; it never pays twice."""
    options = run.options
    given = {**_fields(run), "prompt": request.prompt}
    flags = [flag for name, flag in (("sync", "--sync"), ("no_download", "--no-download"), ("overwrite", "--overwrite"))
             if getattr(options, name)]
    return run.command("generate", *words(given), *flags)


def _whole(run: Run, text: str, flag: str, most: int) -> int:
    if text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= most:
        return int(text)
    run.mistakes.append(f"{flag} {shown(text)} must be a whole number from 1 to {most}")
    return 1


def _dry_run(run: Run, request: ImageRequest, output: Output) -> End:
    body = request.payload(not run.options.sync)
    if request.images:
        body["image"] = request.described()["image"]
    files = paths_to_be(output, output.stem or slug(request.prompt), request.n)
    url = f"{settings.base_url()}/api/v1/images/generations"
    return build("dry_run", request={"method": "POST", "url": url, "body": body}, files=files,
                 sandbox=run.options.sandbox or None), OK
