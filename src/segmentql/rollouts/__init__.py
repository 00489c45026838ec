"""Rollouts, which put a percentage of all users into a segment, in stages.

- `plan.py`: the stages of a plan, and when they start.
- `service.py`: the operations on a rollout: set, pause, resume and cancel.
- `reads.py`: the rollout with its status, which every read computes.
- `event_log.py`: the record of each operation and failure.
- `sampling.py`: the sample, the users that a percent selects.
- `passes.py`: the work. One pass adds and removes the members of one stage, in chunks.
- `chunks.py`: one chunk of a pass.
- `forecast.py`: the users who would join and leave, for dry runs.
- `actors.py`: the background jobs that run passes.

Users who are stored later join in the transaction that stores them. The database trigger
`users_enroll` in `alembic/versions/0002_create_rollouts.py` adds them.
"""
