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

fn directory(path: &Path, mode: u32) {
    std::fs::create_dir(path).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
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

#[test]
fn a_fifo_in_the_place_of_a_file_blocks_no_read_and_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("b.json");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    assert!(read(&fifo).is_err());
    assert!(replace(&fifo, b"x", false).is_err());
    assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
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
