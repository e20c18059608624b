"""Where machines come from: one contract, one tree of errors, one folder per provider."""
