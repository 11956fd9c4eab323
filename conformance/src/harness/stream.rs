//! The output of a program, write by write.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;

use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The most bytes kept of a stream.
const KEPT: usize = 16 << 20;

/// The largest write that the kernel keeps in one piece.
const PACKET: usize = 4096;

/// A stream that is always read, so that its writer never blocks.
#[derive(Debug)]
pub struct Stream {
    state: watch::Receiver<State>,
    /// The offset up to which [`Stream::next_line`] has read.
    looked: usize,
    reader: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// The end of each write.
    writes: Vec<usize>,
    /// Whether the last packet was full: then the next one may continue the write.
    continues: bool,
}

/// A pipe that keeps the boundaries of writes, if the kernel can.
pub(super) fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pipe::{PipeFlags, pipe_with};
    #[cfg(target_os = "linux")]
    {
        let pipe = pipe_with(PipeFlags::DIRECT | PipeFlags::CLOEXEC)?;
        // Each write takes a page, however small: with the default of 16 pages, the program might block.
        let _ = rustix::pipe::fcntl_setpipe_size(&pipe.1, 1 << 20);
        Ok(pipe)
    }
    #[cfg(not(target_os = "linux"))]
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

impl Stream {
    /// Starts to read a pipe.
    pub fn read(pipe: OwnedFd) -> std::io::Result<Stream> {
        let pipe = Receiver::from_owned_fd(pipe)?;
        let (sender, state) = watch::channel(State::default());
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            let mut packet = [0; PACKET];
            // In packet mode, a short read is a packet, not the last one for now.
            while pipe.readable().await.is_ok() {
                match pipe.try_read(&mut packet) {
                    Ok(0) => break,
                    Ok(length) => sender.send_modify(|state| state.take(&packet[..length])),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        });
        Ok(Stream {
            state,
            looked: 0,
            reader,
        })
    }

    /// Everything so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.state.borrow().bytes.clone()
    }

    /// The same as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.state.borrow().bytes).into_owned()
    }

    /// The writes so far.
    pub fn writes(&self) -> Vec<Vec<u8>> {
        let state = self.state.borrow();
        let starts = std::iter::once(&0).chain(&state.writes);
        let spans = starts.zip(&state.writes);
        spans.map(|(a, b)| state.bytes[*a..*b].to_vec()).collect()
    }

    /// The whole lines so far.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        let state = self.state.borrow();
        let lines = state.bytes.split_inclusive(|b| *b == b'\n');
        lines
            .filter(|l| l.ends_with(b"\n"))
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// The next line, with its newline, which the last line may lack.
    pub async fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = self.advance(|new| new.iter().position(|b| *b == b'\n')) {
                return Some(line);
            }
            if self.state.changed().await.is_err() {
                return self.advance(|new| new.len().checked_sub(1));
            }
        }
    }

    /// Returns the bytes up to the end that `last` finds.
    fn advance(&mut self, last: impl Fn(&[u8]) -> Option<usize>) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        let new = &state.bytes[self.looked..];
        let line = new[..=last(new)?].to_vec();
        self.looked += line.len();
        Some(line)
    }

    /// The next line with this text. Fails, with what came before, at the end of the stream.
    pub async fn wait_for(&mut self, text: &str) -> anyhow::Result<String> {
        let mut seen = String::new();
        while let Some(line) = self.next_line().await {
            let line = String::from_utf8_lossy(&line);
            if line.contains(text) {
                return Ok(line.trim_end().to_owned());
            }
            seen += &line;
        }
        anyhow::bail!("no `{text}` in\n{seen}")
    }

    /// Waits until the last writer closes the pipe.
    pub async fn end(&mut self) {
        self.reader.join_next().await;
    }

    /// Closes the reading end.
    pub fn close(&mut self) {
        self.reader = JoinSet::new();
    }
}

impl State {
    fn take(&mut self, packet: &[u8]) {
        if self.bytes.len() < KEPT {
            self.bytes.extend_from_slice(packet);
        }
        if self.continues {
            self.writes.pop();
        }
        self.writes.push(self.bytes.len());
        self.continues = packet.len() == PACKET;
    }
}

/// The beginning of a line, for people.
pub fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 300;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    match bytes.len().saturating_sub(SHOWN) {
        0 => format!("`{}`", text.trim_end()),
        more => format!("`{text}…` ({more} bytes more)"),
    }
}
