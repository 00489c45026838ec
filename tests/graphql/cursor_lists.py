"""Every connection of the schema with and without filters, and queries for its pages."""

from typing import Any

from tests.conftest import Api

MARCH = 'from: "2024-03-01T00:00:00Z"'
FAR = 'to: "2100-01-01T00:00:00Z"'
LISTS = {
    "users": "users({arguments}) {page}",
    "segments": "segments({arguments}) {page}",
    "segments by prefix": 'segments({arguments}, prefix: "A") {page}',
    "segments by search": 'segments({arguments}, search: "a") {page}',
    "segments by another search": 'segments({arguments}, search: "A") {page}',
    "segments by prefix and search": 'segments({arguments}, prefix: "A", search: "a") {page}',
    "segments with deleted ones": "segments({arguments}, includeDeleted: true) {page}",
    "segments with deleted ones by search": (
        'segments({arguments}, includeDeleted: true, search: "a") {page}'
    ),
    "history": "history({arguments}) {page}",
    "history of a user": "history({arguments}, userId: 2) {page}",
    "history of a slug": 'history({arguments}, slug: "A") {page}',
    "history of another slug": 'history({arguments}, slug: "AB") {page}',
    "history from a moment": f"history({{arguments}}, {MARCH}) {{page}}",
    "history to a moment": f"history({{arguments}}, {FAR}) {{page}}",
    "members": 'segment(slug: "A") {{ members({arguments}) {page} }}',
    "members of another segment": 'segment(slug: "AB") {{ members({arguments}) {page} }}',
    "user's history": "user(id: 1) {{ history({arguments}) {page} }}",
    "user's history of a slug": 'user(id: 1) {{ history({arguments}, slug: "A") {page} }}',
    "another user's history": "user(id: 3) {{ history({arguments}) {page} }}",
    "reports": "reports({arguments}) {page}",
    "reports of a user": "reports({arguments}, userId: 1) {page}",
    "reports of another user": "reports({arguments}, userId: 2) {page}",
    "imports": "imports({arguments}) {page}",
    "imports of a slug": 'imports({arguments}, slug: "AB") {page}',
    "exports": "exports({arguments}) {page}",
    "exports of a slug": 'exports({arguments}, slug: "AB") {page}',
    "keys": "apiKeys({arguments}) {page}",
    "audit log": "auditLog({arguments}) {page}",
    "audit log of a slug": 'auditLog({arguments}, slug: "A") {page}',
    "audit log of an actor": 'auditLog({arguments}, actor: "A") {page}',
    "audit log from a moment": f"auditLog({{arguments}}, {MARCH}) {{page}}",
    "audit log to a moment": f"auditLog({{arguments}}, {FAR}) {{page}}",
}
"""Every connection with and without filters; no two entries are the same list."""

SAME = {
    "segments": [
        "segments({arguments}, prefix: null) {page}",
        'segments({arguments}, prefix: "") {page}',
        'segments({arguments}, search: "") {page}',
        "segments({arguments}, search: null, includeDeleted: null) {page}",
        "segments({arguments}, includeDeleted: false) {page}",
    ],
    "audit log": [
        "auditLog({arguments}, slug: null, actor: null, from: null, to: null) {page}",
    ],
    "audit log from a moment": [
        'auditLog({arguments}, from: "2024-03-01T03:00:00.000+03:00") {page}',
    ],
    "history of a user": [
        'history(userId: "2", {arguments}) {page}',
        "history({arguments}, userId: 2, slug: null, from: null, to: null) {page}",
        "user(id: 2) {{ history({arguments}) {page} }}",
    ],
    "history from a moment": [
        'history({arguments}, from: "2024-03-01T03:00:00.000+03:00") {page}',
    ],
    "reports": ["reports({arguments}, userId: null) {page}"],
    "reports of a user": ['reports({arguments}, userId: "1") {page}'],
}
"""Equivalent requests for the same list."""

ONE_OF_EACH_SHAPE = (
    "users",
    "segments",
    "segments with deleted ones",
    "history",
    "members",
    "user's history",
    "audit log",
)
"""One list of each shape, for tests that would take too long with all lists."""

NO_FILTERS = (None, None, None, None)
"""The filters of history (user, slug) and of the audit log (slug, actor), and `from` and `to`."""

PAGE = "{ nodes { id } edges { cursor } pageInfo { hasNextPage } }"


def query(name: str, arguments: str = "first: $first, after: $after") -> str:
    return query_of(LISTS[name], arguments)


def query_of(template: str, arguments: str = "first: $first, after: $after") -> str:
    field = template.format(arguments=arguments, page=PAGE)
    return f"query($first: Int = 2, $after: String) {{ __typename {field} }}"


def page(data: Any) -> Any:
    """Return the only connection of a response."""
    (connection,) = [value for key, value in data.items() if key != "__typename"]
    return connection if "nodes" in connection else page(connection)


async def cursors(api: Api, name: str) -> list[str]:
    return [edge["cursor"] for edge in page(await api(query(name)))["edges"]]


def rejection(argument: str, allowed: str) -> dict[str, str]:
    return {"code": "BAD_REQUEST", "argument": argument, "allowed": allowed}
