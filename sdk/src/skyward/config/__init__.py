"""Configuration in files: who wins, where each value comes from, and what is made of it.

`files` finds and reads `defaults.toml` and `skyward.toml`, `settings` lays them over one another with the
environment on top, `pools` makes `Spec` and `Options` of a table. Documented in docs/configuration.md.
"""

from skyward.config.pools import options, pool, pool_names
from skyward.config.settings import Settings, load

__all__ = ["Settings", "load", "options", "pool", "pool_names"]
