"""The coercion of a field's arguments for its resolver, by functions compiled once per document.

They do what Strawberry's `convert_arguments` does, which looks up names and types in each request.
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
    Undefined,
    VariableNode,
    Visitor,
    get_argument_values,
    get_named_type,
    get_nullable_type,
    is_input_object_type,
    is_leaf_type,
    visit,
)

DEFINITION: Final = "strawberry-definition"
"""The extension of types, fields and arguments of graphql-core with Strawberry's definition."""

Arguments: TypeAlias = Callable[[VariableValues], Mapping[str, Any]]
"""A function that returns a field's arguments by their Python names."""

_Converter: TypeAlias = Callable[[Any], Any]
"""A function that converts a non-null value of graphql-core for a resolver."""

_Converters: TypeAlias = dict[str, tuple[str, _Converter]]
"""The Python names and converters of arguments or input fields, by their GraphQL names."""


class NotCompilable(Exception):
    """The document has something that plans do not support."""


def arguments_of(field: GraphQLField, node: FieldNode) -> Arguments:
    """Compile the arguments of a field. Arguments without variables are coerced only once.

    Args:
        field: The definition of the field.
        node: The field in the document, with the values of the arguments.

    Raises:
        NotCompilable: graphql-core and Strawberry must coerce the arguments.
    """
    converters: _Converters = {}
    for name, argument in field.args.items():
        definition = argument.extensions.get(DEFINITION)
        if not isinstance(definition, StrawberryArgument):
            raise NotCompilable
        converters[name] = (definition.python_name, _converter(argument.type))

    def coerce(variables: VariableValues | None) -> Mapping[str, Any]:
        return _convert(get_argument_values(field, node, variables), converters)

    names = _variables_of_arguments(field, node)
    if names:
        return _variable_reader({converters[name][0]: names[name] for name in names}, coerce)
    # Input objects are mutable, so each call of the resolver gets its own.
    if _has_variable(node) or any(map(_is_input_object, field.args.values())):
        return coerce
    constant = coerce(None)
    return lambda variables: constant


def _variables_of_arguments(field: GraphQLField, node: FieldNode) -> dict[str, str]:
    """Return the variables of a field's arguments, if it has only leaves and variables.

    The dict is empty if an argument is a list, an input object or a literal, or has a default
    value.
    """
    names: dict[str, str] = {}
    given = {argument.name.value: argument.value for argument in node.arguments or ()}
    for name, argument in field.args.items():
        value = given.get(name)
        if isinstance(value, VariableNode) and is_leaf_type(get_nullable_type(argument.type)):
            names[name] = value.name.value
        elif value is not None or argument.default or argument.default_value is not Undefined:
            return {}
    return names


def _variable_reader(names: Mapping[str, str], coerce: Arguments) -> Arguments:
    """Return a function that reads the arguments from the variables.

    Args:
        names: The names of the variables, by the Python names of the arguments.
        coerce: The function for a variable that is null or missing.
    """
    items = tuple(names.items())

    def read(variables: VariableValues) -> Mapping[str, Any]:
        coerced = variables.coerced
        values = {name: coerced.get(variable) for name, variable in items}
        return coerce(variables) if None in values.values() else values

    return read


def _is_input_object(argument: Any) -> bool:
    return is_input_object_type(get_named_type(argument.type))


def _converter(input_type: GraphQLInputType) -> _Converter:
    if isinstance(input_type, GraphQLNonNull):
        return _converter(input_type.of_type)
    if isinstance(input_type, GraphQLList):
        item = _converter(input_type.of_type)
        return lambda values: [None if value is None else item(value) for value in values]
    if isinstance(input_type, GraphQLInputObjectType):
        return _input_object_converter(input_type)
    return lambda value: value


def _input_object_converter(input_type: GraphQLInputObjectType) -> _Converter:
    definition = input_type.extensions.get(DEFINITION)
    if not isinstance(definition, StrawberryObjectDefinition) or definition.from_input:
        raise NotCompilable
    converters: _Converters = {}
    for name, field in input_type.fields.items():
        declared = field.extensions.get(DEFINITION)
        if not isinstance(declared, StrawberryField) or isinstance(declared.type, StrawberryMaybe):
            raise NotCompilable
        converters[name] = (declared.python_name, _converter(field.type))
    # If a field without default is missing, this raises, and graphql-core executes the operation.
    input_class = definition.origin
    return lambda values: input_class(**_convert(values, converters))


def _convert(values: Mapping[str, Any], converters: _Converters) -> dict[str, Any]:
    converted = {}
    for name, value in values.items():
        python_name, convert = converters[name]
        converted[python_name] = None if value is None else convert(value)
    return converted


def _has_variable(node: FieldNode) -> bool:
    has_variable = False

    class VariableFinder(Visitor):
        def enter_variable(self, node: VariableNode, *_: Any) -> None:
            nonlocal has_variable
            has_variable = True

    for argument in node.arguments or ():
        visit(argument, VariableFinder())
    return has_variable
