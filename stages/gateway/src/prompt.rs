//! Asks the person at the terminal.

use protocol::{Context, StageError, prompt};

use crate::Gateway;

/// Whether the person says yes; no without a terminal.
pub(crate) async fn confirm(cx: &Context<Gateway>, question: &str) -> Result<bool, StageError> {
    if !prompt::is_interactive() {
        return Ok(false);
    }
    let (done, answer) = tokio::sync::oneshot::channel();
    // It goes out the same way as the lines that it is about, after them.
    cx.info(prompt::format_question(question));
    let again = cx.clone();
    // On a thread of its own, so that a shutdown is not held up; it ends with the process.
    std::thread::spawn(move || drop(done.send(prompt::read_answer(|line| again.info(line)))));
    answer
        .await
        .map_err(|_| StageError::internal("the thread that asks died"))?
        .map_err(|error| StageError::io("cannot ask at the terminal", &error))
}
