//! Passes on the messages of a plugin as those of a full stage.

use protocol::frame::Frame;
use protocol::message::{self, Level, Message};
use protocol::{Context, StageError};
use serde_json::{Map, Value};

use super::{Host, Outputs};

use crate::codes;

/// The state of a plugin's messages.
pub(super) struct Wire<'a> {
    cx: &'a Context<Host>,
    program: String,
    outputs: Option<Map<String, Value>>,
    /// Whether `ready` was passed on: plugins may send it twice.
    ready: bool,
    /// Its fatal error.
    pub(super) failed: Option<StageError>,
    /// Whether it is ending: then its state is ignored, and only its log lines are passed on.
    pub(super) ending: bool,
}

impl<'a> Wire<'a> {
    pub(super) fn new(cx: &'a Context<Host>, program: String) -> Wire<'a> {
        Wire {
            cx,
            program,
            outputs: None,
            ready: false,
            failed: None,
            ending: false,
        }
    }

    /// Handles a frame. The end of stdout has no effect by itself.
    pub(super) async fn receive(&mut self, frame: Frame) -> Result<(), StageError> {
        match frame {
            Frame::Line(line) => self.read(&line).await,
            Frame::TooLong(length) => {
                let message = format!(
                    "a line of {length} bytes from {} is dropped, perhaps a message: the limit is 64 KiB",
                    self.program
                );
                self.cx.warn(message);
                Ok(())
            }
            Frame::End(_) => Ok(()),
        }
    }

    async fn read(&mut self, line: &[u8]) -> Result<(), StageError> {
        let message = match message::decode_message(line) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(error @ message::DecodeError::Version(_)) => {
                let message = format!("{} {error}", self.program);
                return Err(StageError::new(protocol::codes::VERSION, message));
            }
            Err(error) => return Err(self.broken(&error.to_string())),
        };
        match message {
            Message::Hello { version, .. } => {
                self.cx
                    .debug(format!("{} {version} says hello", self.program));
            }
            Message::Progress {
                step,
                message,
                done,
                total,
                ..
            } => match (done, total) {
                (Some(done), Some(total)) => self.cx.progress_count(&step, message, done, total),
                _ => self.cx.progress(&step, message),
            },
            Message::Log { level, message, .. } => match level {
                Level::Debug => self.cx.debug(message),
                Level::Info => self.cx.info(message),
                Level::Warn => self.cx.warn(message),
            },
            Message::Outputs(_) | Message::Ready { .. } | Message::Degraded(_) if self.ending => {}
            Message::Outputs(outputs) => {
                self.ready &= self.outputs.as_ref() == Some(&outputs.outputs);
                self.outputs = Some(outputs.outputs);
                self.cx.set_provides(outputs.provides);
            }
            Message::Ready { .. } if self.ready => {}
            Message::Ready { .. } => {
                self.ready = true;
                self.cx
                    .ready(Outputs(self.outputs.clone().unwrap_or_default()))
                    .await?;
            }
            Message::Degraded(failure) => {
                self.ready = false;
                self.cx.degraded(failure.error);
            }
            Message::Error(failure) if failure.error.fatal => self.failed = Some(failure.error),
            Message::Error(failure) => self.cx.warn(failure.error.message),
            Message::Check(_) | Message::Stopping { .. } | Message::Result { .. } => {}
        }
        Ok(())
    }

    fn broken(&self, what: &str) -> StageError {
        let message = format!("{} wrote an invalid line to stdout: {what}", self.program);
        StageError::new(codes::PLUGIN_PROTOCOL, message)
    }
}
