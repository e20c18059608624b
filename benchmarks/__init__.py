"""Measurements of Skyward, each beside its limit in the same run. Ratios count, absolute figures do not."""
