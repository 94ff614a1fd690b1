"""Pages with made-up results, for the tests of the page itself."""

import math

import numpy as np

from utils.report import ReportImage, ReportView, render_page
from utils.results import ResultRow, Setting

HOSTILE = "</script><img src=x onerror=document.title='hacked'>&\"'"

RECORD = {
    "state": "complete",
    "start": "2026-01-01T00:00:00+0000",
    "command": "python main.py --categories nut",
    "notes": [],
    "device": "CPU",
    "cpu": "Some CPU, 2 cores",
    "options": {
        **{"backbone": ["wide_resnet50_2"], "layers": [["layer2", "layer3"]]},
        **{"weights": ["default"], "k": 1, "seed": [0], "protocol": "paper"},
    },
}


def make_row(category: str = "nut", percentage: float = 0.1, **changed) -> ResultRow:
    metrics = {
        **{"image_auroc": 0.9, "pixel_auroc": 0.8, "pixel_aupro": 0.7, "aupro_limit": 0.3},
        **{"image_ap": 0.95, "image_f1_max": 0.85, "image_threshold": 2.0},
        **{"image_false_positives": 1, "image_false_negatives": 2},
        **{"pixel_ap": 0.5, "pixel_f1_max": 0.6, "pixel_threshold": 1.5},
        "pixel_auroc_defective": 0.75,
    }
    values = {
        **{"category": category, "percentage_coreset": percentage, "k": 1, "seed": 0},
        **{"num_train": 10, "num_test": 4, "metrics": metrics, "seconds": {"embed": 1.5}},
        "model": "wide_resnet50_2",
    }
    return ResultRow(**values | changed)


def make_view(category: str = "nut", count: int = 4, *, type_name: str = "crack") -> ReportView:
    """Return a view: even images are good, odd ones defective, a few are misjudged."""
    scores = np.random.default_rng(count).normal(size=count) + 2.5 * (np.arange(count) % 2)
    images = [
        ReportImage(
            defect_type=type_name if number % 2 else "good",
            file=f"{number:03d}.png",
            score=float(np.float32(score)),
            defective=bool(number % 2),
            thumbnail=f"thumbnails/{category}_{number:03d}.jpg",
        )
        for number, score in enumerate(scores)
    ]
    return ReportView(category, Setting(0.1), 1.25, images)


def make_page(**changed) -> str:
    values = {"record": RECORD, "rows": [make_row()], "views": [make_view()], "curves": {}}
    return render_page(**values | changed)


NOTHING = make_row(
    metrics=dict.fromkeys(make_row().metrics, math.nan),
)
