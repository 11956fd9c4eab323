//! ssh's messages about host keys and private keys.

use protocol::StageError;

use super::{Lines, Server, error};

pub(super) fn host_key(lines: &Lines, server: &Server) -> Option<StageError> {
    if lines.has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let message = format!(
            "{server} shows another host key than the known one: somebody may be on the way"
        );
        let by_ssh = lines
            .find("ssh-keygen -f")
            .map(|line| line.trim().to_owned());
        let remove =
            by_ssh.unwrap_or_else(|| format!("ssh-keygen -R \"{}\"", server.host_key_name()));
        let hint = format!("ask whoever runs the server; if its key did change: {remove}");
        return Some(error("tunnel.host_key_changed", message, hint));
    }
    if lines.has_any(&["REVOKED HOST KEY", "is marked as revoked"]) {
        let message = format!("the host key of {server} is revoked");
        let hint = "ask whoever runs the server for its new host key";
        return Some(error("tunnel.host_key_revoked", message, hint));
    }
    if !lines.has_any(&["host key is known for", "Host key verification failed"]) {
        return None;
    }
    let scan = format!("ssh-keyscan -p {} {}", server.port, server.host);
    let known_hosts = server.known_hosts.as_ref();
    let known_hosts =
        known_hosts.map_or_else(|| "~/.ssh/known_hosts".into(), |p| p.display().to_string());
    let message = format!("the host key of {server} is not known");
    let hint = format!(
        "compare its fingerprint with what the server's admin says: {scan} | ssh-keygen -lf -\n\
         and add it: {scan} >>{known_hosts}\nor take it on first sight: host_key_policy: accept-new"
    );
    Some(error("tunnel.host_key_unknown", message, hint))
}

pub(super) fn key_file(lines: &Lines, server: &Server) -> Option<StageError> {
    let key = server.key();
    if lines.has_any(&["UNPROTECTED PRIVATE KEY FILE", "bad permissions"]) {
        return Some(key_permissions(server));
    }
    if !lines.has("Permission denied") {
        return None;
    }
    if lines.has("agent refused operation") {
        let message = "the ssh agent refused to sign with the key";
        let hint = "confirm it at the agent or touch the token, or add the key again: ssh-add";
        return Some(error("tunnel.agent_refused", message, hint));
    }
    // In batch mode ssh silently skips a key whose passphrase it would have to ask for.
    let accepted = lines.find("Server accepts key: ");
    let accepted = accepted.is_some_and(|line| !line.ends_with(" agent"));
    if lines.has("incorrect passphrase") || accepted && !lines.has("Load key ") {
        let path = server.key.as_ref().map(|p| format!(" {}", p.display()));
        let message = format!("{key} has a passphrase and no agent holds it");
        let hint = format!(
            "unlock it once: eval \"$(ssh-agent)\"; ssh-add{}",
            path.unwrap_or_default()
        );
        return Some(error("tunnel.key_locked", message, hint));
    }
    let message = format!("ssh cannot read {key}");
    let hint = "ssh_key_path has to be a private key in a format that ssh knows, not the .pub file";
    (lines.has("Load key ")).then(|| error("tunnel.key_invalid", message, hint))
}

pub(crate) fn key_permissions(server: &Server) -> StageError {
    let path = server.key.as_ref().map(|p| p.display().to_string());
    let message = format!("others may read {}, so ssh ignores it", server.key());
    let hint = format!("chmod 600 {}", path.as_deref().unwrap_or("<key>"));
    error("tunnel.key_permissions", message, hint)
}

pub(super) fn login(lines: &Lines, server: &Server) -> Option<StageError> {
    if lines.has("Too many authentication failures") {
        let message = format!("{server} gave up after too many keys");
        let hint = "name the right one with ssh_key_path: only that is offered then";
        return Some(error("tunnel.too_many_keys", message, hint));
    }
    if !lines.has("Permission denied") {
        return None;
    }
    let (key, user) = (server.key(), &server.user);
    let is_certificate = |line: &String| {
        line.starts_with("debug1: Offering public key: ") && line.contains("-CERT SHA256:")
    };
    if lines.0.iter().any(is_certificate) {
        let message = format!("the certificate of {key} was refused by {server}");
        let hint = format!(
            "ssh-keygen -L -f <key>-cert.pub shows until when it is valid, and its principals, of which {user} has to be \
             one; the server's TrustedUserCAKeys has to hold its CA"
        );
        return Some(error("tunnel.certificate_refused", message, hint));
    }
    let hint = format!(
        "check ssh_user and ssh_key_path; the public key has to be in {user}'s authorized_keys there: \
         ssh-copy-id -p {} {user}@{}",
        server.port, server.host
    );
    let message = format!("{key} was refused by {server}");
    Some(error("tunnel.key_refused", message, hint))
}
