"""What the results of an evaluation depend on: a run resumes only from results with the same."""

import hashlib
from collections.abc import Mapping

from patchcore import PatchCore
from patchcore.version import RESULTS_VERSION
from utils.options.evaluate import EvaluateOptions

# Options that change no number: what to process, the machine, figures, the log, and models that
# are saved. All others must be the same for a run to resume an earlier one.
IRRELEVANT = frozenset(
    {
        *("path_data", "categories", "percentage_coreset", "seed", "shots"),
        *("dataset", "holdout", "normal_dir", "abnormal_dir", "mask_dir"),  # the images count
        *("protocol", "weights", "ignore_mask"),  # settings and contents of the files count
        *("device", "batch_size", "num_workers", "memory_budget", "max_megapixels"),
        *("engine", "address", "shards", "task_cpus"),
        *("path_result", "fresh", "pictures", "pictures_limit", "explain_top", "score_max"),
        *("save_maps", "profile", "summary", "on_error", "quiet", "verbose"),
        *("path_trained", "trained_dtype", "save_index"),
        *("threshold", "threshold_pixel", "nominal_fpr", "nominal_fpr_pixel"),
    }
)


def identity_of(options: EvaluateOptions, models: Mapping[str, PatchCore]) -> dict[str, str]:
    """Return all that results depend on except the data, the setting and the seed, by name."""
    weights = {f"the digest of {n}'s weights": m.backbone.weights_digest for n, m in models.items()}
    masks = {
        f"the ignored pixels of {n}": hashlib.sha256(m.mask.pixels.tobytes()).hexdigest()
        for n, m in models.items()
        if m.mask is not None
    }
    version = {"the program's version of results": str(RESULTS_VERSION)}
    return version | options.texts(without=IRRELEVANT) | weights | masks
