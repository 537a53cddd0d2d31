//! Flows, segments, sockets, DNS answers and exchanges.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use super::{change, parse};
use crate::signal::{
    Direction, Dns, End, Exchange, Flow, Observed, Protocol, Segment, Socket, TcpFlags, TcpState, Tuple,
};

pub(super) fn read(words: &[&str]) -> Option<Observed> {
    Some(match *words {
        // A flow with a translated source, and whether it was replied to.
        ["flow", original, translated, server, ref replied @ ..] => {
            let (change, original) = change(original);
            let [original, translated, server] = [original, translated, server].map(parse::<SocketAddr>);
            Flow {
                change,
                protocol: Protocol::Tcp,
                original: Tuple { source: original, destination: server },
                reply: Tuple { source: server, destination: translated },
                replied: !replied.is_empty(),
            }
            .into()
        }
        // A SYN with its sequence number and timestamp, and the answer to a SYN with this sequence number.
        ["syn", link, source, destination, sequence, timestamp] => {
            segment(link, Direction::Out, [source, destination], "S", [parse(sequence), 0], timestamp).into()
        }
        ["syn-ack", link, source, destination, sequence] => {
            let numbers = [77_000, parse::<u32>(sequence).wrapping_add(1)];
            segment(link, Direction::In, [source, destination], "SA", numbers, "5").into()
        }
        [way @ ("out" | "in"), link, source, destination, flags, sequence, acknowledged, timestamp] => {
            let direction = if way == "out" { Direction::Out } else { Direction::In };
            let numbers = [parse(sequence), parse(acknowledged)];
            segment(link, direction, [source, destination], flags, numbers, timestamp).into()
        }
        ["office", client, ref what @ ..] => office(client, what),
        // A resolver's answer for a name: time to live, addresses of one IP version; NXDOMAIN without addresses.
        ["answer", server, name, ttl, ref addresses @ ..] => {
            static NEXT: AtomicU16 = AtomicU16::new(1);
            let ipv6 = addresses.first().is_some_and(|address| address.contains(':'));
            let response = if addresses.is_empty() { "NXDOMAIN" } else { "NOERROR" };
            Dns {
                client: parse("10.176.98.2:40000"),
                server: SocketAddr::new(parse(server), 53),
                id: NEXT.fetch_add(1, Ordering::Relaxed),
                name: format!("{name}."),
                record: if ipv6 { "AAAA" } else { "A" }.into(),
                response: Some(response.into()),
                answers: addresses.iter().copied().map(parse).collect(),
                ttl: Some(parse(ttl)),
            }
            .into()
        }
        // A request and how long the answer took, acknowledged after 40 ms where that was sooner; times in milliseconds.
        ["exchange", client, server, took, ref more @ ..] => exchange(client, server, parse(took), more).into(),
        _ => return None,
    })
}

/// Flags: "S" for a SYN, "SA", "A", "FA", "R".
fn segment(
    link: &str,
    direction: Direction,
    ends: [&str; 2],
    flags: &str,
    [sequence, acknowledgment]: [u32; 2],
    timestamp: &str,
) -> Segment {
    let has = |flag| flags.contains(flag);
    Segment {
        link: link.into(),
        direction,
        source: parse(ends[0]),
        destination: parse(ends[1]),
        flags: TcpFlags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') },
        sequence,
        acknowledgment,
        payload: 0,
        mss: has('S').then_some(1460),
        timestamp: Some(parse(timestamp)),
    }
}

fn exchange(client: &str, server: &str, took: u64, more: &[&str]) -> Exchange {
    let mut exchange = Exchange {
        client: parse(client),
        server: parse(server),
        seen_at: End::Client,
        request: 120,
        took_us: took * 1000,
        answered: true,
        acked_us: (took > 40).then_some(40_000),
        waited_us: 0,
        connect_us: None,
        sent_again: false,
        after_greeting: false,
        status: None,
    };
    for word in more {
        let us = |number| parse::<u64>(number) * 1000;
        match word.split_once('=') {
            Some(("acked", ms)) => exchange.acked_us = Some(us(ms)),
            Some(("waited", ms)) => exchange.waited_us = us(ms),
            Some(("status", status)) => exchange.status = Some(parse(status)),
            Some(("connect", ms)) => exchange.connect_us = Some(us(ms)),
            None if *word == "at-server" => exchange.seen_at = End::Server,
            None if *word == "outstanding" => exchange.answered = false,
            None if *word == "unacked" => exchange.acked_us = None,
            None if *word == "again" => exchange.sent_again = true,
            None if *word == "greeted" => exchange.after_greeting = true,
            _ => panic!("unknown word of an exchange: {word}"),
        }
    }
    exchange
}

/// A connection from an office client to the ingress pod. Bytes sent by the pod count from 1.
fn office(client: &str, what: &[&str]) -> Observed {
    const POD: &str = "10.176.98.10:80";
    let sequence = |byte: u32| (u32::MAX - 5_000).wrapping_add(byte);
    let back = |flags, byte| segment("eth1", Direction::In, [client, POD], flags, [500, sequence(byte)], "9");
    match *what {
        ["syn", mss] => Segment { mss: Some(parse(mss)), ..back("S", 0) }.into(),
        // The pod's SYN-ACK.
        ["accepts", mss] => {
            let forth = segment("eth1", Direction::Out, [POD, client], "SA", [sequence(0), 501], "9");
            Segment { mss: Some(parse(mss)), ..forth }.into()
        }
        // Acknowledges the SYN-ACK, a small packet.
        ["request"] => Segment { payload: 120, ..back("A", 1) }.into(),
        ["data", from, payload] => {
            let forth = segment("eth1", Direction::Out, [POD, client], "A", [sequence(parse(from)), 501], "9");
            Segment { payload: parse(payload), ..forth }.into()
        }
        ["acked", up_to] => back("A", parse(up_to)).into(),
        ["socket", send_mss, bytes_acked, send_queue, retransmits] => {
            let (send_queue, retransmits) = (parse(send_queue), parse::<u8>(retransmits));
            Socket {
                pod: Some("ingress".into()),
                local: parse(POD),
                remote: parse(client),
                state: TcpState::Established,
                retransmits,
                total_retransmits: retransmits.into(),
                unacked: u32::from(send_queue > 0),
                rto_us: 200_000 << retransmits.min(6),
                rtt_us: 400,
                send_mss: parse(send_mss),
                bytes_acked: parse(bytes_acked),
                bytes_received: 120,
                send_queue,
            }
            .into()
        }
        _ => panic!("unknown step of an office client: {what:?}"),
    }
}
