"""Trigger trials: would an agent that sees only a catalogue of skills open this one?

    python3 tests/evals/triggers.py message --split train > message.txt    # for a fresh agent
    python3 tests/evals/triggers.py score --split train ANSWER.json...     # one file a run

The catalogue is this skill among the ten of catalogue.json. `--description FILE` tries another description than
SKILL.md's. A query is passed where the skill was chosen in at least half of the runs and should have been, or in
fewer and should not. Prints the rates and what failed; exit 0 where all passed. Reads and prints only.
"""

import argparse
import json
import random
import re
import sys
from pathlib import Path

EVALS = Path(__file__).resolve().parent
NAME = "image2"
MESSAGE = """\
You are an agent that has these skills. You see only their names and descriptions:

{catalogue}

Below are messages of users, each the first of a conversation of its own. For each, say which skill you would open \
before you start, or null where you would open none of them. Files that a message names are there.

{queries}

Answer with one JSON object and nothing else: the number of the message -> the name of the skill or null, such as \
{{"12": "{example}", "13": null}}.
"""


def queries(split: str) -> dict[str, dict]:
    """Number, as a text -> query. Their own ids would tell the answer, so nobody is shown them."""
    everything = json.loads((EVALS / "triggers.json").read_text(encoding="utf-8"))
    return {str(number): each for number, each in enumerate(everything, 1) if split in ("all", each["split"])}


def description_of_skill() -> str:
    page = (EVALS.parent.parent / "SKILL.md").read_text(encoding="utf-8")
    return json.loads(re.search(r"^description: (\".*\")$", page, re.MULTILINE)[1])


def message(split: str, description: str, seed: int) -> str:
    """What a fresh agent is given. `seed` shuffles: an agent must not learn from the order."""
    shuffled = random.Random(seed)
    others = json.loads((EVALS / "catalogue.json").read_text(encoding="utf-8"))
    catalogue = [*others, {"name": NAME, "description": description}]
    asked = list(queries(split).items())
    shuffled.shuffle(catalogue)
    shuffled.shuffle(asked)
    return MESSAGE.format(catalogue="\n".join("- {name}: {description}".format(**skill) for skill in catalogue),
                          queries="\n".join(f"{number}. {each['query']}" for number, each in asked),
                          example=others[-1]["name"])


def score(split: str, runs: list[dict]) -> tuple[list[str], bool]:
    """(lines to print, did every query pass?). A run that leaves a query out is a mistake, not an answer."""
    asked = queries(split)
    for place, run in enumerate(runs, 1):
        missing = sorted(asked.keys() - run.keys(), key=int)
        if missing:
            sys.exit(f"run {place} does not answer {', '.join(missing)}")
    rates = {number: sum(run[number] == NAME for run in runs) / len(runs) for number in asked}
    passed = {number: (rates[number] >= 0.5) == each["should_trigger"] for number, each in asked.items()}
    lines = []
    for label, wanted in (("should trigger", True), ("should not", False)):
        for language in ("en", "zh"):
            group = [number for number, each in asked.items()
                     if each["should_trigger"] is wanted and each["lang"] == language]
            chosen = sum(rates[number] for number in group) / max(1, len(group))
            lines.append(f"{label:14} {language}: {sum(passed[number] for number in group)}/{len(group)} passed, "
                         f"chosen in {chosen:.0%}")
    for number, each in asked.items():
        if not passed[number]:
            instead = ", ".join(sorted({str(run[number]) for run in runs}))
            lines.append(f"failed {each['id']}: chosen in {rates[number]:.0%} ({instead}): {each['query']}")
    lines.append(f"{sum(passed.values())}/{len(passed)} queries passed in {len(runs)} run{'s'[: len(runs) > 1]}")
    return lines, all(passed.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask and score which skill an agent would open.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    ask, count = verbs.add_parser("message", help="print the message"), verbs.add_parser("score", help="print the rates")
    for verb in (ask, count):
        verb.add_argument("--split", choices=("train", "validation", "all"), default="all")
    ask.add_argument("--description", type=Path, help="a file with another description than SKILL.md's")
    ask.add_argument("--seed", type=int, default=1, help="another order; take another one for each run")
    count.add_argument("answers", nargs="+", type=Path, help="JSON as the message asks for, one file a run")
    options = parser.parse_args()
    if options.verb == "message":
        file = options.description
        description = file.read_text(encoding="utf-8").strip() if file else description_of_skill()
        print(message(options.split, description, options.seed), end="")
        return
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in options.answers]
    lines, all_passed = score(options.split, runs)
    print("\n".join(lines))
    sys.exit(0 if all_passed else 1)


if __name__ == "__main__":
    main()
