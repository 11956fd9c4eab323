use serde_json::json;

use super::*;

const TWO: &str = r#"
current-context: minikube
preferences: {colors: true}
clusters:
- {name: m, cluster: {server: "https://m", certificate-authority: ca.crt, extensions: [{name: x, extension: {a: 1}}]}}
- {name: g, cluster: {server: "https://g"}}
users:
- {name: m, user: {client-certificate-data: Q0VSVA==, client-key: ../keys/k}}
- {name: g, user: {exec: {command: ./bin/login, provideClusterInfo: true}}}
contexts:
- {name: minikube, context: {cluster: m, user: m, namespace: mine}}
- {name: my-gke, context: {cluster: g, user: g}}
- {name: anonymous, context: {cluster: g}}
- {name: torn, context: {cluster: g, user: gone}}
"#;

fn load(texts: &[&str], name: Option<&str>) -> Result<KubeContext, StageError> {
    let dir = tempfile::tempdir().unwrap();
    let write = |(at, text): (usize, &&str)| {
        let file = dir.path().join(at.to_string());
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let mut listed: Vec<String> = texts.iter().enumerate().map(write).collect();
    listed.push(dir.path().join("missing").to_str().unwrap().to_owned());
    let env = Env::from_pairs([("KUBECONFIG", listed.join("::").as_str())]);
    let mut context = KubeContext::load(None, name, &env)?;
    let text = context
        .document()?
        .replace(dir.path().to_str().unwrap(), "");
    context.kubeconfig = serde_json::from_str(&text).unwrap();
    Ok(context)
}

fn fails(text: &str, name: Option<&str>) -> StageError {
    load(&[text], name).err().unwrap()
}

#[test]
fn the_chosen_context_is_kept_alone_and_complete_with_absolute_paths() {
    let first = "clusters: [{name: g, cluster: {server: 'https://first'}}]\ncurrent-context: ''\n";
    let one = load(&[first, TWO], Some("my-gke")).unwrap();
    assert_eq!(one.server, "https://first", "the first to name it wins");
    assert_eq!(
        one.plugin.as_deref().map(|it| it.ends_with("/bin/login")),
        Some(true)
    );
    assert_eq!(one.namespace(), "default");
    let current = load(&[first, TWO], None).unwrap();
    assert_eq!(
        (current.name.as_str(), current.namespace()),
        ("minikube", "mine")
    );
    assert_eq!(
        serde_json::to_value(&current.kubeconfig).unwrap(),
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "minikube",
            "clusters": [{"name": "m", "cluster": {
                "server": "https://m",
                "certificate-authority": "/ca.crt",
                "extensions": [{"name": "x", "extension": {"a": 1}}],
            }}],
            "users": [{"name": "m", "user": {"client-certificate-data": "Q0VSVA==", "client-key": "/../keys/k"}}],
            "contexts": [{"name": "minikube", "context": {"cluster": "m", "user": "m", "namespace": "mine"}}],
        })
    );
    let anonymous = load(&[TWO], Some("anonymous")).unwrap();
    assert!(anonymous.kubeconfig.auth_infos.is_empty());
}

#[test]
fn errors_of_a_kubeconfig_do_not_show_its_secrets() {
    let torn = fails(TWO, Some("torn"));
    assert!(torn.message.contains("names the user \"gone\""), "{torn}");
    for text in [
        "a: [\n",
        "- a\n",
        "contexts: 3\n",
        "users: [{user: {token: hunter2}}]\n",
        "users:\n- {name: u, user: {token: hunter2, password: []}}\n",
    ] {
        let error = fails(text, None);
        assert_eq!(error.code, "cluster.kubeconfig_malformed", "{text}");
        assert!(
            error.message.contains("/0:") && !error.message.contains("hunter2"),
            "{error}"
        );
    }
}
