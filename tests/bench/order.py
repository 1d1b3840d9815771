"""One order against a shell loop with curl doing the same: `python order.py [rounds]`. Interleaved, medians.

Both poll every 50 ms and the task ends at once, so that what is left is start-up, the order, one look, one download.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time

from batch import KEY, SCRIPT, Service

LOOP = r"""
set -e
task=$(curl -sS -X POST "$IMAGE2_BASE_URL/api/v1/images/generations" -H "Authorization: Bearer $IMAGE2_API_KEY" \
  -H "Content-Type: application/json" -d '{"model": "gpt-image-2", "prompt": "a cat", "async": true}' \
  | sed 's/.*"task_id": "\([^"]*\)".*/\1/')
while :; do
  sleep 0.05
  seen=$(curl -sS "$IMAGE2_BASE_URL/api/v1/images/tasks/$task" -H "Authorization: Bearer $IMAGE2_API_KEY")
  case "$seen" in *'"status": "completed"'*) break;; esac
done
curl -sS -o cat.png "$(echo "$seen" | sed 's/.*"url": "\([^"]*\)".*/\1/')"
"""


def main(rounds: int):
    """Print the medians and their difference."""
    times = {"curl loop": [], "image2.py": []}
    with Service(task_s=0.0, request_s=0.0, bytes=2_000_000) as service, tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "IMAGE2_API_KEY": KEY,
                       "IMAGE2_BASE_URL": service.base_url}
        commands = {"curl loop": ["bash", "-c", LOOP],
                    "image2.py": [sys.executable, SCRIPT, "generate", "a cat", "--poll-interval", "0.05", "--new"]}
        for _ in range(rounds + 1):  # the first warms the caches
            for name, words in commands.items():
                started = time.perf_counter()
                subprocess.run(words, cwd=folder, env=environment, check=True, capture_output=True)
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(seconds[1:]) * 1000 for name, seconds in times.items()}
    for name, milliseconds in medians.items():
        print("%-10s %6.0f ms" % (name, milliseconds))
    print("difference %6.0f ms" % (medians["image2.py"] - medians["curl loop"]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
