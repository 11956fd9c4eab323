use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn two_writers_of_one_file_never_mix() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    std::thread::scope(|scope| {
        for byte in [b'a', b'b'] {
            let path = path.clone();
            scope.spawn(move || {
                for length in 1..300 {
                    replace(&path, &vec![byte; length * 50], false).unwrap();
                    let read = read(&path).unwrap().unwrap();
                    assert!(!read.is_empty() && read.iter().all(|b| *b == read[0]));
                }
            });
        }
    });
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_link_is_neither_read_nor_accepted_as_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert_eq!(
        private_dir(&link, "run directory").unwrap_err().code,
        "protocol.unsafe_dir"
    );
    std::fs::write(real.join("f"), "x").unwrap();
    std::os::unix::fs::symlink(real.join("f"), real.join("l")).unwrap();
    assert!(read(&real.join("l")).is_err());
}

#[test]
fn what_is_kept_gets_a_new_access_time_and_keeps_the_time_of_its_change() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    let path = dir.path().join("in/f");
    let old = std::time::UNIX_EPOCH + Duration::from_secs(1);
    let times = std::fs::FileTimes::new()
        .set_accessed(old)
        .set_modified(old);
    File::create(&path).unwrap().set_times(times).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("link")).unwrap();
    keep(dir.path());
    let meta = path.metadata().unwrap();
    assert_eq!(meta.modified().unwrap(), old);
    assert!(meta.accessed().unwrap() > old + Duration::from_secs(1));
}

fn directory(path: &Path, mode: u32) {
    std::fs::create_dir(path).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn every_directory_on_the_way_and_that_of_every_link_counts() {
    let dir = tempfile::tempdir().unwrap();
    let link = |from: &str, to: PathBuf| {
        std::os::unix::fs::symlink(to, dir.path().join(from)).unwrap();
    };
    for (name, mode) in [("safe", 0o755), ("open", 0o777), ("sticky", 0o1777)] {
        directory(&dir.path().join(name), mode);
        directory(&dir.path().join(name).join("a"), 0o755);
        directory(&dir.path().join(name).join("a/b"), 0o755);
    }
    link("good", dir.path().join("safe/a"));
    link("relative", "sticky/../good".into());
    link("bad", dir.path().join("open/a"));
    link("open/a/back", dir.path().join("safe"));
    link("sticky/to", dir.path().join("safe"));
    link("loop", dir.path().join("loop"));
    let name = |path: &str| trust::trusted(&dir.path().join(path));
    for (path, real) in [
        ("safe/a/b", "safe/a/b"),
        ("sticky/a/b", "sticky/a/b"),
        ("good/b", "safe/a/b"),
        ("relative/b/../b", "safe/a/b"),
        ("sticky/to/a", "safe/a"),
    ] {
        let real = dir.path().join(real).canonicalize().unwrap();
        assert_eq!(name(path).unwrap(), real, "{path}");
    }
    for path in [
        "open/a",
        "open/a/b",
        "bad/b",
        "open/a/back/a",
        "safe/../open/a",
    ] {
        let why = name(path).unwrap_err().to_string();
        assert!(
            why.contains("open is writable by other users"),
            "{path}: {why}"
        );
    }
    for path in ["sticky", "loop", "safe/none"] {
        assert!(name(path).is_err(), "{path}");
    }
    let made = own_dir(&dir.path().join("good/new/deep"), "x").unwrap();
    assert!(made.ends_with("safe/a/new/deep"));
    assert_eq!(made.metadata().unwrap().mode() & 0o777, 0o700);
    assert!(own_dir(&dir.path().join("open/a/new"), "x").is_err());
    assert!(!dir.path().join("open/a/new").exists());
}

/// Only root can give a file to another user.
#[test]
fn a_part_of_the_path_of_another_user_is_refused_also_in_a_sticky_directory() {
    let dir = tempfile::tempdir().unwrap();
    directory(&dir.path().join("sticky"), 0o1777);
    let theirs = dir.path().join("sticky/theirs");
    directory(&theirs, 0o755);
    std::os::unix::fs::symlink(dir.path(), dir.path().join("sticky/link")).unwrap();
    directory(&theirs.join("ours"), 0o700);
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let give = |name: &str| std::os::unix::fs::lchown(dir.path().join(name), Some(4711), None);
    if give("sticky/theirs")
        .and(give("sticky/link"))
        .and(give("file"))
        .is_err()
    {
        return;
    }
    for path in [
        "sticky/theirs",
        "sticky/theirs/ours",
        "sticky/link/x",
        "file",
    ] {
        let path = dir.path().join(path);
        let error = own_dir(&path, "x").unwrap_err();
        assert_eq!(error.code, "protocol.unsafe_dir", "{}", path.display());
        assert!(error.message.contains("belongs to user 4711"), "{error}");
    }
    let error = read(&dir.path().join("file")).unwrap_err();
    assert!(error.to_string().contains("belongs to user 4711"));
    read_bytes(&dir.path().join("file")).expect("a file that the user names");
}

#[test]
fn a_directory_that_others_can_write_to_is_refused_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let open = dir.path().join("open");
    directory(&open, 0o777);
    for path in [open.clone(), open.join("inside")] {
        let error = private_dir(&path, "run directory").unwrap_err();
        assert_eq!(error.code, "protocol.unsafe_dir");
        let named = format!("{} is writable by other users", open.display());
        assert!(error.message.contains(&named), "{}", error.message);
    }
    directory(&dir.path().join("grouped"), 0o770);
    assert!(private_dir(&dir.path().join("grouped"), "run directory").is_err());
}

#[test]
fn a_parent_that_the_own_group_can_write_to_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let parent = dir.path().join("state");
    directory(&parent, 0o775);
    private_dir(&parent.join("ours"), "ledger directory").unwrap();
    let mut foreign = std::fs::metadata(&parent).unwrap().gid();
    foreign += 1;
    // Only root can give a directory to a group that it is not in.
    if std::os::unix::fs::chown(&parent, None, Some(foreign)).is_ok() {
        let error = private_dir(&parent.join("ours"), "ledger directory").unwrap_err();
        assert!(error.hint.unwrap().contains(parent.to_str().unwrap()));
    }
}

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[test]
fn a_fifo_in_the_place_of_a_file_blocks_nothing_and_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.json");
    fifo(&path);
    assert!(read(&path).is_err());
    assert!(read_bytes(&path).is_err());
    assert!(Locked::try_at(&path).is_err());
    assert!(replace(&path, b"x", false).is_err());
    assert!(write_named(&path, b"x").is_err());
    fifo(&dir.path().join(".c.json.tmp"));
    assert!(replace(&dir.path().join("c.json"), b"x", false).is_err());
    assert!(std::fs::metadata(&path).unwrap().file_type().is_fifo());
}

#[test]
fn a_file_that_the_user_names_may_be_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::os::unix::fs::symlink(&real, &link).unwrap();
    write_named(&link, b"longer").unwrap();
    write_named(&link, b"new").unwrap();
    assert_eq!(read_bytes(&link).unwrap(), b"new");
    assert!(!link.symlink_metadata().unwrap().is_file());
    write_named(Path::new("/dev/null"), b"x").unwrap();
}

#[test]
fn a_lock_whose_file_is_removed_or_replaced_is_no_longer_current() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.lock");
    let lock = || Locked::try_at(&path).unwrap();
    let first = lock().unwrap();
    assert!(first.is_current() && lock().is_none());
    std::fs::rename(&path, dir.path().join("aside")).unwrap();
    assert!(!first.is_current());
    let second = lock().expect("the path is free");
    assert!(second.is_current() && !first.is_current());
}

#[test]
fn a_device_is_written_to_and_a_link_to_a_file_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    replace(Path::new("/dev/null"), b"x", true).unwrap();
    let null = std::fs::metadata("/dev/null").unwrap();
    assert!(null.file_type().is_char_device());
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    replace(&link, b"new", false).unwrap();
    assert_eq!(std::fs::read(&real).unwrap(), b"old");
    assert_eq!(read(&link).unwrap().unwrap(), b"new");
}

#[test]
fn a_temporary_file_that_is_a_hard_link_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    std::fs::hard_link(&victim, dir.path().join(".f.tmp")).unwrap();
    assert!(replace(&dir.path().join("f"), b"new", false).is_err());
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
}
