"""`segmentql reset`: what it deletes, what it keeps, and what it asks first."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from segmentql.cli import main
from segmentql.local import reset
from segmentql.local.data_dir import open_data_folder
from segmentql.local.orphans import CHILD_VARIABLE, ON_LINUX
from segmentql.settings import child_environment
from tests.local.test_supervisor import has_ended

HOLD = """
import signal, sys, time
from pathlib import Path
from segmentql.local.data_dir import DataFolder
from segmentql.local.locks import lock
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with lock(DataFolder(Path(sys.argv[1]), None)):
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder as a run leaves it."""
    data = open_data_folder(tmp_path / "data", None, pytest.fail)
    data.secrets()
    (data.run_folder / "lock").write_text("1\n")
    (data.run_folder / "api.pid").write_text("1\n")
    data.metrics_folder.mkdir()
    (data.metrics_folder / "counter.db").write_text("")
    data.log_file("api").write_text("{}\n")
    data.log_file("api").with_suffix(".old.log").write_text("{}\n")
    (data.path / "ports.json").write_text("{}")
    (data.server_folder("postgres") / "data").mkdir()
    (data.server_folder("redis") / "redis.conf").write_text("")
    (data.server_folder("store") / "s3.json").write_text("")
    return data.path


def run(*words: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["reset", *words], input=answer)


@contextmanager
def holding(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that uses the data folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "holds\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_data_folder_is_deleted(folder: Path) -> None:
    result = run("--data-dir", str(folder), "--yes")

    assert (result.exit_code, result.output) == (0, f"deleted {folder}\n")
    assert not folder.exists()
    assert folder.parent.exists()


def test_a_second_reset_has_nothing_to_delete(folder: Path) -> None:
    run("--data-dir", str(folder), "--yes")

    result = run("--data-dir", str(folder), "--yes")

    assert (result.exit_code, result.output) == (
        0,
        f"nothing to delete: {folder} does not exist\n",
    )


def test_the_stand_in_of_a_folder_is_deleted_in_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The servers' account could not enter `asked`, so root's data went elsewhere."""
    asked, shared = folder.parent / "asked", folder.parent / "shared"
    shared.mkdir()
    monkeypatch.setattr("segmentql.local.data_dir.SHARED_FOLDER", shared)
    stand_in = folder.rename(shared / hashlib.sha256(bytes(asked)).hexdigest()[:16])
    asked.mkdir()
    (asked / "notes.txt").write_text("")

    result = run("--data-dir", str(asked), "--yes")

    assert (result.exit_code, result.output) == (0, f"deleted {stand_in}\n")
    assert list(shared.iterdir()) == []
    assert (asked / "notes.txt").exists()


def test_a_folder_that_is_no_data_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "secrets.json").write_text("{}")

    result = run("--data-dir", str(tmp_path), "--yes")

    assert result.exit_code == 1
    assert "is not a data folder of SegmentQL" in result.output
    assert (tmp_path / "secrets.json").exists()


def test_files_that_segmentql_did_not_make_are_kept_and_named(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "redis.conf").write_text("")
    (folder / "notes.txt").write_text("")
    (folder / "logs" / "notes.txt").write_text("")
    (folder / "run" / "notes.txt").write_text("")
    # A server's folder by name only: a checkout, and a link to another folder.
    (folder / "store" / "s3.json").rename(folder / "store" / "main.go")
    (folder / "redis" / "redis.conf").unlink()
    (folder / "redis").rmdir()
    (folder / "redis").symlink_to(outside)

    result = run("--data-dir", str(folder), "--yes")

    assert result.exit_code == 0
    assert result.output == (
        f"deleted the data in {folder}, except files that SegmentQL did not create:"
        " logs, notes.txt, redis, run, store\n"
    )
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        *("logs", "logs/notes.txt", "notes.txt", "redis"),
        *("run", "run/notes.txt", "store", "store/main.go"),
    ]
    assert (outside / "redis.conf").exists()


def test_without_a_terminal_it_asks_for_yes(folder: Path) -> None:
    result = run("--data-dir", str(folder))

    assert result.exit_code == 1
    assert "add --yes" in result.output
    assert (folder / "secrets.json").exists()


@pytest.mark.parametrize(("answer", "is_deleted"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_it_asks_and_names_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, *, is_deleted: bool
) -> None:
    monkeypatch.setattr("segmentql.cli.reset._has_terminal", lambda: True)

    with holding(folder) as process:
        result = run("--data-dir", str(folder), answer=answer)

    assert result.output.startswith(
        f"Delete {folder} with its database, jobs, reports, passwords and logs?"
        f" `segmentql up` (pid {process.pid}) is stopped first. [y/N]:"
    )
    assert folder.exists() is not is_deleted


# 3 s: each starts Python.
@pytest.mark.parametrize(
    ("words", "done", "status"),
    [((), "stopped", -signal.SIGTERM), (("deaf",), "killed", -signal.SIGKILL)],
)
def test_the_process_that_uses_the_folder_is_stopped_first(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    done: str,
    status: int,
) -> None:
    monkeypatch.setattr(reset, "STOP_TIMEOUT_SECONDS", 5 if not words else 0.1)
    monkeypatch.setattr(reset, "FORCE_TIMEOUT_SECONDS", 5 if not words else 0.2)
    with holding(folder, *words) as process:
        result = run("--data-dir", str(folder), "--yes")

        assert process.wait() == status
    assert result.output == f"{done} `segmentql up` (pid {process.pid})\ndeleted {folder}\n"
    assert not folder.exists()


@pytest.mark.skipif(not ON_LINUX, reason="open files are looked up in Linux' /proc")
def test_a_process_that_does_not_have_the_lock_open_is_not_stopped(folder: Path) -> None:
    """The id in the file may belong to another process: the lock's holder is in a container."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        try:
            with holding(folder):
                (folder / "run" / "lock").write_text(f"{bystander.pid}\n")
                result = run("--data-dir", str(folder), "--yes")
            assert result.exit_code == 1
            assert "is in use by a process that is not visible from here" in result.output
            assert bystander.poll() is None
            assert (folder / "secrets.json").exists()
        finally:
            bystander.kill()


@pytest.mark.skipif(not ON_LINUX, reason="processes are found in Linux' /proc")
def test_programs_of_a_killed_run_are_stopped(folder: Path) -> None:
    left = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env=child_environment({CHILD_VARIABLE: str(folder / "run" / "api.pid")}),
    )
    try:
        assert run("--data-dir", str(folder), "--yes").exit_code == 0
        assert has_ended(left.pid)
    finally:
        left.kill()
        left.wait()


def test_sockets_of_the_store_are_removed_unless_a_program_uses_them(folder: Path) -> None:
    ports = (os.getpid() + 100_000, os.getpid() + 200_000)  # no port has such a number
    (folder / "run" / "store.ports").write_text(str(list(ports)))
    paths = [Path(f"/tmp/seaweedfs-filer-grpc-{port}.sock") for port in ports]  # noqa: S108
    abandoned, used = (socket.socket(socket.AF_UNIX) for _ in ports)
    with used:
        with abandoned:
            abandoned.bind(str(paths[0]))
        used.bind(str(paths[1]))
        used.listen()
        try:
            assert run("--data-dir", str(folder), "--yes").exit_code == 0
            assert [path.exists() for path in paths] == [False, True]
        finally:
            paths[1].unlink()
