"""A guest for tests: a process that writes on its memory as the lines on its standard input tell it to.

python -m tests.checkpoint.memory.scribbler SOCKET BYTES [plain]
"""

import hashlib
import selectors
import signal
import sys
from pathlib import Path

from colo_compare.checkpoint.memory.guest_port import GuestPort
from colo_compare.checkpoint.memory.region import PAGE_SIZE, Region


class Scribbler:
    def __init__(self, region: Region) -> None:
        self.region = region
        self.device = b"at start"
        self.loads = True
        self.saves = True
        self.gate = ""

    def save(self) -> bytes:
        if not self.saves:
            signal.pause()
        return self.device

    def load(self, device_state: bytes) -> None:
        if not self.loads:
            raise ValueError("this state makes no sense")
        if self.gate:
            Path(self.gate).read_text()  # a FIFO: until the test has opened and closed it
        self.device = device_state

    def resume(self) -> None:
        pass

    def obey(self, line: str) -> str:
        command, *words = line.split()
        if command == "write":
            first, count, value = map(int, words)
            self.region.view[first * PAGE_SIZE : (first + count) * PAGE_SIZE] = bytes([value]) * (
                count * PAGE_SIZE
            )
        elif command == "scribble":  # one byte in every `step`th page
            first, count, step, value = map(int, words)
            for page in range(first, first + count * step, step):
                self.region.view[page * PAGE_SIZE] = value
        elif command == "device":
            self.device = words[0].encode() * int(words[1])
        elif command == "spoil":
            self.loads = False
        elif command == "gate":
            self.gate = words[0]
        elif command == "hang":
            self.saves = False
        elif command == "digest":
            return hashlib.sha256(self.region.view.tobytes() + self.device).hexdigest()
        return "done"


def main() -> None:
    path, size, *words = sys.argv[1:]
    region = Region.create(int(size))
    scribbler = Scribbler(region)
    port = GuestPort(path, region, scribbler, protect="plain" not in words)
    selector = selectors.DefaultSelector()
    selector.register(port, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is port:
                port.handle()
            elif not (line := sys.stdin.readline()):
                return
            else:
                print(scribbler.obey(line), flush=True)


if __name__ == "__main__":
    main()
