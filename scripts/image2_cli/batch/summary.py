"""The lines of a batch as they stand: joined to the records of earlier runs, counted, and summed up in one end.

Decides what is done, failed, unknown or still to order; sends nothing, starts no thread.
"""

from __future__ import annotations

from ..errors import NOT_SAVED, OK, Image2Error
from ..order import record as recorded
from ..order import store as records
from ..order.order import Order

# The last words on one order, for good. A task that the service has forgotten stays to be waited for: it may come back.
OVER = {recorded.NOT_SENT: ("rejected", "request_too_large"), recorded.SUBMITTED: ("task_not_found",)}
UNFINISHED, DONE, FAILED, UNKNOWN = "pending", "completed", "failed", "unknown"


class Entry:
    """One line on its way. `state` is what the counts say of it, `error` why it is not completed."""

    def __init__(self, line, order, replaced_s=0.0):
        self.line, self.order = line, order
        self.state, self.error = UNFINISHED, None
        self.watch = None
        self.is_elsewhere = False  # another run is at it, and will say what becomes of it
        self.replaced_s = replaced_s  # when the order was made that this one replaces

    @property
    def to_order(self) -> bool:
        """Nothing of this line was accepted yet."""
        return self.state == UNFINISHED and not self.order.resumed and not self.order.task

    @property
    def went_wrong(self) -> bool:
        """Somebody should be told of this line: no pictures came of it, or not all are saved."""
        return self.state in (FAILED, UNKNOWN) or (self.error is not None and self.error.exit_status == NOT_SAVED)

    def close(self):
        """The run is over: say why this line is not completed."""
        order = self.order
        if self.state == UNKNOWN or (self.state == UNFINISHED and order.charged == "maybe" and not self.is_elsewhere):
            self.state, self.error = UNKNOWN, Image2Error("outcome_unknown", "It may have been accepted and charged.")
        elif self.state == UNFINISHED and self.error is None:
            self.error = Image2Error("still_running", "It is not ordered yet." if self.to_order else
                                     "The task is still running.", charged=order.charged)


def prepare(lines, tools_of, again: bool, unknown_again: bool) -> list:
    """Lines -> entries, each joined to the record of an earlier run where there is one.

    `tools_of(place)` gives the tools for a place. `again`: failed lines are to be ordered again,
    `unknown_again`: those of unknown fate too.
    """
    # The locks come first: what another run orders before it ends must be in the records that are read then.
    found = [(line, tools, tools.store.lock(line.mark, records.OWNER)) for line in lines for tools in [tools_of(line.place)]]
    known = {store: _newest(tools) for store, tools in {tools.store: tools for _line, tools, _is_ours in found}.items()}
    return [_joined(line, tools, known[tools.store].get(line.mark), is_ours, again, unknown_again)
            for line, tools, is_ours in found]


def _newest(tools) -> dict:
    """The last record of each mark. Those of one second have no order among their file names."""
    return {record["fingerprint"]: record for record in sorted(tools.store.all(), key=lambda one: one["created_s"] or 0)
            if record["service"] == tools.service}


def _joined(line, tools, record, is_ours, again, unknown_again) -> Entry:
    entry = Entry(line, Order(tools, line.place))
    order = entry.order
    if record is not None:
        order.record, order.images = record, record.images
    if not is_ours and not _is_done(order):
        entry.is_elsewhere = True
        entry.error = Image2Error("still_running", "Another run is at this line.", charged=order.charged)
        return entry
    if record is None:
        return entry
    failed = _failure_of(record)
    is_unknown = record["state"] in (recorded.SENDING, recorded.UNKNOWN)
    is_wanted_again = unknown_again if is_unknown else again and failed
    if is_wanted_again:
        return Entry(line, Order(tools, line.place), record["created_s"] or 0.0)
    if is_unknown:
        entry.state = UNKNOWN
    elif failed and record["state"] != recorded.SUBMITTED:
        entry.state, entry.error = FAILED, failed
    elif record["state"] in (recorded.SUBMITTED, recorded.FINISHED):
        order.resumed = True
        if _is_done(order):
            entry.state = DONE
    return entry


def _is_done(order) -> bool:
    return (order.record or {}).get("state") == recorded.FINISHED and not _failure_of(order.record) and order.is_saved


def _failure_of(record):
    """The error of an order that is over without all its pictures, None of any other."""
    error = record["error"] if isinstance(record.get("error"), dict) else {}
    if error.get("code") in OVER.get(record["state"], ()):
        return Image2Error(error["code"], str(error.get("message")), http_status=error.get("http_status"),
                           server_message=error.get("server_message"))
    if record["state"] != recorded.FINISHED:
        return None
    asked = record["request"].get("n")
    failed = [image["error"] for image in record.images if image.get("error")]
    short = max(asked - len(record.images), 0) if isinstance(asked, int) else 0
    if not error and not failed and not short:
        return None
    said = [one.get("server_message") or one.get("message") for one in [error, *failed]]
    reason = str(next(filter(None, said), "")) or None
    if any(image.get("path") for image in record.images):
        return Image2Error("some_failed", "%d images did not come in an earlier run." % (len(failed) + short),
                           server_message=reason)
    return Image2Error("task_failed", "The task failed in an earlier run.", server_message=reason)


def counts_of(entries) -> dict:
    """How many lines stand where, and how many pictures are there."""
    states = [entry.state for entry in entries]
    images = sum(bool(image.get("path")) for entry in entries for image in entry.order.images)
    return {"total": len(states), **{state: states.count(state) for state in (DONE, FAILED, UNFINISHED, UNKNOWN)},
            "images": images}


def end_of(entries, fatal, refusal) -> tuple:
    """(the error that stands for all entries or None, exit status).

    `fatal` stopped all further orders; `refusal` is what the service last said to one that it did not take yet.
    """
    counts = counts_of(entries)
    unsaved = [entry for entry in entries if entry.error is not None and entry.error.exit_status == NOT_SAVED]
    if fatal is not None:
        return fatal, fatal.exit_status
    if counts[UNFINISHED] > len(unsaved):
        if refusal and all(entry.order.charged == "no" for entry in entries):
            return refusal, refusal.exit_status
        elsewhere = sum(entry.is_elsewhere for entry in entries)
        why = " (%s)" % refusal.code if refusal else " (another run is at %d of them)" % elsewhere if elsewhere else ""
        error = Image2Error("still_running", "%d of %d orders are not finished%s. Run `next`: what is done is not paid "
                            "again." % (counts[UNFINISHED], counts["total"], why),
                            retry_after_s=refusal and refusal.retry_after_s)
    elif unsaved:
        error = Image2Error("not_saved", "%d orders are paid for but not saved. Run `next`: saving again is free."
                            % len(unsaved))
    elif counts[UNKNOWN]:
        error = Image2Error("outcome_unknown", "%d orders may have been accepted and charged; they are not repeated. Tell "
                            "the user; only they decide on --new." % counts[UNKNOWN])
    elif counts[FAILED]:
        codes = {entry.error.code for entry in entries if entry.state == FAILED}
        code = "some_failed" if counts[DONE] or counts["images"] else codes.pop() if len(codes) == 1 else "task_failed"
        error = Image2Error(code, "%d of %d orders failed%s." % (counts[FAILED], counts["total"], (
            "; --retry-failed orders them again, ask the user first" if entries[0].line.request else "")))
    else:
        return None, OK
    return error, error.exit_status
