#!/usr/bin/env python3
"""A plugin: serves a directory over HTTP and reports where. Needs nothing but Python.

    stages:
      - plugin: {name: files, uses: ./serve.py, with: {directory: /tmp/wheels}}
"""

import http.server
import json
import os
import sys
import threading

KIND = "serve"
LIMIT = 65536  # bytes of a line
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["directory"],
    "properties": {"directory": {"type": "string", "description": "What to serve"}},
}
RUN = os.urandom(8).hex()
NAME = sys.argv[sys.argv.index("--name") + 1] if "--name" in sys.argv else KIND


def say(type, **fields):
    line = json.dumps({"dcs": 1, "type": type, "stage": NAME, **fields}) + "\n"
    os.write(1, line.encode())  # one write a message


def fail(code, message, exit):
    say("error", error={"code": code, "message": message, "retryable": False, "fatal": True})
    say("result", ok=False, exit=exit)
    sys.exit(exit)


def lines():
    """Whole lines of stdin; skips a line that is too long, drops an unfinished one at the end."""
    stdin = open(0, "rb", closefd=False)
    while line := stdin.readline(LIMIT):
        whole = line.endswith(b"\n")
        while line and not line.endswith(b"\n"):
            line = stdin.readline(LIMIT)
        if whole:
            yield line


def commands():
    """The commands of the host; skips invalid ones, the end of stdin means shutdown."""
    for line in lines():
        try:
            message = json.loads(line)
            version, _ = message["dcs"], message.get("config", {}).keys()
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            continue
        if version != 1:
            fail("serve.version", f"the host has protocol version {version}, this plugin has 1", 3)
        yield message.get("type"), message.get("config", {})
    yield "shutdown", {}


def serve(config):
    if set(config) != {"directory"} or not isinstance(config["directory"], str):
        fail("serve.config", f"takes `directory`, a text, and nothing else; got {sorted(config)}", 2)
    if not os.path.isdir(config["directory"]):
        fail("serve.no_directory", f"{config['directory']} is not a directory", 1)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=config["directory"])

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def run():
    say("hello", kind=KIND, version="1", run=RUN, pid=os.getpid())
    server = None
    for type, config in commands():
        if type == "start" and not server:
            server = serve(config)
            outputs = {"host": "127.0.0.1", "port": server.server_address[1]}
            say("outputs", kind=KIND, run=RUN, gen=1, outputs=outputs)
            say("ready", run=RUN, gen=1)
        elif type == "shutdown":
            say("stopping", reason="shutdown")
            say("result", ok=True, exit=0)
            return


if sys.argv[1:2] == ["describe"]:
    outputs = {"type": "object", "properties": {"host": {"type": "string"}, "port": {"type": "integer"}}}
    print(json.dumps({"dcs": 1, "kind": KIND, "version": "1", "about": __doc__, "verbs": ["describe", "run"],
                      "config": SCHEMA, "outputs": outputs}))
else:
    run()
