"""The same order by both verbs, for every law of money."""

from __future__ import annotations

import pytest
from command import PNG, Command
from faulty import picture


@pytest.fixture(params=["generate", "batch"])
def command(request, service, project, run, start, tmp_path) -> Command:
    """A picture of a cat in out/cat.png, ordered by each verb."""
    service.on_file(picture(PNG))
    return Command(request.param, service, project, run, start, tmp_path)


@pytest.fixture
def generate(service, project, run, start, tmp_path) -> Command:
    """The same by `generate` alone, for laws that no verb can change."""
    service.on_file(picture(PNG))
    return Command("generate", service, project, run, start, tmp_path)
