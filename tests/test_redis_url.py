"""Redis URLs: every form is parsed, and a wrong one is rejected without its password."""

import re
from pathlib import Path

import pytest

from segmentql.redis_url import RedisTarget, check_redis_url, parse_redis_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", RedisTarget((("localhost", 6379),))),
        ("redis://h", RedisTarget((("h", 6379),))),
        ("redis://[::1]:1/3", RedisTarget((("::1", 1),), database=3)),
        ("redis://h/1?db=2", RedisTarget((("h", 6379),), database=2)),
        (
            "redis://u:p%40:%2Fw@h:7/",
            RedisTarget((("h", 7),), username="u", password="p@:/w"),
        ),
        ("redis://:p@w@h", RedisTarget((("h", 6379),), password="p@w")),
        ("unix:///run/r%20s?db=4", RedisTarget(socket_path="/run/r s", database=4)),
        ("unix://u:p@/r", RedisTarget(socket_path="/r", username="u", password="p")),
        (
            "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=False&ssl_ca_certs=",
            RedisTarget(
                (("h", 6379),),
                is_tls=True,
                tls={"ssl_cert_reqs": "none", "ssl_check_hostname": False},
            ),
        ),
        (
            "redis+sentinel://u:p@a,b:1,[::2]/the-master/5"
            "?sentinel_username=s&sentinel_password=q%26",
            RedisTarget(
                (("a", 26379), ("b", 1), ("::2", 26379)),
                master_name="the-master",
                database=5,
                username="u",
                password="p",
                sentinel_username="s",
                sentinel_password="q&",
            ),
        ),
        (
            "rediss+sentinel://a/m",
            RedisTarget((("a", 26379),), master_name="m", is_tls=True),
        ),
    ],
)
def test_every_form_is_parsed(url: str, expected: RedisTarget) -> None:
    assert parse_redis_url(url) == expected
    assert check_redis_url(url) == url


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://h", "must be like redis://:password@host:6379/0, rediss://"),
        ("redis://:x?secret@h", "Characters such as / ? # @ in a password are percent-encoded"),
        ("redis://:x/secret@h", "Characters such as / ? # @ in a password"),
        ("redis://h:0", "every host must be like host or host:6379"),
        ("redis://h:99999", "every host must be like host or host:6379"),
        ("redis://h:x", "every host must be like host or host:6379"),
        ("redis://h/zero", "the database must be a number, like /0"),
        ("redis://h/0/1", "must be like redis://"),
        ("redis://a,b/0", "several hosts require Redis Sentinel, like redis+sentinel://"),
        ("redis://h?socket_timeout=1", 'the parameter "socket_timeout" is not supported, only db,'),
        ("redis://h?db=1&db=2", 'the parameter "db" must be given once'),
        ("redis://h?ssl_ca_certs=/x", 'the parameter "ssl_ca_certs" requires rediss://'),
        ("redis://h?sentinel_password=secret", "requires redis+sentinel://"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs must be one of required, optional,"),
        ("rediss://h?ssl_check_hostname=maybe", "ssl_check_hostname must be true or false"),
        ("rediss://h?ssl_ca_certs=/none", 'ssl_ca_certs: cannot read "/none": No such file'),
        ("rediss://h?ssl_keyfile=/none", "ssl_keyfile requires ssl_certfile"),
        ("rediss://h?ssl_certfile=/none", 'ssl_certfile: cannot read "/none": No such file'),
        (
            "redis+sentinel://:secret@a,b",
            "the name of the master is missing: the URL must be like redis+sentinel://",
        ),
        ("redis+sentinel://a/m/0/1", "must be like redis+sentinel://"),
        ("redis+sentinel://a,,b/m", "every host must be like host or host:26379"),
        ("unix://secret/path", "a socket must be like unix:///path/to/redis.sock?db=0"),
    ],
)
def test_wrong_url_is_rejected_without_its_password(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as raised:
        parse_redis_url(url)
    assert "secret" not in str(raised.value)


def test_file_without_a_certificate_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text("nothing")
    with pytest.raises(ValueError, match="does not contain a certificate in PEM format"):
        parse_redis_url(f"rediss://h?ssl_ca_certs={file}")
    with pytest.raises(ValueError, match="does not contain a certificate and its key"):
        parse_redis_url(f"rediss://h?ssl_certfile={file}")


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"(?s)several hosts.*number.*ssl_cert_reqs"):
        parse_redis_url("rediss://a,b/x?ssl_cert_reqs=no")


def test_address_has_no_credentials() -> None:
    target = parse_redis_url("redis+sentinel://u:secret@a,b:1/m/2?sentinel_password=secret")
    assert target.address == "m of Sentinel a:26379,b:1/2"
    assert "secret" not in repr(target)
    assert parse_redis_url("unix:///r?db=1").address == "/r/1"
