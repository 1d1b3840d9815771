"""A service whose tasks take time and that takes so many at once, and no more."""

from __future__ import annotations

import math
import threading
import time

from answers import Answer, Request, completed, ok, pending, refuse


class Tasks:
    """Scripts a `Service`: its tasks take `seconds`, of `at_once` of them; more get a 429. Each answer takes `delay`."""

    def __init__(self, service, seconds: float = 0.2, at_once: float = math.inf, delay: float = 0) -> None:
        self.seconds, self.at_once, self.delay = seconds, at_once, delay
        self.ends: dict[str, float] = {}
        self.most, self._lock = 0, threading.Lock()
        service.on_post(self._post)
        service.on_poll(self._poll)

    def _post(self, request: Request) -> Answer:
        with self._lock:
            now = time.monotonic()
            running = sum(end > now for end in self.ends.values())
            if running >= self.at_once:
                return refuse(429, "too many tasks at once").but(delay=self.delay)
            self.ends[request.task_id] = now + self.delay + self.seconds
            self.most = max(self.most, running + 1)
        return ok().but(delay=self.delay)

    def _poll(self, request: Request) -> Answer:
        is_over = time.monotonic() >= self.ends[request.task_id]
        return (completed() if is_over else pending()).but(delay=self.delay)
