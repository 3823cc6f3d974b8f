"""Runs the contract tests without any test framework: `micropython run.py` and `python run.py`.

Prints one line a test and, last, the corpus's digest and "N passed, N failed"; a failure ends in
a non-zero exit status.
"""

import sys

import contract_bundle
import contract_crypto
import contract_fields
import contract_messages


def main():
    passed = failed = 0
    for module in (contract_bundle, contract_crypto, contract_fields, contract_messages):
        for name in sorted(dir(module)):
            if not name.startswith("test_"):
                continue
            try:
                getattr(module, name)()
                passed += 1
            except Exception as error:
                failed += 1
                print("FAILED", module.__name__, name, repr(error))
    print("digest", *contract_messages.outcomes(600))
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
