"""What a user can mend around a run: its flags and its result folder."""


class UsageError(Exception):
    """A flag, or the place of the results, that cannot be used; the message says which and why."""
