"""Text from files and file names, made fit for one line of a terminal or a log."""


def printable(text: str) -> str:
    """Return text with unprintable characters, such as line breaks, as escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
