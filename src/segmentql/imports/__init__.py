"""Imports: lists of users, read from a file into a segment.

- `file_format.py`: what the file is, and the format that the client describes.
- `unpacking.py`: the bytes of the file, unpacked within limits.
- `columns.py`: the delimiter, the header and the column of the users.
- `user_values.py`: which text is a user id or a key, and why not.
- `parsing.py`: the rows of the file.
"""
