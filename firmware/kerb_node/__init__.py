"""kerb_node: the application on the board, composed by role (bin, lamp).

Rule: only board.py, drivers/, links/, sleep.py, supervisor.py and identity.py touch the hardware
modules; fill/ and light/ are pure and run on CPython too.
"""
