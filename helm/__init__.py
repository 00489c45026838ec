"""The Helm chart of the service, and the scripts that write and test it."""
