//! Links, addresses and routes of a host, over rtnetlink (rtnetlink(7), linux/rtnetlink.h).
//!
//! Unlike nf_tables, rtnetlink encodes numbers in the machine's byte order, and addresses in network
//! order.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use ephport_nft::netlink::{self, NetlinkError, Socket, dump, exchange};
use ephport_nft::netlink::{CodecError, Header, Reader, Writer};
use ephport_nft::uapi::{
    AF_INET, AF_INET6, AF_UNSPEC, IF_OPER_UP, IFA_ADDRESS, IFA_F_NODAD, IFA_LOCAL, IFF_UP,
    IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_OPERSTATE,
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, RT_SCOPE_UNIVERSE, RT_TABLE_MAIN, RTA_DST,
    RTA_GATEWAY, RTM_GETLINK, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE, RTN_LOCAL,
    RTN_UNICAST, RTPROT_STATIC, VETH_INFO_PEER,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::error::LabError;
use super::host::Host;

/// Length of `struct ifinfomsg`.
const IFINFOMSG_LEN: usize = 16;

/// Length of `struct rtmsg`.
const RTMSG_LEN: usize = 12;

/// Timeout for a link or an address to come up, which usually needs a few milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Flags of a request that creates an object, which must not exist yet.
const CREATE: u16 = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;

/// Flags of a request that reads or changes an existing object.
const EXISTING: u16 = NLM_F_REQUEST | NLM_F_ACK;

impl Host {
    /// Makes a cable from this host's `link` to `peer_link` of `peer` (veth(4)). Both ends carry packets
    /// on return.
    pub fn link(&self, link: &str, peer: &Host, peer_link: &str) -> Result<(), LabError> {
        let object = format!("link {link} to {peer_link} of {}", peer.name());
        self.request(&object, RTM_NEWLINK, CREATE, |w| {
            w.raw(&ifinfomsg(0, 0));
            w.string(IFLA_IFNAME, link);
            w.nested(IFLA_LINKINFO, |w| {
                w.string(IFLA_INFO_KIND, "veth");
                w.nested(IFLA_INFO_DATA, |w| {
                    w.nested(VETH_INFO_PEER, |w| {
                        w.raw(&ifinfomsg(0, 0));
                        w.string(IFLA_IFNAME, peer_link);
                        w.bytes(IFLA_NET_NS_FD, &peer.namespace().as_raw_fd().to_ne_bytes());
                    });
                });
            });
        })?;
        self.up(link)?;
        peer.up(peer_link)?;
        self.await_carrier(link)?;
        peer.await_carrier(peer_link)
    }

    /// Sets a link up.
    pub fn up(&self, link: &str) -> Result<(), LabError> {
        let index = self.index(link)?;
        self.request(&format!("link {link} up"), RTM_NEWLINK, EXISTING, |w| {
            w.raw(&ifinfomsg(index, IFF_UP));
        })
    }

    /// Adds an address with a prefix length, such as `10.0.0.1/24`, to a link. It is usable on return.
    pub fn address(&self, link: &str, address: &str) -> Result<(), LabError> {
        let net: IpNet = address.parse().map_err(|_| LabError::NotAnAddress {
            host: self.name().into(),
            text: address.into(),
        })?;
        let index = self.index(link)?;
        self.request(&format!("address {address} on {link}"), RTM_NEWADDR, CREATE, |w| {
            // struct ifaddrmsg: family, prefix length, flags, scope, index
            w.raw(&[family(net.addr()), net.prefix_len(), IFA_F_NODAD, RT_SCOPE_UNIVERSE]);
            w.raw(&index.to_ne_bytes());
            w.bytes(IFA_LOCAL, &octets(net.addr()));
            w.bytes(IFA_ADDRESS, &octets(net.addr()));
        })?;
        self.await_address(link, net.addr())
    }

    /// Adds a route via a gateway to `default` or to a block such as `10.0.0.0/8`.
    pub fn route(&self, destination: &str, via: &str) -> Result<(), LabError> {
        let (net, gateway) = parse_route(destination, via).ok_or_else(|| LabError::NotARoute {
            host: self.name().into(),
            destination: destination.into(),
            via: via.into(),
        })?;
        self.request(&format!("route to {net} via {via}"), RTM_NEWROUTE, CREATE, |w| {
            w.raw(&rtmsg(net, RTN_UNICAST));
            w.bytes(RTA_DST, &octets(net.network()));
            w.bytes(RTA_GATEWAY, &octets(gateway));
        })
    }

    fn index(&self, link: &str) -> Result<u32, LabError> {
        self.run(|| if_nametoindex(link))
            .map_err(|_| LabError::NoLink { host: self.name().into(), link: link.into() })
    }

    /// Sends one request and waits for its acknowledgement. `object` names it in the error.
    fn request(
        &self,
        object: &str,
        message_type: u16,
        flags: u16,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(), LabError> {
        let mut writer = Writer::new();
        writer.message(Header { message_type, flags, seq: 1 }, body);
        let answers = self.netlink(|| exchange(&mut Socket::route()?, &writer.finish()?))?;
        let refusal = answers
            .into_iter()
            .find_map(|ack| Some((Errno::from_raw(ack.errno?.raw()), ack.message)));
        refusal.map_or(Ok(()), |(errno, message)| {
            Err(LabError::Refused {
                host: self.name().into(),
                object: object.into(),
                errno,
                message,
            })
        })
    }

    /// Waits until `link` carries packets. Before that the kernel drops them without an error.
    pub fn await_carrier(&self, link: &str) -> Result<(), LabError> {
        self.wait(link, |socket| Ok(operational_state(socket, link)? == Some(IF_OPER_UP)))
    }

    /// Waits until the host receives packets to an address of `link`. The kernel installs the route to an
    /// IPv6 address from a work queue, a little after its acknowledgement.
    fn await_address(&self, link: &str, address: IpAddr) -> Result<(), LabError> {
        if address.is_ipv4() {
            return Ok(());
        }
        self.wait(link, |socket| Ok(route_type(socket, address)? == Some(RTN_LOCAL)))
    }

    fn wait(
        &self,
        link: &str,
        condition: impl Fn(&mut Socket) -> Result<bool, NetlinkError> + Sync,
    ) -> Result<(), LabError> {
        let deadline = Instant::now() + TIMEOUT;
        let met = self.netlink(|| {
            let mut socket = Socket::route()?;
            while !condition(&mut socket)? {
                if Instant::now() > deadline {
                    return Ok(false);
                }
                thread::sleep(Duration::from_micros(200));
            }
            Ok(true)
        })?;
        if met {
            return Ok(());
        }
        let (host, link) = (self.name().into(), link.into());
        Err(LabError::LinkDown { host, link, seconds: TIMEOUT.as_secs() })
    }

    fn netlink<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, NetlinkError> + Send,
    ) -> Result<T, LabError> {
        self.run(work).map_err(|source| LabError::Netlink { host: self.name().into(), source })
    }
}

/// The link's `IFLA_OPERSTATE` (RFC 2863 §3.1.13).
fn operational_state(socket: &mut Socket, link: &str) -> Result<Option<u8>, NetlinkError> {
    const SEQ: u32 = 1;
    let mut writer = Writer::new();
    writer.message(Header { message_type: RTM_GETLINK, flags: EXISTING, seq: SEQ }, |w| {
        w.raw(&ifinfomsg(0, 0));
        w.string(IFLA_IFNAME, link);
    });
    let mut state = None;
    dump(socket, &writer.finish()?, SEQ, |_, body| {
        state = read_operational_state(body)?;
        Ok(())
    })?;
    Ok(state)
}

fn read_operational_state(body: &[u8]) -> Result<Option<u8>, CodecError> {
    let mut reader = Reader::new(body);
    reader.slice("ifinfomsg", IFINFOMSG_LEN)?;
    for attr in reader.attrs() {
        let attr = attr?;
        if attr.attribute_type == IFLA_OPERSTATE {
            return attr.u8().map(Some);
        }
    }
    Ok(None)
}

/// The type (`RTN_*`) of the route to an address, if there is one.
fn route_type(socket: &mut Socket, to: IpAddr) -> Result<Option<u8>, NetlinkError> {
    const SEQ: u32 = 1;
    let to = IpNet::from(to);
    let mut writer = Writer::new();
    writer.message(Header { message_type: RTM_GETROUTE, flags: EXISTING, seq: SEQ }, |w| {
        w.raw(&rtmsg(to, 0));
        w.bytes(RTA_DST, &octets(to.addr()));
    });
    let mut found = None;
    let answer = dump(socket, &writer.finish()?, SEQ, |_, body| {
        let [.., kind, _, _, _, _] = Reader::new(body).array::<RTMSG_LEN>("rtmsg")?;
        found = Some(kind);
        Ok(())
    });
    match answer {
        Err(NetlinkError::Rejected { errno: netlink::Errno::ENETUNREACH }) => Ok(None),
        answer => answer.map(|()| found),
    }
}

/// `struct rtmsg`: family, destination and source length, type of service, table, protocol, scope,
/// type, flags.
fn rtmsg(to: IpNet, route_type: u8) -> [u8; RTMSG_LEN] {
    let (family, len) = (family(to.addr()), to.prefix_len());
    let (table, scope) = (RT_TABLE_MAIN, RT_SCOPE_UNIVERSE);
    [family, len, 0, 0, table, RTPROT_STATIC, scope, route_type, 0, 0, 0, 0]
}

/// `struct ifinfomsg` of a link with these flags to set; index 0 is a link that has no index yet.
fn ifinfomsg(index: u32, flags: u32) -> [u8; IFINFOMSG_LEN] {
    let mut bytes = [0; IFINFOMSG_LEN];
    bytes[0] = AF_UNSPEC;
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&flags.to_ne_bytes()); // the mask of flags to change
    bytes
}

fn parse_route(destination: &str, via: &str) -> Option<(IpNet, IpAddr)> {
    let gateway: IpAddr = via.parse().ok()?;
    let net = match (destination, gateway) {
        ("default", IpAddr::V4(_)) => Ipv4Net::default().into(),
        ("default", IpAddr::V6(_)) => Ipv6Net::default().into(),
        (block, _) => block.parse::<IpNet>().ok()?,
    };
    (net.addr().is_ipv4() == gateway.is_ipv4()).then_some((net, gateway))
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_route_has_the_family_of_its_gateway() {
        let route =
            |destination, via| parse_route(destination, via).map(|(net, _)| net.to_string());
        assert_eq!(route("default", "10.0.0.1").as_deref(), Some("0.0.0.0/0"));
        assert_eq!(route("default", "fd00::1").as_deref(), Some("::/0"));
        assert_eq!(route("10.0.0.0/8", "10.0.0.1").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(route("10.0.0.0/8", "fd00::1"), None);
        assert_eq!(route("10.0.0.0", "10.0.0.1"), None);
        assert_eq!(route("default", "router"), None);
    }

    #[test]
    fn operational_state_is_read_among_other_attributes() {
        let mut writer = Writer::new();
        writer.raw(&ifinfomsg(2, 0));
        writer.string(IFLA_IFNAME, "eth0");
        writer.u8(IFLA_OPERSTATE, IF_OPER_UP);
        let bytes = writer.finish().unwrap();
        assert_eq!(read_operational_state(&bytes), Ok(Some(IF_OPER_UP)));
        assert_eq!(read_operational_state(&bytes[..IFINFOMSG_LEN]), Ok(None));
        assert!(read_operational_state(&bytes[..IFINFOMSG_LEN - 1]).is_err());
    }
}
