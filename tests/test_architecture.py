"""Imports go one way: main.py -> utils/commands -> (patchcore, datasets, the rest of utils)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("patchcore", "datasets", "utils")


def imported(file):
    """Return the project's own packages that a file imports from."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names if name} & set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_do_not_import_one_another(package):
    files = [f for f in (ROOT / package).rglob("*.py") if "commands" not in f.parts]
    assert files
    for file in files:
        assert imported(file) <= {package}, file


def test_only_main_imports_commands():
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            if "commands" not in file.parts:
                assert "utils.commands" not in file.read_text(encoding="utf-8"), file


def test_nothing_unsafe_is_called():
    """No pickle, eval or exec on what a user or a file supplies."""
    for file in [ROOT / "main.py", *(f for p in PACKAGES for f in (ROOT / p).rglob("*.py"))]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, file
            if isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "weights_only"}:
                safe = node.arg == "weights_only"
                assert getattr(node.value, "value", None) is safe, file
        assert "import pickle" not in file.read_text(encoding="utf-8"), file
