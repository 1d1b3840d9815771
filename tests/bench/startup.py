"""Start-up against an empty Python: `python3 tests/bench/startup.py [runs]`. Interleaved, medians.

--help, a usage error and a missing key should answer within three times `python3 -c pass`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = str(Path(__file__).resolve().parents[2] / "scripts" / "image2.py")
CASES = {
    "python3 -c pass": ["-c", "pass"],
    "--help": [SCRIPT, "generate", "--help"],
    "usage error": [SCRIPT, "generate", "x", "--n", "99"],
    "missing key": [SCRIPT, "generate", "x"],
}


def main(runs: int):
    """Print the median of each case and its ratio to the first."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGE2_")}
    times = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(runs + 2):  # the first two warm the caches
            for name, words in CASES.items():
                started = time.perf_counter()
                subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, check=False)
                times[name].append(time.perf_counter() - started)
    empty = statistics.median(times["python3 -c pass"][2:])
    for name, seconds in times.items():
        median = statistics.median(seconds[2:])
        print(f"{name:16} {median * 1000:6.1f} ms  {median / empty:4.2f} x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
