"""Placement: which offer a node buys, and what is remembered of those that were refused.

market        what accounts sell, asked once for all nodes that start together
unavailable   offers that were refused a while ago, and until when nobody asks for them again
history       how long machines of an offer took to start
ordering      which offer comes first; pure
sellers       whose offer it is; pure
survey        what is left to buy, and why the rest is not; pure
admission     the price in force and the purse, just before a purchase
purse         whether a purchase is allowed; the place of budgets
tried         what was asked for and how that ended, for the pool's status
board         what a pool could buy, for those who plan it
placement     the whole, for those who buy and for those whose machine was taken
"""
