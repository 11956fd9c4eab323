//! Which connections are possible: policies, load balancers, cables.

use std::process::Stdio;

use support::bed::{self, Bed, eventually};

const SERVER: &[&str] = &["httpd", "-f", "-p", "8080", "-h", "/"];

fn address(bed: &Bed, namespace: &str, pod: &str) -> String {
    bed.kubectl(&[
        "get",
        "pod",
        "-n",
        namespace,
        pod,
        "-o",
        "jsonpath={.status.podIP}",
    ])
}

#[test]
fn network_policies_are_enforced() {
    if bed::is_missing() {
        return;
    }
    let bed = Bed::start();
    bed.kubectl(&["create", "namespace", "other"]);
    bed.pod("default", "web", SERVER);
    bed.pod("default", "friend", &["sleep", "3600"]);
    bed.pod("other", "stranger", &["sleep", "3600"]);
    let web = format!("http://{}:8080/etc/passwd", address(&bed, "default", "web"));
    let friend = || bed.gets("default", "friend", &web);
    let stranger = || bed.gets("other", "stranger", &web);
    assert!(friend() && stranger(), "without a policy");

    bed.apply(&policy(
        "ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}], ports: [{port: 8080}]}]",
    ));
    eventually("another namespace", || !stranger());
    assert!(friend(), "a pod that is selected");

    bed.apply(&policy("ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}]}]"));
    eventually("a namespace that is selected", stranger);
    eventually("one that is not", || !friend());

    bed.apply(&policy("ingress: [{ports: [{port: 9999}]}]"));
    eventually("another port", || !stranger());

    let blocks = format!(
        "ingress: [{{from: [{{ipBlock: {{cidr: 10.0.0.0/8, except: [{}/32]}}}}]}}]",
        address(&bed, "default", "friend")
    );
    bed.apply(&policy(&blocks));
    eventually("a block", stranger);
    assert!(!friend(), "except one address");

    bed.kubectl(&["delete", "networkpolicy", "web"]);
    bed.apply("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: out, namespace: other}, spec: {podSelector: {}, policyTypes: [Egress]}}");
    eventually("no way out", || !stranger());
    eventually("no policy for this namespace", friend);
}

fn policy(rules: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: web}}, \
         spec: {{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Ingress], {rules}}}}}"
    )
}

#[test]
fn a_load_balancer_gives_an_address_when_it_is_on() {
    if bed::is_missing() {
        return;
    }
    let bed = Bed::start();
    bed.pod("default", "web", SERVER);
    bed.tell("balancer off");
    bed.kubectl(&[
        "expose",
        "pod",
        "web",
        "--type=LoadBalancer",
        "--port=80",
        "--target-port=8080",
    ]);
    let ingress = "{.status.loadBalancer.ingress[0].ip}";
    let has = format!("--for=jsonpath={ingress}");
    let wait = |seconds: &str| {
        bed.try_kubectl(&[
            "wait",
            &has,
            &format!("--timeout={seconds}s"),
            "service/web",
        ])
    };
    assert!(wait("2").is_err(), "no address while it is off");
    bed.tell("balancer on");
    bed.kubectl(&["wait", &has, "--timeout=30s", "service/web"]);
    let address = bed.kubectl(&[
        "get",
        "service",
        "web",
        "-o",
        &format!("jsonpath={ingress}"),
    ]);
    assert!(curl(
        &bed,
        "laptop",
        &format!("http://{address}/etc/passwd")
    ));
    bed.tell("pull laptop");
    assert!(!curl(
        &bed,
        "laptop",
        &format!("http://{address}/etc/passwd")
    ));
    bed.tell("plug laptop");
    eventually("the cable is back", || {
        curl(&bed, "laptop", &format!("http://{address}/etc/passwd"))
    });
}

#[test]
fn nothing_connects_to_the_laptop() {
    if bed::is_missing() {
        return;
    }
    let bed = Bed::start();
    let mut listener = bed
        .on("laptop", "python3")
        .args(["-m", "http.server", "8080"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("cannot start a listener");
    let url = format!("http://{}:8080/", bed.text("/addresses/laptop"));
    eventually("the listener answers", || curl(&bed, "laptop", &url));
    assert!(!curl(&bed, "ssh", &url));
    assert!(!curl(&bed, "cloud", &url));
    listener.kill().expect("cannot end the listener");
    listener.wait().expect("cannot wait for the listener");
}

pub(crate) fn curl(bed: &Bed, host: &str, url: &str) -> bool {
    let mut curl = bed.on(host, "curl");
    curl.args(["-sf", "-m", "2", "--retry", "0", "-o", "/dev/null", url]);
    curl.status().expect("cannot run curl").success()
}
