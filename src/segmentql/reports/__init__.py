"""Reports: a month of history as a CSV file in the object store, with an expiring link.

- `service.py`: requests for reports, and reads.
- `csv_export.py`: the rows of a report as CSV.
- `file_kind.py`: the description of their files.
- `key_erasure.py`: the erasure of keys from their files.
- `actors.py`: the background jobs that make reports and remove old ones.

`segmentql.csv_files` has the attempts, their leases and the schedule.
"""
