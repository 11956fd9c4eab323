use super::*;

fn with_ciphers(ciphers: &str) -> Resolved {
    Resolved {
        ciphers: ciphers.into(),
        ..Resolved::default()
    }
}

#[test]
fn a_faster_cipher_is_first_only_if_the_order_is_ssh_s_default() {
    let default = with_ciphers("chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com");
    let faster = "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr";
    assert_eq!(default.faster_ciphers(true).as_deref(), Some(faster));
    assert_eq!(default.faster_ciphers(false), None);
    for own in [
        "aes256-ctr,aes128-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
        "",
    ] {
        assert_eq!(with_ciphers(own).faster_ciphers(true), None, "{own}");
    }
}

#[test]
fn keepalives_of_the_config_override_ssh_config_which_overrides_our_defaults() {
    let config = |fields: &str| -> Config {
        let text = format!(r#"{{"reverse_proxy_host": "h"{fields}}}"#);
        serde_json::from_str(&text).unwrap()
    };
    let untouched =
        Resolved::parse("serveraliveinterval 0\nserveralivecountmax 3\nconnecttimeout none\n");
    let own = Resolved::parse("serveraliveinterval 60\nserveralivecountmax 3\nconnecttimeout 4\n");
    assert_eq!(
        untouched.keepalives(&config("")),
        ["ServerAliveInterval=3", "ServerAliveCountMax=2"]
    );
    assert_eq!(own.keepalives(&config("")), Vec::<String>::new());
    let asked = config(r#", "keepalive_interval": 7, "connect_timeout": 2.5"#);
    assert_eq!(own.keepalives(&asked), ["ServerAliveInterval=7"]);
    let seconds = [&untouched, &own].map(|r| r.connect_timeout(&config("")).as_secs());
    assert_eq!(seconds, [10, 4]);
    assert_eq!(own.connect_timeout(&asked), Duration::from_millis(2500));
}
