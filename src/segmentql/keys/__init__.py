"""API keys, which authenticate callers and give them a role.

A key has the form `sgql_<id>_<secret>`.

- `service.py`: creates, lists and revokes keys.
- `cache.py`: the cache of keys in a process. A request with a cached key needs no SQL statement.
"""
