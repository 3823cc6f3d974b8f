"""Faults on real parts: power cuts of the store, kills, full and slow disks, wrong clocks."""
