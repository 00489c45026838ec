"""Amounts of a cost: numbers, or functions of an operation's variables."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Variables: TypeAlias = Mapping[str, Any]


class EvaluationContext(dict[int, int]):
    """One evaluation: the variables, and what fragments came to, each counted once."""

    def __init__(self, variables: Variables) -> None:
        super().__init__()
        self.variables = variables


CostExpression: TypeAlias = int | Callable[[EvaluationContext], int]


def value_of(amount: CostExpression, context: EvaluationContext) -> int:
    return amount if isinstance(amount, int) else amount(context)


def add(left: CostExpression, right: CostExpression) -> CostExpression:
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return lambda context: value_of(left, context) + value_of(right, context)


def times(left: CostExpression, right: CostExpression) -> CostExpression:
    if isinstance(left, int) and isinstance(right, int):
        return left * right
    return lambda context: value_of(left, context) * value_of(right, context)


def memoized(amount: CostExpression) -> CostExpression:
    """The same, evaluated once however often a fragment is spread."""
    if isinstance(amount, int):
        return amount

    def evaluate(context: EvaluationContext) -> int:
        key = id(evaluate)
        if key not in context:
            context[key] = amount(context)
        return context[key]

    return evaluate
