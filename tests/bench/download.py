"""A 200 MB download against curl: `python download.py [rounds]`; and the memory it takes.

The tool's own bound of 64 MiB is lifted here: the rate and the memory are what is measured.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from common import Service, medians
from image2_cli.clock import Clock
from image2_cli.pictures import download

SIZE = 200_000_000


def peak_mb() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main(rounds: int) -> None:
    """Print both times, the ratio of the rates and the peak of this process."""
    download.MAX_BYTES = 2 * SIZE
    clock, before = Clock(), peak_mb()
    with Service(request_s=0.0, bytes=SIZE) as service, tempfile.TemporaryDirectory() as folder:
        url, source = f"{service.base_url}/generations/x.png", download.Source(service.base_url, clock)

        def ours() -> None:
            saved = download.fetch(url, download.new_part(folder, "benchmark", 0), source, clock.now() + 600)
            Path(saved.part).unlink()

        curl = ["curl", "-sS", "-o", str(Path(folder, "curl.png")), url]
        found = medians(rounds, {"curl": lambda: subprocess.run(curl, check=True), "download.fetch": ours})
    print(f"rate {found['curl'] / found['download.fetch']:.2f} x curl's; peak {peak_mb()} MB, {before} MB before")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
