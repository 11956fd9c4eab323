//! Reads from Linux's socket tables on which addresses the server listens for a port. Other systems, and accounts that
//! may not run commands, show nothing.

/// The command that prints the listening sockets without the connections, of which a busy server has many.
pub(crate) const COMMAND: &str = "grep -h ' 0A ' /proc/net/tcp /proc/net/tcp6";

/// The state LISTEN.
const LISTEN: &str = "0A";

/// The listeners on one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listeners(Vec<Address>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    is_ipv4: bool,
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Any,
    Loopback,
    /// A single address.
    One,
}

impl Listeners {
    pub(crate) fn parse(tables: &str, port: u16) -> Listeners {
        let hex = format!("{port:04X}");
        let address = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let (address, port) = fields.next()?.split_once(':')?;
            (port == hex && fields.nth(1)? == LISTEN).then(|| Address::parse(address))
        };
        Listeners(tables.lines().filter_map(address).collect())
    }

    /// False also if nothing is known.
    pub(crate) fn on_loopback_only(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|a| a.scope == Scope::Loopback)
    }

    /// On loopback and on single addresses, but not on all: the port on the single address belongs to another program.
    pub(crate) fn on_loopback_beside_others(&self) -> bool {
        let on = |scope| self.0.iter().any(|a| a.scope == scope);
        on(Scope::Loopback) && on(Scope::One) && !on(Scope::Any)
    }

    /// On all addresses of both families, by two listeners: one may belong to another program.
    pub(crate) fn on_both_families(&self) -> bool {
        let on = |is_ipv4| {
            let mut of_family = self.0.iter().filter(|a| a.is_ipv4 == is_ipv4);
            of_family.any(|a| a.scope != Scope::Loopback)
        };
        on(true) && on(false)
    }

    pub(crate) fn on_all_addresses(&self) -> bool {
        self.0.iter().any(|a| a.scope == Scope::Any)
    }
}

impl Address {
    /// Hexadecimal, in groups of four bytes in the server's byte order.
    fn parse(hex: &str) -> Address {
        const IPV4_DIGITS: usize = 8;
        let is_ipv4 = hex.len() == IPV4_DIGITS;
        let is_loopback = match hex.split_at_checked(hex.len().saturating_sub(IPV4_DIGITS)) {
            Some((start, end)) if !is_ipv4 => {
                start.bytes().all(|b| b == b'0') && ["01000000", "00000001"].contains(&end)
            }
            _ => hex.starts_with("7F") || hex.ends_with("7F"),
        };
        let scope = match is_loopback {
            true => Scope::Loopback,
            false if hex.bytes().all(|b| b == b'0') => Scope::Any,
            false => Scope::One,
        };
        Address { is_ipv4, scope }
    }
}
