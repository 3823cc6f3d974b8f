"""What a message says beyond its record: the filling level, and what vouches for it.

Rule: worked out here anew from docs/mqtt-topics.md and the bin's own measures.
"""

from __future__ import annotations

from typing import Any

AUTH_OF_VIA = {"advert": "mic", "mqtt": "mic", "backfill": "session", "modbus": "none"}
_TRUSTED = ("good", "uncertain")
_TENTH_PCT = 0.0501  # it is said to a tenth, whichever way that was rounded


def wrong(message: dict[str, Any], geometry: dict[str, Any] | None) -> str:
    """Return what a reading's message says wrongly, or ""; geometry: its container's measures."""
    via, auth = message.get("via"), message.get("auth")
    if via not in AUTH_OF_VIA or auth != AUTH_OF_VIA[via]:
        return f"auth {auth!r} of a reading via {via}"
    if message["kind"] != "fill":
        return ""
    want, said = _fill_pct(message, geometry), message.get("fill_pct")
    if want is None or said is None:
        right = want is None and said is None
    else:
        right = abs(said - want) <= _TENTH_PCT
    return "" if right else f"fill_pct {said!r}, not {want!r}"


def _fill_pct(message: dict[str, Any], geometry: dict[str, Any] | None) -> float | None:
    if geometry is None:
        return None
    if message["quality"] == "blind_zone":
        return 100.0
    distance_mm = message["distance_mm"]
    if distance_mm is None or message["quality"] not in _TRUSTED:
        return None
    empty_mm, full_mm = geometry["empty_distance_mm"], geometry["full_distance_mm"]
    level_pct: float = 100 * (empty_mm - distance_mm) / (empty_mm - full_mm)
    return max(0.0, min(100.0, level_pct))
