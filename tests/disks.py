"""Small file systems that a test can fill to the last byte."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

KINDS = ("tmpfs", "ext4")
"""The file system types: tmpfs allocates at the first write to a page, ext4 when it writes back."""


class Disk:
    """A mounted file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fillers: list[Path] = []

    def fill(self) -> None:
        """Write filler files until no byte is free."""
        filler = self.path / f"filler-{len(self._fillers)}"
        self._fillers.append(filler)
        with filler.open("ab", buffering=0) as file:
            for block in (1 << 20, 1 << 12, 1):
                with suppress(OSError):
                    while True:
                        file.write(bytes(block))
            with suppress(OSError):
                os.fsync(file.fileno())

    def free(self) -> None:
        """Remove the filler files."""
        for filler in self._fillers:
            filler.unlink(missing_ok=True)
        self._fillers.clear()


@contextmanager
def small_disk(kind: str, megabytes: int) -> Iterator[Disk]:
    """Mount a new file system, or skip the test if mounting is not permitted."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segmentql-disk-")))
        folder.chmod(0o755)
        mounted = folder / "mounted"
        mounted.mkdir()
        if kind == "tmpfs":
            _run_or_skip("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(mounted))
        else:
            image = folder / "image"
            with image.open("wb") as file:
                file.truncate(megabytes << 20)
            _run_or_skip("mkfs.ext4", "-q", "-m", "0", str(image))
            _run_or_skip("mount", "-o", "loop", str(image), str(mounted))
        stack.callback(subprocess.run, ["umount", "--lazy", str(mounted)], check=True)
        mounted.chmod(0o755)
        yield Disk(mounted)


def _run_or_skip(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")
