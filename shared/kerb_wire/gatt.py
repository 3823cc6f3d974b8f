"""The GATT service of a node: a byte stream each way, and where its numbers come from.

Rule: the characteristics carry frames (frame.py) cut into ATT-sized chunks; GATT itself adds no
meaning.
"""

from kerb_wire.errors import LocalFault

SERVICE_UUID = "6b657262-7374-6f6e-6500-000000000001"
DOWN_UUID = "6b657262-7374-6f6e-6500-000000000002"  # write: gateway to node
UP_UUID = "6b657262-7374-6f6e-6500-000000000003"  # notify: node to gateway

ATT_HEADER_BYTES = 3  # opcode and handle of a notification or write, Core 5.4 Vol 3 Part F 3.4
ATT_MTU_DEFAULT_BYTES = 23
ATT_MTU_WANTED_BYTES = 247  # fills one data-length-extended packet of 251 bytes


def chunks(frame: bytes, mtu_bytes: int) -> list[bytes]:
    """Return `frame` cut into values that one notification or write can carry.

    mtu_bytes: the connection's ATT MTU, at least 23 (Core 5.4 Vol 3 Part G 5.2.1).
    """
    if mtu_bytes < ATT_MTU_DEFAULT_BYTES:
        raise LocalFault("mtu_bytes", mtu_bytes, f"at least {ATT_MTU_DEFAULT_BYTES}")
    step = mtu_bytes - ATT_HEADER_BYTES
    return [frame[at : at + step] for at in range(0, len(frame), step)]
