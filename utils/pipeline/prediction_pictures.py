"""What inference draws: pictures, masks, maps and annotated videos."""

import io
from pathlib import Path

import cv2
import numpy as np

from datasets.inputs import Item, video_format
from patchcore import PatchCore, Prediction, explain
from patchcore.regions import spread_map
from patchcore.thresholds import Thresholds
from utils.errors import UsageError
from utils.options.infer import InferOptions
from utils.predictions import file_stem
from utils.results import ResultFolder


class JudgedPictures:
    """Writes what is asked for of each judged picture.

    Args:
        model: Trained.
        thresholds: Both set.
        options: What is wanted.
        folder: Where to.
    """

    def __init__(
        self, model: PatchCore, thresholds: Thresholds, options: InferOptions, folder: ResultFolder
    ):
        self._model = model
        self._thresholds = thresholds
        self._options = options
        self._folder = folder
        self._video: _AnnotatedVideo | None = None
        self._scale_ends = self._common_scale()
        self._explanations = None
        if options.explain_top:
            # Only here, since it brings what draws, which takes longer to load than a model.
            from utils.pipeline.judged_explanations import Explanations

            self._explanations = Explanations(model, options.explain_top)

    def draw(
        self,
        item: Item,
        image: np.ndarray,
        crop: np.ndarray,
        prediction: Prediction,
        *,
        is_anomaly: bool,
    ) -> dict[str, object]:
        """Write what is wanted of one picture.

        Args:
            item: Where it is from.
            image: (H, W, 3) uint8 RGB, as it was given.
            crop: (h, w, 3) uint8 RGB, the part that the model saw.
            prediction: Of this picture alone.
            is_anomaly: The verdict.

        Returns:
            The names of the files by kind, relative to the folder, and the explained patches.

        Raises:
            UsageError: one cannot be written.
        """
        options, stem = self._options, file_stem(item.name)
        files: dict[str, object] = {}
        if options.save_maps:
            data = io.BytesIO()
            np.save(data, prediction.anomaly_map[0])
            files["map"] = self._write(f"maps/{stem}.npy", data.getvalue())
        if options.save_masks:
            mask = np.where(self._marked(image, prediction), np.uint8(255), np.uint8(0))
            files["mask"] = self._write(f"masks/{stem}.png", _encode(mask))
        drawn = options.pictures == "all" or (options.pictures == "anomalies" and is_anomaly)
        if drawn:
            picture = (
                self._panels(item, crop, prediction)
                if options.layout == "panels"
                else self._overlay(image, prediction, is_anomaly=is_anomaly)
            )
            files["picture"] = self._write_picture(f"pictures/{stem}.png", picture)
        if self._explanations is not None:
            files["patches"] = records = self._explanations.describe(crop, prediction)
            if drawn:
                name = Path(item.name)
                picture = self._explanations.draw(crop, records, name, self._patches())
                files["explanation"] = self._write_picture(f"explanations/{stem}.png", picture)
        if options.annotate and item.number is not None and item.path is not None:
            frame = self._overlay(image, prediction, is_anomaly=is_anomaly)
            files["annotated"] = self._add_frame(item.path, frame)
        return files

    def close(self) -> None:
        """Finish what is under way."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def _common_scale(self) -> tuple[float, float]:
        """Return the ends of the colours: the same for all pictures of a model."""
        high = self._options.score_max or 2 * self._thresholds.pixel.value
        held_out = self._model.trained.held_out
        low = 0.0 if held_out is None else float(held_out.pixel_scores[-1])
        return min(low, high), high

    def _spread(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        size = image.shape[:2]
        box = self._model.preprocess.crop_box(size)
        return spread_map(prediction.anomaly_map[0], size, crop_box=box)

    def _marked(self, image: np.ndarray, prediction: Prediction) -> np.ndarray:
        return self._spread(image, prediction) >= self._thresholds.pixel.value

    def _panels(self, item: Item, crop: np.ndarray, prediction: Prediction) -> np.ndarray:
        """Draw the panels of an evaluation, without ground truth."""
        from utils.plots import draw_localization

        patches = self._patches()
        nearest = prediction.nearest[0, :, :, 0]  # (h, w)
        return draw_localization(
            crop,
            mask=None,
            anomaly_map=prediction.anomaly_map[0],
            rebuilt=explain.rebuild(patches[nearest], crop.shape[:2]),
            defect_type=Path(item.name).name,
            file_name=str(Path(item.name).parent),
            score=float(prediction.score[0]),
            score_range=self._scale_ends,
            threshold=self._thresholds.pixel.value,
            image_threshold=self._thresholds.image.value,
        )

    def _patches(self) -> np.ndarray:
        patches = self._model.trained.patches
        if patches is None:
            raise UsageError(
                "expected a model with its patches' pictures, found none: take --layout overlay, "
                "and --explain_top 0"
            )
        return patches

    def _write_picture(self, name: str, picture: np.ndarray) -> str:
        """Write (H, W, 3) uint8 RGB as PNG."""
        return self._write(name, _encode(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)))

    def _overlay(
        self, image: np.ndarray, prediction: Prediction, *, is_anomaly: bool
    ) -> np.ndarray:
        """Draw the map, the verdict and the outlines on the whole picture."""
        from utils.plots.annotation import annotate
        from utils.plots.colour_scale import ColourScale

        score, threshold = float(prediction.score[0]), self._thresholds.image.value
        words = "ANOMALY" if is_anomaly else "normal"
        return annotate(
            image,
            anomaly_map=self._spread(image, prediction),
            scale=ColourScale(*self._scale_ends),
            pixel_threshold=self._thresholds.pixel.value,
            text=f"{words}  {score:.3g}  (threshold {threshold:.3g})",
            is_anomaly=is_anomaly,
        )

    def _write(self, name: str, data: bytes) -> str:
        folder = (self._folder.path / name).parent
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make {folder}: {error.strerror} (--path_result)") from error
        self._folder.write_bytes(name, data)
        return name

    def _add_frame(self, source: Path, frame: np.ndarray) -> str:
        """Add a frame to the annotated copy of its video; return the copy's name."""
        if self._video is not None and self._video.source != source:
            self.close()
        name = f"annotated/{file_stem(str(source))}.mp4"
        if self._video is None:
            self._video = _AnnotatedVideo(
                source, self._folder.path / name, self._options.frame_stride
            )
        self._video.add(frame)
        return name


class _AnnotatedVideo:
    """A video under way, which gets its final name when it is complete.

    Attributes:
        source: The video whose frames come.
    """

    def __init__(self, source: Path, target: Path, frame_stride: int):
        self.source = source
        self._target = target
        self._partial = target.with_name(f".partial_{target.name}")
        known = video_format(source)
        if known is None:
            raise UsageError(f"cannot read {source} any more, to annotate it (--annotate)")
        target.parent.mkdir(exist_ok=True)
        height, width = known.size
        self._size = width - width % 2, height - height % 2  # codecs want even sides
        self._writer = cv2.VideoWriter(
            str(self._partial),
            cv2.VideoWriter_fourcc(*"mp4v"),
            known.frames_per_second / frame_stride,
            self._size,
        )
        if not self._writer.isOpened():
            raise UsageError(
                f"cannot write the video {target}: this OpenCV has no encoder for mp4 (--annotate)"
            )

    def add(self, frame: np.ndarray) -> None:
        """Add a frame, (H, W, 3) uint8 RGB."""
        width, height = self._size
        bgr = cv2.cvtColor(frame[:height, :width], cv2.COLOR_RGB2BGR)
        self._writer.write(bgr)

    def close(self) -> None:
        """Finish the file."""
        self._writer.release()
        self._partial.replace(self._target)


def _encode(picture: np.ndarray) -> bytes:
    """Encode (H, W) grey or (H, W, 3) BGR as PNG."""
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
