"""A cloud in a box: a real HTTP service with accounts, offers, quotas, a spot market, a bill and a ledger.

Its machines are real SSH servers. It can be told to be as unpleasant as clouds are: to lose answers, to lag,
to refuse, to take machines away. It is for two readers. Tests have an oracle in it, because the ledger
remembers everything that was bought and for how long. People rehearse a manifest on it without spending.

It imports nothing of the operator but the processes that machines are made of (`vms.py`).
"""
