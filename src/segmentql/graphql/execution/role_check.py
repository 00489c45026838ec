"""The check of the role EVALUATOR, which may query no root field except `viewer`.

Fields of queries have no permission (`types/permissions.py`), because every other role may query
them. So the operations of an EVALUATOR have no plan, and graphql-core calls this check.
"""

from collections.abc import Callable
from typing import Any, Final

from graphql import GraphQLResolveInfo
from segmentql.graphql.execution.input_coercion import DEFINITION
from segmentql.graphql.types.errors import forbidden
from segmentql.tables import Role

EVALUATOR_FIELDS: Final = frozenset({"viewer", "__typename"})
"""The root fields that the role EVALUATOR may query."""


def require_reader_at_root(
    resolve: Callable[..., Any], source: Any, info: GraphQLResolveInfo[Any], **arguments: Any
) -> Any:
    """Call the resolver of a field unless only other roles may query it.

    graphql-core calls this as middleware. A root field with a permission checks the role itself.

    Raises:
        GraphQLError: The role may not query the root field (FORBIDDEN).
    """
    if info.path.prev is None and info.field_name not in EVALUATOR_FIELDS:
        field = info.parent_type.fields.get(info.field_name)  # None for introspection
        definition = field.extensions.get(DEFINITION) if field else None
        if not getattr(definition, "permission_classes", None):
            raise forbidden(info.field_name, needed=Role.READER, held=info.context.principal.role)
    return resolve(source, info, **arguments)
