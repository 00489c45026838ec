"""A validation rule for input objects with exactly one field."""

from typing import Any

from strawberry.exceptions import StrawberryInputCoercionError
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graphql import (
    DocumentNode,
    GraphQLNamedType,
    NonNullTypeNode,
    ObjectValueNode,
    OperationDefinitionNode,
    ValidationContext,
    VariableNode,
)


class OneOfRule(OneOfInputValidationRule):
    """The rule of Strawberry, which fails if a fragment with a variable precedes the operation.

    Variables are checked at the end of the document, for each operation that uses them.
    """

    def __init__(self, validation_context: ValidationContext) -> None:
        super().__init__(validation_context)
        self._members: dict[int, tuple[ObjectValueNode, GraphQLNamedType]] = {}

    def validate_one_of(self, node: ObjectValueNode, type: GraphQLNamedType) -> None:  # noqa: A002
        """Check an object. If its only value is a variable, keep it for `leave_document`."""
        values = {field.name.value: field.value for field in node.fields}
        value = next(iter(values.values()), None)
        if len(values) == 1 and isinstance(value, VariableNode):
            self._members[id(value)] = node, type
        else:
            super().validate_one_of(node, type)

    def leave_document(self, document: DocumentNode, *_: Any) -> None:
        """Check the variables. Another rule reports those that an operation does not define."""
        for operation in document.definitions:
            if not isinstance(operation, OperationDefinitionNode):
                continue
            nullable = {
                definition.variable.name.value
                for definition in operation.variable_definitions or ()
                if not isinstance(definition.type, NonNullTypeNode)
            }
            for usage in self.context.get_recursive_variable_usages(operation):
                name = usage.node.name.value
                if name in nullable and id(usage.node) in self._members:
                    node, type_ = self._members.pop(id(usage.node))
                    self.report_error(
                        StrawberryInputCoercionError(
                            f"Variable '{name}' must be non-nullable to be used for OneOf Input"
                            f" Object '{type_.name}'.",
                            nodes=[node],
                        )
                    )
