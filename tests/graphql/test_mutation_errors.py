"""Every rejection reason of a mutation has a GraphQL type, and the schema has that type."""

from collections.abc import Iterator

from segmentql import errors
from segmentql.graphql.types.errors import MutationError, as_mutation_error
from segmentql.schema import make_schema


def _subclasses(base: type) -> Iterator[type]:
    subclasses: list[type] = base.__subclasses__()
    for subclass in subclasses:
        yield subclass
        yield from _subclasses(subclass)


def test_schema_has_every_mutation_error_type() -> None:
    """A type is reachable only through the interface, so `schema.py` must list it in `types`."""
    types = make_schema()._schema.type_map
    names = [subclass.__name__ for subclass in _subclasses(MutationError)]
    assert "SegmentNotFound" in names
    assert [name for name in names if name not in types] == []


def test_every_rejection_reason_has_a_mutation_error_type() -> None:
    """A feature registers the GraphQL type of a reason with `as_mutation_error`."""
    reasons = list(_subclasses(errors.RejectionReason))
    assert errors.SegmentNotFound in reasons
    registered = as_mutation_error.registry
    assert [reason.__name__ for reason in reasons if reason not in registered] == []
