"""One exchange in this process against the faulty service, which is asked once and no more: how it ended, as a value."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from endings import ORDER, ended
from faulty import Service
from image2_cli.clock import Clock
from image2_cli.service.api import Api
from running import CANARY


@pytest.fixture
def post() -> Callable[..., Any]:
    """POST one order to `base_url`, or to a service that says these `answers`."""
    def attempt(*answers: Any, base_url: str = "", local: bool = False, seconds: float = 5.0, **api: Any) -> Any:
        if base_url:
            return ended(Api(base_url, CANARY, Clock(), **api).submit, ORDER, "order-1", seconds, local)
        with Service() as service:
            if answers:
                service.on_post(*answers)
            end = ended(Api(service.base_url, CANARY, Clock(), **api).submit, ORDER, "order-1", seconds, local)
            assert ["POST"] == [request.method for request in service.requests], "no redirect is followed"
            return end
    return attempt


@pytest.fixture
def look() -> Callable[..., Any]:
    """Look once at task `task_id`, at a service that says this `answer`."""
    def attempt(answer: Any, task_id: str = "t-1", seconds: float = 5.0, **api: Any) -> Any:
        with Service() as service:
            service.on_poll(answer)
            end = ended(Api(service.base_url, CANARY, Clock(), **api).look, task_id, seconds)
            assert ["GET"] == [request.method for request in service.requests], "no redirect is followed"
            return end
    return attempt
