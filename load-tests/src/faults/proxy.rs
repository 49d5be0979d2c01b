//! A TCP proxy whose connections can be slowed, held and cut while it runs: the network between two
//! processes.
//!
//! Invariant: it never loses, repeats or reorders a byte of a connection that it does not cut: what was held
//! goes on where it stopped. What it does can be changed at any time and holds for all its connections at
//! once. Deliberately absent: any protocol.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

/// Read at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// Chunks on their way in one direction of one connection; about what a network and its sockets hold.
const CHUNKS_IN_FLIGHT: usize = 64;

/// What a proxy does with everything that goes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Lets it pass.
    Pass,
    /// Lets it pass later, in each direction.
    Delay(Duration),
    /// A black hole: connections are accepted and kept, and nothing passes.
    Hold,
    /// Requests pass, answers don't.
    Mute,
    /// Resets all connections, and each new one.
    Cut,
    /// Lets it pass until a request holds this.
    Trip(Trip),
}

/// Where to stop in the middle of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trip {
    /// What a request must hold. If it lies across two packets it may be missed, and the next one is taken.
    pub pattern: &'static [u8],
    /// Whether the request itself still passes; its answer does not. [`Mode::Mute`] from then on, otherwise
    /// [`Mode::Hold`].
    pub is_let_through: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

impl Mode {
    const fn passes(self, direction: Direction) -> bool {
        match self {
            Self::Pass | Self::Delay(_) | Self::Trip(_) => true,
            Self::Mute => matches!(direction, Direction::Request),
            Self::Hold | Self::Cut => false,
        }
    }

    const fn delay(self) -> Duration {
        match self {
            Self::Delay(delay) => delay,
            _ => Duration::ZERO,
        }
    }
}

#[derive(Clone, Copy)]
struct Control {
    mode: Mode,
    target: Option<SocketAddr>,
}

/// A proxy on a loopback port of its own. Ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    control: watch::Sender<Control>,
    accepting: JoinHandle<()>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} to {:?}", self.mode, self.target)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // The tasks that still serve a connection see it as cut.
        self.set(Mode::Cut);
    }
}

impl Proxy {
    /// Listens; leads nowhere yet: a connection is reset.
    pub async fn listen() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (control, watched) = watch::channel(Control { mode: Mode::Pass, target: None });
        let accepting = tokio::spawn(accept(listener, control.clone(), watched));
        Ok(Self { address, control, accepting })
    }

    /// Where it listens; the same for as long as it lives.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections there.
    pub fn lead_to(&self, target: SocketAddr) {
        self.control.send_modify(|control| control.target = Some(target));
    }

    /// Does this from now on.
    pub fn set(&self, mode: Mode) {
        self.control.send_modify(|control| control.mode = mode);
    }

    /// What it does now.
    pub fn mode(&self) -> Mode {
        self.control.borrow().mode
    }

    /// Waits, within `patience`, until [`Mode::Trip`] was tripped. If it was not, everything goes on passing.
    pub async fn tripped(&self, patience: Duration) -> bool {
        let mut watched = self.control.subscribe();
        if timeout(patience, watched.wait_for(|control| !matches!(control.mode, Mode::Trip(_)))).await.is_ok() {
            return true;
        }
        let mut is_tripped = true;
        self.control.send_modify(|control| {
            if matches!(control.mode, Mode::Trip(_)) {
                (control.mode, is_tripped) = (Mode::Pass, false);
            }
        });
        is_tripped
    }
}

async fn accept(listener: TcpListener, control: watch::Sender<Control>, watched: watch::Receiver<Control>) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(serve(client, control.clone(), watched.clone()));
            }
            // Out of descriptors, most likely.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(client: TcpStream, control: watch::Sender<Control>, mut watched: watch::Receiver<Control>) {
    // A connection made into a black hole is made there and waits.
    let opened = watched.wait_for(|control| control.mode == Mode::Cut || control.mode.passes(Direction::Request)).await;
    let Ok(Control { mode, target }) = opened.map(|control| *control) else { return reset(&client) };
    let (false, Some(target)) = (mode == Mode::Cut, target) else { return reset(&client) };
    let Ok(server) = TcpStream::connect(target).await else { return reset(&client) };
    let (mut client, mut server) = (client, server);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let is_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        tokio::select! {
            () = pump(Direction::Request, from_client, to_server, &control) => false,
            () = pump(Direction::Answer, from_server, to_client, &control) => false,
            _ = watched.wait_for(|control| control.mode == Mode::Cut) => true,
        }
    };
    if is_cut {
        reset(&client);
        reset(&server);
    }
}

/// The other side sees a reset once the stream is dropped.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn pump(direction: Direction, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, control: &watch::Sender<Control>) {
    let (queue, mut queued) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS_IN_FLIGHT);
    let reading = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + control.borrow().mode.delay();
            if queue.send((due, buffer[..read].to_vec())).await.is_err() {
                break;
            }
        }
        drop(queue);
    };
    let writing = async {
        let mut watched = control.subscribe();
        while let Some((due, chunk)) = queued.recv().await {
            sleep_until(due).await;
            if direction == Direction::Request && trips(control, &chunk) == Some(true) {
                // Let through, and its answer is not.
                if to.write_all(&chunk).await.is_err() {
                    return;
                }
                continue;
            }
            let is_open = watched.wait_for(|control| control.mode.passes(direction)).await.is_ok();
            if !is_open || to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The end of the stream is held like its bytes.
        let is_open = watched.wait_for(|control| control.mode.passes(direction)).await.is_ok();
        if is_open {
            let _ = to.shutdown().await;
        }
    };
    tokio::join!(reading, writing);
}

/// Trips, if `chunk` is what is waited for: whether it passes itself.
fn trips(control: &watch::Sender<Control>, chunk: &[u8]) -> Option<bool> {
    let waits_for = |trip: Trip| chunk.windows(trip.pattern.len().max(1)).any(|part| part == trip.pattern);
    let mut tripped = None;
    control.send_if_modified(|control| {
        if let Mode::Trip(trip) = control.mode
            && waits_for(trip)
        {
            tripped = Some(trip.is_let_through);
            control.mode = if trip.is_let_through { Mode::Mute } else { Mode::Hold };
        }
        tripped.is_some()
    });
    tripped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers every byte with itself.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await
                });
            }
        });
        address
    }

    async fn proxied() -> (Proxy, TcpStream) {
        let proxy = Proxy::listen().await.unwrap();
        proxy.lead_to(echo().await);
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, stream)
    }

    async fn said(stream: &mut TcpStream, count: usize) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; count];
        stream.read_exact(&mut buffer).await?;
        Ok(buffer)
    }

    async fn is_silent(stream: &mut TcpStream) -> bool {
        timeout(Duration::from_millis(100), said(stream, 1)).await.is_err()
    }

    #[tokio::test]
    async fn what_is_held_goes_on_where_it_stopped() {
        let (proxy, mut stream) = proxied().await;
        stream.write_all(b"one").await.unwrap();
        assert_eq!(said(&mut stream, 3).await.unwrap(), b"one");
        proxy.set(Mode::Hold);
        let long: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        stream.write_all(&long[..100_000]).await.unwrap();
        let mut late = TcpStream::connect(proxy.address()).await.unwrap();
        late.write_all(b"late").await.unwrap();
        assert!(is_silent(&mut stream).await && is_silent(&mut late).await);
        proxy.set(Mode::Pass);
        let (mut from, mut to) = stream.split();
        let mut back = vec![0; long.len()];
        let (sent, got) = tokio::join!(to.write_all(&long[100_000..]), from.read_exact(&mut back));
        sent.unwrap();
        got.unwrap();
        assert!(back == long, "bytes were lost, repeated or reordered");
        assert_eq!(said(&mut late, 4).await.unwrap(), b"late");
    }

    #[tokio::test]
    async fn a_cut_resets_what_there_is_and_what_comes_until_it_is_healed() {
        let (proxy, mut stream) = proxied().await;
        stream.write_all(b"a").await.unwrap();
        said(&mut stream, 1).await.unwrap();
        proxy.set(Mode::Cut);
        assert!(said(&mut stream, 1).await.is_err());
        if let Ok(mut next) = TcpStream::connect(proxy.address()).await {
            assert!(said(&mut next, 1).await.is_err());
        }
        proxy.set(Mode::Pass);
        let mut healed = TcpStream::connect(proxy.address()).await.unwrap();
        healed.write_all(b"b").await.unwrap();
        assert_eq!(said(&mut healed, 1).await.unwrap(), b"b");
    }

    #[tokio::test]
    async fn a_delay_is_kept_in_each_direction() {
        let (proxy, mut stream) = proxied().await;
        proxy.set(Mode::Delay(Duration::from_millis(60)));
        let began = Instant::now();
        stream.write_all(b"slow").await.unwrap();
        assert_eq!(said(&mut stream, 4).await.unwrap(), b"slow");
        assert!(began.elapsed() >= Duration::from_millis(120));
    }

    #[tokio::test]
    async fn a_trip_stops_at_the_request_that_was_waited_for() {
        for is_let_through in [true, false] {
            let (proxy, mut stream) = proxied().await;
            proxy.set(Mode::Trip(Trip { pattern: b"COMMIT", is_let_through }));
            stream.write_all(b"select").await.unwrap();
            assert_eq!(said(&mut stream, 6).await.unwrap(), b"select");
            stream.write_all(b"...COMMIT;").await.unwrap();
            assert!(proxy.tripped(Duration::from_secs(30)).await);
            assert_eq!(proxy.mode(), if is_let_through { Mode::Mute } else { Mode::Hold });
            assert!(is_silent(&mut stream).await);
            proxy.set(Mode::Pass);
            assert_eq!(said(&mut stream, 10).await.unwrap(), b"...COMMIT;");
        }
    }

    #[tokio::test]
    async fn a_trip_that_nobody_steps_on_is_taken_away() {
        let (proxy, mut stream) = proxied().await;
        proxy.set(Mode::Trip(Trip { pattern: b"COMMIT", is_let_through: false }));
        assert!(!proxy.tripped(Duration::from_millis(50)).await);
        stream.write_all(b"COMMIT").await.unwrap();
        assert_eq!(said(&mut stream, 6).await.unwrap(), b"COMMIT");
    }
}
