"""The free memory, on this machine and on systems that do not report it."""

import math
import os
from pathlib import Path

import pytest
import torch

from patchcore import device_memory

CPU = torch.device("cpu")


@pytest.fixture
def no_listings(monkeypatch):
    """Hide /proc, as on a system without it."""
    monkeypatch.setattr(Path, "is_file", lambda path: False)


def test_cached_files_of_a_container_are_free(monkeypatch, tmp_path):
    """Other lines of its statistics, which are parts of the same sum, are not."""
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text(
        "anon 1500\nfile 1300\ninactive_anon 9\ninactive_file 700\nactive_file 400\n"
    )
    monkeypatch.setattr(device_memory, "CONTAINER", tmp_path)
    assert device_memory._left_in_container() == 5000 - (3000 - 1100)


@pytest.mark.parametrize(
    ("limit", "used", "left"),
    [("max", "3000", math.inf), ("3000", "3001", 0), ("5000", "unknown", math.inf)],
    ids=["no limit", "above the limit", "another format"],
)
def test_bytes_left_in_a_container(monkeypatch, tmp_path, limit, used, left):
    for name, text in (("max", limit), ("current", used), ("stat", "inactive_file 0")):
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    monkeypatch.setattr(device_memory, "CONTAINER", tmp_path)
    assert device_memory._left_in_container() == left


@pytest.fixture
def installed() -> float:
    """Return the installed memory in gigabytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def test_it_is_at_most_the_installed_memory(installed):
    assert 0.05 < device_memory.free_memory(CPU) <= installed


def test_it_is_the_available_memory_in_gigabytes(monkeypatch):
    listing = "MemTotal:  9000000 kB\nMemFree: 1000 kB\nMemAvailable:    2000000 kB\n"
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path: listing)
    assert device_memory.free_memory(CPU) == pytest.approx(2.048)


@pytest.mark.usefixtures("no_listings")
def test_half_of_the_installed_memory_if_the_system_does_not_report_it(installed):
    assert device_memory.free_memory(CPU) == pytest.approx(installed / 2)


@pytest.mark.usefixtures("no_listings")
def test_a_constant_if_the_installed_memory_is_unknown_too(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert device_memory.free_memory(CPU) == device_memory.UNKNOWN_MEMORY


def test_the_memory_of_a_gpu_is_its_own_and_what_torch_holds_without_using_it(monkeypatch):
    asked = []

    def free_and_total(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        return 3_000_000_000, 80_000_000_000

    monkeypatch.setattr(torch.cuda, "mem_get_info", free_and_total)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 2_000_000_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1_500_000_000)
    assert device_memory.free_memory(torch.device("cuda", 1)) == 3.5
    assert asked == [torch.device("cuda", 1)]
