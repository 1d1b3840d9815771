"""What differs between the systems that the tests run on: marks that skip for a reason, and a few numbers."""

from __future__ import annotations

import os
import sys

import pytest

WINDOWS = os.name == "nt"
TICK_S = 0.04 if WINDOWS else 0.0  # its clock moves in steps of 1/64 s: two readings may be that much too near

needs_posix = pytest.mark.skipif(WINDOWS, reason="pipes, links, devices, modes, names and shells are POSIX's")
needs_signals = pytest.mark.skipif(WINDOWS, reason="signals that a process can answer are POSIX's")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: its /proc, mounts or full backlogs")
