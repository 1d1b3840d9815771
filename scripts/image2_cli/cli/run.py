"""One run of the command: what it was given, the service it works with, and how it ends in an answer.

Every verb gets one. Refuses mistakes before anything is sent; prints nothing. What is slow to load is imported where it is
first used: `--help`, a usage error and a missing key answer in about the time of an empty Python.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from typing import TYPE_CHECKING, Any, Callable, Optional

from ..answer import Answer, of_error
from ..clock import Clock
from ..errors import OK, Image2Error
from ..machine import settings
from ..order.output import Output, make, resolve, room_mistake
from ..text import shell, shown
from .arguments import TIMEOUT_S, seconds

if TYPE_CHECKING:
    from ..batch.summary import Summary
    from ..order.engine import Engine, Plan
    from ..order.order import Order, Tools
    from ..order.store import Store
    from ..sandbox.server import Sandbox
    from ..service.api import Api
    from .progress import Progress

MAX_FOLDERS = 200  # in which `status` and `wait` look for an order
End = tuple[Answer, int]  # the answer and the exit status


class Run:
    """See above. `order` is the one it is at, `summary` tells of many, so that an interrupted run can say what it knows."""

    def __init__(self, options: argparse.Namespace, mistakes: list[str], clock: Clock, script: str,
                 write: Callable[[str], None], is_terminal: bool) -> None:
        self.options, self.mistakes, self.clock = options, mistakes, clock
        self.script, self.write, self.is_terminal = script, write, is_terminal
        self.order: Optional[Order] = None
        self.summary: Optional[Summary] = None
        self.same_command: Optional[str] = None  # the same command, where `next` may be that
        self.serving: Optional[Sandbox] = None  # the sandbox that goes on when the answer is given
        self.started = clock.now()
        self._sandbox: Optional[Sandbox] = None
        self._progress: Optional[Progress] = None
        self._api: Optional[Api] = None

    # --- what is checked before anything is sent

    def refuse_mistakes(self, code: str = "usage") -> None:
        """Raise one `Image2Error` that names all mistakes found so far, if there are any."""
        if self.mistakes:
            raise Image2Error(code, f"{'; '.join(self.mistakes)}. Nothing was sent; see `image2.py {self.options.verb} "
                              "--help`.")

    def refuse_key_in(self, *parts: object) -> None:
        """The key goes into no text: raise `Image2Error` usage where the order itself holds it."""
        text = json.dumps(parts, ensure_ascii=False, default=str)
        if any(json.dumps(secret)[1:-1] in text for secret in settings.known_secrets()):
            raise Image2Error("usage", "The command or its prompt holds the API key; nothing was sent. Remove it: the key "
                              f"is read from {settings.KEY_NAME} alone.")

    def seconds(self, flag: str, default: float = 0.0) -> float:
        """A flag's seconds; what is wrong with it is a mistake of the command."""
        given = getattr(self.options, flag, None)
        try:
            return default if given is None else seconds(given, f"--{flag.replace('_', '-')}")
        except ValueError as error:
            self.mistakes.append(str(error))
            return default

    # --- orders

    def plan(self, **wishes: Any) -> Plan:
        """What the command wants of its orders."""
        from ..order.engine import Plan

        return Plan(self.started + self.seconds("timeout", TIMEOUT_S), **wishes)

    def store(self, folder: str) -> Store:
        """The records of a folder that orders are about to be written to. Raises `Image2Error`."""
        from ..order.store import Store

        if os.name == "nt":  # there a successor with the packages is a child, which would wait for the locks of this one
            self.ensure_packages()
        make(folder)
        store = Store(folder)
        wrong = store.problem()
        if wrong:
            raise Image2Error("output_not_writable", f"Records cannot be kept in {shown(folder, 200)}: {wrong}. Nothing was "
                              "sent; remove what is in the way, or choose another --out.")
        return store

    def decide(self, engine: Engine, limit: Optional[int]) -> None:
        """Decide what each order needs, then guard what would be ordered anew; what is paid for is never in the way."""
        engine.decide()
        wanted: dict[str, int] = {}
        for order in engine.to_send:
            wanted[order.output.folder] = wanted.get(order.output.folder, 0) + order.record.wanted
        if limit is not None and sum(wanted.values()) > limit:
            raise Image2Error("too_many_images", f"This batch would order {sum(wanted.values())} images, more than "
                              f"--max-images {limit}. Nothing was sent. Raise it if the user agrees to the cost.")
        wrong = list(filter(None, (room_mistake(folder, images) for folder, images in wanted.items())))
        if wrong:
            raise Image2Error("output_not_writable", f"{'; '.join(wrong)}. Nothing was sent.")

    def folders(self) -> list[str]:
        """Where orders may be recorded: the output folder, or without --out this folder, the usual one, those just below."""
        output = resolve(self.options.out).folder
        if self.options.out:
            return [output]
        here = os.getcwd()
        try:
            with os.scandir(here) as entries:
                below = sorted(entry.path for entry in entries if entry.is_dir())
        except OSError as error:
            raise Image2Error("usage", f"The working folder cannot be listed ({error.strerror or error}). Name the folder "
                              "of the orders with --out.") from None
        return list(dict.fromkeys([here, output, *below[:MAX_FOLDERS]]))

    def orders_of(self, ids: list[str], output: Output) -> list[Order]:
        """The orders of these tasks, each in the folder where it is recorded, if that can be written; of others nothing
        but the task is known."""
        from ..order.order import Order, order_of_task
        from ..order.store import Store

        stores = {folder: Store(folder) for folder in self.folders()}
        orders = []
        for task_id in ids:
            order = order_of_task(stores[output.folder], output, task_id, self.service)
            for store in stores.values():
                record = store.of_task(task_id, self.service)
                if record and (self.options.verb == "status" or os.access(store.folder, os.W_OK | os.X_OK)):
                    order = Order(store, output._replace(folder=store.folder), record)
                    break
            orders.append(order)
        return orders

    # --- the service

    @functools.cached_property
    def service(self) -> str:
        """The name of the service in records: a stand-in's port changes, its tasks live on."""
        if self.options.sandbox:
            return "sandbox"
        base_url = settings.base_url()
        self.refuse_key_in(base_url)  # it goes into records
        return base_url

    @property
    def is_sandbox(self) -> bool:
        """Was all this asked of a stand-in, this run's own or another on this machine?"""
        return bool(self.options.sandbox) or bool(self._api and self._api.is_stand_in)

    def ensure_packages(self) -> None:
        """Find or make the two packages; may start another process in place of this one."""
        from ..machine.packages import ensure

        ensure(self.script, sys.argv[1:], self.clock, self.write)

    def api(self) -> Api:
        """The service, or this run's own stand-in. Raises `Image2Error`."""
        if self._api is None:
            found = None if self.options.sandbox else self.read_settings()
            self.ensure_packages()
            found = found or self._own_sandbox()
            from ..service.api import Api

            self._api = Api(found.base_url, found.key, self.clock, self.log if self.options.verbose else None,
                            settings.host_sandbox())
            self.base_url = found.base_url
        return self._api

    def tools(self, is_many: bool = False) -> Tools:
        """What orders work with. Raises `Image2Error`."""
        api = self.api()
        from ..order.order import Tools
        from .progress import Progress

        self._progress = Progress(self.write, self.clock, self.is_terminal, lambda task_id: self.command("wait", task_id),
                                  is_many)
        return Tools(api, self.clock, self._progress, self.base_url, self.log if self.options.verbose else None,
                     self.seconds("poll_interval") or None)

    def read_settings(self) -> settings.Settings:
        """The key and whom to ask. Raises `Image2Error`."""
        try:
            return settings.read()
        except ImportError:  # the key stands in .env, and reading that needs a package
            self.ensure_packages()
            return settings.read()

    def _own_sandbox(self) -> settings.Settings:
        from ..sandbox.server import KEY, Sandbox

        try:
            self._sandbox = Sandbox().start()
        except OSError as error:
            raise cannot_listen(error) from None
        return settings.for_sandbox(self._sandbox.base_url, KEY)

    def close(self) -> None:
        """Stop this run's own stand-in, and leave a clean line for the answer."""
        if self._sandbox:
            self._sandbox.stop()
        if self._progress:
            self._progress.clear()

    # --- how a run ends

    def command(self, *words: str, out: Optional[str] = None, directory: Optional[str] = None) -> str:
        """A `next`: this script with these words, in the same output place and against the same service."""
        from ..machine.packages import launcher

        out = out if out is not None else self.out
        place = ["--out", out] if out else ["--directory", directory] if directory else []
        stand_in = ["--sandbox"] if self.options.sandbox else []
        if words[0] == "wait" and any(word.startswith("-") for word in words):  # a task's id may look like a flag
            return shell([*launcher(), self.script, "wait", *place, *stand_in, "--", *words[1:]])
        return shell([*launcher(), self.script, *words, *place, *stand_in])

    @property
    def out(self) -> Optional[str]:
        """The output place as a path that is right in any folder."""
        usual = "image2-output" if self.options.verb in ("generate", "batch", "wait") else None
        given = self.options.out or usual
        return resolve(given).named if given else None

    @property
    def accepted(self) -> str:
        """Were orders of this run accepted by now: yes, maybe or no? Also by a stand-in, which charges nothing."""
        return self.summary.charged if self.summary else self.order.charged if self.order else "no"

    @property
    def charged(self) -> str:
        """What the orders of this run may have cost by now."""
        return "no" if self.is_sandbox else self.accepted

    def failed(self, error: Image2Error) -> End:
        """The answer of a run that ended in `error`, with all that is known of its orders."""
        host = settings.host_sandbox()
        if host and error.code == "output_not_writable":
            error.message += f" {host.name}'s sandbox may forbid it: choose a folder it lets you write, or ask the user."
        if self.summary:
            return self.summary.end(error)
        if self.order is None:
            return of_error(error, sandbox=self.options.sandbox or None), error.exit_status
        self.order.error = error
        return self.end()

    def end(self, status: Optional[str] = None, goes_on: bool = False) -> End:
        """The answer about the one order, with the command that continues it where that helps."""
        order = self.order
        if order is None:
            raise ValueError("there is no order to answer for")
        error, record = order.error, order.record
        command = error.remedy if error else None
        if goes_on or (error and error.resumes):
            if order.charged == "yes":
                command = self.command("wait", *filter(None, [record.task_id]), out=order.output.named)
            elif error and error.code == "still_running":
                command = self.same_command
        return order.answer(command, self.is_sandbox, status), error.exit_status if error else OK

    def log(self, line: str) -> None:
        """A line for people who look for a fault."""
        if self.options.verbose:
            from ..text import clean

            self.write(f"image2: http: {clean(line, 4000)}\n")  # addresses and headers are the service's words too


def cannot_listen(error: OSError, port: str = "") -> Image2Error:
    """The error of a stand-in that gets no port. A sandbox of the host that denies sockets denies loopback too."""
    import errno

    host = settings.host_sandbox()
    if error.errno in (errno.EPERM, errno.EACCES) and not (port and 0 < int(port) < 1024):
        name, opens = host or ("a sandbox on this machine", "ask the user")
        return Image2Error("network", f"{name[:1].upper()}{name[1:]} forbids this command network connections, also to this "
                           f"machine itself; nothing was sent. To allow them: {opens}.")
    where = f"Port {port} of 127.0.0.1" if port and port != "0" else "127.0.0.1"
    return Image2Error("usage", f"{where} cannot be used ({error.strerror or error}). Choose another --port.")
