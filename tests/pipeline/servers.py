"""Web servers on loopback that misbehave to order, and a record of every connection that this process makes."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Script = Callable[[socket.socket, str, int], None]  # the connection, the path, how often that path was asked for

_recorders: list[list[tuple[Any, ...]]] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _recorders and isinstance(args[1], tuple):
        for seen in _recorders:
            seen.append(args[1])


sys.addaudithook(_audit)  # can't be taken away again; it only looks while somebody records


@contextmanager
def recorded_connections() -> Iterator[list[tuple[Any, ...]]]:
    """The (address, port, …) of every connection that any thread begins, whatever library makes it."""
    seen: list[tuple[Any, ...]] = []
    _recorders.append(seen)
    try:
        yield seen
    finally:
        _recorders.remove(seen)


class ScriptedServer:
    """Reads a request, then does with the connection what the script says. One request a connection."""

    def __init__(self, script: Script, host: str = "127.0.0.1") -> None:
        self._script = script
        self.requests: list[str] = []  # the head of each
        self._lock = threading.Lock()
        self._listener = socket.create_server((host, 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        self.stopped = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            head = b""
            while b"\r\n\r\n" not in head and (more := connection.recv(4096)):
                head += more
            if not head:
                return
            path = head.split(b" ")[1].decode()
            with self._lock:
                times = sum(request.split(" ")[1] == path for request in self.requests)
                self.requests.append(head.decode())
            with suppress(OSError):  # the client left
                self._script(connection, path, times)

    def close(self) -> None:
        self.stopped.set()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def respond(
    connection: socket.socket, body: bytes = b"", status: str = "200 OK", length: int | None = None, **headers: str
) -> None:
    """A whole response; `length`, when given, is claimed instead of the true one."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


def reset(connection: socket.socket) -> None:
    """Breaks the connection off as a crashed server does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()


class TlsServer(ScriptedServer):
    """The same over TLS, with a certificate for a name; `script` sees the decrypted connection."""

    def __init__(self, script: Script, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(script)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):  # the client did not like the certificate
            super()._serve(self._context.wrap_socket(connection, server_side=True))


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context with a new self-signed certificate for `name`, and that certificate's file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return context, file
