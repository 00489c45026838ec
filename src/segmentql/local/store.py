"""An object store on this machine: SeaweedFS, asking for our keys, on 127.0.0.1 only."""

import itertools
import json
import shutil
from functools import partial
from pathlib import Path

from segmentql.local.binaries import store_program
from segmentql.local.certificates import client_context, make_certificate
from segmentql.local.folders import DataFolder, write_private
from segmentql.local.ports import SERVER_PORTS, free_port, is_free
from segmentql.local.probes import get
from segmentql.local.process import Program

GRPC_OFFSET = 10_000
"""A worker inside looks for the admin server's second port that far from the first."""

ADMIN_PORTS = range(SERVER_PORTS.start, SERVER_PORTS.stop - GRPC_OFFSET)

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


def store(folder: DataFolder, port: int) -> Program:
    """The object store in `folder`, which speaks S3 on `port`.

    Raises:
        LocalServerError: there is no store to run, or the folder cannot be used.
    """
    program = store_program(folder.account)
    home = folder.server_folder("store")
    configuration = home / "s3.json"
    ports, grpc_ports = _ports(port)
    record = folder.run / "store.ports"
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
        name="object store",
        command=[
            str(program),
            "-logtostderr=true",
            "mini",
            *(f"-{name}={value}" for name, value in options.items()),
        ],
        before_start=partial(
            _prepare, folder, home, configuration, record, list(grpc_ports.values())
        ),
        ready=partial(_answers, home, port, ports["master"]),
        after_stop=partial(_tidy, record),
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


def _ports(port: int) -> tuple[dict[str, int], dict[str, int]]:
    """Two ports for each part: for HTTP, where S3's is `port`, and for gRPC."""
    admin = free_port(ADMIN_PORTS)
    while not is_free("127.0.0.1", admin + GRPC_OFFSET):
        admin = free_port(ADMIN_PORTS)
    http, grpc = {"s3": port, "admin": admin}, {"admin": admin + GRPC_OFFSET}
    for part in PARTS:
        for ports in (http, grpc):
            if part not in ports:
                ports[part] = free_port()
    return http, grpc


async def _prepare(
    folder: DataFolder, home: Path, configuration: Path, record: Path, grpc_ports: list[int]
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
    _remove_sockets(record)
    write_private(record, json.dumps(grpc_ports))


async def _tidy(record: Path) -> None:
    _remove_sockets(record)


def _forget_last_start(home: Path) -> None:
    # Its options would win over ours where ours are the program's defaults.
    (home / "mini.options").unlink(missing_ok=True)
    # What the only master remembers of its election: with it, every other start or so takes 5 s
    # until anything can be stored (measured). The volumes tell a new master what it must know.
    for memory in home.glob("m[0-9]*"):
        shutil.rmtree(memory)


def _remove_sockets(record: Path) -> None:
    """Remove the sockets of a life that ended; the program insists on having them in /tmp."""
    ports = json.loads(record.read_text()) if record.exists() else []
    for port, part in itertools.product(ports, PARTS):
        if is_free("127.0.0.1", port):
            Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108


async def _answers(home: Path, port: int, master_port: int) -> bool:
    """Whether it refuses a stranger, and has told its master where it can store."""
    status, _ = await get("127.0.0.1", port, "/")
    if status != FORBIDDEN:
        return False
    tls = client_context(home / CERTIFICATE, home / KEY)
    _, topology = await get("127.0.0.1", master_port, "/dir/status", tls=tls)
    return b'"DataNodes":[{' in topology
