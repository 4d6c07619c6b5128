#![allow(unsafe_code)]
//! Unsafe code: system calls through `libc`, and conversions of descriptors.

use libc::{c_int, c_short, c_ulong};
use netlink_sys::{Socket, TokioSocket};
use pasta_ipc::types::{IfName, MacAddr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Takes ownership of the descriptors numbered 3 and 4, which the launcher gave us. The first call
/// only; later ones get `None`, as does a process that was started without them.
pub fn inherited_channels() -> Option<(OwnedFd, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // SAFETY: `fcntl` with `F_GETFD` reads the descriptor's flags and touches no memory of ours; on a
    // number that is not open it fails.
    let open = |fd: RawFd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
    if TAKEN.swap(true, Ordering::Relaxed) || !open(3) || !open(4) {
        return None;
    }
    // SAFETY: both are open, were open before this process's first instruction, and nothing else in
    // this program takes descriptors by number; the flag above lets this line be reached once.
    let own = |fd: RawFd| unsafe { OwnedFd::from_raw_fd(fd) };
    Some((own(3), own(4)))
}

/// Hands a netlink socket to the runtime. Must be called inside it.
pub fn netlink_socket(socket: OwnedFd) -> TokioSocket {
    // SAFETY: the descriptor was owned by `socket`, which gives it up here; the new value is its only
    // owner from then on.
    unsafe { TokioSocket::from_raw_fd(socket.into_raw_fd()) }
}

/// A netlink socket as the library that knows its options has it.
pub fn plain_netlink_socket(socket: OwnedFd) -> Socket {
    // SAFETY: as in `netlink_socket`.
    unsafe { Socket::from_raw_fd(socket.into_raw_fd()) }
}

/// The descriptor of a netlink socket.
pub fn owned(socket: Socket) -> OwnedFd {
    // SAFETY: `socket` owned the descriptor and gives it up here; the new value is its only owner from
    // then on.
    unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) }
}

/// Lets the runtime say when `fd` can be read or written. Must be called inside it.
///
/// # Errors
///
/// What `epoll_ctl(2)` reports.
pub fn watch(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    // SAFETY: a borrowed descriptor is open for as long as the borrow lasts, which the result carries
    // in its type, so it cannot outlive it; and it always gives the same number.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    watched.map_err(|error| error.into_parts().1)
}

/// As [`watch`], for reading only, of a descriptor that is given away.
///
/// # Errors
///
/// As [`watch`].
pub fn watch_owned(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open for as long as its owner lives, which the result takes over
    // and gives up only after it has deregistered it; and it always gives the same number.
    let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}

/// Lets the kernel queue only those datagrams for `socket` that `program` lets through
/// (`SO_ATTACH_FILTER`, see socket(7) and Documentation/networking/filter.rst), in the place of a
/// program that was there before.
///
/// # Errors
///
/// `EINVAL` if the kernel does not take the program; `ENOMEM` if it is too long.
pub fn attach_filter(socket: impl AsFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| invalid())?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let (fd, value) = (socket.as_fd().as_raw_fd(), (&raw const program).cast());
    let size = libc::socklen_t::try_from(size_of_val(&program)).map_err(|_| invalid())?;
    // SAFETY: the kernel reads a `struct sock_fprog` at `value`, which is exactly that, and then `len`
    // instructions where it points: the slice, borrowed for the call. It copies them, writes to
    // neither and keeps no pointer. `fd` stays open for as long as `socket` is borrowed.
    let rc = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, size) };
    check(rc)
}

/// Makes a tap, or attaches to a persistent one that is there (`TUNSETIFF`, see
/// Documentation/networking/tuntap.rst). Returns the name it has.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` over the namespace; `EBUSY` or `EINVAL` if the name is taken.
pub fn make_tap(tun: impl AsFd, name: &IfName, flags: c_int) -> io::Result<String> {
    let mut request = named(name.as_str());
    request.ifr_ifru.ifru_flags = c_short::try_from(flags).map_err(|_| invalid())?;
    interface_ioctl(tun, libc::TUNSETIFF, &mut request)?;
    Ok(name_of(&request))
}

/// Sets the size of the virtio-net header in octets (`TUNSETVNETHDRSZ`).
///
/// # Errors
///
/// `EINVAL` if it is less than the header needs.
pub fn set_vnet_header_size(tap: impl AsFd, size: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one `int` at the pointer, which `size` is; it lives until we return and
    // no pointer is kept. `tap` stays open for as long as it is borrowed.
    let rc =
        unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) };
    check(rc)
}

/// Says which offloads the other end of a tap can take (`TUNSETOFFLOAD`, `TUN_F_*`).
///
/// # Errors
///
/// `EINVAL` if the kernel does not know one of them.
pub fn set_offloads(tap: impl AsFd, offloads: libc::c_uint) -> io::Result<()> {
    // SAFETY: the argument of this request is a number and no pointer; no memory is touched.
    let rc = unsafe {
        libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(offloads))
    };
    check(rc)
}

/// The link-layer address of a link. `socket` is any socket in its namespace.
///
/// # Errors
///
/// `ENODEV` if there is no such link; `InvalidData` if its address is not a unicast MAC address.
pub fn mac(socket: impl AsFd, name: &str) -> io::Result<MacAddr> {
    let mut request = named(name);
    interface_ioctl(socket, libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: the kernel has filled in this member of the union; each of its octets is a plain number
    // whatever was written.
    let [a, b, c, d, e, f, ..] = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
    let octets = [a, b, c, d, e, f].map(|octet| octet.to_ne_bytes()[0]);
    MacAddr::try_from(octets).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Sets the link-layer address of an Ethernet link. `socket` is any socket in its namespace.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN` over the namespace; `ENODEV` if there is no such link.
pub fn set_mac(socket: impl AsFd, name: &str, mac: MacAddr) -> io::Result<()> {
    let mut request = named(name);
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().zip(mac.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let family = libc::ARPHRD_ETHER;
    request.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: family, sa_data: data };
    interface_ioctl(socket, libc::SIOCSIFHWADDR, &mut request)
}

/// Brings a link up and changes none of its other flags. `socket` is any socket in its namespace.
///
/// # Errors
///
/// As [`set_mac`].
pub fn bring_up(socket: impl AsFd, name: &str) -> io::Result<()> {
    let mut request = named(name);
    interface_ioctl(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the kernel has filled in this member of the union, a plain number.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let up = c_short::try_from(libc::IFF_UP).map_err(|_| invalid())?;
    request.ifr_ifru.ifru_flags = flags | up;
    interface_ioctl(&socket, libc::SIOCSIFFLAGS, &mut request)
}

/// A request about the link `name`, which is cut to the size of a name.
fn named(name: &str) -> libc::ifreq {
    // SAFETY: the structure consists of integers, arrays of them, and a pointer in a member that
    // nothing here reads; all zero is a valid value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One less than there is room for, so that the name ends in a zero.
    let octets = name.bytes().take(libc::IFNAMSIZ - 1);
    for (to, from) in request.ifr_name.iter_mut().zip(octets) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn name_of(request: &libc::ifreq) -> String {
    let octets: Vec<u8> = request
        .ifr_name
        .iter()
        .map(|octet| octet.to_ne_bytes()[0])
        .take_while(|octet| *octet != 0)
        .collect();
    String::from_utf8_lossy(&octets).into_owned()
}

/// One ioctl whose argument is a `struct ifreq`.
fn interface_ioctl(fd: impl AsFd, code: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: every request code that this file passes takes a pointer to one `struct ifreq`, which
    // the kernel reads and may overwrite; `request` is exactly that, borrowed for the call, and no
    // pointer is kept. `fd` stays open for as long as it is borrowed.
    let rc = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), code, &raw mut *request) };
    check(rc)
}

fn check(rc: c_int) -> io::Result<()> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}
