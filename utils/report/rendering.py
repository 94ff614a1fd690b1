"""Rendering of pages: a template, a style sheet and scripts with the results, in one HTML file.

A page loads only the images in its folder: no network access, no other script.
"""

import base64
import functools
import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent
STYLE, COMMON_SCRIPT = "page.css", "common.js"


def render(template: str, script: str, data: object, values: dict[str, object]) -> str:
    """Return a page.

    Args:
        template: Name of a template that extends ``base.html.j2``.
        script: Name of the page's script, which follows `COMMON_SCRIPT`.
        data: JSON values for the script.
        values: Values of the template, which are escaped.

    Returns:
        HTML that can be encoded as UTF-8.
    """
    joined = "".join(
        (FOLDER / name).read_text(encoding="utf-8") for name in (COMMON_SCRIPT, script)
    )
    text = (
        _environment()
        .get_template(template)
        .render(
            style=(FOLDER / STYLE).read_text(encoding="utf-8"),
            script=joined,
            # The page's policy allows only this script, and none that a file name might inject.
            script_hash=base64.b64encode(hashlib.sha256(joined.encode()).digest()).decode(),
            data=data,
            **values,
        )
    )
    # File names may have characters that UTF-8 cannot encode.
    return text.encode("utf-8", "replace").decode("utf-8")


@functools.cache
def _environment():
    """Return the environment of the templates; each template is compiled once in a process."""
    # Imported here: an inference without a page needs no templates.
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
