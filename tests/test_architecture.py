"""Imports go one way: main.py -> commands -> pipeline -> (patchcore, datasets, rest of utils)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Each room, and the rooms that it may import from besides itself.
MAY_IMPORT = {
    "patchcore": set(),
    "datasets": set(),
    "utils": set(),
    "utils.options": {
        *("utils", "patchcore.errors"),
        *("patchcore.settings", "patchcore.setting_values", "patchcore.protocols"),
    },
    "utils.pipeline": {"utils", "utils.options", "patchcore", "datasets"},
    "utils.commands": {"utils", "utils.options", "utils.pipeline", "patchcore", "datasets"},
}
FILES = [
    path for room in ("patchcore", "datasets", "utils") for path in (ROOT / room).rglob("*.py")
]


def module_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    fitting = [room for room in MAY_IMPORT if module == room or module.startswith(f"{room}.")]
    return max(fitting, key=len, default=None)


def imports(file):
    """Return the project's own modules that a file imports."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    known = {module_of(path) for path in FILES}
    for name in names:
        parts = name.split(".")
        beginnings = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
        yield from [module for module in beginnings if module in known][:1]


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_go_one_way(file):
    room = room_of(module_of(file))
    for module in imports(file):
        allowed = MAY_IMPORT[room]
        assert room_of(module) in allowed | {room} or module in allowed, module


def test_no_circle():
    """No module imports itself through others, at whatever place the import stands."""
    graph = {module_of(file): set(imports(file)) - {module_of(file)} for file in FILES}
    while graph:
        leaves = {module for module, needs in graph.items() if not needs & set(graph)}
        # A package's __init__ may import its own modules, which may import their siblings.
        assert leaves, sorted(graph)
        graph = {module: needs for module, needs in graph.items() if module not in leaves}


def test_types_are_imported_as_everything_else():
    for file in FILES:
        assert "TYPE_CHECKING" not in file.read_text(encoding="utf-8"), file


def test_nothing_unsafe_is_called():
    """No pickle, eval or exec on what a user or a file supplies."""
    for file in [ROOT / "main.py", *FILES]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, file
            if isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "weights_only"}:
                safe = node.arg == "weights_only"
                assert getattr(node.value, "value", None) is safe, file
        assert "import pickle" not in file.read_text(encoding="utf-8"), file
