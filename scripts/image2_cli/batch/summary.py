"""How many orders are told as one: counts, the first failures, and the path of `results.jsonl` with an answer a line.

However many orders there are, the answer stays small. Writes that one file, in one step; prints nothing, knows no key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable, Optional

from ..answer import Answer, build
from ..errors import AUTH, INTERRUPTED, NOT_SAVED, OK, TERMINATED, Image2Error
from ..order.engine import Engine, counts_of, state_of
from ..order.order import Order
from ..order.output import free_name
from ..order.store import write_file
from ..text import clean

RESULTS = "results", ".jsonl", b'{"line": '  # name and ending, and how every file of results begins
FIRST_FAILURES = 3
LONGEST_REASON = 100
FEW_IMAGES = 10


@dataclass
class Summary:
    """The orders of `engine` as one answer. `same_command` runs all this again; `wait(folder)` goes on
    with what was accepted there; `shows_images`: else only paths, and the rest in results.jsonl."""

    engine: Engine
    folder: str
    same_command: str
    wait: Callable[[str], str]
    is_sandbox: Callable[[], bool]
    shows_images: bool
    warnings: list[str]

    @property
    def charged(self) -> str:
        """The surest word of any order: `yes` where one was accepted and has not failed."""
        words = {order.charged for order in self.engine.orders}
        return next((word for word in ("yes", "maybe") if word in words), "no")

    def end(self, error: Optional[Image2Error]) -> tuple[Answer, int]:
        """The answer and the exit status of the whole; writes results.jsonl."""
        orders, is_sandbox = self.engine.orders, self.is_sandbox()
        self.engine.close()
        if error and error.exit_status in (INTERRUPTED, TERMINATED):
            error.message = self._stopped()
        end = error or self._end_of_all()
        full = [{"line": order.line or number, **order.answer(None, is_sandbox)} for number, order in enumerate(orders, 1)]
        images = [{**image, "task_id": one["task_id"]} for one in full for image in one["images"]]
        paths = [image["path"] for image in images if image["path"]]
        failures = [_failure(number, order) for number, order in enumerate(orders, 1) if _went_wrong(order)]
        warnings = [*self.warnings, *_warnings(full)]
        results = None
        try:
            results = free_name(self.folder, *RESULTS)
            write_file(results, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in full))
        except OSError as problem:
            warnings.append(f"{''.join(RESULTS[:2])} could not be written ({problem.strerror or problem}).")
            results = None
        shown = images if self.shows_images and len(images) <= FEW_IMAGES else []
        answer = build(
            end.code if end else "completed", error=end, charged="no" if is_sandbox else self.charged, images=shown,
            next_command=self._next(end), sandbox=is_sandbox or None, counts=counts_of(orders),
            files=paths if paths and not self.shows_images and len(paths) <= FEW_IMAGES else None,
            failures=failures[:FIRST_FAILURES] or None, results=results, warnings=warnings or None)
        return answer, end.exit_status if end else OK

    def _next(self, end: Optional[Image2Error]) -> Optional[str]:
        open_in = [order.output.folder for order in self.engine.orders
                   if state_of(order) == "pending" and order.charged == "yes"]
        if end and end.resumes and (open_in or end.exit_status != AUTH):
            return self.same_command
        return self.wait(open_in[0]) if open_in else None  # no more orders, but what was accepted can be had

    def _end_of_all(self) -> Optional[Image2Error]:
        """The error that stands for all orders."""
        orders, fatal, refusal = self.engine.orders, self.engine.fatal, self.engine.pace.refusal
        counts = counts_of(orders)
        unsaved = sum(order.error is not None and order.error.resumes and order.error.exit_status == NOT_SAVED
                      for order in orders)
        if fatal is not None:
            return fatal
        if counts["pending"] > unsaved:
            if refusal and all(order.charged == "no" for order in orders):
                return refusal
            why = f" ({refusal.code})" if refusal else ""
            return Image2Error("still_running", f"{counts['pending']} of {counts['total']} orders are not finished{why}. "
                               "Run `next`: what is done is not paid again.",
                               retry_after_s=refusal.retry_after_s if refusal else None)
        if unsaved:
            return Image2Error("not_saved", f"{unsaved} orders are paid for but not saved. Run `next`: that is free.")
        if counts["unknown"]:
            return Image2Error("outcome_unknown", f"{counts['unknown']} orders may have been accepted and charged; they "
                               "are not repeated. Tell the user; only they decide on --new.")
        if counts["failed"]:
            codes = {order.error.code for order in orders if order.error}
            code = "task_failed" if len(codes) > 1 else codes.pop()
            code = "some_failed" if counts["completed"] or counts["images"] else code
            hint = "; --retry-failed orders them again, ask the user first" if orders[0].request else ""
            return Image2Error(code, f"{counts['failed']} of {counts['total']} orders failed{hint}.")
        return None

    def _stopped(self) -> str:
        """What an interrupted run leaves behind."""
        counts = counts_of(self.engine.orders)
        away = sum(state_of(order) == "pending" and order.charged == "yes" for order in self.engine.orders)
        unknown = sum(order.charged == "maybe" and state_of(order) in ("pending", "unknown") for order in self.engine.orders)
        text = (f"Stopped: {counts['completed']} of {counts['total']} orders are done, {away} go on at the service, "
                f"{max(0, counts['pending'] + counts['unknown'] - away - unknown)} were not ordered")
        if unknown:
            text += f", {unknown} may have been accepted and are not repeated"
        return f"{text}. Run `next` to go on."


def _went_wrong(order: Order) -> bool:
    """Should somebody be told of this order: no pictures came of it, or not all are saved?"""
    return order.error is not None and (state_of(order) in ("failed", "unknown") or order.error.exit_status == NOT_SAVED)


def _failure(number: int, order: Order) -> dict[str, Any]:
    error = order.error.as_json() if order.error else {}
    reason = "server_message" if error.get("server_message") else "message"
    return {"line": order.line or number, "code": error["code"], reason: clean(error[reason], LONGEST_REASON)}


def _warnings(full: list[dict[str, Any]]) -> list[str]:
    warned = [one for one in full if one.get("warnings") and not one.get("resumed")]
    done = sum(bool(one.get("resumed")) and one["ok"] for one in full)
    texts = [f"{done} of {len(full)} orders were made by earlier runs and are not paid again."] if done else []
    if warned:
        more = f" {len(warned) - 1} more lines have warnings, see results." if len(warned) > 1 else ""
        texts.append(f"Line {warned[0]['line']}: {warned[0]['warnings'][0][:100]}{more}")
    return texts
