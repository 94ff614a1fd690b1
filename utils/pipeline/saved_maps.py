"""The arrays from which the metrics were computed, in files of the result folder (--save_maps)."""

import numpy as np

from patchcore import Prediction
from utils.encoding import write_arrays
from utils.output_names import setting_tag
from utils.pipeline.category_result import CategoryResult
from utils.result_folder import ResultFolder
from utils.results import ResultRow, Setting


def maps_name(category: str, model: str, setting: Setting, k: int, seed: int) -> str:
    """Return the name of the file with the maps of a category."""
    tag = setting_tag(setting.percentage, k, setting.shots)
    return f"maps_{category}_{model.replace(':', '-')}_{tag}_seed{seed}.npz"


def save_maps(
    row: ResultRow, prediction: Prediction, result: CategoryResult, folder: ResultFolder
) -> None:
    """Write the arrays from which the metrics were computed."""
    samples = result.category.test
    arrays = {
        "scores": prediction.score,
        "labels": np.array([sample.is_defective for sample in samples]),
        "files": np.array([f"{s.defect_type}/{s.name}{s.path.suffix}" for s in samples]),
    }
    arrays |= _saved_pixels(prediction.anomaly_map, result)
    if result.masks is not None:
        known = np.array([sample.has_ground_truth for sample in samples])
        if not known.all():
            arrays["has_ground_truth"] = known
    write_arrays(folder, maps_name(row.category, row.model, row.setting, row.k, row.seed), arrays)


def _saved_pixels(maps: np.ndarray, result: CategoryResult) -> dict[str, np.ndarray]:
    """Return maps, masks and ignored pixels: stacks, or an array per image of several sizes."""
    ignored = None if result.ignored is None else result.ignored.pixels
    pixels = result.truth.pixels(maps, ignored)
    named = {"anomaly_maps": pixels.maps}
    if result.masks is not None:
        named["masks"] = pixels.masks
    arrays: dict[str, np.ndarray] = {}
    if pixels.hidden is ignored:
        arrays |= {} if ignored is None else {"ignored": ignored}
    else:
        named["ignored"] = pixels.hidden
    for name, values in named.items():
        if isinstance(values, np.ndarray) or len({value.shape for value in values}) == 1:
            arrays[name] = np.asarray(values)
        else:
            arrays |= {f"{name}_{index:04d}": value for index, value in enumerate(values)}
    return arrays
