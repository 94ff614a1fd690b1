"""Flags of reading image files."""

from dataclasses import dataclass

from patchcore.setting_values import Bounds
from utils.errors import UsageError
from utils.options.flags import Flags, flag

BIT_DEPTHS = (8, 10, 12, 14, 16)
STOP, SKIP = "stop", "skip"


@dataclass(frozen=True)
class ReadingOptions(Flags):
    """Limits of the images that are read."""

    max_megapixels: float = flag(
        250.0,
        "input",
        "largest image that is decoded, in millions of pixels; a larger image raises an error "
        "before it is decoded",
        metavar="MP",
        bounds=Bounds(0, open_low=True),
    )


@dataclass(frozen=True)
class FaultOptions(Flags):
    """Images that cannot be used."""

    on_error: str = flag(
        STOP,
        "input",
        "what to do with an image that cannot be used: stop the run, or skip the image, or the "
        "whole category if it cannot continue; the results name what was skipped, and the exit "
        "status is 3",
        choices=(STOP, SKIP),
    )

    @property
    def skips(self) -> bool:
        """Whether images that cannot be used are skipped."""
        return self.on_error == SKIP


@dataclass(frozen=True)
class DepthOptions(ReadingOptions, FaultOptions):
    """How training images are read: their depth is stored with the model."""

    bit_depth: int = flag(
        0,
        "input",
        "bits of the values in 16-bit images: 8, 10, 12, 14 or 16; 0 for the smallest depth that "
        "holds the largest value of the category's training images",
        metavar="N",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bit_depth not in (0, *BIT_DEPTHS):
            depths = ", ".join(map(str, BIT_DEPTHS))
            raise UsageError(f"expected --bit_depth 0, {depths}, found {self.bit_depth}")
