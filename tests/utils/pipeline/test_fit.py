"""Training images of a fit, in this process and in another one."""

from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datasets.base import GOOD, Category, Sample
from datasets.depth import Decoding
from tests.support import make_category
from utils.pipeline import fit
from utils.pipeline.fit import TrainingFiles
from utils.pipeline.reading import Reading


@dataclass(frozen=True)
class Noting(Reading):
    """Notes the threads that read.

    Attributes:
        used: The threads of each pass, appended.
    """

    used: tuple[list[int], ...] = ([],)

    def batches(self, *arguments):
        self.used[0].append(self.threads)
        return super().batches(*arguments)


@pytest.fixture
def files(tmp_path, monkeypatch) -> TrainingFiles:
    """Return six images with relative paths, read by up to 3 threads."""
    make_category(tmp_path)
    monkeypatch.chdir(tmp_path)
    paths = sorted((tmp_path / "widget/train/good").iterdir())
    samples = [Sample(path.relative_to(tmp_path), "widget", GOOD) for path in paths]
    return TrainingFiles(np.asarray, samples, Noting(Decoding(), 2, 3, used=([],)))


def test_a_part_is_read_from_the_folder_of_the_first_process(files, tmp_path, monkeypatch):
    expected = np.concatenate(list(files.batches()))
    part = files.part(1, 4)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = np.concatenate(list(part.batches()))
    np.testing.assert_array_equal(found, expected[1:4])


@pytest.mark.parametrize(("context", "total"), [(None, 2 * 6), (object(), 2 * 2 * 6)])
def test_the_bar_has_each_version_of_each_image_once_for_each_size(
    files, monkeypatch, context, total
):
    bars, observer = [], SimpleNamespace(bar=None)

    def show(*arguments):
        bars.append(arguments)
        return nullcontext("the bar")

    monkeypatch.setattr(fit, "show_progress", show)
    monkeypatch.setattr(fit, "fit", lambda *_: observer.bar)
    embedder = SimpleNamespace(versions=("", "vertical flip"))
    model = SimpleNamespace(cropper=None, embedder=embedder, scorer=None, context=context)
    category = Category("cap", tuple(files._samples), (), has_masks=False)
    reading = Reading(Decoding(), 2, 3)
    assert fit.fit_category(model, category, None, reading, observer) == "the bar"
    assert bars == [(total, "cap: embed", "image")]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 2), (8, 3)])
def test_a_worker_reads_with_no_more_threads_than_it_has(files, monkeypatch, count, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    list(files.batches())
    list(files.part(0, 2).batches())
    assert files._reading.used[0] == [3, expected]
