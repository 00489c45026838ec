"""The HTTP endpoint `/graphql`: it reads requests, limits them, and sends responses."""
