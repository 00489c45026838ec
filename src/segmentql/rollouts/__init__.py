"""Rollouts, which put a percentage of all users into a segment, in stages.

- `plan.py`: the stages of a plan, and when they start.
- `sampling.py`: the sample, the users that a percent selects.
- `service.py`: the operations on a rollout (set, pause, resume, cancel), and reads.
- `passes.py`: the work. One pass adds and removes the members of one stage, in chunks.
- `actors.py`: the background jobs that run passes.

Users who are stored later join in the transaction that stores them. The database trigger
`users_enroll` in `alembic/versions/0002_create_rollouts.py` adds them.
"""
