//! One context out of many: what the stage itself connects with, and what it hands to the master.

use protocol::config::nearest;
use protocol::{Exit, StageError};
use serde_json::{Map, Value, json};

use crate::kubeconfig::{Kubeconfig, malformed};

/// A kubeconfig with one context, which is the current one. It holds secrets: no Debug, never shown.
#[derive(Clone)]
pub struct Minified {
    pub context: String,
    /// The API's URL, for messages.
    pub server: String,
    /// The credential plugin of its user, for messages.
    pub plugin: Option<String>,
    pub document: Value,
}

impl Minified {
    /// The context's own namespace, where it has one.
    pub fn namespace(&self) -> String {
        let namespace = self.document["contexts"][0]["context"]["namespace"].as_str();
        namespace
            .filter(|name| !name.is_empty())
            .unwrap_or("default")
            .to_owned()
    }
}

/// Keeps the wanted context (else the current one), its cluster and its user.
pub fn minify(kubeconfig: &Kubeconfig, wanted: Option<&str>) -> Result<Minified, StageError> {
    let merged = &kubeconfig.merged;
    let current = merged
        .get("current-context")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty());
    let Some(name) = wanted.or(current) else {
        return Err(unset(kubeconfig));
    };
    let context = entry(merged, "contexts", name).ok_or_else(|| unknown(kubeconfig, name))?;
    let refers = |field: &str| {
        context["context"][field]
            .as_str()
            .filter(|name| !name.is_empty())
    };
    let broken = |what: String| {
        malformed(
            kubeconfig.origin.clone(),
            format!("context {name:?} {what}"),
        )
    };
    let cluster_name = refers("cluster").ok_or_else(|| broken("names no cluster".to_owned()))?;
    let cluster = entry(merged, "clusters", cluster_name).ok_or_else(|| {
        broken(format!(
            "names the cluster {cluster_name:?}, which is not there"
        ))
    })?;
    let server = cluster["cluster"]["server"]
        .as_str()
        .filter(|server| !server.is_empty())
        .ok_or_else(|| {
            malformed(
                kubeconfig.origin.clone(),
                format!("cluster {cluster_name:?} has no server"),
            )
        })?;
    let user = match refers("user") {
        None => None,
        Some(user) => Some(
            entry(merged, "users", user)
                .ok_or_else(|| broken(format!("names the user {user:?}, who is not there")))?,
        ),
    };
    let plugin = user.and_then(|user| user["user"]["exec"]["command"].as_str());
    Ok(Minified {
        context: name.to_owned(),
        server: server.to_owned(),
        plugin: plugin.map(str::to_owned),
        document: json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [cluster],
            "users": Vec::from_iter(user),
            "contexts": [context],
        }),
    })
}

fn entry<'a>(merged: &'a Map<String, Value>, list: &str, name: &str) -> Option<&'a Value> {
    merged
        .get(list)?
        .as_array()?
        .iter()
        .find(|item| item["name"] == name)
}

fn names(kubeconfig: &Kubeconfig) -> Vec<&str> {
    let contexts = kubeconfig.merged.get("contexts").and_then(Value::as_array);
    contexts
        .into_iter()
        .flatten()
        .filter_map(|item| item["name"].as_str())
        .collect()
}

fn unknown(kubeconfig: &Kubeconfig, name: &str) -> StageError {
    let names = names(kubeconfig);
    let message = format!(
        "the kubeconfig {} has no context {name:?}",
        kubeconfig.origin
    );
    let hint = match (nearest(name, names.iter().copied()), names.is_empty()) {
        (Some(meant), _) => format!("did you mean {meant:?}? It has: {}", names.join(", ")),
        (None, false) => format!("set `k8s_context` to one of: {}", names.join(", ")),
        (None, true) => {
            "it has no context at all: `kubectl config get-contexts` shows what kubectl knows"
                .to_owned()
        }
    };
    StageError::new("gateway.context_unknown", message)
        .hint(hint)
        .exit(Exit::Usage)
}

fn unset(kubeconfig: &Kubeconfig) -> StageError {
    let message = format!(
        "the kubeconfig {} has no current context",
        kubeconfig.origin
    );
    let hint = match names(kubeconfig).as_slice() {
        [] => "it has no context at all: `kubectl config get-contexts` shows what kubectl knows"
            .to_owned(),
        names => format!("set `k8s_context` to one of: {}", names.join(", ")),
    };
    StageError::new("gateway.context_unset", message)
        .hint(hint)
        .exit(Exit::Usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig() -> Kubeconfig {
        let merged = json!({
            "current-context": "minikube",
            "preferences": {"colors": true},
            "clusters": [
                {"name": "m", "cluster": {"server": "https://m", "certificate-authority-data": "Q0E=", "extensions": [{"name": "x"}]}},
                {"name": "g", "cluster": {"server": "https://g"}},
            ],
            "users": [
                {"name": "m", "user": {"client-certificate-data": "Q0VSVA==", "client-key-data": "S0VZ"}},
                {"name": "g", "user": {"exec": {"command": "gke-gcloud-auth-plugin", "provideClusterInfo": true}}},
            ],
            "contexts": [
                {"name": "minikube", "context": {"cluster": "m", "user": "m", "namespace": "default"}},
                {"name": "my-gke", "context": {"cluster": "g", "user": "g"}},
                {"name": "nobody", "context": {"cluster": "g"}},
                {"name": "torn", "context": {"cluster": "g", "user": "gone"}},
            ],
        });
        let Value::Object(merged) = merged else {
            unreachable!()
        };
        Kubeconfig {
            merged,
            origin: "/k".to_owned(),
        }
    }

    fn fails(name: &str) -> StageError {
        minify(&kubeconfig(), Some(name)).map(|_| ()).unwrap_err()
    }

    #[test]
    fn only_the_chosen_context_is_left_and_it_is_the_current_one() {
        let all = kubeconfig();
        let one = minify(&all, Some("my-gke")).unwrap();
        assert_eq!(one.document["current-context"], "my-gke");
        assert_eq!(one.document["users"], json!([all.merged["users"][1]]));
        assert_eq!(one.document["clusters"], json!([all.merged["clusters"][1]]));
        assert_eq!(one.document["contexts"], json!([all.merged["contexts"][1]]));
        assert_eq!(one.plugin.as_deref(), Some("gke-gcloud-auth-plugin"));
        let default = minify(&all, None).unwrap();
        assert_eq!(
            (default.context.as_str(), default.server.as_str()),
            ("minikube", "https://m")
        );
        assert_eq!(
            default.document["clusters"][0], all.merged["clusters"][0],
            "nothing of it is lost"
        );
    }

    #[test]
    fn a_context_without_a_user_is_anonymous() {
        assert_eq!(
            minify(&kubeconfig(), Some("nobody")).unwrap().document["users"],
            json!([])
        );
    }

    #[test]
    fn an_unknown_context_names_the_known_ones_and_what_was_meant() {
        let error = fails("mygke");
        assert_eq!(error.code, "gateway.context_unknown");
        let hint = error.hint.unwrap();
        assert!(
            hint.contains("did you mean \"my-gke\"?") && hint.contains("minikube"),
            "{hint}"
        );
    }

    #[test]
    fn a_context_that_leads_nowhere_is_malformed() {
        let error = fails("torn");
        assert_eq!(error.code, "gateway.kubeconfig_malformed");
        assert!(error.message.contains("names the user \"gone\""), "{error}");
    }

    #[test]
    fn without_a_current_context_one_has_to_be_named() {
        let mut kubeconfig = kubeconfig();
        kubeconfig
            .merged
            .insert("current-context".into(), "".into());
        assert_eq!(
            minify(&kubeconfig, None).map(|_| ()).unwrap_err().code,
            "gateway.context_unset"
        );
    }
}
