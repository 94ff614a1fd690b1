"""Facts of published datasets: they add up to the totals of their papers."""

from dataclasses import replace
from pathlib import Path

import pytest

from datasets.base import GOOD, Category, Sample
from datasets.published import PUBLISHED, benchmark_of, published_counts

# Training, good test and defective test images, and the others (validation images, defective
# training images), as the papers and archives state them.
TOTALS = {
    "mvtec_ad": (15, 3629, 467, 1258, 0),
    "mvtec_loco": (5, 1778, 575, 993, 305),
    "mvtec_3d": (10, 2656, 249, 948, 294),
    "visa": (12, 8659, 962, 1200, 0),
    "visa_1cls": (12, 8659, 962, 1200, 0),
    "btad": (3, 1799, 451, 290, 0),
    "mpdd": (6, 888, 176, 282, 0),
    "kolektor_sdd2": (1, 2085, 894, 110, 246),
    "autovi": (6, 1523, 1521, 878, 0),
    "vad": (1, 2000, 1000, 1000, 1000),
}


@pytest.mark.parametrize("key", TOTALS)
def test_counts_of_categories_add_up(key):
    (dataset,) = [entry for entry in PUBLISHED if entry.key == key]
    counts = dataset.categories.values()
    found = [
        sum(values)
        for values in zip(*((c.train, c.good, c.defective) for c in counts), strict=True)
    ]
    others = TOTALS[key][-1]
    assert (len(counts), *found, others) == TOTALS[key]
    assert sum(found) + others == dataset.images


def test_numbers_of_categories_without_counts():
    counts = {entry.key: len(entry.categories) for entry in PUBLISHED if entry.key not in TOTALS}
    assert (counts["mvtec_ad_2"], counts["real_iad"], counts["dagm"]) == (8, 30, 10)


def test_a_new_category_of_a_known_dataset_has_no_counts():
    new = Category("hose", (), (), False, benchmark="MVTec AD")
    assert published_counts(new) is None
    assert published_counts(replace(new, name="bottle")).train == 209
    assert published_counts(replace(new, name="bottle", benchmark="")) is None


def category(name, folder):
    return Category(name, (Sample(Path(f"{name}/train/{folder}/0.png"), name, GOOD),), (), False)


@pytest.mark.parametrize(
    ("layout", "name", "folder", "benchmark"),
    [
        ("mvtec", "bottle", "good", "MVTec AD"),
        ("mvtec", "tubes", "good", "MPDD"),
        ("mvtec", "01", "ok", "BTAD"),
        ("mvtec", "01", "good", ""),
        ("mvtec", "widget", "good", ""),
        ("folder", "bottle", "good", ""),
        ("real_iad", "zipper", "OK", "Real-IAD"),
        ("bmad", "Brain_AD", "good", "BMAD"),
    ],
)
def test_a_category_of_a_published_dataset_is_known(layout, name, folder, benchmark):
    assert benchmark_of(layout, category(name, folder)) == benchmark
