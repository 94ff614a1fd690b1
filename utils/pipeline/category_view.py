"""What was measured and drawn of a category -> what the page shows of it."""

import math

from utils.pipeline.explanations import ImagePatches, describe_patches
from utils.pipeline.scene import Scene, SceneArrays
from utils.report import ReportImage, ReportView


def make_view(scene: Scene, arrays: SceneArrays | None, distribution: str) -> ReportView:
    """Return what the page shows of a category at one percentage.

    Args:
        scene: What is drawn, under which names.
        arrays: What it is drawn from; None where no pictures are wanted.
        distribution: The file with the picture of its scores.
    """
    images = [_make_image(scene, arrays, index) for index in range(len(scene.samples))]
    height, width = scene.preprocess.size_crop
    return ReportView(
        category=scene.category,
        percentage=scene.percentage,
        threshold=math.nan if scene.image_threshold is None else scene.image_threshold,
        images=images,
        aspect=width / height,
        distribution=distribution,
    )


def _make_image(scene: Scene, arrays: SceneArrays | None, index: int) -> ReportImage:
    sample = scene.samples[index]
    if arrays is None:
        return ReportImage(
            sample.defect_type, sample.path.name, float(scene.scores[index]), sample.is_defective
        )
    names = scene.names(index)
    patches = []
    if names.explanation is not None:
        found = ImagePatches(arrays.distance[index], arrays.nearest[index])
        patches = describe_patches(
            found, scene.origins(arrays), arrays.images.shape[1:3], scene.explain_top
        )
    return ReportImage(
        defect_type=sample.defect_type,
        file=sample.path.name,
        score=float(scene.scores[index]),
        defective=sample.is_defective,
        thumbnail=names.thumbnail,
        localization=names.localization,
        explanation=names.explanation,
        patches=patches,
    )
