"""The one exception family: what went wrong, how the process ends, what may be tried again.

A leaf: imports nothing of ours, touches neither network nor disk. `CODES` is the closed set of `error.code` values; a
code that is not in it cannot be raised, and the pages are tested against it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

OK, INTERNAL, USAGE, REJECTED, AUTH, UNAVAILABLE, FAILED = range(7)
PARTIAL, PENDING, UNKNOWN, NOT_SAVED = range(7, 11)
INTERRUPTED, TERMINATED = 130, 143


class Code(NamedTuple):
    """What a code means. `charged`: what an order that ended so may have cost, where nothing else is known of it.
    `retryable`: the very same command may succeed later and is free to try. `resumes`: `next` goes on for nothing."""

    exit_status: int
    charged: str
    retryable: bool
    resumes: bool = False


CODES = {
    "internal": Code(INTERNAL, "maybe", False, True),
    "usage": Code(USAGE, "no", False),
    "output_not_writable": Code(USAGE, "no", False),
    "too_many_images": Code(USAGE, "no", False),
    "missing_dependency": Code(USAGE, "no", False),
    "rejected": Code(REJECTED, "no", False),
    "request_too_large": Code(REJECTED, "no", False),
    "insufficient_credits": Code(REJECTED, "no", False),
    "task_not_found": Code(REJECTED, "maybe", False),
    "missing_key": Code(AUTH, "no", False, True),
    "malformed_key": Code(AUTH, "no", False, True),
    "key_rejected": Code(AUTH, "no", False, True),
    "network": Code(UNAVAILABLE, "no", True, True),
    "tls": Code(UNAVAILABLE, "no", False, True),
    "rate_limited": Code(UNAVAILABLE, "no", True, True),
    "unavailable": Code(UNAVAILABLE, "no", True, True),
    "task_failed": Code(FAILED, "maybe", False),
    "some_failed": Code(PARTIAL, "yes", False),
    "still_running": Code(PENDING, "yes", True, True),
    "outcome_unknown": Code(UNKNOWN, "maybe", False),
    "not_saved": Code(NOT_SAVED, "yes", True, True),
    "no_images": Code(NOT_SAVED, "yes", True, True),
    "damaged": Code(NOT_SAVED, "yes", False),
    "interrupted": Code(INTERRUPTED, "no", True, True),
    "terminated": Code(TERMINATED, "no", True, True),
}


class HostSandbox(NamedTuple):
    """The sandbox of the host that this process runs in: its name, and what opens the network there."""

    name: str
    opens: str


class Image2Error(Exception):
    """Anything that ends a run, or one image of it, otherwise than well.

    `message` is ours and says what was wrong, what is allowed, what to do. `charged` replaces the code's own word where
    the place that raises knows better. `may_resend`: a POST ended so, was provably not accepted, and may go out again by
    itself; nothing else decides that. `server_message` is cleaned text of the service, data. `remedy` is a command that
    mends it, where there is no order to go on with.
    """

    def __init__(self, code: str, message: str, *, charged: Optional[str] = None, may_resend: bool = False,
                 http_status: Optional[int] = None, retry_after_s: Optional[float] = None,
                 server_message: Optional[str] = None, remedy: Optional[str] = None) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.exit_status, usual_charge, self.retryable, self.resumes = CODES[code]
        self.charged = charged or usual_charge
        self.may_resend, self.server_message, self.remedy = may_resend, server_message, remedy
        self.http_status, self.retry_after_s = http_status, retry_after_s

    def as_json(self) -> dict[str, Any]:
        """The `error` object of the answer; what is not known is left out."""
        known = {"http_status": self.http_status, "retry_after_s": self.retry_after_s,
                 "server_message": self.server_message}
        return {"code": self.code, "message": self.message, "retryable": self.retryable,
                **{name: value for name, value in known.items() if value is not None}}
