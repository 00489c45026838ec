"""What talks to the outside: the database, the job queue, HTTP. Knows no feature."""
