"""The parts of every feature's GraphQL API: scalars, pages, errors, permissions, batched reads."""
