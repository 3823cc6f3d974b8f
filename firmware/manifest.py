# What MicroPython's freeze step (and `make board`) takes from this tree.
package("kerb_wire", base_path="../shared", opt=3)
package("kerb_node", base_path=".", opt=3)
module("boot.py", base_path=".")
module("main.py", base_path=".")
