//! ssh's messages about host keys and private keys.

use protocol::StageError;

use super::{Lines, Server};
use crate::codes;

pub(super) fn host_key(lines: &Lines, server: &Server) -> Option<StageError> {
    if lines.has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let message = format!(
            "the host key of {server} is not the known one: another machine may have answered"
        );
        let by_ssh = lines
            .find("ssh-keygen -f")
            .map(|line| line.trim().to_owned());
        let remove =
            by_ssh.unwrap_or_else(|| format!("ssh-keygen -R \"{}\"", server.host_key_name()));
        let hint = format!(
            "ask the server's admin whether the host key was changed; only then remove the old one: {remove}"
        );
        return Some(StageError::new(codes::HOST_KEY_CHANGED, message).hint(hint));
    }
    if lines.has_any(&["REVOKED HOST KEY", "is marked as revoked"]) {
        let message = format!("the host key of {server} is revoked");
        return Some(StageError::new(codes::HOST_KEY_REVOKED, message));
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
        "get the key and its fingerprint: {scan} >new-host-key; ssh-keygen -lf new-host-key\n\
         compare it with the one that the server's admin gives you, then: cat new-host-key >>{known_hosts}\n\
         or accept it on first use: host_key_policy: accept-new"
    );
    Some(StageError::new(codes::HOST_KEY_UNKNOWN, message).hint(hint))
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
        return Some(StageError::new(codes::AGENT_REFUSED, message));
    }
    // In batch mode ssh silently skips a key whose passphrase it would have to ask for.
    let accepted = lines.find("Server accepts key: ");
    let accepted = accepted.is_some_and(|line| !line.ends_with(" agent"));
    if lines.has("incorrect passphrase") || accepted && !lines.has("Load key ") {
        let path = server.key.as_ref().map(|p| format!(" {}", p.display()));
        let message = format!("{key} has a passphrase, and the agent does not hold it");
        let hint = format!(
            "unlock it once: eval \"$(ssh-agent)\"; ssh-add{}",
            path.unwrap_or_default()
        );
        return Some(StageError::new(codes::KEY_LOCKED, message).hint(hint));
    }
    let message = format!("ssh cannot read {key}");
    (lines.has("Load key ")).then(|| StageError::new(codes::KEY_INVALID, message))
}

pub(crate) fn key_permissions(server: &Server) -> StageError {
    let path = server.key.as_ref().map(|p| p.display().to_string());
    let message = format!("other users can read {}, so ssh ignores it", server.key());
    let hint = format!("chmod 600 {}", path.as_deref().unwrap_or("<key>"));
    StageError::new(codes::KEY_PERMISSIONS, message).hint(hint)
}

pub(super) fn login(lines: &Lines, server: &Server) -> Option<StageError> {
    if lines.has("Too many authentication failures") {
        let message = format!("{server} ended the login after too many keys");
        return Some(StageError::new(codes::TOO_MANY_KEYS, message));
    }
    if !lines.has("Permission denied") {
        return None;
    }
    let (key, user) = (server.key(), &server.user);
    let is_certificate = |line: &String| {
        line.starts_with("debug1: Offering public key: ") && line.contains("-CERT SHA256:")
    };
    if lines.0.iter().any(is_certificate) {
        let message = format!("{server} rejected the certificate of {key}");
        let hint = format!(
            "check with `ssh-keygen -L -f <key>-cert.pub` that it is valid and that {user} is one of its principals, \
          and that the server's TrustedUserCAKeys has its CA"
        );
        return Some(StageError::new(codes::CERTIFICATE_REFUSED, message).hint(hint));
    }
    let hint = format!(
        "check ssh_user and ssh_key_path, and add the public key to {user}'s authorized_keys there: \
          ssh-copy-id -p {} {user}@{}",
        server.port, server.host
    );
    let message = format!("{server} rejected {key}");
    Some(StageError::new(codes::KEY_REFUSED, message).hint(hint))
}
