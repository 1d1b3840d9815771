"""One run of the command: what it was told, what it works with, and the answer it ends in.

Every verb gets one. Opens the service (or this run's own stand-in), makes `next` commands, refuses mistakes before
anything is sent; prints nothing. What is slow to load is imported where it is first used: `--help`, a usage error and a
missing key answer in about the time of an empty Python.
"""

from __future__ import annotations

import contextlib
import json
import sys

from .. import answer
from ..errors import OK, Image2Error
from ..machine import settings as settings_room
from ..order import output as places
from . import arguments


class Run:
    """One run of the command. `order` is the order it is at, so that an interrupted run can say what it knows."""

    def __init__(self, options, mistakes, clock, script, write, is_terminal):
        self.options, self.mistakes, self.clock = options, mistakes, clock
        self.script, self.write, self.is_terminal = script, write, is_terminal
        self.order = None
        self.many = None  # the orders of a batch, likewise
        self.settings = None
        self.api = None
        self.serving = None  # the sandbox that goes on when the answer is given
        self.folder = None  # of the output, once it is checked
        self.started = clock.now()

    # --- what is checked before anything is sent

    def refuse_mistakes(self, code="usage"):
        """Raise one `Image2Error` that names all mistakes found so far, if there are any."""
        if self.mistakes:
            raise Image2Error(code, "%s. Nothing was sent; see `image2.py %s --help`." % (
                "; ".join(self.mistakes), self.options.verb))

    def refuse_key_in(self, *parts):
        """The key goes into no text: raise `Image2Error` usage where the order itself holds it."""
        text = json.dumps(parts, ensure_ascii=False)
        if any(json.dumps(secret)[1:-1] in text for secret in settings_room.known_secrets()):
            raise Image2Error("usage", "The command or its prompt holds the API key; nothing was sent. Remove it: the key "
                              "is read from %s alone." % settings_room.KEY_NAME)

    def checked_place(self, images):
        """The output place and the times of the command; raises what is wrong with all of it."""
        options, mistakes = self.options, self.mistakes
        self.timeout = arguments.seconds(options.timeout, "--timeout", mistakes)
        self.interval = None
        if options.poll_interval is not None:
            self.interval = arguments.seconds(options.poll_interval, "--poll-interval", mistakes, 3600)
        place = places.resolve(options.out, options.overwrite)
        wrong = places.mistake(place, images)
        mistakes += [wrong] if wrong else []
        self.refuse_mistakes("output_not_writable" if [wrong] == mistakes else "usage")
        self.folder = place.folder
        return place

    # --- the service

    def ensure_packages(self):
        """Find or make the two packages; may start another process in place of this one."""
        from ..machine import packages

        packages.ensure(self.script, sys.argv[1:], self.clock)

    @contextlib.contextmanager
    def service(self, folder):
        """The tools an order works with, against the service or this run's own stand-in."""
        sandbox = None
        if self.options.sandbox:
            self.ensure_packages()
            from ..sandbox.server import KEY, Sandbox

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
        """The key and the base URL. Raises `Image2Error`."""
        try:
            return settings_room.read()
        except ImportError:  # the key stands in the dotenv file, and reading that needs a package
            self.ensure_packages()
            return settings_room.read()

    def tools(self, folder):
        """The tools of an order whose records are in `folder`, None where there are none."""
        from ..order.order import Tools
        from ..order.store import Store
        from ..service.api import Api
        from .progress import Progress

        self.api = Api(self.settings, self.clock, self.log if self.options.verbose else None,
                       settings_room.host_sandbox())
        tell = Progress(self.write, self.clock, self.is_terminal, lambda task_id: self.command("wait", task_id))
        return Tools(self.api, self.clock, Store(folder or ""), tell, self.settings.service, self.settings.is_loopback,
                     self.log if self.options.verbose else None, getattr(self, "interval", None))

    # --- how a run ends

    def failed(self, error: Image2Error):
        """(answer, exit status) of a run that ended in `error`, with all that is known of its order."""
        sandbox = settings_room.host_sandbox()
        if sandbox and error.code == "output_not_writable":
            error.message += " %s's sandbox may forbid it: choose a folder it lets you write, or ask the user." % (
                sandbox[0])
        if self.many:
            return self.many.summary(error)
        order = self.order
        if order is None or not (order.record or order.task_id):
            return {**answer.of_error(error), **self.stand_in()}, error.exit_status
        if error.code == "task_not_found" and order.record:
            error.message += " Only `generate` or `batch` with --new orders again, and costs again: ask the user."
        go_on = order.charged == "yes" and error.exit_status in (1, 4, 5, 8, 10, 130, 143)
        return self.answer(error, go_on=go_on)

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
            from ..service.task import clean

            self.write("image2: http: %s\n" % clean(line, 4000))  # addresses and headers are the service's words too

    def answer(self, error=None, status=None, go_on=False):
        """(answer, exit status) of the one order; `go_on`: with the command that continues it."""
        order = self.order
        command = None
        if go_on:
            command = self.command("wait", *([order.task_id] if order.task_id else []))
        stand_in = self.api.is_stand_in if self.api else bool(getattr(self.options, "sandbox", False))
        return answer.of_order(order, error, status, command, stand_in), error.exit_status if error else OK

    def stand_in(self) -> dict:
        """What the answers of a `--sandbox` run say of it."""
        return {"sandbox": True} if getattr(self.options, "sandbox", False) else {}

    def command(self, verb, *words, out=None):
        """A command that goes on from any folder; with the output folder `out` where that is not the run's own."""
        from ..machine import packages

        flags = ["--out", out or (self.order.place.folder if self.order else self.folder)]
        flags += ["--sandbox"] if self.options.sandbox else []
        if any(word.startswith("-") for word in words) and verb == "wait":
            words = ["--", *words]  # one task id in 64 may begin like a flag
            return answer.shell([*packages.launcher(), self.script, verb, *flags, *words])
        return answer.shell([*packages.launcher(), self.script, verb, *words, *flags])
