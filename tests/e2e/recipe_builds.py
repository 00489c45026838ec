"""Copies of docs/clients in temporary folders, with their packages and generated types.

The types are generated from an older schema, so that the service is of a later version: it has an
error type, an error code and a cause that the generator did not know.
"""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from graphql.language.visitor import REMOVE, Visitor

from graphql import (
    EnumTypeDefinitionNode,
    EnumValueDefinitionNode,
    ObjectTypeDefinitionNode,
    parse,
    print_ast,
    visit,
)
from segmentql.settings import child_environment
from tests.clients.node import install_packages, run_npm

ROOT: Final = Path(__file__).parents[2]
RECIPES: Final = ROOT / "docs" / "clients"
PATIENCE_SECONDS: Final = 300
GENERATED: Final = ("node_modules", "out", "segments_api", "generated.ts", "schema.graphql")
CLOSED_PLUGIN: Final = 'plugins = ["open_types.OpenTypes"]\n'
CLOSED_CODEGEN: Final = ("  - open.graphql\n", "      futureProofEnums: true")


SHORT_LIMITS: Final = {
    "recipe.py": {
        "timeout(0.5)": "timeout(60)",
        "timeout=0.2": "timeout=60",
        "timeout=2,": "timeout=60,",
    },
    "recipe_gql.py": {
        "timeout(0.5)": "timeout(60)",
        '"timeout": 0.2': '"timeout": 60',
        "timeout=2,": "timeout=60,",
    },
    "recipe_httpx.py": {
        "timeout(0.5)": "timeout(60)",
        "seconds=0.2": "seconds=60",
        "seconds: float = 2": "seconds: float = 60",
    },
    "out/recipe.js": {
        "attemptMs: 200,": "attemptMs: 60_000,",
        "totalMs: 500 ": "totalMs: 60_000 ",
        "attemptMs: 2000": "attemptMs: 60_000",
    },
}
"""The time limits of the programs that a busy machine exceeds, and longer ones for the tests."""


class _Older(Visitor):
    """Removes the error type `InvalidInput`, its code, and the cause MANUAL."""

    def enter_object_type_definition(self, node: ObjectTypeDefinitionNode, *_: Any) -> Any:
        return REMOVE if node.name.value == "InvalidInput" else None

    def enter_enum_type_definition(self, node: EnumTypeDefinitionNode, *_: Any) -> Any:
        return None if node.name.value in ("ErrorCode", "Cause") else False

    def enter_enum_value_definition(self, node: EnumValueDefinitionNode, *_: Any) -> Any:
        return REMOVE if node.name.value in ("INVALID_INPUT", "MANUAL") else None


def older_schema() -> str:
    """Return the schema of an earlier version of the service."""
    current = (ROOT / "schema.graphql").read_text()
    older = print_ast(visit(parse(current), _Older()))
    assert "type InvalidInput implements" in current
    assert not any(name in older for name in ("type InvalidInput", " INVALID_INPUT", " MANUAL\n"))
    return older


@dataclass(frozen=True)
class Build:
    """A folder with a recipe that is ready to run."""

    folder: Path
    program: tuple[str, ...]
    environment: Mapping[str, str]

    def with_service(self, address: str, token: str) -> "Build":
        """Return the build with the environment variables of the service."""
        variables = {"SEGMENTQL_URL": address, "SEGMENTQL_API_KEY": token}
        return Build(self.folder, self.program, {**self.environment, **variables})

    def with_long_limits(self, program: str) -> str:
        """Return the name of a copy of a program whose time limits are longer."""
        text = (self.folder / program).read_text()
        for short, long in SHORT_LIMITS[program].items():
            assert short in text, short
            text = text.replace(short, long)
        path = (self.folder / program).with_stem("patient")
        path.write_text(text)
        return str(path.relative_to(self.folder))

    async def run(self, *arguments: str, expect_failure: bool = False) -> str:
        """Return the output of a program, and check its exit code."""
        process = await asyncio.create_subprocess_exec(
            *self.program,
            *arguments,
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            output, _ = await process.communicate()
        printed = output.decode()
        assert (process.returncode != 0) is expect_failure, printed
        return printed

    @asynccontextmanager
    async def running(self, *arguments: str, log: Path) -> AsyncIterator[None]:
        """Run a program that does not end by itself, with its output in a file."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *self.program,
                *arguments,
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        try:
            yield
            assert process.returncode is None, log.read_text()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def clean_environment() -> dict[str, str]:
    """Return an environment in which Python finds only the packages of its own."""
    return {n: v for n, v in child_environment({}).items() if n not in ("PYTHONPATH", "MYPYPATH")}


def _copy(folder: Path, language: str) -> Path:
    """Copy the recipe of a language and the operations, and return the recipe's folder."""
    copied = folder / language
    shutil.copytree(RECIPES / language, copied, ignore=shutil.ignore_patterns(*GENERATED))
    shutil.copy(RECIPES / "operations.graphql", folder)
    (copied / "schema.graphql").write_text(older_schema())
    return copied


async def build_python(root: Path) -> Build:
    """Install the Python recipe, generate its client, and check its types."""
    folder = await asyncio.to_thread(_copy, root, "python")
    environment = clean_environment()
    target = root / "venv"
    program = str(target / "bin" / "python")
    uv = Build(folder, (sys.executable, "-m", "uv"), environment)
    await uv.run("venv", "--quiet", "--python", sys.executable, str(target))
    # Without --python, uv changes the environment of its own interpreter: that of the tests.
    install = ("pip", "install", "--quiet", "--python", program, "--no-deps", "--require-hashes")
    await uv.run(*install, "--requirement", "requirements.lock")
    build = Build(folder, (program,), environment)
    await build.run("-m", "ariadne_codegen", "--config", "codegen.toml")
    programs = sorted(path.name for path in folder.glob("*.py"))
    await build.run("-m", "mypy", "--strict", "--follow-imports=silent", *programs)
    return build


async def close_python(build: Build, root: Path) -> Build:
    """Return a copy of the Python recipe without the plugin for open types."""
    folder = await asyncio.to_thread(_copy, root, "python")
    config = folder / "codegen.toml"
    text = config.read_text()
    assert CLOSED_PLUGIN in text
    config.write_text(text.replace(CLOSED_PLUGIN, ""))
    closed = Build(folder, build.program, build.environment)
    await closed.run("-m", "ariadne_codegen", "--config", "codegen.toml")
    return closed


async def build_typescript(root: Path) -> Build:
    """Install the TypeScript recipe, generate its types, and compile it."""
    folder = await asyncio.to_thread(_copy, root, "typescript")
    await install_packages(folder)
    await run_npm("run", "generate", folder=folder)
    await run_npm("run", "build", folder=folder)
    return Build(folder, (shutil.which("node") or "node",), clean_environment())


async def close_typescript(build: Build, root: Path) -> Build:
    """Return a copy of the TypeScript recipe without the settings for open types."""
    folder = await asyncio.to_thread(_copy, root, "typescript")
    await asyncio.to_thread((folder / "node_modules").symlink_to, build.folder / "node_modules")
    config = folder / "codegen.yml"
    text = config.read_text()
    for setting in CLOSED_CODEGEN:
        assert setting in text
        text = text.replace(setting, "")
    config.write_text(text)
    await run_npm("run", "generate", folder=folder)
    return Build(folder, build.program, build.environment)
