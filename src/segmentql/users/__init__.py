"""Users. A client chooses the id of a user, or the service allocates one."""
