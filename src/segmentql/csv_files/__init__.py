"""CSV files that workers make and store: what reports and exports have in common.

- `file_kind.py`: the description of a kind of file, which each of these features has.
- `attempts.py`: the attempts of workers to make a file, with their leases and retries.
- `generation.py`: one attempt, from its claim to its end, with heartbeats meanwhile.
- `heartbeats.py`: the work of an attempt while its lease is extended. Imports use it as well.
- `schedule.py`: the files that are due or old.
- `stats.py`: the numbers of files, for the metrics.

The features have the rows of `reports` and `exports`, the queries of the files, and the rules for
the erasure of keys.
"""
