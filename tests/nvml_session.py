"""A process of its own for the NVIDIA driver: its library is found when a process starts. Commands in, JSON out."""

import ctypes
import json
import sys
from dataclasses import asdict
from typing import Any

from conformance import conforms
from joulebox.errors import JouleboxError
from joulebox.node.meter import Meter, MeterFault
from joulebox.node.meters import found, open_meters


class Session:
    """One meter, opened and asked as the test says."""

    def __init__(self) -> None:
        self._meter: Meter | None = None

    def do(self, command: str, *arguments: Any) -> Any:
        """The answer to one command."""
        if command == "open":
            (self._meter,) = open_meters(["nvml:"])
            return {"missing": self._meter.missing, "channels": [asdict(one) for one in self._meter.channels()]}
        if command == "conforms":
            return len(conforms("nvml:", arguments[0]))
        if command == "found":
            return next(asdict(finding) for finding in found() if finding.kind == "nvml")
        if command == "users":
            return ctypes.CDLL("libnvidia-ml.so.1").standin_users()
        assert self._meter is not None
        return self._meter.read() if command == "read" else self._meter.close()


def main() -> None:
    """Answer each line of standard input."""
    session = Session()
    for line in sys.stdin:
        try:
            answer = {"is": session.do(*json.loads(line))}
        except JouleboxError as error:
            answer = {"refused": [error.code, error.detail]}
        except MeterFault as fault:
            answer = {"fault": str(fault)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
