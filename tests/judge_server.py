"""A server that speaks OpenAI's chat completions and answers by a rule."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Answers by a function of the request's number and body: (status, headers, text or JSON)."""

    def __init__(self, reply):
        self.bodies: list[dict] = []
        self.keys: list[str | None] = []
        self.reply, self.lock = reply, threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.bodies)
            server.bodies.append({"path": self.path, **body})
            server.keys.append(self.headers.get("Authorization"))
        status, headers, said = server.reply(number, body)
        if status == 200 and isinstance(said, str):
            said = {"model": "judge-1", "choices": [{"message": {"content": said}}]}
        sent = (said if isinstance(said, str) else json.dumps(said)).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_):
        pass
