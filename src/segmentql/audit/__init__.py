"""The audit log: an append-only record of who changed segments, rollouts and API keys, and when.

The services of other features write an entry in the transaction of each change (`service.record`).
The service's role can insert and read entries, and can never change or delete one.
"""
