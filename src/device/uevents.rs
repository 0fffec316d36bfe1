//! The kernel's word that a disk has come, changed or gone: uevents over netlink.

use std::io;
use std::os::unix::net::UnixDatagram as StdDatagram;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::UnixDatagram;

/// The multicast group of the kernel itself (`man 7 netlink`, NETLINK_KOBJECT_UEVENT).
const KERNEL_GROUP: u32 = 1;

/// A socket on which the kernel reports devices.
#[derive(Debug)]
pub struct Uevents {
    /// Reading a datagram is the same for every family of sockets.
    socket: UnixDatagram,
}

impl Uevents {
    /// Begins to listen. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel or a sandbox refuses such a socket.
    pub fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::KOBJECT_UEVENT),
        )?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self { socket: UnixDatagram::from_std(StdDatagram::from(socket))? })
    }

    /// Waits for the next change of a block device. May be cancelled at any time.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn next(&self) -> io::Result<Change> {
        let mut buffer = [0u8; 8192];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) => {
                    if let Some(device_id) = changed_device(&buffer[..length]) {
                        return Ok(Change::Device(device_id));
                    }
                }
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    return Ok(Change::Unknown);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What the kernel reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The device with this number (`major << 20 | minor`) changed or went.
    Device(u32),
    /// Reports were lost.
    Unknown,
}

/// The device that a uevent is about: `remove@/devices/...\0ACTION=remove\0SUBSYSTEM=block\0...`.
/// `None` when it is no block device, or one that was only added.
fn changed_device(message: &[u8]) -> Option<u32> {
    let mut block = false;
    let (mut major, mut minor) = (None, None);
    for field in message.split(|&byte| byte == 0) {
        let field = std::str::from_utf8(field).unwrap_or("");
        match field.split_once('=') {
            Some(("SUBSYSTEM", subsystem)) => block = subsystem == "block",
            Some(("ACTION", "add")) => return None,
            Some(("MAJOR", number)) => major = number.parse::<u32>().ok(),
            Some(("MINOR", number)) => minor = number.parse::<u32>().ok(),
            _ => {}
        }
    }
    (block).then(|| Some(major? << 20 | minor?)).flatten()
}

#[cfg(test)]
mod tests {
    use super::changed_device;

    #[test]
    fn knows_block_events() {
        let remove =
            b"remove@/devices/x\0ACTION=remove\0SUBSYSTEM=block\0MAJOR=8\0MINOR=16\0SEQNUM=7\0";
        assert_eq!(changed_device(remove), Some(8 << 20 | 16));
        let add = b"add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0MAJOR=8\0MINOR=16\0";
        assert_eq!(changed_device(add), None);
        let net = b"change@/devices/x\0ACTION=change\0SUBSYSTEM=net\0MAJOR=8\0MINOR=16\0";
        assert_eq!(changed_device(net), None);
        assert_eq!(changed_device(b""), None);
    }
}
