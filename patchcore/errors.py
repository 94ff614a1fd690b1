"""The one error of this package that a caller's input can cause, and its special cases."""

import difflib
from collections.abc import Iterable, Sequence


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that ends a message about an unknown name; empty if none is similar."""
    by_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), by_lower)
    return f". Did you mean {' or '.join(by_lower[one] for one in close)}?" if close else ""


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
