"""A plugin of ariadne-codegen: types accept the errors and enum values of later versions."""

import ast
import re

from ariadne_codegen.plugins.base import Plugin
from graphql import ExecutableDefinitionNode, is_abstract_type

OPEN_ENUM = '''
class OpenEnum(str, Enum):
    """An enum that accepts unknown values. Compare values with ==, and have a default branch."""

    @classmethod
    def _missing_(cls, value: object) -> "OpenEnum | None":
        if not isinstance(value, str):
            return None
        member = str.__new__(cls, value)
        member._name_ = member._value_ = value
        return member
'''


class OpenTypes(Plugin):
    """Generate open enums, and unions whose last type accepts every `__typename`."""

    def generate_enums_module(self, module: ast.Module) -> ast.Module:
        classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
        for class_def in classes:
            class_def.bases = [ast.Name("OpenEnum")]
        first = module.body.index(classes[0])
        module.body[first:first] = ast.parse(OPEN_ENUM).body
        return module

    def generate_result_types_module(
        self, module: ast.Module, operation_definition: ExecutableDefinitionNode
    ) -> ast.Module:
        open_classes = {
            node.name
            for node in module.body
            if isinstance(node, ast.ClassDef) and any(map(self._open_typename, node.body))
        }
        for node in ast.walk(module):
            if isinstance(node, ast.Tuple) and isinstance(node.elts[-1], ast.Call):
                _try_in_order(node, open_classes)
        return module

    def _open_typename(self, field: ast.stmt) -> bool:
        """Accept every string as the `__typename` of an interface or a union."""
        if not (isinstance(field, ast.AnnAssign) and ast.unparse(field.target) == "typename__"):
            return False
        names = re.findall(r"\w+", ast.unparse(field.annotation))
        if is_open := any(is_abstract_type(self.schema.type_map.get(name)) for name in names):
            field.annotation = ast.Name("str")
        return is_open


def _try_in_order(annotated: ast.Tuple, open_classes: set[str]) -> None:
    """Replace the discriminator of `Annotated[Union[...], Field(discriminator=...)]`."""
    union, field = annotated.elts
    if isinstance(union, ast.Subscript) and isinstance(union.slice, ast.Tuple):
        union.slice.elts.sort(key=lambda member: ast.unparse(member).strip("'\"") in open_classes)
        assert isinstance(field, ast.Call)
        field.keywords = [ast.keyword("union_mode", ast.Constant("left_to_right"))]
