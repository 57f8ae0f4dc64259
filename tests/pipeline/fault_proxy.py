"""A proxy on loopback that passes HTTP on and, for a share of the requests, fails in a way that networks fail."""

from __future__ import annotations

import http.client
import itertools
import random
import socket
import threading
from collections import Counter

from tests.pipeline.servers import ScriptedServer, reset

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
# Of a hundred requests, as in the trial; the rest is passed on as it is.
SHARES = {"503": 10, "reset": 5, "stall": 5, "truncated": 2}


class FaultProxy(ScriptedServer):
    """In front of a server at `upstream` (host, port). `faults` counts what was done to whom."""

    def __init__(self, upstream: tuple[str, int], seed: int = 0) -> None:
        self._upstream = upstream
        # A deck of a hundred, so that the shares hold in every hundred requests.
        deck = [fault for fault, share in SHARES.items() for _ in range(share)]
        deck += ["none"] * (100 - len(deck))
        random.Random(seed).shuffle(deck)
        self._deck = itertools.cycle(deck)
        self._drawing = threading.Lock()
        self.faults: Counter[str] = Counter()
        super().__init__(self._never)

    @staticmethod
    def _never(connection: socket.socket, path: str, times: int) -> None:
        raise AssertionError("the proxy serves its connections itself")

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as incoming:
            try:
                head = list(iter(incoming.readline, b"\r\n"))
                if not head:
                    return
                names = dict(line.decode("latin-1").rstrip("\r\n").split(": ", 1) for line in head[1:])
                if names.get("Expect") == "100-continue":
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = incoming.read(int(names.get("Content-Length", 0)))
                method, path, _ = head[0].decode().split(" ")
                self._pass_on(connection, method, path, names, body)
            except OSError:
                pass  # the client left

    def _fault(self) -> str:
        with self._drawing:
            fault = next(self._deck)
            self.faults[fault] += 1
        return fault

    def _pass_on(self, connection: socket.socket, method: str, path: str, names: dict[str, str], body: bytes) -> None:
        fault = self._fault()
        if fault == "503":
            head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(SLOW_DOWN)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + SLOW_DOWN)
            return
        if fault == "reset":
            return reset(connection)
        upstream = http.client.HTTPConnection(*self._upstream, timeout=60)
        upstream.request(method, path, body, {name: value for name, value in names.items() if name != "Expect"})
        answer = upstream.getresponse()
        data = answer.read()
        kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in ("connection", "transfer-encoding")]
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{n}: {v}" for n, v in kept), "Connection: close"]
        upstream.close()
        sent = data if fault == "none" or method == "HEAD" else data[: len(data) // 2]
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + sent)
        if fault == "stall":
            connection.settimeout(120)
            connection.recv(1)  # until the client has had enough
