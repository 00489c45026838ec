"""Users: whom the callers' numbers stand for."""
