//! Who is connected, by address. Bounded by the connections that the server accepts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Connections by address.
#[derive(Clone, Default)]
pub struct Clients {
    by_address: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// One address with open connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The address.
    pub address: IpAddr,
    /// Its open connections.
    pub connections: u32,
}

/// One open connection: counted until dropped.
pub struct Connected {
    clients: Clients,
    address: IpAddr,
}

impl Clients {
    /// Counts a connection until the guard is dropped.
    #[must_use]
    pub fn connected(&self, address: IpAddr) -> Connected {
        *self.by_address.lock().entry(address).or_default() += 1;
        Connected {
            clients: self.clone(),
            address,
        }
    }

    /// How many addresses there are, and the `count` with most connections; ties by address.
    pub fn top(&self, count: usize) -> (usize, Vec<Client>) {
        let mut all: Vec<Client> = {
            let by_address = self.by_address.lock();
            let client = |(address, connections): (&IpAddr, &u32)| Client {
                address: *address,
                connections: *connections,
            };
            by_address.iter().map(client).collect()
        };
        all.sort_unstable_by(|a, b| {
            let by = b.connections.cmp(&a.connections);
            by.then(a.address.cmp(&b.address))
        });
        let addresses = all.len();
        all.truncate(count);
        (addresses, all)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut by_address = self.clients.by_address.lock();
        if let Some(connections) = by_address.get_mut(&self.address) {
            *connections -= 1;
            if *connections == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn an_address_is_known_while_it_has_a_connection() {
        let clients = Clients::default();
        let [a, b]: [IpAddr; 2] = ["10.0.0.1", "::1"].map(|t| t.parse().unwrap());
        let first = clients.connected(a);
        let others = [clients.connected(b), clients.connected(b)];
        assert_eq!(
            clients.top(1),
            (
                2,
                vec![Client {
                    address: b,
                    connections: 2
                }]
            )
        );
        drop(first);
        assert_eq!(clients.top(9).0, 1);
        drop(others);
        assert_eq!(clients.top(9), (0, vec![]));
    }
}
