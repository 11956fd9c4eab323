//! References in a command.

use std::process::Stdio;

use serde_json::{Value, json};
use support::emit::{finish, read};
use support::{Home, bin, code_of};
use tokio::process::Command;

use super::{NASTY, ODD, printed, vpn};

/// `devcluster-config-emit exec … -- words`
fn exec(home: &Home, options: &[&str], words: &[&str]) -> Command {
    let mut command = home.command(&bin("devcluster-config-emit"));
    command
        .arg("exec")
        .arg("--run-dir")
        .arg(home.run_dir())
        .args(options);
    command
        .arg("--")
        .args(words)
        .current_dir(home.path())
        .stdin(Stdio::null());
    command
}

#[tokio::test]
async fn a_command_gets_values_and_a_shell_runs_none_of_them() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let words = [
        "printf",
        "%s|",
        "${{ my.vpn.port }}",
        "x${{ my.vpn.nasty }}",
        "${{ my.vpn.block }}",
        "$${{ no }}",
    ];
    let expected = format!("8003|x{NASTY}|{{\"ip\":\"10.0.0.1\",\"ports\":[1,2]}}|${{{{ no }}}}|");
    assert_eq!(printed(exec(&home, &[], &words)).await, expected);
    for script in [
        "printf %s ${{ my.vpn.odd }}",
        "printf %s \"${{ my.vpn.odd }}\"",
    ] {
        assert_eq!(printed(exec(&home, &[], &["sh", "-ec", script])).await, ODD);
    }
    let argument = [
        "timeout",
        "9",
        "sh",
        "-c",
        "printf %s \"$1\"",
        "sh",
        "${{ my.vpn.nasty }}",
    ];
    assert_eq!(printed(exec(&home, &[], &argument)).await, NASTY);
    let mut command = exec(
        &home,
        &["--env", "URL"],
        &["sh", "-c", "printf %s \"$URL $OTHER\""],
    );
    command
        .env("URL", "at ${{ my.vpn.port }}")
        .env("OTHER", "${{ my.vpn.port }}");
    assert_eq!(printed(command).await, "at 8003 ${{ my.vpn.port }}");
    assert!(!home.path().join("harm").exists());
}

#[tokio::test]
async fn a_value_that_a_shell_could_run_is_not_run() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    const TEXT: Option<&str> = Some("text of a script");
    const CALCULATES: Option<&str> = Some("an arithmetic expression");
    for (words, refusal) in [
        ("env|sh|-c|echo ${{ my.vpn.command }}", TEXT),
        ("timeout|5|sh|-c|echo ${{ my.vpn.command }}", TEXT),
        (
            "python3|-c|import os; os.system('${{ my.vpn.command }}')",
            TEXT,
        ),
        (
            "sh|-c|sh -c \"echo ${{ my.vpn.command }}\"",
            Some("a reference in a nested script"),
        ),
        (
            "sh|-c|eval echo ${{ my.vpn.command }}",
            Some("a reference in a nested script"),
        ),
        (
            "bash|${{ my.vpn.option }}|echo ${{ my.vpn.command }}",
            Some("as an option"),
        ),
        ("sh|-c|-e|echo ${{ my.vpn.command }}", None),
        ("bash|--rcfile|none|-c|echo ${{ my.vpn.command }}", None),
        ("bash|-c|echo \\\\${{ my.vpn.command }}", None),
        ("bash|-c|echo $(( ${{ my.vpn.subscript }} ))", CALCULATES),
        ("bash|-c|(( ${{ my.vpn.subscript }} ))", CALCULATES),
        ("bash|-c|[[ ${{ my.vpn.subscript }} -eq 0 ]]", CALCULATES),
        ("bash|-c|declare -i x=${{ my.vpn.subscript }}", CALCULATES),
    ] {
        let words: Vec<&str> = words.split('|').collect();
        let (code, stderr) = finish(exec(&home, &[], &words)).await;
        let expected = refusal.map_or(0, |_| 2);
        assert_eq!(code, Some(expected), "{words:?}: {stderr}");
        assert!(
            stderr.contains(refusal.unwrap_or_default()),
            "{words:?}: {stderr}"
        );
        assert!(!home.path().join("harm").exists(), "{words:?}");
    }
}

#[tokio::test]
async fn a_command_replaces_the_process_and_sets_its_exit_code() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let (code, stderr) = finish(exec(
        &home,
        &[],
        &["sh", "-c", "exit ${{ my.vpn.list[1].b }}"],
    ))
    .await;
    assert_eq!(code, Some(2), "{stderr}");
    let child = exec(
        &home,
        &["--for", "app.cmd"],
        &["sh", "-c", "echo $$ ${{ my.vpn.port }}"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .expect("it runs");
    let pid = child.id();
    let output = child.wait_with_output().await.expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.trim(), format!("{} 8003", pid.expect("a pid")));
    let note = read(&home.run_dir().join("used/app.cmd.json"));
    let note: Value = serde_json::from_str(&note).expect("JSON");
    assert_eq!(note["stage"], "app");
    assert_eq!(note["values"], json!({"${{ my.vpn.port }}": 8003}));
}

#[tokio::test]
async fn a_command_that_outlived_its_devcluster_is_ended_by_the_next_start() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let words = ["sleep", "80${{ my.vpn.port }}"];
    let mut first = exec(&home, &["--for", "app.cmd"], &words)
        .spawn()
        .expect("it runs");
    let note = home.run_dir().join("used/app.cmd.json");
    let noted = async {
        while !note.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(support::DEADLINE, noted)
        .await
        .expect("no note");
    let mut second = exec(&home, &["--for", "app.cmd"], &words)
        .spawn()
        .expect("it runs");
    let status = tokio::time::timeout(support::DEADLINE, first.wait()).await;
    let status = status.expect("it lives on").expect("a status");
    assert!(!status.success(), "{status}");
    second.kill().await.expect("killed");
}

#[tokio::test]
async fn a_command_without_its_values_is_an_error() {
    let home = Home::new();
    let _vpn = vpn(&home).await;
    let bad = "config_emit.bad_reference";
    for (options, words, code, exit, says) in [
        (
            &[][..],
            &["echo", "${{ my.vpn.prot }}"][..],
            bad,
            2,
            "did you mean `my.vpn.port`?",
        ),
        (
            &[],
            &["echo", "${{ missing.port }}"],
            bad,
            2,
            "no instance `missing`; there is my.vpn",
        ),
        (&[], &["echo", "${{ my.vpn.none }}"], bad, 2, "is empty"),
        (&[], &["echo", "${{ "], bad, 2, "without its `}}`"),
        (
            &[],
            &["sh", "-c", "echo '${{ my.vpn.port }}'"],
            bad,
            2,
            "use double quotes",
        ),
        (
            &[],
            &["/nowhere/${{ my.vpn.port }}"],
            "protocol.program_missing",
            2,
            "cannot run /nowhere/8003",
        ),
        (
            &["--upstreams", "gone"],
            &["echo", "${{ gone.x }}"],
            "protocol.upstream_missing",
            4,
            "no process runs gone",
        ),
    ] {
        let (ended, stderr) = finish(exec(&home, options, words)).await;
        assert_eq!(
            (code_of(&stderr), ended),
            (code, Some(exit)),
            "{words:?}: {stderr}"
        );
        assert!(stderr.contains(says), "{words:?}: {stderr}");
    }
}
