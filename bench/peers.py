"""Installs the peers that are not Python packages: PostGraphile and the Node.js that runs it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from bench import postgraphile
from bench.node import WHEEL, NoNode, find_node, npm_command

TIMEOUT_SECONDS = 600


def install(print_line: Callable[[str], None]) -> None:
    """Install the pinned PostGraphile into a folder, and Node.js into this environment.

    Node.js is installed only if no Node.js on this machine is new enough.

    Raises:
        click.ClickException: A package cannot be installed.
    """
    node, npm = _ensure_node(print_line)
    print_line(f"npm ci: PostGraphile {postgraphile.PINNED} into {postgraphile.FOLDER} ...")
    shutil.copytree(postgraphile.SOURCES, postgraphile.FOLDER, dirs_exist_ok=True)
    # npm runs scripts and checks `engines` with the Node that is first on PATH.
    path = f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    _run([*npm, "ci"], cwd=postgraphile.FOLDER, environment={"PATH": path})
    found = postgraphile.find_postgraphile()
    if isinstance(found, postgraphile.NotInstalled):
        raise click.ClickException(found.reason)
    print_line(f"PostGraphile {postgraphile.PINNED} is installed; it runs with {found.node}")


def _ensure_node(print_line: Callable[[str], None]) -> tuple[str, list[str]]:
    """Return a Node.js that PostGraphile supports, and the command of its npm."""
    for attempt in ("find", "install"):
        node = find_node(postgraphile.MIN_NODE)
        npm = None if isinstance(node, NoNode) else npm_command(node)
        if not isinstance(node, NoNode) and npm:
            return node, npm
        if attempt == "find":
            print_line(f"no Node {postgraphile.MIN_NODE} with npm: installing {WHEEL} (60 MB) ...")
            pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check"]
            _run([*pip, WHEEL], cwd=Path.cwd(), environment={})
    raise click.ClickException(f"{WHEEL} is installed, but has no Node with npm that runs here")


def _run(command: Sequence[str], *, cwd: Path, environment: dict[str, str]) -> None:
    """Run a command. Its output goes to the terminal."""
    try:
        subprocess.run(  # noqa: S603 - pip or npm with constant arguments
            list(command),
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise click.ClickException(f"the installation failed: {error}") from error
