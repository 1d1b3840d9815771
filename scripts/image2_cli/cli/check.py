"""`check`: is everything ready? Each line says what was found and, where it is not well, what to do. Costs nothing.

The key is tried by asking for a task that cannot exist: 404 means that the service let the question in.
"""

from __future__ import annotations

import platform
import sys

from .. import answer
from ..errors import OK, Image2Error
from ..machine import settings as settings_room
from ..order import output as places

NO_SUCH_TASK = "image2-check-no-such-task"


class Check:
    """The checks of one run, in the order in which a newcomer meets them."""

    def __init__(self, run):
        self.run_, self.options = run, run.options
        self.lines = []
        self.first_error = None

    def run(self):
        """(answer, exit status): 0 where all is ready, else the exit status of the first that is not."""
        self._line("python", None, "%s at %s" % (platform.python_version(), sys.executable))
        self._try("packages", self._packages)
        self._try("key", self._key)
        self._try("folder", self._folder)
        ready = {line["name"] for line in self.lines if line["ok"]}
        if {"packages", "key"} <= ready:
            self._service()
        else:
            self._line("service", "not tried: needs packages and key", "")
        if self.first_error is None:
            return answer.plain("ready", checks=self.lines, **self._stand_in()), OK
        error = self.first_error
        return {**answer.of_error(error), "status": "not_ready", "checks": self.lines, **self._stand_in()}, error.exit_status

    def _try(self, name, probe):
        try:
            self._line(name, None, probe())
        except Image2Error as error:
            self._not_well(name, error)

    def _packages(self):
        self.run_.ensure_packages()
        from importlib.metadata import version

        return ", ".join("%s %s" % (name, version(name)) for name in ("requests", "python-dotenv"))

    def _key(self):
        if self.options.sandbox:
            return "the sandbox's own"
        self.run_.settings = self.run_.read_settings()
        return "from %s" % self.run_.settings.key_source

    def _folder(self):
        place = places.resolve(self.options.out)
        wrong = places.mistake(place, 1)
        if wrong:
            raise Image2Error("output_not_writable", wrong + ". Choose another --out.")
        return place.folder

    def _service(self):
        where = settings_room.base_url() if not self.options.sandbox else "sandbox"
        try:
            with self.run_.service(None):
                where = self.run_.api.where
                self.run_.api.look(NO_SUCH_TASK)
            self._line("service", None, "%s answers" % where)
        except Image2Error as error:
            if error.code == "task_not_found":
                self._line("service", None, "%s answers" % where)
                self._line("key_accepted", None, "404 for a task that does not exist, not 401")
            elif error.code == "key_rejected":
                self._line("service", None, "%s answers" % where)
                error.charged = "no"
                self._not_well("key_accepted", error)
            else:
                error.charged = "no"
                self._not_well("service", error)

    def _not_well(self, name, error):
        self.first_error = self.first_error or error
        self._line(name, error.message, "")

    def _line(self, name, do, detail):
        line = {"name": name, "ok": do is None}
        if detail:
            line["detail"] = detail
        if do:
            line["do"] = do
        self.lines.append(line)

    def _stand_in(self):
        return {"sandbox": True} if self.options.sandbox else {}
