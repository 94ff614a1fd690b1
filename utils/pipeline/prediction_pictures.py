"""The files that `infer` writes of each image: figures, masks, maps and annotated videos."""

import io
import logging
from pathlib import Path

import numpy as np

from datasets.items import Item
from patchcore import PatchCore, Prediction, explain
from patchcore.regions import resize_map_to_image, resize_mask_to_image
from patchcore.thresholds import Thresholds
from utils.encoding import encode_image
from utils.errors import UsageError
from utils.options.infer import InferOptions
from utils.pipeline.annotated_video import AnnotatedVideo
from utils.pipeline.reading import decoding_of_model
from utils.predictions import file_stem
from utils.result_folder import ResultFolder

log = logging.getLogger(__name__)


class PredictionPictures:
    """Writes the figures and arrays of each image that the options ask for.

    Args:
        model: A fitted model.
        thresholds: The thresholds of images and pixels; neither is None.
        options: The options of the command.
        folder: The folder of the files.
    """

    def __init__(
        self, model: PatchCore, thresholds: Thresholds, options: InferOptions, folder: ResultFolder
    ):
        self._model = model
        self._thresholds = thresholds
        self._options = options
        self._folder = folder
        self._ignored = model.scorer.ignored
        self._video: AnnotatedVideo | None = None
        self._score_range = self._find_score_range()

    def draw(
        self,
        item: Item,
        image: np.ndarray,
        crop: np.ndarray,
        prediction: Prediction,
        *,
        is_anomaly: bool,
    ) -> dict[str, object]:
        """Write the files of one image.

        Args:
            item: The file or video frame.
            image: (H, W, 3) uint8 RGB, the original image.
            crop: (H', W', 3) uint8 RGB, the input of the model.
            prediction: The prediction for this image alone (B = 1).
            is_anomaly: The verdict.

        Returns:
            The names of the files by kind, relative to the folder, and the explained ``patches``.

        Raises:
            UsageError: a file cannot be written, or the model has no crops of its coreset patches.
        """
        if self._video is not None and self._video.source != item.path:
            self.finish_video()
        options, stem = self._options, file_stem(item.name)
        files: dict[str, object] = {}
        if options.save_maps:
            data = io.BytesIO()
            np.save(data, prediction.anomaly_map[0])
            files["map"] = self._write(f"maps/{stem}.npy", data.getvalue())
        if options.save_masks:
            mask = np.where(self._marked(image, prediction), np.uint8(255), np.uint8(0))
            files["mask"] = self._write(f"masks/{stem}.png", encode_image(mask))
        is_drawn = options.pictures == "all" or (options.pictures == "anomalies" and is_anomaly)
        if is_drawn:
            figure = (
                self._panels(item, crop, prediction)
                if options.layout == "panels"
                else self._overlay(image, prediction, is_anomaly=is_anomaly)
            )
            files["picture"] = self._write(f"pictures/{stem}.png", encode_image(figure))
        if options.explain_top:
            files |= self._explain(item, crop, prediction, is_drawn=is_drawn)
        if options.annotate and item.number is not None and item.path is not None:
            frame = self._overlay(image, prediction, is_anomaly=is_anomaly)
            files["annotated"] = self._add_frame(item.path, frame)
        return files

    def thumbnail(self, crop: np.ndarray, prediction: Prediction) -> bytes:
        """Draw the image and its anomaly map side by side, as JPEG.

        Args:
            crop: (H, W, 3) uint8 RGB, the input of the model.
            prediction: The prediction for this image alone (B = 1).
        """
        # Imported here: Matplotlib takes a while to load.
        from utils.plots import draw_thumbnail

        ignored = None if self._ignored is None else self._ignored.pixels
        anomaly_map = prediction.anomaly_map[0]
        drawn = draw_thumbnail(crop, anomaly_map, None, self._score_range, ignored)
        return encode_image(drawn, ".jpg")

    def finish_video(self) -> None:
        """Finish the annotated video, if there is one: its last frame has been added."""
        if self._video is not None:
            self._video.finish()
            self._video = None

    def close(self) -> None:
        """Remove the annotated video that is not finished, if there is one."""
        if self._video is not None:
            log.warning("not complete, removed: the annotated copy of %s", self._video.source)
            self._video.remove()
            self._video = None

    def _find_score_range(self) -> tuple[float, float]:
        """Return the ends of the colour scale, the same for all images of a model."""
        high = self._options.score_max or 2 * self._thresholds.pixel.value
        held_out = self._model.trained.held_out
        low = 0.0 if held_out is None else float(held_out.pixel_scores[-1])
        return min(low, high), high

    def _resized_map(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        size = image.shape[:2]
        box = self._model.preprocess.crop_box(size)
        return resize_map_to_image(prediction.anomaly_map[0], size, crop_box=box)

    def _marked(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        marked = self._resized_map(image, prediction) >= self._thresholds.pixel.value
        ignored = self._ignored_of_image(image)
        return marked if ignored is None else marked & ~ignored

    def _ignored_of_image(self, image: np.ndarray) -> np.ndarray | None:
        """Return (H, W) bool, the ignored pixels of the whole image; None if there are none."""
        if self._ignored is None:
            return None
        size = image.shape[:2]
        box = self._model.preprocess.crop_box(size)
        return resize_mask_to_image(self._ignored.pixels, size, crop_box=box)

    def _panels(self, item: Item, crop: np.ndarray, prediction: Prediction) -> np.ndarray:
        """Draw the panels of `evaluate`, without ground truth."""
        from utils.plots import draw_localization

        nearest = prediction.nearest[0, :, :, 0]  # (h, w)
        return draw_localization(
            crop,
            mask=None,
            anomaly_map=prediction.anomaly_map[0],
            rebuilt=explain.rebuild(self._patches()[nearest], crop.shape[:2]),
            defect_type=Path(item.name).name,
            file_name=str(Path(item.name).parent),
            score=float(prediction.score[0]),
            score_range=self._score_range,
            threshold=self._thresholds.pixel.value,
            image_threshold=self._thresholds.image.value,
            ignored=None if self._ignored is None else self._ignored.pixels,
        )

    def _explain(
        self, item: Item, crop: np.ndarray, prediction: Prediction, *, is_drawn: bool
    ) -> dict[str, object]:
        """Return the most anomalous patches and the name of the figure that explains them."""
        # Imported here: Matplotlib takes longer to load than a model.
        from utils.pipeline.explanations import crops_of_nearest, describe_patches, draw_patches

        origins, size = self._model.coreset.origins, crop.shape[:2]
        ignored = None if self._ignored is None else self._ignored.patches
        records = describe_patches(prediction, origins, size, self._options.explain_top, ignored)
        if not is_drawn:
            return {"patches": records}
        name = Path(item.name)
        figure = draw_patches(
            crop,
            records,
            crops_of_nearest(records, self._patches()),
            self._model.grid,
            root=Path(),  # a trained model names its training images by their full paths
            preprocess=self._model.preprocess,
            decoding=decoding_of_model(self._model.trained, self._options.max_megapixels),
            title=name.name,
            file_name=str(name.parent),
            threshold=self._thresholds.pixel.value,
        )
        file = self._write(f"explanations/{file_stem(item.name)}.png", encode_image(figure))
        return {"patches": records, "explanation": file}

    def _patches(self) -> np.ndarray:
        patches = self._model.coreset.patches
        if patches is None:
            raise UsageError(
                "expected a model with crops of its coreset patches, found none: use --layout "
                "overlay and --explain_top 0"
            )
        return patches

    def _overlay(
        self, image: np.ndarray, prediction: Prediction, *, is_anomaly: bool
    ) -> np.ndarray:
        """Draw the map, the outlines of anomalous regions and the verdict on the whole image."""
        from utils.plots.annotation import annotate
        from utils.plots.colour_scale import ColourScale

        score, threshold = float(prediction.score[0]), self._thresholds.image.value
        verdict = "ANOMALY" if is_anomaly else "normal"
        return annotate(
            image,
            anomaly_map=self._resized_map(image, prediction),
            scale=ColourScale(*self._score_range),
            pixel_threshold=self._thresholds.pixel.value,
            text=f"{verdict}  {score:.3g}  (threshold {threshold:.3g})",
            is_anomaly=is_anomaly,
            ignored=self._ignored_of_image(image),
        )

    def _write(self, name: str, data: bytes) -> str:
        self._folder.write_bytes(name, data)
        return name

    def _add_frame(self, source: Path, frame: np.ndarray) -> str:
        """Add a frame to the annotated copy of its video; return the name of the copy."""
        name = f"annotated/{file_stem(str(source))}.mp4"
        if self._video is None:
            self._video = AnnotatedVideo(
                source, self._folder.path / name, self._options.frame_stride
            )
        self._video.add(frame)
        return name
