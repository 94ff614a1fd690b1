"""Evaluation of one category with all models, in this process or as a task of Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from datasets.base import Category
from patchcore import PatchCore
from patchcore.engine import Engine
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.category_result import CategoryResult
from utils.pipeline.ensembles import combine_members
from utils.pipeline.evaluate_category import evaluate_category
from utils.pipeline.finished import (
    FileState,
    check_unchanged,
    data_state,
    digest_of_samples,
    files_of,
    states_of,
)
from utils.pipeline.skipping import Skipping


@dataclass(frozen=True)
class Evaluated:
    """The results of a category that are not written yet.

    Attributes:
        category: The samples that were used.
        options: The options that computed what was missing.
        samples: Digest of the samples.
        data: The state of each file that was used.
        skipped: The state of each file that was skipped.
        skipped_images: The images that were skipped, with the reasons.
        results: For each number of shots, the results of all models and of their ensemble.
    """

    category: Category
    options: EvaluateOptions
    samples: str
    data: Mapping[str, FileState]
    skipped: Mapping[str, FileState | None]
    skipped_images: Mapping[str, str]
    results: Sequence[Sequence[CategoryResult]]


def evaluate_one(
    models: Mapping[str, PatchCore],
    category: Category,
    options: EvaluateOptions,
    engine: Engine | None = None,
) -> Evaluated:
    """Evaluate a category with all models, and write nothing.

    With ``--on_error skip``, it starts again without images that cannot be used.

    Args:
        models: The models by name.
        category: Samples of the category.
        options: Options of the run, with the percentages, shots and seeds to compute.
        engine: Where training patches are embedded and selected; None for this process.

    Raises:
        DatasetError: a file cannot be read.
        PatchCoreError: the category is too small for the request, or too large for the memory.
    """
    skipping = Skipping(options)  # not that of the run, since a node may compute this
    evaluated = skipping.start_again(
        category, lambda used: _evaluate_used(models, used, options, engine)
    )
    left_out = set(map(str, files_of(category))) - evaluated.data.keys()
    reasons = skipping.images.get(category.name, {})
    return replace(evaluated, skipped=states_of(left_out), skipped_images=reasons)


def _evaluate_used(
    models: Mapping[str, PatchCore],
    category: Category,
    options: EvaluateOptions,
    engine: Engine | None,
) -> Evaluated:
    """Evaluate the images of a category that are used.

    Raises:
        UnusableFilesError, ChangedImagesError: Some cannot be used.
    """
    data, samples = data_state(category), digest_of_samples(category)
    by_model = [
        evaluate_category(
            model.with_percentages(options.percentage_coreset), name, category, options, engine
        )
        for name, model in models.items()
    ]
    check_unchanged(category, data)
    results = []
    for members in zip(*by_model, strict=True):  # for each number of shots
        group = [*members, combine_members(members, options)] if len(members) > 1 else members
        # Nothing shows or saves the coresets of later seeds.
        results.append([replace(one, learned=one.learned.of_first_seed()) for one in group])
    return Evaluated(category, options, samples, data, {}, {}, results)
