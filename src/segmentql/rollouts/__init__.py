"""Rollouts: a segment's plan "this percent of all users is in", and how workers carry it out.

`selection.py` says who is of the sample, `plan.py` what a plan may be and when its stages start,
`service.py` is what people do to a rollout and read of it, `passes.py` is the work: one pass puts
in and takes out whom one stage asks for, chunk by chunk.

How later users join, at the moment when they are stored, is a trigger of the database's:
`enroll_new_users` in `alembic/versions/0002_create_rollouts.py`.
"""
