"""What the pages say, taken out of them: blocks, commands, tables, inline code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SKILL, README, CHINESE = ROOT / "SKILL.md", ROOT / "README.md", ROOT / "references" / "README.zh-CN.md"
CLI, API, CHANGES = (ROOT / "references" / name for name in ("cli.md", "api.md", "changelog.md"))
TROUBLE, PROMPTS = ROOT / "references" / "troubleshooting.md", ROOT / "references" / "prompting.md"
PAGES = (SKILL, README, *sorted((ROOT / "references").glob("*.md")))


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, as they stand."""
    fence = re.compile(r"^( *)```(\S*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
    return [body for _, kind, body in fence.findall(text(page)) if kind == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```", "", text(page), flags=re.MULTILINE | re.DOTALL)


def inline(page: Path) -> list[str]:
    """Every `inline code` outside the fenced blocks."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def table(page: Path, first: str) -> list[list[str]]:
    """The rows of the tables whose head begins with this cell; cells stripped."""
    bodies = re.findall(rf"^\| {re.escape(first)} \|.*\n\|[-:| ]+\n((?:\|.*\n)+)", text(page), re.MULTILINE)
    lines = "".join(bodies).splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def commands(page: Path) -> list[list[str]]:
    """The words after `image2.py` of every command that a page shows whole, in the page's order.

    In SKILL.md the table's commands too, which begin with a verb.
    """
    found = re.findall(r"python3 scripts/image2\.py ((?:'[^']*'|\"[^\"]*\"|[^`'\"\n&])+)", text(page))
    if page == SKILL:
        cells = " ".join(row[1] for row in table(SKILL, "the user wants"))
        found += re.findall(r"`((?:generate|batch|wait|gallery) [^`]+|check)`", cells)
    return [shlex.split(line) for line in found]
