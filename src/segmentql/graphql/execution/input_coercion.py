"""A field's arguments, made ready for its resolver by functions compiled once a document.

They do what Strawberry's `convert_arguments` does, which looks up names and types at each request.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from graphql.execution.values import VariableValues
from strawberry.types.arguments import StrawberryArgument
from strawberry.types.base import StrawberryMaybe, StrawberryObjectDefinition
from strawberry.types.field import StrawberryField

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    VariableNode,
    Visitor,
    get_argument_values,
    get_named_type,
    is_input_object_type,
    visit,
)

DEFINITION: Final = "strawberry-definition"
"""The extension under which a type, field or argument of graphql-core has Strawberry's."""

Arguments: TypeAlias = Callable[[VariableValues], Mapping[str, Any]]
"""A field's arguments by their Python names."""

_Convert: TypeAlias = Callable[[Any], Any]
"""Makes what a resolver takes out of a value, not null, as graphql-core has coerced it."""


class NotCompilable(Exception):
    """The document has something that plans do not know."""


def arguments_of(field: GraphQLField, node: FieldNode) -> Arguments:
    """Compile the arguments that `node` gives to `field`; read once if no variable is among them.

    Raises:
        Unplanned: graphql-core and Strawberry must read them.
    """
    known: dict[str, tuple[str, _Convert]] = {}
    for name, argument in field.args.items():
        definition = argument.extensions.get(DEFINITION)
        if not isinstance(definition, StrawberryArgument):
            raise NotCompilable
        known[name] = (definition.python_name, _conversion(argument.type))

    def read(variables: VariableValues | None) -> Mapping[str, Any]:
        return _converted(get_argument_values(field, node, variables), known)

    # Of an input object each resolver gets its own: it is no value.
    if _has_variable(node) or any(map(_is_input_object, field.args.values())):
        return read
    constant = read(None)
    return lambda variables: constant


def _is_input_object(argument: Any) -> bool:
    return is_input_object_type(get_named_type(argument.type))


def _conversion(kind: GraphQLInputType) -> _Convert:
    if isinstance(kind, GraphQLNonNull):
        return _conversion(kind.of_type)
    if isinstance(kind, GraphQLList):
        item = _conversion(kind.of_type)
        return lambda values: [None if value is None else item(value) for value in values]
    if isinstance(kind, GraphQLInputObjectType):
        return _input_object(kind)
    return lambda value: value


def _input_object(kind: GraphQLInputObjectType) -> _Convert:
    definition = kind.extensions.get(DEFINITION)
    if not isinstance(definition, StrawberryObjectDefinition) or definition.from_input:
        raise NotCompilable
    known: dict[str, tuple[str, _Convert]] = {}
    for name, field in kind.fields.items():
        of_field = field.extensions.get(DEFINITION)
        if not isinstance(of_field, StrawberryField) or isinstance(of_field.type, StrawberryMaybe):
            raise NotCompilable
        known[name] = (of_field.python_name, _conversion(field.type))
    # Without a field that has no default this fails, and graphql-core executes the operation.
    make = definition.origin
    return lambda given: make(**_converted(given, known))


def _converted(
    given: Mapping[str, Any], known: Mapping[str, tuple[str, _Convert]]
) -> dict[str, Any]:
    converted = {}
    for name, value in given.items():
        python_name, convert = known[name]
        converted[python_name] = None if value is None else convert(value)
    return converted


def _has_variable(node: FieldNode) -> bool:
    found = False

    class Find(Visitor):
        def enter_variable(self, node: VariableNode, *_: Any) -> None:
            nonlocal found
            found = True

    for argument in node.arguments or ():
        visit(argument, Find())
    return found
