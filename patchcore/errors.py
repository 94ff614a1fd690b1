"""The one error of this package that a caller's input can cause."""


class PatchCoreError(ValueError):
    """An argument or file that cannot be used; the message says what was expected and found."""


class WeightsUnavailableError(PatchCoreError):
    """The default weights of a network are not in their cache and cannot be downloaded."""
