//! Reads from Linux's socket tables on which addresses a machine listens for a port: the server, or this one. Other
//! systems, and accounts that may not run commands, show nothing.

use std::fs::File;
use std::io::{BufRead, BufReader};

/// The command that prints the listening sockets without the connections, of which a busy server has many.
pub(crate) const COMMAND: &str = "grep -h ' 0A ' /proc/net/tcp /proc/net/tcp6";

/// The state LISTEN.
const LISTEN: &str = "0A";

/// The listeners on one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listeners(Vec<Address>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    is_ipv4: bool,
    scope: Scope,
    /// In the table's notation.
    text: String,
    /// Identifies the socket on its machine.
    inode: String,
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
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, port) = fields.get(1)?.split_once(':')?;
            let inode = fields.get(9).copied().unwrap_or_default();
            let listens = port == hex && *fields.get(3)? == LISTEN;
            listens.then(|| Address::parse(address, inode))
        };
        Listeners(tables.lines().filter_map(address).collect())
    }

    /// The sockets of this machine to which connections to a local port may lead.
    pub(crate) fn local(port: u16) -> Listeners {
        let mut tables = String::new();
        for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let lines = File::open(path)
                .into_iter()
                .flat_map(|file| BufReader::new(file).lines());
            // Listening sockets come first; a busy machine has many connections.
            let listens = |line: &String| line.split_whitespace().nth(3) == Some(LISTEN);
            for line in lines.skip(1).map_while(Result::ok).take_while(listens) {
                tables += &line;
                tables.push('\n');
            }
        }
        let mut all = Listeners::parse(&tables, port);
        all.0.retain(|address| address.scope != Scope::One);
        all
    }

    /// Two sockets have the same address (SO_REUSEPORT), so either may get a connection.
    pub(crate) fn share_an_address(&self) -> bool {
        let mut addresses: Vec<&str> = self.0.iter().map(|a| a.text.as_str()).collect();
        addresses.sort_unstable();
        addresses.windows(2).any(|pair| pair[0] == pair[1])
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
    fn parse(hex: &str, inode: &str) -> Address {
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
        Address {
            is_ipv4,
            scope,
            text: hex.to_owned(),
            inode: inode.to_owned(),
        }
    }
}
