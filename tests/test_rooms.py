"""The architecture: which room may import which, and which may touch the network, the disk, the environment, stdout.

Read off the source by `ast`, so also what a function imports only when it runs. A room that is missing from the
table, or reaches further than its row, fails here; so does a row that allows more than its room uses.
"""

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
FOLDER = SCRIPTS / "image2_cli"
ROOMS = sorted(".".join(path.relative_to(FOLDER).with_suffix("").parts) for path in FOLDER.rglob("*.py"))
PACKAGES = {"requests", "urllib3", "dotenv"}

# room: (the rooms it may import, what it may touch). Each line rests only on lines above it, __init__ (the version) apart.
TABLE = {
    "__init__": ("", ""),
    "errors": ("", ""),
    "pictures.containers": ("", ""),
    "pictures.image_check": ("pictures.containers", ""),
    "clock": ("", ""),
    "sandbox.pictures": ("", ""),
    "service.task": ("", ""),
    "order.fields": ("", ""),
    "cli.progress": ("", ""),
    "order.locks": ("", "disk"),
    "order.record": ("service.task", "disk"),
    "order.store": ("order.locks order.record", "disk"),
    "sandbox.loopback": ("", "network"),
    "service.transport": ("__init__", "network"),
    "cli.arguments": ("__init__ errors", ""),
    "machine.settings": ("errors", "environment disk"),
    "order.polling": ("errors service.task", ""),
    "answer": ("errors service.task", ""),
    "service.acceptance": ("errors service.task", "network"),  # only the names of exceptions, see below
    "order.pace": ("", ""),
    "order.output": ("errors pictures.image_check order.fields", "disk"),
    "order.reference": ("pictures.image_check order.fields", "disk"),
    "machine.fetching": ("clock", "disk programs"),
    "machine.packages": ("answer errors machine.fetching machine.settings", "environment disk"),
    "sandbox.server": ("sandbox.pictures sandbox.loopback", ""),
    "service.api": ("clock errors service.task service.transport service.acceptance", ""),
    "pictures.links": ("", "network"),
    "pictures.download": ("errors pictures.links order.pace pictures.image_check service.transport", "disk"),
    "gallery.gallery_page": ("order.record order.fields service.task", "disk"),
    "gallery.gallery": ("errors gallery.gallery_page order.output order.record order.store order.fields "
                        "service.task", "disk"),
    "batch.file": ("order.output order.reference order.fields", ""),
    "order.saving": ("clock pictures.download errors order.output order.polling", ""),
    "order.order": ("clock errors order.pace order.output order.record order.store order.fields order.saving service.task "
                    "order.polling", ""),
    "batch.summary": ("errors order.order order.record order.store", ""),
    "order.engine": ("clock batch.summary errors order.pace order.polling", ""),
    "cli.check": ("answer errors order.output machine.settings", ""),
    "machine.inputs": ("order.reference order.fields", "disk"),
    "cli.run": ("answer service.api cli.arguments errors order.order machine.packages order.output cli.progress "
                "order.store sandbox.server machine.settings service.task", ""),
    "batch.many": ("answer service.api cli.arguments order.engine batch.summary errors machine.inputs batch.file "
                   "order.output cli.progress order.store order.fields machine.settings", ""),
    "cli.commands": ("answer cli.arguments cli.check errors gallery.gallery machine.inputs batch.many order.order "
                     "order.output order.fields sandbox.server machine.settings service.task", ""),
    "main": ("answer cli.arguments clock errors cli.run machine.settings service.task cli.commands", "stdout exit"),
}
NETWORK = {"socket", "socketserver", "ssl", "http", "urllib", "requests", "urllib3", "asyncio", "selectors", "ftplib"}
HARMLESS = {"urllib.parse", "ssl", "subprocess.list2cmdline", "dotenv.version"}  # texts, and names of exceptions
DISK_MODULES = {"shutil", "tempfile", "glob", "pathlib", "fcntl", "msvcrt", "sqlite3", "dotenv"}
DISK_CALLS = {"open", "unlink", "remove", "replace", "rename", "link", "symlink", "mkdir", "makedirs", "rmdir", "listdir",
              "scandir", "stat", "lstat", "walk", "chmod", "truncate", "access", "statvfs", "fdopen"}
PROGRAMS = {"subprocess", "multiprocessing"}


def source(room) -> str:
    return FOLDER.joinpath(*room.split(".")).with_suffix(".py").read_text(encoding="utf-8")


@functools.cache
def tree(room):
    return ast.parse(source(room), room)


@functools.cache
def imports(room) -> tuple:
    """(the rooms, the outer modules by their full names) that a room imports anywhere in it."""
    rooms, outer = set(), set()
    for node in ast.walk(tree(room)):
        if isinstance(node, ast.Import):
            outer |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            outer |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            folder = room.split(".")[:-node.level] + (node.module or "").split(".")
            module = ".".join(filter(None, folder))
            names = [module] if module in ROOMS else [f"{module}.{alias.name}".lstrip(".") for alias in node.names]
            rooms |= {name if name in ROOMS else "__init__" for name in names}
    return rooms, outer


def dotted(node) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


@functools.cache
def touches(room) -> set:
    """What a room reaches for, by the names in its source."""
    harmless = {name for name in imports(room)[1] for one in HARMLESS if f"{name}.".startswith(f"{one}.")}
    reached = {name.split(".")[0] for name in imports(room)[1] - harmless}
    kinds = {"network": NETWORK, "disk": DISK_MODULES, "programs": PROGRAMS}
    found = {kind for kind, modules in kinds.items() if reached & modules}
    for node in ast.walk(tree(room)):
        name = dotted(node) if isinstance(node, (ast.Attribute, ast.Name)) else ""
        if name in ("os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "os.unsetenv"):
            found.add("environment")
        if name in ("print", "input", "sys.stdout", "sys.__stdout__"):
            found.add("stdout")
        if name in ("sys.exit", "exit", "quit", "os._exit", "os.abort"):
            found.add("exit")
        if name in ("os.system", "os.popen", "os.execv", "os.execve", "os.spawnv", "os.fork"):
            found.add("programs")
        if name == "open" or (name.startswith("os.") and name.split(".")[1] in DISK_CALLS and name.count(".") == 1):
            found.add("disk")
    return found


def allowed(room) -> tuple:
    rooms, may_touch = TABLE[room]
    return set(rooms.split()), set(may_touch.split())


def test_the_search_finds_rooms_and_what_they_touch():
    assert len(ROOMS) > 15
    assert {"errors"} <= imports("machine.settings")[0] and "re" in imports("machine.settings")[1]
    assert {"environment", "disk"} <= touches("machine.settings")
    assert {"stdout", "exit"} <= touches("main")
    assert "network" in touches("service.transport") and "programs" in touches("machine.fetching")


def test_every_room_has_its_row():
    assert [] == [room for room in ROOMS if room not in TABLE]
    assert [] == [room for room in TABLE if room not in ROOMS]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_no_further_than_its_row(room):
    assert set() == imports(room)[0] - allowed(room)[0]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_touches_no_more_than_its_row(room):
    assert set() == touches(room) - allowed(room)[1]


@pytest.mark.parametrize("room", ROOMS)
def test_a_row_allows_no_more_than_its_room_uses(room):
    rooms, may_touch = allowed(room)
    used, touched = imports(room)[0], touches(room)
    assert (set(), set()) == (rooms - used, may_touch - touched)


def test_data_flows_one_way():
    """No circle: what a room imports, and what that imports, never leads back to it."""
    def below(room, seen=()):
        for other in imports(room)[0] - set(seen):
            yield other
            yield from below(other, (*seen, other))

    assert [] == [room for room in ROOMS if room in set(below(room))]


def test_nobody_imports_main():
    assert [] == [room for room in ROOMS if "main" in imports(room)[0]]


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_packages_are_imported_only_where_they_are_needed(room):
    """--help, usage errors and a missing key answer without the packages, and in the time of an empty Python."""
    at_the_top = [node for node in tree(room).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name.split(".")[0] for node in at_the_top if isinstance(node, ast.Import) for alias in node.names}
    outer = [node for node in at_the_top if isinstance(node, ast.ImportFrom) and not node.level]
    names |= {node.module.split(".")[0] for node in outer}
    assert set() == names & PACKAGES
    if names:
        assert names <= set(sys.stdlib_module_names)


def test_the_two_packages_and_what_they_bring_are_all_there_is():
    outer = {name.split(".")[0] for room in ROOMS for name in imports(room)[1]}
    assert PACKAGES == outer - set(sys.stdlib_module_names)


def test_the_rooms_that_judge_an_exchange_only_name_exceptions():
    """`service.acceptance` may import the network's packages, for the classes of their exceptions alone."""
    nodes = [node for node in ast.walk(tree("service.acceptance"))
             if isinstance(node, ast.ImportFrom) and node.module in PACKAGES]
    assert [["exceptions"], ["exceptions"]] == [[alias.name for alias in node.names] for node in nodes]


def test_the_key_is_held_by_one_room_that_sends_it():
    texts = {room: source(room) for room in ROOMS}
    holders = {room for room, text in texts.items() if re.search(r"Bearer|Authorization", text)}
    assert {"service.api", "sandbox.server"} == holders  # the sandbox asks for it


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_does_and_what_it_may_not_touch(room):
    text = ast.get_docstring(tree(room))
    assert text and text[0].isupper() and text.splitlines()[0].endswith((".", "?", ",", ":")) or "\n" in text
    if room != "__init__":
        assert re.search(r"\b(no|not|never|nothing|only|pure|alone|without|cannot)\b", text, re.I), text


@pytest.mark.parametrize("room", [*ROOMS, "image2"])
def test_a_room_parses_on_python_3_8(room):
    """There it has to say that 3.10 is needed, instead of ending in a SyntaxError."""
    text = (SCRIPTS / "image2.py").read_text(encoding="utf-8") if room == "image2" else source(room)
    parsed = ast.parse(text, room, feature_version=(3, 8))
    if room not in ("__init__", "image2"):
        first = [node for node in parsed.body if isinstance(node, ast.ImportFrom)][:1]
        assert ["__future__"] == [node.module for node in first], "annotations are run on 3.8 without it"
    for node in ast.walk(parsed):
        assert not (isinstance(node, ast.Call) and any(word.arg in ("slots", "kw_only", "strict") for word in node.keywords))
        assert not (isinstance(node, ast.Attribute) and node.attr in ("removeprefix", "removesuffix"))


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_has_a_name_that_breaks_something(room):
    """http.py breaks requests; some installers drop what begins with an underscore; image2 would shadow the entry."""
    for name in room.split("."):
        assert room == "__init__" or not name.startswith("_")
        assert name not in sys.stdlib_module_names and name not in {*PACKAGES, "image2"}
        assert room == "__init__" or name.isidentifier() and name == name.lower()
