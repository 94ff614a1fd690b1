"""The part of each image that the centre crop leaves out, reported once in a run."""

import logging

from patchcore.preprocess import Preprocess
from patchcore.settings import SHORTER_EDGE

log = logging.getLogger(__name__)


def report_crop(preprocess: Preprocess, advice: str = "") -> None:
    """Log which share of each image is not judged, if there is a crop.

    Args:
        preprocess: The sizes.
        advice: What to do for a model without a crop, in words that precede ``--size_crop N``;
            empty for a published benchmark, where the crop is part of the protocol.
    """
    (height, width), (crop_height, crop_width) = preprocess.size_resize, preprocess.size_crop
    if preprocess.resize == SHORTER_EDGE:  # the share depends on the aspect of each image
        log.info(
            "each image is resized to a shorter edge of %d pixels and cropped to the central %dx%d "
            "pixels (width x height); pixels outside the crop are not judged (--size_crop)",
            height,
            crop_width,
            crop_height,
        )
        return
    share = 1 - crop_height * crop_width / (height * width)
    if not share:
        return
    whole = f"{height}" if height == width else f"{height} {width}"
    log.info(
        "%.1f %% of each image, at its borders, is not judged: crop of %dx%d of %dx%d pixels%s",
        100 * share,
        crop_width,
        crop_height,
        width,
        height,
        f" ({advice} --size_crop {whole} for the whole image)" if advice else "",
    )
