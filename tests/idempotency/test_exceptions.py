"""The copy of an exception says all that the exception says."""

import traceback

import pytest
from sqlalchemy.exc import DBAPIError

from graphql import GraphQLError
from segmentql.errors import MutationRejected, OutcomeUnknown, UserNotFound
from segmentql.graphql.types.errors import forbidden
from segmentql.idempotency.exceptions import copy_exception
from segmentql.tables import Role


def raised(error: Exception) -> Exception:
    """Raise an exception with a cause, so that it has a traceback."""
    try:
        raise error from KeyError("cause")
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    "original",
    [
        ValueError("text", 5),
        OutcomeUnknown("lost"),
        MutationRejected(UserNotFound(("id",), 1)),
        DBAPIError("SELECT 1", {"a": 1}, ValueError("original")),
        forbidden("an import", needed=Role.ADMIN, held=Role.EDITOR),
    ],
    ids=lambda error: type(error).__name__,
)
def test_copy_has_the_attributes_cause_and_traceback(original: Exception) -> None:
    error = raised(original)
    duplicate = copy_exception(error)
    assert duplicate is not error
    assert type(duplicate) is type(error)
    assert (str(duplicate), duplicate.args) == (str(error), error.args)
    assert duplicate.__dict__ == error.__dict__
    if isinstance(error, GraphQLError):
        assert isinstance(duplicate, GraphQLError)
        assert duplicate.formatted == error.formatted
    before = traceback.format_exception(error)
    assert traceback.format_exception(duplicate) == before
    for _ in range(3):
        with pytest.raises(type(error)):
            raise duplicate
    assert traceback.format_exception(error) == before
