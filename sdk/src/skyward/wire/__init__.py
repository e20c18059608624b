"""The bytes between SDK, operator and agent: frames, packages of calls and outcomes, codec, bundle.

Everything here runs on a bare VM: standard library, cloudpickle and lz4 only. The operator may import
all of it except `codec`, because it moves payloads and never opens them.
"""
