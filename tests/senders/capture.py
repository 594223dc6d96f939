"""A sink that writes every OTLP/HTTP metrics body it gets to a file, just as the sender encoded it (decompressed).

    capture.py --port PORT --prefix PATH [--count N] [--skip N] [--containing TEXT ...] [--seconds S]

writes PATH-1.otlp.pb, PATH-2.otlp.pb, ... and ends after N bodies with 0, or after S seconds without them with 1.
--containing keeps only bodies that hold each TEXT somewhere, which is enough to tell one metric's name.
"""

import argparse
import gzip
import http.server
import pathlib
import sys
import threading


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--skip", type=int, default=0, help="bodies to let pass first")
    parser.add_argument("--containing", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=60)
    return parser.parse_args()


def read_body(request):
    """The body as real senders frame it: with a length (Python), chunked (Node), chunked and gzip (Go)."""
    if "chunked" in request.headers.get("Transfer-Encoding", "").lower():
        parts = []
        while size := int(request.rfile.readline().split(b";")[0], 16):
            parts.append(request.rfile.read(size))
            request.rfile.readline()
        while request.rfile.readline().strip():
            pass
        body = b"".join(parts)
    else:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
    if request.headers.get("Content-Encoding", "") == "gzip":
        body = gzip.decompress(body)
    return body


def main():
    args = arguments()
    done = threading.Event()
    lock = threading.Lock()
    seen = 0
    kept = set()

    def keep(body):
        nonlocal seen
        if not all(text.encode() in body for text in args.containing):
            return
        with lock:
            # The Go SDK sends its last body twice; a fixture needs it once.
            if done.is_set() or body in kept:
                return
            seen += 1
            if seen <= args.skip:
                return
            kept.add(body)
            path = pathlib.Path(f"{args.prefix}-{len(kept)}.otlp.pb")
            path.write_bytes(body)
            print(f"{path.name}: {len(body)} bytes")
            if len(kept) == args.count:
                done.set()

    class Sink(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = read_body(self)
            # An empty body is a full success; traces and logs of one-endpoint SDKs are taken and forgotten.
            self.send_response(200)
            self.send_header("Content-Type", self.headers.get("Content-Type", "application/x-protobuf"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            if self.path == "/v1/metrics" and "protobuf" in self.headers.get("Content-Type", ""):
                keep(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", args.port), Sink)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if not done.wait(args.seconds):
        print(f"only {len(kept)} of {args.count} bodies in {args.seconds} s ({seen} fit)", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
