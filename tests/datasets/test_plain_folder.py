"""Folders of one's own, with the names that people give."""

import shutil
import unicodedata
from pathlib import Path

import pytest

from datasets.base import GOOD, DatasetError, LeftOut, MaskFiles
from datasets.entries import ReadOptions
from datasets.folders import RESULT_FILES
from datasets.layouts import open_dataset
from datasets.listing import GOOD_NAMES, as_name, is_good_name
from datasets.plain_folder import OUTSIDE


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_results(folder, *files):
    """Make the files that identify results, and images such as results have."""
    touch(folder, *files, "localization_dent_a.png", "masks/a.png", "earlier/1/a.png")
    for path in folder.glob("*.json"):
        path.write_text("{}")


@pytest.fixture
def root(tmp_path):
    return touch(tmp_path / "nut", "good/0.png", "good/1.png", "dent/a.png", "dent/b.png")


def read(path, **options):
    dataset = open_dataset(path, options=ReadOptions(**options))
    assert dataset.layout == "folder"
    (name,) = dataset.find_categories()
    return dataset.read_category(name)


def masks(category):
    return {s.path.name: s.mask and s.mask.paths[0] for s in category.test if s.is_defective}


@pytest.mark.parametrize(
    "name", ["good", "OK", "Normal", "normals", "defect_free", "Defect-Free", "free", "no defects"]
)
@pytest.mark.parametrize("layout", ["folder", "mvtec"])
def test_the_usual_names_of_good_folders(tmp_path, name, layout):
    train, test = ("train/", "test/") if layout == "mvtec" else ("", "")
    root = touch(tmp_path / "nut", f"{train}{name}/0.png", f"{train}{name}/1.png")
    touch(root, f"{test}{name}/2.png", f"{test}dent/a.png")
    category = open_dataset(root).read_category("nut")
    assert {s.defect_type for s in category.train} == {GOOD}
    assert [s.defect_type for s in category.test] == [GOOD, "dent"]


@pytest.mark.parametrize("files", RESULT_FILES)
@pytest.mark.parametrize("place", ["result", "kept/model", "dent/again", "good/again"])
def test_results_among_the_images_are_no_images(root, files, place):
    without = read(root)
    write_results(root / place, *files)
    category = read(root)
    assert (category.train, category.test) == (without.train, without.test)
    note = f"results of this program in {root / place} are not read"
    assert set(category.notes) - set(without.notes) == {note}
    assert category.left_out == without.left_out


@pytest.mark.parametrize("place", ["", "good"])
def test_results_beside_good_images_are_refused(root, place):
    """Figures would be learned; images would be missing if the folder was left out."""
    write_results(root / place, *RESULT_FILES[0])
    with pytest.raises(DatasetError, match="found results of this program among them"):
        read(root)


def test_results_in_a_folder_that_the_user_names_are_read(root):
    touch(root / "dent", "run.json", "results.csv")
    assert [s.defect_type for s in read(root, abnormal_dir=("dent",)).test][-2:] == ["dent"] * 2


def test_results_in_a_folder_of_mvtec_ad_leave_its_images(tmp_path):
    root = touch(tmp_path / "nut", "train/good/0.png", "test/good/0.png", "test/dent/0.png")
    expected = open_dataset(tmp_path).read_category("nut").test
    for folder in (root, root / "test/good"):
        touch(folder, *RESULT_FILES[0], "pictures/0.png")
        assert open_dataset(tmp_path).read_category("nut").test == expected


@pytest.mark.parametrize("files", RESULT_FILES)
def test_results_next_to_categories_are_no_category(root, files):
    write_results(root.parent / "result", *files)
    assert open_dataset(root.parent).find_categories() == ["nut"]


@pytest.mark.parametrize("name", ["goods", "nok", "ok2", "not good", "freezing", "abnormal"])
def test_other_names_are_defect_types(name):
    assert not is_good_name(name)


def test_good_names_are_in_their_plain_form():
    assert all(is_good_name(name) and name.islower() for name in GOOD_NAMES)


def test_two_good_folders_are_both_good_and_reported(root):
    touch(root, "ok/2.png")
    category = read(root, holdout=0.5)
    assert len(category.train) + sum(not s.is_defective for s in category.test) == 3
    assert category.notes[0] == f"good and ok in {root} are both taken as good images"


def test_two_good_test_folders_in_the_layout_of_mvtec_ad(tmp_path):
    root = touch(tmp_path / "nut", "train/good/0.png", "test/good/0.png", "test/OK/0.png")
    touch(root, "test/dent/0.png")
    category = open_dataset(root).read_category("nut")
    assert [(s.defect_type, s.name) for s in category.test] == [
        ("good", "test_OK_0"),
        ("good", "test_good_0"),
        ("dent", "0"),
    ]
    assert category.notes[0] == f"OK and good in {root / 'test'} are both taken as good images"


@pytest.mark.parametrize(
    "folder", ["masks", "mask", "ground_truth", "GT", "labels", "annotations", "defect_masks"]
)
@pytest.mark.parametrize("inside", ["dent/", ""])
@pytest.mark.parametrize("ending", ["_mask", ""])
def test_masks_by_stem(root, folder, inside, ending):
    touch(root, f"{folder}/{inside}a{ending}.bmp", f"{folder}/{inside}b{ending}.png")
    category = read(root)
    where = root / folder / inside
    assert masks(category) == {"a.png": where / f"a{ending}.bmp", "b.png": where / f"b{ending}.png"}
    assert category.has_masks


def test_masks_beside_defective_images(root):
    touch(root, "dent/a_mask.png")
    assert masks(read(root)) == {"a.png": root / "dent/a_mask.png", "b.png": None}


def test_folders_of_systems_and_links_to_outer_folders_are_not_read(root):
    for folder in ("good", "dent", "."):
        touch(root, f"{folder}/@eaDir/0.png/THUMB_M.jpg", f"{folder}/__MACOSX/0.png")
        (root / folder / "loop").symlink_to("..", target_is_directory=True)
    category = read(root, abnormal_dir=("dent",))  # which also reports all other images
    assert [s.path.name for s in category.test] == [category.test[0].path.name, "a.png", "b.png"]
    assert len(category.train) == 1
    assert not category.left_out


def test_masks_without_an_image_are_left_out(root):
    touch(root, "masks/a.png", "masks/c.png")
    category = read(root)
    assert category.left_out == (LeftOut(root / "masks/c.png", "masks of no defective image"),)


def test_masks_none_of_which_fits_are_refused(root):
    touch(root, "masks/x1.png")
    with pytest.raises(
        DatasetError, match=r"for example a_mask.png, found .*x1.png \(--mask_dir\)"
    ):
        read(root)


def test_a_mask_is_not_shared_by_two_images(root):
    touch(root, "scratch/a.png", "masks/a.png")
    with pytest.raises(DatasetError, match=r"a mask of its own for each image, found .*a.png for"):
        read(root)


@pytest.mark.parametrize("ending", ["_mask", "_GT", "_label"])
def test_masks_among_good_images_are_refused(root, ending):
    touch(root, f"good/1{ending}.png")
    with pytest.raises(DatasetError, match=rf"found 1 with a mask, such as 1{ending}.png of 1.png"):
        read(root)


class TestSubfolders:
    """Images in different subfolders may have the same names."""

    def test_every_image_is_read(self, tmp_path):
        root = touch(tmp_path / "nut", *(f"good/{n}.png" for n in "abc"), "good/monday/a.png")
        touch(root, "bent/front/0.png", "bent/back/0.png", "bent/0.png")
        category = read(root, holdout=0.25)
        good = [s.path for s in (*category.train, *category.test) if not s.is_defective]
        assert sorted(good) == sorted((root / "good").rglob("*.png"))
        assert [(s.defect_type, s.name) for s in category.test if s.is_defective] == [
            ("bent", "0"),
            ("bent_back", "0"),
            ("bent_front", "0"),
        ]

    @pytest.mark.parametrize(
        "mask",
        [
            *("masks/dent/{}/0.png", "masks/{}/0.png", "dent/masks/{}/0.png", "dent/{}/gt/0.png"),
            *("dent/{}/0_mask.png", "Masks/dent/{}/0_mask.png", "ground_truth/{}/0_mask.bmp"),
        ],
    )
    def test_masks_mirror_the_folders_of_their_images_or_are_next_to_them(self, root, mask):
        shutil.rmtree(root / "dent")
        sides = ("back", "front")
        for side in sides:
            touch(root, f"dent/{side}/0.png", mask.format(side))
        found = {s.defect_type: s.mask.paths for s in read(root).test if s.is_defective}
        assert found == {f"dent_{side}": (root / mask.format(side),) for side in sides}

    @pytest.mark.parametrize("mask", ["masks/dent/0.png", "masks/0.png", "dent/masks/0_mask.png"])
    def test_masks_without_these_folders(self, root, mask):
        shutil.rmtree(root / "dent")
        touch(root, "dent/front/0.png", mask)
        assert masks(read(root)) == {"0.png": root / mask}
        touch(root, "dent/back/0.png")
        with pytest.raises(DatasetError, match=r"a mask of its own for each image"):
            read(root)

    def test_masks_in_another_folder_of_the_same_type(self, root):
        touch(root, "dent/drawn/a_mask.png")
        assert masks(read(root)) == {"a.png": root / "dent/drawn/a_mask.png", "b.png": None}
        touch(root, "dent/c/a.png")
        with pytest.raises(DatasetError, match=r"image of the mask .*a_mask.png next to it, found"):
            read(root)

    @pytest.mark.parametrize(
        "names", [("dent/a_mask.png", "dent/a_GT.png"), ("masks/a.png", "gt/a.png")]
    )
    def test_two_masks_of_one_image(self, root, names):
        touch(root, *names)
        with pytest.raises(DatasetError, match="expected one mask of "):
            read(root)

    def test_a_folder_of_masks_among_good_images_is_refused(self, root):
        touch(root, "good/masks/0.png", "good/masks/a.png")
        message = r"good images in .*good, found masks in .*good/masks: .*--mask_dir"
        with pytest.raises(DatasetError, match=message):
            read(root)
        category = read(root, mask_dir="good/masks", holdout=0.5)
        assert (len(category.train), len(category.left_out)) == (1, 1)


class TestImagesAlone:
    def test_a_folder_of_images_is_one_category(self, tmp_path):
        root = touch(tmp_path / "nut", *(f"{n}.jpg" for n in range(5)))
        category = read(root)
        assert (category.name, len(category.train), len(category.test)) == ("nut", 4, 1)
        assert category.notes == (
            f"the images in {root} are taken as good: it has no subfolder good",
            "no test image is defective: there are no metrics",
        )

    def test_with_defect_folders_and_masks(self, tmp_path):
        root = touch(tmp_path / "nut", "0.png", "1.png", "dent/a.png", "mask/a.png")
        assert masks(read(root)) == {"a.png": root / "mask/a.png"}

    def test_a_folder_of_such_folders_has_several_categories(self, tmp_path):
        touch(tmp_path, "nut/0.png", "nut/1.png", "bolt/good/0.png", "bolt/good/1.png", "a.txt")
        dataset = open_dataset(tmp_path)
        assert (dataset.layout, dataset.find_categories()) == ("folder", ["bolt", "nut"])

    @pytest.mark.parametrize("stray", ["overview.png", "good/0.png"])
    def test_one_category_or_several(self, tmp_path, stray):
        touch(tmp_path, stray, "nut/good/0.png", "nut/good/1.png", "nut/bent/2.png")
        with pytest.raises(DatasetError, match=r"one category in .*, found good images .*nut/good"):
            open_dataset(tmp_path).find_categories()
        category = read(tmp_path, normal_dir="nut/good", abnormal_dir=("nut/bent",))
        assert category.describe() == "1 training, 2 test images (1 good, 1 nut_bent)"
        assert open_dataset(tmp_path / "nut").find_categories() == ["nut"]

    def test_images_beside_a_good_folder_are_left_out(self, root):
        touch(root, "stray.png")
        reason = "images outside the folder of good images"
        assert read(root).left_out == (LeftOut(root / "stray.png", reason),)

    def test_defective_images_alone_are_not_learned_as_good(self, root):
        shutil.rmtree(root / "good")
        (root / "dent").rename(root / "defects")
        with pytest.raises(DatasetError, match="found no folder of good images next to defects"):
            open_dataset(root)


class TestNamedFolders:
    def test_names_that_differ(self, tmp_path):
        root = touch(tmp_path / "nut", "a/0.png", "a/1.png", "b/x.png", "c/y.png", "d/x.png")
        category = read(root, normal_dir="a", abnormal_dir=("b",), mask_dir="d")
        assert masks(category) == {"x.png": root / "d/x.png"}
        assert [s.defect_type for s in category.test] == [GOOD, "b"]
        assert category.left_out == (LeftOut(root / "c/y.png", OUTSIDE),)

    def test_by_default_all_other_folders_are_defective(self, tmp_path):
        root = touch(tmp_path / "nut", "a/0.png", "a/1.png", "b/x.png", "c/y.png", "masks/x.png")
        category = read(root, normal_dir="a")
        assert masks(category) == {"x.png": root / "masks/x.png", "y.png": None}

    def test_the_folder_of_masks_alone(self, root):
        touch(root, "drawn/a.png")
        category = read(root, mask_dir="drawn")
        assert masks(category) == {"a.png": root / "drawn/a.png", "b.png": None}

    def test_a_file_belongs_to_the_innermost_of_them(self, tmp_path):
        root = touch(tmp_path / "nut", *(f"a/clean/{n}.png" for n in range(4)), "a/b/x.png")
        touch(root, "a/clean/c/y.png", "labels/drawn/x.png", "masks/y.png")
        options = {"normal_dir": "a/clean", "mask_dir": "labels/drawn"}
        category = read(root, **options, abnormal_dir=("a", "a/clean/c"))
        assert category.describe() == "3 training, 3 test images (1 good, 1 a_b, 1 a_clean_c)"
        assert masks(category) == {"x.png": root / "labels/drawn/x.png", "y.png": None}
        assert category.left_out == (LeftOut(root / "masks/y.png", OUTSIDE),)
        others = read(root, **options)
        assert others.describe() == "4 training, 2 test images (1 good, 1 a_b)"

    @pytest.mark.parametrize(
        ("options", "outside"),
        [
            ({"normal_dir": "a"}, "good/0.png"),
            ({"abnormal_dir": ("a",)}, "dent/x.png"),
            ({"mask_dir": "a"}, "masks/x.png"),
        ],
    )
    def test_each_of_them_alone_leaves_other_images_outside(self, tmp_path, options, outside):
        files = {f"{folder}/{n}.png" for folder in ("good", "a") for n in range(2)}
        root = touch(tmp_path / "nut", *files, "dent/0.png", outside)
        left_out = read(root, **options).left_out
        assert LeftOut(root / outside, OUTSIDE) in left_out
        assert {left.path.parent.name for left in left_out if left.reason == OUTSIDE} == {
            Path(outside).parent.name
        }

    def test_good_images_next_to_the_other_folders(self, tmp_path):
        root = touch(tmp_path / "nut", "0.png", "1.png", "dent/x.png", "masks/x.png")
        category = read(root, normal_dir=".")
        assert category.describe() == "1 training, 2 test images (1 good, 1 dent)"
        assert category.left_out == ()

    def test_in_a_folder_of_categories(self, tmp_path):
        touch(tmp_path, "nut/a/0.png", "bolt/a/0.png", "other/b/0.png")
        dataset = open_dataset(tmp_path, options=ReadOptions(normal_dir="a"))
        assert dataset.find_categories() == ["bolt", "nut"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"normal_dir": "x"}, r"expected categories .* --normal_dir"),
            (
                {"normal_dir": "good", "abnormal_dir": ("x",)},
                r"the folder .*x, found none \(--abno",
            ),
            ({"normal_dir": "good", "mask_dir": "x"}, r"the folder .*x, found none .*--mask_dir"),
        ],
    )
    def test_folders_that_are_missing(self, root, options, message):
        with pytest.raises(DatasetError, match=message):
            read(root, **options)


def test_training_needs_the_good_folder_alone(root):
    shutil.rmtree(root / "dent")
    (root / "masks").mkdir()
    category = open_dataset(root).read_training("nut")
    assert len(category.train) == 2


@pytest.mark.parametrize(
    ("text", "name"),
    [("a/b", "a_b"), ("  x ", "x"), ("..", "_"), ("a\\b:c\n", "a_b_c"), ("", "_"), ("é 1", "é 1")],
)
def test_labels_become_parts_of_file_names(text, name):
    assert as_name(text) == name


def test_a_mask_file_is_one_path(root):
    touch(root, "masks/a.png")
    (sample,) = [s for s in read(root).test if s.path.name == "a.png"]
    assert sample.mask == MaskFiles((root / "masks/a.png",))


def test_only_images_and_masks_are_no_categories(tmp_path):
    root = touch(tmp_path / "nut", "images/a.png", "images/b.png", "masks/a.png")
    with pytest.raises(DatasetError, match=rf"found masks in {root}/masks: put good and defective"):
        open_dataset(root).find_categories()
    category = read(root, normal_dir="images")
    assert len(category.train) + len(category.test) == 2


@pytest.mark.parametrize("options", [{"mask_dir": "x"}, {"normal_dir": "fine"}])
def test_a_category_that_named_folders_hide(tmp_path, options):
    root = touch(tmp_path / "data", "nut/train/good/0.png", "nut/test/dent/0.png")
    dataset = open_dataset(root, "folder", ReadOptions(**options))
    with pytest.raises(DatasetError, match=rf"expected categories in {root}, found none .*_dir"):
        dataset.read_category("nut")


def test_a_category_may_be_called_like_masks(tmp_path):
    root = touch(
        tmp_path / "data", *(f"{name}/good/{n}.png" for name in ("gt", "nut") for n in "01")
    )
    assert open_dataset(root).find_categories() == ["gt", "nut"]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
@pytest.mark.parametrize("layout", ["folder", "beside", "mvtec"])
def test_masks_are_found_whatever_the_form_of_an_accent(tmp_path, layout, forms):
    image, mask = (unicodedata.normalize(form, "gr\xfcn") for form in forms)
    root = tmp_path / "nut"
    good = ("train/good/0.png", "test/good/0.png") if layout == "mvtec" else ("good/0.png",) * 2
    touch(root, *good, good[0].replace("0", "1"))
    folder = "test/" if layout == "mvtec" else ""
    masks_in = "dent" if layout == "beside" else "ground_truth/dent"
    touch(root, f"{folder}dent/{image}.png", f"{masks_in}/{mask}_mask.png")
    category = open_dataset(root).read_category("nut")
    (found,) = (sample.mask for sample in category.test if sample.is_defective)
    assert found.paths == (root / masks_in / f"{mask}_mask.png",)
