//! A flow as text.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::{AddressType, Flow, FlowError, SourceType, TcpOpening};
use crate::net::mark;
use crate::net::protocol::Protocol;

/// `tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0`, then in any order `iif NAME` for a forwarded
/// flow, `bridged` for a packet of another host without an input interface, `other-source` for an address of
/// another interface of this host, `mark NUMBER`, `ipsec`, `expected` for a connection that a conntrack helper
/// expected, `mid-stream` and `broadcast`. IPv6 is written `[2001:db8::1]:40000`. An echo request with the
/// identifier 77 is `icmp 172.17.0.2:77 -> 203.0.113.9 oif eth0`.
impl FromStr for Flow {
    type Err = FlowError;

    fn from_str(text: &str) -> Result<Self, FlowError> {
        let words: Vec<_> = text.split_whitespace().collect();
        if let [_, _, "->", _, more @ ..] = words.as_slice()
            && more.first() != Some(&"oif")
        {
            return Err(FlowError::OutInterface { text: text.into() });
        }
        let [protocol, source, "->", destination, "oif", out, more @ ..] = words.as_slice() else {
            return Err(FlowError::Shape { text: text.into() });
        };
        let protocol: Protocol = protocol.parse()?;
        let destination = if protocol.has_ports() {
            endpoint(destination)?
        } else {
            let unreadable = |_| FlowError::Address { text: (*destination).into() };
            SocketAddr::new(destination.parse().map_err(unreadable)?, 0)
        };
        let flow = Self::new(protocol, endpoint(source)?, destination, out.parse()?)?;
        flow.with_words(more)
    }
}

impl Flow {
    fn with_words(mut self, words: &[&str]) -> Result<Self, FlowError> {
        let mut seen = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if seen.contains(word) {
                return Err(FlowError::Repeated { word: (*word).into() });
            }
            seen.push(*word);
            self = match *word {
                "iif" => {
                    let name = words.next().ok_or(FlowError::NoInterface)?;
                    self.with_in_interface(name.parse()?)
                }
                "mark" => {
                    let mark = words.next().ok_or(FlowError::NoMark)?;
                    self.with_mark(mark::number(mark)?)
                }
                "ipsec" => self.with_ipsec(),
                "expected" => self.with_expectation(),
                "bridged" => self.with_source_type(SourceType::NotLocal),
                "other-source" => self.with_source_type(SourceType::OtherInterface),
                "mid-stream" if self.protocol == Protocol::Tcp => {
                    self.with_opening(TcpOpening::MidStream)
                }
                "mid-stream" => return Err(FlowError::MidStream { protocol: self.protocol }),
                "broadcast" if self.source.is_ipv4() => self.with_broadcast(),
                "broadcast" => return Err(FlowError::Broadcast { to: self.destination }),
                word => return Err(FlowError::UnknownWord { word: word.into() }),
            };
        }
        let sources = ["iif", "bridged", "other-source"];
        let mut of_source = seen.iter().filter(|word| sources.contains(word));
        if let (Some(first), Some(second)) = (of_source.next(), of_source.next()) {
            return Err(FlowError::TwoSources { first: (*first).into(), second: (*second).into() });
        }
        Ok(self)
    }
}

fn endpoint(text: &str) -> Result<SocketAddr, FlowError> {
    text.parse().map_err(|_| FlowError::Endpoint { text: text.into() })
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, source, destination, out_interface, .. } = self;
        write!(f, "{protocol} {source} -> ")?;
        if protocol.has_ports() {
            write!(f, "{destination}")?;
        } else {
            write!(f, "{}", destination.ip())?;
        }
        write!(f, " oif {out_interface}")?;
        if let Some(name) = &self.in_interface {
            write!(f, " iif {name}")?;
        }
        match self.source_type {
            SourceType::NotLocal if self.in_interface.is_none() => f.write_str(" bridged")?,
            SourceType::OtherInterface => f.write_str(" other-source")?,
            SourceType::NotLocal | SourceType::OutInterface => {}
        }
        if self.mark != 0 {
            write!(f, " mark {:#x}", self.mark)?;
        }
        if self.is_ipsec {
            f.write_str(" ipsec")?;
        }
        if self.is_expected {
            f.write_str(" expected")?;
        }
        if self.opening() == TcpOpening::MidStream {
            f.write_str(" mid-stream")?;
        }
        if self.destination_type == AddressType::Broadcast {
            f.write_str(" broadcast")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::strategies::flows;
    use crate::testing::errors;

    #[test]
    fn errors_of_flows() {
        let errors = errors::<Flow>(&[
            "tcp 10.0.0.1:1 -> [::1]:2 oif eth0",
            "tcp 10.0.0.1:0 -> 10.0.0.2:2 oif eth0",
            "tcp 10.0.0.1:1 10.0.0.2:2",
            "tcp 10.0.0.1:1 -> 10.0.0.2:2",
            "tcp 10.0.0.1 -> 10.0.0.2:2 oif eth0",
            "gre 10.0.0.1:1 -> 10.0.0.2:2 oif eth0",
            "icmp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0",
            "icmp [::1]:1 -> ::2 oif eth0",
            "icmp 10.0.0.1:0 -> 10.0.0.2 oif eth0",
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif e*",
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 iif",
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 late",
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 mark",
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 mark x",
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 iif a iif b",
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 bridged iif a",
            "udp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 mid-stream",
            "udp [::1]:1 -> [::2]:2 oif eth0 broadcast",
        ]);
        expect![[r#"
            "tcp 10.0.0.1:1 -> [::1]:2 oif eth0" => 10.0.0.1:1 and [::1]:2 are of two address families: expected both ends of one
            "tcp 10.0.0.1:0 -> 10.0.0.2:2 oif eth0" => 10.0.0.1:0 has port 0: expected 1 to 65535
            "tcp 10.0.0.1:1 10.0.0.2:2" => `tcp 10.0.0.1:1 10.0.0.2:2` is not a flow: expected one like tcp 172.17.0.2:40000 -> 203.0.113.9:443 oif eth0 iif docker0
            "tcp 10.0.0.1:1 -> 10.0.0.2:2" => `tcp 10.0.0.1:1 -> 10.0.0.2:2` has no output interface: write `oif NAME` after the destination, as `ip route get` prints it
            "tcp 10.0.0.1 -> 10.0.0.2:2 oif eth0" => `10.0.0.1` is not an address with a port: expected one like 172.17.0.2:40000 or [2001:db8::1]:40000
            "gre 10.0.0.1:1 -> 10.0.0.2:2 oif eth0" => gre has no ports to translate: expected tcp, udp, udplite, sctp, icmp or icmpv6
            "icmp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0" => `10.0.0.2:2` is not an address: expected one like 203.0.113.9 as the destination of an echo request
            "icmp [::1]:1 -> ::2 oif eth0" => ::1 is not an address of icmp: expected icmp for IPv4, icmpv6 for IPv6
            "icmp 10.0.0.1:0 -> 10.0.0.2 oif eth0" => 10.0.0.1:0 has port 0: expected 1 to 65535
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif e*" => `e*`: expected `*` only at the end of a prefix, like wg*
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 iif" => no interface after `iif`: expected a name, like iif docker0
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 late" => unknown word `late` in a flow: expected iif NAME, bridged, other-source, mark NUMBER, ipsec, expected, mid-stream or broadcast
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 mark" => no number after `mark`: expected one like mark 0x1
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 mark x" => `x` is not a mark: expected a 32-bit number, like 0x1, or 0x1/0xff with a mask
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 iif a iif b" => `iif` is given twice: expected once
            "tcp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 bridged iif a" => `bridged` and `iif` exclude each other: expected one of iif, bridged and other-source
            "udp 10.0.0.1:1 -> 10.0.0.2:2 oif eth0 mid-stream" => a udp flow has no mid-stream: only tcp has segments that open nothing
            "udp [::1]:1 -> [::2]:2 oif eth0 broadcast" => [::2]:2 is no broadcast address: only IPv4 has them
        "#]].assert_eq(&errors);
    }

    #[test]
    fn echo_requests_have_an_identifier() {
        let flow: Flow = "icmpv6 [2001:db8::1]:77 -> 2001:db8::9 oif eth0".parse().unwrap();
        assert_eq!((flow.source_port().get(), flow.destination().port()), (77, 0));
    }

    #[test]
    fn flow_attributes_parse_in_any_order() {
        let text = "tcp 10.0.0.1:1 -> 10.0.0.255:2 oif eth0 ipsec broadcast mark 16 mid-stream iif docker0";
        let flow: Flow = text.parse().unwrap();
        assert_eq!(
            (flow.destination_type(), flow.opening()),
            (AddressType::Broadcast, TcpOpening::MidStream)
        );
        assert_eq!(
            flow.to_string(),
            "tcp 10.0.0.1:1 -> 10.0.0.255:2 oif eth0 iif docker0 mark 0x10 ipsec mid-stream broadcast"
        );
    }

    proptest! {
        #[test]
        fn printed_values_parse_back(flow in flows()) {
            prop_assert_eq!(flow.to_string().parse(), Ok(flow));
        }

        #[test]
        fn parsing_never_panics(text in "(tcp |[0-9.:\\[\\]]{0,9}| -> |oif |iif |mark |[a-z ]{0,5}){0,9}") {
            let _ = text.parse::<Flow>();
        }
    }
}
