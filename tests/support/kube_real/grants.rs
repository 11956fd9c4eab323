//! What a user may do.

use http::Request;
use kube::Client;
use serde_json::{Value, json};

use super::RealKube;

impl RealKube {
    /// From now on the user may do this everywhere, and nothing else.
    pub async fn grant(&self, user: &str, rules: &[Value]) {
        const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
        let (roles, bindings) = (
            format!("{RBAC}/clusterroles"),
            format!("{RBAC}/clusterrolebindings"),
        );
        let role = format!("{roles}/{user}");
        if self.get(&role).await.is_null() {
            self.create(&roles, &json!({"metadata": {"name": user}}))
                .await;
            let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user});
            let subject =
                json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user});
            let binding =
                json!({"metadata": {"name": user}, "roleRef": reference, "subjects": [subject]});
            self.create(&bindings, &binding).await;
        }
        self.merge(&role, &json!({"rules": rules})).await;
        let client = self.as_user(user).await.client();
        self.until("the rights to be as granted", async || {
            rules_of(&client).await == total(rules)
        })
        .await;
    }
}

/// How many verbs the user has been given, as the authorizer itself sees it by now.
async fn rules_of(client: &Client) -> usize {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews")
        .header("content-type", "application/json")
        .body(review.to_string().into_bytes())
        .expect("a request");
    let answer: Value = client.request(request).await.unwrap_or_default();
    let rules = answer["status"]["resourceRules"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let given = |rule: &&Value| {
        rule["resources"][0]
            .as_str()
            .is_some_and(|it| !it.starts_with("self"))
    };
    total(&rules.iter().filter(given).cloned().collect::<Vec<_>>())
}

fn total(rules: &[Value]) -> usize {
    rules
        .iter()
        .filter_map(|rule| rule["verbs"].as_array())
        .map(Vec::len)
        .sum()
}
