"""`--where`: a small grammar over an episode table, such as `return > 200 and length < 50`.

Comparisons (chained ones too), `and`, `or`, `not`, parentheses, numbers, text, True, False, None and the names of
columns; nothing else. Python parses it, nothing evaluates it: the text may come from a stranger.
"""

from __future__ import annotations

import ast
import io
import operator
import re
import tokenize
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from reenact.episode import ENDINGS
from reenact.errors import SelectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Array = np.ndarray[Any, Any]
    Operand = Array | str | float | bool | None

_LONGEST = 2000
_ZONE = re.compile(r"[T ].*[+-]\d\d(:?\d\d)?$")
_RETURN = "return_"
_COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
_EXPECTED = 'comparisons such as return > 200 and ended == "terminated", joined by and, or, not'


def where(text: str, columns: Mapping[str, Array]) -> Array:
    """Returns which episodes a condition holds for, bool, one an episode.

    A missing value (a seed that was not given, an info value that was not there) equals None alone, and is neither
    more nor less than anything.

    Args:
        text: the condition.
        columns: by name: numbers, text (object arrays of str), or times (datetime64, compared with text such as
            "2026-01-31 12:00", UTC unless a zone is given); masked or NaN where a value is missing.

    Raises:
        SelectionError: it is none.
    """
    if len(text) > _LONGEST:
        raise SelectionError(f"where: {len(text)} characters, expected {_LONGEST} at most")
    try:
        tree = ast.parse(_with_return(text), mode="eval").body
        return _Condition(columns).holds(tree)
    except (SyntaxError, tokenize.TokenError, RecursionError, MemoryError, ValueError) as error:
        if isinstance(error, SelectionError):
            raise
        raise SelectionError(f"where: {text!r} can't be read: expected {_EXPECTED}") from error


def _with_return(text: str) -> str:
    """Returns the text with another name for the column `return`, which Python keeps for itself."""
    tokens = tokenize.generate_tokens(io.StringIO(text.strip()).readline)
    renamed = [(kind, _RETURN if (kind, word) == (tokenize.NAME, "return") else word) for kind, word, *_ in tokens]
    return tokenize.untokenize(renamed).strip()


class _Condition:
    def __init__(self, columns: Mapping[str, Array]) -> None:
        self._columns = {_RETURN if name == "return" else name: column for name, column in columns.items()}
        self._count = len(next(iter(columns.values())))

    def holds(self, node: ast.expr) -> Array:
        """Returns for which episodes a node is true."""
        if isinstance(node, ast.BoolOp):
            parts = [self.holds(part) for part in node.values]
            found: Array = (np.logical_and if isinstance(node.op, ast.And) else np.logical_or).reduce(parts)
            return found
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.holds(node.operand)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(sides, node.ops, sides[1:], strict=False)
            both: Array = np.logical_and.reduce([self._compare(left, op, right) for left, op, right in pairs])
            return both
        raise SelectionError(f"where: {self._written(node)} is no condition: expected {_EXPECTED}")

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Array:
        if type(op) not in _COMPARISONS:
            raise SelectionError("where: expected one of == != < <= > >= between two values")
        sign, compare = _COMPARISONS[type(op)]
        first, second = self._value(left), self._value(right)
        if first is None or second is None:
            if sign not in ("==", "!="):
                raise SelectionError(f"where: nothing is {sign} None: expected == or !=")
            missing = self._missing(second if first is None else first)
            return missing if sign == "==" else ~missing
        first, second = _alike(first, second, f"{self._written(left)} {sign} {self._written(right)}")
        if sign in ("==", "!="):
            _check_ending(left, second)
            _check_ending(right, first)
        there = ~(self._missing(first) | self._missing(second))
        with np.errstate(invalid="ignore"):
            found = np.broadcast_to(
                np.asarray(np.ma.getdata(compare(_plain(first), _plain(second))), bool), self._count
            )
        return found & there

    def _value(self, node: ast.expr) -> Operand:
        if isinstance(node, ast.Name):
            if node.id not in self._columns:
                names = ", ".join("return" if name == _RETURN else name for name in self._columns)
                raise SelectionError(f"where: {node.id!r} is no column: expected one of {names}")
            return self._columns[node.id]
        sign = 1
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            sign, node = -1 if isinstance(node.op, ast.USub) else 1, node.operand
            if not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
                raise SelectionError("where: a sign stands before a number alone")
        if isinstance(node, ast.Constant) and (node.value is None or type(node.value) in (int, float, str, bool)):
            value: Any = node.value
            if type(value) in (int, float):
                # beyond int64 NumPy's comparisons differ from version to version; as a float it is as far away
                value = sign * (value if abs(value) < 2**63 else float(min(value, 10**300)))
            return value  # type: ignore[no-any-return]  # ast says Any
        raise SelectionError(f"where: {self._written(node)} is no value: expected a column, a number or text")

    def _missing(self, value: Operand) -> Array:
        if not isinstance(value, np.ndarray):
            return np.full(self._count, value is None)
        missing = np.ma.getmaskarray(value)
        return missing | np.isnan(value) if value.dtype.kind == "f" else missing

    @staticmethod
    def _written(node: ast.expr) -> str:
        return ast.unparse(node).replace(_RETURN, "return")[:80]


def _check_ending(column: ast.expr, value: Operand) -> None:
    """A mistyped ending would be a condition that holds for none, or for all."""
    if isinstance(column, ast.Name) and column.id == "ended" and isinstance(value, str) and value not in ENDINGS:
        raise SelectionError(f"where: ended: {value!r}: expected {', '.join(ENDINGS)}")


def _plain(value: Operand) -> Any:
    return np.ma.getdata(value) if isinstance(value, np.ndarray) else value


def _kind(value: Operand) -> str:
    if isinstance(value, np.ndarray):
        return {"O": "text", "U": "text", "M": "a time"}.get(value.dtype.kind, "a number")
    return "text" if isinstance(value, str) else "a number"


def _alike(first: Operand, second: Operand, written: str) -> tuple[Operand, Operand]:
    """Returns both as values that can be compared; text beside a time becomes one."""
    kinds = _kind(first), _kind(second)
    if kinds[0] == kinds[1]:
        return first, second
    if kinds == ("a time", "text"):
        return first, _time(second)
    if kinds == ("text", "a time"):
        return _time(first), second
    raise SelectionError(f"where: {written}: {kinds[0]} can't be compared with {kinds[1]}")


def _time(value: Operand) -> Any:
    text = str(value)
    mistake = SelectionError(f'where: {value!r} is no time: expected one such as "2026-01-31 12:00"')
    try:
        if _ZONE.search(text):
            text = str(datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None))
        time = np.datetime64(text.removesuffix("Z"), "ns")
    except (ValueError, OverflowError) as error:
        raise mistake from error
    if np.isnat(time):  # so NumPy reads "" and "NaT"
        raise mistake
    return time
