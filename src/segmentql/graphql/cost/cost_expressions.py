"""Cost expressions: integers, or functions of an operation's variables."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Variables: TypeAlias = Mapping[str, Any]


class EvaluationContext(dict[int, int]):
    """The context of one evaluation: the variables, and the value of each memoized expression."""

    def __init__(self, variables: Variables) -> None:
        super().__init__()
        self.variables = variables


CostExpression: TypeAlias = int | Callable[[EvaluationContext], int]


def evaluate(expression: CostExpression, context: EvaluationContext) -> int:
    """Return the value of an expression."""
    return expression if isinstance(expression, int) else expression(context)


def add(left: CostExpression, right: CostExpression) -> CostExpression:
    """Return the sum of two expressions, as an integer if both are integers."""
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    if left == 0:
        return right
    if right == 0:
        return left
    return lambda context: evaluate(left, context) + evaluate(right, context)


def multiply(left: CostExpression, right: CostExpression) -> CostExpression:
    """Return the product of two expressions, as an integer if both are integers."""
    if isinstance(left, int) and isinstance(right, int):
        return left * right
    return lambda context: evaluate(left, context) * evaluate(right, context)


def memoized(expression: CostExpression) -> CostExpression:
    """Return an expression that is computed once per evaluation, for fragments of many spreads."""
    if isinstance(expression, int):
        return expression

    def evaluate_once(context: EvaluationContext) -> int:
        key = id(evaluate_once)
        if key not in context:
            context[key] = expression(context)
        return context[key]

    return evaluate_once
