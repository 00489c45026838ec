"""Data folders work with every character that a file system allows."""

import os
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from segmentql.adapters.storage import Storage
from segmentql.errors import LocalServerError
from segmentql.local import local_servers
from segmentql.local.accounts import Account
from segmentql.local.data_dir import MAX_PATH_BYTES, open_data_folder

NAMES = {
    "quotes": b'it\'s "here"',
    "backslash": b"a\\b\\n\\",
    "spaces": b"  two  spaces ",
    "newline": b"two\nlines\r\n",
    "tab": b"a\tb",
    "commas": b"a,b,..,c",
    "shell": b"#$HOME ${X} `id` $(id) ; & | * ? ~ %s %20 %%",
    "options": b"-D --help=1",
    "colon": b"a:b;c=d",
    "unicode": "Größe 数据 🙂".encode(),
    "not-utf8": b"latin-\xe9\xff",
    "long": b"l" * 255,
    "escape": b"\x1b[31m\x01\x7f",
}


def path_of(size_bytes: int, below: Path) -> Path:
    """Return a path of `size_bytes`."""
    rest = size_bytes - len(bytes(below))
    names = ["d" * 199] * ((rest - 2) // 200)
    return below.joinpath(*names, "d" * (rest - 1 - 200 * len(names)))


@pytest.mark.slow  # starts every server for each name
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_servers_work_in_a_folder_of_any_name(open_folder: Path, name: bytes) -> None:
    await assert_data_are_kept_below(open_folder / os.fsdecode(name), open_folder)


@pytest.mark.slow  # starts every server
async def test_servers_work_in_the_longest_path(open_folder: Path) -> None:
    await assert_data_are_kept_below(path_of(MAX_PATH_BYTES, open_folder), open_folder)


def test_too_long_path_is_rejected_at_once(open_folder: Path, account: Account | None) -> None:
    folder = path_of(MAX_PATH_BYTES + 1, open_folder)
    with pytest.raises(LocalServerError, match="at most 900 bytes, but has 901: ") as caught:
        open_data_folder(folder, account, pytest.fail)
    assert str(caught.value).endswith(str(folder))
    assert os.listdir(open_folder) == []


async def assert_data_are_kept_below(folder: Path, open_folder: Path) -> None:
    """Start the servers twice, and assert that they keep the data and no file is outside."""
    for turn in range(2):
        async with local_servers(folder, postgres_settings={"fsync": "off"}) as servers:
            assert servers.folder == folder
            connection = await asyncpg.connect(servers.owner_url)
            storage = Storage(servers.settings("segmentql"))
            async with Redis.from_url(servers.redis_url) as redis:
                if turn == 0:
                    await connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
                    await redis.set("kept", "8")
                    await storage.set_up()
                else:
                    assert await connection.fetchval("SELECT n FROM kept") == 7
                    assert await redis.get("kept") == b"8"
                await storage.check()
            await connection.close()
            await storage.close()
    assert os.listdir(open_folder) == [folder.relative_to(open_folder).parts[0]]
    assert sorted(os.listdir(folder)) == [
        "logs", "postgres", "redis", "run", "secrets.json", "store",
    ]  # fmt: skip
