//! A question to the person at the terminal.

use std::io::IsTerminal;

/// Whether somebody is there to answer.
pub fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// The question as it is put: no is the default.
pub fn format_question(question: &str) -> String {
    format!("{question} [y/N]")
}

/// Reads lines until one is an answer, and has `unclear` called for each that is none. The end of the terminal, an empty line, is a no.
/// Blocks. A terminal gives out one line at a time: nothing of what is typed for a command that follows is taken.
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
