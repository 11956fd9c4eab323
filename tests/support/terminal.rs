//! A person at a terminal, as a program sees them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, timeout_at};

use crate::DEADLINE;

/// A program that has a terminal for stdin, stdout and stderr.
#[derive(Debug)]
pub struct Terminal {
    pub child: Child,
    keys: File,
    screen: UnboundedReceiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    pub fn start(mut command: Command) -> Terminal {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("no terminal");
        grantpt(&ours).expect("no terminal");
        unlockpt(&ours).expect("no terminal");
        let name = ptsname(&ours, Vec::new()).expect("the terminal has no name");
        let name = name.into_string().expect("the name is text");
        let theirs = File::options().read(true).write(true).open(name);
        let theirs = OwnedFd::from(theirs.expect("cannot open the terminal"));
        let end = || Stdio::from(theirs.try_clone().expect("no file descriptor"));
        command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm");
        let child = command.kill_on_drop(true).spawn();
        let keys = File::from(ours);
        let mut screen = keys.try_clone().expect("no file descriptor");
        let (sender, receiver) = unbounded_channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end is an error on Linux: the other side is closed.
            while let Ok(n @ 1..) = screen.read(&mut bytes) {
                if sender.send(bytes[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            child: child.expect("cannot start the program"),
            keys,
            screen: receiver,
            seen: String::new(),
        }
    }

    /// Types, return included.
    pub fn answer(&mut self, line: &str) {
        self.keys
            .write_all(format!("{line}\n").as_bytes())
            .expect("cannot type");
    }

    /// Types keys as they are.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("cannot type");
    }

    /// Waits until this text is on the screen, after what was waited for before.
    pub async fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + DEADLINE * 2;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            match timeout_at(deadline, self.screen.recv()).await {
                Ok(Some(bytes)) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Ok(None) => panic!("the program ended without {text:?}\n{}", self.seen),
                Err(_) => panic!("no {text:?} on the screen\n{}", self.seen),
            }
        }
    }
}
