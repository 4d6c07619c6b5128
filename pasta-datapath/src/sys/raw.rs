//! System calls that no dependency wraps, or wraps with an allocation per call.

use crate::sys::send_buffer::SendBuffer;
use libc::{c_int, socklen_t};
use std::cell::RefCell;
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

fn check(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Has the kernel report a limit on file sizes as an error instead of ending the process (`SIGXFSZ`,
/// setrlimit(2)).
///
/// # Errors
///
/// As signal(2).
pub fn ignore_file_size_signal() -> Result<(), nix::errno::Errno> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no handler is installed, so there is no code whose safety is in question.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.map(drop)
}

pub(super) fn set_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    let len = size_of::<c_int>() as socklen_t;
    let pointer = (&raw const value).cast();
    // SAFETY: the kernel reads `len` octets at `pointer`, which is `value`: exactly that long, and
    // alive until we return. It keeps no pointer. The descriptor is borrowed, hence open.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, len) };
    check(result as libc::ssize_t).map(drop)
}

/// Takes its peer from a connected socket of datagrams (`AF_UNSPEC`, connect(2)).
///
/// # Errors
///
/// As connect(2).
pub fn unconnect(socket: BorrowedFd<'_>) -> Result<(), nix::errno::Errno> {
    let none = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
    let len = size_of::<libc::sockaddr>() as socklen_t;
    // SAFETY: the kernel reads `len` octets of `none`, which has that many and is alive until we return. It keeps no
    // pointer. The descriptor is borrowed, hence open.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const none, len) };
    nix::errno::Errno::result(result).map(drop)
}

/// Makes `MSG_PEEK` reads on `socket` start `offset` octets into its queue and move along as they
/// read (`SO_PEEK_OFF`, see socket(7)); reading without it moves the offset back.
///
/// # Errors
///
/// `EOPNOTSUPP` where the kernel has no peek offset for this kind of socket (TCP: before Linux 6.9).
pub fn set_peek_offset(socket: impl AsFd, offset: u32) -> io::Result<()> {
    let offset = c_int::try_from(offset).unwrap_or(c_int::MAX);
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)
}

/// Makes the send buffer of a TCP socket `size` octets of kernel memory large, or twice `net.core.wmem_max`
/// where that is less. The kernel goes on making it larger as it sees fit.
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 5.14: a size that was set is the last one there (`SO_BUF_LOCK`,
/// `sk_setsockopt()` in `net/core/sock.c`), so that nothing was set.
pub fn set_send_buffer(socket: impl AsFd, size: u32) -> io::Result<()> {
    let unlock = || set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_BUF_LOCK, 0);
    unlock()?;
    // The kernel takes twice what is asked for.
    let half = c_int::try_from(size / 2).unwrap_or(c_int::MAX);
    set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, half)?;
    unlock()
}

/// Lets a TCP socket take as much as its send buffer holds, however much of that has yet to be sent: what
/// we advertise is what the buffer has room for (`TCP_NOTSENT_LOWAT`, tcp(7); else the host's
/// `net.ipv4.tcp_notsent_lowat` counts). Those that a listening socket accepts have it from there.
///
/// # Errors
///
/// As setsockopt(2); none is known for a TCP socket.
pub fn fill_send_buffer(socket: impl AsFd) -> io::Result<()> {
    set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, c_int::MAX)
}

/// Lets UDP reads return several datagrams of one flow at once (`UDP_GRO`, see udp(7)).
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 5.0.
pub fn set_udp_gro(socket: impl AsFd) -> io::Result<()> {
    set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Takes a connection off a listening socket, with the peer's address; it neither blocks nor survives
/// exec (accept4(2)).
///
/// # Errors
///
/// As accept4(2), `EAGAIN` if nothing waits; `EAFNOSUPPORT` for a peer that is not of IP.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, SocketAddr)> {
    // SAFETY: an all-zero sockaddr_storage is a valid one (of family AF_UNSPEC).
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as socklen_t;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let fd = listener.as_fd().as_raw_fd();
    let pointer = (&raw mut storage).cast();
    // SAFETY: the kernel writes at most `len` octets to `storage`, which is that long, and the length
    // to `len`; both live until we return and nobody else sees them.
    let accepted = unsafe { libc::accept4(fd, pointer, &raw mut len, flags) };
    check(accepted as libc::ssize_t)?;
    // SAFETY: accept4 has just made the descriptor, and nothing else owns it.
    let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
    socket_address(&storage)
        .map(|peer| (accepted, peer))
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// The address that a socket is bound to (getsockname(2)).
///
/// # Errors
///
/// As getsockname(2); `EAFNOSUPPORT` where it is not of IP.
pub fn local_address(socket: impl AsFd) -> io::Result<SocketAddr> {
    // SAFETY: an all-zero sockaddr_storage is a valid one (of family AF_UNSPEC).
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as socklen_t;
    let (fd, pointer) = (socket.as_fd().as_raw_fd(), (&raw mut storage).cast());
    // SAFETY: as for accept(): `storage` is `len` octets long and ours alone until we return.
    check(unsafe { libc::getsockname(fd, pointer, &raw mut len) } as libc::ssize_t)?;
    socket_address(&storage).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// What the kernel wrote as an IP socket address; none for other families.
fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in was written, and a sockaddr_storage is
            // larger than one and aligned for it.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            Some(SocketAddr::from((ip, u16::from_be(address.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            let (port, scope) = (u16::from_be(address.sin6_port), address.sin6_scope_id);
            Some(SocketAddrV6::new(ip, port, address.sin6_flowinfo, scope).into())
        }
        _ => None,
    }
}

/// An option of a socket (`SOL_SOCKET`, socket(7)) that is a number.
fn get_option(socket: BorrowedFd<'_>, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    let (fd, pointer) = (socket.as_raw_fd(), (&raw mut value).cast());
    // SAFETY: the kernel writes at most `len` octets to `value`, which is that long, and the length to `len`;
    // both live until we return. The descriptor is borrowed, hence open.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, pointer, &raw mut len) };
    check(result as libc::ssize_t).map(|_| value)
}

/// The number of the interface that a socket is bound to (`SO_BINDTOIFINDEX`, `net/core/sock.c`), if it is to any.
pub fn bound_interface(socket: impl AsFd) -> Option<NonZeroU32> {
    let index = get_option(socket.as_fd(), libc::SO_BINDTOIFINDEX).ok()?;
    u32::try_from(index).ok().and_then(NonZeroU32::new)
}

/// What kind of socket a descriptor is: domain, type and protocol (`SO_DOMAIN`, `SO_TYPE`,
/// `SO_PROTOCOL`, socket(7)).
///
/// # Errors
///
/// `ENOTSOCK` where it is none.
pub fn kind_of(socket: impl AsFd) -> io::Result<(c_int, c_int, c_int)> {
    let get = |name| get_option(socket.as_fd(), name);
    Ok((get(libc::SO_DOMAIN)?, get(libc::SO_TYPE)?, get(libc::SO_PROTOCOL)?))
}

/// What the send buffer of `socket` has room for (`SO_MEMINFO`, `net/core/sock.c`); nothing, if the
/// kernel does not say.
pub fn send_buffer(socket: impl AsFd) -> SendBuffer {
    // Positions in the array: `SK_MEMINFO_SNDBUF` and `SK_MEMINFO_WMEM_QUEUED`
    // (include/uapi/linux/sock_diag.h); it has had nine entries since Linux 4.12.
    const SNDBUF: usize = 3;
    const WMEM_QUEUED: usize = 5;
    const SO_MEMINFO: c_int = 55;
    let mut values = [0_u32; 9];
    let mut len = size_of::<[u32; 9]>() as socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    let pointer = values.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` octets to `values`, which is that long, and the length
    // to `len`; both live until we return and nobody else sees them.
    unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, SO_MEMINFO, pointer, &raw mut len) };
    SendBuffer { size: values[SNDBUF], queued: values[WMEM_QUEUED] }
}

/// Octets that a TCP socket has received, and sent and seen acknowledged (`TCP_INFO`, tcp(7)); zero of what the
/// kernel does not say.
pub fn carried(socket: impl AsFd) -> [u64; 2] {
    // Positions in 64 bits of `tcpi_bytes_received` and `tcpi_bytes_acked` (include/uapi/linux/tcp.h).
    const RECEIVED: usize = 16;
    const ACKNOWLEDGED: usize = 15;
    let mut values = [0_u64; 17];
    let mut len = size_of::<[u64; 17]>() as socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    let pointer = values.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` octets to `values`, which is that long, and the length to `len`; both
    // live until we return and nobody else sees them. On failure the values stay 0.
    unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, pointer, &raw mut len) };
    [values[RECEIVED], values[ACKNOWLEDGED]]
}

/// The MTU of the way to a connected socket's peer (`IP_MTU`, ip(7); `IPV6_MTU`, ipv6(7)); 0 if the
/// kernel does not know.
pub fn path_mtu(socket: impl AsFd, peer: IpAddr) -> u32 {
    let (level, name) = match peer {
        IpAddr::V4(_) => (libc::SOL_IP, libc::IP_MTU),
        IpAddr::V6(_) => (libc::SOL_IPV6, libc::IPV6_MTU),
    };
    let mut mtu: c_int = 0;
    let mut len = size_of::<c_int>() as socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `len` octets to `mtu`, which is that long, and the length to
    // `len`; both live until we return. On failure `mtu` stays 0.
    unsafe { libc::getsockopt(fd, level, name, (&raw mut mtu).cast(), &raw mut len) };
    u32::try_from(mtu).unwrap_or(0)
}

/// Takes `octets` off the front of a TCP socket's receive queue without copying them (`MSG_TRUNC`,
/// see tcp(7)). Returns how many it took.
///
/// # Errors
///
/// As recv(2).
pub fn discard(socket: impl AsFd, octets: usize) -> io::Result<usize> {
    let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: with MSG_TRUNC the kernel writes nothing for TCP; with a null buffer it could not
    // write anywhere even if it tried (EFAULT).
    check(unsafe { libc::recv(fd, std::ptr::null_mut(), octets, flags) })
}

/// Reads into `into` from `skip` octets behind the front of the receive queue and leaves the queue as
/// it is, on kernels without a peek offset: what is skipped is copied too, into a place of no use.
///
/// # Errors
///
/// As recvmsg(2); `WouldBlock` also if nothing is there behind `skip`, or the end of the stream;
/// `ResourceBusy` where that is not known until less is to be skipped: that is more than 16 MiB, or has
/// the mark of urgent data in it.
pub fn peek_behind(socket: impl AsFd, skip: usize, into: &mut [u8]) -> io::Result<usize> {
    const CHUNK: usize = 256 * 1024;
    const CHUNKS: usize = 64;
    if skip > CHUNK * CHUNKS {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    thread_local! {
        static DISCARD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    DISCARD.with_borrow_mut(|discard| {
        discard.resize(CHUNK, 0);
        let empty = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut slices = [empty; CHUNKS + 1];
        let mut count = 0;
        let mut left = skip;
        for slice in slices.iter_mut().take(CHUNKS) {
            if left == 0 {
                break;
            }
            let len = left.min(CHUNK);
            *slice = libc::iovec { iov_base: discard.as_mut_ptr().cast(), iov_len: len };
            left -= len;
            count += 1;
        }
        if let Some(slice) = slices.get_mut(count) {
            *slice = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
            count += 1;
        }
        // SAFETY: an all-zero msghdr is a valid one (null pointers with zero lengths).
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = slices.as_mut_ptr();
        message.msg_iovlen = count as _;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: each of the `count` slices points to memory that we borrow mutably until after the
        // call (`discard` or `into`) and is not longer than it. The slices in `discard` overlap,
        // which is harmless: the kernel writes them one after the other and nobody reads them.
        let read = check(unsafe { libc::recvmsg(fd, &raw mut message, flags) })?;
        match (read, read.checked_sub(skip)) {
            // The end of the stream shows only where there is nothing to skip.
            (0, _) if skip == 0 => Ok(0),
            (_, Some(behind @ 1..)) => Ok(behind),
            (_, Some(0)) => Err(io::ErrorKind::WouldBlock.into()),
            // In front of urgent data the kernel stops.
            (_, None) => Err(io::ErrorKind::ResourceBusy.into()),
        }
    })
}

/// Waits for events, at most `timeout` (none: for ever), and says how many came. Uses
/// `epoll_pwait2`, and `epoll_wait` with the time rounded up where that is missing (before 5.11).
///
/// # Errors
///
/// As epoll_wait(2), `EINTR` included.
pub fn epoll_wait(
    epoll: impl AsFd,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let fd = epoll.as_fd().as_raw_fd();
    let capacity = c_int::try_from(events.len()).unwrap_or(c_int::MAX);
    let spec = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let spec_pointer = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the kernel writes at most `capacity` events to `events`, which is that long, and reads
    // one timespec or, by a null pointer, none; the signal mask is null with size 0. All live until
    // we return.
    let result = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            fd,
            events.as_mut_ptr(),
            capacity,
            spec_pointer,
            std::ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    match usize::try_from(result) {
        Ok(count) => return Ok(count),
        Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) => {}
        Err(_) => return Err(io::Error::last_os_error()),
    }
    let millis = timeout.map_or(-1, |timeout| {
        c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
    });
    // SAFETY: as above.
    check(unsafe { libc::epoll_wait(fd, events.as_mut_ptr(), capacity, millis) } as libc::ssize_t)
}

/// Ends the process at once, without running anything else: what is left when a panic is reported
/// under a filter that has no `abort`.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}

/// Takes ownership of descriptor `number` that our parent left open for us; `None` if it is not open.
/// To be called once for a number, before anything else opens descriptors.
pub fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: fcntl with F_GETFD touches no memory; a number that is not open gives an error.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: the descriptor is open, was opened by our parent for this purpose, and by the contract
    // above nothing else in this process owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sends `why` as our last message over the supervisor's channel at descriptor `number`, from a place
/// that does not own it.
pub fn say_last(number: i32, why: &str) {
    let message = pasta_ipc::DatapathToSupervisor::Failed(pasta_ipc::types::Text::truncated(why));
    let mut octets = [0_u8; 1100];
    if let Ok(len) = pasta_ipc::codec::encode(&message, &mut octets) {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the kernel reads `len` octets of `octets`, which encode() has checked to be there.
        unsafe { libc::send(number, octets.as_ptr().cast(), len, flags) };
    }
}
