"""The object store on this machine: SeaweedFS, on 127.0.0.1 only, with an access key."""

import contextlib
import itertools
import json
import shutil
import socket
from functools import partial
from pathlib import Path

from segmentql.local.binaries import find_weed
from segmentql.local.certificates import client_context, make_certificate
from segmentql.local.data_dir import DataFolder, write_private
from segmentql.local.ports import SERVER_PORTS, ServerPorts
from segmentql.local.probes import http_get
from segmentql.local.program import Program

GRPC_OFFSET = 10_000
"""The distance between the admin server's HTTP and gRPC ports. SeaweedFS's internal worker assumes
it."""

ADMIN_PORTS = range(SERVER_PORTS.start, SERVER_PORTS.stop - GRPC_OFFSET)

SERVER = "object store"

FORBIDDEN = 403

CERTIFICATE, KEY = "tls.crt", "tls.key"
"""The files, in the working folder, of the internal certificate. Each start creates a new one,
because only the components of this server use it."""

STOP_TIMEOUT_SECONDS = 3
"""The time to stop before SIGKILL. A stop takes 1.1 s. In half of the stops, however, the volume
server, which stops last, waits for minutes for each unused connection, often one of its own. By
then the other components have stopped and all data are written."""

HTTPS_COMPONENTS = ("MASTER", "VOLUME", "FILER", "ADMIN", "CLIENT")
GRPC_COMPONENTS = ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT")

COMPONENTS = ("master", "volume", "filer", "s3", "admin")


def store_program(data: DataFolder, server_ports: ServerPorts) -> Program:
    """Return the object store of a data folder. It serves S3 on `store_port`.

    Raises:
        LocalServerError: SeaweedFS is not installed, or its folder cannot be used.
    """
    executable = find_weed(data.account)
    folder = data.server_folder("store")
    configuration = folder / "s3.json"
    port = store_port(server_ports)
    http_ports, grpc_ports = _component_ports(server_ports)
    options = {
        # Paths are relative to the working folder: SeaweedFS splits lists of folders at commas,
        # and the path of a socket must be short.
        "dir": ".",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        **{f"{component}.port": str(number) for component, number in http_ports.items()},
        **{f"{component}.port.grpc": str(number) for component, number in grpc_ports.items()},
        "s3.config": configuration.name,
        "s3.iam": "false",
        "s3.autoCreateBucket": "false",  # requests to a missing bucket fail
        "s3.localSocket": "s3.sock",
        "filer.localSocket": "filer.sock",
        "volume.preStopSeconds": "0",  # there is no other replica to which clients could switch
        "master.telemetry": "false",
        # Unused features.
        "admin.ui": "false",
        "webdav": "false",
        "webdav.port": "0",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
    }
    return Program(
        name=SERVER,
        command=[
            str(executable),
            "-logtostderr=true",
            "mini",
            *(f"-{name}={value}" for name, value in options.items()),
        ],
        before_start=partial(_prepare, data, folder, configuration, list(grpc_ports.values())),
        is_ready=partial(_is_ready, folder, port, http_ports["master"]),
        after_stop=partial(_remove_sockets_of, data),
        stop_timeout_seconds=STOP_TIMEOUT_SECONDS,
        environment={
            "LC_ALL": "C",
            "HOME": ".",  # SeaweedFS reads settings from the home folder of its user
            **_internal_security(data.secrets().store_inner_key),
        },
        account=data.account,
        working_folder=folder,
        log_file=data.log_file("store"),
        pid_file=data.run_folder / "store.pid",
        address=f"127.0.0.1:{port}",
    )


def _internal_security(signing_key: str) -> dict[str, str]:
    """Return the environment variables that protect the internal ports of the components.

    By default the components answer HTTP and gRPC requests of every account on the machine. Their
    gRPC interface lists and deletes objects, and the master's HTTP interface deletes whole buckets.
    """
    return {
        "WEED_JWT_SIGNING_KEY": signing_key,
        "WEED_JWT_SIGNING_READ_KEY": signing_key,
        "WEED_JWT_FILER_SIGNING_KEY": signing_key,
        "WEED_JWT_FILER_SIGNING_READ_KEY": signing_key,
        "WEED_GRPC_CA": CERTIFICATE,
        **{f"WEED_GRPC_{component}_CERT": CERTIFICATE for component in GRPC_COMPONENTS},
        **{f"WEED_GRPC_{component}_KEY": KEY for component in GRPC_COMPONENTS},
        "WEED_HTTPS_CLIENT_ENABLED": "true",
        **{f"WEED_HTTPS_{component}_CA": CERTIFICATE for component in HTTPS_COMPONENTS},
        **{f"WEED_HTTPS_{component}_CERT": CERTIFICATE for component in HTTPS_COMPONENTS},
        **{f"WEED_HTTPS_{component}_KEY": KEY for component in HTTPS_COMPONENTS},
    }


def store_settings(data: DataFolder, port: int) -> dict[str, str]:
    """Return the settings of a service that uses the store, by field name."""
    secrets = data.secrets()
    return {
        "s3_endpoint_url": f"http://127.0.0.1:{port}",
        "s3_addressing": "path",
        "s3_access_key": secrets.store_access_key,
        "s3_secret_key": secrets.store_secret_key,
    }


def store_port(server_ports: ServerPorts) -> int:
    """Return the port for S3."""
    return server_ports.port(SERVER)


def _component_ports(server_ports: ServerPorts) -> tuple[dict[str, int], dict[str, int]]:
    """Return the ports for HTTP and the ports for gRPC, by component."""
    admin = server_ports.port(SERVER, "admin", ports=ADMIN_PORTS, offset=GRPC_OFFSET)
    http = {"s3": store_port(server_ports), "admin": admin}
    grpc = {"admin": admin + GRPC_OFFSET}
    for component in COMPONENTS:
        if component not in http:
            http[component] = server_ports.port(SERVER, component)
        if component not in grpc:
            grpc[component] = server_ports.port(SERVER, f"{component} gRPC")
    return http, grpc


async def _prepare(
    data: DataFolder, folder: Path, configuration: Path, grpc_ports: list[int]
) -> None:
    secrets = data.secrets()
    identity = {
        "name": "segmentql",
        "credentials": [
            {"accessKey": secrets.store_access_key, "secretKey": secrets.store_secret_key}
        ],
        "actions": ["Admin"],
    }
    write_private(configuration, json.dumps({"identities": [identity]}), data.account)
    tls = make_certificate()
    write_private(folder / CERTIFICATE, tls.certificate, data.account)
    write_private(folder / KEY, tls.key, data.account)
    _delete_state_of_last_start(folder)
    remove_sockets(data.run_folder)
    # Recorded before the start, so that every socket of the program is removed after its exit.
    write_private(_ports_file(data.run_folder), json.dumps(grpc_ports))


async def _remove_sockets_of(data: DataFolder) -> None:
    remove_sockets(data.run_folder)


def _delete_state_of_last_start(folder: Path) -> None:
    # The stored options override the command line for options that have their default value.
    (folder / "mini.options").unlink(missing_ok=True)
    # The election state of the only master. With it, about every other start takes 5 s until files
    # can be stored (measured). The volume servers report to a new master what it must know.
    for state in folder.glob("m[0-9]*"):
        shutil.rmtree(state)


def _ports_file(run_folder: Path) -> Path:
    """Return the file with the gRPC ports of the last start. They are in the sockets' names."""
    return run_folder / "store.ports"


def remove_sockets(run_folder: Path) -> None:
    """Remove the sockets of a finished run from /tmp, the only folder that SeaweedFS supports.

    A socket with a listener is not removed, because a SeaweedFS of another data folder may use the
    same port.

    Args:
        run_folder: The folder `run` of the data folder.
    """
    file = _ports_file(run_folder)
    ports = json.loads(file.read_text()) if file.exists() else []
    for port, component in itertools.product(ports, COMPONENTS):
        path = Path(f"/tmp/seaweedfs-{component}-grpc-{port}.sock")  # noqa: S108
        if path.is_socket() and not _has_listener(path):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                path.unlink()


def _has_listener(path: Path) -> bool:
    """Return whether a program listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:  # another account's, or removed meanwhile
            return True
    return True


async def _is_ready(folder: Path, port: int, master_port: int) -> bool:
    """Return whether S3 rejects anonymous requests and the master has a volume server."""
    status, _ = await http_get("127.0.0.1", port, "/")
    if status != FORBIDDEN:
        return False
    tls = client_context(folder / CERTIFICATE, folder / KEY)
    _, topology = await http_get("127.0.0.1", master_port, "/dir/status", tls=tls)
    return b'"DataNodes":[{' in topology
