"""Start-up against an empty Python: `python3 tests/bench/startup.py [rounds]`.

--help, a usage error and a missing key should answer within twice `python3 -c pass`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

from common import SCRIPT, environment, medians

CASES = {"python3 -c pass": ["-c", "pass"], "--help": [SCRIPT, "generate", "--help"],
         "usage error": [SCRIPT, "generate", "x", "--n", "99"], "missing key": [SCRIPT, "generate", "x"]}


def main(rounds: int) -> None:
    """Print each case's median and its ratio to the first."""
    with tempfile.TemporaryDirectory() as folder:
        keyless = {**environment(folder), "IMAGE2_API_KEY": ""}

        def start(words: list[str]) -> None:
            subprocess.run([sys.executable, *words], cwd=folder, env=keyless, capture_output=True, check=False)

        found = medians(rounds, {name: lambda words=words: start(words) for name, words in CASES.items()})
    for name in CASES:
        print(f"{name:44} {found[name] / found['python3 -c pass']:7.2f} x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
