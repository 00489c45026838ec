"""The HTTP endpoint: the view, HTTP errors, media types, and the sending of responses."""
