"""The local servers that `segmentql up` starts, monitors and stops.

    async with local_servers(folder) as servers:   # PostgreSQL, Redis and the object store
        servers.service_url ...
        await servers.postgres.kill()              # simulates a crash
        await servers.postgres.start()             # keeps its port and data

To add a server, describe it as a `Program` (see `redis.py`) and add it to `plan.py` and `up.py`.
"""

from segmentql.local.process import ChildProcess
from segmentql.local.program import Program
from segmentql.local.servers import LocalServers, local_servers, with_database

__all__ = ["ChildProcess", "LocalServers", "Program", "local_servers", "with_database"]
