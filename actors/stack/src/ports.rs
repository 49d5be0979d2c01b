//! Free loopback ports.
//!
//! Chosen below the kernel's ephemeral range: a server that is killed and started again must find its port
//! free, and no outgoing connection can have taken it meanwhile. Another process may bind a port between its
//! choice and the server's start; the start then retries with other ports.

use std::net::{Ipv4Addr, TcpListener};

use uuid::Uuid;

const LOWEST: u16 = 20_000;
const SPAN: u16 = 12_000;

/// Whether `port` can be bound on loopback now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A port that is free now, chosen at random.
pub(crate) fn choose() -> u16 {
    loop {
        // Only needs to differ between processes; a v4 UUID is random.
        let random = u64::from_be_bytes(Uuid::new_v4().into_bytes()[8..].try_into().unwrap_or_default());
        let offset = u16::try_from(random % u64::from(SPAN)).unwrap_or_default();
        if is_free(LOWEST + offset) {
            return LOWEST + offset;
        }
    }
}
