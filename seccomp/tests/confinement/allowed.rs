//! What each process does for its living still works under its confinement.

use crate::child::{confine, quiet_stdio, run_well};
use crate::sys::{self, Arg::Int};
use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockProtocol, SockType, SockaddrIn,
    SockaddrIn6, SockaddrLike, accept4, bind, connect, getsockname, listen, recv, recvmsg, send,
    sendmsg, sendto, setsockopt, shutdown, socket, sockopt,
};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::pipe2;
use pasta_ipc::socket::RequestId;
use pasta_ipc::{
    Channel, DatapathToMonitor, DatapathToSupervisor, MonitorToDatapath, SupervisorToDatapath,
};
use seccomp::ports::{BindPorts, Ports};
use seccomp::{Confinement, Isolated, Role};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{IoSlice, IoSliceMut, Read};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

const NON_BLOCKING: SockFlag = SockFlag::SOCK_NONBLOCK.union(SockFlag::SOCK_CLOEXEC);

/// Memory, clock and randomness: what std and libc do behind every program's back.
fn runtime_works() {
    let start = Instant::now();
    let mut grown: Vec<u8> = Vec::new();
    for _ in 0..64 {
        grown.extend_from_slice(&[1; 1 << 20]);
    }
    grown.truncate(1 << 20);
    grown.shrink_to_fit();
    let small: Vec<Vec<u8>> = (1..2000).map(|len| vec![0; len * 7]).collect();
    let map: HashMap<usize, usize> = small.iter().map(|v| (v.len(), v.capacity())).collect();
    assert_eq!(map.len(), 1999);
    assert!(start.elapsed() < Duration::from_secs(60));
    drop((grown, small, map));
}

fn wait_readable(epoll: &Epoll, fd: impl AsFd) {
    epoll.add(&fd, EpollEvent::new(EpollFlags::EPOLLIN, 1)).unwrap();
    let mut events = [EpollEvent::empty(); 4];
    let timeout = EpollTimeout::from(5000_u16);
    assert_eq!(epoll.wait(&mut events, timeout), Ok(1));
    epoll.delete(&fd).unwrap();
}

/// One TCP conversation over loopback, with all options, peeking, splicing and half close.
fn tcp_works<A: SockaddrLike>(epoll: &Epoll, family: AddressFamily, any_port: A) {
    let tcp = || socket(family, SockType::Stream, NON_BLOCKING, SockProtocol::Tcp).unwrap();
    let listener = tcp();
    sys::setsockopt(&listener, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
    bind(listener.as_raw_fd(), &any_port).unwrap();
    listen(&listener, Backlog::new(16).unwrap()).unwrap();
    let address: A = getsockname(listener.as_raw_fd()).unwrap();

    let client = tcp();
    // As with -o: an address, the port left to the kernel. Landlock asks for a rule on port 0.
    bind(client.as_raw_fd(), &any_port).unwrap();
    assert!(matches!(connect(client.as_raw_fd(), &address), Ok(()) | Err(Errno::EINPROGRESS)));
    wait_readable(epoll, &listener);
    let server = accept_from(&listener);

    let mut iov = [IoSlice::new(b"hello ")];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(
        client.as_raw_fd(),
        &iov,
        &[],
        flags | MsgFlags::from_bits_retain(libc::MSG_MORE),
        None,
    )
    .unwrap();
    iov = [IoSlice::new(b"world")];
    sendmsg::<()>(client.as_raw_fd(), &iov, &[], flags, None).unwrap();
    wait_readable(epoll, &server);
    sys::setsockopt(&server, libc::SOL_SOCKET, libc::SO_PEEK_OFF, 0).unwrap();
    let mut buffer = [0; 64];
    let mut iov = [IoSliceMut::new(&mut buffer)];
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let peeked = recvmsg::<()>(server.as_raw_fd(), &mut iov, None, peek).unwrap();
    assert_eq!(peeked.bytes, 11);
    // Taking out what was peeked, without a copy.
    assert_eq!(recv(server.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC), Ok(11));

    // Socket to pipe to socket.
    let (from, to) = pipe2(nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    nix::fcntl::fcntl(&from, nix::fcntl::FcntlArg::F_SETPIPE_SZ(256 * 1024)).unwrap();
    nix::fcntl::fcntl(&server, nix::fcntl::FcntlArg::F_GETFL).unwrap();
    send(client.as_raw_fd(), b"spliced", flags).unwrap();
    wait_readable(epoll, &server);
    let gentle = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    assert_eq!(splice(&server, None, &to, None, 4096, gentle), Ok(7));
    assert_eq!(splice(&from, None, &server, None, 4096, gentle), Ok(7));
    wait_readable(epoll, &client);
    assert_eq!(recv(client.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT), Ok(7));

    shutdown(client.as_raw_fd(), Shutdown::Write).unwrap();
    wait_readable(epoll, &server);
    assert_eq!(recv(server.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT), Ok(0));
    every_option_is_let_through(&server);
}

fn accept_from(listener: &OwnedFd) -> OwnedFd {
    sys::own(accept4(listener.as_raw_fd(), NON_BLOCKING).unwrap())
}

/// The kernel may refuse an option for this kind of socket; the filter must not.
fn every_option_is_let_through(tcp: &OwnedFd) {
    let socket_level = [
        libc::SO_SNDBUF,
        libc::SO_BUF_LOCK,
        libc::SO_LINGER,
        libc::SO_KEEPALIVE,
        libc::SO_OOBINLINE,
        libc::SO_BINDTODEVICE,
    ];
    let tcp_level = [libc::TCP_NODELAY, libc::TCP_NOTSENT_LOWAT];
    let ipv4_level = [
        libc::IP_RECVTTL,
        libc::IP_RECVTOS,
        libc::IP_TTL,
        libc::IP_TOS,
        libc::IP_MTU_DISCOVER,
        libc::IP_PKTINFO,
        libc::IP_RECVERR,
        libc::IP_FREEBIND,
    ];
    let ipv6_level = [
        libc::IPV6_RECVHOPLIMIT,
        libc::IPV6_RECVTCLASS,
        libc::IPV6_UNICAST_HOPS,
        libc::IPV6_TCLASS,
        libc::IPV6_MTU_DISCOVER,
        libc::IPV6_RECVPKTINFO,
        libc::IPV6_RECVERR,
        libc::IPV6_V6ONLY,
    ];
    let udp_level = [libc::UDP_GRO];
    let levels: [(i32, &[i32]); 5] = [
        (libc::SOL_SOCKET, &socket_level),
        (libc::IPPROTO_TCP, &tcp_level),
        (libc::IPPROTO_IP, &ipv4_level),
        (libc::IPPROTO_IPV6, &ipv6_level),
        (libc::IPPROTO_UDP, &udp_level),
    ];
    for (level, names) in levels {
        for name in names {
            let _ = sys::setsockopt(tcp, level, *name, 1);
        }
    }
    let read = [
        (libc::SOL_SOCKET, libc::SO_ERROR),
        (libc::SOL_SOCKET, libc::SO_MEMINFO),
        (libc::SOL_SOCKET, libc::SO_DOMAIN),
        (libc::SOL_SOCKET, libc::SO_TYPE),
        (libc::SOL_SOCKET, libc::SO_PROTOCOL),
        (libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX),
    ];
    for (level, name) in read {
        assert_eq!(sys::getsockopt(tcp, level, name), Ok(()), "{level} {name}");
    }
    let _ = sys::getsockopt(tcp, libc::IPPROTO_IP, libc::IP_MTU);
    let _ = sys::getsockopt(tcp, libc::IPPROTO_IPV6, libc::IPV6_MTU);
}

/// A datagram to ourselves.
fn udp_works<A: SockaddrLike>(epoll: &Epoll, family: AddressFamily, any_port: A) {
    let udp = socket(family, SockType::Datagram, NON_BLOCKING, SockProtocol::Udp).unwrap();
    bind(udp.as_raw_fd(), &any_port).unwrap();
    let address: A = getsockname(udp.as_raw_fd()).unwrap();
    sendto(udp.as_raw_fd(), b"datagram", &address, MsgFlags::MSG_DONTWAIT).unwrap();
    wait_readable(epoll, &udp);
    let mut buffer = [0; 64];
    assert_eq!(recv(udp.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT), Ok(8));
    let errors = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    assert_eq!(recv(udp.as_raw_fd(), &mut buffer, errors), Err(Errno::EAGAIN));
}

/// Flows of every kind, and the channel.
pub(crate) fn datapath_serves_flows() {
    run_well("datapath", || {
        quiet_stdio();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let (ours, theirs) = Channel::<DatapathToSupervisor, SupervisorToDatapath>::pair().unwrap();
        confine(Role::Datapath);
        runtime_works();
        tcp_works(&epoll, AddressFamily::Inet, SockaddrIn::new(127, 0, 0, 1, 0));
        udp_works(&epoll, AddressFamily::Inet, SockaddrIn::new(127, 0, 0, 1, 0));
        let loopback6 = std::net::SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, 0, 0, 0);
        let probe =
            socket(AddressFamily::Inet6, SockType::Datagram, NON_BLOCKING, SockProtocol::Udp)
                .unwrap();
        if bind(probe.as_raw_fd(), &SockaddrIn6::from(loopback6)).is_ok() {
            tcp_works(&epoll, AddressFamily::Inet6, SockaddrIn6::from(loopback6));
            udp_works(&epoll, AddressFamily::Inet6, SockaddrIn6::from(loopback6));
        }
        for (family, protocol) in [
            (AddressFamily::Inet, SockProtocol::Icmp),
            (AddressFamily::Inet6, SockProtocol::IcmpV6),
        ] {
            // EACCES where ping_group_range leaves us out.
            let echo = socket(family, SockType::Datagram, NON_BLOCKING, protocol);
            assert!(matches!(echo, Ok(_) | Err(Errno::EACCES)), "{echo:?}");
        }
        let hello = DatapathToSupervisor::Hello(pasta_ipc::message::Hello::OURS);
        ours.send(&hello).unwrap();
        drop(theirs);
        assert!(ours.receive().is_err());
    });
}

/// Landlock: TCP ports are for a helper if rules name them, or if it is not known which do.
pub(crate) fn helpers_bind_no_port_of_their_own_choice() {
    for role in [Role::Datapath, Role::Monitor] {
        let named = |port| Ports::Only([port].into());
        for (name, tcp, allowed) in [
            ("none", BindPorts::none().tcp, [false, false]),
            ("one", BindPorts::none().tcp, [true, false]),
            ("any", Ports::Any, [true, true]),
        ] {
            run_well(&format!("{role} with {name}"), || {
                quiet_stdio();
                let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let free = [free(), free()];
                let ports = free.each_ref().map(|it| it.local_addr().unwrap().port());
                drop(free);
                let tcp = if name == "one" { named(ports[0]) } else { tcp };
                let bind_ports = BindPorts { tcp, ..BindPorts::none() };
                let least = Confinement::least(role, Isolated::default());
                let what = Confinement { bind: bind_ports, ..least };
                let (_confined, report) = seccomp::confine(what, None).unwrap();
                assert!(report.landlock_abi > 0, "{:?}", report.missing);
                for (port, allowed) in ports.into_iter().zip(allowed) {
                    let tcp = SockProtocol::Tcp;
                    let tcp = socket(AddressFamily::Inet, SockType::Stream, NON_BLOCKING, tcp);
                    let bound =
                        bind(tcp.unwrap().as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port));
                    assert_eq!(bound, if allowed { Ok(()) } else { Err(Errno::EACCES) });
                }
            });
        }
    }
}

/// A runtime of one thread with netlink, a timer and a wake-up, as the monitor runs it.
pub(crate) fn monitor_runs_tokio_and_netlink() {
    run_well("monitor", || {
        quiet_stdio();
        let netlink =
            socket(AddressFamily::Netlink, SockType::Raw, NON_BLOCKING, SockProtocol::NetlinkRoute)
                .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .unwrap();
        let netlink = runtime.block_on(async { sys::watch(netlink) });
        let (ours, theirs) = Channel::pair().unwrap();
        confine(Role::Monitor);
        runtime_works();
        runtime.block_on(async {
            // RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, sequence 1, `struct ifinfomsg` of zeroes.
            let mut request = [0_u8; 32];
            request[0] = 32;
            request[4] = 18;
            request[5] = 3;
            request[6] = 1;
            request[8] = 1;
            send(netlink.as_raw_fd(), &request, MsgFlags::empty()).unwrap();
            let mut guard = netlink.readable().await.unwrap();
            let mut buffer = [0; 8192];
            let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
            assert!(length > 32, "{length}");
            guard.clear_ready();
            let (to, from) = tokio::sync::oneshot::channel();
            let task = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                to.send(7).unwrap();
            });
            assert_eq!(from.await.unwrap(), 7);
            task.await.unwrap();
        });
        sockets_are_handed_out(&ours);
        drop(theirs);
        drop(netlink);
        drop(runtime);
    });
}

/// Sockets for the datapath: those that connect, and listeners on loopback, sent away and closed.
fn sockets_are_handed_out(datapath: &Channel<MonitorToDatapath, DatapathToMonitor>) {
    for (kind, protocol) in
        [(SockType::Stream, SockProtocol::Tcp), (SockType::Datagram, SockProtocol::Udp)]
    {
        let listener = socket(AddressFamily::Inet6, kind, NON_BLOCKING, protocol).unwrap();
        setsockopt(&listener, sockopt::Ipv6V6Only, &false).unwrap();
        setsockopt(&listener, sockopt::ReuseAddr, &true).unwrap();
        setsockopt(&listener, sockopt::BindToDevice, &"lo".into()).unwrap();
        let any = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0));
        bind(listener.as_raw_fd(), &any).unwrap();
        if kind == SockType::Stream {
            listen(&listener, Backlog::MAXCONN).unwrap();
        }
        let request = RequestId(1);
        let message = MonitorToDatapath::Listener { request };
        datapath.send_with(&message, &[listener.as_fd()]).unwrap();
        let unbound = socket(AddressFamily::Inet, kind, NON_BLOCKING, protocol).unwrap();
        let message = MonitorToDatapath::Sockets { request, count: 1.try_into().unwrap() };
        datapath.send_with(&message, &[unbound.as_fd()]).unwrap();
    }
}

/// Children, signals, reading below a directory, and nowhere else.
pub(crate) fn supervisor_supervises_and_reads_where_it_may() {
    let directory = std::env::temp_dir().join(format!("seccomp-test-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
    run_well("supervisor", || {
        quiet_stdio();
        let readable = File::open(&directory).unwrap();
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        let child = sys::fork().unwrap_or_else(|| {
            loop {
                nix::unistd::pause();
            }
        });
        let pidfd = sys::call(libc::SYS_pidfd_open, &[Int(child.as_raw().into()), Int(0)]).unwrap();

        seccomp::confine_supervisor(Vec::new(), &[readable.as_fd()], None).unwrap();
        runtime_works();
        let open = |path: &std::path::Path| {
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            OpenOptions::new().read(true).custom_flags(flags).open(path)
        };
        // Not read_to_string: it asks for the size by a call that the supervisor does without.
        let mut text = [0; 64];
        let length = open(&directory.join("resolv.conf")).unwrap().read(&mut text).unwrap();
        assert_eq!(&text[..length], b"nameserver 192.0.2.1\n");
        let denied = open("/etc/passwd".as_ref()).unwrap_err();
        assert_eq!(denied.raw_os_error(), Some(libc::EACCES));
        let gone = nix::unistd::unlinkat(
            &readable,
            "resolv.conf",
            nix::unistd::UnlinkatFlags::NoRemoveDir,
        );
        assert_eq!(gone, Err(Errno::EACCES));
        inotify.add_watch(&directory, AddWatchFlags::IN_CREATE).unwrap();

        // Landlock's signal scope would refuse it: the child is older than the ruleset.
        let signal = Int(libc::SIGCONT.into());
        sys::call(libc::SYS_pidfd_send_signal, &[Int(pidfd), signal, Int(0), Int(0)]).unwrap();
        let signal = Int(libc::SIGKILL.into());
        sys::call(libc::SYS_pidfd_send_signal, &[Int(pidfd), signal, Int(0), Int(0)]).unwrap();
        let ended = waitid(Id::Pid(child), WaitPidFlag::WEXITED);
        assert_eq!(ended, Ok(WaitStatus::Signaled(child, Signal::SIGKILL, false)));
    });
    std::fs::remove_dir_all(&directory).unwrap();
}
