//! Messages and commands are read back as they were written, with any content.

use proptest::prelude::*;
use protocol::message::{
    Command, Failure, Level, Message, Outputs, Start, decode_command, decode_message, encode,
};
use protocol::{StageError, codes};
use serde_json::{Map, Value};

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z.-]{0,12}", "\\PC{0,20}", "[\u{0}-\u{20}\"\\\\]{0,8}"]
}

fn map() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
        text().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..4)
                .prop_map(|v| Value::Object(v.into_iter().collect())),
        ]
    });
    prop::collection::vec((text(), value), 0..5).prop_map(|v| v.into_iter().collect())
}

fn error() -> impl Strategy<Value = StageError> {
    let parts = (
        text(),
        text(),
        any::<(bool, bool)>(),
        prop::option::of(text()),
        prop::collection::vec(text(), 0..3),
    );
    parts.prop_map(|(code, message, (retryable, fatal), hint, causes)| {
        let mut error = StageError::new(codes::IO, message).fatal(fatal);
        (error.code, error.retryable) = (code, retryable);
        let error = causes.into_iter().fold(error, StageError::cause);
        hint.into_iter().fold(error, StageError::hint)
    })
}

fn message() -> impl Strategy<Value = Message> {
    let level = prop::sample::select(vec![Level::Debug, Level::Info, Level::Warn]);
    prop_oneof![
        (text(), text(), text(), text(), any::<u32>()).prop_map(
            |(stage, kind, version, run, pid)| {
                Message::Hello {
                    stage,
                    kind,
                    version,
                    run,
                    pid,
                }
            }
        ),
        (text(), text(), text(), any::<(Option<u64>, Option<u64>)>()).prop_map(
            |(stage, step, message, (done, total))| {
                Message::Progress {
                    stage,
                    step,
                    message,
                    done,
                    total,
                }
            }
        ),
        (text(), level, text()).prop_map(|(stage, level, message)| Message::Log {
            stage,
            level,
            message
        }),
        (text(), text(), text(), any::<u64>(), map()).prop_map(
            |(stage, kind, run, generation, outputs)| {
                Message::Outputs(Outputs {
                    stage,
                    kind,
                    run,
                    generation,
                    outputs,
                    provides: Map::new(),
                })
            }
        ),
        (text(), text(), any::<u64>()).prop_map(|(stage, run, generation)| {
            Message::Ready {
                stage,
                run,
                generation,
            }
        }),
        (text(), error()).prop_map(|(stage, error)| Message::Degraded(Failure { stage, error })),
        (text(), error()).prop_map(|(stage, error)| Message::Error(Failure { stage, error })),
        (text(), text()).prop_map(|(stage, reason)| Message::Stopping { stage, reason }),
        (text(), any::<bool>(), any::<u8>()).prop_map(|(stage, ok, exit)| Message::Result {
            stage,
            ok,
            exit
        }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        map().prop_map(|config| Command::Start(Start { config })),
        map().prop_map(|config| Command::Reload(Start { config })),
        Just(Command::Cancel),
        Just(Command::Shutdown),
    ]
}

/// Checks that a message is exactly one line.
fn is_one_line(line: &[u8]) -> bool {
    line.iter().filter(|b| **b == b'\n').count() == 1 && line.ends_with(b"\n")
}

proptest! {
    #[test]
    fn messages_come_back_as_they_were(message in message()) {
        let line = encode(&message).expect("JSON");
        prop_assert!(is_one_line(&line));
        // The exit code of an error is not on the wire.
        let read = decode_message(&line).expect("a message").expect("a known one");
        prop_assert_eq!(encode(&read).expect("JSON"), line);
        prop_assert_eq!(format!("{:?}", read), format!("{message:?}"));
    }

    #[test]
    fn commands_come_back_as_they_were(command in command()) {
        let line = encode(&command).expect("JSON");
        prop_assert!(is_one_line(&line));
        prop_assert_eq!(decode_command(&line).expect("a command"), Some(command));
    }
}
