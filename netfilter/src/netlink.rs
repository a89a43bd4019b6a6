//! The part of netlink that this crate needs: encoding of requests, a blocking socket, decoding of
//! replies.
//!
//! Three families are used (routes, connection tracking, the generation of nftables), with about a
//! dozen messages in all. A codec of our own can send several requests in one system call, works on
//! a socket that was opened in another network namespace, and accepts an attribute that a newer
//! kernel has added to a dump.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
    netlink::{self, SocketAddrNetlink},
    recv, sendto, socket_with, sockopt,
};

/// The kernel replies within the system call that sends the request, unless it waits for a lock; a
/// longer wait is an error.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// The kernel cuts dumps into datagrams of at most 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// A dump is given up after changes have interrupted it this often.
const DUMP_ATTEMPTS: usize = 10;
const HEADER: usize = 16;
/// `NETLINK_ROUTE` is protocol 0, which rustix expresses as the default protocol.
const ROUTE: Option<Protocol> = None;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_DUMP: u16 = 0x300;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;

/// Fails if the object exists.
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// Flags of a request that creates an object and fails if the object exists.
pub(crate) const NEW: u16 = CREATE | EXCLUSIVE;
/// Creates the object if it does not exist.
pub(crate) const CREATE: u16 = 0x400;
/// Creates the object, or replaces it by the one in the request.
pub(crate) const REPLACE: u16 = CREATE | 0x100;

/// Flag of an attribute that contains attributes.
const NESTED: u16 = 0x8000;

/// One netlink request, with its header.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of this message type, with the fixed header of its family.
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | FLAG_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(header);
        Self { bytes }.padded()
    }

    /// Adds an attribute, padded to a multiple of four bytes.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes
            .extend_from_slice(&attribute_header(kind, value.len()));
        self.bytes.extend_from_slice(value);
        self.padded()
    }

    /// Adds a text attribute, terminated by a zero byte.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds a nested attribute: `header`, and after it the attributes that `fill` adds.
    pub(crate) fn nested(
        mut self,
        kind: u16,
        header: &[u8],
        fill: impl FnOnce(Self) -> Self,
    ) -> Self {
        let start = self.bytes.len();
        self.bytes
            .extend_from_slice(&attribute_header(kind | NESTED, header.len()));
        self.bytes.extend_from_slice(header);
        let mut filled = fill(self.padded());
        let length = filled.bytes.len() - start;
        filled.bytes[start..start + 2].copy_from_slice(&short(length).to_ne_bytes());
        filled
    }

    fn padded(mut self) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn add_flags(&mut self, flags: u16) {
        let now = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]);
        self.bytes[6..8].copy_from_slice(&(now | flags).to_ne_bytes());
    }

    /// Writes the length and the sequence number into the netlink header.
    fn finish(&mut self, sequence: u32) {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }
}

fn attribute_header(kind: u16, value: usize) -> [u8; 4] {
    let [a, b] = short(value + 4).to_ne_bytes();
    let [c, d] = kind.to_ne_bytes();
    [a, b, c, d]
}

fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// One reply or notification: its message type, and the payload behind the netlink header.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// The attributes in a run of bytes, with the flag bits of their types cleared. Stops at the first
/// attribute that does not fit.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

/// The payload of the first attribute of this type; `None` if there is none.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// An unsigned number of four bytes in native byte order.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// An IPv4 address of four bytes in network byte order.
pub(crate) fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes
        .first_chunk::<4>()
        .map(|octets| Ipv4Addr::from(*octets))
}

/// A blocking netlink socket. It acts on the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// A socket for links, addresses, routes and neighbours.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(ROUTE, 0)
    }

    /// A socket for connection tracking and nftables.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER), 0)
    }

    /// A non-blocking socket that receives the notifications of these route groups (a bit set).
    pub(crate) fn route_events(groups: u32) -> io::Result<OwnedFd> {
        Self::events(ROUTE, groups)
    }

    /// A non-blocking socket that receives the notifications of these netfilter groups (a bit set).
    pub(crate) fn netfilter_events(groups: u32) -> io::Result<OwnedFd> {
        Self::events(Some(netlink::NETFILTER), groups)
    }

    fn events(family: Option<Protocol>, groups: u32) -> io::Result<OwnedFd> {
        let socket = Self::open(family, groups)?;
        rustix::io::ioctl_fionbio(&socket.fd, true)?;
        Ok(socket.fd)
    }

    fn open(family: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            family,
        )?;
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_DEADLINE))?;
        Ok(Self { fd })
    }

    /// Sends one request and waits for its acknowledgement.
    pub(crate) fn request(&self, message: Message) -> io::Result<()> {
        self.requests(vec![message])
    }

    /// Sends several requests in one system call. The kernel executes all of them; the first error
    /// is returned.
    pub(crate) fn requests(&self, messages: Vec<Message>) -> io::Result<()> {
        let wanted = messages.len();
        let mut bytes = Vec::new();
        for (sequence, mut message) in (1..).zip(messages) {
            message.add_flags(FLAG_ACK);
            message.finish(sequence);
            bytes.extend_from_slice(&message.bytes);
        }
        self.send(&bytes)?;

        // Every message is answered by an error message of its own, which has the number 0 for
        // success.
        let mut result = Ok(());
        let mut answered = 0;
        while answered < wanted {
            for (kind, _, body) in datagram(&self.receive()?) {
                if kind == NLMSG_ERROR {
                    answered += 1;
                    result = result.and(status(body));
                }
            }
        }
        result
    }

    /// Requests one object; the answer is the object, or the error.
    pub(crate) fn get(&self, mut message: Message) -> io::Result<Answer> {
        message.finish(1);
        self.send(&message.bytes)?;
        let received = self.receive()?;
        let (kind, _, body) = datagram(&received)
            .next()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        if kind == NLMSG_ERROR {
            status(body)?;
        }
        Ok(Answer {
            kind,
            body: body.to_vec(),
        })
    }

    /// Requests all objects. A dump that a change interrupts is requested again.
    pub(crate) fn dump(&self, message: impl Fn() -> Message) -> io::Result<Vec<Answer>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut message = message();
            message.add_flags(FLAG_DUMP);
            message.finish(1);
            self.send(&message.bytes)?;
            if let Some(answers) = self.dumped()? {
                return Ok(answers);
            }
        }
        Err(io::Error::from(io::ErrorKind::Interrupted))
    }

    /// Receives a dump to its end; `None` if a change interrupted it.
    fn dumped(&self) -> io::Result<Option<Vec<Answer>>> {
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            for (kind, flags, body) in datagram(&self.receive()?) {
                // Any of the messages may carry the flag, and the dump goes on to its end.
                interrupted |= flags & FLAG_DUMP_INTERRUPTED != 0;
                match kind {
                    NLMSG_DONE if interrupted => return Ok(None),
                    NLMSG_DONE => return Ok(Some(answers)),
                    NLMSG_ERROR => status(body)?,
                    _ => answers.push(Answer {
                        kind,
                        body: body.to_vec(),
                    }),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sendto(
            &self.fd,
            bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        receive(self.fd.as_fd())
    }
}

/// Receives one datagram, which may hold several messages.
pub(crate) fn receive(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let (_, length) = recv(fd, &mut buffer[..], RecvFlags::empty())?;
    buffer.truncate(length);
    Ok(buffer)
}

/// The messages of one datagram: message type, flags, and payload behind the netlink header.
pub(crate) fn datagram(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(bytes)?).ok()?;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let flags = u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?);
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, flags, body))
    })
}

/// The error in an error message; error number zero is an acknowledgement.
fn status(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|code| i32::from_ne_bytes(*code)) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn a_message_is_decoded_as_it_was_encoded() {
        let mut message =
            Message::new(16, CREATE, &[7; 5])
                .text(3, "wdl1")
                .nested(18, &[], |inner| inner.attribute(1, &9_u32.to_ne_bytes()));
        message.finish(4);
        let (kind, flags, body) = datagram(&message.bytes).next().unwrap();
        assert_eq!((kind, flags), (16, CREATE | FLAG_REQUEST));
        let decoded: Vec<_> = attributes(&body[8..]).collect();
        assert_eq!(decoded[0], (3, &b"wdl1\0"[..]));
        assert_eq!(decoded[1].0, 18);
        assert_eq!(attribute(decoded[1].1, 1).and_then(number), Some(9));
    }

    #[test]
    fn a_truncated_message_is_not_decoded() {
        assert_eq!(datagram(&[40, 0, 0, 0, 1, 0, 0, 0]).count(), 0);
        assert_eq!(attributes(&[9, 0, 1, 0, 5]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0]).count(), 0);
    }
}
