use super::*;
use nix::sys::socket::{AddressFamily, MsgFlags, SockType, UnixAddr, connect, send, socket};
use pasta_ipc::Message;
use pasta_ipc::message::PROTOCOL_VERSION;
use std::path::PathBuf;

type Theirs = Channel<ClientToSupervisor, SupervisorToClient>;

struct World {
    server: Server,
    path: PathBuf,
    now: Instant,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.path.parent().unwrap());
    }
}

impl World {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("server-{}-{name}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("socket");
        let server = Server::new(ControlSocket::open(&path, None).unwrap()).unwrap();
        Self { server, path, now: Instant::now() }
    }

    fn connect(&self) -> OwnedFd {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let client = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
        connect(client.as_raw_fd(), &UnixAddr::new(&self.path).unwrap()).unwrap();
        client
    }

    /// One that has said `Hello`.
    fn client(&mut self) -> Theirs {
        let client: Theirs = self.connect().into();
        client.send(&ClientToSupervisor::Hello(Hello::OURS)).unwrap();
        self.settle();
        assert!(matches!(client.receive().unwrap().message, SupervisorToClient::Hello(_)));
        client
    }

    /// Polls until nothing comes any more; gives what came.
    fn settle(&mut self) -> Vec<Incoming> {
        let mut all = Vec::new();
        for _ in 0..8 {
            all.extend(self.server.poll(self.now));
        }
        all
    }

    fn requests(&mut self) -> Vec<ClientId> {
        let requests = self.settle().into_iter().filter_map(|it| match it {
            Incoming::Request(id, ..) => Some(id),
            _ => None,
        });
        requests.collect()
    }
}

fn last_words(client: &Theirs) -> String {
    loop {
        match client.receive() {
            Ok(received) => {
                if let SupervisorToClient::Refused(why) = received.message {
                    return why.to_string();
                }
            }
            Err(error) => return format!("{error:?}"),
        }
    }
}

#[test]
fn requests_are_served_one_at_a_time() {
    let mut world = World::new("one");
    let client = world.client();
    for _ in 0..3 {
        client.send(&ClientToSupervisor::ForwardsWanted).unwrap();
    }
    let requests = world.requests();
    assert_eq!(requests.len(), 1, "the next one is read when this one is answered");
    let id = requests[0];
    world.server.answer(world.now, id, SupervisorToClient::ResyncSent, Part::More);
    assert_eq!(world.requests(), []);
    world.server.answer(world.now, id, SupervisorToClient::ResyncSent, Part::Last);
    assert_eq!(world.requests(), [id]);
}

#[test]
fn what_is_no_message_ends_the_connection_with_a_reason_and_nobody_elses() {
    let mut world = World::new("violation");
    let good = world.client();
    let other_version = ClientToSupervisor::Hello(Hello { version: PROTOCOL_VERSION + 1 });
    let raw: [&[u8]; 4] = [&[], &[0xff; 100], &[1], &vec![0; ClientToSupervisor::LIMIT + 1]];
    for octets in raw {
        let client = world.connect();
        // An empty message is the end of the connection.
        let _ = send(client.as_raw_fd(), octets, MsgFlags::MSG_NOSIGNAL);
        world.settle();
        let client: Theirs = client.into();
        let words = last_words(&client);
        assert!(!words.contains("WouldBlock"), "{words}");
    }
    let client: Theirs = world.connect().into();
    client.send(&other_version).unwrap();
    world.settle();
    assert!(last_words(&client).contains("protocol"), "{}", last_words(&client));
    // Hello twice.
    let client = world.client();
    client.send(&ClientToSupervisor::Hello(Hello::OURS)).unwrap();
    world.settle();
    assert!(last_words(&client).contains("second time"));
    good.send(&ClientToSupervisor::ForwardsWanted).unwrap();
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn client_that_reads_nothing_goes_and_costs_no_wake_ups_until_then() {
    let mut world = World::new("stalled");
    let stalled = world.client();
    stalled.send(&ClientToSupervisor::ForwardsWanted).unwrap();
    let id = world.requests()[0];
    let long = || SupervisorToClient::Refused(Text::truncated(&"x".repeat(512)));
    for _ in 0..1000 {
        world.server.answer(world.now, id, long(), Part::More);
    }
    world.server.answer(world.now, id, long(), Part::Last);
    assert!(world.server.clients[&id].outbox.len() > 100, "the socket is full");
    let mut fds = [nix::poll::PollFd::new(world.server.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, 0_u8), Ok(0), "nothing wakes us");
    world.now += PATIENCE;
    assert!(world.server.next_deadline().is_some_and(|deadline| deadline <= world.now));
    let gone = world.settle();
    assert!(matches!(gone[..], [Incoming::Gone(it)] if it == id), "{gone:?}");
    assert_eq!(world.server.next_deadline(), None);
}

#[test]
fn flood_is_read_no_faster_than_its_share() {
    let mut world = World::new("flood");
    let client = world.client();
    let mut served = 0;
    for _ in 0..200 {
        while client.send(&ClientToSupervisor::ForwardsWanted).is_ok() {}
        for id in world.requests() {
            served += 1;
            world.server.answer(world.now, id, SupervisorToClient::ResyncSent, Part::Last);
            while client.receive().is_ok() {}
        }
    }
    assert_eq!(served, REQUESTS.1 - 1, "and `Hello`");
    let later = world.server.next_deadline().unwrap();
    world.now = later;
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn idle_clients_make_room_and_those_that_wait_do_not() {
    let mut world = World::new("many");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            world.now += Duration::from_millis(1);
            world.client()
        })
        .collect();
    let new = world.client();
    assert!(matches!(clients[0].receive(), Err(ReceiveError::Closed)), "idle for longest");
    for client in clients[1..].iter().chain([&new]) {
        client.send(&ClientToSupervisor::ForwardsWanted).unwrap();
    }
    assert_eq!(world.requests().len(), CLIENTS);
    let refused: Theirs = world.connect().into();
    world.settle();
    assert!(last_words(&refused).contains("as many clients"));
}

#[test]
fn pause_after_descriptors_have_run_out_ends() {
    let mut world = World::new("pause");
    world.server.watch_listener(EpollFlags::empty());
    world.server.paused_until = Some(world.now + PAUSE);
    let client: Theirs = world.connect().into();
    assert!(world.settle().is_empty() && world.server.clients.is_empty());
    let mut fds = [nix::poll::PollFd::new(world.server.as_fd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut fds, 0_u8), Ok(0), "nothing wakes us");
    world.now = world.server.next_deadline().unwrap();
    world.settle();
    assert!(matches!(client.receive().unwrap().message, SupervisorToClient::Hello(_)));
    assert_eq!(world.server.next_deadline(), None);
}

#[test]
fn client_that_goes_while_it_waits_is_noticed() {
    let mut world = World::new("gone");
    let client = world.client();
    client.send(&ClientToSupervisor::ForwardsWanted).unwrap();
    let id = world.requests()[0];
    drop(client);
    let gone = world.settle();
    assert!(matches!(gone[..], [Incoming::Gone(it)] if it == id), "{gone:?}");
    world.server.answer(world.now, id, SupervisorToClient::ResyncSent, Part::Last);
}
