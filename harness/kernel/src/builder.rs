//! Creates links, addresses, neighbours, routes and rules with the `rtnetlink` crate.
//!
//! A [`Builder`] is a connection into one namespace, driven by the task that waits for a request, so that no other
//! thread waits for the kernel's lock meanwhile. Queries, changes, deletions and restorations are single synchronous
//! requests in [`link`](crate::link) and [`route`](crate::route).
//!
//! Left out: link kinds other than veth, and the kernel's own routes to the prefixes of addresses.

use std::future::Future;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::proto::Connection;
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{Context, Error, Result};
use crate::link::{delete, wait_running};
use crate::netns::NetNs;
use crate::route::{LOCAL, Route, Rule, lookup};

/// The result of a request.
type RequestResult = std::result::Result<(), rtnetlink::Error>;

/// Creates objects in one namespace.
#[derive(Clone)]
pub struct Builder {
    pub ns: NetNs,
    handle: Handle,
    connection: Arc<Mutex<Connection<RouteNetlinkMessage>>>,
}

impl Builder {
    /// Opens a connection into a namespace. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the socket cannot be created.
    pub fn open(ns: &NetNs) -> Result<Self> {
        let what = || format!("open a netlink socket in {}", ns.name());
        let (connection, handle, _) = ns.run(rtnetlink::new_connection)?.context(what)?;
        Ok(Self { ns: ns.clone(), handle, connection: Arc::new(Mutex::new(connection)) })
    }

    /// Sets an interface up. `lo` of a new namespace is down, and even the namespace's own addresses do not answer
    /// then.
    ///
    /// # Errors
    /// The error reported by the kernel.
    pub async fn set_up(&self, index: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.execute(format!("set link {index} up"), self.handle.link().change(message).execute()).await
    }

    /// Adds an address without a route to its prefix; the address is usable when this returns. IPv6 skips duplicate
    /// address detection, but even then the kernel completes such an address after its acknowledgement: this waits
    /// until the address is in the local table.
    ///
    /// # Errors
    /// The error reported by the kernel.
    pub async fn add_address(&self, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
        let mut request = self.handle.address().add(index, address, prefix_len);
        let detection = if address.is_ipv6() { AddressFlags::Nodad } else { AddressFlags::empty() };
        let flags = AddressAttribute::Flags(AddressFlags::Noprefixroute | detection);
        request.message_mut().attributes.push(flags);
        let what = format!("add address {address}/{prefix_len} to link {index}");
        self.execute(what.clone(), request.execute()).await?;
        let deadline = Instant::now() + Duration::from_secs(3);
        while address.is_ipv6() && lookup(&self.ns, address, None, None)?.table != Some(LOCAL) {
            if Instant::now() >= deadline {
                return Err(Error::NotInForce { what, read_back: "the address is not in the local table".into() });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Adds a permanent neighbour: no ARP or neighbour discovery precedes the first packet, and none
    /// can fail in the middle of a measurement.
    ///
    /// # Errors
    /// The error reported by the kernel.
    pub async fn add_neighbour(&self, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        let request = self.handle.neighbours().add(index, address).link_layer_address(&mac).replace();
        self.execute(format!("add neighbour {address} on link {index}"), request.execute()).await
    }

    /// Adds a route that must not exist yet.
    ///
    /// # Errors
    /// `EEXIST` if a route to this destination with this metric exists; any other error reported by the kernel.
    pub async fn add_route(&self, route: &Route) -> Result<()> {
        self.execute(route.what("add"), self.handle.route().add(route.message()).execute()).await
    }

    /// Adds a rule that must not exist yet.
    ///
    /// # Errors
    /// `EEXIST` if the same rule exists; any other error reported by the kernel.
    pub async fn add_rule(&self, rule: &Rule) -> Result<()> {
        let mut request = self.handle.rule().add();
        *request.message_mut() = rule.message();
        self.execute(rule.what("add"), request.execute()).await
    }

    /// Drives a request to its end; errors carry the operation attempted.
    async fn execute(&self, what: String, request: impl Future<Output = RequestResult>) -> Result<()> {
        let what = format!("{what} in {}", self.ns.name());
        let mut connection = self.connection.lock().await;
        let result = tokio::select! {
            biased;
            result = request => result,
            // Otherwise a request whose connection has ended would pass for acknowledged.
            () = &mut *connection => Err(rtnetlink::Error::RequestFailed),
        };
        result.map_err(|e| match e {
            rtnetlink::Error::NetlinkError(answer) => Error::kernel(what, answer.to_io()),
            other => Error::Answer { what, answer: other.to_string() },
        })
    }
}

/// One end of a veth pair. Everything is given explicitly, nothing is chosen by the kernel: names and MAC addresses are
/// the same in every run.
#[derive(Clone)]
pub struct VethEnd {
    pub at: Builder,
    pub name: String,
    /// Must differ from the other end's: for equal indexes the kernel treats the link as one without a
    /// lower link, and may take a second to report it as running.
    pub index: u32,
    pub mac: [u8; 6],
    pub mtu: u32,
}

impl VethEnd {
    /// Creates the pair of this end and its peer, each in its namespace, sets both up and waits until both are running:
    /// from then on no packet is dropped for lack of carrier. Leaves nothing behind if it fails.
    ///
    /// # Errors
    /// Equal indexes; a name or an index in use; any other error reported by the kernel.
    pub async fn make(&self, peer: &Self) -> Result<()> {
        let what = format!("add veth {} with peer {} of {}", self.name, peer.name, peer.at.ns.name());
        if self.index == peer.index {
            return Err(Error::Refused { what, why: format!("both ends have index {}", self.index) });
        }
        let far = peer.described(LinkMessageBuilder::<LinkUnspec>::new()).setns_by_fd(peer.at.ns.as_fd().as_raw_fd());
        // The near end can be created up; the far one cannot, since it has no peer yet when it is registered.
        let near = self.described(LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)).up();
        let pair = near.set_info_data(InfoData::Veth(InfoVeth::Peer(far.build()))).build();
        self.at.execute(what, self.at.handle.link().add(pair).execute()).await?;
        let up = peer.at.set_up(peer.index).await;
        let running = |end: &Self| wait_running(&end.at.ns, end.index);
        up.and_then(|()| running(peer)).and_then(|()| running(self)).inspect_err(|_| {
            // Report the first error, not this one.
            let _ = delete(&self.at.ns, self.index);
        })
    }

    fn described<T>(&self, link: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
        link.index(self.index).name(&self.name).address(self.mac.to_vec()).mtu(self.mtu)
    }

    /// Adds `peer` as the permanent neighbour that answers for `address`.
    ///
    /// # Errors
    /// The error reported by the kernel.
    pub async fn add_neighbour(&self, address: IpAddr, peer: &Self) -> Result<()> {
        self.at.add_neighbour(self.index, address, peer.mac).await
    }
}
