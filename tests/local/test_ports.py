"""Servers keep their ports between runs."""

import json
import socket
import stat
from pathlib import Path

import pytest

from segmentql.local.ports import ServerPorts, free_port, is_free


def test_saved_ports_are_used_again(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = ServerPorts(file)
    ports = [first.port("Redis"), first.port("object store", "admin", offset=100)]
    first.save()

    second = ServerPorts(file)

    assert [second.port("Redis"), second.port("object store", "admin", offset=100)] == ports
    assert second.replace_used() == []
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_used_port_is_replaced_and_the_new_one_saved(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    ports = ServerPorts(file)
    redis, database = ports.port("Redis"), ports.port("PostgreSQL")

    with socket.create_server(("127.0.0.1", redis)):
        (replaced,) = ports.replace_used()
    ports.save()

    assert (replaced.server, replaced.used_port) == ("Redis", redis)
    assert replaced.new_port != redis
    assert ServerPorts(file).port("Redis") == ports.port("Redis") == replaced.new_port
    assert ServerPorts(file).port("PostgreSQL") == database


def test_port_is_replaced_if_its_grpc_port_is_used() -> None:
    ports = ServerPorts(None)
    admin = ports.port("object store", "admin", ports=range(20_000, 22_000), offset=10_000)

    with socket.create_server(("127.0.0.1", admin + 10_000)):
        (replaced,) = ports.replace_used()

    assert (replaced.server, replaced.used_port) == ("object store admin", admin + 10_000)
    assert is_free("127.0.0.1", replaced.new_port + 10_000)


def test_saved_port_out_of_range_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    file.write_text('{"Redis": 80, "PostgreSQL": "20000"}')

    ports = ServerPorts(file)

    assert ports.port("Redis") >= 20_000
    assert isinstance(ports.port("PostgreSQL"), int)


@pytest.mark.parametrize("text", ["", "[1]", '{"Redis": 2'])
def test_damaged_port_file_is_rewritten(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ports.json"
    file.write_text(text)

    ports = ServerPorts(file)
    port = ports.port("Redis")
    ports.save()

    assert json.loads(file.read_text()) == {"Redis": port}


def test_chosen_ports_are_distinct() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
