"""kerb_check: compares what was measured, stored and delivered, reading by reading.

Rule: it knows the wire's formats (kerb_wire) and nothing of the code it checks; it counts for
itself and trusts no counter that the gateway, the firmware or the simulator keep.
"""
