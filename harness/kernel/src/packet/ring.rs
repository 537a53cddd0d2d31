//! The ring of slots filled by the kernel and emptied by [`super::Capture`] (TPACKET_V2).
//!
//! A ring instead of the socket's receive buffer: an ordinary user may not raise that buffer past
//! `net.core.rmem_max` (208 kB on most machines, some 250 frames), and only the bytes selected by the
//! filter are copied into a ring. Version 2 instead of 3, because version 3 passes on whole blocks and may
//! hold a frame back for some milliseconds.
//!
//! Invariant: a slot belongs to the kernel while its status is 0 and to us otherwise
//! (Documentation/networking/packet_mmap.rst); the status is the only word accessed by both sides.

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::Socket;

use crate::socket::option;

/// Memory of one ring. 8192 slots for TCP headers: what some thousand connections exchange in a burst while the
/// reader is not scheduled for some hundred milliseconds.
const BYTES: usize = 1 << 21;
/// The kernel allocates in pieces of this size.
const BLOCK: usize = 1 << 16;
/// `struct virtio_net_hdr` of include/uapi/linux/virtio_net.h precedes the link header;
/// `gso_type` is its second byte, `gso_size` an integer in native byte order at offset 4.
const VNET_HEADER: usize = 10;

/// The mapped ring.
#[derive(Debug)]
pub(super) struct Ring {
    memory: NonNull<u8>,
    slot: usize,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone and is not bound to a thread.
unsafe impl Send for Ring {}
// SAFETY: a shared reference only loads the status, which is atomic.
unsafe impl Sync for Ring {}

/// A filled slot.
pub(super) struct Slot<'a> {
    /// `CLOCK_REALTIME`, nanoseconds.
    pub realtime: u64,
    pub ifindex: u32,
    pub outgoing: bool,
    /// Set for TCP that is still to be segmented.
    pub gso_size: Option<u16>,
    /// Bytes from the network header on, as truncated by the filter.
    pub network: &'a [u8],
    /// The original length from the network header on.
    pub length: usize,
}

impl Ring {
    /// Creates a ring whose slots hold `snap` bytes from the link header on. The socket must not be bound
    /// yet: the kernel would detach it from the network meanwhile.
    pub fn map(socket: &Socket, snap: u32) -> io::Result<Self> {
        option(socket, libc::SOL_PACKET, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as i32))?;
        option(socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)?;
        // tpacket_rcv in net/packet/af_packet.c: header, address and 16 bytes for a link header,
        // aligned, then the vnet header; a longer link header shifts the network header.
        let before = (libc::TPACKET2_HDRLEN + 16).next_multiple_of(libc::TPACKET_ALIGNMENT) + VNET_HEADER;
        let slot = (before + snap as usize).next_power_of_two();
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: (BYTES / BLOCK) as u32,
            tp_frame_size: slot as u32,
            tp_frame_nr: (BYTES / slot) as u32,
        };
        option(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address chosen by the kernel; nothing else refers to it.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), BYTES, access, libc::MAP_SHARED, socket.as_raw_fd(), 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { memory, slot, next: 0 })
    }

    pub fn is_empty(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER == 0
    }

    /// Reads the next slot and returns it to the kernel; `None` if the ring is empty.
    pub fn take<T>(&mut self, read: impl FnOnce(&Slot<'_>) -> T) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let result = read(&self.filled());
        self.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = (self.next + 1) % (BYTES / self.slot);
        Some(result)
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: `next` is below the number of slots, so this stays inside the mapping.
        unsafe { self.memory.add(self.next * self.slot) }
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: a slot starts with its status, is aligned to 16 bytes and mapped as long as `self`
        // lives; both sides access that word atomically.
        unsafe { self.start().cast::<AtomicU32>().as_ref() }
    }

    /// To be called only while the slot is ours.
    fn filled(&self) -> Slot<'_> {
        // SAFETY: the status was loaded with Acquire and shows that the kernel has finished with the
        // slot and will not touch it until we store 0; the whole slot lies inside the mapping.
        let bytes = unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.slot) };
        // SAFETY: the slot starts with this header, plain integers, and is aligned for it.
        let header = unsafe { &*bytes.as_ptr().cast::<libc::tpacket2_hdr>() };
        let address_at = size_of::<libc::tpacket2_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);
        // SAFETY: the kernel writes a sockaddr_ll there, plain integers, aligned to 16 bytes.
        let address = unsafe { &*bytes[address_at..].as_ptr().cast::<libc::sockaddr_ll>() };
        let (mac, network) = (usize::from(header.tp_mac), usize::from(header.tp_net));
        let end = (mac + header.tp_snaplen as usize).min(self.slot);
        let vnet = &bytes[mac - VNET_HEADER..mac];
        let cut = vnet[1] != 0;
        Slot {
            realtime: u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec),
            ifindex: address.sll_ifindex.cast_unsigned(),
            outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
            gso_size: cut.then(|| u16::from_ne_bytes([vnet[4], vnet[5]])),
            network: bytes.get(network..end).unwrap_or_default(),
            length: (header.tp_len as usize).saturating_sub(network - mac),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length and nothing borrows from it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), BYTES) };
    }
}
