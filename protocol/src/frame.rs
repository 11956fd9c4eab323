//! Reads lines of at most 64 KiB.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The longest line, newline included, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole line, without its newline.
    Line(Vec<u8>),
    /// A line over the limit was skipped; its length.
    TooLong(usize),
    /// The stream ended; the number of bytes of an unfinished line, which are dropped.
    End(usize),
}

/// Reads the next line. Never holds more than [`MAX_LINE`] bytes of it.
pub async fn read<R: AsyncBufRead + Unpin>(reader: &mut R) -> std::io::Result<Frame> {
    read_at_most(reader, MAX_LINE - 1).await
}

/// The same with another limit, which does not count the newline.
pub(crate) async fn read_at_most<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    longest: usize,
) -> std::io::Result<Frame> {
    let mut line = Vec::new();
    let mut length = 0;
    loop {
        let buffer = reader.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(Frame::End(length));
        }
        let newline = buffer.iter().position(|b| *b == b'\n');
        let taken = newline.unwrap_or(buffer.len());
        length += taken;
        if length <= longest {
            line.extend_from_slice(&buffer[..taken]);
        } else {
            line = Vec::new();
        }
        reader.consume(newline.map_or(taken, |at| at + 1));
        if newline.is_some() {
            return Ok(if length <= longest {
                Frame::Line(line)
            } else {
                Frame::TooLong(length)
            });
        }
    }
}
