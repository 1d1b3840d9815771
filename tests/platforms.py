"""What differs between the systems that the tests run on: marks that skip for a reason, and a few numbers."""

import os
import sys

import pytest

WINDOWS = os.name == "nt"
KILLED = 1 if WINDOWS else -9  # the returncode of a process that was killed
TICK_S = 0.04 if WINDOWS else 0.0  # its clock moves in steps of 1/64 s: two readings may be that much too near

needs_posix = pytest.mark.skipif(WINDOWS, reason="pipes, links, devices, modes, names and shells are POSIX's")
needs_signals = pytest.mark.skipif(WINDOWS, reason="signals that a process can answer are POSIX's")
needs_open_files_to_go = pytest.mark.skipif(WINDOWS, reason="a file that is open cannot be replaced or removed there")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: its /proc, mounts or full backlogs")
