"""The live table: every node with its level, its link, its backlog and the reason behind it."""

from __future__ import annotations

from kerb_sim.street import Street
from kerb_sim.world.surroundings import BinSurroundings, LampSurroundings
from kerb_wire.words import fault_names
from rich.table import Table

from kerb_tools.demo.peek import NodeView


def live(street: Street, known: dict[str, NodeView], title: str) -> Table:
    """Return the table of this moment."""
    table = Table(title=title, title_justify="left", expand=False)
    for name in ("node", "board", "truth", "gateway says", "why", "link", "records", "backlog"):
        table.add_column(name, justify="right" if name in ("records", "backlog") else "left")
    for member in street.members:
        view = known.get(member.name)
        newest = view.newest if view else {}
        table.add_row(
            f"{member.role} {member.name}",
            member.board.state,
            _truth(member.around),
            _said(member.role, newest),
            str(newest.get("reason") or newest.get("quality") or ""),
            "BLE" if member.role == "bin" else f"RS-485 unit {member.unit}",
            str(view.stored if view else 0),
            str(view.open_numbers if view else "?"),
        )
    return table


def _truth(around: object) -> str:
    if isinstance(around, BinSurroundings):
        return f"{around.container.fill * 100:5.1f} % full"
    if isinstance(around, LampSurroundings):
        lamp = around.luminaire
        return f"{lamp.shines_pct:5.1f} % light" + (f", {lamp.fault}" if lamp.fault else "")
    return ""


def _said(role: str, newest: dict[str, object]) -> str:
    if role == "bin":
        fill = newest.get("fill_pct")
        return "" if fill is None else f"{fill:5.1f} % full"
    level = newest.get("level_pct")
    if level is None:
        return ""
    faults = fault_names(int(str(newest.get("faults") or 0)))
    return ", ".join([f"{level:3} % level", *faults])
