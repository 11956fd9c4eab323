//! Reads the state of the machine: processes, their work, listening ports, files. From /proc on Linux, `ps` and `netstat`
//! elsewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process with a mark.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: i32,
    pub command: String,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.pid, self.command.trim_end())
    }
}

/// The processes with this text in their environment or, on Linux, in their command line, except this one.
pub fn processes(mark: &str) -> Vec<Process> {
    match cfg!(target_os = "linux") {
        true => read_proc(mark),
        false => read_ps(mark),
    }
}

fn read_proc(mark: &str) -> Vec<Process> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        // A process that ends meanwhile reads as empty.
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let marked = command.contains(mark) || contains(&read("environ"), mark.as_bytes());
        if marked && pid.unsigned_abs() != std::process::id() {
            found.push(Process { pid, command });
        }
    }
    found
}

fn read_ps(mark: &str) -> Vec<Process> {
    let marked = said("ps", &["-axwwE", "-o", "pid=,command="]);
    let pids: BTreeSet<i32> = marked
        .lines()
        .filter(|l| l.contains(mark))
        .filter_map(|l| l.split_whitespace().next()?.parse().ok())
        .collect();
    let plain = said("ps", &["-axww", "-o", "pid=,command="]);
    let process = |line: &str| {
        let (pid, command) = line.trim_start().split_once(' ')?;
        let (pid, command) = (pid.parse().ok()?, command.to_owned());
        pids.contains(&pid).then_some(Process { pid, command })
    };
    plain.lines().filter_map(process).collect()
}

fn said(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).output();
    let stdout = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&stdout).into_owned()
}

/// Whether the bytes contain the needle.
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && hay.windows(needle.len()).any(|w| w == needle)
}

/// The listening TCP ports of this machine.
pub fn listening() -> BTreeSet<u16> {
    match cfg!(target_os = "linux") {
        true => sockets().into_iter().map(|(port, _)| port).collect(),
        false => {
            let text = said("netstat", &["-an", "-p", "tcp"]);
            let local = text.lines().filter(|l| l.ends_with("LISTEN"));
            let address = local.filter_map(|l| l.split_whitespace().nth(3));
            address
                .filter_map(|a| a.rsplit('.').next()?.parse().ok())
                .collect()
        }
    }
}

/// Port and inode of each listening socket.
fn sockets() -> Vec<(u16, String)> {
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // 0A is LISTEN.
            if fields.len() > 9
                && fields[3] == "0A"
                && let Some((_, port)) = fields[1].rsplit_once(':')
                && let Ok(port) = u16::from_str_radix(port, 16)
            {
                found.push((port, fields[9].to_owned()));
            }
        }
    }
    found
}

/// The listening ports of these processes.
pub fn ports_of(processes: &[Process]) -> BTreeSet<u16> {
    let held: BTreeSet<String> = processes.iter().flat_map(|p| descriptors(p.pid)).collect();
    let ours = sockets().into_iter();
    let ours = ours.filter(|(_, inode)| held.contains(&format!("socket:[{inode}]")));
    ours.map(|(port, _)| port).collect()
}

/// The targets of the descriptors of a process, such as `pipe:[4711]`.
pub fn descriptors(pid: i32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let entries = entries.into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

/// The peak memory of a process, in KiB.
pub fn peak_memory(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The work of processes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Their processor time so far, with that of ended children.
    pub computed: Duration,
    /// Whether one of them uses or waits for a processor or a disk.
    pub waits: bool,
}

/// The work of these processes; zero without /proc.
pub fn work(pids: &[i32]) -> Work {
    let mut work = Work::default();
    for pid in pids {
        let [state, times @ ..] = stat(&format!("/proc/{pid}/stat"), [0, 11, 12, 13, 14]);
        let ticks: u64 = times.iter().filter_map(|t| t.parse::<u64>().ok()).sum();
        work.computed +=
            Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
        let threads = tasks(*pid).map(|task| stat(&format!("{task}/stat"), [0])[0].clone());
        let waits = |state: String| ["R", "D"].contains(&state.as_str());
        work.waits |= state != "Z" && threads.into_iter().any(waits);
    }
    work
}

/// Fields after the name, which may contain blanks and parentheses.
fn stat<const N: usize>(path: &str, fields: [usize; N]) -> [String; N] {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
    let all: Vec<&str> = behind.split_whitespace().collect();
    fields.map(|at| all.get(at).copied().unwrap_or_default().to_owned())
}

fn tasks(pid: i32) -> impl Iterator<Item = String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.map(|task| task.path().display().to_string())
}

/// A process and its descendants, as far as no process between them has ended.
pub fn tree(root: i32) -> Vec<i32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        let lists = tasks(*pid).map(|task| std::fs::read_to_string(format!("{task}/children")));
        let children: String = lists.filter_map(Result::ok).collect();
        let children = children.split_whitespace();
        found.extend(children.filter_map(|pid| pid.parse::<i32>().ok()));
        at += 1;
    }
    found
}

/// Every file, socket and link below a directory, without directories.
pub fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                _ => drop(found.insert(entry.path())),
            }
        }
    }
    found
}
