"""Folders of trained models, and the choice of one by flags.

trained/<category>/<backbone>_p0100_k01/, few-shot models with _shots004 at the end
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from patchcore.errors import did_you_mean
from patchcore.record import RECORD, read_record
from utils.errors import UsageError, named_flag
from utils.options.model_choice import ModelChoice
from utils.output_names import setting_tag

# The flags that choose a trained model.
CHOICES = ("category", "backbone", "percentage_coreset")


def model_folder(
    root: Path, category: str, name: str, percentage: float, k: int, shots: int | None = None
) -> Path:
    """Return the folder of a trained model; ``shots`` is None for one of all training images."""
    return root / category / f"{name.replace(':', '-')}_{setting_tag(percentage, k, shots)}"


def choose_model(choice: ModelChoice) -> Path:
    """Return the folder of the only trained model that fits the flags.

    Raises:
        UsageError: no model fits, or several fit.
        PatchCoreError: a record cannot be read.
    """
    choice.check_files()
    root = choice.path_trained
    with named_flag("--path_trained"):
        if root.is_dir():
            next(root.iterdir(), None)  # raises an error that a search would leave out
        # Hidden folders below the root are those of a save that is not complete.
        folders = sorted(
            path.parent
            for path in root.rglob(RECORD)
            if "/." not in f"/{path.relative_to(root).as_posix()}"
        )
    if not folders:
        found = "none" if root.is_dir() else "a file" if root.exists() else "no such folder"
        raise UsageError(
            f"expected trained models in {root}, found {found} (--path_trained); python main.py "
            "train makes them, and evaluate with --path_trained"
        )
    records = {folder: read_record(folder) for folder in folders}
    wanted = {name: getattr(choice, name) for name in CHOICES if getattr(choice, name)}
    fitting = [
        folder
        for folder, record in records.items()
        if all(_value(record, name) == value for name, value in wanted.items())
    ]
    if len(fitting) == 1:
        return fitting[0]
    given = " ".join(f"--{name} {value}" for name, value in wanted.items())
    flags = {folder: _flags_of(records[folder]) for folder in fitting or folders}
    if len(set(flags.values())) < len(flags):  # they differ in k or in the number of shots
        flags = {folder: f"{text} --path_trained {folder}" for folder, text in flags.items()}
    listed = "\n  ".join(flags.values())
    raise UsageError(
        f"expected one trained model in {root}{given and f' for {given}'}, found "
        f"{len(fitting) or 'none'}; choose by these flags:\n  {listed}"
        f"{_similar(wanted, records.values())}"
    )


def _similar(wanted: Mapping[str, object], records: Iterable[dict]) -> str:
    """Return a question about a category or backbone that no model has; empty without one."""
    for name in wanted.keys() & {"category", "backbone"}:
        known = {str(_value(record, name)) for record in records}
        if wanted[name] not in known:
            return did_you_mean(str(wanted[name]), sorted(known)).replace(". ", "\n", 1)
    return ""


def _value(record: dict, name: str) -> object:
    if name == "category":
        return record.get("category")
    if name == "backbone":
        return record.get("backbone", {}).get("name")
    return record.get("settings", {}).get("percentage_coreset", [None])[-1]


def _flags_of(record: dict) -> str:
    """Return the flags that choose a model."""
    return " ".join(f"--{name} {_value(record, name)}" for name in CHOICES)
