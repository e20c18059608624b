"""What machines cost, and what may be spent: nothing is bought that could exceed a budget.

    meter      one machine: its billing interval, what it has cost, what it will cost until it can be ended
    budget     limits of a pool or namespace, and what they allow
    spending   what the machines of a namespace have cost that are gone; each is added once
    balance    a pool and its namespace at one moment: cost, what is left, whether to stop
    ledger     keeps the spending, in a ConfigMap beside the operator's Lease
    purse      the one place where money is set aside before a machine is ordered
    metrics    what Prometheus can ask
    prices     follows prices that move while machines run

The first four are pure. What is set aside stands in the statuses of nodes (their recorded intents), so a
restart knows it again; what machines cost that are gone is written down before their objects go.
"""
