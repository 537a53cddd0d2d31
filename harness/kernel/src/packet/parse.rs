//! Parses the bytes of a frame, network header first, into a [`Packet`].
//!
//! The bytes are truncated by the filter: lengths come from the IP header, never from the bytes present.

use std::net::{IpAddr, SocketAddr};

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, TcpOptionElement, UdpHeaderSlice, ip_number};

use super::{Flags, Packet, TCP_HEAD, Tcp, Udp};

/// Bytes kept of a UDP payload: the size of a DNS message over UDP without extensions (RFC 1035, 4.2.1).
pub(super) const UDP_PAYLOAD: usize = 512;

/// `None` for anything but well-formed TCP or UDP. `length` is that of the whole frame from
/// the network header on.
pub(super) fn packet(bytes: &[u8], length: usize, gso_size: Option<u16>) -> Option<Packet> {
    let ip = Ip::read(bytes, length)?;
    let rest = bytes.get(ip.header..)?;
    match ip.protocol {
        ip_number::TCP => tcp(&ip, rest, gso_size).map(Packet::Tcp),
        ip_number::UDP => udp(&ip, rest).map(Packet::Udp),
        _ => None,
    }
}

struct Ip {
    source: IpAddr,
    destination: IpAddr,
    protocol: etherparse::IpNumber,
    /// Length of the IP header.
    header: usize,
    /// Length of what follows it, in the original packet.
    payload: usize,
}

impl Ip {
    fn read(bytes: &[u8], length: usize) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => {
                let ip = Ipv4HeaderSlice::from_slice(bytes).ok()?;
                let header = ip.slice().len();
                // Zero above 64 kB (BIG TCP, iph_totlen in include/linux/ip.h): then only the frame's own
                // length is known. Otherwise the frame may contain padding.
                let total = if ip.total_len() == 0 { length } else { usize::from(ip.total_len()) };
                (ip.fragments_offset().value() == 0).then(|| Self {
                    source: ip.source_addr().into(),
                    destination: ip.destination_addr().into(),
                    protocol: ip.protocol(),
                    header,
                    payload: total.saturating_sub(header),
                })
            }
            6 => {
                let ip = Ipv6HeaderSlice::from_slice(bytes).ok()?;
                let header = ip.slice().len();
                let payload = if ip.payload_length() == 0 {
                    length.saturating_sub(header)
                } else {
                    usize::from(ip.payload_length())
                };
                Some(Self {
                    source: ip.source_addr().into(),
                    destination: ip.destination_addr().into(),
                    protocol: ip.next_header(),
                    header,
                    payload,
                })
            }
            _ => None,
        }
    }
}

fn tcp(ip: &Ip, bytes: &[u8], gso_size: Option<u16>) -> Option<Tcp> {
    let header = TcpHeaderSlice::from_slice(bytes).ok()?;
    let (mut mss, mut tsval) = (None, None);
    // The iterator ends at the first malformed option; the options before it are used.
    for option in header.options_iterator().map_while(Result::ok) {
        match option {
            TcpOptionElement::MaximumSegmentSize(size) => mss = Some(size),
            TcpOptionElement::Timestamp(value, _) => tsval = Some(value),
            _ => {}
        }
    }
    let payload_len = ip.payload.saturating_sub(header.slice().len());
    let payload = bytes.get(header.slice().len()..).unwrap_or_default();
    let kept = payload_len.min(payload.len()).min(TCP_HEAD);
    let mut head = [0; TCP_HEAD];
    head[..kept].copy_from_slice(&payload[..kept]);
    Some(Tcp {
        source: SocketAddr::new(ip.source, header.source_port()),
        destination: SocketAddr::new(ip.destination, header.destination_port()),
        flags: Flags { syn: header.syn(), ack: header.ack(), fin: header.fin(), rst: header.rst() },
        sequence: header.sequence_number(),
        acknowledgment: header.acknowledgment_number(),
        payload_len: u32::try_from(payload_len).ok()?,
        gso_size,
        mss,
        tsval,
        head,
    })
}

fn udp(ip: &Ip, bytes: &[u8]) -> Option<Udp> {
    let header = UdpHeaderSlice::from_slice(bytes).ok()?;
    let end = ip.payload.min(bytes.len()).min(header.slice().len() + UDP_PAYLOAD);
    Some(Udp {
        source: SocketAddr::new(ip.source, header.source_port()),
        destination: SocketAddr::new(ip.destination, header.destination_port()),
        payload: bytes.get(header.slice().len()..end)?.to_vec(),
    })
}
