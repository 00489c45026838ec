"""An object store on this machine: SeaweedFS, asking for our keys, on 127.0.0.1 only."""

import contextlib
import itertools
import json
import shutil
import socket
from functools import partial
from pathlib import Path

from segmentql.local.binaries import store_program
from segmentql.local.certificates import client_context, make_certificate
from segmentql.local.data_dir import DataFolder, write_private
from segmentql.local.ports import SERVER_PORTS, ServerPorts
from segmentql.local.probes import get
from segmentql.local.process import Program

GRPC_OFFSET = 10_000
"""A worker inside looks for the admin server's second port that far from the first."""

ADMIN_PORTS = range(SERVER_PORTS.start, SERVER_PORTS.stop - GRPC_OFFSET)

SERVER = "object store"

FORBIDDEN = 403

CERTIFICATE, KEY = "tls.crt", "tls.key"
"""In its current folder. Made at each start: only its own parts need them."""

STOP_SECONDS = 3
"""It takes 1.1 s; but last of all its volume server waits for every connection that was opened and
not yet used, often one of its own, for minutes (seen in half of the stops). By then the other parts
have stopped and everything is written, so it is killed."""

HTTPS_PARTS = ("MASTER", "VOLUME", "FILER", "ADMIN", "CLIENT")
GRPC_PARTS = ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT")

PARTS = ("master", "volume", "filer", "s3", "admin")


def store(folder: DataFolder, server_ports: ServerPorts) -> Program:
    """The object store in `folder`, which speaks S3 on `store_port`.

    Raises:
        LocalServerError: there is no store to run, or the folder cannot be used.
    """
    program = store_program(folder.account)
    home = folder.server_folder("store")
    configuration = home / "s3.json"
    port = store_port(server_ports)
    ports, grpc_ports = _ports(server_ports)
    options = {
        # Paths are in its current folder. It splits lists of folders at commas, the path of a
        # socket must not be long, and no path of ours can then have a special character.
        "dir": ".",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        **{f"{part}.port": str(number) for part, number in ports.items()},
        **{f"{part}.port.grpc": str(number) for part, number in grpc_ports.items()},
        "s3.config": configuration.name,
        "s3.iam": "false",
        "s3.autoCreateBucket": "false",  # a bucket that is missing is said to be
        "s3.localSocket": "s3.sock",
        "filer.localSocket": "filer.sock",
        "volume.preStopSeconds": "0",  # nobody else has a copy to turn to
        "master.telemetry": "false",
        # What we have no use for.
        "admin.ui": "false",
        "webdav": "false",
        "webdav.port": "0",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
    }
    inner_key = folder.secrets().store_inner_key
    return Program(
        name=SERVER,
        command=[
            str(program),
            "-logtostderr=true",
            "mini",
            *(f"-{name}={value}" for name, value in options.items()),
        ],
        before_start=partial(_prepare, folder, home, configuration, list(grpc_ports.values())),
        ready=partial(_answers, home, port, ports["master"]),
        after_stop=partial(_tidy, folder),
        stop_seconds=STOP_SECONDS,
        environment={
            "LC_ALL": "C",
            "HOME": ".",  # it looks for settings in its user's
            # Its parts ask each other by HTTP, and without these would answer everybody.
            "WEED_JWT_SIGNING_KEY": inner_key,
            "WEED_JWT_SIGNING_READ_KEY": inner_key,
            "WEED_JWT_FILER_SIGNING_KEY": inner_key,
            "WEED_JWT_FILER_SIGNING_READ_KEY": inner_key,
            # Likewise by gRPC, which would let every account list and delete objects.
            "WEED_GRPC_CA": CERTIFICATE,
            **{f"WEED_GRPC_{part}_CERT": CERTIFICATE for part in GRPC_PARTS},
            **{f"WEED_GRPC_{part}_KEY": KEY for part in GRPC_PARTS},
            # And their HTTP, by which the master deletes whole buckets for everybody.
            "WEED_HTTPS_CLIENT_ENABLED": "true",
            **{f"WEED_HTTPS_{part}_CA": CERTIFICATE for part in HTTPS_PARTS},
            **{f"WEED_HTTPS_{part}_CERT": CERTIFICATE for part in HTTPS_PARTS},
            **{f"WEED_HTTPS_{part}_KEY": KEY for part in HTTPS_PARTS},
        },
        account=folder.account,
        folder=home,
        log=folder.log("store"),
        pid_file=folder.run / "store.pid",
        address=f"127.0.0.1:{port}",
    )


def store_settings(folder: DataFolder, port: int) -> dict[str, str]:
    """The settings, by field name, that lead a service to the store."""
    passwords = folder.secrets()
    return {
        "s3_endpoint_url": f"http://127.0.0.1:{port}",
        "s3_access_key": passwords.store_access_key,
        "s3_secret_key": passwords.store_secret_key,
    }


def store_port(server_ports: ServerPorts) -> int:
    """Return the port for S3."""
    return server_ports.port(SERVER)


def _ports(server_ports: ServerPorts) -> tuple[dict[str, int], dict[str, int]]:
    """Return two ports of each part: for HTTP, and for gRPC."""
    admin = server_ports.port(SERVER, "admin", ports=ADMIN_PORTS, offset=GRPC_OFFSET)
    http = {"s3": store_port(server_ports), "admin": admin}
    grpc = {"admin": admin + GRPC_OFFSET}
    for part in PARTS:
        if part not in http:
            http[part] = server_ports.port(SERVER, part)
        if part not in grpc:
            grpc[part] = server_ports.port(SERVER, f"{part} gRPC")
    return http, grpc


async def _prepare(
    folder: DataFolder, home: Path, configuration: Path, grpc_ports: list[int]
) -> None:
    passwords = folder.secrets()
    identity = {
        "name": "segmentql",
        "credentials": [
            {"accessKey": passwords.store_access_key, "secretKey": passwords.store_secret_key}
        ],
        "actions": ["Admin"],
    }
    write_private(configuration, json.dumps({"identities": [identity]}), folder.account)
    tls = make_certificate()
    write_private(home / CERTIFICATE, tls.certificate, folder.account)
    write_private(home / KEY, tls.key, folder.account)
    _forget_last_start(home)
    remove_sockets(folder.run)
    # Before the program can make any: nothing of this process may survive until its end.
    write_private(_record(folder.run), json.dumps(grpc_ports))


async def _tidy(folder: DataFolder) -> None:
    remove_sockets(folder.run)


def _forget_last_start(home: Path) -> None:
    # Its options would win over ours where ours are the program's defaults.
    (home / "mini.options").unlink(missing_ok=True)
    # What the only master remembers of its election: with it, every other start or so takes 5 s
    # until anything can be stored (measured). The volumes tell a new master what it must know.
    for memory in home.glob("m[0-9]*"):
        shutil.rmtree(memory)


def _record(run: Path) -> Path:
    """The file that names the gRPC ports of the last start, and with them its sockets."""
    return run / "store.ports"


def remove_sockets(run: Path) -> None:
    """Remove the sockets that a finished run left in /tmp, the only place where weed makes them.

    A socket that a program listens on is not removed: weed may use the same port for another data
    folder by now.

    Args:
        run: The folder `run` of the data folder, which has the record of the last start.
    """
    record = _record(run)
    ports = json.loads(record.read_text()) if record.exists() else []
    for port, part in itertools.product(ports, PARTS):
        path = Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock")  # noqa: S108
        if path.is_socket() and _is_abandoned(path):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                path.unlink()


def _is_abandoned(path: Path) -> bool:
    """Whether no program listens on a socket of this machine."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:  # another account's, or removed meanwhile
            return False
    return False


async def _answers(home: Path, port: int, master_port: int) -> bool:
    """Whether it refuses a stranger, and has told its master where it can store."""
    status, _ = await get("127.0.0.1", port, "/")
    if status != FORBIDDEN:
        return False
    tls = client_context(home / CERTIFICATE, home / KEY)
    _, topology = await get("127.0.0.1", master_port, "/dir/status", tls=tls)
    return b'"DataNodes":[{' in topology
