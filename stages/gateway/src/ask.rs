//! A question to the person at the terminal.

use std::io::IsTerminal;

use protocol::{Context, StageError};

use crate::stage::Gateway;

/// Whether there is no person at a terminal.
pub(crate) fn nobody() -> bool {
    !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal())
}

/// Whether the person says yes; nobody does not.
pub(crate) async fn yes(cx: &Context<Gateway>, question: &str) -> Result<bool, StageError> {
    if nobody() {
        return Ok(false);
    }
    let (done, answer) = tokio::sync::oneshot::channel();
    // After the lines that it is about, which leave the same way.
    cx.info(format!("{question} [y/N]"));
    // On a thread of its own, so that a stop is heard meanwhile; it ends with the process.
    std::thread::spawn(move || drop(done.send(answered())));
    let answer = answer
        .await
        .map_err(|_| StageError::internal("the thread that asks died"))?
        .map_err(|error| StageError::io("cannot ask at the terminal", &error))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// A terminal gives out one line at a time: nothing of what is typed for a command that follows is taken.
fn answered() -> std::io::Result<String> {
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer)
}
