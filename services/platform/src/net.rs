//! Accepting connections under limits: what tonic and hyper leave open.
//!
//! Invariant: a connection costs a bounded time to prove that it speaks: if its first bytes (for HTTP/2 the
//! preface) don't arrive in time it is cut, and while the server drains it is cut at once
//! (hyperium/hyper#4170: graceful shutdown waits for such a connection for ever). A peer that stops reading
//! is cut. Connections are counted.
//!
//! Deliberately absent: TLS (above) and requests (above that).

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// What a listener allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections; more wait in the system's backlog.
    pub connections_max: usize,
    /// Bytes that a connection has to send to count as open: 24 for HTTP/2's preface, 1 for HTTP/1.
    pub opening_bytes: usize,
    /// Time for those bytes.
    pub opening: Duration,
    /// Time that a write may be stuck because the peer doesn't read.
    pub write_stall: Duration,
}

/// How long to wait after a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, for as long as they are asked for. `draining` cuts those that have not
/// opened yet, `cut` cuts all.
pub fn incoming(
    listener: TcpListener,
    limits: Limits,
    draining: CancellationToken,
    cut: CancellationToken,
) -> impl Stream<Item = io::Result<Guarded<TcpStream>>> + Send {
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    futures::stream::unfold((listener, slots), move |(listener, slots)| {
        let (draining, cut) = (draining.clone(), cut.clone());
        async move {
            let slot = slots.clone().acquire_owned().await.ok()?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        // Without it small answers wait for acknowledgements; failing to set it is no reason
                        // to refuse.
                        let _ = stream.set_nodelay(true);
                        return Some((Ok(Guarded::new(stream, limits, draining, cut, Some(slot))), (listener, slots)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    })
}

/// A stream that fails once it breaks a limit.
pub struct Guarded<T> {
    io: T,
    limits: Limits,
    seen: usize,
    opening: Option<Opening>,
    stalled: Option<Pin<Box<Sleep>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _slot: Option<OwnedSemaphorePermit>,
}

/// While a connection has not opened: its time, and the server's draining.
struct Opening {
    time: Pin<Box<Sleep>>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T> std::fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<T> Guarded<T> {
    fn new(
        io: T,
        limits: Limits,
        draining: CancellationToken,
        cut: CancellationToken,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let opening =
            Some(Opening { time: Box::pin(sleep(limits.opening)), draining: Box::pin(draining.cancelled_owned()) });
        Self { io, limits, seen: 0, opening, stalled: None, cut: Box::pin(cut.cancelled_owned()), _slot: slot }
    }

    /// Whether the connection has to go; registers for the moment when it has to.
    fn verdict(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server is ending"));
        }
        if let Some(Opening { time, draining }) = &mut self.opening {
            if time.as_mut().poll(context).is_ready() {
                metrics::counter!("holdfast_connections_cut_total", "reason" => "silent").increment(1);
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer did not open the connection in time"));
            }
            if draining.as_mut().poll(context).is_ready() {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server is stopping"));
            }
        }
        Ok(())
    }

    fn written<R>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        self.verdict(context)?;
        let limit = self.limits.write_stall;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        if stalled.as_mut().poll(context).is_ready() {
            metrics::counter!("holdfast_connections_cut_total", "reason" => "not_reading").increment(1);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer stopped reading")));
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.io).poll_read(context, buffer) {
            Poll::Ready(result) => {
                if this.opening.is_some() {
                    this.seen += buffer.filled().len() - before;
                    if this.seen >= this.limits.opening_bytes {
                        this.opening = None;
                    }
                }
                Poll::Ready(result)
            }
            Poll::Pending => match this.verdict(context) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            },
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write(context, bytes);
        this.written(context, poll)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_write_vectored(context, slices);
        this.written(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_flush(context);
        this.written(context, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.io).poll_shutdown(context);
        this.written(context, poll)
    }
}

impl Connected for Guarded<TcpStream> {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const LIMITS: Limits = Limits {
        connections_max: 1,
        opening_bytes: 24,
        opening: Duration::from_millis(300),
        write_stall: Duration::from_millis(300),
    };

    #[tokio::test]
    async fn trickling_the_preface_does_not_buy_time() {
        let (mut client, server) = duplex(64);
        let mut server = Guarded::new(server, LIMITS, CancellationToken::new(), CancellationToken::new(), None);
        let began = Instant::now();
        let trickle = async {
            for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n" {
                sleep(Duration::from_millis(50)).await;
                if client.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        };
        let read = async move {
            let mut all = [0; 24];
            let kind = server.read_exact(&mut all).await.unwrap_err().kind();
            drop(server);
            kind
        };
        let (kind, ()) = tokio::join!(read, trickle);
        assert_eq!(kind, io::ErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn draining_cuts_what_never_opened_and_leaves_what_did() {
        let draining = CancellationToken::new();
        let (_silent, silent) = duplex(64);
        let (mut open, opened) = duplex(64);
        let mut silent = Guarded::new(silent, LIMITS, draining.clone(), CancellationToken::new(), None);
        let cut = CancellationToken::new();
        let mut opened = Guarded::new(opened, LIMITS, draining.clone(), cut.clone(), None);
        open.write_all(&[0; 24]).await.unwrap();
        opened.read_exact(&mut [0; 24]).await.unwrap();

        draining.cancel();
        assert_eq!(silent.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert!(tokio::time::timeout(Duration::from_millis(600), opened.read_u8()).await.is_err());
        cut.cancel();
        assert_eq!(opened.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_peer_that_stops_reading_is_cut() {
        let (_peer, server) = duplex(8);
        let mut server = Guarded::new(server, LIMITS, CancellationToken::new(), CancellationToken::new(), None);
        let kind = server.write_all(&[0; 64]).await.unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::TimedOut);
    }
}
