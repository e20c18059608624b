"""The same work on other systems: each in an environment of its own, as a program that prints JSON."""
