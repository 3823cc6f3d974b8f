"""Years of a gateway's life in minutes: the real classes, everything around them simulated.

Rule: one thread, one clock, one seed; whatever chance decides comes from chance.py.
"""
