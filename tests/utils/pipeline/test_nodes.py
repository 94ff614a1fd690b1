"""Nodes that cannot compute a sweep are found before anything is computed."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from datasets.layouts import open_dataset
from patchcore.memory_plan import GIGABYTE
from patchcore.version import RESULTS_VERSION, VERSION
from tests.support import make_data, quick
from utils.errors import UsageError
from utils.options.evaluate import EvaluateOptions
from utils.options.method import parse_options
from utils.pipeline import nodes
from utils.pipeline.cluster import Cluster
from utils.pipeline.nodes import Expected, Node, Report, check_report, inspect_node

NODE = Node("a", "10.0.0.7", 4.0, 0.0, 8.0)


@pytest.fixture(autouse=True)
def same_folder():
    """Go back to the present folder after a test."""
    before = Path.cwd()
    yield
    os.chdir(before)


@pytest.fixture
def expected(tmp_path) -> Expected:
    data = make_data(tmp_path / "data")
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    arguments = quick("--path_data", str(data), "--weights", str(weights))
    options = parse_options(arguments, EvaluateOptions(), command="", description="")
    category = open_dataset(data).read_category("widget")
    return Expected.of(options, [category], uses_gpu=False)


def test_a_node_that_has_everything(expected):
    report = inspect_node(expected)
    check_report(NODE, report, expected)
    assert report.problem == ""
    assert len(expected.files) == 16  # 6 training images, 6 test images, 4 masks


def test_relative_paths_start_from_the_drivers_folder(expected, tmp_path):
    relative = [(os.path.relpath(name, tmp_path), size) for name, size in expected.files]
    elsewhere = replace(expected, files=relative, folder=str(tmp_path))
    assert inspect_node(elsewhere).problem == ""


@pytest.mark.parametrize("change", ["missing", "other", "weights", "no weights"])
def test_a_node_without_the_files(expected, tmp_path, change):
    image, weights = tmp_path / "data/widget/test/hole/000.png", tmp_path / "weights.pth"
    if change == "missing":
        image.unlink()
        problem = f"does not see {image} (No such file or directory; --path_data)"
    elif change == "other":
        size = image.stat().st_size
        image.write_bytes(b"short")
        problem = f"sees another {image}, of 5 bytes, not {size} (--path_data)"
    elif change == "weights":
        weights.write_bytes(b"others")
        problem = f"sees another weights file {weights} (--weights)"
    else:
        weights.unlink()
        problem = f"does not see the weights file {weights} (No such file or directory; --weights)"
    report = inspect_node(expected)
    assert report.problem == problem
    with pytest.raises(UsageError, match=r"but node 10\.0\.0\.7 \(.*\) (does not see|sees)"):
        check_report(NODE, report, expected)


@pytest.mark.parametrize("name", ["patchcore", "results", "python", "torch"])
def test_a_node_with_other_versions(expected, name):
    report = Report("host", {**expected.versions, name: "0.0"}, "", "a CPU")
    message = rf"found {name} 0\.0 on node 10\.0\.0\.7 \(host\) and .* here: install the same"
    with pytest.raises(UsageError, match=message):
        check_report(NODE, report, expected)


def test_packages_that_touch_no_number_may_differ(expected, monkeypatch):
    found = nodes.package_versions() | {"matplotlib": "0.0", "scikit-learn": "0.0"}
    monkeypatch.setattr(nodes, "package_versions", lambda: found)
    check_report(NODE, inspect_node(expected), expected)


def test_builds_of_the_same_version_may_differ(monkeypatch):
    found = {"torch": "2.9.1+cu128", "numpy": "2.0"}
    monkeypatch.setattr(nodes, "package_versions", lambda: found)
    assert nodes.own_versions() == {
        **{"patchcore": VERSION, "results": str(RESULTS_VERSION)},
        **{"torch": "2.9.1", "numpy": "2.0"},
    }


def test_a_node_with_a_gpu_that_torch_does_not_find(expected):
    wanted, node = replace(expected, uses_gpu=True), replace(NODE, gpus=1.0)
    with pytest.raises(UsageError, match="expected torch to find the GPU of node"):
        check_report(node, inspect_node(wanted), wanted)


def test_the_name_and_the_memory_of_a_gpu_are_reported(expected, monkeypatch):
    properties = SimpleNamespace(name="a GPU", total_memory=24 * GIGABYTE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", {0: properties}.get)
    reports = [inspect_node(replace(expected, uses_gpu=uses_gpu)) for uses_gpu in (True, False)]
    assert [(report.gpu, report.gpu_memory) for report in reports] == [("a GPU", 24), ("", 0)]


@pytest.mark.parametrize(("uses_gpu", "device"), [(True, "a GPU, another"), (False, "CPU")])
def test_a_run_records_what_computes(expected, uses_gpu, device):
    kinds = (("a GPU", "one"), ("", "two"), ("another", "one"), ("a GPU", "one"))
    reports = [Report(f"h{n}", {}, "", cpu, gpu) for n, (gpu, cpu) in enumerate(kinds)]
    cluster = Cluster([NODE] * 4, reports, replace(expected, uses_gpu=uses_gpu))
    assert cluster.describe() == {
        "device": device,
        "cpu": "one; two",
        "nodes": [
            {"host": f"h{n}", "cpu": cpu, "gpu": gpu or None} for n, (gpu, cpu) in enumerate(kinds)
        ],
    }


@pytest.mark.parametrize(("uses_gpu", "gpus"), [(True, 0.0), (False, 1.0)])
def test_a_node_that_needs_no_gpu(expected, uses_gpu, gpus):
    wanted = replace(expected, uses_gpu=uses_gpu)
    check_report(replace(NODE, gpus=gpus), inspect_node(wanted), wanted)
