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

    /// Waits until a block device was added, changed or removed. May be cancelled at any time.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn disks_changed(&self) -> io::Result<()> {
        let mut buffer = [0u8; 8192];
        loop {
            match self.socket.recv(&mut buffer).await {
                Ok(length) if is_block_event(&buffer[..length]) => return Ok(()),
                Ok(_) => {}
                // Events were lost: some may have been of disks.
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// `remove@/devices/...\0ACTION=remove\0SUBSYSTEM=block\0...`
fn is_block_event(message: &[u8]) -> bool {
    message.split(|&byte| byte == 0).any(|field| field == b"SUBSYSTEM=block")
}

#[cfg(test)]
mod tests {
    use super::is_block_event;

    #[test]
    fn knows_block_events() {
        assert!(is_block_event(b"remove@/devices/x\0ACTION=remove\0SUBSYSTEM=block\0SEQNUM=7\0"));
        assert!(!is_block_event(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=net\0"));
        assert!(!is_block_event(b""));
    }
}
