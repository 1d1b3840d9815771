"""The image2 command line: one paid order, at most one accepted POST, no picture lost."""

VERSION = "1.0.0"
