//! Properties of any input. Each function panics when its property does not hold; a fuzzer and a property test call them.

mod compile;
mod config;
mod yaml_edit;

pub use compile::compile;
pub use config::config;
pub use yaml_edit::yaml_edit;

use protocol::frame::{Frame, MAX_LINE, read};
use protocol::message::{decode_command, decode_message, encode};
use tokio::io::BufReader;

/// Lines are split at newlines, however they arrive; long ones are counted and not kept.
pub fn frame(data: &[u8]) {
    let Some((capacity, input)) = data.split_first() else {
        return;
    };
    // Filler brings the input near the limit, which a fuzzer would rarely reach.
    let filled: Vec<u8> = input
        .iter()
        .flat_map(|b| std::iter::repeat_n(*b, if *b == 0xff { 16_384 } else { 1 }))
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let found = runtime.expect("no runtime").block_on(async {
        let mut reader = BufReader::with_capacity(usize::from(*capacity) * 64 + 1, &filled[..]);
        let mut frames = Vec::new();
        loop {
            let frame = read(&mut reader).await.expect("memory can be read");
            let end = matches!(frame, Frame::End(_));
            frames.push(frame);
            if end {
                return frames;
            }
        }
    });
    let mut lines: Vec<&[u8]> = filled.split(|b| *b == b'\n').collect();
    let rest = lines.pop().unwrap_or_default();
    let whole = lines.into_iter().map(|line| match line.len() < MAX_LINE {
        true => Frame::Line(line.to_vec()),
        false => Frame::TooLong(line.len()),
    });
    let expected: Vec<Frame> = whole.chain([Frame::End(rest.len())]).collect();
    assert_eq!(found, expected);
}

/// A decoded message or command is the same after encoding it to one line and decoding it again.
pub fn message(data: &[u8]) {
    if let Ok(Some(message)) = decode_message(data) {
        let line = encode(&message).expect("it is JSON");
        assert!(one_line(&line), "{message:?}");
        assert_eq!(decode_message(&line).expect("a message"), Some(message));
    }
    if let Ok(Some(command)) = decode_command(data) {
        let line = encode(&command).expect("it is JSON");
        assert!(one_line(&line), "{command:?}");
        assert_eq!(decode_command(&line).expect("a command"), Some(command));
    }
}

fn one_line(line: &[u8]) -> bool {
    line.starts_with(b"{\"dcs\":1,\"type\":\"")
        && line.iter().position(|b| *b == b'\n') == Some(line.len() - 1)
}
