"""Images that ``--on_error skip`` skips, and categories that cannot continue without them."""

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from datasets.base import Category, DatasetError, UnusableFilesError
from patchcore.errors import ChangedImagesError, PatchCoreError
from utils.errors import LEFT_OUT, describe_out_of_memory, first_line, is_out_of_memory
from utils.options.reading import FaultOptions
from utils.results import numbered

Result = TypeVar("Result")

FLAG = "--on_error skip"

log = logging.getLogger(__name__)


class Skipping:
    """Skips images and categories that cannot be used, if the options say so, and lists them.

    Attributes:
        images: The skipped images, with the reasons, by category.
        categories: The skipped categories, with the reasons.

    Args:
        options: Whether anything is skipped.
    """

    def __init__(self, options: FaultOptions):
        self.images: dict[str, dict[str, str]] = {}
        self.categories: dict[str, str] = {}
        self._skips = options.skips

    def attempt(self, name: str, function: Callable[[], Result]) -> Result | None:
        """Call a function; return None if its category is skipped because of an error.

        Args:
            name: Name of the category.
            function: Computes something of it. An error of the data or the memory skips the
                category; an error of the flags or of writing does not.
        """
        if not self._skips:
            return function()
        try:
            return function()
        except (DatasetError, PatchCoreError) as error:
            reason = str(error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = describe_out_of_memory(error)
        self.leave_out(name, reason)
        return None

    def leave_out(self, name: str, reason: str) -> None:
        """Skip a category."""
        self.categories[name] = first_line(reason)
        log.warning("%s: the category is skipped (%s): %s", name, FLAG, self.categories[name])

    def compute(self, category: Category, function: Callable[[Category], Result]) -> Result | None:
        """Call a function with a category as `start_again` does, within `attempt`.

        Args:
            category: The samples.
            function: Computes something from the samples, and raises UnusableFilesError or
                ChangedImagesError for some.

        Returns:
            The function's result; None if the category is skipped.
        """
        return self.attempt(category.name, lambda: self.start_again(category, function))

    @property
    def status(self) -> int:
        """The exit status, which says whether anything was skipped."""
        return LEFT_OUT if self.images or self.categories else 0

    def describe_none(self) -> str:
        """Return the error if nothing is left."""
        name, reason = next(iter(self.categories.items()))
        return f"no category can be used; the first one, {name}: {reason}"

    def start_again(self, listed: Category, function: Callable[[Category], Result]) -> Result:
        """Call a function with a category; again without images that cannot be used.

        A new start keeps the results, labels and masks of all images aligned.

        Args:
            listed: The samples.
            function: As for `compute`.

        Raises:
            DatasetError: The category cannot continue without an image, or nothing is skipped.
        """
        if not self._skips:
            return function(listed)
        used = listed
        while True:
            try:
                return function(used)
            except UnusableFilesError as error:
                reasons = error.reasons
            except ChangedImagesError as error:
                reasons = dict.fromkeys(error.names, str(error))
            used = self._without(used, reasons)

    def _without(self, used: Category, reasons: Mapping[str, str]) -> Category:
        """Return a category without some images, which are logged.

        Raises:
            DatasetError: The category cannot continue.
        """
        left = used.without(reasons)
        first = next(iter(reasons.values()))
        for what, before, after in (
            ("training", used.train, left.train),
            ("normal test", _test_images(used, False), _test_images(left, False)),
            ("defective test", _test_images(used, True), _test_images(left, True)),
        ):
            if before and not after:
                raise DatasetError(f"no {what} image is left: {first}")
        count = len(used.train) + len(used.test) - len(left.train) - len(left.test)
        if not count:  # the file is none of this category's: without it, nothing would change
            raise DatasetError(first)
        self.images[used.name] = {**self.images.get(used.name, {}), **reasons}
        for reason in reasons.values():
            log.warning("%s: an image is skipped (%s): %s", used.name, FLAG, reason)
        log.info("%s: starts again without %s", used.name, numbered(count, "image"))
        return left


def _test_images(category: Category, is_defective: bool) -> list:
    return [sample for sample in category.test if sample.is_defective == is_defective]
