//! The error codes of the tunnel.

protocol::codes! {
    AGENT_REFUSED = "tunnel.agent_refused", Failed, "The ssh agent refused to sign with the key.",
        "confirm it at the agent or touch the token, or add the key again: ssh-add";
    ARRIVES_ELSEWHERE = "tunnel.arrives_elsewhere", Retryable, "The port accepts connections, and they do not arrive in this ssh session.",
        "check that public_host is the ssh server itself; `ss -tlnp` there shows who else listens on this port";
    CERTIFICATE_REFUSED = "tunnel.certificate_refused", Failed, "The server rejected the certificate of the ssh key.",
        "`ssh-keygen -L -f <key>-cert.pub` shows until when it is valid, and for whom";
    CONNECTION_LOST = "tunnel.connection_lost", Retryable, "The ssh connection was lost.",
        "";
    FORWARDING_FORBIDDEN = "tunnel.forwarding_forbidden", Failed, "The server forbids this account to forward ports.",
        "set `AllowTcpForwarding yes` in its sshd_config, and take no-port-forwarding or restrict off the key in authorized_keys";
    GATEWAY_PORTS_OFF = "tunnel.gateway_ports_off", Failed, "The server listens on its loopback address only, where pods cannot connect.",
        "set `GatewayPorts clientspecified` in the server's sshd_config and reload sshd; leave bind_address unset";
    GHOST_HOLDS_PORT = "tunnel.ghost_holds_port", Retryable, "The server still holds the port for our earlier session, and this account cannot end that session.",
        "wait: sshd notices after ClientAliveInterval × ClientAliveCountMax seconds (twice that in OpenSSH 9.2 to 9.4), without these after up to two hours; or have `ClientAliveInterval 5` and `ClientAliveCountMax 2` set in its sshd_config, or let this account run commands";
    GHOST_UNKNOWN = "tunnel.ghost_unknown", Retryable, "Cleaning up cannot tell whether the server still holds an earlier session.",
        "run cleanup again once the server can be reached; the server ends the session by itself in time";
    HOST_KEY_CHANGED = "tunnel.host_key_changed", Failed, "The server shows another host key than the known one; another machine may be answering.",
        "ask whoever runs the server; if its key did change, remove the old one: ssh-keygen -R <host>";
    HOST_KEY_REVOKED = "tunnel.host_key_revoked", Failed, "The host key of the server is marked as revoked.",
        "ask whoever runs the server for its new host key";
    HOST_KEY_UNKNOWN = "tunnel.host_key_unknown", Failed, "The host key of the server is not known.",
        "compare its fingerprint with what the server's admin says and add it to known_hosts, or set host_key_policy: accept-new";
    HOST_UNKNOWN = "tunnel.host_unknown", Retryable, "The name of the ssh server has no address.",
        "check reverse_proxy_host and this machine's network";
    IPV6_ONLY = "tunnel.ipv6_only", Retryable, "The server listens on IPv6 only, and another process has the port on IPv4.",
        "set `GatewayPorts clientspecified` in the server's sshd_config: with that it refuses such a port, and another one is taken; or end what listens there (ss -tlnp)";
    KEY_INVALID = "tunnel.key_invalid", Failed, "ssh cannot read the key.",
        "ssh_key_path has to be a private key in a format that ssh knows, not the .pub file";
    KEY_LOCKED = "tunnel.key_locked", Failed, "The key has a passphrase, and no agent holds it.",
        "unlock it once: eval \"$(ssh-agent)\"; ssh-add";
    KEY_MISSING = "tunnel.key_missing", Failed, "The file of the ssh key cannot be opened.",
        "correct ssh_key_path, or leave it out to use what ssh_config and the agent offer";
    KEY_PERMISSIONS = "tunnel.key_permissions", Failed, "Others can read the key, so ssh ignores it.",
        "chmod 600 <key>";
    KEY_REFUSED = "tunnel.key_refused", Failed, "The server rejected the key.",
        "check ssh_user and ssh_key_path; the public key has to be in the account's authorized_keys: ssh-copy-id";
    NO_COMMON_ALGORITHM = "tunnel.no_common_algorithm", Failed, "ssh and the server have no algorithm in common.",
        "ssh's own line says which; allow it for this Host in ssh_config";
    PINNED_PORT_LOST = "tunnel.pinned_port_lost", Retryable, "Another process has the port, and port_policy is pinned.",
        "end what holds it on the server (ss -tlnp), allow more time with keep_port, or set port_policy to sticky";
    PORT_RANGE_EXHAUSTED = "tunnel.port_range_exhausted", Retryable, "The server has no free port in remote_port_range.",
        "widen remote_port_range, or end what holds these ports there (ss -tlnp)";
    PORT_TAKEN = "tunnel.port_taken", Retryable, "The port of the run before is in use on the server.",
        "end what holds it there (ss -tlnp), or wait: after keep_port seconds another port is taken, unless port_policy is pinned";
    PORT_UNREACHABLE = "tunnel.port_unreachable", Retryable, "A connection to the port on the server fails on the way.",
        "open the port in the server's firewall; check public_host and this machine's network";
    PORTS_NOT_PERMITTED = "tunnel.ports_not_permitted", Failed, "The server does not permit this account to listen on any port of remote_port_range.",
        "use the ports that PermitListen in its sshd_config, or permitlisten in authorized_keys, allows";
    PROXY_FAILED = "tunnel.proxy_failed", Retryable, "The jump host or proxy on the way to the server lets no connection through.",
        "see whether ProxyJump or ProxyCommand of ssh_config works by hand; the key of a jump host has to be in the agent";
    REQUEST_FAILED = "tunnel.request_failed", Retryable, "Asking the server to listen on a port failed.",
        "";
    SERVER_BUSY = "tunnel.server_busy", Retryable, "The server accepts no more logins at the moment.",
        "try again in a minute; on the server, raise MaxStartups in sshd_config (such as 100:30:200), and from OpenSSH 9.8 on look at PerSourcePenalties";
    SERVER_HUNG_UP = "tunnel.server_hung_up", Retryable, "The server closed the connection before the login, or is not an ssh server.",
        "is it an ssh server? One may also have blocked this address";
    SERVER_REFUSED = "tunnel.server_refused", Retryable, "Nothing listens at the address of the ssh server.",
        "start sshd there, or correct reverse_proxy_host and ssh_port";
    SERVER_TIMEOUT = "tunnel.server_timeout", Retryable, "The server did not answer in time.",
        "the server or a firewall on the way may be slow or closed: allow more with connect_timeout, or try another network";
    SERVER_UNREACHABLE = "tunnel.server_unreachable", Retryable, "The server cannot be reached from this machine.",
        "check the network, a VPN, and the server's firewall for this port";
    SOCKET_PATH_TOO_LONG = "tunnel.socket_path_too_long", Failed, "The path of ssh's control socket is too long for this system.",
        "set XDG_RUNTIME_DIR or TMPDIR to a directory with a shorter path";
    SSH_CONFIG_INVALID = "tunnel.ssh_config_invalid", Failed, "ssh does not accept its configuration.",
        "correct the file and line that ssh names, or name another file with ssh_config_path";
    SSH_CONFIG_SLOW = "tunnel.ssh_config_slow", Failed, "ssh does not finish reading its configuration.",
        "a `Match exec` in ssh_config may hang: name another file with ssh_config_path";
    SSH_FAILED = "tunnel.ssh_failed", Failed, "ssh failed for a reason that is not recognized.",
        "the lines of ssh are in the causes; see what it says by hand: ssh -v";
    SSH_MISSING = "tunnel.ssh_missing", Failed, "There is no ssh on $PATH.",
        "install the OpenSSH client: sudo apt-get install openssh-client";
    TOO_MANY_KEYS = "tunnel.too_many_keys", Failed, "The server gave up after too many keys.",
        "name the right one with ssh_key_path: only that is offered then";
    UNVERIFIED = "tunnel.unverified", Failed, "Whether the port leads to this machine cannot be told in the way that `verify` asks for.",
        "set verify to auto";
}
