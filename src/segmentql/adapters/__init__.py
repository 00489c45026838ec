"""Adapters to the database, the job queue, the object store and HTTP, independent of features."""
