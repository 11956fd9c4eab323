//! Selects the proxy for the API as kubectl does: from the kubeconfig, else from the environment.

use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;
use protocol::Env;

/// The environment's proxy for a server.
pub fn from_environment(server: &Uri, env: &Env) -> Option<Uri> {
    let host = server.host()?.trim_matches(['[', ']']);
    let either = |upper: &str, lower: &str| {
        env.get(upper)
            .or(env.get(lower))
            .filter(|value| !value.is_empty())
    };
    let proxy = match server.scheme_str() {
        Some("https") => either("HTTPS_PROXY", "https_proxy")?,
        _ => either("HTTP_PROXY", "http_proxy")?,
    };
    let direct = either("NO_PROXY", "no_proxy").unwrap_or_default();
    if is_loopback(host) || direct.split(',').any(|entry| covers(entry.trim(), host)) {
        return None;
    }
    let proxy = if proxy.contains("://") {
        proxy.to_owned()
    } else {
        format!("http://{proxy}")
    };
    proxy.parse().ok()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A NO_PROXY entry: `*`, an address, a network, a domain with subdomains or, with a leading dot, the subdomains.
fn covers(entry: &str, host: &str) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        let network = entry.parse::<IpNet>();
        return entry.parse() == Ok(ip) || network.is_ok_and(|it| it.contains(&ip));
    }
    let (entry, host) = (entry.to_ascii_lowercase(), host.to_ascii_lowercase());
    let below = entry.trim_start_matches("*.").trim_start_matches('.');
    !below.is_empty() && (host.ends_with(&format!(".{below}")) || (entry == below && host == below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_no_proxy_are_reached_directly_and_others_by_the_proxy() {
        let env = Env::from_pairs([
            ("HTTPS_PROXY", "proxy.example.com:3128"),
            (
                "no_proxy",
                "localhost, .internal,corp.example.com,192.168.49.0/24,fd00::/8",
            ),
        ]);
        let proxied = |server: &str| from_environment(&server.parse().unwrap(), &env).is_some();
        for direct in [
            "https://127.0.0.1:6443",
            "https://api.internal",
            "https://corp.example.com",
            "https://k8s.corp.example.com:6443",
            "https://192.168.49.2:8443",
            "https://[fd12::1]:6443",
            "http://203.0.113.7",
        ] {
            assert!(!proxied(direct), "{direct}");
        }
        for far in [
            "https://203.0.113.7",
            "https://internal",
            "https://notcorp.example.com",
            "https://192.168.50.2",
        ] {
            assert!(proxied(far), "{far}");
        }
    }
}
