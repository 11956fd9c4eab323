//! The stand-in for Determined's master sends the requests of the real one, as recorded in tests/master/recordings.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use support::bed::{self, Bed, eventually};
use support::build_dir;

use crate::stand_in::Master;

const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/master/recordings");

/// Requests that the real one sends at the same time, so in any order. Each deletion of a job's objects has its own
/// worker.
const CONCURRENT: [&str; 9] = [
    "watch=true",
    "limit=500",
    "/events",
    "DELETE /apis/batch/v1/namespaces/",
    "/configmaps/<job>",
    "DELETE /apis/scheduling",
    "DELETE /api/v1/namespaces/tasks/pods/",
    "/api/v1/nodes",
    // A worker frees ports meanwhile.
    "determined-preemption",
];

impl Master<'_> {
    /// Compares the new requests with a recording, and drops them.
    fn asked(&self, recording: &str) {
        let file = format!("{RECORDINGS}/{recording}.txt");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let wanted: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
        let mut asked = Vec::new();
        bed::within(Duration::from_secs(10), || {
            asked = self.requests();
            asked.len() >= wanted.len()
        });
        let [asked, wanted] = [asked, wanted].map(|lines| comparable(recording, lines));
        assert_eq!(asked, wanted, "{recording}: {}", self.log());
        fs::write(self.dir.join("requests"), "").expect("cannot empty the file");
    }

    /// The requests in the words of the recordings, with checked bodies.
    fn requests(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("requests")).unwrap_or_default();
        let requests = text.lines().map(|line| -> Value {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        });
        // By time, not by events.
        let requests =
            requests.filter(|it| it["path"] != "/api/v1/pods" || it["query"] != "limit=1");
        requests.map(|it| in_words(&it)).collect()
    }
}

/// The same for all orders that mean the same: what is concurrent comes last, sorted.
fn comparable(recording: &str, lines: Vec<String>) -> Vec<String> {
    let is_concurrent = |line: &String| CONCURRENT.iter().any(|it| line.contains(it));
    let (mut concurrent, mut ordered): (Vec<_>, Vec<_>) =
        lines.into_iter().partition(is_concurrent);
    // Five workers end the objects of others, each in its own time.
    if recording == "new-database" || recording == "route-removed" {
        ordered.sort();
    }
    concurrent.sort();
    ordered.append(&mut concurrent);
    ordered
}

#[test]
fn a_request_that_is_left_out_or_changed_is_noticed() {
    for file in fs::read_dir(RECORDINGS).expect("no recordings").flatten() {
        let name = file.file_name().into_string().expect("text");
        let Some(recording) = name.strip_suffix(".txt") else {
            continue;
        };
        let text = fs::read_to_string(file.path()).expect("cannot read");
        let lines: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
        let wanted = comparable(recording, lines.clone());
        for i in 0..lines.len() {
            let mut less = lines.clone();
            less.remove(i);
            assert_ne!(comparable(recording, less), wanted, "{name}: {}", lines[i]);
            let mut other = lines.clone();
            other[i].push('x');
            assert_ne!(comparable(recording, other), wanted, "{name}: {}", lines[i]);
        }
    }
}

fn in_words(request: &Value) -> String {
    let text = |key: &str| request[key].as_str().unwrap_or_default().to_owned();
    let (method, path) = (text("method"), text("path"));
    assert_eq!(text("accept"), "application/json, */*", "{request}");
    let kind = path.split('/').rev();
    let kind: Vec<&str> = kind.take(2).collect();
    if !request["body"].is_null() {
        check_fields(
            &method,
            if method == "POST" { kind[0] } else { kind[1] },
            &request["body"],
        );
    }
    let query = text("query").replace("%3D", "=");
    let mut line = format!("{method} {path}");
    if !query.is_empty() {
        line = format!("{line}?{}", without_numbers(&query));
    }
    if !text("type").is_empty() {
        line = format!("{line} {}", text("type"));
    }
    without_names(&line)
}

/// Versions and time limits differ each time.
fn without_numbers(query: &str) -> String {
    let shown = query.split('&').map(|part| match part.split_once('=') {
        Some(("resourceVersion", version)) if version != "0" => "resourceVersion=N".to_owned(),
        Some((name @ ("timeout" | "timeoutSeconds"), _)) => format!("{name}=T"),
        _ => part.to_owned(),
    });
    shown.collect::<Vec<_>>().join("&")
}

const UUID: usize = 36;

fn without_names(line: &str) -> String {
    let mut line = line.to_owned();
    while let Some(start) = line.find("/det-").map(|at| at + 1) {
        let job = "det-12345678-cmd-".len() + UUID;
        if line.len() < start + job {
            break;
        }
        line.replace_range(start..start + job, "<job>");
    }
    // A pod has a suffix of five characters.
    if let Some(at) = line.find("<job>-").map(|at| at + "<job>-".len())
        && line[at..].find(['/', ' ']) == Some(5)
    {
        line.replace_range(at..at + 5, "<pod>");
    }
    if let Some(at) = line.find(".1").filter(|at| *at >= UUID)
        && line[at - UUID..at].chars().filter(|it| *it == '-').count() == 4
    {
        line.replace_range(at - UUID..at + 2, "<allocation>");
    }
    line
}

/// A body has the recorded fields, and no others.
fn check_fields(method: &str, kind: &str, body: &Value) {
    let text = fs::read_to_string(format!("{RECORDINGS}/fields.json")).expect("no fields");
    let recorded: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).expect("no JSON");
    let name = format!("{method} {kind}");
    let wanted = recorded
        .get(&name)
        .unwrap_or_else(|| panic!("{name} was not recorded"));
    let mut body = body.clone();
    if kind == "gateways" {
        // The API's version of the object, sent back unchanged.
        body.as_object_mut().expect("an object").remove("status");
        let metadata = body["metadata"].as_object_mut().expect("metadata");
        metadata.remove("managedFields");
    }
    let mut found = Vec::new();
    paths(&body, "", &mut found);
    found.sort();
    found.dedup();
    let optional =
        |path: &&String| !path.contains("det-gateway-port") && !path.contains("last-applied");
    let found: Vec<_> = found.iter().filter(optional).collect();
    let wanted: Vec<_> = wanted.iter().filter(optional).collect();
    assert_eq!(found, wanted, "{name}: {body}");
}

fn paths(value: &Value, at: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                paths(value, &format!("{at}/{name}"), into);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                paths(item, &format!("{at}/*"), into);
            }
        }
        _ => into.push(at.to_owned()),
    }
}

fn prepare(bed: &Bed) {
    let crds = build_dir().join("bed/gateway-api/v1.2.1/experimental");
    for kind in ["gatewayclasses", "gateways", "tcproutes"] {
        let file = crds.join(format!("gateway.networking.k8s.io_{kind}.yaml"));
        bed.kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()]);
    }
    bed.kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd/gateways.gateway.networking.k8s.io",
        "crd/tcproutes.gateway.networking.k8s.io",
    ]);
    for namespace in ["tasks", "team-b", "gw"] {
        bed.kubectl(&["create", "namespace", namespace]);
    }
    bed.apply(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: det, namespace: gw}, spec: {gatewayClassName: none, \
         listeners: [{name: base, port: 1025, protocol: TCP, allowedRoutes: {namespaces: {from: All}}}]}}",
    );
    // Right after the definition the API asks clients to retry later.
    eventually("the API serves routes", || {
        bed.try_kubectl(&["get", "tcproutes.v1alpha2.gateway.networking.k8s.io", "-A"])
            .is_ok()
    });
    for namespace in ["tasks", "team-b"] {
        let account = ["get", "serviceaccount", "-n", namespace, "default"];
        eventually("there is a service account", || {
            bed.try_kubectl(&account).is_ok()
        });
    }
}

#[test]
fn the_stand_in_sends_the_real_masters_requests() {
    if bed::is_missing() {
        return;
    }
    let bed = Bed::start();
    prepare(&bed);
    let dir = tempfile::tempdir().expect("no temporary directory");
    let gateway = json!({
        "gateway_name": "det", "gateway_namespace": "gw", "gateway_ip": bed.text("/addresses/cloud"),
        "gateway_port_range_start": 20000, "gateway_port_range_end": 20009,
    });
    let start = || Master::start(&bed, dir.path(), 8080, "tasks", &gateway);
    let master = start();
    master.asked("start");

    let command = master.launch("echo hello; sleep 2; echo bye", &[], "Uncategorized");
    master.wait_for(&command, "COMPLETED");
    master.asked("command");
    let failing = master.launch("sleep 1; exit 3", &[], "Uncategorized");
    master.wait_for(&failing, "ERROR");
    master.asked("failing-command");
    let ports = master.launch("sleep 3", &[3320, 3321], "Uncategorized");
    master.wait_for(&ports, "COMPLETED");
    master.asked("two-ports");
    let shell = master.launch("sleep 3600", &[3320], "Uncategorized");
    master.wait_for(&shell, "RUNNING");
    master.kill_task(&shell);
    master.asked("shell");

    let shell = master.launch("sleep 3600", &[3320], "Uncategorized");
    master.wait_for(&shell, "RUNNING");
    master.kill();
    let master = start();
    master.asked("restart");
    master.kill();
    let route = format!("determined={shell}.1");
    bed.kubectl(&["delete", "tcproute", "-n", "tasks", "-l", &route]);
    let master = start();
    master.asked("route-removed");

    let shell = master.launch("sleep 3600", &[3320], "Uncategorized");
    master.wait_for(&shell, "RUNNING");
    master.kill();
    fs::remove_file(dir.path().join("database")).expect("no database");
    let master = start();
    master.asked("new-database");

    let binding = json!({"namespace": "team-b"});
    master.ask("PUT", "workspaces/w2/namespace", &binding);
    let missing = json!({"namespace": "nope"});
    assert_eq!(
        master.try_ask("PUT", "workspaces/w3/namespace", &missing),
        None
    );
    master.asked("binding");
    let command = master.launch("sleep 1", &[], "w2");
    master.wait_for(&command, "COMPLETED");
    let mut master = master;
    eventually("the command's objects are gone", || {
        master.requests().len() == 6
    });
    master.launch("sleep 3600", &[3320], "w2");
    assert_eq!(master.wait().code(), Some(2), "{}", master.log());
    master.asked("crash");

    let master = start();
    eventually("what could not be restored is gone", || {
        master.requests().len() >= 40
    });
    let shell = master.launch("sleep 3600", &[3320], "w2");
    master.wait_for(&shell, "RUNNING");
    master.kill_task(&shell);
    master.asked("two-namespaces");
}
