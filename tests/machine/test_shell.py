"""`next` as bash reads it, on Windows Git Bash: Claude Code's shell there. Real words through a real bash."""

from __future__ import annotations

import random
import re
import shutil
import subprocess

import pytest
from image2_cli.text import shell

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")]


def through_bash(words: list[str], system: str = "nt") -> list[str]:
    command = shell(["printf", "%s\\0", *words], system)
    return subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout.decode().split("\0")[:-1]


def test_a_next_of_windows_runs_in_git_bash_as_it_stands():
    words = ["py", "-3", r"C:\Tools\skills\image2\scripts\image2.py", "wait", "batch-3f2b8c1a:0", "--out",
             r"C:\R&D\a b", "--prompt-file", r"\\server\share\p.txt"]
    command = shell(words, "nt")
    assert 'py -3 C:/Tools/skills/image2/scripts/image2.py wait batch-3f2b8c1a:0 --out "C:/R&D/a b" ' \
        "--prompt-file //server/share/p.txt" == command
    assert [word.replace("\\", "/") for word in words] == through_bash(words)


@pytest.mark.parametrize("system", ["nt", "posix"])
def test_any_words_survive_bash(system):
    dice = random.Random(0)
    words = ["".join(dice.choices("ab \\\"'$`&%!\n@~*;|()#猫", k=dice.randint(0, 7))) for _ in range(3000)]
    words = [word for word in words if not re.match(r"\\\\\w", word)]  # a share, whose slashes turn
    assert words == through_bash(words, system)
