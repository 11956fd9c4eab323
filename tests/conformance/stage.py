#!/usr/bin/env python3
"""A full stage in Python, written from PROTOCOL.md. It passes every check of the kit; with BREAK=<id> it fails that one."""

import fcntl
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time

KIND = "reference"
VERBS = ["run", "once", "wait", "check", "cleanup", "describe", "validate"]
FIELDS = {"value": {"type": "string"}, "token": {"type": "string", "writeOnly": True}}
LIMIT = 65536
BREAK = os.environ.get("BREAK", "")


class Failure(Exception):
    def __init__(self, exit, code, message, fatal=True):
        super().__init__(message)
        self.exit, self.error = exit, {"code": code, "message": message, "retryable": False, "fatal": fatal}


def people(text):
    try:
        os.write(2, (text + "\n").encode())
    except OSError:
        pass


class Call:
    """The command line."""

    def __init__(self, words):
        self.command = None
        if "--" in words:
            at = words.index("--")
            words, self.command = words[:at], words[at + 1 :]
        if BREAK == "verbs.default" and words[:1] and words[0] not in VERBS:
            usage("no verb")
        self.verb = words.pop(0) if words[:1] and words[0] in VERBS else "run"
        self.flags = {"name": KIND, "run-dir": "/tmp/reference-stage", "events": None, "stdin": "none"}
        known = [*self.flags, "config", "timeout", "linger", *FIELDS]
        self.preflight = self.verb == "check" and "--preflight" in words
        # It leaves nothing that running tasks depend on.
        bare = {"check": "--preflight", "cleanup": "--keep"}.get(self.verb)
        words = [word for word in words if word != bare]
        while words:
            flag, eq, value = words.pop(0).partition("=")
            flag = {"-c": "--config"}.get(flag, flag)
            if not flag.startswith("--") or flag[2:] not in known or not (eq or words):
                usage(f"unknown flag {flag}")
            self.flags[flag[2:]] = value if eq else words.pop(0)
        self.name, self.run_dir = self.flags["name"], self.flags["run-dir"]
        if not (0 < len(self.name) < 64 and self.name[0].isalnum() and self.name.replace("-", "").replace(".", "").replace("_", "").isalnum()):
            usage("a bad --name")
        if self.flags["events"] not in (None, "all", "ready", "none") or self.flags["stdin"] not in ("none", "chain", "control"):
            usage("a bad flag")
        self.events = self.flags["events"] or ("none" if self.command or os.isatty(1) else "all")
        if BREAK == "ready.events":
            self.events = "all"

    def config(self, given=None):
        config = dict(given or {})
        if given is None and "config" in self.flags:
            with open(self.flags["config"]) as file:
                config = json.load(file)
        config.update({k: v for k, v in self.flags.items() if k in FIELDS})
        for key, value in config.items():
            if key not in FIELDS and BREAK != "stdout.unknown_config":
                raise Failure(2, "reference.config", f"unknown field {key}")
            if not isinstance(value, str) and key in FIELDS:
                if BREAK == "stdout.bad_config":
                    os.write(1, b"TypeError: not a string\n")
                raise Failure(2, "reference.config", f"{key} has to be a string")
        return config


def usage(text):
    people(text)
    sys.exit(1 if BREAK == "verbs.usage" else 2)


class RunDir:
    def __init__(self, path):
        if BREAK == "stdout.bad_day" and not os.path.isdir(os.environ.get("TMPDIR", "/tmp")):
            print("no temporary directory", flush=True)
        try:
            for part in ("", "outputs", "status"):
                os.makedirs(os.path.join(path, part), 0o700, exist_ok=True)
                there = os.lstat(os.path.join(path, part).rstrip("/"))
                wrong = not stat.S_ISDIR(there.st_mode) or there.st_uid != os.getuid() or there.st_mode & 0o022
                if wrong and BREAK != "run_dir.refused":
                    raise Failure(2, "reference.unsafe_dir", f"{path} is a link, or others may write to it")
        except OSError as e:
            raise Failure(1, "reference.io", f"cannot make {path}: {e}")
        self.path = path

    def file(self, *parts):
        return os.path.join(self.path, *parts)

    def read(self, *parts):
        """A file of another process, which may be missing, too long, or not JSON."""
        try:
            if BREAK == "run_dir.garbage" and os.path.exists(self.file(*parts)):
                return json.load(open(self.file(*parts)))
            fd = os.open(self.file(*parts), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            with open(fd, "rb") as file:
                there = os.fstat(fd)
                if not stat.S_ISREG(there.st_mode) or there.st_size > 1 << 20:
                    return None
                value = json.loads(file.read())
                return value if isinstance(value, dict) else None
        except (OSError, ValueError, RecursionError):
            if BREAK == "run_dir.garbage" and os.path.exists(self.file(*parts)):
                raise
            return None

    def write(self, value, *parts):
        beside = self.file(*parts) + ".tmp"
        self.remove(*parts[:-1], parts[-1] + ".tmp")
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644 if BREAK == "run_dir.private" else 0o600)
        with open(fd, "w") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(fd)
        os.rename(beside, self.file(*parts))

    def remove(self, *parts):
        try:
            os.remove(self.file(*parts))
        except FileNotFoundError:
            pass

    def lock(self, name, run, patience=5):
        fd = os.open(self.file(name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        deadline = time.monotonic() + (0 if BREAK == "lock.successor" else patience)
        while BREAK != "lock.second_run":
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Failure(6, "reference.locked", f"{name} runs already")
                time.sleep(0.02)
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps({"run": run}).encode(), 0)
        except OSError as e:
            raise Failure(1, "reference.io", f"cannot write {name}.lock: {e}")
        return fd

    def holder(self, name):
        try:
            fd = os.open(self.file(name + ".lock"), os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return (self.read(name + ".lock") or {}).get("run")

    def live(self, name):
        outputs = self.read("outputs", name + ".json")
        return outputs if outputs and outputs.get("run") == self.holder(name) else None


class Stage:
    def __init__(self, call):
        self.call, self.run = call, os.urandom(8).hex()
        self.ready, self.gen, self.lock, self.helper, self.outputs = False, 0, None, None, None
        self.phase, self.listener, self.dir = "starting", None, None

    def say(self, type, **fields):
        if self.call.events == "none" or (self.call.events == "ready" and type != "ready"):
            return
        line = (json.dumps({"dcs": 1, "type": type, "stage": self.call.name, **fields}, separators=(",", ":")) + "\n").encode()
        if type == "ready" and BREAK != "ready.twice":
            line += line
        try:
            if BREAK == "stdout.one_write":
                os.write(1, line[:9])
                line = line[9:]
            os.write(1, line)
        except BrokenPipeError:
            pass

    def hello(self):
        if BREAK == "stdout.lines":
            os.write(1, b"reference stage 1.0\n")
        self.say("hello", kind=KIND, version="1", run=self.run, pid=os.getpid())

    def enter(self, phase, error=None):
        self.phase = phase
        if self.dir:
            status = {"dcs": 1, "stage": self.call.name, "kind": KIND, "run": self.run, "pid": os.getpid(), "phase": phase,
                      "since_ms": int(time.time() * 1000), "message": None, "error": error}
            self.dir.write(status, "status", self.call.name + ".json")

    def claim(self):
        self.dir = RunDir(self.call.run_dir)
        self.lock = self.dir.lock(self.call.name, self.run)
        if BREAK == "devcluster.end_to_end":
            if os.path.exists(self.dir.file("second")):
                time.sleep(600)
            self.dir.write({}, "second")
        name = self.call.name + ".json"
        previous = self.dir.read("outputs", name) or {}
        self.gen = previous.get("gen", 0) if isinstance(previous.get("gen", 0), int) else 0
        if BREAK != "outputs.stale_gone":
            self.dir.remove("outputs", name)
        else:
            time.sleep(1)
        self.enter("preparing")

    def prepare(self, config):
        """The work: a port, and a process that ends with this one because it reads from a pipe of it."""
        if BREAK == "kill.leftovers":
            open(os.path.join(os.environ["HOME"], f"left-{self.run}"), "w").close()
        if BREAK == "ready.reached":
            time.sleep(600)
        if BREAK == "shutdown.early":
            time.sleep(1)
        if self.listener is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
            stdout = 1 if BREAK == "streams.descendants" else subprocess.DEVNULL
            program = ["sleep", "600"] if BREAK == "kill.processes" else ["cat"]
            alone = BREAK == "kill.processes"
            self.helper = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.DEVNULL, start_new_session=alone)
        outputs = {"value": config.get("value", "x"), "port": self.listener.getsockname()[1]}
        if BREAK == "outputs.schema":
            outputs["port"] = str(outputs["port"])
        if BREAK == "a secret of the config":
            people(f"the token is {config['token']}")
        if BREAK == "secrets.nowhere":
            people(f"environment: {dict(os.environ)}")
        self.report(outputs)

    def report(self, outputs):
        if outputs != self.outputs:
            self.gen += 1
            self.outputs = outputs
            file = {"dcs": 1, "stage": self.call.name, "kind": KIND, "run": self.run, "gen": self.gen,
                    "outputs": outputs, "secrets": {}, "prev": None}
            if BREAK == "outputs.before_ready":
                self.say("ready", run=self.run, gen=self.gen)
            if BREAK != "outputs.file":
                self.dir.write(file, "outputs", self.call.name + ".json")
            self.say("outputs", kind=KIND, run=self.run, gen=self.gen, outputs=outputs)
        if self.call.verb == "run":
            self.ready = True
            self.enter("ready")
            self.say("ready", run=self.run, gen=self.gen)
        if BREAK == "outputs.file":
            time.sleep(1)
            self.dir.write(file, "outputs", self.call.name + ".json")

    def give_back(self):
        if BREAK == "kill.leftovers":
            os.remove(os.path.join(os.environ["HOME"], f"left-{self.run}"))
        if BREAK == "lock.released" and self.lock:
            subprocess.Popen(["env", "-i", "sleep", "8"], pass_fds=[self.lock], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if self.helper:
            self.helper.kill()
            self.helper.wait()
        if self.listener:
            self.listener.close()


class Host:
    """Lines on stdin; keeps at most the limit of one line."""

    def __init__(self):
        self.buffer, self.skipping = b"", False

    def read(self):
        """Whole lines, and None at the end."""
        try:
            data = os.read(0, LIMIT)
        except OSError:
            data = b""
        if BREAK == "input.interleaved" and data:
            yield data
            return
        if not data:
            if BREAK == "input.truncated" and self.buffer:
                yield self.buffer
                self.buffer = b""
                return
            yield None
        for piece in data.splitlines(keepends=True):
            self.buffer += piece
            whole = piece.endswith(b"\n")
            if len(self.buffer) > LIMIT and BREAK != "input.memory":
                if BREAK == "input.oversized":
                    raise Failure(1, "reference.too_long", "a line is too long")
                self.buffer, self.skipping = b"", True
            if whole:
                line, self.buffer = self.buffer, b""
                if self.skipping:
                    self.skipping = False
                else:
                    yield line


def decode(line):
    """A message; None if it is not valid."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        if BREAK == "input.malformed":
            raise
        return people("skipped a line that is not a message")
    if not isinstance(message, dict) or "dcs" not in message:
        return None
    if (message["dcs"] != 1 or message["dcs"] is True) and BREAK != "control.version":
        raise Failure(3, "reference.version", f"the other program has version {message['dcs']}, this one has 1")
    if not isinstance(message.get("type"), str) or not isinstance(message.get("config", {}), dict):
        return None
    return message


class Run:
    """The verb `run`: one loop over signals, stdin, the readers of the output, and a command."""

    def __init__(self, call):
        self.stage, self.call, self.host = Stage(call), call, Host()
        self.wake, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write)
        self.signals = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self.heard)
        if BREAK == "shutdown.sigterm":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if BREAK == "shutdown.sigint":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.child = self.upstream = None

    def heard(self, number, _):
        if number != signal.SIGCHLD:
            self.signals.append(number)

    def go(self):
        stage = self.stage
        mode = self.call.flags["stdin"]
        try:
            if mode != "chain":
                stage.hello()
            if BREAK == "stdin.terminal" and os.isatty(0):
                raise Failure(1, "reference.terminal", "no terminals please")
            config = None if mode == "control" else self.call.config()
            if mode == "none" or BREAK == "control.waits_for_start":
                self.begin(config or {})
            return self.finish(*self.loop(mode, config))
        except Failure as failure:
            return self.fail(failure)

    def begin(self, config):
        stage = self.stage
        if stage.lock is None:
            stage.claim()
        stage.prepare(config)
        if self.call.command and self.child is None:
            self.child = subprocess.Popen(self.call.command, env={**os.environ, "DEVCLUSTER_RUN_DIR": self.call.run_dir})

    def loop(self, mode, config):
        """Runs until the end; returns the reason and the exit code."""
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        if mode != "none" or BREAK == "stdin.null" or (BREAK == "stdin.closed" and not STDIN_OPEN):
            poll.register(0, select.POLLIN)
        for fd in (1, 2):
            kind = os.fstat(fd).st_mode
            if (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)) and BREAK not in ("streams.reader_gone", "streams.host_gone"):
                poll.register(fd, 0)
        while True:
            for fd, event in poll.poll(0 if BREAK == "stdin.silent" else None):
                if fd == self.wake:
                    os.read(self.wake, 512)
                elif fd == 0:
                    end = self.spoken_to(mode, config)
                    if end:
                        return end
                elif event & (select.POLLERR | select.POLLHUP):
                    return "host_gone", 0
            if self.signals:
                return {signal.SIGTERM: "sigterm", signal.SIGINT: "sigint"}.get(self.signals[0], "sighup"), 0
            if self.child and self.child.poll() is not None:
                return "command_ended", 0 if BREAK == "verbs.command" else self.child.returncode

    def spoken_to(self, mode, config):
        for line in self.host.read():
            if mode == "chain":
                end = self.from_before(line, config)
            elif line is None:
                deaf = BREAK in ("shutdown.stdin_end", "streams.host_gone")
                if mode == "control":
                    deaf |= (BREAK == "stdin.null" and is_null(0)) or (BREAK == "stdin.closed" and not STDIN_OPEN)
                end = None if deaf else ("stdin_closed", 0)
                if end is None:
                    time.sleep(0.05)
            else:
                end = self.command(decode(line))
            if end:
                return end

    def command(self, message):
        kind = (message or {}).get("type")
        stage = self.stage
        if kind == "start" and not stage.ready:
            self.begin(self.call.config(message.get("config", {})))
        elif kind == "reload" and stage.ready:
            try:
                config = self.call.config(message.get("config", {}))
            except Failure as failure:
                if BREAK == "control.reload":
                    raise
                people(str(failure))
                return stage.say("error", error={**failure.error, "fatal": False})
            stage.prepare(config)
        elif kind == "shutdown":
            return "shutdown", 0
        elif kind == "cancel" and (not stage.ready or BREAK == "control.cancel"):
            raise Failure(1, "reference.cancelled", "cancelled by the host")
        elif kind not in (None, "start", "reload", "cancel") and BREAK == "control.unknown_ignored":
            raise Failure(1, "reference.unknown", f"unknown type {kind}")

    def from_before(self, line, config):
        if line is None:
            if BREAK == "chain.ends_with_upstream":
                return "upstream_gone", 0
            raise Failure(4, "reference.upstream_gone", "the stage before ended")
        message = decode(line)
        if message and (BREAK != "chain.passes_on" or message["type"] in ("hello", "outputs", "ready")):
            os.write(1, line)
        if self.upstream is None:
            self.upstream = {}
            self.stage.hello()
        if message and message["type"] == "ready" and not self.stage.ready:
            self.begin(config)

    def stopped(self, reason):
        stage = self.stage
        stage.enter("stopping")
        stage.say("stopping", reason=reason)
        if BREAK == "shutdown.message":
            time.sleep(0.8)
        if BREAK == "shutdown.sigterm_twice":
            deadline = time.monotonic() + 10
            while len(self.signals) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            if len(self.signals) > 1:
                subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if self.child and self.child.poll() is None:
            self.child.terminate()
            self.child.wait()
        stage.give_back()

    def finish(self, reason, code):
        self.stopped(reason)
        self.stage.enter("stopped")
        self.stage.say("result", ok=code == 0, exit=code)
        return code

    def fail(self, failure):
        people(f"{self.stage.call.name}: error: {failure}\n  code: {failure.error['code']}")
        self.stage.give_back()
        self.stage.enter("failed", failure.error)
        self.stage.say("error", error=failure.error)
        self.stage.say("result", ok=False, exit=failure.exit)
        return failure.exit


def once(call):
    stage = Stage(call)
    if BREAK == "verbs.once":
        return 1
    stage.hello()
    try:
        stage.claim()
        stage.prepare(call.config())
        code = 0
    except Failure as failure:
        people(str(failure))
        stage.say("error", error=failure.error)
        code = failure.exit
    stage.give_back()
    stage.enter("stopped")
    stage.say("result", ok=code == 0, exit=code)
    return code


def wait(call):
    began, directory = time.monotonic(), RunDir(call.run_dir)
    while BREAK != "verbs.wait":
        if directory.live(call.name):
            return 0
        waited, holder = time.monotonic() - began, directory.holder(call.name)
        status = directory.read("status", call.name + ".json") or {}
        failed = status.get("phase") == "failed"
        if (holder and failed and status.get("run") == holder) or (not holder and (waited > 10 or (failed and waited > 2))):
            people("it does not run, or it failed")
            return 4
        if waited > float(call.flags.get("timeout", "inf")):
            people("not ready in time")
            return 7
        time.sleep(0.02)
    return 0


def check(call):
    if call.preflight:
        stage = Stage(call)
        stage.hello()
        if BREAK == "verbs.preflight":
            stage.claim()
        stage.say("check", id="port", title="a port is available", status="ok")
        stage.say("result", ok=True, exit=0)
        return 0
    return 0 if BREAK == "verbs.check" or RunDir(call.run_dir).live(call.name) else 5


def cleanup(call):
    directory = RunDir(call.run_dir)
    directory.lock(call.name, os.urandom(8).hex())
    name = call.name + ".json"
    existed = os.path.exists(directory.file("status", name))
    for kept in ("outputs", "status"):
        directory.remove(kept, name)
        directory.remove(kept, name + ".tmp")
    return 1 if BREAK == "verbs.cleanup" and not existed else 0


def rules(config, unknown):
    """Mistakes that a schema cannot express, as pointer and message; for a stage of another kind."""
    return []


def validate(call):
    """The whole of stdin is one request."""
    try:
        request = json.loads(sys.stdin.buffer.read((4 << 20) + 1))
        instances = request["instances"] if request["dcs"] == 1 else []
    except (ValueError, KeyError, TypeError):
        people("that is not a request")
        return 2
    verdicts = []
    for instance in instances:
        config, unknown = instance["config"], instance.get("unknown", [])
        wrong = [("/" + key, "unknown field") for key in config if key not in FIELDS and BREAK != "validate.problems"]
        known = {k: v for k, v in config.items() if k in FIELDS and ("/" + k not in unknown or BREAK == "validate.unknown")}
        wrong += [("/" + key, "has to be a string") for key, value in known.items()
                  if FIELDS[key]["type"] == "string" and (not isinstance(value, str) or BREAK == "validate.unknown" and "$" in value)]
        wrong += [(path, message) for path, message in rules(config, unknown) if path not in unknown]
        problems = [{"path": path, "message": message} for path, message in wrong]
        verdicts.append({"stage": instance["stage"], "problems": problems, "effective": known, "gate": "stage",
                         "exposes": [], "waits_for": [], "outline": f"holds a port for {config.get('value', 'x')}"})
    if BREAK == "validate.offline":
        open(os.path.join(os.environ["HOME"], "validated"), "w").close()
    print(json.dumps({"dcs": 1, "instances": verdicts}))
    return 0


def describe(call):
    if BREAK == "describe.quick":
        time.sleep(1.1)
    if BREAK == "describe.no_side_effects":
        open(os.path.join(os.environ["HOME"], "described"), "w").close()
    schema = {"type": "object", "additionalProperties": False, "properties": FIELDS}
    outputs = {"type": "object", "required": ["value", "port"], "properties": {"value": {"type": "string"}, "port": {"type": "integer"}}}
    print(json.dumps({"dcs": 1, "kind": KIND, "version": "1", "about": __doc__, "verbs": VERBS,
                      "config": 7 if BREAK == "describe.valid" else schema, "outputs": outputs}))
    return 0


def is_open(fd):
    """Whether a standard stream is open: if it is closed, Python's file of this program may have its number."""
    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        return fd == 0 or mode != os.O_RDONLY
    except OSError:
        return False


def is_null(fd):
    return stat.S_ISCHR(os.fstat(fd).st_mode) and not os.isatty(fd)


STDIN_OPEN = is_open(0)


def main():
    # The next opened file would get the number of a closed stream.
    for fd in (0, 1, 2):
        if not is_open(fd):
            if fd == 1 and BREAK == "streams.stdout_closed":
                instead = os.open(os.path.join(os.environ["HOME"], "log"), os.O_WRONLY | os.O_CREAT)
            elif fd == 2 and BREAK == "streams.stderr_closed":
                instead = 1
            else:
                instead = os.open(os.devnull, os.O_RDWR)
            if instead != fd:
                os.dup2(instead, fd)
    call = Call(sys.argv[1:])
    verbs = {"run": lambda c: Run(c).go(), "once": once, "wait": wait, "check": check, "cleanup": cleanup, "describe": describe, "validate": validate}
    try:
        return verbs[call.verb](call)
    except Failure as failure:
        people(str(failure))
        return failure.exit


if __name__ == "__main__":
    sys.exit(main())
