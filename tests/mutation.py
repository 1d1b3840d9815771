"""Breaks the deciding rooms in every small way and counts which breaks the tests notice; not part of the test run.

    .venv/bin/python tests/mutation.py                          # all rooms: about an hour
    .venv/bin/python tests/mutation.py service/task order/pace  # some

Works on a copy in mutants/, never on the files themselves. Prints, a room, the share that was noticed and every
break that was not; tests/mutation.md says why those are left. Installs cosmic-ray into the environment it runs in.

Left out, because they say nothing: a comparison or an arithmetic sign replaced by all its cousins (one opposite
each is enough), `|` in annotations, and property tests (hypothesis): what only chance finds is not held.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "mutants"
ROOMS = {
    "errors": ["test_errors.py"],
    "service/task": ["test_task.py"],
    "order/fields": ["test_request.py"],
    "order/polling": ["test_waiting.py"],
    "service/acceptance": ["test_verdict.py"],
    "pictures/download": ["test_download.py"],
    "order/record": ["test_recorded.py"],
    "order/store": ["test_records.py"],
    "order/pace": ["test_pace.py"],
}
KEPT = {"Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "Mod_Add", "Pow_Mul", "FloorDiv_Mul", "LShift_RShift",
        "RShift_LShift", "Is_IsNot", "IsNot_Is"}
CONFIG = """
[cosmic-ray]
module-path = "scripts/image2_cli/{room}.py"
timeout = 60.0
excluded-modules = []
test-command = '''{python} -m pytest -x -q -p no:xdist -m "not hypothesis" {tests}'''
[cosmic-ray.distributor]
name = "local"
"""


def says_something(operator: str) -> bool:
    """Keep this kind of break? See the top of this file."""
    kind, _, change = operator.partition("Operator_")
    if kind == "core/ReplaceBinary":
        return change in KEPT
    if kind == "core/ReplaceComparison":
        return change in KEPT or not re.search("Is", change)
    return True


def cosmic_ray(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "cosmic_ray.cli", *map(str, arguments)], check=True,
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, **options)


def try_room(room: str) -> tuple:
    """(breaks noticed, all breaks, the unnoticed ones in words)."""
    copy = WORK / room
    shutil.rmtree(copy, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", ".*", "evals", "bench")
    for folder in ("scripts", "tests", "references"):
        if (ROOT / folder).is_dir():
            shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    tests = " ".join("tests/" + name for name in ROOMS[room])
    (copy / "mutation.toml").write_text(CONFIG.format(room=room, python=sys.executable, tests=tests), encoding="utf-8")
    cosmic_ray("baseline", "mutation.toml", cwd=copy)
    cosmic_ray("init", "mutation.toml", "session.sqlite", cwd=copy)
    _skip_what_says_nothing(copy / "session.sqlite")
    cosmic_ray("exec", "mutation.toml", "session.sqlite", cwd=copy)
    dump = cosmic_ray("dump", "session.sqlite", cwd=copy, capture_output=True).stdout.decode()
    noticed, survivors = 0, []
    for item, result in map(json.loads, dump.splitlines()):
        if not result or result["worker_outcome"] == "skipped":
            continue
        if result["test_outcome"] == "survived":
            survivors.append(_in_words(item["mutations"][0], result["diff"]))
        else:
            noticed += 1
    return noticed, noticed + len(survivors), survivors


def _skip_what_says_nothing(session: Path):
    from cosmic_ray.work_db import use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    with use_db(session) as db:
        for item in list(db.pending_work_items):
            if not says_something(item.mutations[0].operator_name):
                db.set_result(item.job_id, WorkResult(WorkerOutcome.SKIPPED))


def _in_words(mutation: dict, diff: str) -> str:
    lines = [line for line in (diff or "").splitlines() if re.match(r"[+-](?![+-]{2} )", line)]
    return "line %d, %s\n    %s" % (mutation["start_pos"][0], mutation["operator_name"], "\n    ".join(lines))


def main():
    """The exit status is 0 where every room reaches nine tenths."""
    if importlib.util.find_spec("cosmic_ray") is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "cosmic-ray>=8.4,<9"], check=True)
    rooms = sys.argv[1:] or list(ROOMS)
    good = True
    for room in rooms:
        noticed, total, survivors = try_room(room)
        share = 100 * noticed / max(1, total)
        print("%s: %d of %d noticed, %.1f %%" % (room, noticed, total, share), flush=True)
        print("".join("  %s\n" % words for words in survivors), end="", flush=True)
        good = good and share >= 90
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
