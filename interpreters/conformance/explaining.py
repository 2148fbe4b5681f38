"""What a fact compared: facts whose assertions say what was found and what was expected, with pytest or without.

pytest rewrites the assertions of the facts where it runs. Elsewhere an assertion that fails says nothing, so each fact
is compiled once more, from its own source, with assertions that do. What cannot be compiled again is left as it is.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from functools import cache
from types import CodeType, FunctionType
from typing import Any

_NAME = "__explain__"
_SHOWN_CHARACTERS = 400


def explained(fact: Callable[..., None]) -> Callable[..., None]:
    """The same method, or function, with assertions that say what they compared.

    Where pytest has rewritten the module, or the source is not at hand, it is returned as it is.

    >>> print(explained(print))
    <built-in function print>
    """
    function = inspect.unwrap(getattr(fact, "__func__", fact))
    if not isinstance(function, FunctionType) or "@pytest_ar" in function.__globals__:
        return fact
    names = {**function.__globals__, _NAME: explanation}
    again = _again(function, names)
    if again is None:
        return fact
    for name, helper in function.__globals__.items():
        if isinstance(helper, FunctionType) and helper.__module__ == function.__module__:
            names[name] = _again(helper, names) or helper
    owner = getattr(fact, "__self__", None)
    return again if owner is None else again.__get__(owner)


def _again(function: FunctionType, names: dict[str, Any]) -> FunctionType | None:
    code = _compiled(function)
    if code is None:
        return None
    again = FunctionType(code, names, function.__name__, function.__defaults__)
    again.__kwdefaults__ = function.__kwdefaults__
    return again


def explanation(source: str, operator: str, values: tuple[Any, ...], message: object) -> str:
    """What a failed assertion says.

    >>> print(explanation("found == wanted", "==", (1, 2), None))
    found == wanted
      found:    1
      expected: 2
    """
    lines = [source if message is None else f"{message}: {source}"]
    if values:
        *found, expected = map(_shown, values)
        told = "" if operator == "==" else f"{operator} "
        lines += [*(f"  found:    {value}" for value in found), f"  expected: {told}{expected}"]
    return "\n".join(lines)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"


@cache
def _compiled(function: FunctionType) -> CodeType | None:
    if function.__closure__:
        return None
    try:
        lines, first_line = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, SyntaxError):
        return None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        return None
    # They are not needed for what the function does, and annotations may name what only type checkers know.
    definition.decorator_list = []
    definition.returns = None
    for argument in ast.walk(definition.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    defaults = definition.args
    defaults.defaults = [ast.Constant(None) for _ in defaults.defaults]
    defaults.kw_defaults = [default and ast.Constant(None) for default in defaults.kw_defaults]
    _Explaining().visit(tree)
    ast.increment_lineno(tree, first_line - 1)
    code = compile(ast.fix_missing_locations(tree), function.__code__.co_filename, "exec", dont_inherit=True)
    return next(part for part in code.co_consts if isinstance(part, CodeType) and part.co_name == function.__name__)


class _Explaining(ast.NodeTransformer):
    """Makes ``assert a == b`` an ``if`` that raises with the values of ``a`` and of ``b``, each looked at once."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        comparison = node.test
        names: list[str] = []
        before: list[ast.stmt] = []
        operator = ""
        if isinstance(comparison, ast.Compare):
            operator = _OPERATORS[type(comparison.ops[-1])]
            operands = [comparison.left, *comparison.comparators]
            names = [f"__compared_{number}" for number in range(len(operands))]
            before = [
                ast.Assign([ast.Name(name, ast.Store())], operand)
                for name, operand in zip(names, operands, strict=True)
            ]
            first, *others = [ast.Name(name, ast.Load()) for name in names]
            test: ast.expr = ast.Compare(first, comparison.ops, list[ast.expr](others))
        else:
            test = comparison
        told = ast.Call(
            ast.Name(_NAME, ast.Load()),
            [
                ast.Constant(ast.unparse(comparison)),
                ast.Constant(operator),
                ast.Tuple([ast.Name(name, ast.Load()) for name in names], ast.Load()),
                node.msg or ast.Constant(None),
            ],
            [],
        )
        raising = ast.Raise(ast.Call(ast.Name("AssertionError", ast.Load()), [told], []), None)
        made = [*before, ast.If(ast.UnaryOp(ast.Not(), test), [raising], [])]
        for statement in made:
            for part in ast.walk(statement):
                if isinstance(part, ast.expr | ast.stmt) and not hasattr(part, "lineno"):
                    ast.copy_location(part, node)
        return made


_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
}
