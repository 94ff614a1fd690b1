"""Names of the files that a run writes to its result folder."""

import math

RESULTS_FILE = "results.csv"
DEFECTS_FILE = "results_defects.csv"
TABLES_FILE = "tables.md"
TABLES_CSV_FILE = "tables.csv"
TABLES_LATEX_FILE = "tables.tex"
RUN_FILE = "run.json"
LOG_FILE = "run.log"
REPORT_FILE = "index.html"
THUMBNAIL_FOLDER = "thumbnails"
EARLIER_FOLDER = "earlier"
FINISHED_FOLDER = "finished"
# Everything that evaluate and tables write, as glob patterns.
OUTPUT_PATTERNS = (
    *(RESULTS_FILE, DEFECTS_FILE, TABLES_FILE, TABLES_CSV_FILE, TABLES_LATEX_FILE),
    *(RUN_FILE, LOG_FILE, REPORT_FILE, THUMBNAIL_FOLDER, FINISHED_FOLDER),
    *("roc-curve_*.png", "roc_curve.png", "pr-curve_*.png", "pro-curve_*.png"),
    *("pred-dist_*.png", "localization_*.png", "explanation_*.png", "explanation_*.json"),
    "maps_*.npz",
)


def setting_tag(percentage_coreset: float, k: int, shots: int | None = None) -> str:
    """Return the part of a name that gives the setting, such as p0100_k01 or p0100_k01_shots004.

    Args:
        percentage_coreset: Coreset size as a fraction of the training patches, shown in per mille.
        k: Number of nearest neighbours.
        shots: Number of training images; None for all, which adds nothing to the name.
    """
    whole, _, decimals = f"{percentage_coreset * 1000:.6f}".partition(".")
    decimals = decimals.rstrip("0")  # 0.0125 is p0012.5, so that no two percentages share a tag
    few = "" if shots is None else f"_shots{shots:03d}"
    return f"p{int(whole):04d}{'.' if decimals else ''}{decimals}_k{k:02d}{few}"


def per_mille(value: float) -> str:
    """Return a fraction for a file name: 0.9912 as ``0991``, NaN as ``none``."""
    return "none" if math.isnan(value) else f"{round(value * 1000):04d}"
