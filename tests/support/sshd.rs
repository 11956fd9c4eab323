//! sshd for a test: on a port of its own, with keys of its own, gone with the value.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use sandbox::sshd::Options;
use sandbox::sshd::{Sshd, program};
use tempfile::TempDir;

/// An sshd and the directory it lives in.
#[derive(Debug)]
pub struct TestSshd {
    sshd: Sshd,
    dir: TempDir,
}

/// Starts one. Fails with the line to install it if there is no sshd.
pub async fn start_sshd(options: Options) -> TestSshd {
    start_sshd_by(options, |program, _| program.to_owned()).await
}

/// The same by another program, made of sshd's path and a directory to put it in.
pub async fn start_sshd_by(
    options: Options,
    wrap: impl FnOnce(&Path, &Path) -> PathBuf,
) -> TestSshd {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| program(&crate::build_dir()).expect("no sshd"));
    let dir = tempfile::tempdir().expect("no temporary directory");
    let program = wrap(program, dir.path());
    let sshd = Sshd::start(&program, &dir.path().join("sshd"), &options).await;
    TestSshd {
        sshd: sshd.expect("sshd does not start"),
        dir,
    }
}

impl TestSshd {
    /// A file beside the server's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Deref for TestSshd {
    type Target = Sshd;

    fn deref(&self) -> &Sshd {
        &self.sshd
    }
}

impl DerefMut for TestSshd {
    fn deref_mut(&mut self) -> &mut Sshd {
        &mut self.sshd
    }
}
