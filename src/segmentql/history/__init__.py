"""History: every join and leave, recorded by database triggers."""
