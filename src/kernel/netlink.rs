//! Blocking requests on a netlink socket: one message in; an acknowledgement, one answer, or a dump out. Most are for
//! `NETLINK_ROUTE`; [`netdev`](super::netdev) asks generic netlink.
//!
//! A socket belongs to the network namespace of the thread that opened it, for good. Nothing here reads
//! `/sys/class/net`: that shows the namespace in which sysfs was mounted, not the one the process is in.
//!
//! Source: [Netlink introduction](https://docs.kernel.org/userspace-api/netlink/intro.html), netlink(7).

#![forbid(unsafe_code)]

use std::io;
use std::marker::PhantomData;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// The kernel builds dump messages of at most 32 KiB, and single answers (a link with many virtual functions) rarely
/// come near that; twice the size leaves room. A longer message is an error, not a silent cut.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;

/// How often a dump is repeated when the table changed under it. A table that changes faster than it can be read
/// five times over is told to the caller.
const DUMP_ATTEMPTS: u32 = 5;

/// Messages in one datagram start at multiples of four bytes (`NLMSG_ALIGNTO`).
const MESSAGE_ALIGN_BYTES: usize = 4;

/// A socket to ask the kernel with, in messages `M`.
pub(crate) struct Netlink<M = RouteNetlinkMessage> {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    messages: PhantomData<M>,
}

impl Netlink {
    /// Opens a `NETLINK_ROUTE` socket in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        Self::open_protocol(NETLINK_ROUTE)
    }
}

impl<M> Netlink<M>
where
    M: NetlinkSerializable + NetlinkDeserializable + Clone + std::fmt::Debug,
{
    /// Opens a socket of another protocol in the network namespace of the calling thread.
    pub(crate) fn open_protocol(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER_BYTES),
            messages: PhantomData,
        })
    }

    /// Sends a request that changes something and waits for the acknowledgement. `flags` are added to
    /// `NLM_F_REQUEST | NLM_F_ACK`.
    pub(crate) fn request(&mut self, message: M, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        loop {
            for received in self.receive()? {
                if let NetlinkPayload::Error(error) = received?.payload {
                    return match error.code {
                        None => Ok(()),
                        Some(_) => Err(error.to_io()),
                    };
                }
            }
        }
    }

    /// Asks for one object.
    pub(crate) fn get(&mut self, message: M) -> io::Result<M> {
        self.send(message, NLM_F_REQUEST)?;
        loop {
            for received in self.receive()? {
                match received?.payload {
                    NetlinkPayload::InnerMessage(answer) => return Ok(answer),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    /// Asks for a whole table. A message that this build cannot decode (a newer kernel, an unusual driver) is
    /// logged and left out, so that it does not hide the others.
    pub(crate) fn dump(&mut self, message: M) -> io::Result<Vec<M>> {
        for _ in 0..DUMP_ATTEMPTS {
            self.send(message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            if let Some(complete) = self.receive_dump()? {
                return Ok(complete);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            format!("the table changed during each of {DUMP_ATTEMPTS} dumps"),
        ))
    }

    /// `None`: the table changed while it was read, so entries may be missing or doubled.
    fn receive_dump(&mut self) -> io::Result<Option<Vec<M>>> {
        let mut entries = Vec::new();
        let mut interrupted = false;
        loop {
            for received in self.receive()? {
                let message = match received {
                    Ok(message) => message,
                    Err(error) => {
                        tracing::warn!("netlink: an entry of a dump was left out: {error}");
                        continue;
                    }
                };
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(entry) => entries.push(entry),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok((!interrupted).then_some(entries)),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, message: M, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        packet.header.flags = flags;
        packet.header.sequence_number = self.sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    /// The messages of the next datagram that answer the last request.
    fn receive(&mut self) -> io::Result<Vec<io::Result<NetlinkMessage<M>>>> {
        receive_datagram(&self.socket, &mut self.buffer)?;
        Ok(messages(&self.buffer, Some(self.sequence)))
    }
}

/// Receives one datagram into `buffer`, in place of what it held.
pub(crate) fn receive_datagram(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        buffer.clear();
        buffer.reserve(RECEIVE_BUFFER_BYTES);
        match socket.recv(buffer, libc::MSG_TRUNC) {
            Ok(length) if length > buffer.len() => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "a netlink message of {length} bytes is longer than the buffer of {}",
                        buffer.len()
                    ),
                ));
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Splits a datagram into its messages. With `sequence`, messages that answer another request are left out.
pub(crate) fn messages<M: NetlinkDeserializable>(
    datagram: &[u8],
    sequence: Option<u32>,
) -> Vec<io::Result<NetlinkMessage<M>>> {
    let mut found = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let header = match NetlinkBuffer::new_checked(rest) {
            Ok(header) => header,
            Err(error) => {
                found.push(Err(undecodable(&error)));
                break;
            }
        };
        let length = header.length() as usize;
        if sequence.is_none_or(|wanted| wanted == header.sequence_number()) {
            found.push(NetlinkMessage::deserialize(&rest[..length]).map_err(|error| undecodable(&error)));
        }
        rest = rest.get(length.next_multiple_of(MESSAGE_ALIGN_BYTES)..).unwrap_or_default();
    }
    found
}

fn undecodable(error: &netlink_packet_core::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::LinkMessage;

    use super::*;

    fn link_bytes(index: u32, sequence: u32) -> Vec<u8> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        let mut packet = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link));
        packet.header.sequence_number = sequence;
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        bytes
    }

    fn indices(found: Vec<io::Result<NetlinkMessage<RouteNetlinkMessage>>>) -> Vec<Option<u32>> {
        found
            .into_iter()
            .map(|message| match message.map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link))) => {
                    Some(link.header.index)
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn datagram_is_split_into_its_messages() {
        let datagram = [link_bytes(1, 7), link_bytes(2, 7), link_bytes(3, 7)].concat();
        assert_eq!(indices(messages(&datagram, None)), [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn answers_to_an_earlier_request_are_left_out() {
        let datagram = [link_bytes(1, 6), link_bytes(2, 7)].concat();
        assert_eq!(indices(messages(&datagram, Some(7))), [Some(2)]);
    }

    #[test]
    fn cut_message_is_an_error_after_the_whole_ones() {
        let mut datagram = [link_bytes(1, 7), link_bytes(2, 7)].concat();
        datagram.truncate(datagram.len() - 3);
        assert_eq!(indices(messages(&datagram, None)), [Some(1), None]);
    }

    #[test]
    fn message_length_of_zero_does_not_loop() {
        assert_eq!(indices(messages(&[0; 32], None)), [None]);
    }

    #[test]
    fn unknown_message_does_not_hide_the_next() {
        let mut unknown = link_bytes(1, 7);
        unknown[4..6].copy_from_slice(&0x7fffu16.to_ne_bytes());
        let datagram = [unknown, link_bytes(2, 7)].concat();
        let found = indices(messages(&datagram, None));
        assert_eq!(found.last(), Some(&Some(2)), "{found:?}");
    }
}
