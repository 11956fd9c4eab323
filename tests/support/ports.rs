//! Ports that tests may use without meeting each other.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what Linux gives to outgoing connections, so that nobody gets one of them by chance.
const FIRST: u16 = 10_000;
const LAST: u16 = 30_000;

/// As many neighbouring ports as asked for, free on every address. No other test of this process gets them, and one of
/// another process is not likely to.
pub fn free_ports(count: u16) -> RangeInclusive<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..1000 {
        let offset = NEXT.fetch_add(count, Ordering::Relaxed);
        let start = (std::process::id() % 200) as u16 * 100;
        let first = FIRST + (start + offset) % (LAST - FIRST - count);
        let range = first..=first + count - 1;
        if range
            .clone()
            .all(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok())
        {
            return range;
        }
    }
    panic!("no {count} free ports between {FIRST} and {LAST}");
}
