"""The modules of the package: their layers, features and imports."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "segmentql"
FEATURES = (
    "objects",
    "csv_files",
    "idempotency",
    "audit",
    "documents",
    "keys",
    "segments",
    "users",
    "history",
    "memberships",
    "rollouts",
    "reports",
    "imports",
    "exports",
    "explain",
    "feed",
    "ofrep",
)
"""The features in order: a feature may import those to its left only."""


@dataclass(frozen=True)
class Module:
    name: str
    """The dotted name without `segmentql.`."""
    path: Path

    @property
    def layer(self) -> str:
        first, *rest = self.name.split(".")
        if first in FEATURES:
            kind = rest[0] if rest else "__init__"
            if kind in {"inputs", "mutations", "payloads"}:
                return "api"
            if kind in {"waiting", "runner"}:  # read for a request, as loaders do
                return "loaders"
            if kind == "response_bodies":
                return "endpoint"
            if self.name == "csv_files.generation":  # what the actors of reports and exports share
                return "actors"
            layers = {"api", "loaders", "actors", "jobs", "endpoint"}
            return kind if kind in layers else "service"
        return {
            "adapters": "adapters",
            "graphql": "kit",
            "local": "local",
            "cli": "cli",
            "__main__": "cli",
            "schema": "schema",
            "subgraph": "schema",
            "app": "app",
            "metrics_collector": "app",
            "monitoring_endpoints": "app",
            "worker_http": "worker",
            "demo": "service",
            "doctor": "service",
            "worker": "worker",
        }.get(first, "leaf")

    @property
    def feature(self) -> str | None:
        first = self.name.split(".")[0]
        return first if first in FEATURES else None

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text())


def modules() -> Iterator[Module]:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield Module(".".join(part for part in parts if part != "__init__"), path)


ALL = {module.name: module for module in modules()}


def imports(module: Module) -> Iterator[str]:
    """Yield every absolute name that a module imports in any place of the file."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name} imports relatively"
            assert node.module
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name.removeprefix("segmentql.") in ALL else node.module


def internal_imports(module: Module) -> Iterator[Module]:
    for name in imports(module):
        target = ALL.get(name.removeprefix("segmentql."))
        if name.startswith("segmentql") and target:
            yield target
