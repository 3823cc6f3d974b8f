"""kerb bench NAME: measure; every figure in the documentation comes from here.

Exit status 0 when every bar is reached, 1 when one is missed (a result, not an error).
"""

from __future__ import annotations

import argparse
import importlib
import sys

from rich.console import Console

_BENCHES = {
    "drain": "how fast a backlog goes out, beside bare paho to the same broker",
    "time": "whether every reading was made within the range stated for it",
    "wear": "bytes written to the card in a day of 200 nodes, for several commit intervals",
}


def main(arguments: list[str]) -> int:
    """Run one bench; return its exit status."""
    listing = "\n".join(f"  {name:8} {about}" for name, about in _BENCHES.items())
    parser = argparse.ArgumentParser(
        "kerb bench",
        description=__doc__,
        epilog=f"benches:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=list(_BENCHES), metavar="NAME", help="see below")
    parser.add_argument("--seed", type=int, default=7, help="of what is measured [7]")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    chosen = parser.parse_args(arguments)
    module = importlib.import_module(f"kerb_tools.bench.{chosen.name}")
    console = Console(stderr=True)
    with console.status(f"kerb bench {chosen.name}"):
        result = module.run(chosen.seed)
    if chosen.json:
        print(result.as_json())
    else:
        result.show(Console(file=sys.stdout))
    return 0 if result.ok else 1
