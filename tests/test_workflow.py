"""CI's workflow: what it may do, and that it cannot change behind our back."""

import re
from pathlib import Path

WORKFLOW = Path(__file__).resolve().parent.parent / ".github" / "workflows" / "ci.yml"


def test_every_action_is_pinned_by_its_commit_with_the_version_beside_it():
    text = WORKFLOW.read_text(encoding="utf-8")
    used = re.findall(r"uses: *(.*)", text)
    assert used and [] == [each for each in used if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each)]
    assert len(set(used)) == len({each.partition("@")[0] for each in used}), "one action at two versions"


def test_the_workflow_may_only_read_and_covers_the_promised_matrix():
    text = WORKFLOW.read_text(encoding="utf-8")
    assert "permissions:\n  contents: read\n\n" in text
    assert 1 == text.count("permissions:")
    assert "os: [ubuntu-latest, macos-latest, windows-latest]" in text
    assert 'python: ["3.10", "3.11", "3.12", "3.13", "3.14"]' in text
