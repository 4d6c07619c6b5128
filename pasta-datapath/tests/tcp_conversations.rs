//! Single exchanges with one connection, segment by segment: what is answered to what.

use pasta_datapath::flow::Next;
use pasta_datapath::flow::tcp::connection::Connection;
use pasta_datapath::flow::tcp::relay::{
    Context, Facts, HostSocket, Noted, QUANTUM, Relay, TapWriter,
};
use pasta_datapath::flow::tcp::window::{CreditPool, CreditQueue};
use pasta_datapath::link::tx_window::WindowLimits;
use pasta_datapath::sys::send_buffer::SendBuffer;
use pasta_datapath::time::Instant;
use pasta_datapath::wire::seq::Seq;
use pasta_datapath::wire::tcp::{Flags, Header, ToSend};
use pasta_datapath::wire::window::{Mss, WindowScale, WireWindow};
use std::io::{self, ErrorKind, IoSlice};
use std::net::IpAddr;
use std::time::Duration;

const IRS: u32 = u32::MAX - 100;
const ISS: u32 = 70_000;
const ACK: Flags = Flags::ACK;

/// The far end of the host's socket.
#[derive(Default)]
struct Socket {
    room: u32,
    queued: u32,
    received: Vec<u8>,
    to_read: Vec<u8>,
    /// Nothing behind so many octets is read together with what is in front of them.
    mark: Option<usize>,
    broken: bool,
    ended: bool,
    shut_down: bool,
}

impl HostSocket for Socket {
    fn mark(&mut self, _remote: IpAddr, _dscp: u8) {}

    fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let octets: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let fits = octets.len().min((self.room - self.queued) as usize);
        self.received.extend(&octets[..fits]);
        self.queued += fits as u32;
        if fits == 0 && !octets.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(fits) }
    }

    fn send_buffer(&mut self, _least: u32) -> SendBuffer {
        SendBuffer { size: self.room, queued: self.queued }
    }

    fn peek(&mut self, offset: u32, into: &mut [u8]) -> io::Result<usize> {
        let end = match self.mark {
            Some(mark) if offset as usize >= mark => return Err(ErrorKind::ResourceBusy.into()),
            mark => mark.unwrap_or(self.to_read.len()),
        };
        let rest = self.to_read.get(offset as usize..end).unwrap_or_default();
        if self.ended && self.to_read.is_empty() {
            return Ok(0);
        }
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        if len == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(len) }
    }

    fn consume(&mut self, octets: u32) -> io::Result<()> {
        self.to_read.drain(..octets as usize);
        let mark = self.mark.and_then(|mark| mark.checked_sub(octets as usize));
        self.mark = mark.filter(|mark| *mark > 0);
        Ok(())
    }

    fn shut_down_write(&mut self) {
        self.shut_down = true;
    }

    fn take_error(&mut self) -> Option<nix::errno::Errno> {
        None
    }

    fn keep_alive(&mut self) {}

    fn reset_on_close(&mut self) {}

    fn local_address(&self) -> Option<std::net::SocketAddr> {
        None
    }
}

#[derive(Default)]
struct Sent(Vec<(ToSend, Vec<u8>)>);

impl TapWriter for Sent {
    fn send(&mut self, header: &ToSend, _: Mss, payload: &[u8]) -> bool {
        self.0.push((*header, payload.to_vec()));
        true
    }

    fn frame_payload(&self, segment_size: Mss) -> usize {
        usize::from(segment_size)
    }
}

/// A connection and all around it.
struct Talk {
    now: Instant,
    relay: Relay,
    socket: Socket,
    credit: CreditPool,
    next: Next,
    facts: Facts,
}

fn syn(seq: u32) -> Header {
    Header {
        source: 1024,
        destination: 80,
        seq: Seq::from(seq),
        ack: Seq::default(),
        flags: Flags::SYN,
        window: WireWindow::from(60_000),
        mss: Some(Mss::new(1460)),
        window_scale: Some(WindowScale::NONE),
        sack_permitted: true,
    }
}

impl Talk {
    /// Connected, and the handshake is over.
    fn open(sack_permitted: bool) -> Self {
        let first = Header { sack_permitted, ..syn(IRS) };
        let mut relay = Relay::new(Connection::from_syn(
            Instant::START,
            &first,
            Seq::from(ISS),
            Mss::new(1460),
        ));
        relay.connected();
        let socket = Socket { room: 400_000, ..Socket::default() };
        let credit = CreditPool::new(1 << 20, 1 << 22);
        let mut talk = Self {
            now: Instant::START,
            relay,
            socket,
            credit,
            next: Next::Wait,
            facts: Facts::default(),
        };
        let [(answer, _)] = &talk.run(&[])[..] else { panic!("no single answer to the SYN") };
        assert_eq!(answer.syn.map(|syn| syn.sack_permitted), Some(sack_permitted));
        assert_eq!(talk.receive(0, ACK, &[]), []);
        talk
    }

    fn run(&mut self, payload: &[u8]) -> Vec<(ToSend, Vec<u8>)> {
        let mut sent = Sent::default();
        let mut scratch = vec![0; 100_000];
        let slices = [IoSlice::new(payload)];
        let slices = if payload.is_empty() { &[][..] } else { &slices[..] };
        let Self { now, relay, socket, credit, .. } = self;
        let mut cx = Context {
            now: *now,
            quantum: QUANTUM,
            socket,
            tap: &mut sent,
            scratch: &mut scratch,
            credit,
        };
        let outcome = relay.run(&mut cx, slices);
        (self.next, self.facts) = (outcome.next, outcome.facts);
        assert_eq!(outcome.deadline, self.relay.deadline());
        sent.0
    }

    fn header(&mut self, at: i64, flags: Flags) -> Header {
        let seq = Seq::from(IRS.wrapping_add(1).wrapping_add(at as u32));
        let ack = self.relay.connection().clone().sender().highest();
        let none = Header { mss: None, window_scale: None, sack_permitted: false, ..syn(0) };
        Header { seq, ack, flags, ..none }
    }

    /// Takes in a segment whose payload starts `at` octets into the stream.
    fn receive(&mut self, at: i64, flags: Flags, payload: &[u8]) -> Vec<(ToSend, Vec<u8>)> {
        let header = self.header(at, flags);
        self.take(&header, payload)
    }

    fn take(&mut self, header: &Header, payload: &[u8]) -> Vec<(ToSend, Vec<u8>)> {
        let taken = match self.note(header, payload) {
            Noted::Take(taken) => taken,
            Noted::NewConnection => 0..0,
        };
        self.run(&payload[taken])
    }

    fn note(&mut self, header: &Header, payload: &[u8]) -> Noted {
        self.relay.segment(self.now, header, payload, &mut self.credit)
    }

    fn wait(&mut self, time: Duration) -> Vec<(ToSend, Vec<u8>)> {
        self.now = self.now + time;
        self.relay.tick(self.now);
        self.run(&[])
    }
}

/// How far into the stream a number of the namespace's is.
fn offset(seq: Seq) -> u32 {
    seq.distance_from(Seq::from(IRS.wrapping_add(1)))
}

#[test]
fn end_of_the_stream_is_never_in_front_of_what_was_sent() {
    let mut talk = Talk::open(true);
    talk.socket.to_read = vec![7; 1000];
    talk.relay.readable();
    assert_eq!(talk.run(&[]).len(), 1);
    // The retransmission finds the end, and a peek that is cut short.
    talk.relay.ended();
    talk.socket.mark = Some(100);
    let sent = talk.wait(Duration::from_secs(2));
    let sizes: Vec<_> = sent.iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(sizes, [100]);
    assert!(!sent[0].0.flags.contains(Flags::FIN));
}

#[test]
fn segments_out_of_order_are_reported_in_sack_blocks_and_not_needed_again() {
    let octets: Vec<u8> = (0..250).collect();
    let mut talk = Talk::open(true);
    talk.receive(0, ACK, &octets[..50]);
    talk.wait(Duration::from_millis(1));

    let [(answer, _)] = &talk.receive(100, ACK, &octets[100..150])[..] else { panic!("not one") };
    assert_eq!(offset(answer.ack), 50);
    assert_eq!(ranges(answer), [(100, 150)]);
    let [(answer, _)] = &talk.receive(200, ACK.with(Flags::FIN), &octets[200..])[..] else {
        panic!("not one")
    };
    assert_eq!(ranges(answer), [(200, 250), (100, 150)]);
    let [(answer, _)] = &talk.receive(50, ACK, &octets[50..100])[..] else { panic!("not one") };
    assert_eq!((offset(answer.ack), ranges(answer)), (150, vec![(200, 250)]));
    let [(answer, _)] = &talk.receive(150, ACK, &octets[150..200])[..] else { panic!("not one") };
    assert_eq!((offset(answer.ack), ranges(answer)), (251, vec![]), "and the FIN");

    assert_eq!(talk.socket.received, octets);
    assert!(talk.socket.shut_down);
    assert_eq!(talk.credit.backlog(), 0);
}

/// The ranges that a header describes.
fn ranges(header: &ToSend) -> Vec<(u32, u32)> {
    header.sack.as_slice().iter().map(|(from, to)| (offset(*from), offset(*to))).collect()
}

#[test]
fn duplicate_is_reported_once_in_a_d_sack_block() {
    let octets: Vec<u8> = (0..250).collect();
    let mut talk = Talk::open(true);
    talk.receive(0, ACK, &octets[..100]);
    talk.wait(Duration::from_millis(1));
    // The last of it, all of it, and with new octets behind it; then in front of a hole.
    for (from, to, acked) in [(50, 100, (50, 100)), (0, 40, (0, 40)), (80, 120, (80, 100))] {
        let [(answer, _)] = &talk.receive(from as i64, ACK, &octets[from..to])[..] else {
            panic!("not one")
        };
        assert_eq!(ranges(answer), [acked]);
    }
    let [(answer, _)] = &talk.receive(200, ACK, &octets[200..])[..] else { panic!("not one") };
    assert_eq!(ranges(answer), [(200, 250)], "reported before");
    let [(answer, _)] = &talk.receive(110, ACK, &octets[110..120])[..] else { panic!("not one") };
    assert_eq!((offset(answer.ack), ranges(answer)), (120, vec![(110, 120), (200, 250)]));
    talk.receive(120, ACK, &octets[120..200]);
    assert_eq!(talk.socket.received, octets);

    let mut talk = Talk::open(false);
    talk.receive(0, ACK, &octets[..100]);
    talk.wait(Duration::from_millis(1));
    let [(answer, _)] = &talk.receive(0, ACK, &octets[..100])[..] else { panic!("not one") };
    assert_eq!((offset(answer.ack), ranges(answer)), (100, vec![]), "it would not understand");
}

#[test]
fn sender_without_sack_gets_a_duplicate_acknowledgement_for_each_segment_out_of_order() {
    let mut talk = Talk::open(false);
    for at in [100, 200, 300] {
        let answers = talk.receive(at, ACK, &[7; 100]);
        assert_eq!(answers.len(), 1);
        assert_eq!((offset(answers[0].0.ack), answers[0].0.sack.as_slice()), (0, &[][..]));
    }
    // Several in one batch: as many as start a fast retransmit.
    for at in [400, 500, 600, 700] {
        let header = talk.header(at, ACK);
        assert_eq!(talk.note(&header, &[7; 100]), Noted::Take(0..0));
    }
    assert_eq!(talk.run(&[]).len(), 3);
    let answers = talk.receive(0, ACK, &[7; 100]);
    assert_eq!(offset(answers[0].0.ack), 800);
    assert_eq!(talk.socket.received, [7; 800]);
}

#[test]
fn octets_out_of_order_are_bounded_by_the_window_and_the_backlog_of_all_flows() {
    let mut talk = Talk::open(true);
    talk.credit = CreditPool::new(100, 400);
    talk.receive(1000, ACK, &[1; 100]);
    talk.receive(3000, ACK, &[1; 100]);
    assert_eq!(talk.credit.backlog(), 100);
    let mut talk = Talk::open(true);
    let edge = offset(talk.relay.connection().clone().receiver().edge());
    talk.receive(i64::from(edge) - 10, ACK.with(Flags::FIN), &[1; 100]);
    assert_eq!(talk.credit.backlog(), 10);
    // The reset gives it back.
    talk.receive(0, Flags::RST.with(ACK), &[]);
    assert_eq!((talk.next, talk.credit.backlog()), (Next::Reset, 0));
}

#[test]
fn flow_is_aborted_when_octets_in_order_do_not_fit_the_backlog() {
    let mut talk = Talk::open(true);
    talk.credit = CreditPool::new(100, 250);
    talk.socket.room = 0;
    assert_eq!(talk.receive(0, ACK, &[1; 200]), [], "nothing is acknowledged that is not accepted");
    assert_eq!((talk.next, talk.credit.backlog()), (Next::Wait, 200));
    let [(reset, _)] = &talk.receive(200, ACK, &[1; 51])[..] else { panic!("no single answer") };
    assert!(reset.flags.contains(Flags::RST), "{reset:?}");
    assert_eq!((talk.next, talk.credit.backlog()), (Next::Reset, 0));
    assert!(talk.facts.backlog_overflowed);
}

#[test]
fn fin_is_sent_though_the_end_does_not_show_behind_octets_in_flight() {
    let mut talk = Talk::open(true);
    talk.socket.to_read = vec![7; 100];
    talk.relay.readable();
    let [(data, _)] = &talk.run(&[])[..] else { panic!("not one") };
    assert!(!data.flags.contains(Flags::FIN));
    talk.relay.ended();
    let [(fin, octets)] = &talk.run(&[])[..] else { panic!("not one") };
    assert!(fin.flags.contains(Flags::FIN) && octets.is_empty());
    assert_eq!(fin.seq, data.seq + 100);
}

#[test]
fn octets_behind_urgent_data_are_peeked_at_once_it_was_consumed() {
    let mut talk = Talk::open(true);
    (talk.socket.to_read, talk.socket.mark) = (b"helloX".to_vec(), Some(5));
    talk.socket.ended = true;
    talk.relay.urgent();
    talk.relay.ended();
    let [(data, octets)] = &talk.run(&[])[..] else { panic!("not one") };
    assert_eq!((&octets[..], data.flags.contains(Flags::FIN)), (&b"hello"[..], false));
    talk.receive(0, ACK, &[]);
    let due = talk.relay.deadline().expect("nothing is due").since(talk.now);
    assert!(due <= Duration::from_millis(20), "{due:?}");
    let [(last, octets)] = &talk.wait(due)[..] else { panic!("not one") };
    assert_eq!((&octets[..], last.flags.contains(Flags::FIN)), (&b"X"[..], false));
    let [(fin, _)] = &[talk.receive(0, ACK, &[]), talk.wait(due)].concat()[..] else {
        panic!("not one")
    };
    assert!(fin.flags.contains(Flags::FIN) && fin.seq == last.seq + 1);
}

#[test]
fn octets_that_the_peer_sent_before_it_failed_precede_the_reset() {
    for by_writing in [false, true] {
        let mut talk = Talk::open(true);
        talk.socket.to_read = vec![7; 70_000];
        let first = if by_writing {
            talk.socket.broken = true;
            talk.receive(0, ACK, &[1; 10])
        } else {
            talk.relay.failed();
            talk.run(&[])
        };
        let octets: usize = first.iter().map(|(_, octets)| octets.len()).sum();
        assert_eq!((octets, talk.next), (59_860, Next::Wait), "whole segments in the window");
        assert!(talk.relay.deadline() > Some(talk.now), "nothing is due for ever");
        let rest = talk.receive(if by_writing { 10 } else { 0 }, ACK, &[]);
        let octets: usize = rest.iter().map(|(_, octets)| octets.len()).sum();
        assert_eq!((octets, talk.next), (10_140, Next::Reset));
        let [.., (data, _), (reset, _)] = &rest[..] else { panic!("{rest:?}") };
        assert!(reset.flags.contains(Flags::RST) && !data.flags.contains(Flags::FIN));
        assert!(reset.seq.after(data.seq));
    }
    let mut relay =
        Relay::new(Connection::to_namespace(Instant::START, Seq::from(ISS), Mss::new(1460)));
    relay.connected();
    let socket = Socket { to_read: vec![7; 100], ..Socket::default() };
    let (now, credit) = (Instant::START, CreditPool::new(0, 0));
    let mut talk = Talk { now, relay, socket, credit, next: Next::Wait, facts: Facts::default() };
    talk.run(&[]);
    talk.relay.failed();
    talk.run(&[]);
    assert_eq!(talk.next, Next::Reset, "nobody is there yet");

    let mut talk = Talk::open(true);
    talk.relay.ended();
    talk.run(&[]);
    talk.relay.failed();
    let [(reset, _)] = &talk.run(&[])[..] else { panic!("not one") };
    assert!(reset.flags.contains(Flags::RST) && talk.next == Next::Reset);
}

#[test]
fn after_a_long_sleep_keepalives_are_sent_before_the_connection_is_aborted() {
    let mut talk = Talk::open(true);
    for _ in 0..5 {
        assert_eq!(talk.wait(Duration::from_secs(400)).len(), 1, "a keepalive");
        assert_eq!(talk.next, Next::Wait);
        assert!(talk.relay.deadline() > Some(talk.now), "time for an answer");
    }
    talk.wait(Duration::from_secs(400));
    assert_eq!(talk.next, Next::Reset);
}

#[test]
fn duplicate_that_is_not_acknowledged_yet_is_not_reported() {
    let mut talk = Talk::open(true);
    talk.socket.room = 100;
    talk.receive(0, ACK, &[1; 200]);
    let [(answer, _)] = &talk.receive(100, ACK, &[1; 100])[..] else { panic!("not one") };
    assert_eq!((offset(answer.ack), ranges(answer)), (100, vec![]));
    talk.socket.queued = 0;
    talk.relay.writable();
    let [(answer, _)] = &talk.run(&[])[..] else { panic!("not one") };
    assert_eq!((offset(answer.ack), ranges(answer)), (200, vec![(100, 200)]));
}

#[test]
fn reset_with_the_acknowledged_number_is_accepted_though_there_is_a_backlog() {
    let mut talk = Talk::open(true);
    talk.socket.room = 100;
    talk.receive(0, ACK, &[1; 200]);
    talk.receive(99, Flags::RST, &[]);
    assert_eq!(talk.next, Next::Wait);
    talk.receive(100, Flags::RST, &[]);
    assert_eq!((talk.next, talk.credit.backlog()), (Next::Reset, 0));
}

#[test]
fn what_follows_a_fin_at_the_end_of_the_window_counts() {
    let mut talk = Talk::open(true);
    let edge = offset(talk.relay.connection().clone().receiver().edge());
    talk.socket.room = 0;
    talk.receive(0, ACK, &vec![1; edge as usize]);
    talk.receive(edge.into(), ACK.with(Flags::FIN), &[]);
    talk.socket.to_read = vec![7; 100];
    talk.relay.readable();
    assert_eq!(talk.run(&[])[0].1.len(), 100);
    talk.receive(i64::from(edge) + 1, ACK, &[]);
    let mut connection = talk.relay.connection().clone();
    let all = connection.sender().highest();
    assert_eq!(connection.sender().unacknowledged(), all);
}

#[test]
fn reset_counts_with_the_exact_number_and_is_challenged_elsewhere_in_the_window() {
    let mut talk = Talk::open(true);
    let rst = Flags::RST.with(ACK);
    for outside in [-1, 10_000_000] {
        assert_eq!(talk.receive(outside, rst, &[]), [], "ignored");
    }
    let [(challenge, _)] = &talk.receive(1, rst, &[])[..] else { panic!("no challenge") };
    assert_eq!((offset(challenge.ack), challenge.flags), (0, ACK));
    assert_eq!(talk.next, Next::Wait);
    talk.receive(0, rst, &[]);
    assert_eq!(talk.next, Next::Reset);
}

#[test]
fn syn_in_an_open_connection_is_challenged() {
    let mut talk = Talk::open(true);
    for seq in [IRS.wrapping_add(5000), 5] {
        assert_eq!(talk.note(&syn(seq), &[]), Noted::Take(0..0));
        let [(challenge, _)] = &talk.run(&[])[..] else { panic!("no challenge") };
        assert_eq!((offset(challenge.ack), challenge.flags), (0, ACK));
    }
}

#[test]
fn syn_after_fin_of_the_namespace_is_a_new_incarnation() {
    let mut talk = Talk::open(true);
    talk.receive(0, ACK.with(Flags::FIN), &[]);
    assert_eq!(talk.note(&syn(IRS), &[]), Noted::Take(0..0), "a late copy of the first one");
    assert_eq!(talk.note(&syn(IRS.wrapping_add(5000)), &[]), Noted::NewConnection);
    assert_eq!(talk.run(&[]), []);
    assert_eq!(talk.next, Next::Reset);
}

#[test]
fn another_syn_while_the_socket_connects_is_a_new_incarnation() {
    let connection =
        Connection::from_syn(Instant::START, &syn(IRS), Seq::from(ISS), Mss::new(1460));
    let mut relay = Relay::new(connection);
    let mut credit = CreditPool::new(1 << 20, 1 << 22);
    let mut note = |seq| relay.segment(Instant::START, &syn(seq), &[], &mut credit);
    assert_eq!(note(IRS), Noted::Take(0..0), "retransmitted while it waits");
    assert_eq!(note(IRS.wrapping_add(5000)), Noted::NewConnection);
}

#[test]
fn keepalive_is_answered_and_noticed() {
    let mut talk = Talk::open(true);
    talk.receive(0, ACK, &[1; 10]);
    talk.wait(Duration::from_millis(1));
    assert!(!talk.relay.connection().is_keepalive_received());
    let [(answer, _)] = &talk.receive(9, ACK, &[])[..] else { panic!("no answer") };
    assert_eq!(offset(answer.ack), 10);
    assert!(talk.relay.connection().is_keepalive_received());
}

#[test]
fn window_update_that_opens_a_zero_window_is_retransmitted_until_the_sender_goes_on() {
    let mut talk = Talk::open(true);
    let edge = offset(talk.relay.connection().clone().receiver().edge()) as usize;
    talk.socket.room = edge as u32;
    talk.receive(0, ACK, &vec![1; edge]);
    talk.socket.queued = 0;
    talk.relay.writable();
    let opened = talk.run(&[]);
    assert!(opened[0].0.window > WireWindow::ZERO);

    let again = talk.wait(Duration::from_millis(200));
    assert_eq!((again.len(), again[0].0.ack), (1, opened[0].0.ack));
    assert_eq!(talk.wait(Duration::from_millis(200)), [], "not so soon");
    assert_eq!(talk.wait(Duration::from_millis(200)).len(), 1);
    talk.receive(edge as i64, ACK, &[1; 10]);
    talk.wait(Duration::from_millis(1));
    assert_eq!(talk.wait(Duration::from_secs(10)), [], "it goes on");
}

#[test]
fn octets_out_of_order_follow_all_parts_of_the_batch_that_fills_the_hole() {
    let octets: Vec<u8> = (0..100).collect();
    let mut talk = Talk::open(true);
    talk.receive(60, ACK, &octets[60..]);
    for at in [0, 30] {
        let header = talk.header(at, ACK);
        assert_eq!(talk.note(&header, &octets[at as usize..][..30]), Noted::Take(0..30));
    }
    talk.run(&octets[..30]);
    talk.run(&octets[30..60]);
    assert_eq!(talk.socket.received, octets);
    assert_eq!(talk.credit.backlog(), 0);
}

#[test]
fn window_grows_in_turn_once_all_credit_is_lent() {
    let mut talk = Talk::open(true);
    let edge = |talk: &Talk| offset(talk.relay.connection().clone().receiver().edge());
    let first = edge(&talk);
    talk.credit.set_limits(WindowLimits { least: 0, most: 50_000, all: u64::from(first) });
    talk.credit.set_queue(CreditQueue::Waiting);

    talk.receive(0, ACK, &vec![1; first as usize - 100]);
    assert!(talk.facts.credit_wanted);
    assert_eq!(edge(&talk), first, "others are first");

    talk.credit.set_queue(CreditQueue::Empty);
    talk.relay.grow_window();
    let opened = talk.run(&[]);
    assert!(edge(&talk) > first && opened.len() == 1 && opened[0].0.window > WireWindow::ZERO);
    assert!(!talk.facts.credit_wanted);
    assert_eq!(talk.socket.received.len(), first as usize - 100);
}

#[test]
fn window_in_the_handshake_is_zero_once_all_credit_is_lent() {
    let mut relay =
        Relay::new(Connection::from_syn(Instant::START, &syn(IRS), Seq::from(ISS), Mss::new(1460)));
    relay.connected();
    let socket = Socket { room: 400_000, ..Socket::default() };
    let mut credit = CreditPool::new(0, 0);
    credit.set_limits(WindowLimits { least: 0, most: 50_000, all: 0 });
    let mut talk = Talk {
        now: Instant::START,
        relay,
        socket,
        credit,
        next: Next::Wait,
        facts: Facts::default(),
    };
    assert_eq!(talk.run(&[])[0].0.window, WireWindow::ZERO);
    talk.receive(0, ACK, &[]);
    assert!(talk.facts.credit_wanted);

    talk.credit.set_limits(WindowLimits { least: 0, most: 50_000, all: 40_000 });
    talk.relay.grow_window();
    assert!(talk.run(&[])[0].0.window > WireWindow::ZERO);
    assert!(!talk.credit.has_credit(), "until it is used, or the flow ends");
    talk.receive(0, Flags::RST.with(ACK), &[]);
    assert!(talk.credit.may_lend());
}

#[test]
fn urgent_data_is_carried_as_what_it_is_in_line() {
    let mut talk = Talk::open(true);
    let urgent = Flags::from_octet(0x30);
    talk.receive(0, urgent, b"interrupt");
    talk.receive(9, ACK, b" and more");
    assert_eq!(talk.socket.received, b"interrupt and more");
}

#[test]
fn congestion_marks_change_nothing() {
    let mut talk = Talk::open(true);
    // ECE and CWR: not offered in the handshake, so to be ignored (RFC 3168, section 6.1.1).
    let answers = talk.receive(0, Flags::from_octet(0xd0), &[1; 2000]);
    assert_eq!(offset(answers[0].0.ack), 2000);
    assert_eq!(answers[0].0.flags, ACK);
}

#[test]
fn segments_shrink_with_the_tap() {
    let mut talk = Talk::open(true);
    talk.socket.to_read = vec![1; 5000];
    talk.relay.limit_mss(Mss::new(500));
    talk.relay.readable();
    let sizes: Vec<usize> = talk.run(&[]).iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(sizes, [500; 10]);
    // A larger tap later does not change what the namespace said it takes.
    talk.relay.limit_mss(Mss::new(9000));
    assert_eq!(talk.relay.connection().send_mss(), Mss::new(500));
}

#[test]
fn host_that_is_slow_to_connect_is_waited_for_in_silence() {
    let connection =
        Connection::from_syn(Instant::START, &syn(IRS), Seq::from(ISS), Mss::new(1460));
    let relay = Relay::new(connection);
    assert_eq!(relay.deadline(), None, "the host's kernel knows when to give up");
}

#[test]
fn syn_ack_is_retransmitted_until_it_is_acknowledged() {
    let connection =
        Connection::from_syn(Instant::START, &syn(IRS), Seq::from(ISS), Mss::new(1460));
    let mut relay = Relay::new(connection);
    relay.connected();
    let socket = Socket { room: 400_000, ..Socket::default() };
    let (now, credit) = (Instant::START, CreditPool::new(1 << 20, 1 << 22));
    let mut talk = Talk { now, relay, socket, credit, next: Next::Wait, facts: Facts::default() };
    let first = talk.run(&[]);
    for seconds in [1, 2, 4, 8] {
        let due = talk.relay.deadline().unwrap();
        assert_eq!(due.since(talk.now), Duration::from_secs(seconds));
        let again = talk.wait(Duration::from_secs(seconds));
        assert_eq!(
            (again.len(), again[0].0.seq, again[0].0.syn),
            (1, first[0].0.seq, first[0].0.syn)
        );
    }
}

#[test]
fn live_connection_is_never_ended_for_being_idle() {
    // RFC 5382, REQ-5 asks for two hours and four minutes; ours has no limit while it is answered.
    let mut talk = Talk::open(true);
    let end = talk.now + Duration::from_secs(3 * 3600);
    while talk.now < end {
        let due = talk.relay.deadline().unwrap();
        let probes = talk.wait(due.since(talk.now));
        assert_eq!((talk.next, probes.len()), (Next::Wait, 1));
        talk.receive(0, ACK, &[]);
    }
}
