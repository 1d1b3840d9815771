"""Breaks the deciding modules in every small way and counts which breaks the tests notice; not part of the test run.

    .venv/bin/python tests/mutation.py                              # all of them: an hour or two
    .venv/bin/python tests/mutation.py service/task order/record    # some

Works on a copy in mutants/, never on the files themselves. Prints, a module, the share that was noticed and every
break that was not. Wants `pip install "cosmic-ray>=8.4,<9"` in the environment it runs in.

Left out, because they say nothing: a comparison or an arithmetic sign replaced by all its cousins (one opposite
each is enough), `|` in annotations, and property tests (hypothesis): what only chance finds is not held.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "mutants"
OF_ORDER, OF_SERVICE = "tests/order -m 'not hypothesis and not slow'", "tests/service -m 'not hypothesis and not slow'"
OF_MONEY = "tests/money/test_law.py tests/money/test_service.py -n 4 -m 'not hypothesis'"
# module: the tests that decide, in stages; what survives one is tried by the next, which takes longer
MODULES = {
    "errors": ["tests/leaves/test_errors.py tests/docs/test_docs.py"],
    "service/acceptance": [f"tests/service/test_acceptance.py {OF_SERVICE}"],
    "service/task": [f"tests/service/test_task.py {OF_SERVICE}"],
    "order/fields": [f"tests/order/test_fields.py {OF_ORDER}"],
    "order/record": [f"tests/order/test_record.py {OF_ORDER}", OF_MONEY],
    "order/store": [f"tests/order/test_store.py {OF_ORDER}", OF_MONEY],
    "order/order": [f"tests/order/test_engine.py {OF_ORDER}", OF_MONEY],
    "order/schedule": [f"tests/order/test_schedule.py {OF_ORDER}", OF_MONEY],
    "order/saving": [OF_MONEY],
    "pictures/download": ["tests/pictures/test_download.py -m 'not hypothesis and not slow'"],
}
CONFIG = """
[cosmic-ray]
module-path = "scripts/image2_cli/{module}.py"
timeout = 300.0
excluded-modules = []
test-command = "{python} -m pytest -x -q {tests}"
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = [
  "core/ReplaceBinaryOperator_(?!(Add_Sub|Sub_Add|Mul_Div|Div_Mul|Mod_Add|Pow_Mul|FloorDiv_Mul|LShift_RShift|RShift_LShift)$)",
  "core/ReplaceComparisonOperator_(?!(Is_IsNot|IsNot_Is)$).*Is",
]
"""


def cosmic_ray(command: str, copy: Path) -> str:
    """What one of its commands prints."""
    return subprocess.run([sys.executable, "-m", *f"cosmic_ray.{command}".split()], check=True, cwd=copy, text=True,
                          stdout=subprocess.PIPE, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}).stdout


def try_module(module: str) -> tuple[int, int, list[str]]:
    """(breaks noticed, all breaks, the unnoticed ones in words)."""
    copy = WORK / module
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__", ".git", ".venv*", WORK.name))
    for number, tests in enumerate(MODULES[module]):
        config = CONFIG.format(module=module, python=sys.executable, tests=tests)
        (copy / "mutation.toml").write_text(config, encoding="utf-8")
        cosmic_ray("cli baseline mutation.toml", copy)
        if number == 0:
            cosmic_ray("cli init mutation.toml session.sqlite", copy)
            cosmic_ray("tools.filters.operators_filter session.sqlite mutation.toml", copy)
        with sqlite3.connect(copy / "session.sqlite") as session:  # a break without a result is tried
            session.execute("DELETE FROM work_results WHERE test_outcome = 'SURVIVED'")
        cosmic_ray("cli exec mutation.toml session.sqlite", copy)
    lines = cosmic_ray("cli dump session.sqlite", copy).splitlines()
    results = [(item["mutations"][0], result) for item, result in map(json.loads, lines)
               if result and result["worker_outcome"] != "skipped"]
    survivors = [in_words(mutation, result["diff"]) for mutation, result in results if result["test_outcome"] == "survived"]
    return len(results) - len(survivors), len(results), survivors


def in_words(mutation: dict[str, Any], diff: str | None) -> str:
    lines = [line for line in (diff or "").splitlines() if re.match(r"[+-](?![+-]{2} )", line)]
    changed = "\n    ".join(lines)
    return f"line {mutation['start_pos'][0]}, {mutation['operator_name']}\n    {changed}"


def main() -> None:
    """The exit status is 0 where every module reaches nine tenths."""
    is_good = True
    for module in sys.argv[1:] or list(MODULES):
        noticed, total, survivors = try_module(module)
        share = 100 * noticed / max(1, total)
        print(f"{module}: {noticed} of {total} noticed, {share:.1f} %", flush=True)
        print("".join(f"  {words}\n" for words in survivors), end="", flush=True)
        is_good = is_good and share >= 90
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
