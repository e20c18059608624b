"""The real operator with shorter signs of life, so that a connection that died in silence is noticed soon."""

from __future__ import annotations

from skyward_operator.__main__ import main
from skyward_operator.gateway import results, session, streams, uploads

BEAT_SECONDS = 0.3

if __name__ == "__main__":
    for module, name, seconds in (
        (results, "KEEPALIVE_SECONDS", BEAT_SECONDS),
        (streams, "KEEPALIVE_SECONDS", BEAT_SECONDS),
        (session, "HEARTBEAT_SECONDS", BEAT_SECONDS),
        (session, "HELLO_SECONDS", 2.0),
        (uploads, "PATIENCE_SECONDS", 2.0),
    ):
        assert hasattr(module, name)
        setattr(module, name, seconds)
    main()
