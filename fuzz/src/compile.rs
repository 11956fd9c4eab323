//! A devcluster.yaml that lists the new stages.

use std::path::Path;

use protocol::yaml::Document;
use protocol::{Env, Exit};
use remote::plan::Source;

/// Every file is refused with exit code 2, or becomes one that can be read and has only what stock devcluster knows.
pub fn compile(data: &[u8]) {
    let Ok(document) = Document::parse(&String::from_utf8_lossy(data)) else {
        return;
    };
    match compiled(&document) {
        Ok(text) => {
            let again = Document::parse(&text).expect("what is written can be read");
            assert_eq!(compiled(&again).ok(), Some(text), "{}", document.text());
        }
        Err(error) => {
            assert_eq!(error.exit_code(), Exit::Usage, "{error:?}");
            assert!(!error.code.is_empty() && !error.message.is_empty());
        }
    }
}

fn compiled(document: &Document) -> Result<String, protocol::StageError> {
    let env = Env::from_pairs([("HOME", "/h"), ("A", "$B ${A} ~"), ("B", "")]);
    let source = Source {
        path: Path::new("/h/devcluster.yaml"),
        document,
    };
    remote::compile::compile(&source, Vec::new(), &env, Path::new("/$A")).map(|it| it.text)
}
