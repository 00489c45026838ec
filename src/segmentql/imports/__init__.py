"""Imports: lists of users, from a file or from segments, that change the members of a segment.

- `service.py`: create, start, apply and cancel. `uploads.py`: the link and the private copy.
- `attempts.py`, `reading.py`, `staging.py`: an attempt to read a list into the staging tables.
- `file_format.py`, `unpacking.py`, `columns.py`, `user_values.py`, `row_parser.py`, `parsing.py`:
  from the bytes of a file to its rows.
- `forecast.py`: the expected outcomes and the safeguards.
- `chunks.py`: one transaction of an import that is applied. `locks.py`, `chunk_users.py`,
  `chunk_changes.py`, `removals.py`, `safeguards.py`: its locks, its users and their outcomes, the
  changes of memberships, and the limit of removals. `completion.py`: the end.
- `result.py`, `result_files.py`, `cleanup.py`: the CSV of a finished import, deadlines, and what is
  deleted.
- `erasure.py`: the erasure of a user's key.
- `inputs.py`, `payloads.py`, `mutations.py`, `api.py`: the GraphQL API.
- `schedule.py`, `run_slots.py`, `actors.py`: the background jobs.
"""
