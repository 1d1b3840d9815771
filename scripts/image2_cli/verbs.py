"""The verbs: a parsed command line in, an answer and an exit status out. Wires the rooms, prints nothing.

Rooms that need the two packages, or time to start, are imported where they are first used: `--help`, a usage error
and a missing key answer in about the time of an empty Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

from . import answer, arguments, request
from . import place as places
from . import settings as settings_room
from .errors import OK, Image2Error

MAX_PROMPT_BYTES = 1_000_000
MAX_REFERENCES = 48 * 1024 * 1024  # characters of all data: URIs of one order; our own bound


class Run:
    """One run of the command. `order` is the order it is at, so that an interrupted run can say what it knows."""

    def __init__(self, options, mistakes, clock, script, write, is_terminal):
        self.options, self.mistakes, self.clock = options, mistakes, clock
        self.script, self.write, self.is_terminal = script, write, is_terminal
        self.order = None
        self.many = None  # the orders of a batch, likewise
        self.settings = None
        self.api = None
        self.started = clock.now()

    def go(self):
        """Run the verb: (answer, exit status). Raises `Image2Error` and `Interrupted`; `failed` answers those."""
        self.refuse_key_in(*sys.argv[1:])  # before a folder is called like it, or an answer repeats it
        return getattr(self, "do_" + self.options.verb)()

    # --- the verbs ------------------------------------------------------------------------------------------

    def do_generate(self):
        options = self.options
        if options.prompt_file == "-" and not options.dry_run:
            self.ensure_packages()  # it may start another process, which must find stdin unread
        asked, place = self._checked_order()
        if options.dry_run:
            return self._dry_run(asked, place)
        with self.service(place.folder) as tools:
            from .order import Order

            self.order = order = Order(tools, place)
            order.take(asked, place.stem or places.slug(asked.prompt), options.new)
            if not order.resumed:
                order.submit(asked, self.deadline, not options.sync)
            if options.no_wait and order.task_id and (order.resumed or order.task.outcome == "running"):
                return self._answer(status=order.task.status if order.task else "submitted", go_on=True)
            return self._finish(order)

    def do_wait(self):
        from .task import is_task_id

        ids = list(dict.fromkeys(self.options.task_ids))
        self.mistakes += ["%s is no task id" % request.shown(one) for one in ids if not is_task_id(one)]
        place = self.checked_place(1)
        with self.service(place.folder) as tools:
            from .order import Order

            if ids:
                records = [tools.store.of_task(one, tools.service) for one in ids]
                orders = [Order(tools, place, record, one) for record, one in zip(records, ids)]
            else:
                orders = [Order(tools, place, record, record.get("task_id"))
                          for record in tools.store.unfinished(tools.service)]
            if not orders:
                return answer.plain("nothing_unfinished", **self.stand_in()), OK
            if len(orders) > 1:
                from .many import wait_for_all

                return wait_for_all(self, orders, tools)
            self.order = orders[0]
            return self._finish(orders[0])

    def do_status(self):
        from .task import is_task_id

        task_id = self.options.task_id
        if not is_task_id(task_id):
            self.mistakes.append("%s is no task id" % request.shown(task_id))
        self.refuse_mistakes()
        place = places.resolve(self.options.out)
        with self.service(None) as tools:
            from .order import Order

            self.order = order = Order(tools, place, None, task_id)
            order.task = self.api.look(task_id)
            if order.task.outcome == "failed":
                raise order.failure()
            return self._answer(go_on=order.task.outcome == "running")

    def do_check(self):
        self.refuse_mistakes()
        from .check import Check

        return Check(self).run()

    def do_gallery(self):
        self.refuse_mistakes()
        from .gallery import write_page

        folder = os.path.abspath(os.path.expanduser(self.options.folder or places.DEFAULT_FOLDER))
        path, counts = write_page(folder)
        return answer.plain("completed", gallery=path, counts=counts), OK

    def do_batch(self):
        from .many import run_batch

        return run_batch(self)

    def do_sandbox(self):
        from .sandbox import KEY, Sandbox

        port, seconds = self.options.port, arguments.seconds(self.options.seconds, "--seconds", self.mistakes, 3600)
        if not port.isdecimal() or int(port) > 65535:
            self.mistakes.append("--port %s must be a number from 0 to 65535" % request.shown(port))
        self.refuse_mistakes()
        try:
            sandbox = Sandbox(seconds, int(port), self.log).start()
        except OSError as error:
            raise Image2Error("usage", "Port %s of 127.0.0.1 cannot be used (%s). Choose another --port."
                              % (port, error.strerror or error)) from None
        exports = {settings_room.BASE_NAME: sandbox.base_url, settings_room.KEY_NAME: KEY}
        self.write("image2: the sandbox serves at %s until Ctrl-C; to use it:\n%s" % (sandbox.base_url, "".join(
            "export %s=%s\n" % pair for pair in exports.items())))
        self.serving = sandbox
        return answer.plain("serving", base_url=sandbox.base_url, export=exports, sandbox=True), OK

    # --- how a run ends -------------------------------------------------------------------------------------

    def failed(self, error: Image2Error):
        """(answer, exit status) of a run that ended in `error`, with all that is known of its order."""
        sandbox = settings_room.sandbox_name()
        if sandbox and error.code == "output_not_writable":
            error.message += " %s's sandbox may forbid it: choose a folder it lets you write, or ask the user." % sandbox
        if self.many:
            return self.many.summary(error)
        order = self.order
        if order is None or not (order.record or order.task_id):
            return {**answer.of_error(error), **self.stand_in()}, error.exit_status
        go_on = order.charged == "yes" and error.exit_status in (5, 8, 10, 130, 143)
        return self._answer(error, go_on=go_on)

    @property
    def charged(self) -> str:
        """What the orders of this run may have cost by now."""
        return self.many.charged() if self.many else self.order.charged if self.order else "no"

    @property
    def deadline(self) -> float:
        """When the waiting of this run ends, in the clock's seconds."""
        return self.started + self.timeout

    def log(self, line: str):
        """A line for people who look for a fault."""
        if self.options.verbose:
            self.write("image2: http: %s\n" % line)

    def _finish(self, order):
        order.follow(self.deadline)
        if self.options.no_download:
            order.leave()
        else:
            order.collect(self.deadline)
        return self._answer()

    def _answer(self, error=None, status=None, go_on=False):
        order = self.order
        command = None
        if go_on:
            command = self.command("wait", *([order.task_id] if order.task_id else []))
        stand_in = self.api.is_stand_in if self.api else bool(getattr(self.options, "sandbox", False))
        return answer.of_order(order, error, status, command, stand_in), error.exit_status if error else OK

    def stand_in(self):
        return {"sandbox": True} if getattr(self.options, "sandbox", False) else {}

    def command(self, verb, *words):
        """A command that goes on from any folder."""
        from . import packages

        folder = os.path.abspath(self.order.place.folder if self.order else places.resolve(self.options.out).folder)
        extra = ["--sandbox"] if self.options.sandbox else []
        return answer.shell([*packages.launcher(), self.script, verb, *words, "--out", folder, *extra])

    # --- what is checked before anything is sent ----------------------------------------------------------------

    def refuse_mistakes(self, code="usage"):
        if self.mistakes:
            raise Image2Error(code, "%s. Nothing was sent; see `image2.py %s --help`." % (
                "; ".join(self.mistakes), self.options.verb))

    def _checked_order(self):
        options, mistakes = self.options, self.mistakes
        fields = {name: getattr(options, name) for name in ("size", "n", "model", "set")}
        fields["prompt"] = self._prompt()
        fields["image"] = references(options.image, mistakes) if options.image else []
        asked, found = request.build(fields)
        mistakes += found
        for one, other in (("sync", "no_wait"), ("no_download", "overwrite"), ("no_wait", "no_download")):
            if getattr(options, one) and getattr(options, other):
                mistakes.append("--%s and --%s contradict each other" % (one.replace("_", "-"), other.replace("_", "-")))
        if asked:
            self.refuse_key_in(asked.prompt)  # it may have come from a file
        return asked, self.checked_place(asked.n if asked else 1)

    def checked_place(self, images):
        options, mistakes = self.options, self.mistakes
        self.timeout = arguments.seconds(options.timeout, "--timeout", mistakes)
        self.interval = None
        if options.poll_interval is not None:
            self.interval = arguments.seconds(options.poll_interval, "--poll-interval", mistakes, 3600)
        place = places.resolve(options.out, options.overwrite)
        wrong = places.mistake(place, images)
        mistakes += [wrong] if wrong else []
        self.refuse_mistakes("output_not_writable" if [wrong] == mistakes else "usage")
        return place

    def _prompt(self):
        options = self.options
        given = [text for text in (options.prompt_word, options.prompt, options.prompt_file) if text is not None]
        if len(given) > 1:
            self.mistakes.append("the prompt is given %d times: use one of PROMPT, --prompt, --prompt-file" % len(given))
            return "given"
        if options.prompt_file is None:
            return given[0] if given else ""
        text, wrong = read_text(options.prompt_file)
        if wrong:
            self.mistakes.append("--prompt-file " + wrong)
            return "given"
        return text.strip()

    def refuse_key_in(self, *parts):
        """The key goes into no text: raise `Image2Error` usage where the order itself holds it."""
        text = json.dumps(parts, ensure_ascii=False)
        if any(json.dumps(secret)[1:-1] in text for secret in settings_room.known_secrets()):
            raise Image2Error("usage", "The command or its prompt holds the API key; nothing was sent. Remove it: the key "
                              "is read from %s alone." % settings_room.KEY_NAME)

    def _dry_run(self, asked, place):
        base = settings_room.base_url()
        body = asked.payload(not self.options.sync)
        if asked.images:
            body["image"] = asked.described()["image"]
        stem = place.stem or places.slug(asked.prompt)
        first = places.first_number(place, stem, asked.n)
        files = [places.path_of(place, stem, first + step, place.suffix or ".png") for step in range(asked.n)]
        return answer.plain("dry_run", request={"method": "POST", "url": base + "/api/v1/images/generations",
                                                "body": body}, files=files, **self.stand_in()), OK

    # --- the service --------------------------------------------------------------------------------------------

    def ensure_packages(self):
        from . import packages

        packages.ensure(self.script, sys.argv[1:], self.clock)

    @contextlib.contextmanager
    def service(self, folder):
        """The tools an order works with, against the service or this run's own stand-in."""
        sandbox = None
        if self.options.sandbox:
            self.ensure_packages()
            from .sandbox import KEY, Sandbox

            sandbox = Sandbox().start()
            self.settings = settings_room.for_sandbox(sandbox.base_url, KEY)
        else:
            self.settings = self.read_settings()
            self.ensure_packages()
        try:
            if folder:
                places.make(folder)
            yield self.tools(folder)
        finally:
            if sandbox:
                sandbox.stop()

    def read_settings(self):
        try:
            return settings_room.read()
        except ImportError:  # the key stands in the dotenv file, and reading that needs a package
            self.ensure_packages()
            return settings_room.read()

    def tools(self, folder):
        from .api import Api
        from .order import Tools
        from .progress import Progress
        from .records import Store

        self.api = Api(self.settings, self.clock, self.log if self.options.verbose else None,
                       settings_room.sandbox_name())
        tell = Progress(self.write, self.clock, self.is_terminal, lambda task_id: self.command("wait", task_id))
        return Tools(self.api, self.clock, Store(folder or ""), tell, self.settings.service, self.settings.is_loopback,
                     self.log if self.options.verbose else None, getattr(self, "interval", None))


def references(given, mistakes) -> list:
    """`--image` values -> URLs and data: URIs; what is wrong goes into `mistakes`."""
    from .reference import ReferenceProblem, image_of

    images = []
    for text in given or ():
        try:
            images.append(image_of(text))
        except ReferenceProblem as problem:
            mistakes.append("--image %s" % problem)
    if sum(map(len, images)) > MAX_REFERENCES:
        mistakes.append("the reference files are too large together: %d MB are allowed" % (MAX_REFERENCES * 3 // 4 >> 20))
    return images


def read_text(path: str, most: int = MAX_PROMPT_BYTES) -> tuple:
    """(text of a file or of stdin for `-`, what is wrong or None)."""
    try:
        if path == "-":
            if sys.stdin is None or sys.stdin.isatty():
                return "", "-: stdin is a terminal; pipe the text in"
            raw = sys.stdin.buffer.read(most + 1)
        else:
            with open(os.path.expanduser(path), "rb") as file:
                raw = file.read(most + 1)
        if len(raw) > most:
            return "", "%s: more than %d bytes" % (request.shown(path), most)
        return raw.decode("utf-8-sig"), None
    except OSError as error:
        return "", "%s: %s" % (request.shown(path), error.strerror or error)
    except UnicodeDecodeError:
        return "", "%s: not UTF-8 text" % request.shown(path)
