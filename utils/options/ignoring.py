"""Flag for the part of the images that is neither learned nor judged."""

from dataclasses import dataclass
from pathlib import Path

from utils.errors import UsageError, named_flag
from utils.options.flags import Flags, flag


@dataclass(frozen=True)
class IgnoringOptions(Flags):
    """Mask of ignored pixels."""

    ignore_mask: str = flag(
        "",
        "input",
        "mask image with the aspect ratio of the images, white where they are neither learned nor "
        "judged (a fixture, a time stamp); stored with the model; with infer, ignored in addition "
        "to what the model ignores",
        metavar="FILE",
    )

    def check_ignore_mask(self) -> None:
        """Raise UsageError if the file is missing."""
        with named_flag("--ignore_mask"):
            if self.ignore_mask and not Path(self.ignore_mask).is_file():
                raise UsageError(
                    f"expected an image file that is white where images are ignored, found none: "
                    f"{self.ignore_mask} (--ignore_mask)"
                )
