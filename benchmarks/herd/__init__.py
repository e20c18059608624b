"""Hundreds of nodes in one process: agents that speak the real protocol over real SSH and run nothing."""
