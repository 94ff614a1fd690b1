"""The same numbers again: to the bit with the same number of threads, else within a tolerance."""

from pathlib import Path

import numpy as np
import pytest
import torch

import main
from tests.support import make_category, quick, read_maps, read_table, without_plots

# As in docs/method.md: relative for scores and maps, absolute for metrics.
TOLERANCE, METRIC_TOLERANCE = 1e-4, 1e-3
FLAGS = (
    "--backbone resnet18 --layers layer2 layer3 --size_resize 96 --size_crop 96 --embed_dim 128 "
    "--image_score reweighted --percentage_coreset 0.3 --save_maps"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[int, list[Path]]:
    """Return the result folders of two runs each with one and with two threads."""
    root, before = tmp_path_factory.mktemp("threads"), torch.get_num_threads()
    make_category(root / "data")
    found: dict[int, list[Path]] = {1: [], 2: []}
    try:
        for number, threads in enumerate((1, 2, 1, 2)):
            torch.set_num_threads(threads)  # of OpenMP, which faiss uses too
            found[threads].append(folder := root / str(number))
            words = quick(
                "--path_data", str(root / "data"), "--path_result", str(folder), *FLAGS.split()
            )
            with without_plots():
                assert main.main(words) == 0
    finally:
        torch.set_num_threads(before)
    return found


def results_of(folder: Path) -> list[tuple[dict, dict[str, np.ndarray]]]:
    """Return rows without times, and their saved maps."""
    rows = read_table(folder)
    return [
        ({k: v for k, v in row.items() if "seconds" not in k}, read_maps(folder, row))
        for row in rows
    ]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_number_of_threads_gives_the_same_bits(folders, threads):
    one, two = map(results_of, folders[threads])
    assert len(one) == 1
    for (row, maps), (row_again, maps_again) in zip(one, two, strict=True):
        assert row == row_again
        for name, values in maps.items():
            np.testing.assert_array_equal(values, maps_again[name])


def test_another_number_of_threads_agrees_within_the_tolerance(folders):
    pairs = zip(*(results_of(folders[threads][0]) for threads in (1, 2)), strict=True)
    for (row, maps), (row_again, maps_again) in pairs:
        for name in ("scores", "anomaly_maps"):
            scale = np.abs(maps[name]).max()
            assert scale > 0
            np.testing.assert_allclose(
                maps_again[name], maps[name], rtol=TOLERANCE, atol=TOLERANCE * scale
            )
        for name, text in row.items():
            if "auroc" in name or "_ap" in name or "f1" in name:
                assert float(row_again[name]) == pytest.approx(float(text), abs=METRIC_TOLERANCE)
