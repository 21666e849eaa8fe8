"""A web shop for a guest: alike on both guests but for what an option adds, as real ones are.

``python -m tests.e2e.shop PORT [--session] [--clock] [--tls CERTIFICATE]``
"""

import argparse
import secrets
import ssl
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<title>shop</title>" + b"<p>goods</p>" * 150


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    session = False  # each answer has a random cookie
    clock = False  # each answer has the time to the microsecond

    def do_GET(self) -> None:
        self.send_response_only(200)
        self.send_header("Content-Length", str(len(PAGE)))
        if self.session:
            self.send_header("Set-Cookie", f"session={secrets.token_hex(16)}")
        if self.clock:
            self.send_header("X-Time", f"{time.time():.6f}")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the base class's)
        """Say nothing."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--session", action="store_true")
    parser.add_argument("--clock", action="store_true")
    parser.add_argument("--tls", metavar="CERTIFICATE")
    options = parser.parse_args()
    Handler.session, Handler.clock = options.session, options.clock
    server = ThreadingHTTPServer(("", options.port), Handler)
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls)
        # The handshake belongs to the connection's own thread, not to the one that accepts.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
