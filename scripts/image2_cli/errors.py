"""The one exception family: what went wrong, what it cost, how the process ends.

A leaf: imports nothing of ours, touches neither network nor disk. `CODES` is the closed set of
`error.code` values; a code that is not in it cannot be raised, and the pages are tested against it.
"""

from __future__ import annotations

OK, INTERNAL, USAGE, REJECTED, AUTH, UNAVAILABLE, FAILED = range(7)
PARTIAL, PENDING, UNKNOWN, NOT_SAVED = range(7, 11)
INTERRUPTED, TERMINATED = 130, 143

# code: (exit status, charged, retryable). `charged` speaks of the order: what may have been paid for
# when nothing more is known. `retryable`: the very same command may succeed later, and is free to try.
CODES = {
    "internal": (INTERNAL, "maybe", False),
    "usage": (USAGE, "no", False),
    "output_not_writable": (USAGE, "no", False),
    "too_many_images": (USAGE, "no", False),
    "missing_dependency": (USAGE, "no", False),
    "rejected": (REJECTED, "no", False),
    "request_too_large": (REJECTED, "no", False),
    "insufficient_credits": (REJECTED, "no", False),
    "task_not_found": (REJECTED, "maybe", False),
    "missing_key": (AUTH, "no", False),
    "malformed_key": (AUTH, "no", False),
    "key_rejected": (AUTH, "no", False),
    "network": (UNAVAILABLE, "no", True),
    "tls": (UNAVAILABLE, "no", False),
    "rate_limited": (UNAVAILABLE, "no", True),
    "unavailable": (UNAVAILABLE, "no", True),
    "task_failed": (FAILED, "maybe", False),
    "some_failed": (PARTIAL, "yes", False),
    "still_running": (PENDING, "yes", True),
    "outcome_unknown": (UNKNOWN, "maybe", False),
    "not_saved": (NOT_SAVED, "yes", True),
    "no_images": (NOT_SAVED, "yes", True),
    "interrupted": (INTERRUPTED, "no", True),
    "terminated": (TERMINATED, "no", True),
}


NO_PICTURE = "The service made no picture of it."


def of_image(code: str, message: str, server_message: str | None = None) -> dict:
    """The `error` of one image among others; the service's words only where they are data."""
    told = {"code": code, "message": message}
    return {**told, "server_message": server_message} if server_message else told


class Image2Error(Exception):
    """Anything that ends a run, or one image of it, otherwise than well.

    `code` is a key of `CODES`. `message` is ours and says what was wrong, what is allowed, what to do.
    `http_status`, `retry_after_s` (seconds) and `server_message` (cleaned text, data) where known.
    `charged` replaces the code's own word where the place that raises knows better. `remedy` is a command that
    mends it, where there is one and no order to go on with.
    """

    def __init__(self, code, message, *, charged=None, http_status=None, retry_after_s=None,
                 server_message=None, remedy=None):
        super().__init__(message)
        self.exit_status, default, self.retryable = CODES[code]
        self.code = code
        self.message = message
        self.charged = charged or default
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.server_message = server_message
        self.remedy = remedy

    def as_json(self) -> dict:
        """The `error` object of the answer; what is not known is left out."""
        known = {"http_status": self.http_status, "retry_after_s": self.retry_after_s,
                 "server_message": self.server_message}
        return {"code": self.code, "message": self.message, "retryable": self.retryable,
                **{name: value for name, value in known.items() if value is not None}}
