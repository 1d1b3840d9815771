#!/usr/bin/env python3
# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "requests>=2.33.0,<3",
#   "urllib3>=2.7.0,<3",
#   "python-dotenv>=1.2.2,<2",
# ]
# ///
"""The entry of the image2 skill: finds its own folder, then hands over to image2_cli.

The block above is the only place where the ranges of the packages stand. This file must parse on every
Python 3, so that an old one gets an answer and not a SyntaxError.

Bytecode is cached as usual: without it each start compiles every room again, about four times the start of
Python itself. A read-only folder makes Python skip the cache silently; a wiped one takes it along.
"""

import os
import sys

# The real folder, and by hand: -I and -P leave it out.
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

REINSTALL = "npx skills add ichizi/image2-skills -y"


def answer_uv():
    """Under `uv run`, started by machine/packages.py: name this interpreter if it has all that is needed."""
    from image2_cli.machine.packages import shortcomings

    lacks = shortcomings(os.path.realpath(__file__))
    if lacks:
        sys.exit("; ".join(lacks))
    print(sys.executable)


def answer_incomplete(missing):
    """Some installers copy SKILL.md or this file alone; even that is one JSON object."""
    here = os.path.realpath(__file__)
    message = (f"{missing} is missing beside {here}: the skill was not copied whole. Install it again "
               f"({REINSTALL}), or: git clone https://github.com/ichizi/image2-skills")
    import json

    error = {"code": "missing_dependency", "message": message, "retryable": False}
    print(json.dumps({"ok": False, "status": "missing_dependency", "task_id": None,
                      "charged": "no", "images": [], "error": error, "next": REINSTALL}))
    sys.exit(2)


def run():
    if os.environ.get("IMAGE2_UV") == "ask":
        answer_uv()
        return
    try:
        from image2_cli.main import main
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "image2_cli":
            raise
        answer_incomplete(error.name)
    main()


if __name__ == "__main__":
    run()
