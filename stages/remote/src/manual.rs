//! Completions and man pages of all four programs.

use std::io::Write;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use protocol::kinds::OURS;
use protocol::{StageError, command, description};

use crate::host::Host;
use crate::kinds::Programs;

/// The command lines of the driver, with that of `host` in place of a stub, and of the stages.
async fn all(driver: Command, programs: &Programs<'_>) -> Result<Vec<Command>, StageError> {
    let host = command("host", &description::<Host>());
    let mut all = vec![driver.mut_subcommand("host", |_| host)];
    for kind in OURS {
        let described = programs.describe_known(kind).await?;
        all.push(command(&format!("devcluster-{kind}"), &described));
    }
    Ok(all)
}

/// Writes completions for a shell: to stdout, or one file per program.
pub(crate) async fn completions(
    driver: Command,
    shell: Shell,
    dir: Option<&Path>,
    programs: &Programs<'_>,
) -> Result<(), StageError> {
    let mut scripts = Vec::new();
    for mut program in all(driver, programs).await? {
        let name = program.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut program, &name, &mut script);
        if shell == Shell::Bash {
            script = with_one_spelling(&script, &name);
        }
        match dir {
            Some(dir) => {
                let file = match shell {
                    Shell::Zsh => format!("_{name}"),
                    Shell::Fish => format!("{name}.fish"),
                    _ => name,
                };
                write(&dir.join(file), &script)?;
            }
            None => scripts.extend(script),
        }
    }
    print(&scripts)
}

/// Works around clap_complete up to 4.6.11, which spells a program's name with a hyphen in two ways and completes nothing
/// after a verb: https://github.com/clap-rs/clap/issues/6421
fn with_one_spelling(script: &[u8], name: &str) -> Vec<u8> {
    let (wrong, right) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
    String::from_utf8_lossy(script)
        .replace(&wrong, &right)
        .into_bytes()
}

/// Writes man pages: that of the driver to stdout, or one file per program and verb.
pub(crate) async fn man(
    driver: Command,
    dir: Option<&Path>,
    programs: &Programs<'_>,
) -> Result<(), StageError> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        Man::new(driver).render(&mut page).map_err(unwritable)?;
        return print(&page);
    };
    for mut program in all(driver, programs).await? {
        program.build();
        let name = program.get_name().to_owned();
        page(&program, &name, dir)?;
        for verb in program
            .get_subcommands()
            .filter(|c| !c.is_hide_set() && c.get_name() != "help")
        {
            let full = format!("{name}-{}", verb.get_name());
            page(verb, &full, dir)?;
        }
    }
    Ok(())
}

fn page(command: &Command, name: &str, dir: &Path) -> Result<(), StageError> {
    let mut page = Vec::new();
    // The page of a verb is named as git's pages: devcluster-tunnel-run(1).
    let command = command
        .clone()
        .name(name.to_owned())
        .display_name(name.to_owned());
    Man::new(command).render(&mut page).map_err(unwritable)?;
    write(&dir.join(format!("{name}.1")), &page)
}

/// Writes to a file, else to stdout.
pub(crate) fn write_out(out: Option<&Path>, content: &[u8]) -> Result<(), StageError> {
    match out {
        Some(out) => write(out, content),
        None => print(content),
    }
}

fn unwritable(error: std::io::Error) -> StageError {
    StageError::io("cannot write", &error)
}

/// Writes a file that other users can read. Creates its directory.
fn write(path: &Path, content: &[u8]) -> Result<(), StageError> {
    let failed = |e| StageError::io(format!("cannot write {}", path.display()), &e);
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    protocol::files::write_named(path, content).map_err(failed)
}

fn print(bytes: &[u8]) -> Result<(), StageError> {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(unwritable)
}
