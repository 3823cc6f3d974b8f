"""kerb bench NAME: measure; every figure in the documentation comes from here.

Exit status 0 when every bar is reached, 1 when one is missed (a result, not an error).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from rich.console import Console

_BENCHES = {
    "gateway": "one reading a message from broker to broker, beside paho, SQLite, ThingsBoard ...",
    "ingest": "the gateway's own part of a reading's way, without MQTT",
    "burst": "20,000 adverts in a second from the emulated org.bluez, through to the PUBACK",
    "idle": "CPU and memory of a gateway with 200 nodes, with next to nothing to do",
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
    parser.add_argument("--plot", type=Path, metavar="FILE", help="gateway: draw the figures")
    parser.add_argument(
        "--rows", type=int, nargs="+", metavar="N", help="drain: also backlogs of so many rows"
    )
    chosen = parser.parse_args(arguments)
    if chosen.plot and chosen.name != "gateway":
        parser.error("--plot is for gateway")
    if chosen.rows and (chosen.name != "drain" or min(chosen.rows) < 1000):
        parser.error("--rows is for drain; at least 1000 each")
    module = importlib.import_module(f"kerb_tools.bench.{chosen.name}")
    console = Console(stderr=True)
    with console.status(f"kerb bench {chosen.name}"):
        result = module.run(chosen.seed, **({"rows": chosen.rows} if chosen.rows else {}))
    if chosen.plot:
        importlib.import_module("kerb_tools.bench.gateway_plot").draw(result.figures, chosen.plot)
    if chosen.json:
        print(result.as_json())
    else:
        result.show(Console(file=sys.stdout))
    return 0 if result.ok else 1
