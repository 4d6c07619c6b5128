#![forbid(unsafe_code)]
//! Sockets that live inside the namespace: those in stock, and what was asked of the monitor.
//!
//! Nothing is asked for before the first flow that needs a socket; then the stock is kept filled, so that
//! the next flows need not wait. It goes before a flow is refused for lack of descriptors. Requests are few at a time and each is answered or refused once.

use pasta_ipc::DatapathToMonitor;
use pasta_ipc::message::MAX_REQUESTS;
use pasta_ipc::socket::{MAX_SOCKETS, NamespaceListener, RequestId, SocketCount, SocketKind};
use pasta_ipc::types::Transport;
use std::collections::{BTreeMap, VecDeque};

/// With fewer than this in stock more are asked for; chosen: half of what one message brings.
const LOW: usize = MAX_SOCKETS as usize / 2;

/// Flows that may wait for a socket of one kind; chosen: as many as can be asked for at once.
pub const MAX_WAITING: usize = MAX_REQUESTS * MAX_SOCKETS as usize / 2;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// So many sockets that connect.
    Sockets(SocketKind, SocketCount),
    /// A listener.
    Listener(NamespaceListener),
}

/// Sockets of one kind.
#[derive(Debug)]
struct Stock<W, K> {
    sockets: Vec<K>,
    /// Who waits for one, first come first served.
    waiting: VecDeque<W>,
    /// How many are asked for.
    coming: usize,
    /// One was needed before.
    used: bool,
}

impl<W, K> Default for Stock<W, K> {
    fn default() -> Self {
        Self { sockets: Vec::new(), waiting: VecDeque::new(), coming: 0, used: false }
    }
}

/// The stock of every kind, for flows that are named by `W`.
#[derive(Debug)]
pub struct Pool<W, K> {
    stocks: BTreeMap<SocketKind, Stock<W, K>>,
    outstanding: BTreeMap<RequestId, Request>,
    last: RequestId,
}

impl<W, K> Default for Pool<W, K> {
    fn default() -> Self {
        let last = RequestId::default();
        Self { stocks: BTreeMap::new(), outstanding: BTreeMap::new(), last }
    }
}

/// As many flows wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<W, K> Pool<W, K> {
    /// A socket from stock; none: [`Pool::wait`] for one.
    pub fn take(&mut self, kind: SocketKind) -> Option<K> {
        let stock = self.stocks.entry(kind).or_default();
        stock.used = true;
        stock.sockets.pop()
    }

    /// Notes that `who` waits for a socket.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn wait(&mut self, kind: SocketKind, who: W) -> Result<(), Full> {
        let stock = self.stocks.entry(kind).or_default();
        if stock.waiting.len() >= MAX_WAITING {
            return Err(Full);
        }
        stock.used = true;
        stock.waiting.push_back(who);
        Ok(())
    }

    /// What is to be asked for next, if anything is and may be; it counts as asked. Those who wait have a
    /// descriptor set aside; for stock there are `spare` ones.
    pub fn next_request(&mut self, spare: usize) -> Option<DatapathToMonitor> {
        if self.outstanding.len() >= MAX_REQUESTS {
            return None;
        }
        let wish = self.stocks.iter_mut().find_map(|(kind, stock)| {
            let (supply, waiting) = (stock.sockets.len() + stock.coming, stock.waiting.len());
            if !stock.used || supply >= LOW + waiting {
                return None;
            }
            let count = waiting.saturating_sub(supply) + spare;
            let count = u8::try_from(count).map_or(MAX_SOCKETS, |count| count.min(MAX_SOCKETS));
            Some((*kind, stock, SocketCount::try_from(count).ok()?))
        });
        let (kind, stock, count) = wish?;
        stock.coming += usize::from(count.get());
        let request = self.name(Request::Sockets(kind, count));
        Some(DatapathToMonitor::SocketsWanted { request, kind, count })
    }

    /// Descriptors that are in stock or on their way, and that nobody waits for.
    pub fn held(&self) -> usize {
        let held =
            |it: &Stock<W, K>| (it.sockets.len() + it.coming).saturating_sub(it.waiting.len());
        self.stocks.values().map(held).sum()
    }

    /// Closes sockets in stock, up to so many; gives how many those were.
    pub fn shrink(&mut self, mut count: usize) -> usize {
        let before = count;
        while count > 0 {
            let largest = self.stocks.values_mut().max_by_key(|stock| stock.sockets.len());
            if largest.and_then(|stock| stock.sockets.pop()).is_none() {
                break;
            }
            count -= 1;
        }
        before - count
    }

    /// As [`Pool::next_request`], for a listener.
    pub fn listener_request(&mut self, listener: NamespaceListener) -> Option<DatapathToMonitor> {
        if self.outstanding.len() >= MAX_REQUESTS {
            return None;
        }
        let request = self.name(Request::Listener(listener));
        Some(DatapathToMonitor::ListenerWanted { request, listener })
    }

    fn name(&mut self, request: Request) -> RequestId {
        self.last = RequestId(self.last.0.wrapping_add(1));
        self.outstanding.insert(self.last, request);
        self.last
    }

    /// Takes back a request that could not be sent.
    pub fn not_sent(&mut self, message: &DatapathToMonitor) {
        match message {
            DatapathToMonitor::SocketsWanted { request, .. }
            | DatapathToMonitor::ListenerWanted { request, .. } => {
                self.answered(*request);
                self.last = RequestId(self.last.0.wrapping_sub(1));
            }
            DatapathToMonitor::Hello(_) | DatapathToMonitor::FlowsReset { .. } => {}
        }
    }

    /// What `request` was for; none: it was never made, or was answered before.
    pub fn answered(&mut self, request: RequestId) -> Option<Request> {
        let answered = self.outstanding.remove(&request)?;
        if let Request::Sockets(kind, count) = answered {
            if let Some(stock) = self.stocks.get_mut(&kind) {
                stock.coming = stock.coming.saturating_sub(usize::from(count.get()));
            }
        }
        Some(answered)
    }

    /// Takes in sockets of `kind`; gives each that somebody waits for to whom it is for.
    pub fn fill(&mut self, kind: SocketKind, sockets: Vec<K>) -> Vec<(W, K)> {
        let stock = self.stocks.entry(kind).or_default();
        let mut given = Vec::new();
        for socket in sockets {
            match stock.waiting.pop_front() {
                Some(who) => given.push((who, socket)),
                None => stock.sockets.push(socket),
            }
        }
        given
    }

    /// Whether as many flows as may wait for sockets of some kind of `transport`.
    pub fn is_full(&self, transport: Transport) -> bool {
        let full = |(kind, stock): (&SocketKind, &Stock<W, K>)| {
            kind.transport == transport && stock.waiting.len() >= MAX_WAITING
        };
        self.stocks.iter().any(full)
    }

    /// Everybody who waits for a socket of `kind`, when there are to be none. Nothing is asked for again
    /// before the next flow needs one: what was refused once would be refused at once.
    pub fn give_up(&mut self, kind: SocketKind) -> impl Iterator<Item = W> {
        self.stocks.get_mut(&kind).into_iter().flat_map(|stock| {
            stock.used = false;
            stock.waiting.drain(..)
        })
    }

    /// As [`Pool::give_up`] for every kind, when the monitor has gone: nothing is answered any more.
    pub fn give_up_all(&mut self) -> impl Iterator<Item = W> {
        self.outstanding.clear();
        self.stocks.values_mut().flat_map(|stock| {
            stock.coming = 0;
            stock.waiting.drain(..)
        })
    }
}

/// The kind of socket that connects to an address.
pub fn kind_for(address: std::net::SocketAddr, transport: Transport) -> SocketKind {
    SocketKind { ipv6: address.is_ipv6(), transport }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    const KIND: SocketKind = SocketKind { ipv6: false, transport: Transport::Tcp };

    fn sockets(count: usize) -> Vec<OwnedFd> {
        (0..count).map(|_| std::fs::File::open("/dev/null").unwrap().into()).collect()
    }

    fn request(message: Option<DatapathToMonitor>) -> RequestId {
        match message {
            Some(DatapathToMonitor::SocketsWanted { request, kind: KIND, .. }) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_asked_for_before_it_is_needed_and_then_the_stock_is_kept() {
        let mut pool = Pool::<_, OwnedFd>::default();
        assert_eq!(pool.next_request(100), None);
        assert!(pool.take(KIND).is_none());
        pool.wait(KIND, "flow").unwrap();
        let id = request(pool.next_request(100));
        assert_eq!(pool.next_request(100), None, "one brings enough");
        assert_eq!(
            pool.answered(id),
            Some(Request::Sockets(KIND, SocketCount::try_from(32).unwrap()))
        );
        assert_eq!(pool.answered(id), None, "once");
        let given = pool.fill(KIND, sockets(32));
        assert_eq!(given.iter().map(|(who, _)| *who).collect::<Vec<_>>(), ["flow"]);
        for _ in 0..31 - LOW {
            assert!(pool.take(KIND).is_some());
            assert_eq!(pool.next_request(100), None);
        }
        assert!(pool.take(KIND).is_some());
        assert!(pool.next_request(100).is_some());
    }

    #[test]
    fn many_that_wait_are_asked_for_together_and_bounded() {
        let mut pool = Pool::<_, OwnedFd>::default();
        for n in 0..MAX_WAITING {
            pool.wait(KIND, n).unwrap();
        }
        assert_eq!((pool.is_full(Transport::Tcp), pool.wait(KIND, 0)), (true, Err(Full)));
        let mut requests = 0;
        while pool.next_request(100).is_some() {
            requests += 1;
        }
        assert_eq!(requests, (MAX_WAITING + LOW).div_ceil(usize::from(MAX_SOCKETS)));
        assert_eq!(pool.give_up_all().count(), MAX_WAITING);
    }

    #[test]
    fn after_a_refusal_nothing_is_asked_for_before_it_is_needed() {
        let mut pool = Pool::<_, OwnedFd>::default();
        pool.wait(KIND, "flow").unwrap();
        let id = request(pool.next_request(100));
        pool.answered(id);
        assert_eq!(pool.give_up(KIND).collect::<Vec<_>>(), ["flow"]);
        assert_eq!(pool.next_request(100), None);
        assert!(pool.take(KIND).is_none());
        assert!(pool.next_request(100).is_some());
    }

    #[test]
    fn without_spare_descriptors_only_those_who_wait_are_served() {
        let mut pool = Pool::<_, OwnedFd>::default();
        (0..3).for_each(|who| pool.wait(KIND, who).unwrap());
        assert_eq!(pool.held(), 0);
        let Some(DatapathToMonitor::SocketsWanted { count, .. }) = pool.next_request(0) else {
            panic!("nobody asks");
        };
        assert_eq!((count.get(), pool.held()), (3, 0));
        assert_eq!(pool.next_request(0), None);
        assert!(pool.next_request(2).is_some());
        assert_eq!(pool.held(), 2);
    }

    #[test]
    fn stock_shrinks_from_the_largest_and_by_no_more_than_there_is() {
        let mut pool = Pool::<(), OwnedFd>::default();
        let other = SocketKind { ipv6: true, ..KIND };
        pool.fill(KIND, sockets(5));
        pool.fill(other, sockets(2));
        assert_eq!((pool.shrink(3), pool.held()), (3, 4));
        assert_eq!(pool.stocks.get(&other).map(|it| it.sockets.len()), Some(2));
        assert_eq!((pool.shrink(9), pool.shrink(1), pool.held()), (4, 0, 0));
    }

    #[test]
    fn request_that_was_not_sent_can_be_made_again_under_the_same_name() {
        let mut pool = Pool::<(), OwnedFd>::default();
        pool.take(KIND);
        let message = pool.next_request(100).unwrap();
        pool.not_sent(&message);
        assert_eq!(pool.next_request(100), Some(message));
    }

    #[test]
    fn requests_are_bounded() {
        let mut pool = Pool::<(), OwnedFd>::default();
        let listener = |port: u16| NamespaceListener {
            transport: Transport::Tcp,
            family: pasta_ipc::socket::SocketFamily::Both,
            port: port.try_into().unwrap(),
        };
        for port in 1..=MAX_REQUESTS as u16 {
            assert!(pool.listener_request(listener(port)).is_some());
        }
        assert!(pool.listener_request(listener(1000)).is_none());
    }
}
