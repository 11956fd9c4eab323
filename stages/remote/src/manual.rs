//! What a shell and `man` want to know: completions and man pages, of all four programs.

use std::io::Write;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use protocol::kinds::OURS;
use protocol::{StageError, command, description};

use crate::host::Host;
use crate::kinds::Programs;

/// The driver's command line with that of its own stage in the place of a stub, and those of the stages.
async fn all(driver: Command, programs: &Programs<'_>) -> Result<Vec<Command>, StageError> {
    let host = command("host", &description::<Host>());
    let mut all = vec![driver.mut_subcommand("host", |_| host)];
    for kind in OURS {
        let described = programs.describe_known(kind).await?;
        all.push(command(&format!("devcluster-{kind}"), &described));
    }
    Ok(all)
}

/// Completions for a shell: to stdout for a shell that reads them by `source`, or a file for each program.
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

/// clap_complete up to 4.6.11 spells a program's name with a hyphen in two ways, and completes nothing behind a verb:
/// https://github.com/clap-rs/clap/issues/6421
fn with_one_spelling(script: &[u8], name: &str) -> Vec<u8> {
    let (wrong, right) = (name.replace('-', "__subcmd__"), name.replace('-', "__"));
    String::from_utf8_lossy(script)
        .replace(&wrong, &right)
        .into_bytes()
}

/// Man pages: that of the driver to stdout, or one for each program and each of its verbs.
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
    // The page of a verb is called as git's are: devcluster-tunnel-run(1).
    let command = command
        .clone()
        .name(name.to_owned())
        .display_name(name.to_owned());
    Man::new(command).render(&mut page).map_err(unwritable)?;
    write(&dir.join(format!("{name}.1")), &page)
}

/// To the file that was named, else to stdout.
pub(crate) fn write_out(out: Option<&Path>, content: &[u8]) -> Result<(), StageError> {
    match out {
        Some(out) => write(out, content),
        None => print(content),
    }
}

fn unwritable(error: std::io::Error) -> StageError {
    StageError::io("cannot write", &error)
}

/// A file that others may read, in a directory that is made.
fn write(path: &Path, content: &[u8]) -> Result<(), StageError> {
    let failed = |e| StageError::io(format!("cannot write {}", path.display()), &e);
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, content).map_err(failed)
}

fn print(bytes: &[u8]) -> Result<(), StageError> {
    let mut stdout = std::io::stdout();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(unwritable)
}
