"""What a user can mend around a run: its flags and its result folder."""


class UsageError(Exception):
    """A flag, or the place of the results, that cannot be used; the message says which and why."""


def describe_end(error: BaseException) -> str:
    """Return the state of a run that an error or a signal has ended, for ``run.json``."""
    if isinstance(error, KeyboardInterrupt):  # its argument is the number of the signal
        return "interrupted"
    return f"stopped: {str(error) or type(error).__name__}"
