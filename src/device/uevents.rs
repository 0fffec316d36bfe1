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
                    if let Some(change) = change_in(&buffer[..length]) {
                        return Ok(change);
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

/// What the kernel reported. Numbers are `major << 20 | minor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A device came, with this number and kernel name.
    Came(u32, String),
    /// The device with this number changed.
    Changed(u32),
    /// The device with this number and kernel name went.
    Gone(u32, String),
    /// Reports were lost.
    Unknown,
}

/// What a uevent says: `remove@/devices/.../block/sda\0ACTION=remove\0SUBSYSTEM=block\0...`. `None` when it is about
/// no block device.
fn change_in(message: &[u8]) -> Option<Change> {
    let (mut action, mut path, mut subsystem) = ("", "", "");
    let (mut major, mut minor) = (None, None);
    for field in message.split(|&byte| byte == 0) {
        let field = std::str::from_utf8(field).unwrap_or("");
        match field.split_once('=') {
            Some(("ACTION", value)) => action = value,
            Some(("DEVPATH", value)) => path = value,
            Some(("SUBSYSTEM", value)) => subsystem = value,
            Some(("MAJOR", number)) => major = number.parse::<u32>().ok(),
            Some(("MINOR", number)) => minor = number.parse::<u32>().ok(),
            _ => {}
        }
    }
    let device_id = major? << 20 | minor?;
    if subsystem != "block" {
        return None;
    }
    // The kernel puts '!' for '/' into a path (kobject_set_name_vargs).
    let name = || path.rsplit('/').next().unwrap_or_default().replace('!', "/");
    Some(match action {
        "add" => Change::Came(device_id, name()),
        "remove" => Change::Gone(device_id, name()),
        _ => Change::Changed(device_id),
    })
}

#[cfg(test)]
mod tests {
    use super::{Change, change_in};

    #[test]
    fn knows_block_events() {
        let remove = b"remove@/devices/x/block/cciss!c0d0\0ACTION=remove\0DEVPATH=/devices/x/block/cciss!c0d0\0\
            SUBSYSTEM=block\0MAJOR=8\0MINOR=16\0SEQNUM=7\0";
        assert_eq!(change_in(remove), Some(Change::Gone(8 << 20 | 16, "cciss/c0d0".into())));
        let change = b"change@/devices/x\0ACTION=change\0SUBSYSTEM=block\0MAJOR=8\0MINOR=16\0";
        assert_eq!(change_in(change), Some(Change::Changed(8 << 20 | 16)));
        let add = b"add@/devices/x/sdb\0ACTION=add\0DEVPATH=/devices/x/sdb\0SUBSYSTEM=block\0MAJOR=8\0MINOR=16\0";
        assert_eq!(change_in(add), Some(Change::Came(8 << 20 | 16, "sdb".into())));
        let net = b"change@/devices/x\0ACTION=change\0SUBSYSTEM=net\0MAJOR=8\0MINOR=16\0";
        assert_eq!(change_in(net), None);
        assert_eq!(change_in(b""), None);
    }
}
