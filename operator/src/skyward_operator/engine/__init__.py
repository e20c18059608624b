"""What runs reconcilers: a keyed queue, controllers on it, a supervisor for loops, and the clock."""
