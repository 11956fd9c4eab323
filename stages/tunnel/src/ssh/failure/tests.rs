use super::*;

fn server() -> Server {
    Server {
        user: "ubuntu".into(),
        host: "proxy.example.com".into(),
        port: 2222,
        key: Some("/k/id".into()),
        known_hosts: None,
    }
}

fn code_of(text: &str) -> (String, String) {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let error = connecting_error(&lines, &server());
    assert!(error.hint.is_some(), "no hint: {error:?}");
    (error.code, error.message)
}

/// As OpenSSH 9.2 wrote them, down to the relevant lines.
const CAPTURED: &[(&str, &str)] = &[
    (
        "tunnel.host_key_unknown",
        "debug1: Connection established.
No ED25519 host key is known for [127.0.0.1]:7031 and you have requested strict checking.
Host key verification failed.",
    ),
    (
        "tunnel.host_key_changed",
        "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Offending ED25519 key in /h/known_hosts:1
  remove with:
  ssh-keygen -f \"/h/known_hosts\" -R \"[127.0.0.1]:7031\"
Host key for [127.0.0.1]:7031 has changed and you have requested strict checking.
Host key verification failed.",
    ),
    (
        "tunnel.key_refused",
        "Warning: Permanently added '[127.0.0.1]:7031' (ED25519) to the list of known hosts.
debug1: No more authentication methods to try.
root@127.0.0.1: Permission denied (publickey,password,keyboard-interactive).",
    ),
    (
        "tunnel.key_locked",
        "debug1: Server accepts key: locked ED25519 SHA256:DE4TaQ explicit
debug1: No more authentication methods to try.
root@127.0.0.1: Permission denied (publickey).",
    ),
    (
        "tunnel.key_permissions",
        "debug1: Server accepts key: open ED25519 SHA256:23bQgiz explicit
@         WARNING: UNPROTECTED PRIVATE KEY FILE!          @
Permissions 0644 for 'open' are too open.
This private key will be ignored.
Load key \"open\": bad permissions
root@127.0.0.1: Permission denied (publickey).",
    ),
    (
        "tunnel.key_invalid",
        "debug1: Trying private key: junk
Load key \"junk\": error in libcrypto
debug1: No more authentication methods to try.
root@127.0.0.1: Permission denied (publickey).",
    ),
    (
        "tunnel.agent_refused",
        "debug1: Server accepts key: me ED25519 SHA256:DE4TaQ agent
sign_and_send_pubkey: signing failed for ED25519 \"me\" from agent: agent refused operation
root@127.0.0.1: Permission denied (publickey).",
    ),
    (
        "tunnel.too_many_keys",
        "Received disconnect from 127.0.0.1 port 7031:2: Too many authentication failures
Disconnected from 127.0.0.1 port 7031",
    ),
    (
        "tunnel.server_refused",
        "debug1: connect to address 127.0.0.1 port 7032: Connection refused
ssh: connect to host 127.0.0.1 port 7032: Connection refused",
    ),
    (
        "tunnel.host_unknown",
        "ssh: Could not resolve hostname nope.invalid: Name or service not known",
    ),
    (
        "tunnel.server_unreachable",
        "Connection timed out during banner exchange
Connection to 10.255.255.1 port 22 timed out",
    ),
    (
        "tunnel.server_unreachable",
        "ssh: connect to host 10.0.0.1 port 22: No route to host",
    ),
    (
        "tunnel.server_hung_up",
        "kex_exchange_identification: Connection closed by remote host
Connection closed by 127.0.0.1 port 7031",
    ),
    (
        "tunnel.server_busy",
        "debug1: kex_exchange_identification: banner line 0: Exceeded MaxStartups
kex_exchange_identification: read: Connection reset by peer
Connection reset by 127.0.0.1 port 7431",
    ),
    (
        "tunnel.server_busy",
        "debug1: kex_exchange_identification: banner line 0: Not allowed at this time
kex_exchange_identification: Connection closed by remote host",
    ),
    (
        "tunnel.certificate_refused",
        "debug1: Offering public key: ck ED25519 SHA256:GjhxaaLGhQUrHp explicit
debug1: Offering public key: ck ED25519-CERT SHA256:GjhxaaLGhQUrHp explicit
debug1: No more authentication methods to try.
root@127.0.0.1: Permission denied (publickey,password,keyboard-interactive).",
    ),
    (
        "tunnel.proxy_failed",
        "ssh: connect to host 127.0.0.1 port 1: Connection refused
kex_exchange_identification: Connection closed by remote host
Connection closed by UNKNOWN port 65535",
    ),
    (
        "tunnel.proxy_failed",
        "Host key verification failed.
kex_exchange_identification: Connection closed by remote host
Connection closed by UNKNOWN port 65535",
    ),
    (
        "tunnel.socket_path_too_long",
        "Authenticated to 127.0.0.1 ([127.0.0.1]:7031) using \"publickey\".
unix_listener: path \"/tmp/xxx.lYTlwKcRqfHRFUWv\" too long for Unix domain socket",
    ),
    (
        "protocol.disk_full",
        "debug1: setting up multiplex master socket
unix_listener: cannot bind to path /run/x/tunnel.ssh.cQYcHWG6heyOkpMF: No space left on device",
    ),
    (
        "tunnel.no_common_algorithm",
        "Unable to negotiate with 127.0.0.1 port 7031: no matching cipher found. Their offer: aes128-ctr",
    ),
    (
        "tunnel.ssh_config_invalid",
        "/h/.ssh/config: line 3: Bad configuration option: nope
/h/.ssh/config: terminating, 1 bad configuration options",
    ),
    (
        "tunnel.ssh_failed",
        "something that no version has said yet",
    ),
];

#[test]
fn each_message_of_ssh_has_its_own_error() {
    for (expected, text) in CAPTURED {
        let code = code_of(text).0;
        assert_eq!(code, *expected, "{text}");
    }
}

#[test]
fn messages_name_key_and_server_and_causes_quote_ssh() {
    let (_, message) = code_of("x: Permission denied (publickey).");
    assert_eq!(
        message,
        "ubuntu@proxy.example.com:2222 rejected ssh key /k/id"
    );
    let lines = [
        "debug1: noise".to_owned(),
        "@@@@".to_owned(),
        "complaint".to_owned(),
    ];
    assert_eq!(connecting_error(&lines, &server()).caused_by, ["complaint"]);
}

#[test]
fn the_hint_for_a_changed_host_key_is_the_command_that_ssh_prints() {
    let text = "REMOTE HOST IDENTIFICATION HAS CHANGED\n  ssh-keygen -f \"/h/k\" -R \"[h]:1\"";
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let hint = connecting_error(&lines, &server()).hint.unwrap();
    assert!(
        hint.ends_with("ssh-keygen -f \"/h/k\" -R \"[h]:1\""),
        "{hint}"
    );
}
