//! stdin, stdout and stderr of a stage. stdout is for the protocol, stderr for people.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::AsyncRead;
use tokio::sync::oneshot;

/// Bytes that may wait for a slow reader before droppable messages are dropped.
const BACKLOG: usize = 1 << 20;

/// The three streams, and the descriptors that show that the host is gone.
pub struct Io {
    /// Input from a host or an upstream stage, if any.
    pub stdin: Box<dyn AsyncRead + Unpin + Send>,
    /// Protocol lines, or a document.
    pub stdout: Box<dyn Write + Send>,
    /// Text for people.
    pub stderr: Box<dyn Write + Send>,
    /// stdout is a terminal: no protocol lines unless asked for.
    pub stdout_is_terminal: bool,
    /// Output pipes to watch for a reader that closes them.
    pub output_pipes: Vec<OwnedFd>,
    /// stdout for the command after `--`.
    pub command_stdout: Option<OwnedFd>,
}

impl Io {
    /// Takes over the process's streams. Afterwards descriptor 1 is stderr, so that no library can write between protocol
    /// lines.
    pub fn from_process() -> std::io::Result<Io> {
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
            stdout: Box::new(BlockingWriter(stdout.into())),
            stderr: Box::new(BlockingWriter(stderr.into())),
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

/// A writer that waits until a non-blocking file is writable. Another process that shares the file may set that mode.
struct BlockingWriter(File);

impl Write for BlockingWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    let writable = &mut [PollFd::new(&self.0, PollFlags::OUT)];
                    match poll(writable, None::<&Timespec>) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(e) => return Err(e.into()),
                    }
                }
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A writer with a thread of its own, so that a slow reader cannot block the stage.
#[derive(Clone)]
pub(crate) struct Sink {
    queue: mpsc::Sender<Item>,
    waiting: Arc<AtomicUsize>,
}

enum Item {
    Bytes(Vec<u8>),
    Flush(oneshot::Sender<std::io::Result<()>>),
}

impl Sink {
    /// Starts the thread. It ends when the last clone is dropped.
    pub(crate) fn new(writer: Box<dyn Write + Send>) -> Sink {
        let (queue, items) = mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = waiting.clone();
        std::thread::spawn(move || write_all(items, writer, &left));
        Sink { queue, waiting }
    }

    /// Queues bytes for one write, however slow the reader is.
    pub(crate) fn write(&self, bytes: Vec<u8>) {
        self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        drop(self.queue.send(Item::Bytes(bytes)));
    }

    /// Queues bytes, or drops them when the reader is far behind.
    pub(crate) fn write_lossy(&self, bytes: Vec<u8>) {
        if self.waiting.load(Ordering::Relaxed) + bytes.len() <= BACKLOG {
            self.write(bytes);
        }
    }

    /// Waits until everything queued is written. Returns the first error of any write.
    pub(crate) async fn flush(&self) -> std::io::Result<()> {
        let (done, wait) = oneshot::channel();
        drop(self.queue.send(Item::Flush(done)));
        wait.await
            .unwrap_or_else(|_| Err(std::io::Error::other("the writer is gone")))
    }
}

/// Writes nothing after a failed write, which may have written half a line: more bytes would look like its other half.
fn write_all(items: mpsc::Receiver<Item>, mut writer: Box<dyn Write + Send>, left: &AtomicUsize) {
    let mut failed: Option<std::io::Error> = None;
    for item in items {
        match item {
            Item::Bytes(bytes) => {
                if failed.is_none() {
                    let written = writer.write_all(&bytes).and_then(|()| writer.flush());
                    failed = written.err();
                }
                left.fetch_sub(bytes.len(), Ordering::Relaxed);
            }
            Item::Flush(done) => {
                let error = failed
                    .as_ref()
                    .map(|e| std::io::Error::new(e.kind(), e.to_string()));
                drop(done.send(error.map_or(Ok(()), Err)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[tokio::test]
    async fn a_write_to_a_full_nonblocking_pipe_waits() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let sink = Sink::new(Box::new(BlockingWriter(OwnedFd::from(writer).into())));
        let sent = vec![b'x'; 1 << 20];
        sink.write(sent.clone());
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        });
        sink.flush().await.unwrap();
        drop(sink);
        assert_eq!(reading.join().unwrap().unwrap(), sent);
    }

    #[tokio::test]
    async fn a_slow_reader_loses_only_droppable_messages() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let sink = Sink::new(Box::new(BlockingWriter(OwnedFd::from(writer).into())));
        for _ in 0..3 {
            sink.write(vec![b'o'; BACKLOG]);
            sink.write_lossy(b"log".to_vec());
        }
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).map(|_| read)
        });
        sink.flush().await.unwrap();
        sink.write_lossy(b"log".to_vec());
        drop(sink);
        let read = reading.join().unwrap().unwrap();
        let kept = read.iter().filter(|b| **b == b'o').count();
        assert!(read.ends_with(b"log") && kept >= 3 * BACKLOG);
        assert!(read.len() < 3 * BACKLOG + 9, "{}", read.len());
    }
}
