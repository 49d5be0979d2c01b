//! A node in a process of its own, so that its CPU time and its memory are its own: those of the load, the
//! counter's reader and the checkers are not among them.
//!
//! Invariant: the process ends when its input does, and so never outlives the one that started it.
//! Deliberately absent: which program it is. The caller starts it, and calls [`serve`] in it.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command as Program, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use holdfast_runtime::Config;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::oneshot,
};

use super::{
    Error, failed,
    holdfast::{Contestant, Serving},
    memory::Memory,
};

/// What the process finds in its environment: bootstrap servers.
pub const BROKERS: &str = "HOLDFAST_KAFKA_BROKERS";
/// Likewise: the database's URL.
pub const DATABASE_URL: &str = "HOLDFAST_DATABASE_URL";

/// The schema, the context and the prefix of topics.
pub const CONTEXT: &str = "orders";
/// What the process prints once it owns every partition.
const READY: &str = "holdfast: ready";
/// How long it may take to own every partition, and to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// Makes the command line of a program that calls [`serve`].
#[derive(Clone)]
pub struct Launch(Arc<dyn Fn() -> Program + Send + Sync>);

impl Launch {
    /// By this command line.
    pub fn new(program: impl Fn() -> Program + Send + Sync + 'static) -> Self {
        Self(Arc::new(program))
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)().fmt(f)
    }
}

/// Serves `contestant` until this process's input ends. To be called in the process.
pub fn serve(
    contestant: Contestant,
    config: Config,
    brokers: String,
    url: String,
) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        let serving = Serving::start(contestant, config, &brokers, &url, CONTEXT).await?;
        serving.ready(PATIENCE).await?;
        // A harness may have written half a line before.
        println!("\n{READY}");
        let mut rest = Vec::new();
        tokio::io::stdin().read_to_end(&mut rest).await.map_err(failed("the node's input"))?;
        serving.stop().await;
        Ok(())
    })
}

/// A node that runs. Dropping it kills it.
pub struct Apart {
    process: Child,
    input: ChildStdin,
    /// How long after its start it owned every partition.
    ready: oneshot::Receiver<Duration>,
    errors: PathBuf,
    began: Instant,
    pid: u32,
}

impl Apart {
    /// Starts it; `dir` is for what it says beside its output.
    pub fn start(launch: &Launch, dir: &Path, brokers: &str, url: &str) -> Result<Self, Error> {
        let errors = dir.join("node.log");
        let log = std::fs::File::create(&errors).map_err(failed("the node's log"))?;
        let began = Instant::now();
        let mut process = Command::from((launch.0)())
            .env(BROKERS, brokers)
            .env(DATABASE_URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("starting the node"))?;
        match (process.stdin.take(), process.stdout.take(), process.id()) {
            (Some(input), Some(output), Some(pid)) => {
                let (tell, ready) = oneshot::channel();
                tokio::spawn(listen(output, began, tell));
                Ok(Self { process, input, ready, errors, began, pid })
            }
            _ => Err(Error::Wrong("the node's process has no input, no output or no number".into())),
        }
    }

    /// Waits until it owns every partition; how long after its start that was. To be asked once.
    pub async fn ready(&mut self) -> Result<Duration, Error> {
        let waited = tokio::time::timeout(PATIENCE, &mut self.ready).await;
        let ready = waited.map_err(|_| Error::Timeout(PATIENCE, "the node to own all partitions".into()))?;
        ready.map_err(|_| Error::Wrong(format!("the node ended: {}", self.said())))
    }

    /// When it was started.
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// Its process.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Its memory now.
    pub fn memory(&self) -> Result<Memory, Error> {
        Memory::of(self.pid).ok_or_else(|| Error::Wrong(format!("the node ended: {}", self.said())))
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.process.try_wait().map_err(failed("the node's process"))? {
            None => Ok(()),
            Some(status) => Err(Error::Wrong(format!("the node ended, {status}: {}", self.said()))),
        }
    }

    /// Ends it in good order.
    pub async fn stop(self) -> Result<(), Error> {
        let Self { mut process, input, errors, .. } = self;
        drop(input);
        let ended = tokio::time::timeout(PATIENCE, process.wait()).await;
        let status = ended
            .map_err(|_| Error::Timeout(PATIENCE, "the node to end".into()))?
            .map_err(failed("the node's process"))?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::Wrong(format!("the node ended, {status}: {}", last(&errors))))
        }
    }

    fn said(&self) -> String {
        last(&self.errors)
    }
}

/// Reads what a node prints to its end, so that it may go on printing.
async fn listen(output: ChildStdout, began: Instant, tell: oneshot::Sender<Duration>) {
    let mut lines = BufReader::new(output).lines();
    let mut tell = Some(tell);
    while let Ok(Some(line)) = lines.next_line().await {
        if line == READY
            && let Some(tell) = tell.take()
        {
            // Nobody may wait for it.
            let _ = tell.send(began.elapsed());
        }
    }
}

/// The end of a log.
fn last(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
