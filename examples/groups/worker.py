"""A worker of job.toml: an HTTP server that says which rank of its group it is, and on which cpus.

python worker.py PORT
"""

import http.server
import os
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        rank, ranks = os.environ["RANK"], os.environ["WORLD_SIZE"]
        body = f"worker {rank} of {ranks} on cpus {cpus}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
