//! What `compile` sets for the masters of a file: guards in front of them, and the namespace of their tasks.

use serde_json::Value;
use support::{Home, bin, code_of};

use super::{compile, compiled, loaded, reports, words, write};

/// The guard's step in the `post` of a master.
fn guard_step(loaded: &Value, master: usize, step: usize) -> Vec<&str> {
    words(&loaded["post"][master][step]["custom"])
}

#[tokio::test]
async fn every_port_that_leads_to_a_master_gets_a_guard_and_the_master_is_examined_at_its_start() {
    let home = Home::new();
    let file = write(
        &home,
        "devcluster.yaml",
        "stages:
  - tunnel:
      reverse_proxy_host: proxy
      forwards:
        - {name: ui, local_port: 3000}
        - {name: second, local_port: 9090}
        - {name: unknown, local_port: $PORT}
  - tunnel: {name: other, reverse_proxy_host: proxy, local_port: 9090, forwards: [{local_port: 8080, guard: none}]}
  - tunnel: {name: open, reverse_proxy_host: proxy, guard: none, bind_address: localhost}
  - tunnel: {name: unrelated, reverse_proxy_host: proxy, local_port: 3001}
  - config-emit: {stage: master}
  - master:
      config_file: {security: {initial_user_password: x}, resource_manager: {type: kubernetes, max_slots_per_pod: 1}}
  - master:
      name: second
      config_file: {port: 9090, security: {initial_user_password: x}}
      post: [{conncheck: {port: 9090}}]
  - master:
      name: third
      config_file: {port: 9091, security: {initial_user_password: x}}
",
    );
    let text = compiled(&home, &["-c", file.to_str().expect("text")]).await;
    let loaded = loaded(&home, &text).await;
    let guards = |stage: usize| {
        let command = words(&loaded["stages"][stage]["cmd"]).into_iter();
        let guarded = command.filter(|w| w.starts_with("--") && w.contains("guard"));
        guarded.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        guards(0),
        [
            r#"--forwards=[{"name":"ui","local_port":3000},{"name":"second","local_port":9090,"guard":"determined"},{"name":"unknown","local_port":"$PORT","guard":"determined"}]"#,
            "--guard=determined",
        ]
    );
    assert_eq!(
        guards(1),
        [
            r#"--forwards=[{"local_port":8080,"guard":"none"}]"#,
            "--guard=determined"
        ]
    );
    assert_eq!(guards(2), ["--guard=none"]);
    assert_eq!(guards(3), Vec::<String>::new());
    let log = &loaded["post"][5][0];
    assert_eq!(
        log["logcheck"]["regex"], "accepting incoming connections on port",
        "{log}"
    );
    let step = guard_step(&loaded, 5, 1);
    assert_eq!(step[0], bin("devcluster-tunnel").to_str().expect("text"));
    assert!(
        step.contains(&"--guard") && step.contains(&"--timeout=10"),
        "{step:?}"
    );
    assert!(step.contains(&"--name=tunnel"), "{step:?}");
    assert_eq!(loaded["post"][6][0]["conncheck"]["port"], 9090);
    assert!(guard_step(&loaded, 6, 1).contains(&"--name=tunnel"));
    assert!(guard_step(&loaded, 6, 2).contains(&"--name=other"));
    // Only the port that is not known before the run may lead there.
    assert!(guard_step(&loaded, 7, 1).contains(&"--name=tunnel"));
    assert_eq!(loaded["post"][7].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn a_gateway_has_the_namespace_in_which_its_master_runs_tasks() {
    let home = Home::new();
    let text = |of_master: &str, of_gateway: &str| {
        let text = format!(
            "stages:
  - tunnel: {{reverse_proxy_host: example.com}}
  - gateway: {{{of_gateway}}}
  - config-emit: {{}}
  - master:
      config_file:
        security: {{initial_user_password: only-a-test}}
        resource_manager: {{type: kubernetes, max_slots_per_pod: 1, {of_master}}}
"
        );
        let file = write(&home, "x.yaml", &text);
        file.to_str().expect("text").to_owned()
    };
    for (of_master, of_gateway, expected) in [
        (
            "default_namespace: team-a",
            "",
            Some("--task-namespace=team-a"),
        ),
        (
            "default_namespace: team-a",
            "task_namespace: team-a",
            Some("--task-namespace=team-a"),
        ),
        ("", "", None),
        // Known at the start only.
        (
            "default_namespace: $TEAM",
            "task_namespace: other",
            Some("--task-namespace=other"),
        ),
    ] {
        let file = text(of_master, of_gateway);
        let loaded = loaded(&home, &compiled(&home, &["-c", &file]).await).await;
        let cmd = words(&loaded["stages"][1]["cmd"]);
        let found = cmd.iter().find(|word| word.starts_with("--task-namespace"));
        assert_eq!(found.copied(), expected, "{of_master:?} {of_gateway:?}");
    }
    for (of_master, of_gateway) in [
        ("default_namespace: team-a", "task_namespace: team-b"),
        ("", "task_namespace: team-b"),
    ] {
        let file = text(of_master, of_gateway);
        let output = compile(&home, &["-c", &file]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(code_of(&stderr), "remote.config", "{stderr}");
        let says = reports(&stderr, "x.yaml:3:31", "runs its tasks in");
        assert!(says, "{stderr}");
    }
}
