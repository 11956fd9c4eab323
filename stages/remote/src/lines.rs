//! Reads the text that a program writes for people, line by line, until its end.

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// The most bytes shown of a line. Even if JSON escapes each of them as six, they fit into a line of the protocol.
const MAX_SHOWN: usize = 8 * 1024;

/// Lines from a pipe. Keeps at most [`MAX_SHOWN`] bytes of each.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    length: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Lines {
            reader: BufReader::new(reader),
            line: Vec::new(),
            length: 0,
        }
    }

    /// The next line, also an unfinished one at the end. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            let buffer = match self.reader.fill_buf().await {
                Ok(buffer) if !buffer.is_empty() => buffer,
                _ => return (self.length > 0).then(|| self.take()),
            };
            let newline = buffer.iter().position(|b| *b == b'\n');
            let taken = newline.unwrap_or(buffer.len());
            let kept = taken.min(MAX_SHOWN - self.line.len());
            self.line.extend_from_slice(&buffer[..kept]);
            self.length += taken;
            self.reader.consume(newline.map_or(taken, |at| at + 1));
            if newline.is_some() {
                return Some(self.take());
            }
        }
    }

    fn take(&mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.line).into_owned();
        let cut = self.length - self.line.len();
        if cut > 0 {
            text.push_str(&format!("… ({cut} bytes more)"));
        }
        self.line.clear();
        self.length = 0;
        text
    }
}

#[cfg(test)]
mod tests;
