//! Tests of identities.

use super::*;

fn setup() -> (tempfile::TempDir, Env) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let env = Env::from_pairs([("XDG_STATE_HOME", state.to_str().unwrap())]);
    (dir, env)
}

#[test]
fn an_identity_stays_until_it_is_removed_and_each_instance_and_run_directory_has_one() {
    let (dir, env) = setup();
    let of = |run_dir: &str| Identities::open(&env, Path::new(run_dir), true).unwrap();
    let first = of("/run/a").get("gateway").unwrap();
    assert_eq!((first.as_str().len(), first.short().len()), (32, 8));
    assert_eq!(of("/run/a").get("gateway").unwrap(), first);
    let others = [
        of("/run/a").get("tunnel").unwrap(),
        of("/run/a").get("").unwrap(),
        of("/run/b").get("gateway").unwrap(),
    ];
    assert!(!others.contains(&first));

    of("/run/a").remove("gateway").unwrap();
    assert_ne!(of("/run/a").get("gateway").unwrap(), first);
    assert_eq!(of("/run/a").get("").unwrap(), others[1]);
    for name in ["gateway", "tunnel"] {
        of("/run/a").remove(name).unwrap();
    }
    assert_ne!(
        of("/run/a").get("").unwrap(),
        others[1],
        "the last one has left"
    );

    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    let by = |path: &Path| {
        Identities::open(&env, path, true)
            .unwrap()
            .get("g")
            .unwrap()
    };
    assert_eq!(by(dir.path()), by(&link), "the canonical path counts");
}

#[test]
fn a_verb_that_only_looks_writes_nothing() {
    let (dir, env) = setup();
    let looking = || Identities::open(&env, Path::new("/run/a"), false).unwrap();
    assert_ne!(looking().get("g").unwrap(), looking().get("g").unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_of_a_newer_release_is_refused_and_an_empty_one_is_replaced() {
    let (_dir, env) = setup();
    let all = Identities::open(&env, Path::new("/run/a"), true).unwrap();
    std::fs::write(all.path("g"), "").unwrap();
    let new = all.get("g").unwrap();
    assert_eq!(all.get("g").unwrap(), new);
    std::fs::write(all.path("g"), r#"{"format":9,"id":"x"}"#).unwrap();
    let error = all.get("g").unwrap_err();
    assert_eq!(error.code, "protocol.format_newer");
    assert!(error.message.contains("format 9") && error.message.contains("up to 2"));
}
