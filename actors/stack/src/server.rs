//! What both servers have in common: started, stopped, killed, started again, and what to do about a taken
//! port.
//!
//! Invariant: once a stack runs, its ports never change; before that, a port that the caller did not insist
//! on is given up for another if another process was faster.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::process::ServerProcess;
use crate::watchdog::Watchdog;
use crate::{Error, ports};

/// How often a start is tried while ports are lost to faster processes.
const ATTEMPTS: u32 = 5;

/// A server that knows how to start and stop itself.
pub(crate) trait Server {
    /// For messages.
    const NAME: &'static str;
    /// The ports it listens on, the public one first.
    fn ports(&mut self) -> Vec<&mut u16>;
    /// Starts it and waits until it serves.
    fn start(&self, watchdog: &Arc<Watchdog>) -> impl Future<Output = Result<ServerProcess, Error>> + Send;
    /// Stops it in good order.
    fn stop(&self, process: ServerProcess) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A server's home and, while it runs, its process.
#[derive(Debug)]
pub(crate) struct Slot<S> {
    pub(crate) home: S,
    process: Mutex<Option<ServerProcess>>,
    watchdog: Arc<Watchdog>,
}

impl<S: Server> Slot<S> {
    /// The first start. `insisted`: the public port is the caller's choice and may not be exchanged.
    pub(crate) async fn launch(mut home: S, insisted: bool, watchdog: &Arc<Watchdog>) -> Result<Self, Error> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            for (index, port) in home.ports().into_iter().enumerate() {
                if !ports::is_free(*port) {
                    if insisted && index == 0 {
                        return Err(Error::PortTaken { server: S::NAME, port: *port });
                    }
                    *port = ports::choose();
                }
            }
            match home.start(watchdog).await {
                Ok(process) => {
                    return Ok(Self { home, process: Mutex::new(Some(process)), watchdog: Arc::clone(watchdog) });
                }
                Err(Error::PortTaken { .. }) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts the server again, unless it runs.
    pub(crate) async fn start(&self) -> Result<(), Error> {
        let mut process = self.process.lock().await;
        if let Some(running) = process.as_mut()
            && running.check_alive().is_ok()
        {
            return Ok(());
        }
        // Reaps one that ended by itself.
        drop(process.take());
        *process = Some(self.home.start(&self.watchdog).await?);
        Ok(())
    }

    /// Stops the server, if it runs.
    pub(crate) async fn stop(&self) -> Result<(), Error> {
        match self.process.lock().await.take() {
            Some(process) => self.home.stop(process).await,
            None => Ok(()),
        }
    }

    /// Kills the server and its children, if it runs.
    pub(crate) async fn kill(&self) {
        drop(self.process.lock().await.take());
    }

    /// The server's process id, if it runs.
    pub(crate) async fn pid(&self) -> Option<u32> {
        let mut process = self.process.lock().await;
        let running = process.as_mut()?;
        running.check_alive().ok().map(|()| running.pid())
    }
}
