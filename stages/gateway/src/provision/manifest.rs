//! The objects of manifests.

use cluster::objects::ObjectRef;
use protocol::StageError;
use protocol::yaml::Document;
use serde_json::Value;

use crate::codes;
use crate::crd::bundle;
use crate::manifests::Loaded;

pub(crate) const CRD: &str = "CustomResourceDefinition";

/// An object and its reference.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) reference: ObjectRef,
    pub(crate) body: Value,
}

impl Object {
    pub(crate) fn from_value(body: Value) -> Result<Self, String> {
        let text = |at: &Value| at.as_str().filter(|it| !it.is_empty()).map(str::to_owned);
        let metadata = &body["metadata"];
        let reference = ObjectRef {
            api_version: text(&body["apiVersion"]).ok_or("it has no `apiVersion`")?,
            kind: text(&body["kind"]).ok_or("it has no `kind`")?,
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]).ok_or("it has no `metadata.name`")?,
        };
        Ok(Self { reference, body })
    }

    /// Release and channel of a CRD's Gateway API bundle.
    pub(crate) fn bundle(&self) -> Option<(&str, &str)> {
        bundle(|name| self.body["metadata"]["annotations"][name].as_str())
    }
}

/// All objects in order, CRDs and namespaces first: others need them.
pub(crate) fn parse(loaded: &Loaded) -> Result<Vec<Object>, StageError> {
    let mut objects: Vec<Object> = Vec::new();
    for (name, text) in &loaded.files {
        for (line, document) in documents(text) {
            let malformed = |line: usize, column: usize, why: &str| {
                malformed(&format!("{name}:{line}:{column}: {why}"))
            };
            let parsed = Document::parse(document)
                .map_err(|error| malformed(line + error.line - 1, error.column, &error.message))?;
            for object in read(parsed.value()).map_err(|why| malformed(line, 1, &why))? {
                if objects.iter().any(|it| it.reference == object.reference) {
                    let why = format!("{} occurs twice", object.reference.title());
                    return Err(malformed(line, 1, &why));
                }
                objects.push(object);
            }
        }
    }
    if objects.is_empty() {
        let message = format!("{} has no objects", loaded.names());
        return Err(StageError::new(codes::MANIFEST_MALFORMED, message)
            .hint("`provision_manifests` accepts what `kubectl apply -f` accepts"));
    }
    let rank = |object: &Object| match object.reference.kind.as_str() {
        CRD => 0,
        "Namespace" => 1,
        _ => 2,
    };
    objects.sort_by_key(rank);
    Ok(objects)
}

fn malformed(message: &str) -> StageError {
    StageError::new(codes::MANIFEST_MALFORMED, message).hint(
        "nothing was applied; `provision_manifests` accepts what `kubectl apply -f` accepts: objects with `apiVersion`, `kind` \
         and `metadata.name`",
    )
}

/// A document is an object or a list of objects.
fn read(mut value: Value) -> Result<Vec<Object>, String> {
    let kind = value["kind"].as_str();
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(_) if kind.is_some_and(|it| it.ends_with("List")) => {
            let Value::Array(items) = value["items"].take() else {
                return Err("a list without `items`".to_owned());
            };
            items.into_iter().map(Object::from_value).collect()
        }
        Value::Object(_) => Ok(vec![Object::from_value(value)?]),
        _ => Err("it is not a Kubernetes object".to_owned()),
    }
}

/// The YAML documents, each with the number of its first line. `---` at the start of any line begins one.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if let Some(rest) = line.strip_prefix("---")
            && rest.chars().next().is_none_or(char::is_whitespace)
        {
            documents.push((first, &text[start..at]));
            (start, first) = (at + 3, number + 1);
        }
        at += line.len();
    }
    documents.push((first, &text[start..]));
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<String>, String> {
        let loaded = Loaded {
            files: vec![("f.yaml".into(), text.into())],
            digest: String::new(),
            pinned: false,
        };
        parse(&loaded)
            .map(|all| all.iter().map(|it| it.reference.title()).collect())
            .map_err(|error| error.message)
    }

    #[test]
    fn documents_and_lists_are_parsed_and_crds_and_namespaces_come_first() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: n}\n--- # next\n\
            apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: n}}\n\
            - apiVersion: apiextensions.k8s.io/v1\n  kind: CustomResourceDefinition\n  metadata: {name: c}\n---\n---\n";
        let titles = ["CustomResourceDefinition c", "Namespace n", "Service n/s"];
        assert_eq!(parsed(text).unwrap(), titles);
    }

    #[test]
    fn mistakes_have_their_line() {
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\n";
        for (text, expected) in [
            (service, "f.yaml:5:1: Service s occurs twice"),
            ("kind: Service\n", "f.yaml:5:1: it has no `apiVersion`"),
            (
                "apiVersion: v1\nkind: Service\n",
                "f.yaml:5:1: it has no `metadata.name`",
            ),
        ] {
            let error = parsed(&format!("---\n{service}---\n{text}")).unwrap_err();
            assert_eq!(error, expected);
        }
    }
}
