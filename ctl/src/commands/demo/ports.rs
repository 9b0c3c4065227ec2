//! Free ports of the loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::error::{CtlError, Result};

/// Finds so many ports that are free now and differ from each other. Another program can still take one before it is used; then
/// a process of the demo says so in its log.
pub(super) fn free<const N: usize>() -> Result<[u16; N]> {
    let failed = |error: std::io::Error| CtlError::failed(format!("cannot find a free port: {error}"));
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        // Held until all are found, so that none is found twice.
        held.push(listener);
    }
    Ok(ports)
}
