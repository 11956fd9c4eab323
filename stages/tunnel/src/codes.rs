//! The error codes of the tunnel.

protocol::codes! {
    AGENT_REFUSED = "tunnel.agent_refused", Failed, "The ssh agent refused to sign with the key.",
        "confirm the signature at the agent, touch the token, or add the key again: ssh-add";
    ARRIVES_ELSEWHERE = "tunnel.arrives_elsewhere", Retryable, "The port accepts connections, but they do not arrive in this ssh session.",
        "check that public_host is the ssh server itself; `ss -tlnp` there shows which other program listens on the port";
    CERTIFICATE_REFUSED = "tunnel.certificate_refused", Failed, "The server rejected the certificate of the ssh key.",
        "check the certificate's validity and principals: ssh-keygen -L -f <key>-cert.pub";
    CONNECTION_LOST = "tunnel.connection_lost", Retryable, "The ssh connection was lost.",
        "check the network; start the tunnel again if it has ended";
    FORWARDING_FORBIDDEN = "tunnel.forwarding_forbidden", Failed, "The server does not allow this account to forward ports.",
        "set `AllowTcpForwarding remote` (or `yes`) in its sshd_config, and remove no-port-forwarding from the key in authorized_keys; a key with restrict needs port-forwarding too";
    GATEWAY_PORTS_OFF = "tunnel.gateway_ports_off", Failed, "The server listens on its loopback address only, where pods cannot connect.",
        "set `GatewayPorts clientspecified` in the server's sshd_config and reload sshd; do not set `bind_address` of the tunnel";
    GHOST_HOLDS_PORT = "tunnel.ghost_holds_port", Retryable, "The server still holds an earlier session of the tunnel with the port, and the account cannot end it.",
        "wait until sshd ends the session: after ClientAliveInterval × ClientAliveCountMax seconds, or up to two hours if these options are not set; to avoid this, ask the admin to set `ClientAliveInterval 5` and `ClientAliveCountMax 2` in sshd_config, or to let the account run commands";
    GHOST_UNKNOWN = "tunnel.ghost_unknown", Retryable, "Cleanup does not know whether the server still holds an earlier session.",
        "run cleanup again when the server can be reached; in time the server ends the session by itself";
    HOST_KEY_CHANGED = "tunnel.host_key_changed", Failed, "The server's host key differs from the one in known_hosts: the server was reinstalled, or another machine answered.",
        "ask the server's admin whether the host key was changed; only then remove the old one: ssh-keygen -R <host>";
    HOST_KEY_REVOKED = "tunnel.host_key_revoked", Failed, "The host key of the server is marked as revoked.",
        "connect only after the server's admin has confirmed a new host key, and add it to known_hosts; the old one is marked @revoked there, or listed in the file of RevokedHostKeys";
    HOST_KEY_UNKNOWN = "tunnel.host_key_unknown", Failed, "The host key of the server is not known.",
        "get the fingerprint from the server's admin, compare it, and add the key to known_hosts; or set host_key_policy: accept-new";
    HOST_UNKNOWN = "tunnel.host_unknown", Retryable, "The name of the ssh server does not resolve.",
        "check reverse_proxy_host and this machine's network";
    IPV6_ONLY = "tunnel.ipv6_only", Retryable, "The server listens on IPv6 only, and another program has the port on IPv4.",
        "set `GatewayPorts clientspecified` in the server's sshd_config, so that it refuses such a port and the tunnel uses another one; or stop the program that listens there (ss -tlnp)";
    KEY_INVALID = "tunnel.key_invalid", Failed, "ssh cannot read the key.",
        "set ssh_key_path to a private key in a format that ssh knows, not to the .pub file";
    KEY_LOCKED = "tunnel.key_locked", Failed, "The key has a passphrase, and the ssh agent does not have the key.",
        "unlock it once: eval \"$(ssh-agent)\"; ssh-add <key>";
    KEY_MISSING = "tunnel.key_missing", Failed, "The file of the ssh key cannot be opened.",
        "correct ssh_key_path, or remove it to use the keys of ssh_config and the agent";
    KEY_PERMISSIONS = "tunnel.key_permissions", Failed, "Other users can read the key, so ssh ignores it.",
        "chmod 600 <key>";
    KEY_REFUSED = "tunnel.key_refused", Failed, "The server rejected the key.",
        "check ssh_user and ssh_key_path, and add the public key to the account's authorized_keys: ssh-copy-id";
    NO_COMMON_ALGORITHM = "tunnel.no_common_algorithm", Failed, "ssh and the server have no algorithm in common.",
        "ssh's own message names the algorithms; allow one of them for this Host in ssh_config";
    OPEN_MASTER = "tunnel.open_master", Failed, "The master on the local port lets anyone in without a password, so the tunnel lets no visitor through.",
        "set a password for each user that the message names: det -u <user> user change-password <user>; security.initial_user_password applies only to a new database";
    PINNED_PORT_LOST = "tunnel.pinned_port_lost", Retryable, "The port is in use, and port_policy is pinned.",
        "stop the program that uses it on the server (ss -tlnp), raise keep_port, or set port_policy to sticky";
    PORT_RANGE_EXHAUSTED = "tunnel.port_range_exhausted", Retryable, "The server has no free port in remote_port_range.",
        "widen remote_port_range, or stop the programs that use these ports there (ss -tlnp)";
    PORT_TAKEN = "tunnel.port_taken", Retryable, "The port of the previous run is in use on the server.",
        "stop the program that uses the port on the server (ss -tlnp), or wait: after keep_port seconds the tunnel uses another port, unless port_policy is pinned";
    PORT_UNREACHABLE = "tunnel.port_unreachable", Retryable, "This machine cannot connect to the port on the server.",
        "open the port in the server's firewall; check public_host and this machine's network";
    PORTS_NOT_PERMITTED = "tunnel.ports_not_permitted", Failed, "The server does not allow this account to listen on any port of remote_port_range.",
        "set remote_port_range to ports that PermitListen in its sshd_config and permitlisten in authorized_keys allow";
    PROXY_FAILED = "tunnel.proxy_failed", Retryable, "The jump host or proxy cannot connect to the server.",
        "try ProxyJump or ProxyCommand of ssh_config by hand, and add the key of a jump host to the agent";
    SERVER_BUSY = "tunnel.server_busy", Retryable, "The server does not accept more logins at the moment.",
        "try again in a minute; on the server, raise MaxStartups in sshd_config (such as 100:30:200), and check PerSourcePenalties from OpenSSH 9.8 on";
    SERVER_HUNG_UP = "tunnel.server_hung_up", Retryable, "The server closed the connection before the login, or is not an ssh server.",
        "check reverse_proxy_host and ssh_port; check that no firewall, fail2ban or PerSourcePenalties of the server blocks this machine";
    SERVER_REFUSED = "tunnel.server_refused", Retryable, "Nothing listens at the address of the ssh server.",
        "start sshd there, or correct reverse_proxy_host and ssh_port";
    SERVER_TIMEOUT = "tunnel.server_timeout", Retryable, "The server did not answer in time.",
        "the server may be slow or a firewall may block it: raise connect_timeout, or try another network";
    SERVER_UNREACHABLE = "tunnel.server_unreachable", Retryable, "The server cannot be reached from this machine.",
        "check the network, the VPN, and the server's firewall for this port";
    SOCKET_PATH_TOO_LONG = "tunnel.socket_path_too_long", Failed, "The path of ssh's control socket is too long for this system.",
        "set XDG_RUNTIME_DIR or TMPDIR to a directory with a shorter path";
    SSH_CONFIG_INVALID = "tunnel.ssh_config_invalid", Failed, "ssh does not accept its configuration.",
        "correct the file and line that ssh names, or name another file with ssh_config_path";
    SSH_CONFIG_SLOW = "tunnel.ssh_config_slow", Failed, "ssh does not finish reading its configuration.",
        "see where it hangs: ssh -vG <host>; often it is a `Match exec`. Or set ssh_config_path to another file";
    SSH_FAILED = "tunnel.ssh_failed", Failed, "ssh failed for an unknown reason.",
        "see ssh's messages in the causes, and try by hand: ssh -v";
    SSH_MISSING = "tunnel.ssh_missing", Failed, "There is no ssh on $PATH.",
        "install the OpenSSH client: sudo apt-get install openssh-client";
    TOO_MANY_KEYS = "tunnel.too_many_keys", Failed, "The server ended the login after too many keys.",
        "set ssh_key_path, so that ssh offers this key only";
    UNVERIFIED = "tunnel.unverified", Failed, "The tunnel cannot prove, in the way that `verify` sets, that the port leads to this machine.",
        "set verify to auto, which skips a proof that is not possible";
}
