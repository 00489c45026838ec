"""Amounts of a cost: numbers, or functions of an operation's variables."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Variables: TypeAlias = Mapping[str, Any]


class Once(dict[int, int]):
    """One evaluation: the variables, and what fragments came to, each counted once."""

    def __init__(self, variables: Variables) -> None:
        super().__init__()
        self.variables = variables


Amount: TypeAlias = int | Callable[[Once], int]


def value_of(amount: Amount, once: Once) -> int:
    return amount if isinstance(amount, int) else amount(once)


def add(left: Amount, right: Amount) -> Amount:
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return lambda once: value_of(left, once) + value_of(right, once)


def times(left: Amount, right: Amount) -> Amount:
    if isinstance(left, int) and isinstance(right, int):
        return left * right
    return lambda once: value_of(left, once) * value_of(right, once)


def counted_once(amount: Amount) -> Amount:
    """The same, evaluated once however often a fragment is spread."""
    if isinstance(amount, int):
        return amount

    def evaluate(once: Once) -> int:
        key = id(evaluate)
        if key not in once:
            once[key] = amount(once)
        return once[key]

    return evaluate
