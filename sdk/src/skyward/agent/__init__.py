"""The node agent: it runs on the VM, outlives connections and operators, and keeps results until told.

    sockets   a Unix socket whose path may be long
    link      frames out, coalesced and with control before bulk
    server    what each frame of the operator does; connection, checks: how it comes in
    spool     results on disk until acknowledged
    blobs     large payloads, by digest
    slots     which worker runs which attempt; attempts: how they end; slices: many items in one attempt
    ranges    attempts by name, and what overlaps
    process   one worker process as the agent sees it
    box       what a worker writes down about a slice, in memory that outlives it; borders: who printed what
    worker    the worker process itself; execute, items, capture: inside it

Standard library, cloudpickle and lz4 only.
"""
