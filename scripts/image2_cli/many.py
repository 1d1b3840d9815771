"""The verbs that speak of many orders: `batch`, and `wait` for several tasks. Wires `batch`, answers with a summary.

However many orders there are, the answer stays small: counts, the first failures, and the path of
`results.jsonl` with a full answer a line, written in one step.
"""

from __future__ import annotations

import json
import os
import uuid

from . import answer, arguments, records, request
from . import lines as lines_room
from . import place as places
from . import settings as settings_room
from .errors import Image2Error
from .verbs import read_text

RESULTS = "results.jsonl"
FIRST_FAILURES = 3
FIRST_MISTAKES = 20
FEW_IMAGES = 10
MAX_CONCURRENCY = 64


class _Many:
    """Several orders of one run: `order` for `verbs.Run`, so that an interrupted run can say what it knows."""

    def __init__(self, run, batch, folder, next_words, shows_images):
        self.run, self.batch, self.folder = run, batch, folder
        self.next_words, self.shows_images = next_words, shows_images

    def charged(self) -> str:
        """Of all the orders: yes where one was accepted, maybe where one may have been."""
        words = {entry.order.charged for entry in self.batch.entries}
        return next((word for word in ("yes", "maybe") if word in words), "no")

    def summary(self, error):
        """(answer, exit status) of the whole; writes results.jsonl."""
        from .batch import end_of

        run, batch = self.run, self.batch
        end, exit_status = (error, error.exit_status) if error else end_of(batch)
        stand_in = run.api.is_stand_in
        full = [self._of(entry, stand_in) for entry in batch.entries]
        told = answer.plain("completed" if end is None else end.code, **run.stand_in())
        told.update(ok=end is None, charged="no" if stand_in else self.charged(), error=end and end.as_json(),
                    counts=batch.counts)
        images = [{**image, "task_id": one["task_id"]} for one in full for image in one["images"]]
        if self.shows_images and len(images) <= FEW_IMAGES:
            told["images"] = images
        failures = [{"line": one["line"], **{name: one["error"][name] for name in ("code", "message")}}
                    for one in full if one["error"] and one["error"]["code"] != "still_running"]
        if failures:
            told["failures"] = [{**one, "message": one["message"][:100]} for one in failures[:FIRST_FAILURES]]
        try:
            told["results"] = _write_results(self.folder, full)
        except OSError as error:
            told["warnings"] = ["%s could not be written (%s)." % (RESULTS, error.strerror or error)]
        if exit_status in (5, 8, 10, 130, 143):
            told["next"] = run.command(*self.next_words)
        return told, exit_status

    def _of(self, entry, stand_in):
        one = answer.of_order(entry.order, entry.error, None, None, stand_in)
        return {"line": entry.line.number, **one}


def run_batch(run):
    """The verb `batch`: (answer, exit status)."""
    options, mistakes = run.options, run.mistakes
    if options.file == "-" and not options.dry_run:
        run.ensure_packages()  # it may start another process, which must find stdin unread
    limit = _whole(options.max_images, "--max-images", 100_000, mistakes)
    concurrency = _whole(options.concurrency, "--concurrency", MAX_CONCURRENCY, mistakes)
    text, wrong = read_text(options.file, most=16_000_000)
    if wrong:
        mistakes.append("FILE " + wrong)
    if places.resolve(options.out).stem:
        mistakes.append("--out must be a folder: names of files stand in the lines (name, out)")
    service = "sandbox" if options.sandbox else settings_room.base_url()
    found = [] if wrong else lines_room.read(text, _defaults(options, mistakes), options.out, options.overwrite, service,
                                             mistakes)
    if len(mistakes) > FIRST_MISTAKES:
        mistakes[FIRST_MISTAKES:] = ["and %d more" % (len(mistakes) - FIRST_MISTAKES)]
    folder = run.checked_place(sum(line.request.n for line in found)).folder
    for other in {line.place.folder for line in found} - {folder}:
        wrong = places.mistake(places.Place(other), 1)
        mistakes += [wrong] if wrong else []
    run.refuse_mistakes()
    if options.dry_run:
        return _dry_run(run, found, service)
    with run.service(folder) as tools:
        for other in {line.place.folder for line in found} - {folder}:
            places.make(other)
        run.refuse_key_in([line.request.described() for line in found], [line.place for line in found])
        return _run_all(run, tools, found, folder, limit, concurrency)


def wait_for_all(run, orders, tools):
    """`wait` for several tasks at once: (answer, exit status)."""
    from .batch import Entry

    entries = [Entry(lines_room.Line(number, None, order.place, "", ""), order)
               for number, order in enumerate(orders, 1)]
    for order in orders:
        order.resumed = True
    return _go(run, entries, tools, orders[0].place.folder, 8, ["wait"], True)


def _run_all(run, tools, found, folder, limit, concurrency):
    from .batch import prepare

    stores = {folder: tools.store}

    def tools_of(place):
        if place.folder not in stores:
            stores[place.folder] = records.Store(place.folder)
        return tools._replace(store=stores[place.folder])

    options = run.options
    entries = prepare(found, tools_of, options.retry_failed or options.new, options.new)
    wanted = sum(entry.line.request.n for entry in entries if entry.to_order and entry.error is None)
    if wanted > limit:
        raise Image2Error("too_many_images", "This batch would order %d images, more than --max-images %d. Nothing was "
                          "sent. Raise it if the user agrees to the cost." % (wanted, limit))
    return _go(run, entries, tools, folder, concurrency, _same_command(options), False)


def _go(run, entries, tools, folder, concurrency, next_words, shows_images):
    from .api import Api
    from .batch import Batch
    from .progress import Quiet

    def tools_for_thread():
        api = Api(run.settings, run.clock, tools.log, settings_room.sandbox_name())
        return tools._replace(api=api, tell=Quiet())

    progress = tools.tell
    batch = Batch(entries, run.clock, run.deadline, min(concurrency, max(1, len(entries))), tools_for_thread,
                  lambda batch: progress.counted(batch.counts))
    run.many = _Many(run, batch, folder, next_words, shows_images)
    batch.run()
    run.api.is_stand_in = run.api.is_stand_in or any(entry.order.tools.api.is_stand_in for entry in entries)
    progress.clear()
    return run.many.summary(None)


def _defaults(options, mistakes) -> dict:
    pairs = [request.pair(text, mistakes) for text in options.set or ()]
    given = {name: getattr(options, name) for name in ("size", "n", "model", "image")}
    return {**{name: value for name, value in given.items() if value is not None}, "set": dict(filter(None, pairs))}


def _whole(text, flag, most, mistakes) -> int:
    if text.isdecimal() and 1 <= int(text) <= most:
        return int(text)
    mistakes.append("%s %s must be a whole number from 1 to %d" % (flag, request.shown(text), most))
    return 1


def _dry_run(run, found, service):
    base = service if service != "sandbox" else settings_room.base_url()
    first = [{"line": line.number, "file": places.path_of(line.place, line.stem, 1, line.place.suffix or ".png"),
              "body": line.request.described()} for line in found[:FIRST_FAILURES]]
    counts = {"total": len(found), "images": sum(line.request.n for line in found)}
    return answer.plain("dry_run", counts=counts, requests=first,
                        request={"method": "POST", "url": base + "/api/v1/images/generations"}, **run.stand_in()), 0


def _same_command(options):
    """The words that run this batch again from any folder; what came from stdin can only be waited for."""
    if options.file == "-":
        return ["wait"]
    words = ["batch", os.path.abspath(os.path.expanduser(options.file))]
    for flag in ("size", "n", "model"):
        if getattr(options, flag) is not None:
            words += ["--" + flag, getattr(options, flag)]
    for image in options.image or ():
        words += ["--image", image if "://" in image else os.path.abspath(os.path.expanduser(image))]
    for pair in options.set or ():
        words += ["--set", pair]
    for flag, usual in (("max_images", "50"), ("concurrency", "8"), ("timeout", "%g" % arguments.TIMEOUT_S)):
        if getattr(options, flag) != usual:
            words += ["--" + flag.replace("_", "-"), getattr(options, flag)]
    return words + (["--overwrite"] if options.overwrite else [])


def _write_results(folder, full) -> str:
    path = os.path.join(folder, RESULTS)
    part = os.path.join(folder, ".image2-results-%s.part" % uuid.uuid4().hex[:8])
    try:
        with open(part, "w", encoding="utf-8", errors="replace") as file:
            for one in full:
                file.write(json.dumps(one, ensure_ascii=False) + "\n")
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)
    return path
