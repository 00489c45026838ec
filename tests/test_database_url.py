"""libpq's parameters in a database URL are translated, and every other one is rejected by name."""

from pathlib import Path

import pytest

from segmentql.database_url import check_database_url, connection_target, display_address

BASE = "postgresql://u:p@h/d"
PLAIN = "postgresql+asyncpg://u:p@h/d"


def problems(url: str) -> list[str]:
    with pytest.raises(ValueError, match=r".") as raised:
        check_database_url(url)
    return str(raised.value).split("; ")


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("postgres://u:p@h/d", PLAIN),
        ("postgresql+asyncpg://u:p@h:5432/d", "postgresql+asyncpg://u:p@h:5432/d"),
        (f"{BASE}?sslmode=require", f"{PLAIN}?sslmode=require"),
        (f"{BASE}?sslmode=", PLAIN),
        (f"{BASE}?channel_binding=prefer&connect_timeout=10", f"{PLAIN}?connect_timeout=10"),
        (f"{BASE}?channel_binding=disable", PLAIN),
        (f"{BASE}?application_name=a%20b+c", f"{PLAIN}?application_name=a%20b%2Bc"),
        ("postgresql://u:p@[::1]:1/d", "postgresql+asyncpg://u:p@[::1]:1/d"),
        ("postgresql://u:p@h?host=x", ""),
        (
            "postgresql://u:p@h1:1,h2/d?target_session_attrs=primary",
            "postgresql+asyncpg://u:p@/d?host=h1%2Ch2&port=1%2C5432&target_session_attrs=primary",
        ),
        (
            "postgresql://u@%2Frun%2Fpostgresql/d",
            "postgresql+asyncpg://u@/d?host=%2Frun%2Fpostgresql&port=5432",
        ),
        (
            "postgresql:///d?host=/tmp&port=5433",
            "postgresql+asyncpg:///d?host=%2Ftmp&port=5433",
        ),
    ],
)
def test_checked_url_is_accepted_by_sqlalchemy(url: str, checked: str) -> None:
    if not checked:
        assert problems(url) == ["must be like postgresql://user:password@host:5432/name"]
        return
    assert check_database_url(url) == checked
    assert check_database_url(checked) == checked  # a child process gets the checked URL


def test_password_with_special_characters_survives() -> None:
    checked = check_database_url("postgresql://u%40x:p%3A%2F%3F%23%40%25+%20@h/d?sslmode=disable")
    target = connection_target(checked)
    assert (target.url.username, target.url.password) == ("u@x", "p:/?#@%+ ")
    assert check_database_url(checked) == checked


def test_all_invalid_parameters_are_named_without_the_password() -> None:
    url = (
        "postgresql://u:topsecret@h/d?options=-csearch_path%3Dx&ssl=true&sslmode=on"
        "&connect_timeout=0&target_session_attrs=any&target_session_attrs=any&keepalives"
    )
    problems_found = problems(url)
    assert [problem.split(",")[0].split(" must")[0] for problem in problems_found] == [
        'the parameter "options" is not supported',
        'the parameter "ssl" is not supported',
        'the parameter "target_session_attrs"',
        'the parameter "keepalives" is not supported',
        "sslmode",
        "connect_timeout",
    ]
    assert "topsecret" not in str(problems_found)


def test_unsupported_channel_binding_is_rejected_with_advice() -> None:
    with pytest.raises(ValueError, match="asyncpg has no channel binding: use sslmode=verify-full"):
        check_database_url(f"{BASE}?channel_binding=require")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sslmode=verify-full", "sslmode=verify-full requires sslrootcert"),
        ("sslmode=verify-ca", "sslmode=verify-ca requires sslrootcert"),
        ("sslrootcert=/no/file", 'sslrootcert: cannot read "/no/file": No such file or directory'),
        ("sslmode=require&sslrootcert=system", "sslrootcert=system requires sslmode=verify-full"),
        ("sslcert=/no/file", 'sslcert: cannot read "/no/file": No such file or directory'),
        ("sslkey=/no/file", "sslkey requires sslcert"),
        ("connect_timeout=1.5", "connect_timeout must be a whole number of seconds"),
        ("host=x", 'the parameter "host" and a host before the path cannot be combined'),
        ("application_name=%00", "it contains a null character"),
    ],
)
def test_parameter_that_cannot_work_is_rejected(
    query: str, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # without ~/.postgresql/root.crt
    (problems_found,) = problems(f"{BASE}?{query}")
    assert problems_found.startswith(problem)


def test_file_without_a_certificate_is_rejected_by_name(tmp_path: Path) -> None:
    file = tmp_path / "empty.crt"
    file.write_text("nothing")
    for name in ("sslrootcert", "sslcert"):
        (problems_found,) = problems(f"{BASE}?{name}={file}")
        assert problems_found.startswith(f'{name}: "{file}" does not contain a certificate')


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://u:p@h:0/d", "every port must be a number from 1 to 65535"),
        ("postgresql://u:p@h:65536/d", "every port must be a number from 1 to 65535"),
        ("postgresql://u:p@h:x/d", "every host must be like host or host:5432"),
        ("postgresql://u:p@a:1,,b:2/d", "if there are several hosts, none may be empty"),
        (
            "postgresql:///d?host=a,b&port=1,2,3",
            "host and port must have the same number of values",
        ),
    ],
)
def test_address_that_cannot_work_is_rejected(url: str, problem: str) -> None:
    assert any(problems_found.startswith(problem) for problems_found in problems(url))


def test_parameters_become_arguments_of_the_driver() -> None:
    target = connection_target(
        check_database_url(
            "postgresql://u:p@h1:1,h2:2/d?target_session_attrs=standby&connect_timeout=7"
            "&application_name=a%2Bb&sslmode=require"
        )
    )
    assert (target.url.database, target.url.query) == ("d", {})
    assert target.arguments == {
        "dsn": "postgresql:///?sslmode=require",
        "host": ["h1", "h2"],
        "port": [1, 2],
        "target_session_attrs": "standby",
    }
    assert (target.connect_seconds, target.application_name) == (7, "a+b")


def test_shown_address_has_no_password() -> None:
    assert display_address(check_database_url("postgresql://u:p@a:1,b/d")) == "a:1,b:5432/d"
    assert display_address(check_database_url(BASE)) == "h:default port/d"
