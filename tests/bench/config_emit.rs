//! A large file, compared with a script that loads and dumps it with PyYAML: whole processes, cold.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::devcluster::python_program;
use support::emit::{Upstream, gateway_outputs, tunnel_outputs, write};
use support::{Home, bin};

const ROUNDS: usize = 15;
const MANAGERS: usize = 100;
const LINES: usize = 5000;

/// The goal on an idle machine.
const BUDGET: Duration = Duration::from_millis(50);

const PEER: &str =
    "import sys, yaml; yaml.safe_dump(yaml.safe_load(open(sys.argv[1])), open(sys.argv[2], 'w'))";

fn median(mut run: impl FnMut() -> Command) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let mut command = run();
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            let began = Instant::now();
            let output = command.output().expect("it runs");
            let took = began.elapsed();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            took
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

/// A master's config with this many lines, with comments, and with a resource manager for each gateway.
fn config(indent: &str) -> String {
    let mut lines = vec!["# a master's config".to_owned(), "resource_manager:".into()];
    lines.extend(
        [
            "  type: kubernetes",
            "  max_slots_per_pod: 1  # each",
            "additional_resource_managers:",
        ]
        .map(str::to_owned),
    );
    for i in 1..MANAGERS {
        lines.extend([
            format!("  - resource_manager:  # number {i}"),
            "      type: kubernetes".into(),
            format!("      cluster_name: gw-{i}"),
            "      max_slots_per_pod: 8".into(),
            "      internal_task_gateway: {gateway_name: old}".into(),
            "    resource_pools:".into(),
            format!("      - pool_name: pool-{i}"),
            "        task_container_defaults:".into(),
            "          environment_variables:".into(),
        ]);
        for n in 0..36 {
            lines.push(format!(
                "            - \"POOL_{i}_{n}=value number {n}\"  # kept"
            ));
        }
    }
    lines.push("task_container_defaults:".into());
    lines.push("  environment_variables:".into());
    while lines.len() < LINES {
        lines.push(format!("    - LINE_{}: 'x'", lines.len()));
    }
    lines
        .iter()
        .map(|line| format!("{indent}{line}\n"))
        .collect()
}

#[tokio::test]
#[ignore = "a measurement: make bench"]
async fn a_large_file_takes_a_fraction_of_what_pyyaml_takes() {
    let home = Home::new();
    let mut upstreams =
        vec![Upstream::ready(&home, "tunnel", "tunnel", tunnel_outputs(8003)).await];
    for i in 0..MANAGERS {
        let name = if i == 0 {
            "default".to_owned()
        } else {
            format!("gw-{i}")
        };
        upstreams.push(Upstream::ready(&home, &name, "gateway", gateway_outputs()).await);
    }
    let base = write(&home, "master.conf", &config(""));
    let (out, dumped) = (
        home.path().join("out.yaml"),
        home.path().join("dumped.yaml"),
    );
    let gateways: String = (1..MANAGERS)
        .map(|i| format!("  - gateway: {{name: gw-{i}, k8s_context: c{i}}}\n"))
        .collect();
    let source = write(
        &home,
        "devcluster.yaml",
        &format!(
            "stages:\n  - tunnel: {{reverse_proxy_host: proxy}}\n  - gateway: {{k8s_context: c0, resource_manager: default}}\n{gateways}  - config-emit: {{}}\n  - master:\n      config_file:\n{}",
            config("        ")
        ),
    );
    let command = |program: &str| {
        let mut command = Command::new(bin(program));
        command
            .env("HOME", home.path())
            .env("XDG_STATE_HOME", home.path().join("state"));
        command
    };
    let python = |file: &Path| {
        let mut command = Command::new(python_program("DEVCLUSTER_PYTHON", "python"));
        command.args(["-c", PEER]).arg(file).arg(&dumped);
        command
    };
    let emit = median(|| {
        let mut once = command("devcluster-config-emit");
        once.args(["once", "--events", "none", "--run-dir"])
            .arg(home.run_dir());
        once.arg("--base").arg(&base).arg("--out").arg(&out);
        once
    });
    let compile = median(|| {
        let mut compile = command("devcluster-remote");
        compile.arg("compile").arg("-c").arg(&source);
        compile
    });
    let mut table = serde_json::Map::new();
    for (what, ours, peer) in [
        ("config-emit once", emit, median(|| python(&base))),
        ("compile", compile, median(|| python(&source))),
    ] {
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        let ratio = ms(ours) / ms(peer);
        eprintln!(
            "{what:<17} {LINES} lines, {MANAGERS} resource managers: {:6.1} ms, PyYAML load and dump {:6.1} ms, ratio {ratio:.3} (median of {ROUNDS}; {} the {BUDGET:?} asked for)",
            ms(ours),
            ms(peer),
            if ours <= BUDGET { "within" } else { "over" },
        );
        table.insert(
            what.to_owned(),
            json!({"ms": ms(ours), "pyyaml_ms": ms(peer), "ratio": ratio}),
        );
        assert!(ratio < 0.35, "{what}: {ratio:.3} of the time of PyYAML");
    }
    eprintln!("{}", serde_json::Value::Object(table));
    let text = std::fs::read_to_string(&out).expect("written");
    assert_eq!(
        text.matches("determined_master_port: 8003").count(),
        MANAGERS
    );
    assert_eq!(text.matches("# kept").count(), (MANAGERS - 1) * 36);
}
