"""The script that copies files of the write-ahead log into an archive."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backups import Operator, operator_folder

NAME = "000000010000000000000001"


@pytest.fixture
def operator() -> Iterator[Operator]:
    with operator_folder() as made:
        (made.folder / NAME).write_text("content of the log")
        yield made


async def archive(operator: Operator) -> tuple[int, str]:
    return await operator.result("archive-wal.sh", "archive", NAME, NAME)


def archived(operator: Operator) -> dict[str, str]:
    return {file.name: file.read_text() for file in operator.archive.iterdir()}


def make_log(operator: Operator) -> Path:
    """Return a file to which the scripts' programs append their arguments."""
    log = operator.folder / "log"
    log.touch()
    log.chmod(0o666)
    return log


async def test_interrupted_copy_is_not_in_the_archive(operator: Operator) -> None:
    operator.replace_program("cp", 'head -c 5 "$1" > "$2"; kill -9 $PPID')
    assert await archive(operator) == (-9, "")
    assert NAME not in archived(operator)
    operator.restore_program("cp")
    assert await archive(operator) == (0, "")
    assert archived(operator) == {NAME: "content of the log"}


async def test_file_is_on_the_disk_before_it_gets_its_name(operator: Operator) -> None:
    log = make_log(operator)
    for program in ("sync", "mv"):
        operator.replace_program(program, f'echo {program} "$*" >> log; {program} "$@"')
    assert await archive(operator) == (0, "")
    assert log.read_text().splitlines() == [
        f"sync archive/{NAME}.part",
        f"mv archive/{NAME}.part archive/{NAME}",
        f"sync archive/{NAME} archive",
    ]


async def test_existing_file_is_on_the_disk_before_success(operator: Operator) -> None:
    """The first run fails after it gave the file its name, so the server repeats it."""
    operator.replace_program("sync", "case $* in *.part) ;; *) exit 1 ;; esac")
    assert await archive(operator) == (1, "")
    assert archived(operator) == {NAME: "content of the log"}
    log = make_log(operator)
    operator.replace_program("sync", "echo $* >> log")
    assert await archive(operator) == (0, "")
    assert log.read_text() == f"archive/{NAME} archive\n"


async def test_history_of_the_timeline_is_archived_first(operator: Operator) -> None:
    """The server does not archive it if archiving was off at the end of a recovery."""
    (operator.folder / "00000001.history").write_text("history")
    log = make_log(operator)
    operator.replace_program("cp", 'echo $1 >> log; cp "$@"')
    assert await archive(operator) == (0, "")
    assert log.read_text().splitlines() == ["./00000001.history", NAME]
    assert archived(operator) == {"00000001.history": "history", NAME: "content of the log"}
