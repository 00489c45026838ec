"""Servers of this machine: what `segmentql up` starts, watches and stops.

    async with local_servers(folder) as servers:   # without the API and the worker
        servers.service_url ...
        await servers.postgres.kill()              # a crash
        await servers.postgres.start()             # the same port, the same data

A server more is one `Program` (see `redis.py`) and its place in `up.py`.
"""

from segmentql.local.process import ChildProcess, Program
from segmentql.local.servers import LocalServers, local_servers, with_database

__all__ = ["ChildProcess", "LocalServers", "Program", "local_servers", "with_database"]
