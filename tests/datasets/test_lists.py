"""Lists of images: CSV, COCO's and LabelMe's annotations, and how they may be written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.base import DatasetError, Ellipse, MaskFiles, MaskShapes, Polygon, RunLengths
from datasets.csv_files import read_rows
from datasets.images import read_sample
from datasets.layouts import open_dataset
from datasets.notes import Notes
from datasets.polygons import UPRIGHT_SHAPES
from tests.datasets.miniatures import (
    BAD,
    BOX,
    COCO,
    GOOD,
    LABELME,
    MASK,
    numbered,
    write_file,
)

AREA = 24 * 16
LINES = "path,label,mask,split\n0.png,good,,\n1.png,ok,,\nb.png,dent,m.png,\n"


@pytest.fixture
def write(tmp_path):
    def write(files):
        rng = np.random.default_rng(0)
        for name, content in files.items():
            write_file(tmp_path / name, content, rng)
        return tmp_path

    return write


class TestCsv:
    @pytest.fixture
    def folder(self, write):
        return write({**numbered("{}.png", 2), "b.png": BAD, "m.png": MASK})

    def read(self, folder, content, name="list.csv"):
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        dataset = open_dataset(path)
        assert dataset.layout == "csv"
        (only,) = dataset.find_categories()
        return dataset.read_category(only)

    @pytest.mark.parametrize(
        "content",
        [
            LINES.encode("utf-8-sig"),
            LINES.encode("utf-16"),
            LINES.replace(",", ";").encode(),
            LINES.replace(",", "\t").encode(),
            LINES.replace("\n", "\r\n").encode() + b"\r\n,,,\r\n",
            LINES.replace("path,label,mask,split", " Path , LABEL,Mask,SPLIT").encode(),
            LINES.replace(",good", ", good ").encode(),
        ],
        ids=["BOM", "UTF-16", "semicolons", "tabs", "CRLF", "header", "spaces"],
    )
    def test_what_spreadsheets_write_is_read_alike(self, folder, content):
        assert self.read(folder, content) == self.read(folder, LINES)

    def test_other_encodings_are_read_as_latin_1_and_reported(self, folder):
        (folder / "0.png").rename(folder / "\xe9.png")
        category = self.read(folder, LINES.replace("0.png", "\xe9.png").encode("latin-1"))
        assert folder / "\xe9.png" in [s.path for s in (*category.train, *category.test)]
        assert category.notes[0] == f"{folder / 'list.csv'} is not UTF-8: read as Latin-1"

    def test_only_the_path_is_needed(self, folder):
        category = self.read(folder, "path\n0.png\n1.png\n")
        assert {s.defect_type for s in (*category.train, *category.test)} == {"good"}
        assert "has no column label: all images are taken as good" in category.notes[0]
        (folder / "one.csv").write_text("path\n0.png\n")
        trained = open_dataset(folder / "one.csv").read_training("one")
        assert [s.path.name for s in trained.train] == ["0.png"]

    def test_a_column_of_categories(self, folder):
        path = folder / "list.csv"
        lines = "path,category\n0.png,nut\n1.png,nut\nb.png,a/b\nm.png,a/b\n"
        path.write_text(lines)
        dataset = open_dataset(path)
        assert dataset.find_categories() == ["a_b", "nut"]
        assert [s.path.name for s in dataset.read_training("nut").train] == ["0.png", "1.png"]
        with pytest.raises(DatasetError, match=r"name \(a_b, nut\), found 'bolt' in "):
            dataset.read_category("bolt")

    def test_columns_that_are_not_used_are_reported(self, folder):
        category = self.read(folder, "path,label,operator\n0.png,good,x\n1.png,0,\nb.png,bad,\n")
        assert category.notes[0].endswith("that are not used: operator")

    def test_values_with_line_breaks_of_any_kind(self, folder):
        content = 'path,label\n0.png,\nb.png,"be\r\nnt"\n1.png,x\x85y\u2028z\n'
        assert [s.defect_type for s in self.read(folder, content).test] == [
            "be_nt",
            "x\x85y\u2028z",
        ]

    def test_defect_types_with_one_file_name_are_reported(self, folder):
        category = self.read(folder, "path,label\n0.png,\nb.png,bent/x\n1.png,bent:x\n")
        assert [s.defect_type for s in category.test] == ["bent_x", "bent_x"]
        note = "defect types with one file name, counted as one: bent/x, bent:x"
        assert note in category.notes

    def test_masks_of_good_images_are_not_used(self, folder):
        category = self.read(
            folder, "path,label,mask\n0.png,good,m.png\n1.png,ok,\nb.png,bad,m.png\n"
        )
        masks = {s.path.name: s.mask for s in category.test if s.mask}
        assert masks == {"b.png": MaskFiles((folder / "m.png",))}

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ("file,label\n0.png,good\n", r"expected columns path in .*list.csv, found file, label"),
            ("", r"expected columns path .*found an empty file"),
            ("path\n", r"expected images in the lines of .*list.csv, found none"),
            ("path,label\n,good\n", r"expected a path in each line"),
            ("path\n0.png,good\n", r"expected 1 values, found 2 in line 2 of .*list.csv"),
            ("path\ngone.png\n", r"expected .*gone.png, which .*list.csv lists, found none"),
            ("path,label,mask\nb.png,bad,gone.png\n", r"expected .*gone.png, which"),
            ("path,mask\n0.png,\n1.png,m.png\n", r"expected a label of .*1.png, which has a mask"),
            ("path,label,Path\n0.png,,\n", r"expected each column once in .*, found path twice"),
            ("path\n0.png\n0.png\n", r"expected each image once, found .*0.png twice"),
            (
                "path,category\n0.png,a/b\n1.png,a_b\n",
                r"categories with different file names, found 'a/b' and 'a_b' in .*list.csv, both",
            ),
            ("path,split\n0.png,tst\n", r"expected the split .*, found 'tst' in .*list.csv"),
        ],
    )
    def test_mistakes(self, folder, lines, message):
        with pytest.raises(DatasetError, match=message):
            self.read(folder, lines)

    def test_a_file_that_cannot_be_read(self, tmp_path):
        with pytest.raises(DatasetError, match=r"cannot read .*gone.csv: No such file"):
            read_rows(tmp_path / "gone.csv")


class TestCoco:
    def read(self, path, **options):
        dataset = open_dataset(path)
        assert dataset.layout == "coco"
        (name,) = dataset.find_categories()
        return dataset.read_category(name)

    def files(self, folder="images/"):
        return {**numbered(f"{folder}{{}}.png", 6), f"{folder}bad.png": BAD}

    @pytest.mark.parametrize(
        ("annotations", "images"),
        [("a.json", ""), ("a.json", "images/"), ("annotations/a.json", ""),
         ("annotations/a.json", "images/")],
    )  # fmt: skip
    def test_images_are_found_in_the_usual_places(self, write, annotations, images):
        folder = write({**self.files(images), annotations: COCO})
        category = self.read(folder)
        assert len(category.train) + len(category.test) == 7

    @pytest.mark.parametrize(
        ("annotations", "images"),
        [("annotations/instances_{}.json", "{}2017/"), ("{}/_annotations.coco.json", "{}/")],
    )
    def test_one_file_per_split(self, write, annotations, images):
        files = {}
        for split in ("train", "valid", "test"):
            files |= self.files(images.format(split))
            files[annotations.format(split)] = COCO
        category = self.read(write(files))
        assert len(category.train) == 6
        assert len(category.test) == 7
        assert [s.defect_type for s in category.test] == ["good"] * 6 + ["scratch"]
        assert category.remarks() == [
            f"1 file skipped: defective images of the training split ({category.left_out[0].path})",
            f"7 files skipped: validation images (for example {category.left_out[1].path})",
        ]

    def test_training_needs_no_test_images(self, write):
        files = {**self.files("train/"), "train/a.json": COCO, "test/a.json": COCO}
        dataset = open_dataset(write(files))
        (name,) = dataset.find_categories()
        assert len(dataset.read_training(name).train) == 6
        with pytest.raises(DatasetError, match=r"expected the image 0.png, which .*test.a.json"):
            dataset.read_category(name)

    def test_files_whose_split_is_unclear_are_refused(self, write):
        folder = write({**self.files(), "a.json": COCO, "b.json": COCO})
        with pytest.raises(DatasetError, match=r"expected train, test or val in the name .*a.json"):
            self.read(folder)

    def test_classes_are_defect_types_and_good_ones_are_none(self, write):
        content = json.loads(json.dumps(COCO))
        content["categories"].append({"id": 3, "name": "OK"})
        box = content["annotations"][0]
        content["annotations"] += [
            {**box, "id": 2, "category_id": 2},
            {**box, "id": 3, "image_id": 0, "category_id": 3},
        ]
        category = self.read(write({**self.files(), "a.json": content}))
        defective = [s for s in category.test if s.is_defective]
        assert [(s.path.name, s.defect_type) for s in defective] == [("bad.png", "dent+scratch")]
        assert defective[0].mask == MaskShapes(
            category.test[-1].mask.source, (Polygon(tuple(map(tuple, BOX))),) * 2, (64, 64)
        )

    @pytest.mark.parametrize("segmentation", [None, []])
    def test_a_box_alone_is_the_mask_and_reported(self, write, segmentation):
        content = json.loads(json.dumps(COCO))
        content["annotations"][0]["segmentation"] = segmentation
        category = self.read(write({**self.files(), "a.json": content}))
        _, mask = read_sample(category.test[-1])
        assert mask.sum() == 24 * 16
        assert mask[20:36, 16:40].all()
        assert category.notes[0].startswith("1 annotations in")

    def test_a_box_does_not_change_the_mask_of_a_segmentation(self, write):
        content = json.loads(json.dumps(COCO))
        content["annotations"][0]["bbox"] = [0, 0, 64, 64]
        category = self.read(write({**self.files(), "a.json": content}))
        _, mask = read_sample(category.test[-1])
        assert mask.sum() == 24 * 16
        assert mask[20:36, 16:40].all()

    def test_classes_without_a_name_are_defects(self, write):
        content = {key: COCO[key] for key in ("images", "annotations")}
        category = self.read(write({**self.files(), "a.json": content}))
        assert [s.defect_type for s in category.test] == ["good", "defect"]

    @pytest.mark.parametrize("above", ["a", "b", "c.2"])
    def test_the_split_depends_neither_on_the_folders_name_nor_on_the_path_given(
        self, write, above
    ):
        files = {**self.files(), "a.json": COCO}
        folder = write({f"{above}/{name}": content for name, content in files.items()}) / above
        for path in (folder, folder / "a.json"):
            assert [s.path.name for s in self.read(path).test] == ["1.png", "bad.png"]
            name = above if path == folder else "a"
            assert open_dataset(path).find_categories() == [name]

    @pytest.mark.parametrize("place", ["annotations", "images"])
    def test_identifiers_may_be_texts_in_one_place(self, write, place):
        content = json.loads(json.dumps(COCO))
        key = "image_id" if place == "annotations" else "id"
        for record in content[place]:
            record[key] = str(record[key])
        for record in content["categories"]:
            record["id"] = str(record["id"])
        expected = self.read(write({**self.files(), "a.json": COCO}))
        assert self.read(write({"a.json": content})) == expected

    def test_annotations_of_no_image_are_reported(self, write):
        content = {**COCO, "images": COCO["images"][:-1]}
        category = self.read(write({**self.files(), "a.json": content}))
        assert {s.defect_type for s in category.test} == {"good"}
        count = len(COCO["annotations"])
        assert category.notes[0].startswith(f"{count} annotations in ")
        assert category.notes[0].endswith("are of no image that it lists, not used")

    @pytest.mark.parametrize("counts", [[5, 3, 4088], "53o0o3"])
    def test_run_lengths(self, write, counts):
        content = json.loads(json.dumps(COCO))
        content["annotations"][0]["segmentation"] = {"size": [64, 64], "counts": counts}
        category = self.read(write({**self.files(), "a.json": content}))
        expected = counts if isinstance(counts, str) else tuple(counts)
        assert category.test[-1].mask.shapes == (RunLengths((64, 64), expected),)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images": [{"id": 1}]}, r"COCO's format in .*a.json.*'file_name'"),
            ({"annotations": [3]}, r"COCO's format in .*a.json"),
            ({"images": [{"id": 1, "file_name": "gone.png"}]}, r"image gone.png, which .*a.json"),
            (
                {"images": [*COCO["images"], {"id": 9, "file_name": "0.png"}]},
                r"expected each image once, found .*0.png twice",
            ),
            (  # which of them has the annotations?
                {"images": [*COCO["images"], {**COCO["images"][-1], "file_name": "x.png"}]},
                rf"each id of an image once in .*a.json, found '{COCO['images'][-1]['id']}' twice",
            ),
        ],
    )
    def test_mistakes(self, write, change, message):
        folder = write({**self.files(), "x.png": GOOD, "a.json": {**COCO, **change}})
        with pytest.raises(DatasetError, match=message):
            self.read(folder)

    def test_what_is_no_json(self, write):
        folder = write({**self.files(), "a.json": "{"})
        for path in (folder, folder / "a.json"):
            with pytest.raises(DatasetError, match=r"expected JSON in .*a.json"):
                open_dataset(path)

    @pytest.mark.parametrize("place", ["a.json", "annotations/a.json", "train/a.json"])
    def test_unreadable_annotations_are_refused_and_the_flag_is_named(self, write, place):
        folder = write({**numbered("0.png", 1), **numbered("train/0.png", 1), place: "{"})
        with pytest.raises(DatasetError, match=r"JSON in .*a.json.*; if it has no .*\(--dataset\)"):
            open_dataset(folder)

    @pytest.mark.parametrize("name", ["log.json", "nut/settings.json", "nut/._log.json"])
    @pytest.mark.parametrize("split", ["", "train/"])
    def test_a_json_file_that_annotates_nothing_may_be_of_any_form(
        self, write, caplog, name, split
    ):
        folder = write({**numbered(f"nut/{split}good/{{}}.png", 2), name: '{"a": 1}\n{"a": 2}\n'})
        dataset = open_dataset(folder)
        assert (dataset.layout, dataset.find_categories()) == (
            "mvtec" if split else "folder",
            ["nut"],
        )
        assert len(caplog.messages) == (name == "log.json")

    @pytest.mark.parametrize(("count", "layout"), [(9, "coco"), (10, "folder")])
    def test_of_more_than_9_json_files_each_is_of_one_image(self, write, count, layout):
        others = {f"{number}.json": {} for number in range(count - 1)}
        assert open_dataset(write({**self.files(), "a.json": COCO, **others})).layout == layout

    @pytest.mark.parametrize(
        "content", [{}, {"images": []}, {"annotations": []}, "[]", '["images", "annotations"]', "1"]
    )
    def test_a_json_file_without_images_and_annotations_is_another_one(self, write, content):
        folder = write({**numbered("nut/good/{}.png", 2), "nut/settings.json": content})
        (folder / "settings.json").write_bytes((folder / "nut/settings.json").read_bytes())
        assert open_dataset(folder).find_categories() == ["nut"]


class TestLabelMe:
    def read(self, folder):
        dataset = open_dataset(folder)
        assert dataset.layout == "labelme"
        (name,) = dataset.find_categories()
        return dataset.read_category(name)

    def files(self, *shapes):
        files = {**numbered("{}.png", 3), "bad.png": BAD}
        return {**files, "bad.json": {"shapes": list(shapes)}, "0.json": {"shapes": []}}

    @pytest.mark.parametrize(
        ("kind", "points", "shape"),
        [
            ("polygon", BOX, Polygon(tuple(map(tuple, BOX)))),
            (None, BOX, Polygon(tuple(map(tuple, BOX)))),
            ("rectangle", [BOX[0], BOX[2]], Polygon(tuple(map(tuple, BOX)))),
            ("rectangle", BOX, Polygon(tuple(map(tuple, BOX)))),
            ("rotation", BOX, Polygon(tuple(map(tuple, BOX)))),
            ("circle", [[20, 30], [23, 34]], Ellipse((20, 30), (5, 5))),
        ],
    )
    def test_shapes(self, write, kind, points, shape):
        record = {"label": "dent", "points": points, "shape_type": kind}
        category = self.read(write(self.files(record)))
        (sample,) = [s for s in category.test if s.is_defective]
        assert sample.defect_type == "dent"
        assert sample.mask.shapes == (shape,)

    def test_a_file_with_an_ending_in_upper_case(self, write):
        files = {**numbered("{}.png", 3), "bad.png": BAD, "bad.JSON": json.dumps(LABELME)}
        assert [s.path.name for s in self.read(write(files)).test if s.is_defective] == ["bad.png"]

    @pytest.mark.parametrize("place", ["good/{}.png", "ok/a/{}.png"])
    @pytest.mark.parametrize("folder", ["bad", "dent"])
    def test_images_of_a_folder_of_defective_images_are_so_without_shapes(
        self, write, place, folder
    ):
        defective = numbered(f"{folder}/b{{}}.png", 2, BAD)
        files = {**numbered(place, 3), **defective, f"{folder}/b1.json": LABELME}
        category = self.read(write(files))
        found = [(s.path.name, s.defect_type, bool(s.mask)) for s in category.test]
        assert [entry for entry in found if entry[1] != "good"] == [
            ("b0.png", folder, False),
            ("b1.png", "dent", True),
        ]

    def test_images_of_other_folders_are_good_without_shapes(self, write):
        files = {f"{folder}/{n}.png": GOOD for folder in "ab" for n in range(2)}
        category = self.read(write({**files, "c.png": BAD, "c.json": LABELME}))
        assert {s.defect_type for s in category.train} == {"good"}
        assert [s.path.name for s in category.test if s.is_defective] == ["c.png"]

    def test_other_shapes_are_reported_and_leave_the_image_defective(self, write):
        line = {"label": "crack", "points": [[1, 2], [5, 6]], "shape_type": "linestrip"}
        category = self.read(write(self.files(line)))
        (sample,) = [s for s in category.test if s.is_defective]
        assert (sample.defect_type, sample.mask) == ("crack", None)
        assert category.notes[0].startswith("1 linestrip: shapes that enclose no area")

    def test_labels_that_mean_good_are_no_defect(self, write):
        ok = {"label": "OK", "points": BOX, "shape_type": "polygon"}
        dent = {**ok, "label": "dent"}
        files = self.files(ok, dent, {**dent, "label": "a/b"})
        category = self.read(write({**files, "1.json": {"shapes": [ok]}}))
        (sample,) = [s for s in category.test if s.is_defective]
        assert (sample.defect_type, len(sample.mask.shapes)) == ("a_b+dent", 2)

    def test_a_file_without_an_image_is_left_out(self, write):
        category = self.read(write({**self.files(LABELME["shapes"][0]), "gone.json": LABELME}))
        assert [left.path.name for left in category.left_out] == ["gone.json"]

    @pytest.mark.parametrize("name", ["Camera.json", ".0.json"])
    @pytest.mark.parametrize("content", ["{}", "", "[]"])
    def test_other_json_files_do_not_hide_the_annotations(self, write, name, content):
        files = self.files({"label": "dent", "points": BOX, "shape_type": "polygon"})
        category = self.read(write({**files, name: content}))
        assert [s.path.name for s in category.test if s.is_defective] == ["bad.png"]

    @pytest.mark.parametrize(("count", "layout"), [(8, "labelme"), (9, "folder")])
    def test_9_json_files_tell_the_layout(self, write, count, layout):
        others = {f"{number}.json": {} for number in range(count)}
        folder = write({**numbered("{}.png", 9), **others, "bad.png": BAD, "bad.json": LABELME})
        assert open_dataset(folder).layout == layout

    def test_annotations_of_test_images_do_not_matter_in_training(self, write):
        folder = write(
            {
                **numbered("train/{}.png", 2),
                **numbered("test/{}.png", 2),
                "test/0.json": LABELME,
                "test/1.json": {},
            }
        )
        (name,) = open_dataset(folder).find_categories()
        found = open_dataset(folder).read_training(name)
        assert [s.path.name for s in found.train] == ["0.png", "1.png"]
        with pytest.raises(DatasetError, match=r"label and points as in LabelMe in .*1\.json"):
            open_dataset(folder).read_category(name)

    def test_unreadable_annotations_of_one_of_many_categories_are_refused(self, write):
        folder = write({**numbered("nut/good/{}.png", 2), "nut/good/0.json": "{"})
        with pytest.raises(DatasetError, match=r"JSON in .*0.json.*; if it has no .*\(--dataset\)"):
            open_dataset(folder)

    def test_unreadable_annotations_are_refused(self, write):
        folder = write({**self.files(), "0.json": "{"})
        with pytest.raises(DatasetError, match=r"expected JSON in .*0.json"):
            self.read(folder)
        (folder / "bad.json").unlink()
        with pytest.raises(DatasetError, match=r"JSON in .*0.json.*; if it has no .*\(--dataset\)"):
            self.read(folder)

    def test_mistakes(self, write):
        with pytest.raises(DatasetError, match=r"label and points as in LabelMe in .*bad.json"):
            self.read(write(self.files({"points": BOX})))

    @pytest.mark.parametrize("content", ["5", "null", "[]", '"shapes"'])
    def test_annotations_of_another_form(self, write, content):
        files = self.files({"label": "dent", "points": BOX})
        with pytest.raises(DatasetError, match=r"label and points as in LabelMe in .*0.json"):
            self.read(write({**files, "0.json": content}))


class TestSizes:
    """The shapes of a category's last test image, which has 64x64 pixels."""

    def coco(self, write, height, width, **annotation):
        content = json.loads(json.dumps(COCO))
        content["images"][-1] |= {"height": height, "width": width}
        content["annotations"][0] |= annotation
        return write({**numbered("{}.png", 6), "bad.png": BAD, "a.json": content})

    def labelme(self, write, height, width):
        content = {**LABELME, "imageHeight": height, "imageWidth": width}
        return write({**numbered("{}.png", 3), "bad.png": BAD, "bad.json": content})

    def read(self, folder, exif=0):
        if exif:
            with Image.open(folder / "bad.png") as image:
                image.getexif()[274] = exif
                image.resize((80, 64)).save(folder / "bad.png", exif=image.getexif())
        dataset = open_dataset(folder)
        notes = Notes()
        category = dataset.read_category(*dataset.find_categories())
        _, mask = read_sample(category.test[-1], notes=notes)
        return mask.sum(), [note.reason for note in notes.all()]

    @pytest.mark.parametrize("layout", ["coco", "labelme"])
    @pytest.mark.parametrize(("height", "width"), [(128, 130), (1, 1)])
    def test_shapes_of_an_image_of_another_size_are_refused(self, write, layout, height, width):
        folder = getattr(self, layout)(write, height, width)
        found = rf"{width}x{height}: .*\.json, mask of {folder / 'bad.png'}; annotate"
        message = f"image, 64x64, found {found}"
        with pytest.raises(DatasetError, match=message):
            self.read(folder)

    @pytest.mark.parametrize("layout", ["coco", "labelme"])
    @pytest.mark.parametrize(
        "size", [(64, 64), (None, None), (0, 0), (64, None), (None, 64), (64, 0), ("64", 64.0)]
    )
    def test_the_size_need_not_be_stated(self, write, layout, size):
        assert self.read(getattr(self, layout)(write, *size)) == (AREA, [])

    def test_run_lengths_of_another_size_are_refused(self, write):
        runs = {"size": [3, 5], "counts": [15]}
        with pytest.raises(DatasetError, match=r"64x64, found 5x3: .*a.json, mask of .*bad.png"):
            self.read(self.coco(write, None, None, segmentation=runs))

    @pytest.mark.parametrize("exif", [5, 6, 7, 8])
    def test_shapes_drawn_without_the_orientation_of_the_image(self, write, exif):
        with pytest.raises(DatasetError, match=r"64x80, found 80x64: .*; it was drawn without the"):
            self.read(self.labelme(write, 64, 80), exif)

    @pytest.mark.parametrize("exif", [0, 4])
    def test_shapes_of_a_rotated_image_whose_orientation_does_not_rotate_it(self, write, exif):
        with pytest.raises(DatasetError, match=r"found 64x80: .*; annotate images of this size"):
            self.read(self.labelme(write, 80, 64), exif)

    @pytest.mark.parametrize(
        ("size", "exif", "reasons"),
        [
            ((80, 64), 5, []),
            ((80, 64), 6, []),
            ((None, None), 6, [UPRIGHT_SHAPES]),
            ((64, 80), 2, [UPRIGHT_SHAPES]),
            ((64, 80), 4, [UPRIGHT_SHAPES]),
        ],
    )
    def test_shapes_that_may_be_drawn_without_it_are_noted(self, write, size, exif, reasons):
        assert self.read(self.labelme(write, *size), exif) == (AREA, reasons)

    @pytest.mark.parametrize("layout", ["coco", "labelme"])
    def test_a_size_of_another_kind(self, write, layout):
        with pytest.raises(DatasetError, match=r"in .*\.json, found something else"):
            self.read(getattr(self, layout)(write, "x", 64))


def test_an_archive_is_to_be_unpacked(tmp_path):
    path = Path(shutil.make_archive(tmp_path / "images", "gztar", tmp_path))
    with pytest.raises(DatasetError, match=r"found an archive: unpack .*images.tar.gz"):
        open_dataset(path)


def test_a_file_that_is_no_list(tmp_path):
    path = tmp_path / "images.json"
    path.write_text("[]")
    with pytest.raises(DatasetError, match=r"found another file: .*images.json"):
        open_dataset(path)
