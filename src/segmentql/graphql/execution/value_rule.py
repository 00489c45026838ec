"""A validation rule that gives every error of a literal its node."""

from collections.abc import Sequence

from graphql.utilities.validate_input_value import validate_input_literal

from graphql import (
    SKIP,
    GraphQLError,
    GraphQLInputType,
    ListValueNode,
    ObjectValueNode,
    ValueNode,
    ValuesOfCorrectTypeRule,
    VisitorAction,
)


class LocatedValuesRule(ValuesOfCorrectTypeRule):
    """The rule of graphql-core, except that each error has the node of the invalid value.

    graphql-core omits the node if the function of a scalar raises the error, and names a copy of an
    object or list.
    """

    def is_valid_value_node(
        self, node: ValueNode, input_type: GraphQLInputType | None
    ) -> VisitorAction:
        def report(error: GraphQLError, path: list[str | int]) -> None:
            if not error.locations:
                error = GraphQLError(
                    error.message,
                    _value_at(node, path),
                    original_error=error.original_error,
                    extensions=error.extensions,
                )
            self.report_error(error)

        if input_type:
            hide_suggestions = self.context.hide_suggestions
            validate_input_literal(node, input_type, report, hide_suggestions=hide_suggestions)
        return SKIP


def _value_at(node: ValueNode, path: Sequence[str | int]) -> ValueNode:
    for key in path:
        if isinstance(node, ListValueNode) and isinstance(key, int):
            node = node.values[key]
        elif isinstance(node, ObjectValueNode):
            # The last of equal fields counts; another rule reports them.
            node = {field.name.value: field.value for field in node.fields}[str(key)]
    return node
