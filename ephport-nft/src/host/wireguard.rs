//! The ports that WireGuard devices listen on (linux/wireguard.h, linux/genetlink.h).

use ephport_core::{Port, PortRange, PortSet};

use crate::netlink::{CodecError, Header, NetlinkError, Reader, Transport, Writer, dump};
use crate::uapi::{
    CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, CTRL_CMD_GETFAMILY, GENL_ID_CTRL, NLM_F_DUMP,
    NLM_F_REQUEST, WG_CMD_GET_DEVICE, WGDEVICE_A_IFNAME, WGDEVICE_A_LISTEN_PORT,
};

/// Length of `struct genlmsghdr`.
const GENLMSGHDR_LEN: usize = 4;

/// The ports of these devices. The kernel gives them only with CAP_NET_ADMIN.
pub(super) fn ports<'a>(
    socket: &mut impl Transport,
    devices: impl IntoIterator<Item = &'a str>,
) -> Result<PortSet, NetlinkError> {
    let mut ports = Vec::new();
    let Some(family) = family(socket)? else { return Ok(PortSet::EMPTY) };
    for (seq, device) in (2..).zip(devices) {
        let request = request(family, WG_CMD_GET_DEVICE, seq, Some(device))?;
        dump(socket, &request, seq, |message_type, body| {
            if message_type == family {
                ports.extend(listen_port(body)?.map(PortRange::from));
            }
            Ok(())
        })?;
    }
    Ok(ports.into_iter().collect())
}

/// The number of the generic netlink family `wireguard`; `None` if the kernel has none.
fn family(socket: &mut impl Transport) -> Result<Option<u16>, NetlinkError> {
    let mut number = None;
    dump(socket, &request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1, None)?, 1, |_, body| {
        let (mut id, mut is_wireguard) = (None, false);
        for attr in attributes(body)?.attrs() {
            let attr = attr?;
            match attr.attribute_type {
                CTRL_ATTR_FAMILY_ID => id = Some(u16::from_ne_bytes(attr.array("family id")?)),
                CTRL_ATTR_FAMILY_NAME => is_wireguard = attr.value == b"wireguard\0",
                _ => {}
            }
        }
        number = id.filter(|_| is_wireguard).or(number);
        Ok(())
    })?;
    Ok(number)
}

fn listen_port(body: &[u8]) -> Result<Option<Port>, CodecError> {
    for attr in attributes(body)?.attrs() {
        let attr = attr?;
        if attr.attribute_type == WGDEVICE_A_LISTEN_PORT {
            return Ok(Port::new(u16::from_ne_bytes(attr.array("listen port")?)).ok());
        }
    }
    Ok(None)
}

/// What follows the header of a generic netlink message.
fn attributes(body: &[u8]) -> Result<Reader<'_>, CodecError> {
    let mut reader = Reader::new(body);
    reader.slice("genlmsghdr", GENLMSGHDR_LEN)?;
    Ok(reader)
}

fn request(
    message_type: u16,
    command: u8,
    seq: u32,
    device: Option<&str>,
) -> Result<Vec<u8>, CodecError> {
    const VERSION: u8 = 1;
    let mut w = Writer::new();
    w.message(Header { message_type, flags: NLM_F_REQUEST | NLM_F_DUMP, seq }, |w| {
        w.raw(&[command, VERSION, 0, 0]);
        if let Some(device) = device {
            w.string(WGDEVICE_A_IFNAME, device);
        }
    });
    w.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::uapi::NLMSG_DONE;

    /// A kernel with the family `wireguard`, number 30, and one device.
    #[derive(Default)]
    struct Kernel {
        answers: VecDeque<Vec<u8>>,
        asked: Vec<Vec<u8>>,
    }

    impl Transport for Kernel {
        fn send(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
            let message_type = u16::from_ne_bytes([datagram[4], datagram[5]]);
            let seq = u32::from_ne_bytes(datagram[8..12].try_into().unwrap());
            self.asked.push(datagram.into());
            let mut w = Writer::new();
            let header = |message_type| Header { message_type, flags: 2, seq };
            match message_type {
                GENL_ID_CTRL => {
                    for (number, name) in [(29u16, "nl80211"), (30, "wireguard"), (31, "tcp")] {
                        w.message(header(GENL_ID_CTRL), |w| {
                            w.raw(&[1, 2, 0, 0]);
                            w.string(CTRL_ATTR_FAMILY_NAME, name);
                            w.bytes(CTRL_ATTR_FAMILY_ID, &number.to_ne_bytes());
                        });
                    }
                }
                _ => w.message(header(30), |w| {
                    w.raw(&[0, 1, 0, 0]);
                    w.string(WGDEVICE_A_IFNAME, "wg0");
                    w.bytes(WGDEVICE_A_LISTEN_PORT, &51_999u16.to_ne_bytes());
                }),
            }
            w.message(header(NLMSG_DONE), |w| w.raw(&[0; 4]));
            self.answers.push_back(w.finish().unwrap());
            Ok(())
        }

        fn poll(&mut self) -> Result<Option<Vec<u8>>, NetlinkError> {
            Ok(self.answers.pop_front())
        }

        fn receive(&mut self) -> Result<Vec<u8>, NetlinkError> {
            self.answers.pop_front().ok_or(NetlinkError::Silent { seconds: 10 })
        }
    }

    #[test]
    fn ports_of_devices_are_read() {
        let mut kernel = Kernel::default();
        let found = ports(&mut kernel, ["wg0"]).unwrap();
        assert_eq!(found.to_string(), "51999");
        let [_, device] = kernel.asked.as_slice() else { panic!("{:?}", kernel.asked) };
        let header = [8u16.to_ne_bytes(), 2u16.to_ne_bytes()].concat();
        assert_eq!(device[16..], [&b"\x00\x01\0\0"[..], &header, b"wg0\0"].concat());
    }
}
