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
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["directory"],
    "properties": {"directory": {"type": "string", "description": "What to serve"}},
}
RUN = os.urandom(8).hex()


def say(type, **fields):
    line = json.dumps({"dcs": 1, "type": type, "stage": name(), **fields}) + "\n"
    os.write(1, line.encode())  # one write a message


def name():
    return sys.argv[sys.argv.index("--name") + 1] if "--name" in sys.argv else KIND


def commands():
    """What the host says; the end of stdin means shutdown."""
    for line in sys.stdin:
        message = json.loads(line)
        if message["dcs"] != 1:
            fail("serve.version", f"the host speaks version {message['dcs']}, I speak 1", 3)
        yield message
    yield {"type": "shutdown"}


def fail(code, message, exit):
    say("error", error={"code": code, "message": message, "retryable": False, "fatal": True})
    say("result", ok=False, exit=exit)
    sys.exit(exit)


def serve(config):
    unknown = set(config) - set(SCHEMA["properties"])
    if unknown or "directory" not in config:
        fail("serve.config", f"takes `directory` and nothing else, got {sorted(config)}", 2)
    if not os.path.isdir(config["directory"]):
        fail("serve.no_directory", f"{config['directory']} is not a directory", 1)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=config["directory"])

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def run():
    say("hello", kind=KIND, version="1", run=RUN, pid=os.getpid())
    server, generation = None, 0
    for command in commands():
        if command["type"] in ("start", "reload"):
            if server:
                server.shutdown()
            server = serve(command.get("config", {}))
            generation += 1
            outputs = {"host": "127.0.0.1", "port": server.server_address[1]}
            say("outputs", kind=KIND, run=RUN, gen=generation, outputs=outputs)
            say("ready", run=RUN, gen=generation)
        elif command["type"] in ("shutdown", "cancel"):
            say("stopping", reason="shutdown")
            say("result", ok=True, exit=0)
            return


if sys.argv[1:2] == ["describe"]:
    print(json.dumps({"dcs": 1, "kind": KIND, "version": "1", "about": __doc__, "verbs": ["describe", "run"],
                      "config": SCHEMA, "outputs": {"type": "object"}}))
else:
    run()
