"""Trained models on disk: where they are kept, and how the one that is meant is found.

trained/<category>/<backbone>_p0100_k01/
"""

from pathlib import Path

from patchcore.storage import RECORD, read_record
from utils.errors import UsageError
from utils.results import picture_tag


def model_folder(root: Path, category: str, name: str, percentage: float, k: int) -> Path:
    """Return where a trained model lies."""
    return root / category / f"{name.replace(':', '-')}_{picture_tag(percentage, k)}"


def find_model(
    root: Path, category: str | None, backbone: str | None, percentage: float | None
) -> Path:
    """Find the one trained model that is meant.

    Args:
        root: ``--path_trained``: the folder of all models, of a category's, or a model's own.
        category: ``--category``; may be left out where there is one only.
        backbone: Likewise.
        percentage: Likewise, in (0, 1].

    Raises:
        UsageError: none fits, or several do.
        PatchCoreError: a record cannot be read.
    """
    folders = sorted(path.parent for path in root.rglob(RECORD) if "/." not in path.as_posix())
    if not folders:
        found = "none" if root.is_dir() else "no such folder"
        raise UsageError(
            f"expected trained models in {root}, found {found} (--path_trained); python main.py "
            "train makes them, evaluate too"
        )
    records = {folder: read_record(folder) for folder in folders}
    wanted = {"category": category, "backbone": backbone, "percentage_coreset": percentage}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    fitting = [
        folder
        for folder, record in records.items()
        if all(_value(record, name) == value for name, value in wanted.items())
    ]
    if len(fitting) == 1:
        return fitting[0]
    asked = " ".join(f"--{name} {value}" for name, value in wanted.items()) or "no flag"
    listed = "\n  ".join(_words(records[folder]) for folder in fitting or folders)
    raise UsageError(
        f"expected one trained model in {root}, found {len(fitting)} by {asked}; there are:\n"
        f"  {listed}"
    )


def _value(record: dict, name: str) -> object:
    if name == "category":
        return record.get("category")
    if name == "backbone":
        return record.get("backbone", {}).get("name")
    return record.get("settings", {}).get("percentage_coreset", [None])[-1]


def _words(record: dict) -> str:
    """Return the flags that choose a model."""
    names = ("category", "backbone", "percentage_coreset")
    return " ".join(f"--{name} {_value(record, name)}" for name in names)
