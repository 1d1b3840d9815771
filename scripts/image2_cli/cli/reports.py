"""`check`: is everything ready? And `status`: how does a task stand, or what was ordered here, and did it come? All free.

`check` tries the key by asking for a task that cannot exist: 404 means that the service let the question in. `status`
looks once at the service, or without an id reads the records alone, offline.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Any, Callable, Optional

from ..answer import build, of_error
from ..errors import OK, Image2Error
from ..machine import settings
from ..order.output import mistake, resolve
from ..order.record import ACCEPTED, FAILED, SENDING, UNKNOWN, Record, end_of, moment
from ..order.saving import is_unchanged
from ..order.store import Store
from ..service.task import is_task_id
from ..text import clean, shown
from .arguments import TIMEOUT_S
from .run import End, Run

NO_SUCH_TASK = "image2-check-no-such-task"
MOST = 10
MAX_PROMPT = 80  # characters
WORDS = {"not_sent": "not_ordered", "sending": "unknown", "linked": "completed", "saved": "completed"}


class Check:
    """The checks of one run, in the order in which a newcomer meets them. `seconds`: how long the service may take."""

    def __init__(self, run: Run, seconds: float) -> None:
        self._run, self._seconds = run, seconds
        self._lines: list[dict[str, Any]] = []
        self._first_error: Optional[Image2Error] = None

    def run(self) -> End:
        """0 where all is ready, else the exit status of the first that is not."""
        self._line("python", None, f"{platform.python_version()} at {sys.executable}")
        self._try("packages", self._packages)
        self._try("key", self._key)
        self._try("folder", self._folder)
        if all(line["ok"] for line in self._lines if line["name"] in ("packages", "key")):
            self._service()
        else:
            self._line("service", "not tried: needs packages and key", "")
        stand_in = self._run.options.sandbox or None
        error = self._first_error
        if error is None:
            return build("ready", checks=self._lines, sandbox=stand_in), OK
        return {**of_error(error, checks=self._lines, sandbox=stand_in), "status": "not_ready"}, error.exit_status

    def _try(self, name: str, probe: Callable[[], str]) -> None:
        try:
            self._line(name, None, probe())
        except Image2Error as error:
            self._not_well(name, error)

    def _packages(self) -> str:
        self._run.ensure_packages()
        from importlib.metadata import version

        return ", ".join(f"{name} {version(name)}" for name in ("requests", "python-dotenv"))

    def _key(self) -> str:
        return "the sandbox's own" if self._run.options.sandbox else f"from {self._run.read_settings().key_source}"

    def _folder(self) -> str:
        output = resolve(self._run.options.out)
        wrong = mistake(output)
        if wrong:
            raise Image2Error("output_not_writable", f"{wrong}. Choose another --out.")
        return output.folder

    def _service(self) -> None:
        where = "sandbox" if self._run.options.sandbox else settings.base_url()
        try:
            api = self._run.api()
            where = api.where
            api.look(NO_SUCH_TASK, self._seconds)
            self._line("service", None, f"{where} answers")
        except Image2Error as error:
            error.charged = "no"
            if error.code in ("task_not_found", "key_rejected"):
                self._line("service", None, f"{where} answers")
            if error.code == "task_not_found":
                self._line("key_accepted", None, "404 for a task that does not exist, not 401")
            else:
                self._not_well("key_accepted" if error.code == "key_rejected" else "service", error)

    def _not_well(self, name: str, error: Image2Error) -> None:
        self._first_error = self._first_error or error
        self._line(name, error.message, "")

    def _line(self, name: str, todo: Optional[str], detail: str) -> None:
        line: dict[str, Any] = {"name": name, "ok": todo is None}
        line.update({"detail": detail} if detail else {}, **({"do": todo} if todo else {}))
        self._lines.append(line)


def look_at(run: Run, task_id: str) -> End:
    """One look at a task, and at its files."""
    if not is_task_id(task_id):
        run.mistakes.append(f"{shown(task_id)} is no task id")
    seconds = run.seconds("timeout", TIMEOUT_S)
    run.refuse_mistakes()
    run.order = order = run.orders_of([task_id], resolve(run.options.out))[0]
    order.is_resumed = False
    try:
        order.task = task = run.api().look(task_id, min(30.0, seconds))
    except Image2Error as error:
        if error.code == "task_not_found" and not order.record.accepted_s:
            order.record.state = UNKNOWN  # only named, and not there
        raise
    if task.outcome(0) == "failed":
        order.record.state, order.record.server_message = FAILED, task.reason or task.status
        order.error = end_of(order.record)
    elif order.record.state == FAILED:
        order.record.state = ACCEPTED  # it was given up too early: `wait` has its pictures
    for image in order.record.images:
        if not is_unchanged(image, order.output.folder):  # a file of the user's is not told as the picture
            image.file = image.width = image.height = image.bytes = None
    on_disk = {image.index for image in order.record.images if image.file}
    can_be_had = any(image.is_there and image.index not in on_disk for image in task.images)
    return run.end(goes_on=can_be_had or task.outcome(0) == "running")


def list_orders(run: Run) -> End:
    """The orders of the output folder, or of this folder, `image2-output` and the folders just below."""
    run.refuse_mistakes()
    stores = [Store(folder) for folder in run.folders()]
    counts: dict[str, int] = {}
    found: list[tuple[Record, str]] = []
    for store in stores:
        found += [(record, store.folder) for record in store.recent(MOST)]
        for state, count in store.states().items():
            word = WORDS.get(state, state)
            counts[word] = counts.get(word, 0) + count
    found.sort(key=lambda each: (each[0].state in (ACCEPTED, SENDING, UNKNOWN), each[0].sent_s or each[0].created_s),
               reverse=True)
    orders = [_listed(record, folder) for record, folder in found[:MOST]]
    ours = {"sandbox", _service_of(run)}  # of another service `wait` would find nothing to finish
    unfinished = [(record.service, folder) for record, folder in found
                  if record.state == ACCEPTED and record.service in ours]
    command = None
    if unfinished:
        service, folder = unfinished[0]
        run.options.sandbox = service == "sandbox"  # each goes on where it was ordered
        command = run.command("wait", out=folder)
    return build("listed" if orders else "nothing_ordered", next_command=command, counts={
        "total": sum(counts.values()), **counts}, orders=orders,
        charged="yes" if any(service != "sandbox" for service, _folder in unfinished) else "no"), OK


def _service_of(run: Run) -> Optional[str]:
    try:
        return run.service
    except Image2Error:  # an address that is wrong: the records can be read all the same
        return None


def _listed(record: Record, folder: str) -> dict[str, Any]:
    """One order as an answer lists it."""
    there = [os.path.join(folder, image.file) for image in record.images if image.file and is_unchanged(image, folder)]
    gone = sum(bool(image.file) for image in record.images) - len(there)
    extra = {"files_gone": gone, "server_message": record.server_message}
    return {"prompt": clean(record.prompt, MAX_PROMPT), "state": WORDS.get(record.state, record.state),
            "task_id": record.task_id, "ordered": moment(record.sent_s or record.created_s), "paths": there,
            **{name: value for name, value in extra.items() if value}}
