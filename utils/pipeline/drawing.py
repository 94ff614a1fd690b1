"""The pictures of test images, drawn by other processes while the next category computes."""

import contextlib
import json
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import numpy as np

from datasets.base import Sample
from datasets.images import map_ahead
from patchcore import explain
from utils.errors import UsageError
from utils.pipeline.explanations import (
    ImagePatches,
    describe_patches,
    explained_patches,
    relative_name,
)
from utils.pipeline.scene import Scene, SceneArrays
from utils.pipeline.training_images import read_training_image
from utils.plots import draw_explanation, draw_localization, draw_thumbnail
from utils.progress import show_progress
from utils.results import ResultFolder

# So many images of a run are drawn sooner than a process has started.
FEW_IMAGES = 40
# More of them would wait for the disk, and each takes some 300 MB.
MOST_PROCESSES = 8
# Images that a process takes at a time: what is sent along with them weighs little then.
IMAGES_AT_A_TIME = 8
# The least of a POSIX system: computing always goes first.
NICENESS = 19


class Drawing:
    """Draws test images: the first few in this process, others by processes in the background.

    These run with the lowest priority, so that what is computed and timed meanwhile has the cores.
    At most one category waits to be drawn. Leaving the context waits until everything is drawn,
    unless the user interrupts.

    Args:
        folder: Where to.
        num_workers: Threads or processes at most; 0 draws everything here.
    """

    def __init__(self, folder: ResultFolder, num_workers: int):
        self._folder = folder
        self._num_workers = num_workers
        self._asked_for = 0
        self._pool: ProcessPoolExecutor | None = None
        self._temporary: list[tempfile.TemporaryDirectory] = []
        self._pending: list[Future] = []

    def __enter__(self) -> "Drawing":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
            elif issubclass(kind, Exception):
                # What the run ends with is that error, and not what drawing has to add to it.
                with contextlib.suppress(Exception):
                    self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
            self._clean_up()

    def draw(self, scene: Scene, arrays: SceneArrays) -> None:
        """Draw all test images of a scene, now or in the background.

        Raises:
            UsageError: a picture, or what it is drawn from, cannot be written.
        """
        numbers = range(len(scene.samples))
        self._asked_for += len(numbers)
        if self._num_workers == 0 or self._asked_for < FEW_IMAGES:
            self._draw_here(scene, arrays, numbers)
            return
        # Files, since they are sent to any number of processes at once and for nothing.
        place = tempfile.TemporaryDirectory(prefix="patchcore-", ignore_cleanup_errors=True)
        self._temporary.append(place)
        try:
            arrays.save(Path(place.name))
        except OSError as error:
            raise UsageError(
                f"cannot write {place.name}: {error.strerror or error} (TMPDIR names another "
                "folder for what waits to be drawn; --num_workers 0 needs none)"
            ) from error
        if self._pool is None:
            self._pool = _start_pool(min(self._num_workers, MOST_PROCESSES))
        for start in range(0, len(numbers), IMAGES_AT_A_TIME):
            part = numbers[start : start + IMAGES_AT_A_TIME]
            self._pending.append(
                self._pool.submit(_draw_saved, scene, Path(place.name), part, self._folder)
            )

    def wait(self) -> None:
        """Wait until everything is drawn.

        Raises:
            UsageError: a picture cannot be written, or a process has ended before its time.
        """
        pending, self._pending = self._pending, []
        try:
            total = len(pending) * IMAGES_AT_A_TIME
            with show_progress(total, "draw", "image") as bar, _telling_of_deaths():
                for future in as_completed(pending):
                    future.result()
                    bar.update(IMAGES_AT_A_TIME)
        finally:
            for future in pending:
                future.cancel()
            self._clean_up()

    def _draw_here(self, scene: Scene, arrays: SceneArrays, numbers: Sequence[int]) -> None:
        drawn = map_ahead(
            lambda index: draw_image(scene, arrays, index, self._folder),
            numbers,
            num_workers=self._num_workers,
            ahead=2 * self._num_workers,
        )
        with show_progress(len(numbers), f"{scene.category}: draw", "image") as bar:
            for _ in drawn:
                bar.update()

    def _clean_up(self) -> None:
        while self._temporary:
            self._temporary.pop().cleanup()


def draw_image(scene: Scene, arrays: SceneArrays, index: int, folder: ResultFolder) -> None:
    """Draw a test image's thumbnail and, where it is chosen, its localization and explanation.

    Raises:
        UsageError: a file cannot be written.
    """
    sample, names = scene.samples[index], scene.names(index)
    image, anomaly_map = np.asarray(arrays.images[index]), np.asarray(arrays.anomaly_maps[index])
    patches = ImagePatches(arrays.distance[index], arrays.nearest[index])
    # (h, w): the nearest coreset patch of each of the image's patches
    nearest = patches.nearest[:, :, 0]
    rebuilt = explain.rebuild(arrays.coreset_patches[nearest], image.shape[:2])
    thumbnail = draw_thumbnail(image, anomaly_map, rebuilt, scene.score_range)
    folder.write_picture(names.thumbnail, thumbnail)
    if names.localization is not None:
        picture = draw_localization(
            image,
            mask=_mask(sample, arrays, index),
            anomaly_map=anomaly_map,
            rebuilt=rebuilt,
            defect_type=sample.defect_type,
            file_name=sample.path.name,
            score=float(scene.scores[index]),
            score_range=scene.score_range,
            threshold=scene.pixel_threshold,
            image_threshold=scene.image_threshold,
        )
        folder.write_picture(names.localization, picture)
    if names.explanation is not None:
        _explain(scene, arrays, index, patches, folder)


def _explain(
    scene: Scene, arrays: SceneArrays, index: int, patches: ImagePatches, folder: ResultFolder
) -> None:
    sample, names = scene.samples[index], scene.names(index)
    image, grid = np.asarray(arrays.images[index]), patches.distance.shape[:2]
    records = describe_patches(patches, scene.origins(arrays), image.shape[:2], scene.explain_top)
    record = {
        "file": relative_name(sample.path, scene.root),
        "category": scene.category,
        "defect_type": sample.defect_type,
        "score": float(scene.scores[index]),
        "threshold": scene.image_threshold,
        "percentage_coreset": scene.percentage,
        "size_resize": scene.preprocess.size_resize,
        "size_crop": scene.preprocess.size_crop,
        "grid": grid,
        "patches": records,
    }
    folder.write_text(names.record, json.dumps(record, indent=2) + "\n")
    explained = explained_patches(
        image,
        grid,
        records,
        crops=lambda near: np.asarray(arrays.coreset_patches[near["coreset_index"]]),
        whole_image=lambda file, flip: read_training_image(
            scene.root / file, flip, scene.preprocess
        ),
    )
    picture = draw_explanation(
        image, explained, title=sample.defect_type, file_name=sample.path.name
    )
    folder.write_picture(names.explanation, picture)


def _mask(sample: Sample, arrays: SceneArrays, index: int) -> np.ndarray | None:
    if arrays.masks is not None:
        return np.asarray(arrays.masks[index])
    # Without ground truth a good image is still known to have nothing to show.
    return None if sample.is_defective else np.zeros(arrays.images.shape[1:3], bool)


def _draw_saved(scene: Scene, arrays: Path, numbers: Sequence[int], folder: ResultFolder) -> None:
    """Draw some images of a scene whose arrays lie in a folder, in a process of the pool."""
    opened = SceneArrays.load(arrays)
    for index in numbers:
        draw_image(scene, opened, index, folder)


def _start_pool(num_processes: int) -> ProcessPoolExecutor:
    """Start processes, and wait until they are: their imports take whole cores for seconds.

    Nothing is measured now. Once they have started, they stay in the background.
    """
    pool = ProcessPoolExecutor(
        num_processes,
        # Spawned, since a fork of a process with threads, or with a GPU, may hang.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_stay_in_background,
    )
    with _telling_of_deaths():
        starting = [pool.submit(os.getpid) for _ in range(num_processes)]
        for started in starting:
            started.result()
    return pool


@contextlib.contextmanager
def _telling_of_deaths() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise UsageError(
            "a process that draws pictures ended before its time, perhaps for want of memory; "
            "--num_workers 0 draws without other processes, --pictures none not at all"
        ) from error


def _stay_in_background() -> None:
    """Set up a process of the pool: least priority, one thread, no reaction to Ctrl+C."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # this process's parent ends the pool
    cv2.setNumThreads(1)
