"""Drives stock devcluster by its own Python API, for a test in another language.

Reads one JSON object a line: {"do": "set_target" | "restart" | "kill" | "close", "stage": ..., "signal": ...}.
Writes one a line: {"event": "status" | "log" | "started" | "closed", ...}.
"""

import json
import os
import signal
import sys
import threading

import devcluster as dc

lock = threading.Lock()


def say(event, **fields):
    with lock:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()


def on_event(event):
    if isinstance(event, dc.Status):
        names = [s.name for s in event.stages]
        say("status", state=event.state_idx, target=event.target_idx, stages=dict(zip(cluster.stages, names)))
    elif isinstance(event, dc.Log):
        say("log", stream=event.stream, text=event.msg.decode(errors="replace"))


cluster = dc.Devcluster(sys.argv[1], event_cbs=[on_event])
cluster.start()
say("started", pid=cluster._proc.pid)
for line in sys.stdin:
    command = json.loads(line)
    stage = command.get("stage")
    if command["do"] == "set_target":
        cluster.set_target(stage, wait=False)
    elif command["do"] == "restart":
        cluster.restart_stage(stage, wait=False)
    elif command["do"] == "kill":
        cluster._send_jmsg(
            {"kill_stage": {"target": cluster._stage_map[stage], "signal": getattr(signal.Signals, command["signal"])}}
        )
    elif command["do"] == "close":
        process = cluster._proc
        process.terminate()
        # cluster.close() would kill it after 3 s, which are few on a busy machine.
        code = process.wait()
        cluster.close()
        say("closed", code=code)
        break
os._exit(0)
