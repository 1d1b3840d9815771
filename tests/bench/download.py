"""A 200 MB download against curl: `python download.py [rounds]`. Interleaved, medians; and the memory it takes.

The tool's own bound of 64 MiB is lifted here: the rate and the memory are what is measured.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from batch import Service

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from image2_cli.clock import Clock  # noqa: E402
from image2_cli.pictures import download  # noqa: E402

SIZE = 200_000_000


def main(rounds: int):
    """Print both rates, their ratio and the peak of this process."""
    download.MAX_BYTES = 2 * SIZE
    clock, times = Clock(), {"curl": [], "download.fetch": []}
    with Service(request_s=0.0, bytes=SIZE) as service, tempfile.TemporaryDirectory() as folder:
        url = service.base_url + "/generations/x.png"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        for _ in range(rounds + 1):
            started = time.perf_counter()
            subprocess.run(["curl", "-sS", "-o", str(Path(folder, "curl.png")), url], check=True)
            times["curl"].append(time.perf_counter() - started)
            started = time.perf_counter()
            (part,) = download.make_parts(folder, "benchmark", 1)
            download.fetch(url, part, True, clock, clock.now() + 600)
            times["download.fetch"].append(time.perf_counter() - started)
            Path(part).unlink()
    medians = {name: statistics.median(seconds[1:]) for name, seconds in times.items()}
    for name, seconds in medians.items():
        print("%-15s %6.0f ms  %5.0f MB/s" % (name, seconds * 1000, SIZE / seconds / 1e6))
    print("rate %.2f x curl's; peak %d MB, %d MB before" % (
        medians["curl"] / medians["download.fetch"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, before))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
