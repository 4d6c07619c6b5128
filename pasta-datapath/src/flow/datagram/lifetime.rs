//! How long a flow of datagrams lives after its last one.
//!
//! 30 s while only the side that opened it has sent, as Linux tracks connections (`nf_conntrack_udp_timeout`; RFC 4787,
//! REQ-5, asks for 2 min at least, which would hold four times as many ports for what nobody answers), 180 s once both
//! have; echo 60 s (RFC 5508, REQ-2: 60 s at least). A DNS exchange is over with its answer: 10 s are left for
//! one that is repeated. A flow to port 53 is such an exchange as long as it is nothing but a few queries and
//! answers to them (`Exchange`): a tunnel over that port, or a client that keeps one socket for all it asks, has
//! a flow like any other.

use crate::nat::Protocol;
use crate::time::Instant;
use std::time::Duration;

const ONE_WAY: Duration = Duration::from_secs(30);
const TWO_WAY: Duration = Duration::from_secs(180);
const DNS_ANSWERED: Duration = Duration::from_secs(10);
const ECHO: Duration = Duration::from_secs(60);

const DNS_PORT: u16 = 53;

/// Queries of one exchange; chosen: a client asks for both families, and each a few times over (resolv.conf(5)).
const MAX_QUERIES: usize = 8;

/// What the life of a flow depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    protocol: Protocol,
    last_active: Instant,
    /// The other side has sent too.
    answered: bool,
    /// There is one as long as the flow looks like it.
    exchange: Option<Exchange>,
    /// Octets of the side that opened it, and of the other one.
    octets: [u64; 2],
}

impl Lifetime {
    /// A flow to `port` begins.
    pub fn new(now: Instant, protocol: Protocol, port: u16) -> Self {
        let is_dns = protocol == Protocol::Udp && port == DNS_PORT;
        let exchange = is_dns.then(Exchange::default);
        Self { protocol, last_active: now, answered: false, exchange, octets: [0; 2] }
    }

    /// The side that opened it has sent something; [`Lifetime::query`] takes each datagram.
    pub fn sent(&mut self, now: Instant) {
        self.last_active = now;
    }

    /// The other side has sent something; [`Lifetime::answer`] takes each datagram.
    pub fn answered(&mut self, now: Instant) {
        (self.last_active, self.answered) = (now, true);
    }

    /// No answer to what was sent can come any more.
    pub fn begin_again(&mut self) {
        self.answered = false;
    }

    /// Whether the other side has sent.
    pub fn is_two_way(&self) -> bool {
        self.answered
    }

    /// Takes in a datagram of the side that opened it, or several in one, each of this size.
    #[inline]
    pub fn query(&mut self, payload: &[u8], segment_size: Option<u16>) {
        let [queries, _] = &mut self.octets;
        *queries += payload.len() as u64;
        self.look_at(segment_size, |exchange| exchange.query(payload));
    }

    /// Takes in a datagram of the other side, or several in one, each of this size.
    #[inline]
    pub fn answer(&mut self, payload: &[u8], segment_size: Option<u16>) {
        let [_, answers] = &mut self.octets;
        *answers += payload.len() as u64;
        self.look_at(segment_size, |exchange| exchange.answer(payload));
    }

    /// Octets of the side that opened it, and of the other one.
    pub fn octets(&self) -> [u64; 2] {
        self.octets
    }

    /// `look` says whether the flow still looks like an exchange.
    fn look_at(&mut self, segment_size: Option<u16>, look: impl FnOnce(&mut Exchange) -> bool) {
        let Some(exchange) = &mut self.exchange else { return };
        if segment_size.is_some() || !look(exchange) {
            self.exchange = None;
        }
    }

    /// When the flow ends unless something happens before.
    pub fn deadline(&self) -> Instant {
        let left = match (self.protocol, self.answered, &self.exchange) {
            (Protocol::Echo, ..) => ECHO,
            (_, false, _) => ONE_WAY,
            (_, true, Some(exchange)) if exchange.is_over() => DNS_ANSWERED,
            (_, true, Some(_)) => ONE_WAY,
            (_, true, None) => TWO_WAY,
        };
        self.last_active + left
    }
}

/// Queries that were sent and answers to them, by the number that both carry (RFC 1035, section 4.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Exchange {
    asked: [u16; MAX_QUERIES],
    count: usize,
    /// A bit for each that is answered.
    answered: u8,
}

impl Exchange {
    /// Whether every query has its answer.
    fn is_over(&self) -> bool {
        self.answered.count_ones() as usize == self.count
    }

    /// Which query has the number `id`.
    fn position(&self, id: u16) -> Option<usize> {
        self.asked.iter().take(self.count).position(|it| *it == id)
    }

    /// Takes in a query; `false` if it is none, or one too many.
    fn query(&mut self, payload: &[u8]) -> bool {
        let Some(id) = query_id(payload) else { return false };
        if self.position(id).is_some() {
            return true;
        }
        let Some(free) = self.asked.get_mut(self.count) else { return false };
        *free = id;
        self.count += 1;
        true
    }

    /// Takes in an answer; `false` if it is none to any of the queries.
    fn answer(&mut self, payload: &[u8]) -> bool {
        let Some((Header { id, is_response: true, .. }, _)) = header(payload) else { return false };
        let Some(position) = self.position(id) else { return false };
        self.answered |= 1 << position;
        true
    }
}

/// The front of a DNS message.
struct Header {
    id: u16,
    is_response: bool,
    /// Questions, answers, authorities.
    counts: [u16; 3],
}

/// The header of a DNS message, and what is behind it (RFC 1035, section 4.1.1).
fn header(payload: &[u8]) -> Option<(Header, &[u8])> {
    let (octets, rest) = payload.split_first_chunk::<12>()?;
    let [i0, i1, flags, _, q0, q1, a0, a1, n0, n1, _, _] = *octets;
    let counts = [[q0, q1], [a0, a1], [n0, n1]].map(u16::from_be_bytes);
    let id = u16::from_be_bytes([i0, i1]);
    Some((Header { id, is_response: flags & 0x80 != 0, counts }, rest))
}

/// The number of a query, if that is what `payload` is: a header and one question (RFC 1035, section 4.1.2; what
/// follows are options, RFC 6891).
fn query_id(payload: &[u8]) -> Option<u16> {
    let (Header { id, is_response: false, counts: [1, 0, 0] }, mut rest) = header(payload)? else {
        return None;
    };
    // Labels of 1 to 63 octets, and the root at the end; type and class.
    loop {
        let (length, behind) = rest.split_first()?;
        if *length == 0 {
            return (behind.len() >= 4).then_some(id);
        }
        let is_label = *length <= 63;
        rest = behind.get(usize::from(*length)..).filter(|_| is_label)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query for the address of example.test.
    fn query(id: u8) -> Vec<u8> {
        let mut octets = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        octets.extend_from_slice(b"\x07example\x04test\0\0\x01\0\x01");
        octets
    }

    fn answer(id: u8) -> Vec<u8> {
        let mut octets = query(id);
        octets[2] |= 0x80;
        octets
    }

    fn to(port: u16) -> Lifetime {
        Lifetime::new(Instant::START, Protocol::Udp, port)
    }

    fn seconds(lifetime: &Lifetime) -> u64 {
        lifetime.deadline().since(Instant::START).as_secs()
    }

    /// A flow with these datagrams, `>` from the side that opened it and `<` from the other.
    fn after(datagrams: &[(char, Vec<u8>)]) -> u64 {
        let mut lifetime = to(53);
        for (direction, octets) in datagrams {
            if *direction == '>' {
                lifetime.query(octets, None);
                lifetime.sent(Instant::START);
            } else {
                lifetime.answer(octets, None);
                lifetime.answered(Instant::START);
            }
        }
        seconds(&lifetime)
    }

    #[test]
    fn answered_queries_are_over_soon_and_one_without_an_answer_waits() {
        assert_eq!(after(&[('>', query(1))]), 30);
        assert_eq!(after(&[('>', query(1)), ('<', answer(1))]), 10);
        let both = [('>', query(1)), ('>', query(2)), ('<', answer(2))];
        assert_eq!(after(&both), 30);
        assert_eq!(after(&[&both[..], &[('<', answer(1))]].concat()), 10);
        let repeated = [('>', query(1)), ('>', query(1)), ('<', answer(1)), ('<', answer(1))];
        assert_eq!(after(&repeated), 10);
    }

    #[test]
    fn what_is_no_dns_is_a_flow_like_any_other() {
        // A first message of WireGuard: type, index, random octets.
        let mut handshake = vec![1, 0, 0, 0, 0x5b, 0xe1, 0x17, 0x33];
        handshake.resize(148, 0x9c);
        for first in [handshake, vec![], vec![0; 12], query(1)[..20].to_vec(), vec![0xff; 40]] {
            assert_eq!(after(&[('>', first), ('<', answer(1))]), 180);
        }
        assert_eq!(after(&[('>', query(1)), ('<', b"no answer".to_vec())]), 180);
        assert_eq!(after(&[('>', query(1)), ('<', query(1))]), 180, "a question is no answer");
        assert_eq!(after(&[('>', query(1)), ('<', answer(2))]), 180, "to nothing that was asked");
        let tunnel = [('>', query(1)), ('<', answer(1)), ('>', b"\x04\0\0\0".to_vec())];
        assert_eq!(after(&tunnel), 180);
    }

    #[test]
    fn many_queries_are_a_flow_like_any_other() {
        let exchange = |n: u8| [('>', query(n)), ('<', answer(n))];
        let few: Vec<_> = (0..MAX_QUERIES as u8).flat_map(exchange).collect();
        assert_eq!(after(&few), 10);
        assert_eq!(after(&[&few[..], &exchange(200)].concat()), 180);
    }

    #[test]
    fn several_datagrams_in_one_are_no_exchange() {
        let mut lifetime = to(53);
        lifetime.query(&[query(1), query(2)].concat(), Some(29));
        lifetime.answered(Instant::START);
        assert_eq!(seconds(&lifetime), 180);
    }

    #[test]
    fn other_ports_and_echo_have_lives_of_their_own() {
        let mut quic = to(853);
        assert_eq!(seconds(&quic), 30);
        quic.query(&query(1), None);
        quic.answer(&answer(1), None);
        quic.answered(Instant::START);
        assert_eq!(seconds(&quic), 180);
        assert_eq!(seconds(&Lifetime::new(Instant::START, Protocol::Echo, 0)), 60);
    }
}
