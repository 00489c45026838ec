"""The walk over a selection set, through its inline fragments and fragment spreads.

The document limits, the query cost and the compiler share it. A walk visits each named fragment
once, although a document may spread it many times. A small document of fragments in fragments
would otherwise take exponential time.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, TypeAlias, TypeVar

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    SelectionSetNode,
)

Fragments: TypeAlias = Mapping[str, FragmentDefinitionNode]
"""The fragments of a document by name."""

S = TypeVar("S")
V = TypeVar("V")


def fragments_of(document: DocumentNode) -> Fragments:
    """Return the fragments of a document by name."""
    return {
        node.name.value: node
        for node in document.definitions
        if isinstance(node, FragmentDefinitionNode)
    }


class SelectionWalker(ABC, Generic[S, V]):
    """A walk that combines the values of fields into the value of a selection set.

    The scope is what a selection set inherits from its surroundings, for instance the type that it
    selects from. A named fragment is walked in the scope of its first spread.
    """

    empty: V
    """The value of a selection set without fields."""

    def __init__(self, fragments: Fragments) -> None:
        self._fragments = fragments
        self._fragment_values: dict[str, V] = {}

    @abstractmethod
    def field(self, node: FieldNode, scope: S) -> V:
        """Return the value of a field."""

    @abstractmethod
    def combine(self, total: V, value: V) -> V:
        """Add the value of a field or fragment to the total of the selections before it."""

    def enter(
        self,
        node: FragmentSpreadNode | InlineFragmentNode,
        fragment: FragmentDefinitionNode | InlineFragmentNode,
        scope: S,
    ) -> S:
        """Return the scope within a fragment. `node` is the selection that includes it."""
        return scope

    def reusable(self, value: V) -> V:
        """Return the value of a named fragment in a form that several spreads can share."""
        return value

    def walk(self, selection_set: SelectionSetNode | None, scope: S) -> V:
        """Return the value of a selection set; of None, the value `empty`."""
        total = self.empty
        for node in selection_set.selections if selection_set else ():
            if isinstance(node, FieldNode):
                value = self.field(node, scope)
            elif isinstance(node, InlineFragmentNode):
                value = self.walk(node.selection_set, self.enter(node, node, scope))
            else:
                assert isinstance(node, FragmentSpreadNode)  # noqa: S101 - no other kind exists
                value = self._spread(node, scope)
            total = self.combine(total, value)
        return total

    def _spread(self, node: FragmentSpreadNode, scope: S) -> V:
        name = node.name.value
        fragment = self._fragments.get(name)
        if fragment is None:  # validation rejects the document
            return self.empty
        inner = self.enter(node, fragment, scope)
        if name not in self._fragment_values:
            # A fragment that spreads itself counts as empty; validation rejects the document.
            self._fragment_values[name] = self.empty
            value = self.walk(fragment.selection_set, inner)
            self._fragment_values[name] = self.reusable(value)
        return self._fragment_values[name]


class FieldCounter(SelectionWalker[None, int]):
    """A walk that counts the fields of a selection set, without the fields below them."""

    empty = 0

    def field(self, node: FieldNode, scope: None) -> int:
        return 1

    def combine(self, total: int, value: int) -> int:
        return total + value
