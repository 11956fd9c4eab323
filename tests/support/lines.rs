//! What a program writes, line by line, read all the time so that it never blocks.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// The lines of a stream.
pub struct OutputLines {
    receiver: mpsc::UnboundedReceiver<String>,
    _reader: JoinSet<()>,
}

/// Begins to read.
pub fn lines(stream: impl AsyncRead + Unpin + Send + 'static) -> OutputLines {
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut reader = JoinSet::new();
    reader.spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            drop(sender.send(line));
        }
    });
    OutputLines {
        receiver,
        _reader: reader,
    }
}

impl OutputLines {
    /// The next line with this text. Fails, with what came before, at the end of the stream.
    pub async fn wait_for(&mut self, text: &str) -> String {
        let mut seen = Vec::new();
        while let Some(line) = self.receiver.recv().await {
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
        panic!("no `{text}` in\n{}", seen.join("\n"));
    }

    /// Everything from here to the end of the stream.
    pub async fn rest(&mut self) -> String {
        let mut all = String::new();
        while let Some(line) = self.receiver.recv().await {
            all.push_str(&line);
            all.push('\n');
        }
        all
    }
}
