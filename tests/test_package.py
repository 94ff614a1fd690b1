"""`pip install .` gives the package `patchcore` alone, and that runs by itself."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import patchcore

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel, from a copy: building leaves files behind."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt", "main.py"):
        shutil.copy(ROOT / name, source)
    for name in ("patchcore", "datasets", "utils"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--wheel-dir", str(target), str(source)], check=True)
    (built,) = target.glob("*.whl")
    return built


def test_what_it_does_not_have_is_named():
    with pytest.raises(AttributeError, match="module 'patchcore' has no attribute 'Patchcore'"):
        _ = patchcore.Patchcore
    assert not hasattr(patchcore, "Embedder")  # which the module of `PatchCore` imports
    assert {"PatchCore", "Prediction", "PatchCoreError"} <= set(dir(patchcore))


def test_nothing_else_is_in_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"patchcore"}


def test_every_module_and_data_file_is_in_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("patchcore/")}
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "patchcore").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == files


def test_the_readmes_example_runs_in_an_environment_without_the_checkout(wheel, tmp_path):
    """The environment has the wheel; torch and the others are lent to it by ours."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    packages = Path(
        sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": "unused"})
    )
    packages.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    code = f"{example}\nimport patchcore\nprint(patchcore.__file__)\n"
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    process = subprocess.run(
        [environment / ("Scripts" if os.name == "nt" else "bin") / "python", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == str(packages / "patchcore" / "__init__.py")


@pytest.mark.slow
def test_an_empty_environment_gets_all_that_it_needs(wheel, tmp_path):
    """As users install it, with every dependency from the package index: minutes."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    subprocess.run([python, "-c", example], check=True, cwd=tmp_path)
