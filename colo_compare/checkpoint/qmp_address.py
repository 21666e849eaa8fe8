"""Where a QMP monitor is, as the configuration names it.

====================  ============================================================
``unix:PATH``         ``-qmp unix:PATH,server=on,wait=off``
``tcp:HOST:PORT``     ``-qmp tcp:HOST:PORT,server=on,wait=off``
``tls:HOST:PORT``     ``-chardev socket,...,tls-creds=ID -mon chardev=...,mode=control``
====================  ============================================================
"""

import ssl
from pathlib import Path
from typing import Final

import trio

from colo_compare.checkpoint.socket_address import TLS, UNIX, SocketAddress
from colo_compare.errors import MonitorError

# The names that QEMU's tls-creds-x509 object itself looks for in its `dir`.
_AUTHORITY: Final = "ca-cert.pem"
_CERTIFICATE: Final = "client-cert.pem"
_KEY: Final = "client-key.pem"


class MonitorAddress(SocketAddress):
    """A monitor's address."""

    what = "address of a monitor"

    async def connect(self, tls_dir: str = "") -> tuple[trio.abc.Stream, trio.SocketStream]:
        """Connect; gives the stream to talk on and the socket below it. Raises MonitorError."""
        try:
            if self.kind == UNIX:
                stream = await trio.open_unix_socket(self.path)
            else:
                stream = await trio.open_tcp_stream(self.host, self.port)
        except OSError as error:
            why = error.strerror or str(error)
            raise MonitorError(f"{self}: no monitor answers ({why}): is QEMU running with it?") from None
        if self.kind != TLS:
            return stream, stream
        try:
            encrypted = trio.SSLStream(stream, _context(tls_dir), server_hostname=self.host)
            await encrypted.do_handshake()
        except (OSError, trio.BrokenResourceError) as error:
            await trio.aclose_forcefully(stream)
            why = str(error.__cause__ or error)
            raise MonitorError(f"{self}: no TLS with the monitor: {why}; look at tls_dir {tls_dir}") from None
        return encrypted, stream


def _context(directory: str) -> ssl.SSLContext:
    """Give what a client needs, from a directory with the file names that QEMU uses. Raises OSError."""
    context = ssl.create_default_context(cafile=str(Path(directory, _AUTHORITY)))
    if Path(directory, _CERTIFICATE).exists():  # else the server must have verify-peer=off
        context.load_cert_chain(Path(directory, _CERTIFICATE), Path(directory, _KEY))
    return context
