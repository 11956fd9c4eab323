//! `explain`: prints what the error codes of a program mean.

use serde::{Deserialize, Serialize};

use crate::codes::{self, Code, Codes};
use crate::error::StageError;
use crate::runtime::Invocation;
use crate::stage::Stage;
use crate::suggest::did_you_mean;

/// The explanation of an error code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The code, such as `tunnel.server_busy`.
    pub code: String,
    /// What happened, in one sentence.
    pub meaning: String,
    /// What to do, unless the error has a more precise hint.
    #[serde(default)]
    pub hint: String,
    /// The exit code of a process that ends with this error.
    #[serde(default)]
    pub exit: u8,
    /// Whether the same call may work later.
    #[serde(default)]
    pub retryable: bool,
}

impl From<&Code> for Explanation {
    fn from(code: &Code) -> Explanation {
        Explanation {
            code: code.name.to_owned(),
            meaning: code.meaning.to_owned(),
            hint: code.hint.to_owned(),
            exit: code.exit as u8,
            retryable: code.exit.is_retryable(),
        }
    }
}

impl Explanation {
    fn render(&self) -> String {
        // A third-party program may send anything.
        let plain = |text: &str| text.replace(char::is_control, " ");
        let mut text = format!("{}: {}\n", self.code, plain(&self.meaning));
        if !self.hint.is_empty() {
            text.push_str(&format!("  hint: {}\n", plain(&self.hint)));
        }
        let retry = match self.retryable {
            true => "; the same call may work later",
            false => "",
        };
        text + &format!("  exit code: {}{retry}\n", self.exit)
    }
}

pub(crate) async fn explain<S: Stage>(invocation: &Invocation) -> Result<(), StageError> {
    let (code, json) = (invocation.call.code.as_deref(), invocation.call.json);
    let text = explanation(&explanations(S::CODES), code, json)?;
    invocation.print(text.into_bytes()).await
}

/// The codes of a program with these lists, and those of every program.
pub fn explanations(lists: &[Codes]) -> Vec<Explanation> {
    let lists = lists.iter().chain([&codes::ALL]);
    lists
        .flat_map(|list| list.iter().copied().map(Explanation::from))
        .collect()
}

/// The explanation of one of these codes, or a list of all of them, for people or as JSON.
pub fn explanation(
    known: &[Explanation],
    code: Option<&str>,
    json: bool,
) -> Result<String, StageError> {
    let Some(code) = code else {
        let width = known.iter().map(|it| it.code.len()).max().unwrap_or(0);
        let line = |it: &Explanation| format!("{:width$}  {}\n", it.code, it.meaning);
        return Ok(match json {
            true => pretty(known),
            false => known.iter().map(line).collect(),
        });
    };
    let found = known.iter().find(|it| it.code == code).ok_or_else(|| {
        let error = StageError::new(codes::USAGE, format!("unknown error code `{code}`"));
        error.hint(match did_you_mean(code, known.iter().map(|it| &*it.code)) {
            Some(suggestion) => format!("did you mean `{suggestion}`?"),
            None => "`explain` without a code lists all".to_owned(),
        })
    })?;
    Ok(match json {
        true => pretty(found),
        false => found.render(),
    })
}

fn pretty(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
