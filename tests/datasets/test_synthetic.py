"""The synthetic categories: repeatable images, exact masks, safe and complete writing."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.base import DatasetError
from datasets.synthetic.categories import CATEGORIES
from datasets.synthetic.fields import coverage, displaced, per_item, smooth_noise
from datasets.synthetic.rendering import render
from datasets.synthetic.writing import GENERATOR_VERSION, write_dataset
from tests.datasets.golden import SHEET, draw_sheet

ROOT = Path(__file__).parents[2]
MVTEC_NAMES = {
    *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
    *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
}
EVERY_DEFECT = [
    (name, defect_type)
    for name, category in CATEGORIES.items()
    for defect_type in category.defect_types
]
FEW = {"num_train": 3, "num_test_good": 2, "num_test_per_defect": 2, "size": 64}


def digest(image: np.ndarray, mask: np.ndarray) -> str:
    return sha256(image.tobytes() + mask.tobytes()).hexdigest()


def files_of(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


# --- render -----------------------------------------------------------------------------------


def test_categories_are_the_six_and_none_is_named_as_in_mvtec():
    assert list(CATEGORIES) == [
        *("weave", "wood_grain", "mosaic"),
        *("bottle_mouth", "hex_nut", "wood_screw"),
    ]
    assert not MVTEC_NAMES & set(CATEGORIES)
    assert all(len(category.defect_types) >= 3 for category in CATEGORIES.values())


@pytest.mark.parametrize("category", CATEGORIES)
def test_good_image_has_contrast_and_an_empty_mask(category):
    image, mask = render(category, None, seed=3, size=128)
    assert image.shape == (128, 128, 3)
    assert image.dtype == np.uint8
    assert mask.shape == (128, 128)
    assert mask.dtype == bool
    assert not mask.any()
    assert 40 < image.mean() < 230
    assert image.std() > 5


def test_another_process_in_another_order_draws_the_same_bytes():
    code = (
        "from hashlib import sha256\nfrom datasets.synthetic.categories import CATEGORIES\n"
        "from datasets.synthetic.rendering import render\n"
        "for name in reversed(list(CATEGORIES)):\n"
        "    image, mask = render(name, CATEGORIES[name].defect_types[0], seed=5, size=96)\n"
        "    print(name, sha256(image.tobytes() + mask.tobytes()).hexdigest())\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    here = {
        name: digest(*render(name, category.defect_types[0], seed=5, size=96))
        for name, category in CATEGORIES.items()
    }
    assert dict(line.split() for line in output.splitlines()) == here


@pytest.mark.parametrize(("category", "defect_type"), EVERY_DEFECT)
def test_mask_holds_exactly_what_the_defect_changed(category, defect_type):
    for seed in (0, 1):
        good, _ = render(category, None, seed=seed)
        defective, mask = render(category, defect_type, seed=seed)
        # The sensor noise is the same in both, so outside the mask nothing at all may differ ...
        assert np.array_equal(good[~mask], defective[~mask])
        # ... and inside it most pixels must, a good part of them clearly.
        change = np.abs(good.astype(int) - defective).max(axis=2)[mask]
        assert (change > 0).mean() > 0.8
        assert np.quantile(change, 0.9) > 10


@pytest.mark.parametrize(("category", "defect_type"), EVERY_DEFECT)
def test_mask_has_a_plausible_area_within_the_crop(category, defect_type):
    for seed in range(4):
        _, mask = render(category, defect_type, seed=seed, size=128)
        assert 0.0005 <= mask.mean() <= 0.25
        assert mask[8:-8, 8:-8].sum() >= 0.9 * mask.sum()


@pytest.mark.parametrize("category", CATEGORIES)
def test_seeds_vary_the_part_and_its_defect(category):
    defect_type = CATEGORIES[category].defect_types[0]
    first, first_mask = render(category, defect_type, seed=0, size=64)
    second, second_mask = render(category, defect_type, seed=1, size=64)
    # More than noise (about 2 grey levels) tells them apart.
    assert np.abs(first.astype(int) - second).mean() > 4
    assert (first_mask != second_mask).any()


@pytest.mark.parametrize("size", [64, 100, 191, 256, 512])
def test_sizes_show_the_same_scene(size):
    image, mask = render("hex_nut", "discolored", seed=2, size=size)
    assert image.shape == (size, size, 3)
    reference, reference_mask = render("hex_nut", "discolored", seed=2)
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).astype(int)
    expected = cv2.resize(reference, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(small - expected).mean() < 5
    assert mask.mean() == pytest.approx(reference_mask.mean(), rel=0.3)


@pytest.mark.slow
@pytest.mark.parametrize(("category", "defect_type"), EVERY_DEFECT)
def test_many_seeds_and_the_largest_size_can_be_drawn(category, defect_type):
    for seed in range(12):
        render(category, defect_type, seed=seed, size=64)
    assert render(category, defect_type, seed=0, size=1024)[1].any()


# --- fields -----------------------------------------------------------------------------------


def test_smooth_noise_has_unit_standard_deviation_and_does_not_depend_on_the_size():
    large = smooth_noise(np.random.default_rng(0), 400, (50, 50))
    small = smooth_noise(np.random.default_rng(0), 200, (50, 50))
    assert large.dtype == np.float32
    assert large.std() == pytest.approx(1, abs=0.15)
    assert np.abs(cv2.resize(large, (200, 200), interpolation=cv2.INTER_AREA) - small).max() < 0.2


def test_coverage_is_half_on_the_outline():
    distance = np.tile(np.linspace(-0.5, 0.5, 101, dtype=np.float32), (101, 1))
    shares = coverage(distance)[0]
    assert shares[0] == 1
    assert shares[50] == pytest.approx(0.5)
    assert shares[-1] == 0


@pytest.mark.parametrize("size", [64, 100])
def test_a_displaced_field_is_read_at_an_offset_in_units_of_half_the_image(size):
    values = smooth_noise(np.random.default_rng(0), size, (10, 10))
    dx, dy = (np.full((size, size), pixels * 2 / size, np.float32) for pixels in (3, -5))
    moved = displaced(values, dx, dy)
    np.testing.assert_allclose(moved[5:, :-3], values[:-5, 3:], atol=1e-3)


def test_per_item_gives_equal_numbers_equal_values():
    values = per_item(np.random.default_rng(0), np.array([[3.0, -2.0], [3.0, 4.0]]))
    assert values[0, 0] == values[1, 0]
    assert len(np.unique(values)) == 3


# --- write_dataset ----------------------------------------------------------------------------


def test_layout_and_counts(tmp_path):
    steps = []
    write_dataset(tmp_path, categories=["weave"], progress=steps.append, **FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["weave"]
    defect_types = CATEGORIES["weave"].defect_types
    expected = {"synthetic.json"}
    expected |= {f"train/good/{i:03d}.png" for i in range(3)}
    expected |= {f"test/good/{i:03d}.png" for i in range(2)}
    expected |= {f"test/{d}/{i:03d}.png" for d in defect_types for i in range(2)}
    expected |= {f"ground_truth/{d}/{i:03d}_mask.png" for d in defect_types for i in range(2)}
    assert set(files_of(tmp_path / "weave")) == expected
    assert steps == [1] * (3 + 2 + 2 * len(defect_types))
    assert json.loads((tmp_path / "weave/synthetic.json").read_text()) == {
        "generator": "datasets.synthetic",
        "generator_version": GENERATOR_VERSION,
        "category": "weave",
        "seed": 0,
        **FEW,
    }

    image = cv2.imread(str(tmp_path / "weave/test/hole/000.png"), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(tmp_path / "weave/ground_truth/hole/000_mask.png"), cv2.IMREAD_UNCHANGED)
    assert image.shape == (64, 64, 3)
    assert mask.shape == (64, 64)
    assert set(np.unique(mask)) == {0, 255}


def test_images_are_written_in_true_colours(tmp_path):
    write_dataset(tmp_path, categories=["wood_grain"], **FEW)
    blue, _, red = cv2.imread(str(tmp_path / "wood_grain/train/good/000.png")).mean(axis=(0, 1))
    # Wood is more red than blue.
    assert red > blue + 30


def test_images_of_a_generator_version_stay_as_they_are(tmp_path):
    """See golden.py: the datasets that people have would not be written anew."""
    expected = cv2.imread(str(SHEET), cv2.IMREAD_COLOR_RGB)
    sheet = draw_sheet(tmp_path)
    assert sheet.shape == expected.shape
    # Another processor may round a few pixels otherwise.
    difference = np.abs(sheet.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.001


def test_no_image_is_there_twice(tmp_path):
    write_dataset(tmp_path, categories=["hex_nut", "mosaic"], **FEW)
    images = [path for path in tmp_path.rglob("*.png") if "ground_truth" not in path.parts]
    good = [cv2.imread(str(path)).astype(int) for path in images]
    for i, first in enumerate(good):
        for second in good[:i]:
            assert np.abs(first - second).mean() > 4


def test_more_images_leave_the_first_as_they_were(tmp_path):
    write_dataset(tmp_path / "few", categories=["hex_nut"], **FEW)
    write_dataset(tmp_path / "more", categories=["hex_nut"], **{**FEW, "num_train": 5})
    few, more = files_of(tmp_path / "few/hex_nut"), files_of(tmp_path / "more/hex_nut")
    del few["synthetic.json"]
    assert few.items() <= more.items()


def test_finished_category_is_left_alone(tmp_path):
    write_dataset(tmp_path, categories=["hex_nut"], **FEW)
    image = tmp_path / "hex_nut/train/good/000.png"
    image.write_bytes(b"changed by hand")
    steps = []
    write_dataset(tmp_path, categories=["hex_nut"], progress=steps.append, **FEW)
    assert image.read_bytes() == b"changed by hand"
    assert sum(steps) == 3 + 2 + 2 * len(CATEGORIES["hex_nut"].defect_types)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"num_train": 2}, {"size": 72}, {"num_test_per_defect": 1}]
)
def test_other_parameters_replace_the_category(tmp_path, change):
    write_dataset(tmp_path, categories=["wood_grain"], **FEW)
    write_dataset(tmp_path, categories=["wood_grain"], **{**FEW, **change})
    write_dataset(tmp_path / "fresh", categories=["wood_grain"], **{**FEW, **change})
    assert files_of(tmp_path / "wood_grain") == files_of(tmp_path / "fresh/wood_grain")
    assert not list(tmp_path.glob(".*"))


def test_another_generator_version_replaces_the_category(tmp_path):
    write_dataset(tmp_path, categories=["wood_grain"], **FEW)
    before = files_of(tmp_path / "wood_grain")
    record = tmp_path / "wood_grain/synthetic.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "generator_version": 0}))
    (tmp_path / "wood_grain/train/good/000.png").unlink()
    write_dataset(tmp_path, categories=["wood_grain"], **FEW)
    assert files_of(tmp_path / "wood_grain") == before


@pytest.mark.parametrize("record", [None, "{}", "[1]", "not JSON"])
def test_foreign_folder_is_never_touched(tmp_path, record):
    image = tmp_path / "hex_nut/train/good/image.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"a real image")
    if record is not None:
        (tmp_path / "hex_nut/synthetic.json").write_text(record)
    before = files_of(tmp_path)
    with pytest.raises(DatasetError, match=r"hex_nut: expected .*, found something else"):
        write_dataset(tmp_path, categories=["weave", "hex_nut"], **FEW)
    assert files_of(tmp_path) == before


def test_interrupted_run_leaves_no_half_category_and_can_be_repeated(tmp_path):
    write_dataset(tmp_path / "fresh", categories=["mosaic"], **FEW)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, categories=["mosaic"], progress=interrupt, **FEW)
    assert not (tmp_path / "mosaic").exists()
    # A stray file of the broken run must not get into the finished category.
    (leftover,) = tmp_path.glob(".mosaic*")
    (leftover / "stray.png").write_bytes(b"")
    write_dataset(tmp_path, categories=["mosaic"], **FEW)
    assert files_of(tmp_path / "mosaic") == files_of(tmp_path / "fresh/mosaic")
    assert not list(tmp_path.glob(".*"))
