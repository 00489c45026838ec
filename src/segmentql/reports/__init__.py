"""Reports: a month of history as a CSV file in the object store, with an expiring link.

- `service.py`: requests for reports, and reads.
- `csv_export.py`: the rows of a report as CSV.
- `generation.py`: the attempts of workers to make a report.
- `schedule.py`: the reports that are due or old.
- `actors.py`: the background jobs that make reports and remove old ones.
"""
