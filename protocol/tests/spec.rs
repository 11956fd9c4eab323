//! The examples in PROTOCOL.md are what this crate reads.

use std::path::Path;

use protocol::Description;
use protocol::message::{decode_command, decode_message};

fn examples() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("PROTOCOL.md");
    let text = std::fs::read_to_string(path).expect("no PROTOCOL.md");
    let blocks = text.split("```json\n").skip(1);
    blocks
        .map(|b| b.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_line_of_the_examples_is_read_as_what_it_shows() {
    let (mut messages, mut commands, mut descriptions) = (0, 0, 0);
    for block in examples() {
        if let Ok(description) = serde_json::from_str::<Description>(&block) {
            assert_eq!(description.dcs, 1);
            descriptions += 1;
            continue;
        }
        for line in block.lines() {
            let known = match decode_message(line.as_bytes()) {
                Ok(Some(message)) => {
                    assert_eq!(message.stage(), "vpn");
                    messages += 1;
                    true
                }
                _ => false,
            };
            if !known {
                let command = decode_command(line.as_bytes());
                assert!(matches!(command, Ok(Some(_))), "not read: {line}");
                commands += 1;
            }
        }
    }
    assert_eq!((messages, commands, descriptions), (14, 4, 1));
}
