//! stdin, stdout and stderr of a stage. stdout is protocol; stderr is people.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::io::AsyncRead;

/// Lines that may wait for a reader that does not read, before further ones are dropped.
const BACKLOG: usize = 4096;

/// The three streams, and the descriptors whose closing says that the host is gone.
pub struct Io {
    /// Where the host, the upstream or nobody speaks.
    pub stdin: Box<dyn AsyncRead + Unpin + Send>,
    /// Protocol lines, or a document.
    pub stdout: Box<dyn Write + Send>,
    /// Text for people.
    pub stderr: Box<dyn Write + Send>,
    /// stdout is a terminal: no protocol lines unless asked for.
    pub stdout_is_terminal: bool,
    /// Output pipes to watch for a reader that went away.
    pub output_pipes: Vec<OwnedFd>,
    /// What a command that we run gets as its stdout.
    pub command_stdout: Option<OwnedFd>,
}

impl Io {
    /// Takes over the process's own streams. Afterwards descriptor 1 is stderr, so that no library can write between
    /// the protocol's lines.
    pub fn of_process() -> std::io::Result<Io> {
        let stdout = rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3)?;
        let stderr = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3)?;
        let output_pipes = [&stdout, &stderr]
            .into_iter()
            .filter(|fd| is_pipe(fd))
            .map(|fd| fd.try_clone())
            .collect::<Result<Vec<_>, _>>()?;
        let stdout_is_terminal = rustix::termios::isatty(&stdout);
        rustix::stdio::dup2_stdout(&stderr)?;
        Ok(Io {
            stdin: Box::new(tokio::io::stdin()),
            command_stdout: Some(stdout.try_clone()?),
            stdout: Box::new(std::fs::File::from(stdout)),
            stderr: Box::new(std::fs::File::from(stderr)),
            stdout_is_terminal,
            output_pipes,
        })
    }
}

fn is_pipe(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        matches!(
            kind,
            rustix::fs::FileType::Fifo | rustix::fs::FileType::Socket
        )
    })
}

/// A writer with a thread of its own, so that a reader that does not read cannot hold the stage.
#[derive(Clone)]
pub(crate) struct Sink {
    queue: mpsc::Sender<Item>,
    waiting: Arc<AtomicUsize>,
    broken: Arc<AtomicBool>,
}

enum Item {
    Line(Vec<u8>),
    Flush(mpsc::Sender<()>),
}

impl Sink {
    /// Starts the thread. It ends when the last clone of the sink is gone.
    pub(crate) fn new(mut writer: Box<dyn Write + Send>) -> Sink {
        let (queue, items) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let broken = Arc::new(AtomicBool::new(false));
        let (left, failed) = (waiting.clone(), broken.clone());
        std::thread::spawn(move || {
            for item in items {
                match item {
                    Item::Line(line) => {
                        left.fetch_sub(1, Ordering::Relaxed);
                        if !failed.load(Ordering::Relaxed)
                            && writer
                                .write_all(&line)
                                .and_then(|()| writer.flush())
                                .is_err()
                        {
                            failed.store(true, Ordering::Relaxed);
                        }
                    }
                    Item::Flush(done) => drop(done.send(())),
                }
            }
        });
        Sink {
            queue,
            waiting,
            broken,
        }
    }

    /// Queues bytes that leave in one write. Dropped when the reader is thousands of lines behind.
    pub(crate) fn write(&self, bytes: Vec<u8>) {
        if self.waiting.load(Ordering::Relaxed) < BACKLOG {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            drop(self.queue.send(Item::Line(bytes)));
        }
    }

    /// Waits until everything queued has been written, or gives up.
    pub(crate) fn flush(&self, deadline: Duration) -> bool {
        let (done, wait) = mpsc::channel();
        self.queue.send(Item::Flush(done)).is_ok()
            && wait.recv_timeout(deadline).is_ok()
            && !self.broken.load(Ordering::Relaxed)
    }
}
