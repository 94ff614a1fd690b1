"""The figures of test images: their names for the report, and how another process draws them."""

import json
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from datasets.depth import Decoding
from datasets.entries import relative_name
from patchcore import explain
from patchcore.origins import Origins
from patchcore.preprocess import Preprocess
from patchcore.settings import BACKBONE
from utils.encoding import write_image
from utils.options.evaluate import EvaluateOptions
from utils.output_names import THUMBNAIL_FOLDER, setting_tag
from utils.pipeline.category_view import CategoryView
from utils.pipeline.chosen_images import choose_images
from utils.pipeline.explanations import (
    crops_of_nearest,
    describe_patches,
    draw_patches,
    with_relative_names,
)
from utils.plots import draw_localization, draw_thumbnail
from utils.report import ReportImage
from utils.result_folder import ResultFolder
from utils.results import Setting


@dataclass(frozen=True)
class FigureSettings:
    """Common settings of the figures of a category at one percentage.

    Attributes:
        category: The name of the category.
        setting: The coreset percentage and the number of shots.
        score_range: Lowest and highest distance of the colour scale.
        image_threshold: The score from which an image counts as defective; None if unknown.
        pixel_threshold: The distance from which a pixel counts as defective; None if unknown.
        root: The dataset's folder; file names are relative to it.
        preprocess: Crops images for the model.
        decoding: How the training images were decoded.
        ignored: (H, W) bool, pixels that are not judged; None if all are.
    """

    category: str
    setting: Setting
    score_range: tuple[float, float]
    image_threshold: float | None
    pixel_threshold: float | None
    root: Path
    preprocess: Preprocess
    decoding: Decoding
    ignored: np.ndarray | None = None

    @classmethod
    def of(cls, view: CategoryView, options: EvaluateOptions) -> "FigureSettings":
        """Return the settings of a category."""
        maps = view.prediction.anomaly_map
        ignored = None if view.ignored is None else view.ignored.pixels
        if ignored is not None:
            maps = maps[:, ~ignored]
        high, settings = options.score_max, options.settings()
        # Figures only show training images, and may show those of several backbones.
        chosen = options.interpolation
        interpolation = "bilinear" if chosen == BACKBONE else chosen
        return cls(
            category=view.row.category,
            setting=view.row.setting,
            score_range=(0.0, high) if high else (float(maps.min()), float(maps.max())),
            image_threshold=view.threshold("image"),
            pixel_threshold=view.threshold("pixel"),
            root=options.data_root,
            preprocess=Preprocess(
                settings.size_resize,
                settings.size_crop,
                interpolation=interpolation,
                resize=options.resize,
            ),
            decoding=view.decoding,
            ignored=ignored,
        )


@dataclass(frozen=True)
class ImageFigures:
    """The figures of one test image, with the arrays of this image alone.

    Attributes:
        settings: The settings of the category.
        described: The names of the image's files, its score and its most anomalous patches.
        path: The image file.
        image: (H, W, 3) uint8 RGB, cropped.
        mask: (H, W) bool; None without ground truth.
        anomaly_map: (H, W) float32.
        patches: (P, ph, pw, 3) uint8, the crops of the image's P different nearest coreset patches.
        nearest: (h, w) int64, the nearest coreset patch at each position of the grid, an index of
            `patches`.
        explained: (n, k, ph, pw, 3) uint8, the crops of the patches in ``described.patches``.
    """

    settings: FigureSettings
    described: ReportImage
    path: Path
    image: np.ndarray
    mask: np.ndarray | None
    anomaly_map: np.ndarray
    patches: np.ndarray
    nearest: np.ndarray
    explained: np.ndarray

    def draw(self, folder: ResultFolder) -> None:
        """Write the figures that `described` names.

        Raises:
            UsageError: a file cannot be written.
        """
        rebuilt = explain.rebuild(self.patches[self.nearest], self.image.shape[:2])
        thumbnail = draw_thumbnail(
            self.image,
            self.anomaly_map,
            rebuilt,
            self.settings.score_range,
            self.settings.ignored,
        )
        write_image(folder, self.described.thumbnail, thumbnail)
        if self.described.localization is not None:
            write_image(folder, self.described.localization, self._localization(rebuilt))
        if self.described.explanation is not None:
            record = json.dumps(self._record(), indent=2) + "\n"
            folder.write_text(self.described.explanation.removesuffix(".png") + ".json", record)
            write_image(folder, self.described.explanation, self._explanation())

    def _localization(self, rebuilt: np.ndarray) -> np.ndarray:
        return draw_localization(
            self.image,
            mask=self.mask,
            anomaly_map=self.anomaly_map,
            rebuilt=rebuilt,
            defect_type=self.described.defect_type,
            file_name=self.described.file,
            score=self.described.score,
            score_range=self.settings.score_range,
            threshold=self.settings.pixel_threshold,
            image_threshold=self.settings.image_threshold,
            ignored=self.settings.ignored,
        )

    def _explanation(self) -> np.ndarray:
        return draw_patches(
            self.image,
            self.described.patches,
            self.explained,
            self.nearest.shape,
            root=self.settings.root,
            preprocess=self.settings.preprocess,
            decoding=self.settings.decoding,
            title=self.described.defect_type,
            file_name=self.described.file,
            threshold=self.settings.pixel_threshold,
        )

    def _record(self) -> dict[str, object]:
        """Return the explanation for JSON."""
        settings = self.settings
        shots = settings.setting.shots
        return {
            "file": relative_name(self.path, settings.root),
            "category": settings.category,
            "defect_type": self.described.defect_type,
            "score": self.described.score,
            "threshold": settings.image_threshold,
            "percentage_coreset": settings.setting.percentage,
            **({} if shots is None else {"shots": shots}),
            "size_resize": settings.preprocess.size_resize,
            "size_crop": settings.preprocess.size_crop,
            "grid": self.nearest.shape,
            "patches": self.described.patches,
        }


def describe_images(
    view: CategoryView, options: EvaluateOptions, taken: Set[str] = frozenset()
) -> list[ReportImage]:
    """Describe all test images: their scores, the files to draw, their most anomalous patches.

    Both the report and `make_figures` use these descriptions.

    Args:
        view: The results of the category.
        options: The options of the run.
        taken: Thumbnails of other categories.
    """
    threshold, scores = view.row.metrics["image_threshold"], view.prediction.score
    limit = options.pictures_limit
    chosen = set(choose_images(view.samples, scores, threshold, options.pictures, limit))
    origins = None
    if view.origins is not None:
        origins = with_relative_names(view.origins, options.data_root)
    return [
        _describe_image(
            view, index, name, origins, options.explain_top if index in chosen else None
        )
        for index, name in enumerate(_figure_names(view, taken))
    ]


def _figure_names(view: CategoryView, taken: Set[str]) -> list[str]:
    """Return what the names of each image's figures have in common.

    Type ``b_c`` of category ``a`` would have the names of type ``c`` of ``a_b``: if any name is
    taken, all names of the category have one more underscore.
    """
    tag = setting_tag(view.row.percentage_coreset, view.row.k, view.row.shots)
    category, known = view.row.category, {name.lower() for name in taken}
    while True:
        names = [f"{category}_{one.defect_type}_{one.name}_{tag}" for one in view.samples]
        if known.isdisjoint(_thumbnail(name).lower() for name in names):
            return names
        category += "_"


def _thumbnail(name: str) -> str:
    return f"{THUMBNAIL_FOLDER}/{name}.jpg"


def _describe_image(
    view: CategoryView, index: int, name: str, origins: Origins | None, max_patches: int | None
) -> ReportImage:
    """Describe a test image; without large figures if ``max_patches`` is None."""
    sample, score = view.samples[index], float(view.prediction.score[index])
    described = ReportImage(sample.defect_type, sample.path.name, score, sample.is_defective)
    if view.images is None:
        return described
    described = replace(described, thumbnail=_thumbnail(name))
    if max_patches is None:
        return described
    largest = max(float(view.prediction.score.max()), np.finfo(np.float32).tiny)
    share = round(100 * max(score / largest, 0))
    described = replace(described, localization=f"localization_{name}_s{share:03d}.png")
    if max_patches == 0:
        return described
    size = view.images.shape[1:3]
    return replace(
        described,
        explanation=f"explanation_{name}.png",
        patches=describe_patches(
            view.prediction.of(index),
            origins,
            size,
            max_patches,
            None if view.ignored is None else view.ignored.patches,
        ),
    )


def make_figures(
    view: CategoryView, described: Sequence[ReportImage], options: EvaluateOptions
) -> Callable[[int], ImageFigures]:
    """Return a function that gathers the arrays of one test image, given its index.

    Args:
        view: The results of the category, with images.
        described: The test images as `describe_images` returns them.
        options: The options of the run.
    """
    settings, prediction = FigureSettings.of(view, options), view.prediction

    def figures_of(index: int) -> ImageFigures:
        numbers, nearest = np.unique(prediction.nearest[index, :, :, 0], return_inverse=True)
        return ImageFigures(
            settings=settings,
            described=described[index],
            path=view.samples[index].path,
            image=view.images[index],
            mask=_mask(view, index),
            anomaly_map=prediction.anomaly_map[index],
            patches=view.patches[numbers],
            nearest=nearest.reshape(prediction.nearest.shape[1:3]),
            explained=crops_of_nearest(described[index].patches, view.patches),
        )

    return figures_of


def _mask(view: CategoryView, index: int) -> np.ndarray | None:
    sample = view.samples[index]
    if view.masks is not None and sample.has_ground_truth:
        return view.masks[index]
    # Even without ground truth, a good image is known to have no defect.
    return None if sample.is_defective else np.zeros(view.images.shape[1:3], bool)
