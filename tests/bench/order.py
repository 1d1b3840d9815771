"""One order against a shell loop with curl doing the same: `python order.py [rounds]`.

Both poll every 50 ms and the task ends at once, so that what is left is start-up, the order, one look, one download.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

from common import SCRIPT, Service, environment, medians

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
OURS = [sys.executable, SCRIPT, "generate", "a cat", "--poll-interval", "0.05", "--new"]


def main(rounds: int) -> None:
    """Print the medians and their difference."""
    with Service(task_s=0.0, request_s=0.0, bytes=2_000_000) as service, tempfile.TemporaryDirectory() as folder:
        def run(words: list[str]) -> None:
            subprocess.run(words, cwd=folder, env=environment(folder, service), check=True, capture_output=True)

        found = medians(rounds, {"curl loop": lambda: run(["bash", "-c", LOOP]), "image2.py": lambda: run(OURS)})
    print(f"difference {found['image2.py'] - found['curl loop']:6.0f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 11)
