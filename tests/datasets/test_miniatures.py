"""A miniature of each layout is recognised, and read exactly."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from datasets.base import DatasetError, MaskFiles, MaskShapes
from datasets.images import read_sample
from datasets.layouts import LAYOUTS, open_dataset
from datasets.published import PUBLISHED
from tests.datasets.miniatures import MINIATURES, SIDE, SQUARE
from tests.support import truncate

# Endings of files that may state which images there are.
LISTS = {".csv", ".json", ".txt"}
EACH = pytest.mark.parametrize("name", MINIATURES)


@pytest.fixture
def written(name, tmp_path):
    return MINIATURES[name], MINIATURES[name].write(tmp_path / "data")


def test_there_is_a_miniature_of_each_layout():
    # Kaputt is recognised and not read; MPDD's files are in the layout of MVTec AD.
    keys = {entry.key for entry in PUBLISHED} - {"kaputt", "mpdd", "mvtec_ad"}
    assert {miniature.layout for miniature in MINIATURES.values()} == set(LAYOUTS) - {"kaputt"}
    assert keys <= set(MINIATURES)


@EACH
def test_it_is_recognised(written):
    miniature, path = written
    dataset = open_dataset(path)
    assert dataset.layout == miniature.layout
    assert dataset.find_categories() == sorted(miniature.categories)
    assert open_dataset(path, miniature.layout) == dataset


@EACH
@pytest.mark.parametrize("other", ["no such category", "..", ""])
def test_another_name_is_no_category(written, other):
    dataset, names = open_dataset(written[1]), ", ".join(sorted(written[0].categories))
    with pytest.raises(
        DatasetError, match=rf"category name \({names}\), found '{re.escape(other)}'"
    ):
        dataset.read_category(other)


@EACH
def test_it_is_read_exactly(written, tmp_path):
    miniature, path = written
    dataset = open_dataset(path)

    def below(file):
        return file.relative_to(tmp_path / "data").as_posix()

    for name, expected in miniature.categories.items():
        category = dataset.read_category(name)
        assert category.name == name
        assert {s.category for s in (*category.train, *category.test)} == {name}
        assert {s.defect_type for s in category.train} == {"good"}
        assert tuple(below(s.path) for s in category.train) == expected.train
        assert tuple(_described(s, below) for s in category.test) == expected.test
        assert category.has_masks == any(masks for _, _, masks in expected.test)
        reasons = Counter(left.reason for left in category.left_out)
        assert reasons == Counter(expected.left_out)
        for note, beginning in zip((*category.facts, *category.notes), expected.notes, strict=True):
            assert note.startswith(beginning)
        assert category.benchmark == expected.benchmark


def _described(sample, below):
    masks = sample.mask
    if isinstance(masks, MaskShapes):
        return below(sample.path), sample.defect_type, (below(masks.source),)
    return below(sample.path), sample.defect_type, masks and tuple(map(below, masks.paths))


@EACH
def test_its_masks_show_the_defects(written):
    miniature, path = written
    square = np.zeros((SIDE, SIDE), bool)
    square[SQUARE] = True
    dataset = open_dataset(path)
    for name in miniature.categories:
        for sample in dataset.read_category(name).test:
            image, mask = read_sample(sample)
            assert image.shape == (SIDE, SIDE, 3)
            if sample.mask is None:
                assert mask is None or not mask.any()
            else:
                np.testing.assert_array_equal(mask, square)


@EACH
def test_training_needs_no_test_images(written):
    miniature, path = written
    expected = open_dataset(path)
    for name, of_category in miniature.categories.items():
        category = expected.read_training(name)
        read = [sample.path for sample in category.train]
        whole = expected.read_category(name)
        split = [sample.path for sample in whole.train]
        has_split = not any("held out" in note for note in of_category.notes)
        assert read == split if has_split else set(read) > set(split)
        assert (category.test, category.saturations) == ((), ())
        assert category.benchmark == of_category.benchmark
        if has_split:
            _remove(whole.test)
            assert expected.read_training(name).train == category.train


def _remove(samples):
    """Remove test images and their masks, but not the annotations that tell the layout."""
    for sample in samples:
        masks = sample.mask
        if not isinstance(masks, MaskShapes):
            sample.path.unlink()
        for mask in masks.paths if isinstance(masks, MaskFiles) else ():
            mask.unlink(missing_ok=True)  # several images may have the same
            if not any(mask.parent.iterdir()):
                mask.parent.rmdir()


# In the other layouts, masks or annotations tell which images are good.
@pytest.mark.parametrize(
    "name", sorted(MINIATURES.keys() - {"kolektor_sdd", "kolektor_sdd2", "labelme"})
)
def test_training_images_are_found_where_there_are_no_others(written):
    miniature, path = written
    dataset = open_dataset(path)
    read = {name: dataset.read_training(name).train for name in miniature.categories}
    kept = {sample.path for samples in read.values() for sample in samples}
    for file in path.rglob("*.*"):
        if file.suffix not in LISTS and file not in kept:
            file.unlink()
    assert {name: dataset.read_training(name).train for name in read} == read


@pytest.mark.parametrize("name", [name for name, one in MINIATURES.items() if one.lacks[0]])
def test_what_is_missing_of_a_half_known_layout_is_told(written, tmp_path):
    miniature, path = written
    lacking, title = miniature.lacks
    for file in (tmp_path / "data").glob(lacking):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    with pytest.raises(DatasetError) as caught:
        open_dataset(path)
    assert f"expected the layout {miniature.layout}" in str(caught.value)
    assert f"found no {title}; " in str(caught.value)


@pytest.mark.parametrize("name", [e.key for e in PUBLISHED if e.key in MINIATURES])
def test_its_name_is_that_of_the_published_dataset(written, name):
    miniature, path = written
    assert open_dataset(path, name).layout == miniature.layout


def test_kaputt_is_recognised_and_what_to_do_is_told(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/query-train.parquet").touch()
    with pytest.raises(DatasetError, match=r"found Parquet files .* path,label,mask,split"):
        open_dataset(tmp_path).find_categories()
    with pytest.raises(DatasetError, match=r"found Parquet files .* path,label,mask,split"):
        open_dataset(tmp_path).read_category("any")


@pytest.mark.parametrize("name", ["kolektor_sdd2"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "expected the mask 10001_GT .* image .*10001.png"),
        (truncate, "expected a mask, found a damaged or unknown file: .*10001_GT.png"),
    ],
)
def test_a_mask_that_tells_good_from_defective_is_needed(written, damage, message):
    damage(written[1] / "train/10001_GT.png")
    with pytest.raises(DatasetError, match=message):
        open_dataset(written[1]).read_category("kolektor_sdd2")


@pytest.mark.parametrize("name", ["kolektor_sdd2"])
def test_masks_of_test_images_do_not_matter_in_training(written):
    expected = open_dataset(written[1]).read_training("kolektor_sdd2")
    truncate(written[1] / "test/20000_GT.png")
    assert open_dataset(written[1]).read_training("kolektor_sdd2") == expected


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("kolektor_sdd", "kosx1/Part0_label.bmp"),
        ("mvtec_loco", "settings/defects_config.json"),
    ],
)
def test_another_folder_is_no_part_of_it(written, name, other):
    expected = open_dataset(written[1]).read_category(*written[0].categories)
    (written[1] / other).parent.mkdir(parents=True)
    (written[1] / other).touch()
    dataset = open_dataset(written[1])
    assert dataset.find_categories() == list(written[0].categories)
    assert dataset.read_category(*written[0].categories) == expected


@pytest.mark.parametrize("name", ["mvtec_ad_2"])
def test_images_that_a_split_leaves_out_are_no_findings(written):
    category = open_dataset(written[1]).read_category("can")
    assert category.left_out
    assert category.findings() == []


@pytest.mark.parametrize("name", ["mvtec_3d", "mvtec_ad_2"])
def test_validation_images_need_not_exist(written):
    (category,) = written[0].categories
    expected = open_dataset(written[1]).read_category(category)
    shutil.rmtree(written[1] / category / "validation")
    found = open_dataset(written[1]).read_category(category)
    assert (found.train, found.test) == (expected.train, expected.test)


@pytest.mark.parametrize("name", ["real_iad"])
def test_other_sizes_of_real_iad_are_named(written):
    assert open_dataset(written[1]).read_category("mint").facts == ()
    for size in ("realiad_512", "realiad_raw"):
        shutil.copytree(written[1] / "realiad_256", written[1] / size)
    assert open_dataset(written[1]).read_category("mint").facts == (
        "images of realiad_raw; not used: realiad_512, realiad_256",
    )


@pytest.mark.parametrize("name", ["magnetic_tile"])
def test_every_defect_of_magnetic_tile_needs_its_mask(written):
    (written[1] / "MT_Crack/Imgs/exp1_num_0.png").unlink()
    with pytest.raises(DatasetError, match=r"expected the mask .*num_0.png of .*num_0.jpg"):
        open_dataset(written[1]).read_category("magnetic_tile")


@pytest.mark.parametrize("name", ["visa"])
@pytest.mark.parametrize(
    "gone", ["Images/Normal/0004.JPG", "Images/Anomaly/000.JPG", "Masks/Anomaly/000.png"]
)
def test_every_file_of_the_split_of_visa_is_needed(written, gone):
    (written[1] / "candle/Data" / gone).unlink()
    with pytest.raises(DatasetError, match=f"{gone}, which .*1cls.csv lists, found none"):
        open_dataset(written[1]).read_category("candle")


@pytest.mark.parametrize("name", ["visa"])
def test_the_split_of_visa_may_be_written_in_any_case(written):
    expected = open_dataset(written[1]).read_training("candle")
    split = written[1] / "split_csv/1cls.csv"
    split.write_text(split.read_text().replace(",train,", ",Train,"))
    assert open_dataset(written[1]).read_training("candle") == expected


@pytest.mark.parametrize("name", ["magnetic_tile"])
def test_masks_may_have_their_ending_in_capitals(written):
    miniature, path = written
    for file in path.rglob("*.png"):
        file.rename(file.with_suffix(".PNG"))
    category = open_dataset(path).read_category("magnetic_tile")
    assert len(category.train) == len(miniature.categories["magnetic_tile"].train)
    assert [sample.mask and sample.mask.paths[0].name for sample in category.test] == [
        None,
        "exp1_num_0.PNG",
    ]


@pytest.mark.parametrize("name", ["real_iad"])
def test_a_list_of_real_iad_that_does_not_fit(written):
    dataset, source = open_dataset(written[1]), "realiad_jsons/realiad_jsons/mint.json"
    image = written[1] / "realiad_256/mint/OK/S0000/mint_0000_OK_C1.jpg"
    image.unlink()
    with pytest.raises(DatasetError, match=f"expected {image}, which .*{source} lists, found none"):
        dataset.read_category("mint")
    (written[1] / source).write_text('{"meta": {}}')
    message = f"expected meta, train and test as in Real-IAD in .*{source}, .*KeyError.'normal_cl"
    with pytest.raises(DatasetError, match=message):
        dataset.read_category("mint")


@pytest.mark.parametrize("name", ["real_iad"])
def test_a_mask_path_of_real_iad_is_that_of_a_defective_image(written):
    dataset, source = open_dataset(written[1]), "realiad_jsons/realiad_jsons/mint.json"
    content = json.loads((written[1] / source).read_text())
    good, defective = content["test"]
    assert (good["anomaly_class"], defective["anomaly_class"]) == ("OK", "QS")
    expected = dataset.read_category("mint").test
    good["mask_path"] = "gone.png"
    (written[1] / source).write_text(json.dumps(content))
    assert dataset.read_category("mint").test == expected
    defective["mask_path"] = None
    (written[1] / source).write_text(json.dumps(content))
    assert [sample.mask for sample in dataset.read_category("mint").test] == [None, None]


@pytest.mark.parametrize("name", ["real_iad"])
def test_of_several_sizes_of_real_iad_the_published_one_is_read(written):
    assert open_dataset(written[1]).read_category("mint").facts == ()
    shutil.copytree(written[1] / "realiad_256", written[1] / "realiad_1024")
    category = open_dataset(written[1]).read_category("mint")
    assert category.facts == ("images of realiad_1024; not used: realiad_256",)
    assert {s.path.relative_to(written[1]).parts[0] for s in category.train} == {"realiad_1024"}


@pytest.mark.parametrize("name", ["real_iad"])
def test_lists_of_real_iad_need_one_size_of_its_images(written):
    (written[1] / "realiad_256").rename(written[1] / "realiad_raw")
    (written[1] / "realiad_jsons/realiad_jsons/other.json").write_text("{}")  # without images
    assert open_dataset(written[1]).find_categories() == ["mint"]
    (written[1] / "realiad_raw").rename(written[1] / "images")
    with pytest.raises(DatasetError, match=r"layout real_iad.* found no realiad_1024; "):
        open_dataset(written[1])


@pytest.mark.parametrize(
    ("name", "mask", "twin"),
    [
        ("kolektor_sdd", "Part99_label.bmp", "*_label.bmp"),
        ("kolektor_sdd2", "99_GT.png", "test/*_GT.png"),
        ("magnetic_tile", "exp99.png", "MT_[B-Z]*/Imgs/*.png"),
        ("dagm", "0099_label.PNG", "Test/Label/*.PNG"),
        ("mvtec", "099_mask.png", "ground_truth/*/*.png"),
        ("mvtec_3d", "099.png", "gt/*.png"),
    ],
)
def test_a_mask_of_no_image_is_reported(written, name, mask, twin):
    _, path = written
    other = next(file for file in sorted(path.rglob(twin)) if "good" not in file.parts)
    shutil.copy(other, other.with_name(mask))
    dataset = open_dataset(path)
    spare = [
        left
        for category in dataset.find_categories()
        for left in dataset.read_category(category).left_out
        if left.reason == "masks of no image"
    ]
    assert [left.path for left in spare] == [other.with_name(mask)]
