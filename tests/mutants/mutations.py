"""The small changes that can be made in a module's source.

Not changed, as no behaviour that the contract names depends on it: docstrings, annotations,
imports, f-strings and what an error is made of (the wording of messages), and strings except where
the code compares or looks something up with them.
"""

from __future__ import annotations

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
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
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
CALLS = {
    "min": "max",
    "max": "min",
    "any": "all",
    "all": "any",
    "sorted": "list",
    "reversed": "list",
}


class Mutation(NamedTuple):
    """One change; its name holds no line number and so outlives changes elsewhere in the file."""

    module: str  # "planner/division"
    function: str  # "apportion", "Binding.make"; "" for what stands outside of functions
    change: str  # "n < most[i] -> n <= most[i]", " #2" behind it where the function has it twice
    digest: str  # of the function's syntax tree: results hold as long as this stays
    inside: bool  # a function's body or default, not what a module or class is made of
    line: int
    lines: tuple[int, int]  # first and last: a test that runs none of these is not affected
    start: int  # in the source's bytes
    end: int
    new: str

    @property
    def name(self) -> str:
        return f"{self.place}: {self.change}"

    @property
    def place(self) -> str:
        return f"{self.module}:{self.function or '-'}"

    def apply(self, source: bytes) -> bytes:
        """Return the module's source with this change."""
        return source[: self.start] + self.new.encode() + source[self.end :]


def find_mutations(module: str, source: bytes) -> list[Mutation]:
    """Return all changes that can be made in a module, in the order of its lines."""
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    times: Counter[tuple[str, str]] = Counter()
    mutations = []
    for scope, node, new in walk(ast.parse(source), Scope("", "-", False, (0, 0))):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        change = f"{shorten(source[start:end].decode())} -> {shorten(new)}"
        times[scope.function, change] += 1
        if (nth := times[scope.function, change]) > 1:
            change += f" #{nth}"
        mutations.append(
            Mutation(
                module,
                scope.function,
                change,
                scope.digest,
                scope.inside,
                node.lineno,
                scope.lines,
                start,
                end,
                new,
            )
        )
    return sorted(mutations, key=lambda m: (m.start, m.end))


def shorten(code: str) -> str:
    """Return code in one line of at most 100 characters, its middle left out where it is longer."""
    line = " ".join(code.split())
    return line if len(line) <= 100 else f"{line[:60]} ... {line[-35:]}"


class Scope(NamedTuple):
    function: str
    digest: str
    inside: bool
    lines: tuple[int, int]


Change = tuple[Scope, "ast.expr | ast.stmt", str]


def walk(node: ast.AST, scope: Scope) -> Iterator[Change]:
    """Yield the changes of a node and of all below it."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
        name = f"{scope.function}.{node.name}" if scope.function else node.name
        digest = hashlib.sha1(ast.dump(node).encode()).hexdigest()[:8]
        inside = not isinstance(node, ast.ClassDef)
        scope = Scope(name, digest, inside, (node.lineno, node.end_lineno or 0))
    elif isinstance(node, (ast.stmt, ast.ExceptHandler, ast.match_case)):
        scope = scope._replace(lines=lines_of(node))
    for changed, new in change(node):
        yield scope, changed, new
    for child in children(node):
        yield from walk(child, scope)


def lines_of(node: ast.stmt | ast.ExceptHandler | ast.match_case) -> tuple[int, int]:
    """Return the lines of a statement, without those of the statements in it."""
    if isinstance(node, ast.match_case):
        return node.pattern.lineno, node.body[0].lineno
    body = getattr(node, "body", None)
    if not body:
        return node.lineno, node.end_lineno or 0
    return node.lineno, max(node.lineno, body[0].lineno - 1)


def children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below one in which something is changed."""
    if isinstance(node, (ast.JoinedStr, ast.Raise, ast.Import, ast.ImportFrom, ast.Delete)):
        return
    if isinstance(node, ast.Call) and name_of(node.func).endswith("Error"):
        return
    if isinstance(node, ast.If) and name_of(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return  # the lengths are the same by construction
    if isinstance(node, ast.Assign) and name_of(node.targets[0]) in ("TYPE_CHECKING", "__slots__"):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "ctx"):
            continue
        yield from (item for item in (value if isinstance(value, list) else [value])
                    if isinstance(item, ast.AST))  # fmt: skip


def name_of(node: ast.AST) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


def change(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield each change of this very node: what is replaced, and by what."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            other = copy.deepcopy(node)
            other.ops[i] = COMPARISONS[type(operator)]()
            yield node, f"({ast.unparse(other)})"
        for part in (node.left, *node.comparators):
            yield from change_words(part)
    elif isinstance(node, ast.BoolOp):
        swapped = ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield node, f"({ast.unparse(swapped)})"
        for i in range(len(node.values)):
            kept = node.values[:i] + node.values[i + 1 :]
            yield node, f"({ast.unparse(kept[0] if len(kept) == 1 else ast.BoolOp(node.op, kept))})"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node, f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        swapped_binary = ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
        yield node, f"({ast.unparse(swapped_binary)})"
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield node, str(not node.value)
        elif isinstance(node.value, (int, float)):
            yield node, repr(node.value + 1)
            if node.value:
                yield node, repr(node.value - 1)
    elif isinstance(node, ast.Subscript):
        yield from change_words(node.slice)
    elif isinstance(node, ast.Dict):
        for key in node.keys:
            yield from change_words(key)
    elif isinstance(node, (ast.IfExp, ast.If, ast.While)):
        if name_of(node.test) != "TYPE_CHECKING" and not isinstance(node.test, ast.Constant):
            yield node.test, "False"
            if not isinstance(node, ast.While):
                yield node.test, "True"
    elif isinstance(node, ast.comprehension):
        for condition in node.ifs:
            yield condition, "True"
    elif isinstance(node, ast.Call):
        yield from change_call(node)
    elif isinstance(node, ast.stmt):
        yield from change_statement(node)


def change_words(node: ast.AST | None) -> Iterator[tuple[ast.expr, str]]:
    """Yield the changes of texts that something is compared with or looked up by."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node, repr(node.value + "?")
    elif isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        for item in node.elts:
            yield from change_words(item)


def change_call(node: ast.Call) -> Iterator[tuple[ast.expr, str]]:
    name = name_of(node.func)
    if name.endswith("Error"):
        return
    if isinstance(node.func, ast.Name) and name in CALLS:
        yield node.func, CALLS[name]
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict"):
            kept = node.keywords[:i] + node.keywords[i + 1 :]
            yield node, ast.unparse(ast.Call(node.func, node.args, kept))


def change_statement(node: ast.stmt) -> Iterator[tuple[ast.stmt, str]]:
    if isinstance(node, ast.Break):
        yield node, "continue"
    elif isinstance(node, ast.Continue):
        yield node, "break"
        yield node, "pass"
    elif isinstance(node, ast.Return) and node.value is not None:
        if not isinstance(node.value, ast.Constant) or node.value.value:  # what is as good as None
            yield node, "return None"
    elif (
        isinstance(node, (ast.Raise, ast.AugAssign, ast.Delete))
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
        or (isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple)))
    ):
        yield node, "pass"
