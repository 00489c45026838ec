"""Reports: a month of history as CSV, made by a worker, kept in the store, fetched by a link.

`scope.py` says what is in the file, `service.py` is what people ask for and read, `making.py`
is the work: from the database through the worker's hands into the store, a part at a time.
"""
