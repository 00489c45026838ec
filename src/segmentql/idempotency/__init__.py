"""Idempotency keys: a mutation that a client retries with the same key is executed once.

- `service.py`: the rows of the keys, and their deletion after 24 hours.
- `calls.py`: runs the mutations with keys of one process. Concurrent calls with the same key join
  the first one.
- `actors.py`: the job that deletes expired keys.

The GraphQL kit reads the key from the request (`graphql/execution/idempotency_keys.py`), and
converts payloads to the stored results and back (`graphql/types/stored_results.py`).
"""
