"""Users, which callers identify by their own numbers."""
