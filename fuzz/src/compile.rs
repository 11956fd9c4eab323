//! A devcluster.yaml that lists the new stages.

use std::path::Path;

use protocol::kinds::{OURS, PLUGIN};
use protocol::validate::{Answer, Request};
use protocol::yaml::Document;
use protocol::{Description, Env, Exit, Stage, StageError, answer, description};
use remote::host::Host;
use remote::kinds::{Kind, Kinds};
use remote::problems::InputFile;

/// Every file is refused with exit code 2, or compiles to a readable file with only keys of stock devcluster.
pub fn compile(data: &[u8]) {
    let Ok(document) = Document::parse(&String::from_utf8_lossy(data)) else {
        return;
    };
    match compiled(&document) {
        Ok(text) => {
            let again = Document::parse(&text).expect("the compiled file is readable");
            assert_eq!(compiled(&again).ok(), Some(text), "{}", document.text());
        }
        Err(error) => {
            assert_eq!(error.exit_code(), Exit::Usage, "{error:?}");
            assert!(!error.code.is_empty() && !error.message.is_empty());
        }
    }
}

fn compiled(document: &Document) -> Result<String, StageError> {
    let source = InputFile {
        path: Path::new("/h/devcluster.yaml"),
        document,
    };
    let compiling = remote::compile::compile(&source, None, &InProcess, Path::new("/$A"));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let compiled = runtime.expect("no runtime").block_on(compiling);
    compiled.map(|it| it.text)
}

/// The stages of this project, called in this process.
struct InProcess;

impl Kinds for InProcess {
    fn all(&self) -> Vec<String> {
        OURS.map(str::to_owned).into()
    }

    async fn describe(&self, kind: &str) -> Result<Option<Kind>, StageError> {
        let description: Description = match kind {
            "tunnel" => description::<tunnel::Tunnel>(),
            "gateway" => description::<gateway::Gateway>(),
            "config-emit" => description::<config_emit::ConfigEmit>(),
            PLUGIN => description::<Host>(),
            _ => return Ok(None),
        };
        Ok(Some(Kind {
            program: vec![format!("/$A/devcluster-{kind}")],
            description,
        }))
    }

    async fn validate(&self, kind: &Kind, request: &Request) -> Result<Answer, StageError> {
        fn of<S: Stage>(request: &Request) -> Answer {
            let env = Env::from_pairs([("HOME", "/h"), ("A", "$B ${A} ~"), ("B", "")]);
            answer::<S>(request, &env)
        }
        Ok(match kind.description.kind.as_str() {
            "tunnel" => of::<tunnel::Tunnel>(request),
            "gateway" => of::<gateway::Gateway>(request),
            "config-emit" => of::<config_emit::ConfigEmit>(request),
            _ => of::<Host>(request),
        })
    }
}
