"""The validation of a mutation's input and of a query's arguments.

The rules are functions of `segmentql.validators`: each returns the decoded value or raises
`BadValue`. A mutation collects all invalid fields of its input and returns them as one payload
(`InputValidator`). A query's argument fails at the first invalid value (`argument_value`).
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import strawberry

from segmentql import errors
from segmentql.graphql.types.errors import bad_request, limit_exceeded

NULL_CLEARS: Final = {"segmentql.null_clears": True}
"""The `metadata` of an input's field for which null and absent differ: null clears the value."""

T = TypeVar("T")
A = TypeVar("A")


class InputValidator:
    """A validator that decodes the fields of one mutation's input and collects their errors.

    check = InputValidator()
    slug = check.value(validators.slug, input.slug, "slug")
    check.raise_errors()
    """

    def __init__(self) -> None:
        self._reasons: list[errors.RejectionReason] = []

    def value(self, rule: Callable[[Any], T], value: Any, *path: str) -> T:
        """Apply a rule of `validators` to a field.

        Args:
            rule: The rule.
            value: The field's value as the client sent it.
            path: The path of the field in the input.

        Returns:
            The decoded value. It is not meaningful if the rule rejected the value, so call
            `raise_errors` before using it.
        """
        try:
            return rule(value)
        except errors.BadValue as bad:
            self.add_error(bad.problem, bad.allowed, *path)
            return value  # type: ignore[no-any-return]

    def optional(self, rule: Callable[[Any], T], value: Any, *path: str, absent: A) -> T | A | None:
        """Apply a rule to an optional field.

        Returns:
            `absent` if the field is absent, None if it is null, else the decoded value.
        """
        if value is strawberry.UNSET:
            return absent
        return None if value is None else self.value(rule, value, *path)

    def check_exactly_one(self, first: tuple[str, object], second: tuple[str, object]) -> None:
        """Add an error unless exactly one of two fields has a value. None counts as no value.

        Args:
            first: The name and the value of a field of the input.
            second: The name and the value of the other field.
        """
        error = _exactly_one_error(first, second)
        if error:
            field, problem, allowed = error
            self.add_error(problem, allowed, field)

    def add_error(self, problem: str, allowed: str, *path: str) -> None:
        """Add an error of the field at `path` to the collected errors."""
        self._reasons.append(errors.InvalidInput(path, problem, allowed))

    def raise_errors(self) -> None:
        """Raise `MutationRejected` with all collected errors if there are any."""
        if self._reasons:
            raise errors.MutationRejected(*self._reasons)


def _exactly_one_error(
    first: tuple[str, object], second: tuple[str, object]
) -> tuple[str, str, str] | None:
    """Return a field, the problem and the allowed values unless exactly one field has a value."""
    (first_name, first_value), (second_name, second_value) = first, second
    allowed = f"exactly one of `{first_name}` and `{second_name}`"
    if first_value is None and second_value is None:
        return first_name, f"neither `{first_name}` nor `{second_name}` is set", allowed
    if first_value is not None and second_value is not None:
        return second_name, f"both `{first_name}` and `{second_name}` are set", allowed
    return None


def check_exactly_one_argument(first: tuple[str, object], second: tuple[str, object]) -> None:
    """Check that exactly one of two arguments of a query has a value. None counts as no value.

    Raises:
        GraphQLError: Both or neither have one; the code is BAD_REQUEST.
    """
    error = _exactly_one_error(first, second)
    if error:
        raise bad_request(*error)


def argument_value(rule: Callable[[Any], T], value: Any, argument: str) -> T:
    """Apply a rule of `validators` to a query's argument and return the decoded value.

    Raises:
        GraphQLError: The value is invalid; the code is BAD_REQUEST.
    """
    try:
        return rule(value)
    except errors.BadValue as bad:
        raise bad_request(argument, bad.problem, bad.allowed) from None


def optional_argument(rule: Callable[[Any], T], value: Any, argument: str) -> T | None:
    """Apply a rule of `validators` to a query's argument; return None if it is absent or null.

    An empty string is neither absent nor null: the rule validates it.

    Raises:
        GraphQLError: The value is invalid; the code is BAD_REQUEST.
    """
    if value is None or value is strawberry.UNSET:
        return None
    return argument_value(rule, value, argument)


def size_argument(value: int | None, argument: str, *, default: int, maximum: int) -> int:
    """Return the size of a list that a query's argument sets; null means the default.

    Raises:
        GraphQLError: The size is less than 1 (BAD_REQUEST) or exceeds the maximum (LIMIT_EXCEEDED).
    """
    size = default if value is None else value
    if size < 1:
        raise bad_request(argument, f"{size} is less than 1", f"1 to {maximum}")
    if size > maximum:
        raise limit_exceeded(argument, limit=maximum, value=size)
    return size
