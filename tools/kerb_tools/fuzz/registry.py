"""Every target by its name: who takes bytes from a stranger has a line here.

Rule: a new door (a link, a socket, a file format) gets its target in a module of its own and one
line here; `make fuzz`, the regression vectors and the tests follow from this table.
"""

from __future__ import annotations

from kerb_tools.fuzz import air, bus, control, gatt, mqtt, node, texts
from kerb_tools.fuzz.both import wire_targets
from kerb_tools.fuzz.target import Run, Target
from kerb_tools.fuzz.wire_seeds import REPAIRS, SEEDS


def _wire(name: str) -> Target:
    function = wire_targets.TARGETS[name]

    def make() -> Run:
        return function

    about = (function.__doc__ or name).split("\n")[0].rstrip(".")
    return Target(
        name, about, make, SEEDS[name], repair=REPAIRS.get(name), both=True, most_bytes=1200
    )


_ALL = [_wire(name) for name in wire_targets.TARGETS]
for _module in (node, texts, air, gatt, bus, mqtt, control):
    _ALL += _module.TARGETS

TARGETS = {target.name: target for target in _ALL}
