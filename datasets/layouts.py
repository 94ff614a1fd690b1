"""The layouts of datasets by name. To add one, write its module and add a line to `LAYOUTS`.

Nothing here opens an image, so that a missing folder is reported at once.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from datasets import mvtec
from datasets.base import Category


class Layout(Protocol):
    """A module that lists the samples of datasets in one layout."""

    def is_layout(self, path: Path) -> bool:
        """Return whether ``path`` is a folder with at least one category in this layout."""

    def find_categories(self, path: Path) -> list[str]:
        """Return the names of the categories in ``path``, sorted.

        Raises:
            DatasetError: ``path`` is missing, or there is no category in it.
        """

    def read_category(self, path: Path, name: str) -> Category:
        """List the training and test samples of a category.

        Raises:
            DatasetError: There is no such category, or a folder or file of it is missing.
        """

    def read_training(self, path: Path, name: str) -> Category:
        """List the training samples of a category; it needs no test images.

        Raises:
            DatasetError: There is no such category, or it has no training images.
        """


# The first layout is the default. Of several that fit a dataset, the last one is used: that of
# MVTec AD fits every folder of folders with a subfolder `train` or `test`.
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "mvtec": mvtec,
    }
)


def layout_of(path: Path, layouts: Mapping[str, Layout] = LAYOUTS) -> Layout:
    """Return the layout of a dataset.

    If none fits, return the default layout: it reports what it expects.

    Args:
        path: Folder of the dataset; it may be missing.
        layouts: Layouts to choose from.
    """
    default = next(iter(layouts.values()))
    return [default, *(layout for layout in layouts.values() if layout.is_layout(path))][-1]
