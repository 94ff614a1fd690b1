"""Hypothesis strategies that damage valid files: bytes anywhere, and values anywhere in JSON."""

import json
from collections.abc import Sequence

from hypothesis import strategies as st

# What is put into bytes and texts: separators, signs of other formats, large and odd numbers.
TOKENS = (
    *(
        b"",
        b"\0",
        b"\xff" * 4,
        b"\n",
        b"\r\n",
        b",",
        b'"',
        b"'",
        b";",
        b"=cmd()",
        b"<b>",
        b"|",
    ),
    *(b"[" * 2000, b"{" * 50, b"}", b"]", b":", b"nan", b"inf", b"-1", b"1e999", b"9" * 400),
    *(b"../../x", b"/etc/passwd", b"\xed\xa0\x80", "é\u2028".encode(), b"\xff\xd8", b"\x89PNG"),
    *(b"GIF89a", b"II*\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0", b"A" * 200_000),
)
# Values that JSON may have anywhere.
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**63, 10**30, -(10**30), 10**400, 129]),
    st.floats(),
    st.sampled_from(["", "0", "\0", "\ud800", "../x", "a\nb", "nan", "x" * 300, "1e999", "good"]),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-2, 300), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(-2, 2), max_size=2),
)
MAX_DEPTH = 5000


@st.composite
def changed_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """Return one of some contents with up to four changes."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        action = draw(st.integers(0, 5))
        if action == 0 and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif action == 1 and data:
            data[place] = draw(st.integers(0, 255))
        elif action == 2:
            data[place:place] = draw(st.sampled_from(TOKENS))
        elif action == 3:
            del data[place : place + draw(st.integers(1, 64))]
        elif action == 4:
            data[place:place] = data[place : place + draw(st.integers(1, 64))]
        else:
            del data[place:]
    return bytes(data)


@st.composite
def changed_json(draw: st.DrawFn, seeds: Sequence[object]) -> object:
    """Return one of some JSON values with up to three of its parts replaced, removed or nested."""
    value = json.loads(json.dumps(draw(st.sampled_from(seeds))))
    for _ in range(draw(st.integers(1, 3))):
        value = _change(draw, value)
    return value


def _change(draw: st.DrawFn, value: object) -> object:
    """Change a value, or a part of it: the deeper, the less likely."""
    is_container = isinstance(value, (dict, list)) and len(value)
    if not is_container or draw(st.integers(0, 9)) == 0:
        return draw(VALUES)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = draw(st.sampled_from(keys))
    action = draw(st.integers(0, 11))
    if action == 0:
        del value[key]
    elif action == 1 and isinstance(value, dict):
        value[draw(st.text(max_size=3))] = value[key]
    elif action == 1:
        value.append(value[key])
    else:
        value[key] = _change(draw, value[key])
    return value


def as_text(value: object, depth: int = 0) -> bytes:
    """Return a value as JSON, nested in lists, which may be too deep for a reader."""
    return b"[" * depth + json.dumps(value).encode() + b"]" * depth


def json_texts(seeds: Sequence[object]) -> st.SearchStrategy[bytes]:
    """Return JSON texts: mostly changed values, some damaged or nested too deep."""
    whole = [as_text(seed) for seed in seeds]
    changed = changed_json(seeds).map(as_text)
    nested = st.sampled_from(seeds).map(lambda seed: as_text(seed, MAX_DEPTH))
    return st.one_of(changed, changed, changed, changed_bytes(whole), nested)
