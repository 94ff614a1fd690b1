"""Flags of ``download``."""

import re
from dataclasses import dataclass
from pathlib import Path

from utils.errors import UsageError, named_flag
from utils.options.flags import flag
from utils.options.log import LogOptions


@dataclass(frozen=True)
class DownloadOptions(LogOptions):
    """A dataset, its folder and its archive."""

    names: tuple[str, ...] = flag(
        (),
        "input",
        "name of a dataset, as python main.py datasets lists it",
        metavar="NAME",
        max_values=1,
        positional=True,
    )
    to: str = flag(
        "", "output", "new or empty folder for the images, for --path_data", metavar="FOLDER"
    )
    accept_licence: bool = flag(
        False, "input", "accept the licence of the dataset, which is shown without this flag"
    )
    archive: str = flag(
        "",
        "input",
        "local archive to unpack, for example of a dataset that requires a form; the archive is "
        "not deleted",
        metavar="FILE",
    )
    sha256: str = flag(
        "",
        "input",
        "expected digest of the archive (default: the published one, if there is any)",
        metavar="HEX",
    )
    keep_archive: bool = flag(
        False, "output", "keep the downloaded archive next to FOLDER after unpacking"
    )

    def check(self) -> None:
        """Raise UsageError if a value is missing or impossible."""
        if not self.names or not self.to:
            raise UsageError("expected the NAME of a dataset and --to FOLDER")
        if self.sha256 and not re.fullmatch("[0-9a-fA-F]{64}", self.sha256):
            raise UsageError(f"expected 64 hexadecimal digits as --sha256, found {self.sha256!r}")
        with named_flag("--archive"):
            if self.archive and not Path(self.archive).is_file():
                raise UsageError(f"expected an archive, found no file {self.archive} (--archive)")
        if Path(self.to).resolve().name == "":
            raise UsageError(f"expected a folder with a name, found {self.to} (--to)")
