"""`segmentql reset` deletes a data folder after a confirmation."""

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
from tests.local.programs import has_ended

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
    """Create a data folder as a run leaves it."""
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


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["reset", *arguments], input=answer)


@contextmanager
def holder(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that uses the data folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "holds\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_reset_deletes_a_data_folder(folder: Path) -> None:
    result = run("--data-dir", str(folder), "--yes")

    assert (result.exit_code, result.output) == (0, f"deleted {folder}\n")
    assert not folder.exists()
    assert folder.parent.exists()


def test_second_reset_finds_no_folder(folder: Path) -> None:
    run("--data-dir", str(folder), "--yes")

    result = run("--data-dir", str(folder), "--yes")

    assert (result.exit_code, result.output) == (
        0,
        f"nothing to delete: {folder} does not exist\n",
    )


def test_reset_deletes_the_substitute_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers' account could not enter `requested`, so root's data are elsewhere."""
    requested, shared = folder.parent / "asked", folder.parent / "shared"
    shared.mkdir()
    monkeypatch.setattr("segmentql.local.data_dir.SHARED_FOLDER", shared)
    stand_in = folder.rename(shared / hashlib.sha256(bytes(requested)).hexdigest()[:16])
    requested.mkdir()
    (requested / "notes.txt").write_text("")

    result = run("--data-dir", str(requested), "--yes")

    assert (result.exit_code, result.output) == (0, f"deleted {stand_in}\n")
    assert list(shared.iterdir()) == []
    assert (requested / "notes.txt").exists()


def test_other_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "secrets.json").write_text("{}")

    result = run("--data-dir", str(tmp_path), "--yes")

    assert result.exit_code == 1
    assert "is not a data folder of SegmentQL" in result.output
    assert (tmp_path / "secrets.json").exists()


def test_foreign_files_are_kept_and_named(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "redis.conf").write_text("")
    (folder / "notes.txt").write_text("")
    (folder / "logs" / "notes.txt").write_text("")
    (folder / "run" / "notes.txt").write_text("")
    # Two entries have the name of a server's folder only: a checkout, and a link to another folder.
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


def test_yes_is_required_without_a_terminal(folder: Path) -> None:
    result = run("--data-dir", str(folder))

    assert result.exit_code == 1
    assert "add --yes" in result.output
    assert (folder / "secrets.json").exists()


@pytest.mark.parametrize(("answer", "is_deleted"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_confirmation_on_a_terminal_names_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, *, is_deleted: bool
) -> None:
    monkeypatch.setattr("segmentql.cli.confirmation.is_terminal", lambda: True)

    with holder(folder) as process:
        result = run("--data-dir", str(folder), answer=answer)

    assert result.output.startswith(
        f"Delete {folder} with its database, jobs, reports, passwords and logs?"
        f" `segmentql up` (pid {process.pid}) is stopped first. [y/N]:"
    )
    assert folder.exists() is not is_deleted


# 3 s: each starts Python.
@pytest.mark.parametrize(
    ("arguments", "outcome", "status"),
    [((), "stopped", -signal.SIGTERM), (("deaf",), "killed", -signal.SIGKILL)],
)
def test_process_that_uses_the_folder_is_stopped_first(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    outcome: str,
    status: int,
) -> None:
    monkeypatch.setattr(reset, "STOP_TIMEOUT_SECONDS", 5 if not arguments else 0.1)
    monkeypatch.setattr(reset, "FORCE_TIMEOUT_SECONDS", 5 if not arguments else 0.2)
    with holder(folder, *arguments) as process:
        result = run("--data-dir", str(folder), "--yes")

        assert process.wait() == status
    assert result.output == f"{outcome} `segmentql up` (pid {process.pid})\ndeleted {folder}\n"
    assert not folder.exists()


@pytest.mark.skipif(not ON_LINUX, reason="open files are looked up in Linux' /proc")
def test_process_without_the_open_lock_is_not_stopped(folder: Path) -> None:
    """The lock's holder is in a container, so its id here may be that of another process."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        try:
            with holder(folder):
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
    leftover = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env=child_environment({CHILD_VARIABLE: str(folder / "run" / "api.pid")}),
    )
    try:
        assert run("--data-dir", str(folder), "--yes").exit_code == 0
        assert has_ended(leftover.pid)
    finally:
        leftover.kill()
        leftover.wait()


def test_unused_sockets_of_the_store_are_removed(folder: Path) -> None:
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
