"""The `skyward` command."""
