"""The simulated cloud as a provider: reached over HTTP with an API key, as any other."""
