"""Text from files and file names, made fit for a terminal or a log."""


def printable(text: str) -> str:
    """Return text with unprintable characters, such as line breaks, as escapes."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def printable_lines(text: str) -> str:
    """Return a message of one or more lines, as `printable` in each; no name colours it."""
    return "\n".join(map(printable, text.split("\n")))
