"""A BMC that answers DCMI power readings over real IPMI: `python lan_bmc.py PORT FILE`; FILE says watts and faults.

A program of its own, because the library keeps one event loop a process and never ends it.
"""

import json
import struct
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

bmc: Any = import_module("pyghmi.ipmi.bmc")

DCMI = 0x2C
POWER_READING = 0x02


class Bmc(bmc.Bmc):  # type: ignore[misc]
    def __init__(self, port: int, file: Path) -> None:
        super().__init__({"joulebox": "secret"}, port=port, address="127.0.0.1")
        self._file = file

    def handle_raw_request(self, request: dict[str, Any], session: Any) -> None:
        if request["netfn"] != DCMI or request["command"] != POWER_READING:
            super().handle_raw_request(request, session)
            return
        said = json.loads(self._file.read_text())
        if said.get("silent"):
            return
        if "code" in said:
            session.send_ipmi_response(code=said["code"])
            return
        state = 0x40 if said.get("active", True) else 0
        watts = (said["w"], 10, 900, said.get("mean_w", 0))
        body = bytes([0xDC]) + struct.pack("<4HIIB", *watts, 1_700_000_000, said.get("period_ms", 0), state)
        session.send_ipmi_response(data=list(body[: said.get("length", len(body))]))


if __name__ == "__main__":
    Bmc(int(sys.argv[1]), Path(sys.argv[2])).listen()
