"""The facts that records contain, on this machine and on systems that report less."""

import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from utils import machine


@dataclass
class Options:
    k: int = 3


@pytest.fixture
def no_listings(monkeypatch):
    """Hide /proc, as on a system without it."""
    monkeypatch.setattr(Path, "is_file", lambda path: False)


class TestUsableCores:
    def test_they_are_those_of_this_process(self, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6}, raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 64)
        assert machine.usable_cores() == 3

    @pytest.mark.parametrize(("count", "cores"), [(6, 6), (None, 1)])
    def test_where_a_process_has_none_of_its_own_the_machines(self, monkeypatch, count, cores):
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: count)
        assert machine.usable_cores() == cores

    def test_on_this_machine(self):
        assert 1 <= machine.usable_cores() <= os.cpu_count()


def test_the_cpu_is_described_with_its_cores(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 12)
    name, _, cores = machine.describe_cpu().rpartition(", ")
    assert name
    assert cores == "12 cores"


@pytest.mark.parametrize(
    ("listing", "name"),
    [
        ("processor\t: 0\nmodel name\t: Xeon @ 2 GHz\n", "Xeon @ 2 GHz"),
        ("model name\t: Cortex: A76\nmodel name\t: Cortex: A55\n", "Cortex: A76"),
        ("Features: fp\n", "arm"),
    ],
)
def test_the_cpu_has_the_name_that_the_system_lists(monkeypatch, listing, name):
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path: listing)
    monkeypatch.setattr(machine.platform, "processor", lambda: "arm")
    monkeypatch.setattr(machine, "usable_cores", lambda: 12)
    assert machine.describe_cpu() == f"{name}, 12 cores"


@pytest.mark.usefixtures("no_listings")
def test_without_a_listing_the_cpu_is_described_all_the_same(monkeypatch):
    monkeypatch.setattr(Path, "read_text", None)
    assert re.fullmatch(r".+, \d+ cores", machine.describe_cpu())


def test_versions_are_of_what_is_installed(monkeypatch):
    versions = machine.package_versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert versions["numpy"] == np.__version__
    assert versions["torch"] == metadata.version("torch")
    monkeypatch.setattr(machine, "RECORDED_PACKAGES", ("numpy", "no-such-package"))
    assert set(machine.package_versions()) == {"python", "numpy"}


def test_a_record_begins_with_the_command_as_a_shell_takes_it(monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["/any/main.py", "train", "my images", "--k", "3"])
    record = machine.start_record(Options(), torch.device("cpu"))
    assert record["command"] == "python main.py train 'my images' --k 3"
    assert (record["options"], record["device"], record["end"]) == ({"k": 3}, "CPU", None)
    caplog.set_level(logging.DEBUG)
    machine.log_start(record)
    command, place, packages = caplog.messages
    assert command == record["command"]
    assert place.startswith(f"{record['cpu']}, {record['threads']} threads; commit ")
    assert f"numpy {np.__version__}" in packages.split(", ")


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_is_what_git_says(monkeypatch, tmp_path, capfd):
    def git(*words: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false")
        command = ["git", "-C", str(tmp_path), *identity, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "utils/machine.py"))
    assert machine.source_commit() is None  # there is no commit yet
    (tmp_path / "main.py").touch()
    git("add", "main.py")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "data.csv").touch()  # is not a part of the source
    assert machine.source_commit() == commit
    (tmp_path / "main.py").write_text("changed")
    assert machine.source_commit() == f"{commit}+changes"
    assert capfd.readouterr() == ("", "")


class TestSourceCommit:
    @pytest.fixture
    def git(self, monkeypatch, tmp_path) -> dict[str, str]:
        """Let git answer what a test says, for a source that lies in tmp_path."""
        (tmp_path / ".git").mkdir()
        monkeypatch.setattr(machine, "__file__", str(tmp_path / "utils/machine.py"))
        answers = {"status": "", "rev-parse": "abc123"}

        def run(command, **options):
            if not answers:
                raise FileNotFoundError("no git here")
            text = next(answer for word, answer in answers.items() if word in command)
            return machine.subprocess.CompletedProcess(command, 0, f"{text}\n")

        monkeypatch.setattr(machine.subprocess, "run", run)
        return answers

    def test_it_is_that_of_the_checkout(self, git):
        assert machine.source_commit() == "abc123"

    def test_changed_files_are_told(self, git):
        git["status"] = " M main.py"
        assert machine.source_commit() == "abc123+changes"

    def test_without_git_there_is_none(self, git):
        git.clear()
        assert machine.source_commit() is None

    def test_outside_a_checkout_there_is_none(self, git, tmp_path):
        (tmp_path / ".git").rmdir()
        assert machine.source_commit() is None
