"""`python -m kerb_check RUN`: compare a run's sources; exit status 1 if the contract broke."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from kerb_check.verdict import judge

_SHOWN = 40


def main() -> int:
    """Judge a run directory and print the figures and every finding."""
    parser = argparse.ArgumentParser(prog="kerb-check", description=__doc__)
    parser.add_argument("run", type=Path, help="the directory that a demo or a test left")
    parser.add_argument("--json", action="store_true", help="one JSON object for programs")
    options = parser.parse_args()
    verdict = judge(options.run)
    findings = verdict.broken + [str(finding) for finding in verdict.findings]
    if options.json:
        print(json.dumps(verdict.figures | {"ok": verdict.good, "details": findings[:_SHOWN]}))
    else:
        for name, value in verdict.figures.items():
            print(f"{name:32} {value}")
        for line in findings[:_SHOWN]:
            print(f"  - {line}")
        if len(findings) > _SHOWN:
            print(f"  and {len(findings) - _SHOWN} more")
        print("accounted for" if verdict.good else "NOT accounted for")
    return 0 if verdict.good else 1


raise SystemExit(main())
