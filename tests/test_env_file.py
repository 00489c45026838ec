"""Errors in `.env` and in names of settings are reported with file and line."""

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from segmentql.cli import main
from segmentql.errors import SettingsError
from segmentql.local.orphans import CHILD_VARIABLE
from segmentql.settings import OTHER_VARIABLES, is_set, load_settings

COMPLETE = (
    "SEGMENTQL_DATABASE_URL=postgresql://service:secret@db.example/segmentql\n"
    "SEGMENTQL_REDIS_URL=redis://:secret@redis.example:6379/0\n"
)
ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the path of `.env`; the environment has no settings."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SEGMENTQL_")]:
        monkeypatch.delenv(name)
    return tmp_path / ".env"


def problems() -> list[str]:
    with pytest.raises(SettingsError) as raised:
        load_settings()
    return list(raised.value.problems)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_utf8_is_read_with_and_without_a_byte_order_mark(env: Path, encoding: str) -> None:
    env.write_text(f"SEGMENTQL_PORT=1234\n{COMPLETE}# Größe\n", encoding=encoding)
    assert load_settings().port == 1234
    assert is_set("port")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_rejected(env: Path, encoding: str) -> None:
    env.write_text(COMPLETE, encoding=encoding)
    assert problems() == [".env is in UTF-16, but must be in UTF-8"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_latin1_is_rejected_with_its_line(env: Path, mark: bytes) -> None:
    env.write_bytes(mark + COMPLETE.encode() + b"# Gr\xf6\xdfe\n")
    assert problems() == [
        ".env, line 3: the byte 0xf6 is not valid UTF-8",
    ]


def test_folder_named_env_is_rejected(env: Path) -> None:
    env.mkdir()
    assert problems() == [".env is a folder, but must be a file with lines NAME=value"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_file_is_rejected(env: Path) -> None:
    env.write_text(COMPLETE)
    env.chmod(0)
    assert problems() == [".env cannot be read: Permission denied"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SEGMENTQL_PROT", "did you mean SEGMENTQL_PORT?"),
        ("SEGMENTQL_REDIS", "did you mean SEGMENTQL_REDIS_URL?"),
        ("segmentql_log_levle", "did you mean SEGMENTQL_LOG_LEVEL?"),
        ("SEGMENTQL_XYZZY", ".env.example lists all settings"),
    ],
)
def test_unknown_name_is_rejected_with_a_suggestion(
    env: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    env.write_text(f"# one\n\n{COMPLETE}\n  {name}=1\n")
    assert problems() == [f".env, line 6: {name.upper()} is not a setting; {hint}"]
    env.write_text(COMPLETE)
    monkeypatch.setenv(name, "1")
    assert problems() == [f"in the environment: {name} is not a setting; {hint}"]


def test_all_problems_are_reported_at_once(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env.write_text("SEGMENTQL_PROT=1\nSEGMENTQL_PORT=0\nSEGMENTQL_PORT=x\nSEGMENTQL_HOST=::1\n")
    monkeypatch.setenv("SEGMENTQL_SCHEDULER", "perhaps")
    assert sorted(problem.split(",")[0] for problem in problems()) == [
        ".env",
        "SEGMENTQL_DATABASE_URL is not set",
        "SEGMENTQL_PORT: Input should be a valid integer",
        "SEGMENTQL_REDIS_URL is not set",
        "SEGMENTQL_SCHEDULER: Input should be 'on' or 'off'",
    ]
    (port,) = [problem for problem in problems() if "_PORT:" in problem]
    assert port.endswith(" (.env, line 3)")


def test_prefixed_line_without_a_setting_is_rejected(env: Path) -> None:
    env.write_text(f"{COMPLETE}ANOTHER PROGRAM'S = line\nSEGMENTQL_PORT 8080 = 1\n")
    assert problems() == [".env, line 4: must have the form NAME=value"]


def test_other_names_are_ignored(env: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env.write_text(f"{COMPLETE}POSTGRES_PASSWORD=x\nexport PATH_TO=y\n")
    neighbours = {
        "SEGMENTQL_SERVICE_HOST": "10.0.0.1",
        "SEGMENTQL_SERVICE_PORT_HTTP": "8080",
        "SEGMENTQL_API_PORT": "tcp://10.0.0.1:8080",
        "SEGMENTQL_API_PORT_8080_TCP_ADDR": "10.0.0.1",
        "SEGMENTQL_TEST_SCREENSHOTS": "here",
    }
    for name, value in neighbours.items():
        monkeypatch.setenv(name, value)
    for name in OTHER_VARIABLES:
        monkeypatch.setenv(name, "x")
    assert load_settings().port == 8080


def test_every_setting_name_in_the_repository_exists(
    monkeypatch: pytest.MonkeyPatch, env: Path
) -> None:
    env.write_text(COMPLETE)
    assert CHILD_VARIABLE in OTHER_VARIABLES
    files = [ROOT / name for name in ("compose.yaml", "Dockerfile", ".env.example")]
    files += [path for path in (ROOT / "compose").rglob("*") if path.is_file()]
    files += [*(ROOT / "bench").rglob("*.py"), *(ROOT / "minio").rglob("*.sh")]
    for path in files:
        for name in set(re.findall(r"\bSEGMENTQL_[A-Z0-9_]*[A-Z0-9]\b", path.read_text())):
            monkeypatch.setenv(name, "")
    load_settings()


@pytest.mark.parametrize("command", ["serve", "worker", "doctor", "migrate", "up"])
def test_command_exits_with_the_problem(env: Path, command: str) -> None:
    env.write_text(COMPLETE, encoding="utf-16")
    result = CliRunner().invoke(main, [command])
    assert (result.exit_code, result.exception) == (1, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert ".env is in UTF-16, but must be in UTF-8" in result.output
    assert os.listdir() == [".env"]
