"""A miniature of each layout: its files, and what must be read of them.

Images are noise; defective ones have a dark square, and masks show it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 64  # pixels
SQUARE = np.s_[20:36, 16:40]
# Contents of files; any other text, bytes or JSON value is the content itself.
GOOD, BAD, MASK, EMPTY, PLAIN = "<good>", "<bad>", "<mask>", "<empty>", "<mask with 1>"


@dataclass(frozen=True)
class Expected:
    """What must be read of a category: paths below the miniature's folder.

    Attributes:
        train: Training images.
        test: Test images with their defect types and masks.
        left_out: Number of files that are skipped for each reason.
        notes: Beginnings of the notes.
        benchmark: Name of the published dataset.
    """

    train: tuple[str, ...]
    test: tuple[tuple[str, str, tuple[str, ...] | None], ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    benchmark: str = ""


@dataclass(frozen=True)
class Miniature:
    """A small dataset.

    Attributes:
        layout: Name of its layout.
        files: Contents of its files.
        categories: What must be read of each category.
        path: File or folder for ``--path_data``, below the miniature's folder.
        lacks: A file or folder without which the layout is half known, and the name by which the
            error calls it; empty if there is none.
    """

    layout: str
    files: Mapping[str, object]
    categories: Mapping[str, Expected]
    path: str = "."
    lacks: tuple[str, str] = ("", "")

    def write(self, root: Path) -> Path:
        """Write the files below a folder; return the path of the dataset."""
        rng = np.random.default_rng(0)
        for name, content in self.files.items():
            write_file(root / name, content, rng)
        return root / self.path


def write_file(path: Path, content: object, rng: np.random.Generator) -> None:
    """Write an image, a mask, bytes, a text or a JSON value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if content in (GOOD, BAD):
        image = rng.integers(90, 160, (SIDE, SIDE, 3), dtype=np.uint8)
        if content == BAD:
            image[SQUARE] = 0
        Image.fromarray(image).save(path)
    elif content in (MASK, EMPTY, PLAIN):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[SQUARE] = {MASK: 255, EMPTY: 0, PLAIN: 1}[content]
        Image.fromarray(mask).save(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")


def numbered(pattern: str, count: int, content: str = GOOD) -> dict[str, str]:
    """Return files whose names contain a number."""
    return {pattern.format(number): content for number in range(count)}


def of_types(
    folder: str, train: int = 4, good: str = "good", ending: str = "png"
) -> dict[str, str]:
    """Return the good images of a category in MVTec AD's layout."""
    return {
        **numbered(f"{folder}/train/{good}/{{:03}}.{ending}", train),
        **numbered(f"{folder}/test/{good}/{{:03}}.{ending}", 2),
    }


def paths(pattern: str, count: int) -> tuple[str, ...]:
    return tuple(pattern.format(number) for number in range(count))


def good(pattern: str, count: int) -> tuple[tuple[str, str, None], ...]:
    return tuple((path, "good", None) for path in paths(pattern, count))


SATURATIONS = [
    {
        "defect_name": "missing",
        "pixel_value": 255,
        "saturation_threshold": 100,
        "relative_saturation": False,
    },
    {
        "defect_name": "scratch",
        "pixel_value": 1,
        "saturation_threshold": 0.5,
        "relative_saturation": True,
    },
]
VALIDATION = {"validation images": 1}
VISA_ROWS = [
    *(f"candle,train,normal,candle/Data/Images/Normal/{n:04}.JPG," for n in range(4)),
    "candle,test,normal,candle/Data/Images/Normal/0004.JPG,",
    "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png",
    "pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,",
]
REAL_IAD = {
    "meta": {"normal_class": "OK", "prefix": "mint/"},
    "train": [
        {
            "category": "mint",
            "anomaly_class": "OK",
            "image_path": f"OK/S{n:04}/mint_{n:04}_OK_C1.jpg",
            "mask_path": None,
        }
        for n in range(4)
    ],
    "test": [
        {
            "category": "mint",
            "anomaly_class": "OK",
            "image_path": "OK/S0004/mint_0004_OK_C1.jpg",
            "mask_path": None,
        },
        {
            "category": "mint",
            "anomaly_class": "QS",
            "image_path": "NG/QS/S0001/mint_0001_NG_QS_C1.jpg",
            "mask_path": "NG/QS/S0001/mint_0001_NG_QS_C1.png",
        },
    ],
}
BOX = [[16, 20], [40, 20], [40, 36], [16, 36]]
COCO = {
    "images": [
        *({"id": n, "file_name": f"{n}.png", "width": SIDE, "height": SIDE} for n in range(6)),
        {"id": 6, "file_name": "bad.png", "width": SIDE, "height": SIDE},
    ],
    "categories": [{"id": 1, "name": "scratch"}, {"id": 2, "name": "dent"}],
    "annotations": [
        {
            "id": 1,
            "image_id": 6,
            "category_id": 1,
            "segmentation": [[value for point in BOX for value in point]],
            "bbox": [16, 20, 24, 16],
        }
    ],
}
LABELME = {
    "imagePath": "bad.png",
    "shapes": [{"label": "dent", "points": BOX, "shape_type": "polygon"}],
}

MINIATURES = {
    "mvtec": Miniature(
        "mvtec",
        {
            **of_types("bottle"),
            "bottle/test/broken/000.png": BAD,
            "bottle/ground_truth/broken/000_mask.png": MASK,
            "bottle/readme.txt": "text",
        },
        {
            "bottle": Expected(
                paths("bottle/train/good/{:03}.png", 4),
                (
                    *good("bottle/test/good/{:03}.png", 2),
                    (
                        "bottle/test/broken/000.png",
                        "broken",
                        ("bottle/ground_truth/broken/000_mask.png",),
                    ),
                ),
                benchmark="MVTec AD",
            )
        },
    ),
    "btad": Miniature(
        "mvtec",
        {
            **of_types("BTech/01", good="ok", ending="bmp"),
            "BTech/01/test/ko/000.bmp": BAD,
            "BTech/01/ground_truth/ko/000.png": MASK,
        },
        {
            "01": Expected(
                paths("BTech/01/train/ok/{:03}.bmp", 4),
                (
                    *good("BTech/01/test/ok/{:03}.bmp", 2),
                    ("BTech/01/test/ko/000.bmp", "ko", ("BTech/01/ground_truth/ko/000.png",)),
                ),
                benchmark="BTAD",
            )
        },
    ),
    "vad": Miniature(
        "mvtec",
        {
            **of_types("vad"),
            "vad/train/bad/000.png": BAD,
            "vad/test/bad/000.png": BAD,
            "vad/test/bad_unseen_defects/000.png": BAD,
            "vad/low_shot_train.json": {},
        },
        {
            "vad": Expected(
                paths("vad/train/good/{:03}.png", 4),
                (
                    *good("vad/test/good/{:03}.png", 2),
                    ("vad/test/bad/000.png", "bad", None),
                    ("vad/test/bad_unseen_defects/000.png", "bad_unseen_defects", None),
                ),
                {"defective images of the training split": 1},
                ("no defective test image has a mask",),
                "VAD",
            )
        },
    ),
    "autovi": Miniature(
        "mvtec_loco",
        {
            **of_types("pipe_clip"),
            "pipe_clip/test/unclipped/0089.png": BAD,
            "pipe_clip/ground_truth/unclipped/0089/0000.png": MASK,
            "pipe_clip/defects_config.json": SATURATIONS,
        },
        {
            "pipe_clip": Expected(
                paths("pipe_clip/train/good/{:03}.png", 4),
                (
                    *good("pipe_clip/test/good/{:03}.png", 2),
                    (
                        "pipe_clip/test/unclipped/0089.png",
                        "unclipped",
                        ("pipe_clip/ground_truth/unclipped/0089/0000.png",),
                    ),
                ),
                benchmark="AutoVI",
            )
        },
    ),
    "mvtec_loco": Miniature(
        "mvtec_loco",
        {
            **of_types("pushpins"),
            "pushpins/validation/good/000.png": GOOD,
            "pushpins/test/logical_anomalies/000.png": BAD,
            "pushpins/ground_truth/logical_anomalies/000/000.png": MASK,
            "pushpins/ground_truth/logical_anomalies/000/001.png": PLAIN,
            "pushpins/test/structural_anomalies/000.png": BAD,
            "pushpins/ground_truth/structural_anomalies/000/000.png": PLAIN,
            "pushpins/defects_config.json": SATURATIONS,
        },
        {
            "pushpins": Expected(
                paths("pushpins/train/good/{:03}.png", 4),
                (
                    *good("pushpins/test/good/{:03}.png", 2),
                    (
                        "pushpins/test/logical_anomalies/000.png",
                        "logical_anomalies",
                        paths("pushpins/ground_truth/logical_anomalies/000/{:03}.png", 2),
                    ),
                    (
                        "pushpins/test/structural_anomalies/000.png",
                        "structural_anomalies",
                        ("pushpins/ground_truth/structural_anomalies/000/000.png",),
                    ),
                ),
                VALIDATION,
                benchmark="MVTec LOCO AD",
            )
        },
    ),
    "mvtec_ad_2": Miniature(
        "mvtec_ad_2",
        {
            **numbered("can/train/good/{:03}_regular.png", 4),
            "can/validation/good/000_regular.png": GOOD,
            "can/test_public/good/000_regular.png": GOOD,
            "can/test_public/good/000_overexposed.png": GOOD,
            "can/test_public/bad/000_shift_1.png": BAD,
            "can/test_public/ground_truth/bad/000_shift_1_mask.png": MASK,
            **numbered("can/test_private/{:03}_regular.png", 2),
            "can/test_private_mixed/000_mixed.png": GOOD,
        },
        {
            "can": Expected(
                paths("can/train/good/{:03}_regular.png", 4),
                (
                    ("can/test_public/good/000_overexposed.png", "good", None),
                    ("can/test_public/good/000_regular.png", "good", None),
                    (
                        "can/test_public/bad/000_shift_1.png",
                        "bad",
                        ("can/test_public/ground_truth/bad/000_shift_1_mask.png",),
                    ),
                ),
                {
                    "images of test_private, which has no labels": 2,
                    "images of test_private_mixed, which has no labels": 1,
                    **VALIDATION,
                },
                ("lighting conditions of the test images: 1 overexposed, 1 regular, 1 shift_1",),
                "MVTec AD 2",
            )
        },
        lacks=("can/test_public", "can/test_public"),
    ),
    "mvtec_3d": Miniature(
        "mvtec_3d",
        {
            **numbered("bagel/train/good/rgb/{:03}.png", 4),
            "bagel/train/good/xyz/000.tiff": b"II*\0",
            "bagel/validation/good/rgb/000.png": GOOD,
            "bagel/test/good/rgb/000.png": GOOD,
            "bagel/test/good/gt/000.png": EMPTY,
            "bagel/test/crack/rgb/000.png": BAD,
            "bagel/test/crack/gt/000.png": MASK,
        },
        {
            "bagel": Expected(
                paths("bagel/train/good/rgb/{:03}.png", 4),
                (
                    ("bagel/test/good/rgb/000.png", "good", None),
                    (
                        "bagel/test/crack/rgb/000.png",
                        "crack",
                        ("bagel/test/crack/gt/000.png",),
                    ),
                ),
                VALIDATION,
                benchmark="MVTec 3D-AD",
            )
        },
        lacks=("bagel/*/*/rgb", "bagel/train/good/rgb"),
    ),
    "visa": Miniature(
        "visa",
        {
            "split_csv/1cls.csv": "object,split,label,image,mask\n" + "\n".join(VISA_ROWS),
            **numbered("candle/Data/Images/Normal/{:04}.JPG", 5),
            "candle/Data/Images/Anomaly/000.JPG": BAD,
            "candle/Data/Masks/Anomaly/000.png": PLAIN,
        },
        {
            "candle": Expected(
                paths("candle/Data/Images/Normal/{:04}.JPG", 4),
                (
                    ("candle/Data/Images/Normal/0004.JPG", "good", None),
                    (
                        "candle/Data/Images/Anomaly/000.JPG",
                        "anomaly",
                        ("candle/Data/Masks/Anomaly/000.png",),
                    ),
                ),
                benchmark="VisA",
            )
        },
        lacks=("split_csv/1cls.csv", "split_csv/1cls.csv"),
    ),
    "visa_1cls": Miniature(
        "mvtec",
        {
            **of_types("1cls/candle", ending="JPG"),
            "1cls/candle/test/bad/000.JPG": BAD,
            "1cls/candle/ground_truth/bad/000.png": MASK,
        },
        {
            "candle": Expected(
                paths("1cls/candle/train/good/{:03}.JPG", 4),
                (
                    *good("1cls/candle/test/good/{:03}.JPG", 2),
                    (
                        "1cls/candle/test/bad/000.JPG",
                        "bad",
                        ("1cls/candle/ground_truth/bad/000.png",),
                    ),
                ),
                benchmark="VisA",
            )
        },
    ),
    "kolektor_sdd": Miniature(
        "kolektor_sdd",
        {
            **{f"kos{n:02}/Part0.jpg": GOOD for n in range(1, 6)},
            **{f"kos{n:02}/Part0_label.bmp": EMPTY for n in range(1, 6)},
            "kos01/Part1.jpg": BAD,
            "kos01/Part1_label.bmp": MASK,
            "kos02/Part1.jpg": BAD,
            "kos02/Part1_label.bmp": MASK,
        },
        {
            "kolektor_sdd": Expected(
                tuple(f"kos{n:02}/Part0.jpg" for n in (1, 2, 3, 4)),
                (
                    ("kos05/Part0.jpg", "good", None),
                    ("kos01/Part1.jpg", "defect", ("kos01/Part1_label.bmp",)),
                    ("kos02/Part1.jpg", "defect", ("kos02/Part1_label.bmp",)),
                ),
                notes=("1 of 5 good images are held out for testing (--holdout 0.2, --seed 0)",),
                benchmark="KolektorSDD",
            )
        },
        lacks=("*/*_label.bmp", "kos01/Part0_label.bmp"),
    ),
    "kolektor_sdd2": Miniature(
        "kolektor_sdd2",
        {
            **numbered("train/1000{}.png", 4),
            **numbered("train/1000{}_GT.png", 4, EMPTY),
            "train/10009.png": BAD,
            "train/10009_GT.png": MASK,
            "test/20000.png": GOOD,
            "test/20000_GT.png": EMPTY,
            "test/20001.png": BAD,
            "test/20001_GT.png": MASK,
        },
        {
            "kolektor_sdd2": Expected(
                paths("train/1000{}.png", 4),
                (
                    ("test/20000.png", "good", None),
                    ("test/20001.png", "defect", ("test/20001_GT.png",)),
                ),
                {"defective images of the training split": 1},
                benchmark="KolektorSDD2",
            )
        },
        lacks=("test/*_GT.png", "test/*_GT.png"),
    ),
    "magnetic_tile": Miniature(
        "magnetic_tile",
        {
            **numbered("MT_Free/Imgs/exp1_num_{}.jpg", 5),
            **numbered("MT_Free/Imgs/exp1_num_{}.png", 5, EMPTY),
            "MT_Crack/Imgs/exp1_num_0.jpg": BAD,
            "MT_Crack/Imgs/exp1_num_0.png": MASK,
        },
        {
            "magnetic_tile": Expected(
                tuple(f"MT_Free/Imgs/exp1_num_{n}.jpg" for n in (1, 2, 3, 4)),
                (
                    ("MT_Free/Imgs/exp1_num_0.jpg", "good", None),
                    (
                        "MT_Crack/Imgs/exp1_num_0.jpg",
                        "Crack",
                        ("MT_Crack/Imgs/exp1_num_0.png",),
                    ),
                ),
                notes=("1 of 5 good images are held out for testing (--holdout 0.2, --seed 0)",),
                benchmark="Magnetic Tile Defects",
            )
        },
        lacks=("MT_Free", "MT_Free/Imgs"),
    ),
    "dagm": Miniature(
        "dagm",
        {
            **numbered("Class1/Train/000{}.PNG", 4),
            "Class1/Train/0009.PNG": BAD,
            "Class1/Train/Label/0009_label.PNG": MASK,
            "Class1/Train/Label/Labels.txt": "1\n9\t1\t0009.PNG\t1\t0009_label.PNG\n",
            "Class1/Test/0001.PNG": GOOD,
            "Class1/Test/0002.PNG": BAD,
            "Class1/Test/Label/0002_label.PNG": MASK,
        },
        {
            "Class1": Expected(
                paths("Class1/Train/000{}.PNG", 4),
                (
                    ("Class1/Test/0001.PNG", "good", None),
                    ("Class1/Test/0002.PNG", "defect", ("Class1/Test/Label/0002_label.PNG",)),
                ),
                {"defective images of the training split": 1},
                benchmark="DAGM 2007",
            )
        },
        lacks=("Class1/Test/Label", "Class1/Test/Label"),
    ),
    "real_iad": Miniature(
        "real_iad",
        {
            "realiad_jsons/realiad_jsons/mint.json": REAL_IAD,
            **{
                f"realiad_256/mint/{record['image_path']}": GOOD
                for record in [*REAL_IAD["train"], REAL_IAD["test"][0]]
            },
            "realiad_256/mint/NG/QS/S0001/mint_0001_NG_QS_C1.jpg": BAD,
            "realiad_256/mint/NG/QS/S0001/mint_0001_NG_QS_C1.png": MASK,
        },
        {
            "mint": Expected(
                tuple(f"realiad_256/mint/OK/S{n:04}/mint_{n:04}_OK_C1.jpg" for n in range(4)),
                (
                    ("realiad_256/mint/OK/S0004/mint_0004_OK_C1.jpg", "good", None),
                    (
                        "realiad_256/mint/NG/QS/S0001/mint_0001_NG_QS_C1.jpg",
                        "QS",
                        ("realiad_256/mint/NG/QS/S0001/mint_0001_NG_QS_C1.png",),
                    ),
                ),
                benchmark="Real-IAD",
            )
        },
        lacks=("realiad_jsons", "realiad_jsons/<category>.json"),
    ),
    "bmad": Miniature(
        "bmad",
        {
            **numbered("Brain/train/good/img/0000{}.png", 4),
            "Brain/valid/good/img/1.png": GOOD,
            "Brain/valid/Ungood/img/2.png": BAD,
            "Brain/valid/Ungood/label/2.png": MASK,
            "Brain/test/good/img/3.png": GOOD,
            "Brain/test/good/label/3.png": EMPTY,
            "Brain/test/Ungood/img/4.png": BAD,
            "Brain/test/Ungood/label/4.png": MASK,
            **numbered("Chest/train/good/{}.png", 4),
            "Chest/test/good/3.png": GOOD,
            "Chest/test/Ungood/4.png": BAD,
        },
        {
            "Brain": Expected(
                paths("Brain/train/good/img/0000{}.png", 4),
                (
                    ("Brain/test/good/img/3.png", "good", None),
                    (
                        "Brain/test/Ungood/img/4.png",
                        "Ungood",
                        ("Brain/test/Ungood/label/4.png",),
                    ),
                ),
                {"validation images": 2},
                benchmark="BMAD",
            ),
            "Chest": Expected(
                paths("Chest/train/good/{}.png", 4),
                (
                    ("Chest/test/good/3.png", "good", None),
                    ("Chest/test/Ungood/4.png", "Ungood", None),
                ),
                notes=("no defective test image has a mask",),
                benchmark="BMAD",
            ),
        },
    ),
    "folder": Miniature(
        "folder",
        {
            **numbered("nuts/Good/{}.png", 5),
            "nuts/scratch/a.png": BAD,
            "nuts/bent/deep/b.png": BAD,
            "nuts/masks/scratch/a_mask.png": MASK,
            "nuts/scratch/notes.txt": "text",
        },
        {
            "nuts": Expected(
                tuple(f"nuts/Good/{n}.png" for n in (0, 1, 3, 4)),
                (
                    ("nuts/Good/2.png", "good", None),
                    ("nuts/bent/deep/b.png", "bent_deep", None),
                    ("nuts/scratch/a.png", "scratch", ("nuts/masks/scratch/a_mask.png",)),
                ),
                {"neither an image nor a video": 1},
                (
                    "1 of 5 good images are held out for testing (--holdout 0.2, --seed 0)",
                    "1 of 2 defective test images have no mask",
                ),
            )
        },
    ),
    "csv": Miniature(
        "csv",
        {
            "list.csv": "Path,LABEL,mask,split\n"
            + "".join(f"a/{n}.png,good,,train\n" for n in range(4))
            + "b/0.png,OK,,test\nb/1.png,dent/long,m/1.png,test\n",
            **numbered("a/{}.png", 4),
            "b/0.png": GOOD,
            "b/1.png": BAD,
            "m/1.png": MASK,
        },
        {
            "list": Expected(
                paths("a/{}.png", 4),
                (("b/0.png", "good", None), ("b/1.png", "dent_long", ("m/1.png",))),
            )
        },
        path="list.csv",
    ),
    "coco": Miniature(
        "coco",
        {
            "annotations.json": COCO,
            **numbered("images/{}.png", 6),
            "images/bad.png": BAD,
        },
        {
            "annotations": Expected(
                tuple(f"images/{n}.png" for n in (0, 2, 3, 4, 5)),
                (
                    ("images/1.png", "good", None),
                    ("images/bad.png", "scratch", ("annotations.json",)),
                ),
                notes=("1 of 6 good images are held out for testing (--holdout 0.2, --seed 0)",),
            )
        },
        path="annotations.json",
    ),
    "labelme": Miniature(
        "labelme",
        {
            **numbered("parts/train/{}.png", 4),
            "parts/test/good.png": GOOD,
            "parts/test/bad.png": BAD,
            "parts/test/bad.json": LABELME,
        },
        {
            "parts": Expected(
                paths("parts/train/{}.png", 4),
                (
                    ("parts/test/good.png", "good", None),
                    ("parts/test/bad.png", "dent", ("parts/test/bad.json",)),
                ),
            )
        },
    ),
}
