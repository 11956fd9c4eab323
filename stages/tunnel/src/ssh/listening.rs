//! Who listens on a port of the server, read from Linux's tables of sockets. Other systems tell nothing, and neither does an
//! account that runs no commands.

/// The command that shows the tables, but for the connections: a busy server has many.
pub(crate) const COMMAND: &str = "grep -h ' 0A ' /proc/net/tcp /proc/net/tcp6";

/// The state LISTEN.
const LISTEN: &str = "0A";

/// The listeners on one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listening(Vec<Address>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    is_ipv4: bool,
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Any,
    Loopback,
    /// One address of the machine.
    One,
}

impl Listening {
    pub(crate) fn parse(tables: &str, port: u16) -> Listening {
        let wanted = format!("{port:04X}");
        let address = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let (address, port) = fields.next()?.split_once(':')?;
            (port == wanted && fields.nth(1)? == LISTEN).then(|| Address::parse(address))
        };
        Listening(tables.lines().filter_map(address).collect())
    }

    /// False also when nothing is known.
    pub(crate) fn on_loopback_only(&self) -> bool {
        !self.0.is_empty() && self.all(|a| a.scope == Scope::Loopback)
    }

    /// On loopback, and beside it on single addresses, where a server that gives us loopback alone lets others in.
    pub(crate) fn on_loopback_beside_others(&self) -> bool {
        let on = |scope| self.0.iter().any(|a| a.scope == scope);
        on(Scope::Loopback) && on(Scope::One) && !on(Scope::Any)
    }

    /// On all addresses of both families, by two listeners: one of them may be somebody else's.
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

    fn all(&self, fits: impl Fn(&Address) -> bool) -> bool {
        self.0.iter().all(fits)
    }
}

impl Address {
    /// Hexadecimal, four bytes at a time in the server's own byte order.
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

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2454 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 00000000:2455 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   2: 0100007F:2456 0100007F:2454 01 00000000:00000000 00:00000000 00000000     0        0 1
   3: 0100007F:2459 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   4: 0500000A:2459 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000001000000:2454 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000000000000:2455 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000000000000:2457 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: 00000000000000000000000001000000:2458 00000000000000000000000000000000:0000 0A 00000000:00000000
   3: B80D01200000000000000000010000A0:2458 00000000000000000000000000000000:0000 0A 00000000:00000000";

    #[test]
    fn the_tables_tell_on_which_addresses_somebody_listens() {
        // Port, then: loopback only, loopback beside others, both families, all addresses.
        for (port, expected) in [
            (0x2454, [true, false, false, false]),
            (0x2455, [false, false, true, true]),
            (0x2457, [false, false, false, true]),
            (0x2458, [false, true, false, false]),
            (0x2459, [false, true, false, false]),
        ] {
            let listening = Listening::parse(TABLES, port);
            let told = [
                listening.on_loopback_only(),
                listening.on_loopback_beside_others(),
                listening.on_both_families(),
                listening.on_all_addresses(),
            ];
            assert_eq!(told, expected, "{port:04X}: {listening:?}");
        }
    }

    #[test]
    fn a_connection_is_no_listener_and_no_table_tells_nothing() {
        for (tables, port) in [(TABLES, 0x2456), ("", 0x2454), ("cat: no such file", 80)] {
            assert_eq!(Listening::parse(tables, port), Listening::default());
        }
    }
}
