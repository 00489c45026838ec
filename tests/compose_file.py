"""Reads compose.yaml with the file that it includes, and replaces variables as Compose does."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[1]
FILE: Final = ROOT / "compose.yaml"
STORES: Final = ("minio", "seaweedfs")
"""The values of the variable STORE."""

WRITE_ENV: Final = ROOT / "compose" / "write_env.py"
VARIABLE: Final = re.compile(r"\$\{(?P<name>\w+)(?P<rest>:[-?][^}]*)\}")
"""Compose's variables: `${NAME:-default}` or `${NAME:?message}`."""


def files(store: str) -> list[Path]:
    """Return compose.yaml and the files that it includes for a store."""
    includes = yaml.safe_load(FILE.read_text())["include"]
    assert [item["project_directory"] for item in includes] == ["."]
    paths = [interpolate(item["path"], {"STORE": store}) for item in includes]
    return [FILE, *(ROOT / path for path in paths)]


def load(store: str) -> dict[str, Any]:
    """Return the project for a store: services, networks, volumes and secrets of all files."""
    project: dict[str, Any] = {}
    for file in files(store):
        for section, content in yaml.safe_load(file.read_text()).items():
            if not isinstance(content, dict) or section.startswith("x-"):
                continue
            known = project.setdefault(section, {})
            assert not known.keys() & content.keys(), (file, section)
            known.update(content)
    return project


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """Replace variables as Compose does.

    Raises:
        LookupError: A variable without a default is not set.
    """

    def value(found: re.Match[str]) -> str:
        name, rest = found["name"], found["rest"]
        if variables.get(name):
            return variables[name]
        if rest.startswith(":?"):
            raise LookupError(f"{name} {rest[2:]}")
        return rest.removeprefix(":-")

    return VARIABLE.sub(value, text).replace("$$", "$")


def environment_of(service: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service with its variables replaced."""
    environment = service.get("environment", {})
    return {name: interpolate(str(text), variables) for name, text in environment.items()}


def words_of(command: Any, variables: Mapping[str, str] | None = None) -> list[str]:
    """Return the words of a `command` or `entrypoint`, which is a list or a text."""
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    return words if variables is None else [interpolate(word, variables) for word in words]


def mounts_of(services: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the service, the source and the target of each volume."""
    for name, service in services.items():
        for mount in service.get("volumes", []):
            source, target = mount.split(":")[:2]
            yield name, source, target


def write_env(file: Path) -> dict[str, str]:
    """Run the script of `make compose`, and return the variables in its file."""
    subprocess.run([sys.executable, str(WRITE_ENV), str(file)], check=True, capture_output=True)
    lines = file.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))
