"""The one error of this package that a caller's input can cause, and its special cases."""

from collections.abc import Sequence


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class PatchCoreError(ValueError):
    """An argument or file that cannot be used; the message says what was expected and found."""


class WeightsUnavailableError(PatchCoreError):
    """The default weights of a network are not in their cache and cannot be downloaded."""


class ChangedImagesError(PatchCoreError):
    """Training images differ between the two passes of a fit.

    Attributes:
        names: The names of these images.
    """

    def __init__(self, names: Sequence[str]):
        super().__init__(
            "expected the same training images in both passes, found a change of "
            f"{', '.join(names)}"
        )
        self.names = tuple(names)

    def __reduce__(self) -> tuple:
        return type(self), (self.names,)  # by default it would be made of the message
