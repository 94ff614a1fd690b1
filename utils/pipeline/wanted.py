"""What an evaluation was asked for, and what is missing of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from patchcore.errors import PatchCoreError
from patchcore.record import read_record
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.ensembles import ENSEMBLE
from utils.pipeline.finished import FinishedCategory
from utils.pipeline.saved_maps import maps_name
from utils.pipeline.trained_models import model_folder
from utils.results import ResultRow, Setting

# Options that saved models depend on, in addition to those that must be the same.
MODEL_FLAGS = (
    *("trained_dtype", "save_index", "threshold", "threshold_pixel"),
    *("nominal_fpr", "nominal_fpr_pixel"),
)
FIGURE_FLAGS = ("pictures", "pictures_limit", "explain_top", "score_max")


def wanted_results(options: EvaluateOptions) -> list[tuple[Setting, int]]:
    """Return the settings and seeds of a run, in the order of its rows."""
    percentages = options.settings().percentage_coreset
    return [
        (Setting(percentage, shots), seed)
        for shots, seed, percentage in product(
            options.shot_counts, dict.fromkeys(options.seed), percentages
        )
    ]


def own_rows(
    rows: Sequence[ResultRow], options: EvaluateOptions, names: Sequence[str]
) -> list[ResultRow]:
    """Return the rows that a run was asked for, without others of earlier runs.

    Args:
        rows: All rows of a result folder.
        options: Options of the run.
        names: Names of its categories.
    """
    wanted = set(wanted_results(options))
    return [row for row in rows if row.category in names and (row.setting, row.seed) in wanted]


def describe_results(wanted: Sequence[tuple[Setting, int]]) -> str:
    """Return settings and seeds in words."""
    return "; ".join(f"{setting}, seed {seed}" for setting, seed in wanted)


@dataclass(frozen=True)
class Wanted:
    """The results, figures, models and maps that a run was asked for.

    Attributes:
        options: The options of the run.
        folder: The result folder.
        models: Names of the models, in order.
    """

    options: EvaluateOptions
    folder: Path
    models: Sequence[str]

    @property
    def results(self) -> list[tuple[Setting, int]]:
        """The settings and seeds, in the order of the rows."""
        return wanted_results(self.options)

    def missing(self, found: FinishedCategory | None) -> list[tuple[Setting, int]]:
        """Return the settings and seeds of a category that this run has to compute.

        Args:
            found: The results so far of this category; None if there are none.
        """
        wanted = self.results
        if found is None or self.missing_output(found):
            return wanted
        return [one for one in wanted if one not in found.done]

    def missing_output(self, found: FinishedCategory | None) -> str:
        """Return why outputs of finished results are made again; empty if none is missing."""
        if found is None:
            return ""
        wanted = [one for one in self.results if one in found.done]
        reasons = (*self._missing_figures(found, wanted), *self._missing_files(found, wanted))
        return next(iter(reasons), "")

    @property
    def figure_flags(self) -> dict[str, str]:
        """The flags that choose figures."""
        return {name: str(getattr(self.options, name)) for name in FIGURE_FLAGS}

    def states_of(self, category: str) -> dict[str, str]:
        """Return the states of the models and maps of a category, by name."""
        files = self._files_of(category, self.results)
        return {name: _state(self.folder / name, flags) for name, flags in files}

    def _files_of(
        self, category: str, wanted: Sequence[tuple[Setting, int]]
    ) -> Iterator[tuple[str, str]]:
        """Yield the trained models and maps of a category, each with its flags.

        Names of maps are relative to the result folder, which may move; those of models are
        absolute.

        Args:
            category: Name of the category.
            wanted: The settings and seeds.
        """
        options = self.options
        if options.saves_models:
            flags = [f"{name} {getattr(options, name)}" for name in MODEL_FLAGS]
            flags = ", ".join([*flags, f"seed {options.seed[0]}"])
            for model, one in product(self.models, self._of_first_seed(wanted)):
                setting = one.percentage, options.k, one.shots
                root = options.path_trained.absolute()
                yield str(model_folder(root, category, model, *setting)), flags
        if options.save_maps:
            models = [*self.models, ENSEMBLE] if len(self.models) > 1 else self.models
            for model, (setting, seed) in product(models, wanted):
                yield maps_name(category, model, setting, options.k, seed), ""

    def _missing_figures(
        self, found: FinishedCategory, wanted: Sequence[tuple[Setting, int]]
    ) -> Iterator[str]:
        """Yield what is missing of the figures that this run asks for."""
        drawn, seed = {one.view.setting: one for one in found.figures}, self.options.seed[0]
        if self.options.pictures == "none":
            return
        for setting in self._of_first_seed(wanted):
            figures = drawn.get(setting)
            if figures is None or figures.seed != seed:
                yield f"the figures of {setting}, seed {seed} are missing"
            elif gone := [name for name in figures.files if not (self.folder / name).exists()]:
                yield f"{self.folder / gone[0]} is missing"
            else:
                for name, now in self.figure_flags.items():
                    if figures.flags[name] != now:
                        yield f"{name} of the figures is {now}, was {figures.flags[name]}"

    def _missing_files(
        self, found: FinishedCategory, wanted: Sequence[tuple[Setting, int]]
    ) -> Iterator[str]:
        """Yield what is missing of the models and maps that this run asks for."""
        for name, flags in self._files_of(found.category, wanted):
            path = self.folder / name
            state = _state(path, flags)
            if not path.exists():
                yield f"{path} is missing"
            elif flags and not state:
                yield f"{path} is damaged"
            elif found.files.get(name) != state:
                yield f"{path} was made with other flags or by another run"

    def _of_first_seed(self, wanted: Sequence[tuple[Setting, int]]) -> list[Setting]:
        """Return the settings of the first seed, which figures and models belong to."""
        return [setting for setting, seed in wanted if seed == self.options.seed[0]]


def _state(path: Path, flags: str) -> str:
    """Return the flags that a file or model depends on, and a model's digest."""
    try:
        return f"{flags}, digest {read_record(path)['digest']}" if flags else ""
    except PatchCoreError:  # it is missing or damaged
        return ""
