//! ssh's complaints about keys, the server's and ours.

use protocol::StageError;

use super::{Lines, Target};

pub(super) fn host_key(lines: &Lines, target: &Target) -> Option<StageError> {
    let known_as = target.known_as();
    if lines.has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let remove = lines.find("ssh-keygen -f").map_or_else(
            || format!("ssh-keygen -R \"{known_as}\""),
            |line| line.trim().to_owned(),
        );
        return Some(
            StageError::new(
                "tunnel.host_key_changed",
                format!(
                    "{target} shows another host key than the known one: somebody may be on the way"
                ),
            )
            .hint(format!(
                "ask whoever runs the server; if its key did change: {remove}"
            )),
        );
    }
    if lines.has("REVOKED HOST KEY") || lines.has("is marked as revoked") {
        return Some(
            StageError::new(
                "tunnel.host_key_revoked",
                format!("the host key of {target} is revoked"),
            )
            .hint("ask whoever runs the server for its new host key"),
        );
    }
    if lines.has("host key is known for") || lines.has("Host key verification failed") {
        let scan = format!("ssh-keyscan -p {} {}", target.port, target.host);
        let known_hosts = target.known_hosts.as_ref();
        let known_hosts =
            known_hosts.map_or_else(|| "~/.ssh/known_hosts".into(), |p| p.display().to_string());
        let message = format!("the host key of {target} is not known");
        return Some(StageError::new("tunnel.host_key_unknown", message).hint(format!(
            "compare its fingerprint with what the server's admin says: {scan} | ssh-keygen -lf -\n\
             and add it: {scan} >>{known_hosts}\nor take it on first sight: host_key_policy: accept-new"
        )));
    }
    None
}

pub(super) fn key_file(lines: &Lines, target: &Target) -> Option<StageError> {
    let key = target.key();
    if lines.has("UNPROTECTED PRIVATE KEY FILE") || lines.has("bad permissions") {
        return Some(key_permissions(target));
    }
    if !lines.has("Permission denied") {
        return None;
    }
    if lines.has("agent refused operation") {
        return Some(
            StageError::new(
                "tunnel.agent_refused",
                "the ssh agent refused to sign with the key",
            )
            .hint("confirm it at the agent or touch the token, or add the key again: ssh-add"),
        );
    }
    // In batch mode ssh passes silently over a key whose passphrase it would have to ask for.
    let accepted = lines
        .find("Server accepts key: ")
        .is_some_and(|line| !line.ends_with(" agent"));
    if lines.has("incorrect passphrase") || accepted && !lines.has("Load key ") {
        let path = target
            .key
            .as_ref()
            .map_or_else(String::new, |p| format!(" {}", p.display()));
        return Some(
            StageError::new(
                "tunnel.key_locked",
                format!("{key} has a passphrase and no agent holds it"),
            )
            .hint(format!(
                "unlock it once: eval \"$(ssh-agent)\"; ssh-add{path}"
            )),
        );
    }
    lines.has("Load key ").then(|| {
        StageError::new("tunnel.key_invalid", format!("ssh cannot read {key}")).hint(
            "ssh_key_path has to be a private key in a format that ssh knows, not the .pub file",
        )
    })
}

pub(crate) fn key_permissions(target: &Target) -> StageError {
    let path = target
        .key
        .as_ref()
        .map_or_else(|| "<key>".to_owned(), |p| p.display().to_string());
    StageError::new(
        "tunnel.key_permissions",
        format!("others may read {}, so ssh ignores it", target.key()),
    )
    .hint(format!("chmod 600 {path}"))
}

pub(super) fn login(lines: &Lines, target: &Target) -> Option<StageError> {
    if lines.has("Too many authentication failures") {
        return Some(
            StageError::new(
                "tunnel.too_many_keys",
                format!("{target} gave up after too many keys"),
            )
            .hint("name the right one with ssh_key_path: only that is offered then"),
        );
    }
    if !lines.has("Permission denied") {
        return None;
    }
    let is_certificate = |line: &&String| {
        line.starts_with("debug1: Offering public key: ") && line.contains("-CERT SHA256:")
    };
    if lines.0.iter().any(|line| is_certificate(&line)) {
        return Some(
            StageError::new("tunnel.certificate_refused", format!("the certificate of {} was refused by {target}", target.key()))
                .hint(format!(
                    "ssh-keygen -L -f <key>-cert.pub shows until when it is valid, and its principals, of which {} has to be \
                     one; the server's TrustedUserCAKeys has to hold its CA",
                    target.user
                )),
        );
    }
    Some(
        StageError::new("tunnel.key_refused", format!("{} was refused by {target}", target.key())).hint(format!(
            "check ssh_user and ssh_key_path; the public key has to be in {}'s authorized_keys there: ssh-copy-id -p {} {}@{}",
            target.user, target.port, target.user, target.host
        )),
    )
}
