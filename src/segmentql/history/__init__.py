"""History: every join and leave, as the database's triggers recorded it, and as it is due."""
