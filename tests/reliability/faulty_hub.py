"""A proxy before the hub that breaks chosen answers on purpose."""

import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: For so long nothing comes. The clients of test_network.py wait for 5 s.
STALL_S = 20.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class FaultyHub(ThreadingHTTPServer):
    """Answers as ``upstream`` does, but the first ``times`` requests for ``where`` get ``fault``.

    ``where`` is a part of the path; ``times`` None is for ever.
    """

    daemon_threads = True
    request_queue_size = 64  # with the five of socketserver some connections wait for a second

    def __init__(self, upstream: str, fault: str, where: str, times: int | None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.fault, self.where, self.times = upstream, fault, where, times
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def fail(self, fault: str, where: str, times: int | None) -> None:
        """Have another fault from now on, and count anew."""
        with self.lock:
            self.fault, self.where, self.times = fault, where, times
            self.counts.clear()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def fault_for(self, method: str, path: str) -> str | None:
        # A broken-off body needs a body.
        with self.lock:
            if self.where not in path or (self.fault in ("truncated", "half") and method != "GET"):
                return None
            if self.times is not None and self.counts["faults"] >= self.times:
                return None
            self.counts["faults"] += 1
            return self.fault

    def handle_error(self, *_: object) -> None:
        """Broken connections are what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyHub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self) -> None:
        fault = self.server.fault_for(self.command, self.path)
        if fault == "reset":
            # No lingering: the peer gets a reset instead of an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        if fault == "stall":
            time.sleep(STALL_S)
            self.close_connection = True
            return
        if fault in ("429", "503"):
            body = b'{"error": "not now"}'
            self.send_response(int(fault))
            self.send_header("Retry-After", "1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            return
        self.forward(fault)

    do_GET = do_HEAD = do_POST = answer  # noqa: N815

    def forward(self, fault: str | None) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
        request = urllib.request.Request(
            self.server.upstream + self.path,
            data=self.rfile.read(length) if length else None,
            headers=headers,
            method=self.command,
        )
        try:
            reply = urllib.request.build_opener(_NoRedirect).open(request, timeout=60)
        except urllib.error.HTTPError as error:
            reply = error
        body = reply.read()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        if fault in ("truncated", "half"):
            self.wfile.write(body[: len(body) // 2])
            if fault == "half":  # and then nothing more for a while
                self.server.counts["halves"] += 1
                time.sleep(STALL_S)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def faulty_hub(upstream: str, fault: str, where: str, times: int | None) -> Iterator[FaultyHub]:
    """Serve on a free port inside the block."""
    with serving(FaultyHub(upstream, fault, where, times)) as server:
        yield server


@contextmanager
def serving(server: FaultyHub) -> Iterator[FaultyHub]:
    """Let the server answer inside the block."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
