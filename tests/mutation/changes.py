"""Small changes of source code that tests should notice."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
LOGICAL = {ast.And: ast.Or, ast.Or: ast.And}
# Arguments that change how code is checked or declared, not what it computes.
DECLARING = {"strict", "frozen", "slots", "kw_only", "init", "repr", "compare"}


@dataclass(frozen=True)
class Change:
    """A change of one place in a file.

    Attributes:
        kind: "operator", "constant", "guard" or "statement".
        line: Number of the first line that changes, from 1.
        start, end: The bytes of the source that are replaced.
        new: What replaces them.
    """

    kind: str
    line: int
    start: int
    end: int
    new: str

    def apply(self, source: bytes) -> bytes:
        """Return the changed source."""
        return source[: self.start] + self.new.encode() + source[self.end :]


def changes_of(source: bytes) -> list[Change]:
    """Return all changes of a file.

    - operator: another comparison, arithmetic or logical operator; `not` and `-` dropped
    - constant: an integer plus 1, another float, the opposite truth value
    - guard: the condition of an `if`, `while` or conditional expression is always true or false
    - statement: a call, an assignment to an item or attribute, `raise`, `break` and the like
      are dropped

    Annotations, formatted texts, and the arguments of a raised error are not changed.
    """
    module = ast.parse(source)
    starts = [0]  # of each line
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    left_out = {id(inner) for node in ast.walk(module) for inner in _left_out(node)}
    changes = []
    for node in ast.walk(module):
        if id(node) in left_out:
            continue
        for kind, old, new in _replacements(node):
            text = "pass" if new is None else f"({ast.unparse(new)})"
            start = starts[old.lineno - 1] + old.col_offset
            end = starts[old.end_lineno - 1] + old.end_col_offset
            changes.append(Change(kind, old.lineno, start, end, text))
    return changes


def _left_out(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below this one that are not changed."""
    parts = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    if isinstance(node, ast.JoinedStr):
        parts += node.values
    if isinstance(node, ast.Raise):
        parts += [node.exc, node.cause]
    if isinstance(node, ast.keyword) and node.arg in DECLARING:
        parts.append(node.value)
    for part in parts:
        if part is not None:
            yield from ast.walk(part)


def _replacements(node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST | None]]:
    """Yield kind, replaced node and new node; None as new node drops a statement."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            operators = [*node.ops[:i], COMPARISONS[type(operator)](), *node.ops[i + 1 :]]
            yield "operator", node, ast.Compare(node.left, operators, node.comparators)
    elif isinstance(node, ast.BinOp) and not _joins_texts(node):
        if other := ARITHMETIC.get(type(node.op)):
            yield "operator", node, ast.BinOp(node.left, other(), node.right)
    elif isinstance(node, ast.BoolOp):
        yield "operator", node, ast.BoolOp(LOGICAL[type(node.op)](), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "operator", node, node.operand
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        yield "constant", node, ast.Constant(_other_value(node.value))
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "guard", node.test, ast.Constant(False)
        if not isinstance(node, ast.While):
            yield "guard", node.test, ast.Constant(True)
    elif _is_dropped(node):
        yield "statement", node, None


def _joins_texts(node: ast.BinOp) -> bool:
    """Return whether + joins texts or lists, where - is an error at once."""
    return any(
        isinstance(side, ast.JoinedStr | ast.List | ast.Tuple)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
        for side in (node.left, node.right)
    )


def _other_value(value: bool | int | float) -> bool | int | float:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value * 1.5 if value else 1.0


def _is_dropped(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Subscript | ast.Attribute)
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call | ast.Yield | ast.YieldFrom)
    return isinstance(node, ast.AugAssign | ast.Continue | ast.Break | ast.Delete | ast.Raise)
