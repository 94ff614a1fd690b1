"""Names of images, masks and lists in different forms of Unicode, as macOS writes them."""

import unicodedata

import numpy as np
import pytest

from datasets.base import DatasetError
from datasets.layouts import open_dataset
from datasets.listing import list_files
from tests.datasets.miniatures import BAD, EMPTY, GOOD, MASK, write_file

ONE, OTHER = (unicodedata.normalize(form, "mü") for form in ("NFC", "NFD"))
COCO = {
    "images": [{"id": 0, "file_name": "0.png"}, {"id": 1, "file_name": f"{OTHER}.png"}],
    "annotations": [{"image_id": 1, "category_id": 0, "bbox": [1, 1, 5, 5]}],
    "categories": [{"id": 0, "name": "dent"}],
}
LABELME = {"shapes": [{"label": "dent", "points": [[1, 1], [9, 1], [9, 9]]}]}
REAL_IAD = {
    "meta": {"normal_class": "OK", "prefix": "nut/"},
    "train": [{"image_path": "0.png", "anomaly_class": "OK"}],
    "test": [{"image_path": f"{OTHER}.png", "mask_path": f"{ONE}_m.png", "anomaly_class": "dent"}],
}
VISA = f"""object,split,label,image,mask
nut,train,normal,nut/Data/Images/0.png,
nut,test,anomaly,nut/Data/Images/{OTHER}.png,nut/{ONE}_m.png
"""
MVTEC = {"train/good/0.png": GOOD, f"test/{ONE}/{ONE}.png": BAD}
# Of each layout one defective image, named in one form, and what belongs to it in the other.
TREES = {
    "mvtec": MVTEC | {f"ground_truth/{OTHER}/{OTHER}_mask.png": MASK},
    "mvtec, masks in folders": MVTEC | {f"ground_truth/{OTHER}/{OTHER}/0.png": MASK},
    "mvtec_ad_2": {
        "train/good/0.png": GOOD,
        f"test_public/{ONE}/{ONE}_shift_1.png": BAD,
        f"test_public/ground_truth/{OTHER}/{OTHER}_shift_1_mask.png": MASK,
    },
    "folder": {"good/0.png": GOOD, f"{ONE}/{ONE}.png": BAD, f"masks/{OTHER}/{OTHER}.png": MASK},
    "kolektor_sdd": {
        **{"kos01/0.jpg": GOOD, "kos01/0_label.bmp": EMPTY},
        **{f"kos02/{ONE}.jpg": BAD, f"kos02/{OTHER}_label.bmp": MASK},
    },
    "magnetic_tile": {
        "MT_Free/Imgs/0.jpg": GOOD,
        **{f"MT_Crack/Imgs/{ONE}.jpg": BAD, f"MT_Crack/Imgs/{OTHER}.png": MASK},
    },
    "dagm": {
        **{"Train/0.PNG": GOOD, "Train/1.PNG": BAD, "Train/Label/1_label.PNG": MASK},
        **{f"Test/{ONE}.PNG": BAD, f"Test/Label/{OTHER}_label.PNG": MASK},
    },
    "csv": {
        **{"0.png": GOOD, f"{ONE}.png": BAD, f"{OTHER}_m.png": MASK},
        "list.csv": f"path,label,mask\n0.png,,\n{OTHER}.png,dent,{ONE}_m.png\n",
    },
    "coco": {"0.png": GOOD, f"{ONE}.png": BAD, "list.json": COCO},
    "labelme": {"0.png": GOOD, f"{ONE}.png": BAD, f"{OTHER}.json": LABELME},
    "real_iad": {
        "realiad_jsons/nut.json": REAL_IAD,
        **{f"realiad_1024/nut/{name}": GOOD for name in ("0.png", f"{ONE}.png", f"{OTHER}_m.png")},
    },
    "visa": {
        "split_csv/1cls.csv": VISA,
        **{"nut/Data/Images/0.png": GOOD, f"nut/Data/Images/{ONE}.png": BAD},
        f"nut/{OTHER}_m.png": MASK,
    },
}


@pytest.fixture
def tree(tmp_path, request):
    """Return the folder of a tree, or its list."""
    rng = np.random.default_rng(0)
    for name, content in TREES[request.param].items():
        write_file(tmp_path / name, content, rng)
    return tmp_path / "list.csv" if request.param == "csv" else tmp_path


@pytest.mark.parametrize("tree", TREES, indirect=True)
def test_a_defective_image_has_its_mask(tree):
    dataset = open_dataset(tree)
    (name,) = dataset.find_categories()
    (defective,) = (s for s in dataset.read_category(name).test if s.is_defective)
    assert unicodedata.normalize("NFC", defective.path.name).startswith(ONE)
    assert defective.mask
    assert all(file.is_file() for file in defective.files)


def test_two_images_of_one_name_are_refused(tmp_path):
    write_file(tmp_path / f"{ONE}.png", b"", np.random.default_rng(0))
    write_file(tmp_path / f"{OTHER}.png", b"", np.random.default_rng(0))
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system does not distinguish the forms")
    with pytest.raises(DatasetError, match="one image of each name"):
        list_files(tmp_path)


def test_two_images_of_one_name_need_not_be_neighbours(tmp_path):
    for name in ("a.bmp", "a.c.png", "a.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"one image of each name, found .*a.bmp and a.jpg"):
        list_files(tmp_path)
