"""Exports: the members of a segment as a CSV file in the object store, with an expiring link.

- `service.py`: requests for exports, and reads.
- `start.py`: the time and the cursor of a new export.
- `members_csv.py`: the rows of an export as CSV.
- `file_kind.py`: the description of their files.
- `key_erasure.py`: the erasure of keys from their files.
- `user_deletion.py`: the deletion of a user and the erasure of the key from all files.
- `actors.py`: the background jobs that make exports and remove old ones.

`segmentql.csv_files` has the attempts, their leases and the schedule.
"""
