//! Ports that tests may use without meeting each other.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use crate::claim::{Claim, claim};

/// Below the ports that Linux gives to outgoing connections, so that no connection gets one of them by chance.
const FIRST: u16 = 10_000;
const LAST: u16 = 30_000;

/// As many neighbouring ports as asked for, free on every address. No other test gets them while this process lives.
pub fn free_ports(count: u16) -> RangeInclusive<u16> {
    static TAKEN: Mutex<(u16, Vec<Claim>)> = Mutex::new((0, Vec::new()));
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let (next, claims) = &mut *taken;
    // Successive processes start at different ports: some servers release theirs late.
    let start = (std::process::id() % 200) as u16 * 100;
    for _ in 0..1000 {
        let first = FIRST + (start + *next) % (LAST - FIRST - count);
        *next = (*next + count) % (LAST - FIRST);
        let range = first..=first + count - 1;
        let free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        let claimed = range
            .clone()
            .map(|port| claim("port", port).filter(|_| free(port)));
        if let Some(claimed) = claimed.collect::<Option<Vec<_>>>() {
            claims.extend(claimed);
            return range;
        }
    }
    panic!("no {count} free ports between {FIRST} and {LAST}");
}
