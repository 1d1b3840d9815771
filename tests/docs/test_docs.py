"""The pages against the code: what a page names exists, and what exists stands in its page."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, Callable

import pages
import pytest
from image2_cli import errors
from image2_cli.cli import arguments
from image2_cli.cli.reports import WORDS
from image2_cli.order.record import CHARGED
from pages import CHANGES, CHINESE, CLI, PAGES, PROMPTS, README, ROOT, SKILL, TROUBLE

# Flags in the pages that are other tools' own.
FOREIGN = {"--fail", "--fail-with-body", "--max-time", "--retry", "--force", "--no-project", "--quiet", "--script"}
FLAG = r"(?<![\w-])--[a-z][a-z-]*"
INTERNAL = {"IMAGE2_UV", "IMAGE2_LAUNCHER"}  # between the process and the one it becomes
MODULES = sorted((ROOT / "scripts" / "image2_cli").rglob("*.py"))
CODE = "".join(module.read_text(encoding="utf-8") for module in MODULES)
VERBS = list(arguments.VERBS)
TOO_LITTLE = "the search finds too little to mean anything"


def parser_of(verb: str) -> ArgumentParser:
    return arguments._verb_parser(verb)


def flags_of(verb: str) -> set[str]:
    return {flag for action in parser_of(verb)._actions for flag in action.option_strings}


# --- flags, verbs, variables

def test_every_flag_named_in_a_page_exists() -> None:
    known = set.union(*map(flags_of, VERBS)) | {"--version"} | FOREIGN
    named = {(page.name, flag) for page in PAGES for flag in re.findall(FLAG, pages.text(page))}
    assert [] == sorted(pair for pair in named if pair[1] not in known)
    assert len({flag for _, flag in named}) >= 25, TOO_LITTLE
    assert ["--no-such-flag"] == re.findall(FLAG, "Use `--no-such-flag`, a dash - or two -- and a--b.")


def test_every_verb_and_flag_stands_in_the_reference_with_just_its_own() -> None:
    assert VERBS == [row[0].strip("`").split()[0] for row in pages.table(CLI, "verb")]
    documented: dict[str, set[str]] = {verb: set() for verb in VERBS}
    for row in pages.table(CLI, "flag"):
        for verb in VERBS if row[1] == "all" else row[1].split(", "):
            documented[verb] |= set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row[0]))
    assert {verb: flags_of(verb) for verb in VERBS} == documented


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_can_be_parsed(page: Path) -> None:
    commands = pages.commands(page)
    assert len(commands) >= {SKILL: 8, README: 3, PROMPTS: 6}.get(page, 0), TOO_LITTLE
    for words in commands:
        if words not in (["--version"], ["VERB"]):
            assert [] == arguments.parse(words)[1], words


def test_every_variable_named_exists_and_every_one_is_documented() -> None:
    read = set(re.findall(r"IMAGE2_[A-Z_]+", CODE)) - INTERNAL
    named = {name for page in PAGES for name in re.findall(r"IMAGE2_[A-Z_]+", pages.text(page))}
    assert {"IMAGE2_API_KEY", "IMAGE2_BASE_URL", "IMAGE2_NO_INSTALL"} == read
    assert read == named
    assert read == {row[0].strip("`") for row in pages.table(CLI, "variable")}


def test_the_defaults_in_the_reference_are_the_codes() -> None:
    row = {row[0]: row[2] for row in pages.table(CLI, "flag")}
    assert f"default {arguments.TIMEOUT_S:g}" in row["`--timeout SECONDS`"]
    for flag in ("--max-images", "--concurrency"):
        assert f"default {parser_of('batch').get_default(flag[2:].replace('-', '_'))}" in row[f"`{flag} N`"]


# --- errors and exits

def test_every_error_code_stands_in_its_tables_with_its_exit_status_and_remedy() -> None:
    shown = {code.strip("`"): (int(exit_status), charged, retryable == "yes")
             for code, exit_status, charged, retryable in pages.table(CLI, "code")}
    assert {name: (code.exit_status, code.charged, code.retryable) for name, code in errors.CODES.items()} == shown
    rows = [re.findall(r"`(\w+)`", row[0]) for row in pages.table(TROUBLE, "`error.code`")]
    assert list(errors.CODES) == [code for codes in rows for code in codes]
    numbers = [int(number) for row in pages.table(SKILL, "exit") for number in row[0].split(", ")]
    assert sorted({0, *(code.exit_status for code in errors.CODES.values())}) == sorted(numbers)


def test_the_states_of_a_record_are_the_codes_own() -> None:
    (listed,) = re.findall(r"`state` in it: ([^.]*)\.", pages.text(CLI))
    assert list(CHARGED) == re.findall(r"`(\w+)`", listed)
    (told,) = re.findall(r"`state` \(([^)]*)\)", pages.text(CLI))
    assert {WORDS.get(state, state) for state in CHARGED} == set(re.findall(r"`([\w ]+)`", told))


# --- the answer

def test_every_field_of_real_answers_is_documented(run: Callable[..., Any], project: Path) -> None:
    (project / "orders.txt").write_text("a cat\na dog\n")
    quick = ("--poll-interval", "0.1", "--out", "pictures")
    asked = [("generate", "a cat", *quick), ("generate", "a cat", "--dry-run"), ("generate", "a cat", "--n", "0"),
             ("generate", "a bird", "--no-wait", *quick), ("status",), ("wait", *quick), ("check",), ("status", "task-1"),
             ("batch", "orders.txt", *quick), ("batch", "orders.txt", "--dry-run"), ("gallery", "pictures")]
    seen: set[str] = set()

    def collect(value: Any) -> None:
        for name, inner in value.items() if isinstance(value, dict) else ():
            seen.add(name)
            collect(None if name == "body" else inner)  # which is the service's
        for inner in value if isinstance(value, list) else ():
            collect(inner)

    for words in asked:
        collect(run(*words).json)
    assert {"checks", "gallery", "results", "files", "code", "orders", "state"} <= seen, "the runs show too little"
    documented = set(re.findall(r"`(\w+)`", pages.text(CLI)))
    of_counts = {"total", "completed", "failed", "pending", "unknown", "images", *CHARGED}
    assert [] == sorted(seen - documented - of_counts)


def test_every_name_in_backticks_comes_out_of_the_code() -> None:
    """`server_message`, `images[].path`, `error.code`: each part is a name that the code has."""
    known = set(re.findall(r"\w+", CODE)) | {module.stem for module in MODULES}
    named = {(page.name, part) for page in (SKILL, CLI, TROUBLE) for code in pages.inline(page)
             if re.fullmatch(r"[a-z_]+(\[\])?(\.[a-z_]+)*", code)
             and not re.search(r"\.(md|png|jpg|bmp|damaged|jsonl?)$", code)
             for part in re.findall(r"[a-z_]+", code)}
    assert [] == sorted(pair for pair in named if pair[1] not in known)
    assert len(named) >= 60, TOO_LITTLE


def test_the_answer_shown_in_the_skill_has_just_the_members_of_a_real_one(run: Callable[..., Any]) -> None:
    shown = json.loads(pages.blocks(SKILL, "json")[0])
    real = run("generate", "a red fox", "--size", "64x48", "--out", "fox.png", "--poll-interval", "0.1").json
    assert list(shown) == list(real)
    assert list(shown["images"][0]) == [name for name in real["images"][0] if name != "revised_prompt"]


# --- links and files


def test_every_link_within_the_project_leads_somewhere() -> None:
    count = 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", pages.prose(page)):
            if "://" in target:
                continue
            count += 1
            path, _, fragment = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.is_file(), (page.name, target)
            if fragment:
                heads = re.findall(r"^#+ (.*)$", pages.text(file), re.MULTILINE)
                assert fragment in [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads], target
    assert count >= 30, TOO_LITTLE


def test_every_file_a_page_names_exists() -> None:
    named = {(page.name, path) for page in PAGES
             for path in re.findall(r"(?<![\w./-])((?:scripts|references|tests)/[\w./-]*\w)", pages.text(page))}
    assert [] == sorted(pair for pair in named if not (ROOT / pair[1]).exists())
    assert len(named) >= 8, TOO_LITTLE


def test_the_readme_names_every_module_and_every_place_it_sends_to_exists() -> None:
    (overview,) = [block for block in pages.blocks(README, "text") if "image2_cli/" in block]
    folders = {module.parent.name for module in MODULES} - {"image2_cli"}
    words = set(re.findall(r"\w+", overview.partition("image2_cli/")[2]))
    assert [] == sorted(({module.stem for module in MODULES} | folders) - words)
    sent = [place for row in pages.table(README, "to change") for place in re.findall(r"`([a-z_]+/[a-z_]+|errors)`", row[1])]
    assert [] == [place for place in sent if not (ROOT / "scripts" / "image2_cli" / f"{place}.py").is_file()]
    assert len(sent) >= 8, TOO_LITTLE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_machine_or_shows_a_key(page: Path) -> None:
    text = pages.text(page)
    assert [] == re.findall(r"(?<![\w~./])/(?:home|root|tmp|work|Users|private|opt)/\S*", text)
    assert [] == re.findall(r"sk-[\w-]{8,}", text)


# --- the skill's page

FRONTMATTER = pages.text(SKILL).split("---\n")[1]


def member(name: str) -> str:
    found = re.search(rf'^ *{name}: "([^"\\]*)"$', FRONTMATTER, re.MULTILINE)
    assert found, f"{name} is missing, or not quoted"
    return found.group(1)


def test_what_an_agent_reads_keeps_its_budget() -> None:
    """Every agent that draws pays for the skill's words; a token of a reference is four characters."""
    assert 450 <= len(pages.text(SKILL).split()) <= 700
    assert (len(pages.text(CLI)) / 4 <= 2200) and (len(pages.text(TROUBLE)) / 4 <= 1000)


def test_the_frontmatter_is_what_every_parser_and_openclaw_take() -> None:
    """openclaw's mapping as flow JSON fails the reference validator, as text is not read; `requires.env` hides the skill."""
    members = re.findall(r"^([\w-]+):", FRONTMATTER, re.MULTILINE)
    assert ["name", "description", "license", "compatibility", "metadata"] == members
    assert FRONTMATTER.startswith("name: image2\n")
    metadata = FRONTMATTER.partition("\nmetadata:\n")[2]
    assert '  openclaw:\n    primaryEnv: "IMAGE2_API_KEY"' in metadata and "requires" not in metadata
    assert [] == [line for line in metadata.splitlines() if not re.fullmatch(r' +[\w-]+:( "[^"]*")?', line)]
    declared = member("compatibility")
    assert len(declared) <= 500 and {"network", "image2.vip", "3.9"} <= set(re.findall(r"[\w.]*\w", declared)), declared


def test_the_description_says_first_what_it_is_and_that_it_reads_a_key() -> None:
    description = member("description")
    assert 40 <= len(description.split()) <= 60
    assert len(description) <= 1024
    assert not set("<>") & set(description)
    assert "image2" in description[:160] and "generate images" in description[:160]
    assert "reads IMAGE2_API_KEY" in description
    assert all(words in description for words in ("Use when", "生成图片", "Not for"))


def test_the_skills_commands_are_plain() -> None:
    """Hosts' approval rules match neither variable prefixes nor redirections."""
    for line in "\n".join(pages.blocks(SKILL, "bash")).splitlines():
        assert line.startswith("python3 scripts/image2.py ") and not set("<>|&;$") & set(line)
    assert "export" not in pages.text(SKILL)


def test_the_plugin_is_called_and_described_as_the_skill() -> None:
    """`"./."` is what Codex needs to find a skill at the root; a plugin.json would rename installs by npx."""
    market = json.loads((ROOT / ".claude-plugin" / "marketplace.json").read_text(encoding="utf-8"))
    (plugin,) = market["plugins"]
    assert ("image2-skills", "image2") == (market["name"], plugin["name"])
    assert ("./", ["./."]) == (plugin["source"], plugin["skills"])
    assert {member("short-description")} == {market["description"], plugin["description"]}
    assert not list(ROOT.glob("**/plugin.json"))
    commands = f"{market['owner']['name']}/{market['name']}", f"{plugin['name']}@{market['name']}"
    assert all(command in pages.text(page) for command in commands for page in (README, CHINESE))


# --- agreement

def test_the_versions_agree() -> None:
    newest = re.findall(r"^## (\S+)", pages.text(CHANGES), re.MULTILINE)[0]
    assert [arguments.VERSION] * 2 == [member("version"), newest]
    assert f"git tag v{arguments.VERSION} " in pages.text(README)


def test_the_readme_sets_up_with_two_commands_and_ci_runs_the_second() -> None:
    develop = pages.text(README).partition("\n## Develop\n")[2].partition("\n## ")[0]
    shown = re.findall(r"```bash\n(.*?)\n```", develop, re.DOTALL)[:2]
    assert ['python3 scripts/image2.py generate "a red fox in snow" --sandbox', "python3 tests/run.py"] == shown
    assert shown[1] in (ROOT / "tests" / "ci.sh").read_text(encoding="utf-8")
    assert ["exec bash tests/ci.sh"] == (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_chinese_page_shows_the_commands_of_the_readme() -> None:
    def plain(page: Path) -> set[str]:
        lines = "".join(pages.blocks(page, "bash") + pages.blocks(page, "text")).splitlines()
        return {re.sub(r'generate "[^"]*"', 'generate ""', line) for line in lines}

    assert plain(CHINESE) <= plain(README)
    assert len(plain(CHINESE)) >= 8, TOO_LITTLE
