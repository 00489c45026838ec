"""The types that features share: scalars, pagination, errors, permissions and loaders."""
