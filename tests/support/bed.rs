//! The node bed of tests/bed: a real Kubernetes, whose hosts are network namespaces.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::build_dir;
use crate::skip::skip;

/// On a machine that builds much else beside.
const READY: Duration = Duration::from_secs(300);
const ANSWER: Duration = Duration::from_secs(60);

const HINT: &str = "scripts/get-bed as root; scripts/can-run-node says what this machine lacks";

/// True, with a line for the end of the run, where no node can run and no variable insists on one.
pub fn is_missing() -> bool {
    let dir = build_dir().join("bed");
    let probe = build_dir().with_file_name("scripts").join("can-run-node");
    let can_run = || {
        let verdict = Command::new(probe).arg(dir.join("root")).output();
        let verdict = verdict.expect("cannot run scripts/can-run-node");
        verdict.status.success()
    };
    if dir.join("store").is_dir() && can_run() {
        return false;
    }
    skip("node", HINT, "DEVCLUSTER_REQUIRE_NODE");
    true
}

/// A running bed. It ends with this value.
pub struct Bed {
    up: Child,
    commands: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What it said when it was ready.
    pub ready: Value,
    /// From the start to that line.
    pub took: Duration,
}

impl Bed {
    /// Starts one and waits until it runs pods.
    pub fn start() -> Bed {
        let dir = build_dir().join("bed");
        let started = Instant::now();
        let mut up = Command::new(dir.join("bed"))
            .args(["up", "-dir"])
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cannot start the bed");
        let stdout = BufReader::new(up.stdout.take().expect("no stdout"));
        let (sender, lines) = channel();
        // It ends with the stream.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        });
        let line = lines
            .recv_timeout(READY)
            .expect("the bed did not become ready");
        Bed {
            commands: up.stdin.take(),
            ready: serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")),
            took: started.elapsed(),
            up,
            lines,
        }
    }

    /// Sends one of the commands of its README, and waits until it is done.
    pub fn tell(&self, command: &str) {
        let mut commands = self.commands.as_ref().expect("the bed has ended");
        writeln!(commands, "{command}").expect("the bed does not listen");
        let answer = self
            .lines
            .recv_timeout(ANSWER)
            .unwrap_or_else(|_| panic!("no answer to {command}"));
        assert!(
            answer.starts_with(&format!(r#"{{"done":"{command}""#)),
            "{answer}"
        );
    }

    /// A command on `laptop`, `cloud` or `ssh`, with kubectl in its PATH.
    pub fn on(&self, host: &str, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(self.text(&format!("/enter/{host}")));
        command.arg(program.as_ref());
        command
    }

    /// What kubectl prints, run on the laptop.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args)
            .unwrap_or_else(|said| panic!("kubectl {args:?}: {said}"))
    }

    /// The same, where a refusal may be what is asked for.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        let done = self
            .on("laptop", "kubectl")
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("cannot run kubectl");
        match done.status.success() {
            true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
        }
    }

    /// Applies objects.
    pub fn apply(&self, yaml: &str) {
        let mut kubectl = self
            .on("laptop", "kubectl")
            .args(["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("cannot run kubectl");
        let mut stdin = kubectl.stdin.take().expect("no stdin");
        stdin.write_all(yaml.as_bytes()).expect("kubectl ended");
        drop(stdin);
        assert!(kubectl.wait().expect("cannot wait").success(), "{yaml}");
    }

    /// Runs a pod in a namespace that exists, and waits until it is ready.
    pub fn pod(&self, namespace: &str, name: &str, command: &[&str]) {
        let label = format!("--labels=app={name}");
        let mut args = vec!["run", "-n", namespace, name, &label];
        args.extend(["--image=bed.invalid/busybox:1", "--port=8080", "--"]);
        args.extend(command);
        self.kubectl(&args);
        let pod = format!("pod/{name}");
        self.kubectl(&[
            "wait",
            "-n",
            namespace,
            "--for=condition=Ready",
            "--timeout=120s",
            &pod,
        ]);
    }

    /// Whether a pod gets a page.
    pub fn gets(&self, namespace: &str, pod: &str, url: &str) -> bool {
        // Its own -T crashes the program.
        let wget = ["timeout", "2", "wget", "-q", "-O", "/dev/null", url];
        let mut args = vec!["exec", "-n", namespace, pod, "--"];
        args.extend(wget);
        self.try_kubectl(&args).is_ok()
    }

    pub fn text(&self, pointer: &str) -> &str {
        let found = self.ready.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no {pointer} in {}", self.ready))
    }

    /// Its directory.
    pub fn state(&self) -> PathBuf {
        Path::new(self.text("/kubeconfig"))
            .parent()
            .expect("a file is in a directory")
            .to_owned()
    }

    pub fn kill(&mut self) {
        self.up.kill().expect("cannot kill the bed");
        self.up.wait().expect("cannot wait for the bed");
    }

    /// The process that cleans up behind it.
    pub fn watcher(&self) -> Pid {
        let number = self.ready["number"].to_string();
        let dir = build_dir().join("bed");
        let found = processes().find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).collect();
            words.get(1..4)
                == Some(&[
                    b"watch",
                    dir.as_os_str().as_encoded_bytes(),
                    number.as_bytes(),
                ])
        });
        found.and_then(Pid::from_raw).expect("there is no watcher")
    }

    pub fn kill_watcher(&self) {
        kill_process(self.watcher(), Signal::KILL).expect("cannot kill the watcher");
    }

    /// What to look for when it is gone.
    pub fn traces(&self) -> Traces {
        let state = self.state();
        let init = fs::read_to_string(state.join("init")).expect("no init");
        let init = init.split(' ').next().unwrap_or_default();
        let mut namespaces: Vec<u64> = ["mnt", "pid", "net"]
            .iter()
            .map(|kind| inode(format!("/proc/{init}/ns/{kind}")))
            .collect();
        let others = self.ready["namespaces"].as_object().expect("no namespaces");
        namespaces.extend(others.values().filter_map(Value::as_str).map(inode));
        Traces {
            state,
            namespaces,
            cgroup: self.text("/cgroup").to_owned(),
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        drop(self.commands.take());
        drop(self.up.wait());
    }
}

/// Namespaces and the directory of a bed. Its mounts, links and processes are in these namespaces, and its cgroups have
/// its name.
pub struct Traces {
    state: PathBuf,
    namespaces: Vec<u64>,
    cgroup: String,
}

impl Traces {
    /// What is still there.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for pid in processes() {
            for kind in ["mnt", "pid", "net"] {
                let path = format!("/proc/{pid}/ns/{kind}");
                if fs::metadata(&path).is_ok_and(|it| self.namespaces.contains(&it.ino())) {
                    let line = fs::read_to_string(format!("/proc/{pid}/cmdline"));
                    left.push(format!("{path}: {line:?}"));
                }
            }
        }
        let state = self.state.to_string_lossy();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("no mounts");
        left.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&*state))
                .map(str::to_owned),
        );
        let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("no cgroups");
        let groups = hierarchies
            .flatten()
            .map(|it| it.path().join(&self.cgroup))
            .filter(|path| path.exists());
        left.extend(groups.map(|path| path.display().to_string()));
        if self.state.exists() {
            left.push(state.into_owned());
        }
        left
    }

    pub fn wait_until_gone(&self) {
        eventually("nothing is left behind", || self.left().is_empty());
    }
}

/// Waits until it is so.
pub fn eventually(what: &str, is: impl FnMut() -> bool) {
    assert!(within(ANSWER, is), "not so: {what}");
}

/// Whether it becomes so in this time.
pub fn within(time: Duration, mut is: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        match is() {
            true => return true,
            false if Instant::now() >= deadline => return false,
            false => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn inode(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path)
        .map(|it| it.ino())
        .expect("no such namespace")
}

fn processes() -> impl Iterator<Item = i32> {
    let all = fs::read_dir("/proc").expect("no /proc").flatten();
    all.filter_map(|it| it.file_name().to_str()?.parse().ok())
}
