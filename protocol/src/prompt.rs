//! Yes-or-no questions at a terminal.

use std::io::IsTerminal;

/// Whether stdin and stderr are a terminal, so that a question can be answered.
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// The question as it is shown. The default is no.
pub fn format_question(question: &str) -> String {
    format!("{question} [y/N]")
}

/// Reads lines until one is an answer, and calls `unclear` for any other line. An empty line or the end of input means no.
/// Blocks. A terminal returns one line at a time, so input for a command that runs later is not consumed.
pub fn read_answer(mut unclear: impl FnMut(&str)) -> std::io::Result<bool> {
    loop {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        match line.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "" | "n" | "no" => return Ok(false),
            _ => unclear("please answer y or n"),
        }
    }
}
