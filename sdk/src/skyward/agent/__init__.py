"""The node agent: it runs on the VM, outlives connections and operators, and keeps results until told.

    sockets   a Unix socket whose path may be long
    link      frames out, coalesced and with control before bulk
    server    what each frame of the operator does
    spool     results on disk until acknowledged
    blobs     large payloads, by digest
    slots     which worker runs which attempt; cancel, timeout, death
    process   one worker process as the agent sees it
    worker    the worker process itself; execute, capture: inside it

Standard library, cloudpickle and lz4 only.
"""
