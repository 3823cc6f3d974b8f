"""Runs the node's pure tests without any test framework, on either interpreter."""

import sys

import pure_node


def main():
    passed = failed = 0
    for name in sorted(dir(pure_node)):
        if name.startswith("test_"):
            try:
                getattr(pure_node, name)()
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
