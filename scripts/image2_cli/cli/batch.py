"""The verb `batch` after its file was read: the orders of the lines, the engine that runs them, and the answer.

Prints nothing, and decides nothing about money: that is for `order`.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, Mapping

from ..answer import build
from ..batch.file import BatchFile
from ..batch.summary import Summary
from ..errors import OK, Image2Error
from ..machine import settings
from ..machine.inputs import is_read_once
from ..order.engine import Engine, Plan
from ..order.fields import words
from ..order.order import new_order
from ..order.output import Output, mistake, paths_to_be
from ..order.store import Store
from .arguments import TIMEOUT_S
from .run import End, Run

FEW = 10  # orders that a dry run shows


def run_lines(run: Run, found: BatchFile, output: Output, text: str, defaults: Mapping[str, Any], limit: int,
              plan: Plan) -> End:
    """Order every line that is not ordered yet, and go on with the others."""
    folders = list(dict.fromkeys([output.folder, *(line.output.folder for line in found.lines)]))
    wrong = list(filter(None, (mistake(Output(folder)) for folder in folders)))
    if wrong:
        raise Image2Error("output_not_writable", f"{'; '.join(wrong)}. Nothing was sent.")
    stores = {folder: run.store(folder) for folder in folders}
    file = run.options.file
    if is_read_once(file):
        file = _kept(text, stores[output.folder])
    orders = [new_order(stores[line.output.folder], line.output, line.request, line.stem, line.fingerprint, run.service,
                        line.number) for line in found.lines]
    engine = Engine(orders, lambda: run.tools(is_many=True), plan)
    run.decide(engine, limit)
    run.summary = Summary(engine, output.folder, _again(run, found, file, defaults), lambda folder: run.command(
        "wait", out=folder), lambda: run.is_sandbox, False, found.warnings)
    engine.run()
    return run.summary.end(None)


def dry_run(run: Run, found: BatchFile, limit: int) -> End:
    """What would be sent for the first lines, and how many images there are."""
    first = [{"line": line.number, "files": paths_to_be(line.output, line.stem, line.request.n),
              "body": line.request.described()} for line in found.lines[:FEW]]
    counts = {"total": len(found.lines), "images": sum(line.request.n for line in found.lines)}
    warnings = list(found.warnings)
    if counts["images"] > limit:
        warnings.append(f"{counts['images']} images are more than --max-images {limit}: without --dry-run it would be "
                        "refused, unless enough of them are done.")
    url = f"{settings.base_url()}/api/v1/images/generations"
    return build("dry_run", counts=counts, requests=first, request={"method": "POST", "url": url},
                 sandbox=run.options.sandbox or None, warnings=warnings or None), OK


def _again(run: Run, found: BatchFile, file: str, defaults: Mapping[str, Any]) -> str:
    """The command that runs this batch again from any folder, without a flag that would pay again."""
    options = run.options
    parts = ["batch", os.path.abspath(os.path.expanduser(file)), *words(defaults)]
    for flag, usual in (("max_images", "50"), ("concurrency", "8"), ("timeout", f"{TIMEOUT_S:g}")):
        if getattr(options, flag) not in (usual, None):
            parts += [f"--{flag.replace('_', '-')}", getattr(options, flag)]
    if any(line.is_relative for line in found.lines):  # from elsewhere they would be other orders
        parts += ["--directory", os.getcwd()]
    return run.command(*parts, *(["--overwrite"] if options.overwrite else []))


def _kept(text: str, store: Store) -> str:
    """The path of a copy of what was piped in: `next` needs it again."""
    name = f"batch-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:12]}.txt"
    try:
        return store.keep(name, text)
    except OSError as error:
        raise Image2Error("output_not_writable", f"{store.folder} is not writable ({error.strerror or error}). Nothing was "
                          "sent; choose another --out.") from None
