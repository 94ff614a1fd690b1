"""Which changes of the code are tried."""

import ast

import pytest

from tests.mutation.changes import changes_of


def changed(source: str) -> list[tuple[str, str]]:
    """Return the kinds of all changes, with the changed source."""
    encoded = source.encode()
    return [(c.kind, ast.unparse(ast.parse(c.apply(encoded)))) for c in changes_of(encoded)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", [("operator", "a <= b")]),
        ("a < b == c", [("operator", "a <= b == c"), ("operator", "a < b != c")]),
        ("a in b", [("operator", "a not in b")]),
        ("a * b", [("operator", "a / b")]),
        ("a * (b + c)", [("operator", "a / (b + c)"), ("operator", "a * (b - c)")]),
        ("a and b and c", [("operator", "a or b or c")]),
        ("not a", [("operator", "a")]),
        ("7", [("constant", "8")]),
        ("0.5", [("constant", "0.75")]),
        ("0.0", [("constant", "1.0")]),
        ("True", [("constant", "False")]),
        ("a if b else c", [("guard", "a if False else c"), ("guard", "a if True else c")]),
        ("f(a)", [("statement", "pass")]),
        ("a.b = c", [("statement", "pass")]),
        ("a[b] = c", [("statement", "pass")]),
        ("a += b", [("statement", "pass")]),
        ("raise E(3) from a < b", [("statement", "pass")]),
        (
            "while a:\n    break",
            [("guard", "while False:\n    break"), ("statement", "while a:\n    pass")],
        ),
        # not changed: names, texts, annotations, declarations
        ("a = b", []),
        ("'7' + a", []),
        ("f'{a < b}'", []),
        ("a: Literal[3] = b", []),
        ("a = zip(b, strict=True)", []),
    ],
)
def test_every_kind(source, expected):
    assert changed(source) == expected


def test_a_change_is_one_place_of_a_file():
    source = (
        "# ü\ndef f(a):\n    return [\n        a -\n        1 for b in a if b]  # why\n".encode()
    )
    operator, constant = changes_of(source)
    assert (operator.line, source[operator.start : operator.end]) == (4, b"a -\n        1")
    assert (constant.line, source[constant.start : constant.end]) == (5, b"1")
    assert operator.apply(source) == source.replace(b"a -\n        1", b"(a + 1)")
