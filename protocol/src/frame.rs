//! Lines of at most 64 KiB, in and out.

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The longest line, newline included, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole line, without its newline.
    Line(Vec<u8>),
    /// A line over [`MAX_LINE`]; it was skipped.
    TooLong(usize),
    /// The other side closed; how many bytes of an unfinished line were dropped.
    End(usize),
}

/// Reads the next line and never holds more than [`MAX_LINE`] of it.
pub async fn read<R: AsyncBufRead + Unpin>(reader: &mut R) -> std::io::Result<Frame> {
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
        if length < MAX_LINE {
            line.extend_from_slice(&buffer[..taken]);
        } else {
            line = Vec::new();
        }
        reader.consume(newline.map_or(taken, |at| at + 1));
        if newline.is_some() {
            return Ok(if length < MAX_LINE {
                Frame::Line(line)
            } else {
                Frame::TooLong(length)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn frames(input: &[u8], capacity: usize) -> Vec<Frame> {
        let mut reader = tokio::io::BufReader::with_capacity(capacity, input);
        let mut all = Vec::new();
        loop {
            let frame = read(&mut reader).await.unwrap();
            let end = matches!(frame, Frame::End(_));
            all.push(frame);
            if end {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_skipped_and_the_next_one_is_read() {
        let mut input = vec![b'x'; MAX_LINE];
        input.extend_from_slice(b"\nok\nunfinished");
        let expected = vec![
            Frame::TooLong(MAX_LINE),
            Frame::Line(b"ok".to_vec()),
            Frame::End(10),
        ];
        assert_eq!(frames(&input, 7).await, expected);
    }

    proptest::proptest! {
        #[test]
        fn lines_come_out_as_they_went_in(
            lines in proptest::collection::vec("[^\n]{0,40}", 0..8), capacity in 1usize..50,
        ) {
            let input: String = lines.iter().map(|l| format!("{l}\n")).collect();
            let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut expected: Vec<_> =
                lines.iter().map(|l| Frame::Line(l.as_bytes().to_vec())).collect();
            expected.push(Frame::End(0));
            proptest::prop_assert_eq!(rt.block_on(frames(input.as_bytes(), capacity)), expected);
        }
    }
}
