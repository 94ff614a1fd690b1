"""What ``run.json`` says of an evaluation: how it began, and how its models were fitted."""

from collections.abc import Mapping, Sequence

from datasets.base import Category
from datasets.published import differing_counts
from datasets.shots import shuffled_training
from patchcore import PatchCore
from patchcore.fit import FitResult
from patchcore.version import RESULTS_VERSION
from patchcore.weights import RANDOM
from utils.machine import start_record
from utils.options.evaluate import EvaluateOptions
from utils.pipeline.category_result import CategoryResult
from utils.pipeline.copies import describe_leak
from utils.pipeline.models import describe_ignored, first_of
from utils.pipeline.skipping import Skipping
from utils.results import shots_text


def start_evaluation(
    options: EvaluateOptions,
    models: Mapping[str, PatchCore],
    categories: Sequence[Category],
    note: str,
    skipping: Skipping,
) -> dict[str, object]:
    """Return the content of ``run.json`` at the start of an evaluation.

    Args:
        options: Options of the run.
        models: The models by name.
        categories: The categories as they are listed, before any is skipped.
        note: Remark for the tables.
        skipping: Its lists of skipped images and categories grow while the run goes on.
    """
    notes = [note] if note else []
    notes += [
        f"{category.name}: {text}"
        for category in categories
        for text in (*category.facts, *category.notes)
    ]
    leaks = {category.name: describe_leak(category) for category in categories}
    notes += [f"{name}: {leak}" for name, leak in leaks.items() if leak]
    notes += [
        f"{category.name}: {difference}: the results are not comparable with published ones"
        for category in categories
        if (difference := differing_counts(category))
    ]
    if RANDOM in options.weights:
        notes.append(
            "RANDOM WEIGHTS: the results are meaningless; use this only to test the program."
        )
    if ignored := describe_ignored(first_of(models)):
        notes.append(f"{ignored} nor measured.")
    return start_record(options, first_of(models).device) | {
        "results_version": RESULTS_VERSION,
        "notes": notes,
        "remarks": {category.name: category.remarks() for category in categories},
        "weights_digest": {n: m.backbone.weights_digest for n, m in models.items()},
        "licence": {n: m.backbone.licence for n, m in models.items()},
        "patches_per_image": {
            name: model.embedder.patches_per_image for name, model in models.items()
        },
        "memory": {},
        "shots": {},
        "skipped_images": skipping.images,
        "skipped_categories": skipping.categories,
    }


def describe_fits(
    options: EvaluateOptions,
    names: Sequence[str],
    category: Category,
    results: Sequence[Sequence[CategoryResult]],
) -> dict[str, dict[str, object]]:
    """Describe memory, coresets and, if a few training images were chosen, which ones."""
    record: dict[str, dict[str, object]] = {
        "memory": {
            name if member.shots is None else f"{name}, {shots_text(member.shots)}": (
                _describe_memory(member.learned)
            )
            for group in results
            for name, member in zip(names, group, strict=False)  # without the ensemble
        },
        "coresets": {
            key: value
            for group in results
            for _, member in zip(names, group, strict=False)
            for key, value in member.coresets.items()
        },
    }
    if options.shots:
        record["shots"] = {
            str(seed): [
                str(category.train[index].path)
                for index in shuffled_training(category, seed)[: max(options.shots)]
            ]
            for seed in dict.fromkeys(options.seed)
        }
    return record


def _describe_memory(learned: FitResult) -> str:
    """Return how the embeddings of a fit were kept, also those of the context's images."""
    plans = [learned.plan.describe()]
    if learned.context is not None:
        plans.append(f"of smaller images: {learned.context.plan.describe()}")
    return "; ".join(plans)
