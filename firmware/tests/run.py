"""Runs the node's pure tests without any test framework, on either interpreter."""

import sys

import pure_faults
import pure_lamp
import pure_node
import pure_session


def main():
    passed = failed = 0
    for module in (pure_faults, pure_lamp, pure_node, pure_session):
        for name in sorted(dir(module)):
            if name.startswith("test_"):
                try:
                    getattr(module, name)()
                    passed += 1
                except Exception as error:
                    failed += 1
                    print("FAILED", name)
                    if hasattr(sys, "print_exception"):
                        sys.print_exception(error)
                    else:
                        print(repr(error))
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
