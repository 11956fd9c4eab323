//! Reads stdin: the messages of an upstream stage in a pipe, or the commands of a host.

use std::sync::Arc;

use tokio::io::{AsyncRead, BufReader};
use tokio::sync::watch;

use crate::codes;
use crate::error::StageError;
use crate::frame::{self, Frame};
use crate::message::{self, Command, DecodeError, Level, Message};
use crate::reporter::Reporter;
use crate::shutdown::{Reason, Shutdown};
use crate::upstream::Chain;
use crate::verbs::run::ConfigUpdate;

pub(crate) type Stdin = BufReader<Box<dyn AsyncRead + Unpin + Send>>;

fn version_error(error: &DecodeError) -> StageError {
    StageError::new(codes::VERSION, format!("the other side {error}"))
}

/// Relays the first line of the upstream stage, so that its `hello` is sent before this stage's own.
pub(crate) async fn chain_head(
    stdin: &mut Stdin,
    reporter: &Reporter,
    chain: &Chain,
) -> Result<(), StageError> {
    while let Some(line) = next_line(stdin, reporter).await {
        if take_upstream(line, reporter, chain)? {
            return Ok(());
        }
    }
    chain.end();
    Ok(())
}

/// Follows the upstream stage until it ends.
pub(crate) async fn follow_chain(
    mut stdin: Stdin,
    reporter: Arc<Reporter>,
    chain: Arc<Chain>,
    shutdown: Shutdown,
) {
    while let Some(line) = next_line(&mut stdin, &reporter).await {
        if let Err(error) = take_upstream(line, &reporter, &chain) {
            reporter.log(Level::Warn, error.message);
        }
    }
    chain.end();
    if reporter.is_ready() {
        shutdown.request(Reason::UpstreamGone);
    }
}

fn take_upstream(line: Vec<u8>, reporter: &Reporter, chain: &Chain) -> Result<bool, StageError> {
    match message::decode_message(&line) {
        Ok(known) => {
            reporter.relay(line, known.as_ref().is_some_and(Message::is_droppable));
            if let Some(message) = known {
                chain.take(message);
            }
            Ok(true)
        }
        Err(error @ DecodeError::Version(_)) => Err(version_error(&error)),
        Err(error) => {
            reporter.log(Level::Warn, format!("ignored a line on stdin: {error}"));
            Ok(false)
        }
    }
}

/// The next whole line; `None` at the end.
async fn next_line(stdin: &mut Stdin, reporter: &Reporter) -> Option<Vec<u8>> {
    loop {
        match frame::read(stdin).await {
            Ok(Frame::Line(line)) if line.trim_ascii().is_empty() => {}
            Ok(Frame::Line(line)) => return Some(line),
            Ok(Frame::TooLong(length)) => {
                reporter.log(
                    Level::Warn,
                    format!("ignored a line of {length} bytes on stdin; the limit is 64 KiB"),
                );
            }
            Ok(Frame::End(_)) | Err(_) => return None,
        }
    }
}

/// Reads the commands of a host and passes on those with a config. A newer one replaces one that is not read yet. Another
/// protocol version ends the stage.
pub(crate) async fn follow_host(
    mut stdin: Stdin,
    reporter: Arc<Reporter>,
    shutdown: Shutdown,
    configs: watch::Sender<ConfigUpdate>,
) {
    while let Some(line) = next_line(&mut stdin, &reporter).await {
        match message::decode_command(&line) {
            Ok(Some(Command::Shutdown)) => shutdown.request(Reason::Shutdown),
            Ok(Some(Command::Cancel)) if reporter.is_ready() => {}
            Ok(Some(Command::Cancel)) => shutdown.request(Reason::Cancelled),
            Ok(Some(Command::Start(start) | Command::Reload(start))) => {
                configs.send_replace(Some(Ok(start)));
            }
            Ok(None) => {}
            Err(error @ DecodeError::Version(_)) => {
                configs.send_replace(Some(Err(version_error(&error))));
                return;
            }
            Err(error) => reporter.log(Level::Warn, format!("ignored a line on stdin: {error}")),
        }
    }
    shutdown.request(Reason::StdinClosed);
}
