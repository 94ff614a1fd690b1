"""Published datasets: names, papers, licences, addresses, and numbers of images.

Numbers are those of the published archives; where this program's authors did not find them per
category, they are missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from datasets.base import Category

CC_BY_NC_SA = "CC BY-NC-SA 4.0"
UNKNOWN = "see the address"


@dataclass(frozen=True)
class Counts:
    """Numbers of images of a category.

    Attributes:
        train: Good training images.
        good: Good test images.
        defective: Defective test images.
    """

    train: int
    good: int
    defective: int


@dataclass(frozen=True)
class Published:
    """A published dataset.

    Attributes:
        key: Name for ``--dataset``.
        name: Name as in its paper.
        layout: Name of its layout in `datasets.layouts.LAYOUTS`.
        paper: Authors, year and title.
        licence: Licence of the images.
        address: Web page of the dataset.
        categories: Counts of each category; None where unknown. Empty if the archive's names of
            categories are not known, so that any name is one.
        images: Number of all images, also those without labels; 0 where unknown.
        good_folder: Name of the folder of good training images, if the names of the categories
            alone do not identify the dataset.
    """

    key: str
    name: str
    layout: str
    paper: str
    licence: str
    address: str
    categories: Mapping[str, Counts | None] = field(default_factory=dict)
    images: int = 0
    good_folder: str = ""


def benchmark_of(layout: str, category: Category) -> str:
    """Return the name of the published dataset that has this category; empty if there is none.

    Args:
        layout: Name of the layout in which the category was read.
        category: The category, with training images.
    """
    folder = category.train[0].path.parent.name
    for dataset in PUBLISHED:
        is_named = not dataset.categories or category.name in dataset.categories
        if dataset.layout == layout and is_named and dataset.good_folder in ("", folder):
            return dataset.name
    return ""


def published_counts(category: Category) -> Counts | None:
    """Return the published numbers of images of a category with a benchmark; None if unknown."""
    for dataset in PUBLISHED:
        if dataset.name == category.benchmark and category.name in dataset.categories:
            return dataset.categories[category.name]
    return None


def differing_counts(category: Category) -> str:
    """Return how the numbers of images differ from the published ones; empty if they do not.

    Categories without a benchmark or without known numbers do not differ.
    """
    published = published_counts(category)
    defective = sum(sample.is_defective for sample in category.test)
    found = Counts(len(category.train), len(category.test) - defective, defective)
    if published in (None, found):
        return ""
    return (
        f"{category.benchmark} has {published.train} training images, {published.good} good and "
        f"{published.defective} defective test images as published, here are {found.train}, "
        f"{found.good} and {found.defective}"
    )


def _counts(table: str) -> dict[str, Counts | None]:
    """Return the counts in lines ``name train good defective``, or ``name``."""
    rows = [line.split() for line in table.strip().splitlines()]
    return {name: Counts(*map(int, counts)) if counts else None for name, *counts in rows}


MVTEC_AD = """
bottle 209 20 63
cable 224 58 92
capsule 219 23 109
carpet 280 28 89
grid 264 21 57
hazelnut 391 40 70
leather 245 32 92
metal_nut 220 22 93
pill 267 26 141
screw 320 41 119
tile 230 33 84
toothbrush 60 12 30
transistor 213 60 40
wood 247 19 60
zipper 240 32 119
"""
MVTEC_LOCO = """
breakfast_box 351 102 173
juice_bottle 335 94 236
pushpins 372 138 172
screw_bag 360 122 219
splicing_connectors 360 119 193
"""
MVTEC_3D = """
bagel 244 22 88
cable_gland 223 21 87
carrot 286 27 132
cookie 210 28 103
dowel 288 26 104
foam 236 20 80
peach 361 26 106
potato 300 22 92
rope 298 32 69
tire 210 25 87
"""
VISA = """
candle 900 100 100
capsules 542 60 100
cashew 450 50 100
chewinggum 453 50 100
fryum 450 50 100
macaroni1 900 100 100
macaroni2 900 100 100
pcb1 904 100 100
pcb2 901 100 100
pcb3 905 101 100
pcb4 904 101 100
pipe_fryum 450 50 100
"""
MPDD = """
bracket_black 289 32 47
bracket_brown 185 26 51
bracket_white 110 30 30
connector 128 30 14
metal_plate 54 26 71
tubes 122 32 69
"""
AUTOVI = """
engine_wiring 285 285 322
pipe_clip 195 195 142
pipe_staple 191 188 117
tank_screw 318 318 95
underbody_pipes 161 161 184
underbody_screw 373 374 18
"""
AD_2 = "can\nfabric\nfruit_jelly\nrice\nsheet_metal\nvial\nwallplugs\nwalnuts"
REAL_IAD = (
    "audiojack bottle_cap button_battery end_cap eraser fire_hood mint mounts pcb phone_battery "
    "plastic_nut plastic_plug porcelain_doll regulator rolled_strip_base sim_card_set switch tape "
    "terminalblock toothbrush toy toy_brick transistor1 u_block usb usb_adaptor vcpill "
    "wooden_beads woodstick zipper"
).replace(" ", "\n")

PUBLISHED = (
    Published(
        "mvtec_ad",
        "MVTec AD",
        "mvtec",
        "Bergmann et al. 2021: The MVTec Anomaly Detection Dataset",
        CC_BY_NC_SA,
        "https://www.mvtec.com/company/research/datasets/mvtec-ad",
        _counts(MVTEC_AD),
        5354,
    ),
    Published(
        "mvtec_ad_2",
        "MVTec AD 2",
        "mvtec_ad_2",
        "Heckler-Kram et al. 2025: The MVTec AD 2 Dataset (arXiv 2503.21622)",
        CC_BY_NC_SA,
        "https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
        _counts(AD_2),
        8004,
    ),
    Published(
        "mvtec_loco",
        "MVTec LOCO AD",
        "mvtec_loco",
        "Bergmann et al. 2022: Beyond Dents and Scratches",
        CC_BY_NC_SA,
        "https://www.mvtec.com/company/research/datasets/mvtec-loco",
        _counts(MVTEC_LOCO),
        3651,
    ),
    Published(
        "mvtec_3d",
        "MVTec 3D-AD",
        "mvtec_3d",
        "Bergmann et al. 2022: The MVTec 3D-AD Dataset",
        CC_BY_NC_SA,
        "https://www.mvtec.com/company/research/datasets/mvtec-3d-ad",
        _counts(MVTEC_3D),
        4147,
    ),
    Published(
        "visa",
        "VisA",
        "visa",
        "Zou et al. 2022: SPot-the-Difference (arXiv 2207.14315)",
        "CC BY 4.0",
        "https://github.com/amazon-science/spot-diff",
        _counts(VISA),
        10821,
    ),
    Published(
        "visa_1cls",
        "VisA",
        "mvtec",
        "Zou et al. 2022: SPot-the-Difference (arXiv 2207.14315)",
        "CC BY 4.0",
        "https://github.com/amazon-science/spot-diff",
        _counts(VISA),
        10821,
    ),
    Published(
        "btad",
        "BTAD",
        "mvtec",
        "Mishra et al. 2021: VT-ADL (arXiv 2104.10036)",
        CC_BY_NC_SA,
        "https://avires.dimi.uniud.it/papers/btad/btad.zip",
        _counts("01 400 21 49\n02 399 30 200\n03 1000 400 41"),
        2540,
        good_folder="ok",
    ),
    Published(
        "mpdd",
        "MPDD",
        "mvtec",
        "Jezek et al. 2021: Deep Learning-Based Defect Detection of Metal Parts",
        UNKNOWN,
        "https://github.com/stepanje/MPDD",
        _counts(MPDD),
        1346,
    ),
    Published(
        "kolektor_sdd",
        "KolektorSDD",
        "kolektor_sdd",
        "Tabernik et al. 2020: Segmentation-Based Deep-Learning Approach",
        CC_BY_NC_SA,
        "https://www.vicos.si/resources/kolektorsdd/",
        _counts("kolektor_sdd"),
        399,
    ),
    Published(
        "kolektor_sdd2",
        "KolektorSDD2",
        "kolektor_sdd2",
        "Bozic et al. 2021: Mixed Supervision for Surface-Defect Detection",
        CC_BY_NC_SA,
        "https://www.vicos.si/resources/kolektorsdd2/",
        _counts("kolektor_sdd2 2085 894 110"),
        3335,
    ),
    Published(
        "magnetic_tile",
        "Magnetic Tile Defects",
        "magnetic_tile",
        "Huang et al. 2020: Surface Defect Saliency of Magnetic Tile",
        UNKNOWN,
        "https://github.com/abin24/Magnetic-tile-defect-datasets.",
        _counts("magnetic_tile"),
        1344,
    ),
    Published(
        "dagm",
        "DAGM 2007",
        "dagm",
        "Wieler and Hahn 2007: Weakly Supervised Learning for Industrial Optical Inspection",
        UNKNOWN,
        "https://zenodo.org/records/12750201",
        _counts("\n".join(f"Class{number}" for number in range(1, 11))),
        16100,
    ),
    Published(
        "real_iad",
        "Real-IAD",
        "real_iad",
        "Wang et al. 2024: Real-IAD (arXiv 2403.12580)",
        CC_BY_NC_SA,
        "https://realiad4ad.github.io/Real-IAD/",
        _counts(REAL_IAD),
        151050,
    ),
    Published(
        "autovi",
        "AutoVI",
        "mvtec_loco",
        "Carvalho et al. 2024: The Automotive Visual Inspection Dataset",
        CC_BY_NC_SA,
        "https://doi.org/10.5281/zenodo.10459003",
        _counts(AUTOVI),
        3922,
    ),
    Published(
        "vad",
        "VAD",
        "mvtec",
        "Baitieva et al. 2024: Supervised Anomaly Detection for Complex Industrial Images",
        CC_BY_NC_SA,
        "https://huggingface.co/datasets/abc-125/vad",
        _counts("vad 2000 1000 1000"),
        5000,
    ),
    Published(
        "bmad",
        "BMAD",
        "bmad",
        "Bao et al. 2024: BMAD: Benchmarks for Medical Anomaly Detection (arXiv 2306.11876)",
        UNKNOWN,
        "https://github.com/DorisBao/BMAD",
    ),
    Published(
        "kaputt",
        "Kaputt",
        "kaputt",
        "Hoefer et al. 2025: Kaputt (arXiv 2510.05903)",
        UNKNOWN,
        "https://www.kaputt-dataset.com/",
    ),
)
