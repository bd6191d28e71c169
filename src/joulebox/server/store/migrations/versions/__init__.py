"""The chain of schemas, oldest first."""
