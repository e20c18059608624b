"""Readable durations, in the seconds (as floats) that every timeout of this package takes."""


def seconds(value: float) -> float:
    """`value` seconds."""
    return float(value)


def minutes(value: float) -> float:
    """`value` minutes in seconds."""
    return value * 60.0


def hours(value: float) -> float:
    """`value` hours in seconds."""
    return value * 3_600.0


def days(value: float) -> float:
    """`value` days in seconds."""
    return value * 86_400.0
