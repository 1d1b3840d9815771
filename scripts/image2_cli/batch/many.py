"""The verbs that speak of many orders: `batch`, and `wait` for several tasks. Wires `engine`, answers with a summary.

However many orders there are, the answer stays small: counts, the first failures, and the path of
`results.jsonl` with a full answer a line, written in one step. Prints nothing; knows neither key nor network.
"""

from __future__ import annotations

import hashlib
import json
import os

from .. import answer
from ..cli import arguments
from ..errors import INTERRUPTED, NOT_SAVED, PENDING, TERMINATED, UNAVAILABLE, Image2Error
from ..machine import settings as settings_room
from ..machine.inputs import is_read_once, read_text
from ..order import fields as request
from ..order import output as places
from ..order import store as records
from . import file as lines_room

RESULTS = "results", ".jsonl", b'{"line": '  # name and ending, and how every file of results begins
FIRST_FAILURES = 3
LONGEST_REASON = 100
FEW_IMAGES = 10
MAX_CONCURRENCY = 64


class _Many:
    """Several orders of one run: the `many` of `run.Run`, so that an interrupted run can say what it knows."""

    def __init__(self, run, batch, store, folder, next_words, shows_images):
        self.run, self.batch, self.store, self.folder = run, batch, store, folder
        self.next_words, self.shows_images = next_words, shows_images
        is_relative = any(entry.line.is_relative for entry in batch.entries)
        self.working_folder = os.getcwd() if is_relative else None  # now: it may be gone when `next` is told

    def charged(self) -> str:
        """The surest word of any line in results.jsonl, for who counts money: `yes` where one accepted order has not
        failed, `maybe` where all that were accepted failed or are of unknown fate, as `generate` says of one."""
        words = {answer.of_order(entry.order, entry.error)["charged"] for entry in self.batch.entries}
        return next((word for word in ("yes", "maybe") if word in words), "no")

    def summary(self, error):
        """(answer, exit status) of the whole; writes results.jsonl."""
        from .summary import counts_of, end_of

        run, batch = self.run, self.batch
        batch.close()
        if error and error.exit_status in (INTERRUPTED, TERMINATED):
            error.message = self._stopped()
        end, exit_status = (error, error.exit_status) if error else end_of(batch.entries, batch.fatal, batch.pace.refusal)
        stand_in = run.api.is_stand_in or any(entry.order.tools.api.is_stand_in for entry in batch.entries)
        full = [self._of(entry, stand_in) for entry in batch.entries]
        told = answer.plain("completed" if end is None else end.code, **({"sandbox": True} if stand_in else {}))
        told.update(ok=end is None, charged="no" if stand_in else self.charged(), error=end and end.as_json(),
                    counts=counts_of(batch.entries))
        images = [{**image, "task_id": one["task_id"]} for one in full for image in one["images"]]
        if self.shows_images and len(images) <= FEW_IMAGES:
            told["images"] = images
        paths = [image["path"] for image in images if image["path"]]
        if paths and not self.shows_images and len(paths) <= FEW_IMAGES:
            told["files"] = paths
        failures = [_failure(entry) for entry in batch.entries if entry.went_wrong]
        if failures:
            told["failures"] = failures[:FIRST_FAILURES]
        warnings = self._warnings(full)
        try:
            path = places.own_file(self.folder, *RESULTS)
            self.store.put(path, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in full))
            told["results"] = path
        except OSError as error:
            warnings.append("%s could not be written (%s)." % ("".join(RESULTS[:2]), error.strerror or error))
        if warnings:
            told["warnings"] = warnings
        if exit_status in (UNAVAILABLE, PENDING, NOT_SAVED, INTERRUPTED, TERMINATED):
            told["next"] = self._next()
        else:  # no more orders, but what was accepted can be had
            told["next"] = self._waits()
        return told, exit_status

    def _of(self, entry, stand_in):
        one = answer.of_order(entry.order, entry.error, None, None, stand_in)
        return {"line": entry.line.number, **one}

    def _stopped(self) -> str:
        """What an interrupted run leaves behind."""
        from .summary import counts_of

        entries = self.batch.entries
        counts = counts_of(entries)
        away = sum(entry.state == "pending" and entry.order.charged == "yes" for entry in entries)
        text = "Stopped: %d of %d orders are done, %d go on at the service, %d were not ordered" % (
            counts["completed"], counts["total"], away, counts["pending"] - away)
        if counts["unknown"]:
            text += ", %d may have been accepted and are not repeated" % counts["unknown"]
        return text + ". Run `next` to go on."

    @staticmethod
    def _warnings(full) -> list:
        warned = [one for one in full if one.get("warnings")]
        if not warned:
            return []
        return ["Line %d: %s%s" % (warned[0]["line"], warned[0]["warnings"][0][:100], "" if len(warned) == 1 else
                                  " %d more lines have warnings, see results." % (len(warned) - 1))]

    def _waits(self):
        """What goes on with all that was accepted, or None. A folder knows only its own orders: one command each."""
        folders = dict.fromkeys(entry.order.place.folder for entry in self.batch.entries
                                if entry.state == "pending" and entry.order.charged == "yes")
        if folders and self.next_words[0] == "wait":
            return self._next()
        return (" & " if os.name == "nt" else "; ").join(self.run.command("wait", out=out) for out in folders) or None

    def _next(self) -> str:
        command = self.run.command(*self.next_words)
        if self.working_folder:  # elsewhere they would be other orders
            return "%s && %s" % (answer.shell(["cd", *(["/d"] if os.name == "nt" else []), self.working_folder]), command)
        return command


def _failure(entry) -> dict:
    error = entry.error.as_json()
    reason = "server_message" if error.get("server_message") else "message"
    return {"line": entry.line.number, "code": error["code"], reason: error[reason][:LONGEST_REASON]}


def run_batch(run):
    """The verb `batch`: (answer, exit status)."""
    options, mistakes = run.options, run.mistakes
    if is_read_once(options.file) and not options.dry_run:
        run.ensure_packages()  # it may start another process, which must find stdin unread
    limit = _whole(options.max_images, "--max-images", 100_000, mistakes)
    concurrency = _whole(options.concurrency, "--concurrency", MAX_CONCURRENCY, mistakes)
    text, wrong = read_text(options.file, run.clock, 16_000_000)
    if wrong:
        mistakes.append("FILE " + wrong)
    if places.resolve(options.out).stem:
        mistakes.append("--out must be a folder: names of files stand in the lines (name, out)")
    service = "sandbox" if options.sandbox else settings_room.base_url()
    found = [] if wrong else lines_room.read(text, _defaults(options, mistakes), options.out, options.overwrite, service,
                                             mistakes)
    folder = run.checked_place(sum(line.request.n for line in found)).folder
    for other in {line.place.folder for line in found} - {folder}:
        wrong = places.mistake(places.Place(other), 1)
        mistakes += [wrong] if wrong else []
    run.refuse_mistakes()
    if options.dry_run:
        return _dry_run(run, found, service, limit)
    with run.service(folder) as tools:
        for other in {line.place.folder for line in found} - {folder}:
            places.make(other)
        run.refuse_key_in(text, [line.request.described() for line in found], [line.place for line in found])
        entries = _entries(run, tools, found, folder, limit)
        if is_read_once(options.file):
            options.file = _kept(text, tools.store)
        return _go(run, entries, tools, folder, concurrency, _same_command(options), False)


def wait_for_all(run, orders, tools):
    """`wait` for several tasks at once: (answer, exit status)."""
    from .summary import Entry

    entries = [Entry(lines_room.Line(number, None, order.place, "", ""), order)
               for number, order in enumerate(orders, 1)]
    for order in orders:
        order.resumed = True
    return _go(run, entries, tools, orders[0].place.folder, 8, ["wait", *run.options.task_ids], True)


def _entries(run, tools, found, folder, limit) -> list:
    from .summary import prepare

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
    return entries


def _go(run, entries, tools, folder, concurrency, next_words, shows_images):
    from ..cli.progress import Quiet
    from ..order.engine import Batch
    from ..service.api import Api

    def save(order):
        if getattr(run.options, "no_download", False):
            order.leave()
        else:
            order.collect(run.deadline)

    def tools_for_thread():
        api = Api(run.settings, run.clock, tools.log, settings_room.host_sandbox())
        return tools._replace(api=api, tell=Quiet())

    progress = tools.tell
    batch = Batch(entries, run.clock, run.deadline, min(concurrency, max(1, len(entries))), tools_for_thread,
                  progress.counted, save)
    run.many = _Many(run, batch, tools.store, folder, next_words, shows_images)
    try:
        batch.run()
    finally:
        progress.clear()
    return run.many.summary(None)


def _defaults(options, mistakes) -> dict:
    pairs = [request.pair(text, mistakes) for text in options.set or ()]
    given = {name: getattr(options, name) for name in ("size", "n", "model")}
    given["image"] = [_absolute(image) for image in options.image] if options.image else None
    return {**{name: value for name, value in given.items() if value is not None}, "set": dict(filter(None, pairs))}


def _whole(text, flag, most, mistakes) -> int:
    if text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= most:
        return int(text)
    mistakes.append("%s %s must be a whole number from 1 to %d" % (flag, request.shown(text), most))
    return 1


def _dry_run(run, found, service, limit):
    base = service if service != "sandbox" else settings_room.base_url()
    first = []
    for line in found[:FIRST_FAILURES]:
        count = line.request.n
        number = places.first_number(line.place, line.stem, count)
        files = [places.path_of(line.place, line.stem, number + step, line.place.suffix or ".png") for step in range(count)]
        first.append({"line": line.number, "files": files, "body": line.request.described()})
    counts = {"total": len(found), "images": sum(line.request.n for line in found)}
    told = answer.plain("dry_run", counts=counts, requests=first,
                        request={"method": "POST", "url": base + "/api/v1/images/generations"}, **run.stand_in())
    if counts["images"] > limit:
        told["warnings"] = ["%d images are more than --max-images %d: without --dry-run it would be refused, unless enough "
                            "of them are done." % (counts["images"], limit)]
    return told, 0


def _absolute(image: str) -> str:
    return image if "://" in image else os.path.abspath(os.path.expanduser(image))


def _same_command(options) -> list:
    """The words that run this batch again from any folder, without a flag that would pay again."""
    words = ["batch", os.path.abspath(os.path.expanduser(options.file))]
    for flag in ("size", "n", "model"):
        if getattr(options, flag) is not None:
            words += ["--" + flag, getattr(options, flag)]
    for image in options.image or ():
        words += ["--image", _absolute(image)]
    for pair in options.set or ():
        words += ["--set", pair]
    for flag, usual in (("max_images", "50"), ("concurrency", "8"), ("timeout", "%g" % arguments.TIMEOUT_S)):
        if getattr(options, flag) != usual:
            words += ["--" + flag.replace("_", "-"), getattr(options, flag)]
    return words + (["--overwrite"] if options.overwrite else [])


def _kept(text: str, store) -> str:
    """The path of a copy of what was piped in: `next` needs it again."""
    path = os.path.join(store.folder, "batch-%s.txt" % hashlib.sha256(text.encode("utf-8")).hexdigest()[:12])
    try:
        store.put(path, text)
    except OSError as error:
        raise Image2Error("output_not_writable", "%s is not writable (%s). Nothing was sent; choose another --out."
                          % (path, error.strerror or error)) from None
    return path
