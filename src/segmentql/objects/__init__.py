"""Objects: the deletion of objects from the store that no row refers to any more.

A feature that stores objects records each of them in `objects_to_delete` before its upload begins.
The transaction that stores a reference to the object removes the row, and the transaction that
drops the reference writes a row again. So each object in the store has a reference or a row, even
if a process is killed or the store is unavailable.

- `service.py`: uploads, their references, and the claims of workers.
- `actors.py`: the job that deletes the objects.
"""
