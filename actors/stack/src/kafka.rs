//! Apache Kafka in `KRaft` mode: broker and controller in one process, on loopback.
//!
//! "Ready" means that this very process said so in its log, and that its port answers an `ApiVersions`
//! request. Either alone would not do: another stack may have been faster on the same port, and a log line is
//! not a conversation.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::artifacts::Artifacts;
use crate::data_dir::{DataDir, State};
use crate::process::{ServerProcess, Spec, end_orphan};
use crate::server::{Server, Slot};
use crate::watchdog::{GatedCommand, LastSignal, Watchdog};
use crate::{Error, KafkaListener, StackOptions, ports};

/// Generous: a broker that recovers its logs after a crash on a busy 2-core machine takes its time.
const READY_PATIENCE: Duration = Duration::from_mins(2);
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const PROBE_PATIENCE: Duration = Duration::from_secs(2);
const STARTED: &str = "Kafka Server started";

/// Everything that doesn't depend on where the server lives.
///
/// Sessions may be as short as 6 s in both group protocols, so that failure tests needn't wait. Records of 9
/// MiB must fit (dead letters of the largest commands). One node means replication 1 throughout. The
/// cleaner's default buffer of 128 MiB is out of proportion to a heap of 512. A broker that was killed is let
/// in again only when its previous session has run out, by default after 9 s; 3 s is still long for a
/// heartbeat within one process. A transaction that begins while the end of its producer's last one is still
/// being written asks again after 1 ms, not after 20, of which the latency of exactly-once applications is
/// made.
const SETTINGS: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
auto.create.topics.enable=false
num.partitions=1
default.replication.factor=1
min.insync.replicas=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
add.partitions.to.txn.retry.backoff.ms=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
message.max.bytes=10485760
replica.fetch.max.bytes=10485760
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=6000
group.consumer.min.session.timeout.ms=6000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=2000
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=16777216
";

/// Warnings and errors, and the one line that says that the broker is up.
const LOGGING: &str = "\
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
logger.started.name=kafka.server.KafkaRaftServer
logger.started.level=info
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %-5p %c{1} %m%n
";

/// Where one Kafka lives.
#[derive(Debug)]
pub(crate) struct Home {
    root: PathBuf,
    artifacts: &'static Artifacts,
    pub(crate) port: u16,
    pub(crate) controller_port: u16,
    /// Further listeners, and the port that each really has.
    listeners: Vec<(KafkaListener, u16)>,
    runs_long: bool,
}

impl Home {
    /// A Kafka below `root`, which nothing else may use.
    pub(crate) fn new(
        root: &Path,
        artifacts: &'static Artifacts,
        port: u16,
        controller_port: u16,
        options: &StackOptions,
    ) -> Self {
        let listeners = options.kafka_listeners.iter().map(|listener| (listener.clone(), ports::choose())).collect();
        Self { root: root.to_owned(), artifacts, port, controller_port, listeners, runs_long: options.kafka_runs_long }
    }

    /// The port of the further listener of that name.
    pub(crate) fn listener(&self, name: &str) -> Option<u16> {
        self.listeners.iter().find(|(listener, _)| listener.name == name).map(|(_, port)| *port)
    }

    fn data(&self) -> PathBuf {
        self.root.join("kafka")
    }

    fn properties(&self) -> PathBuf {
        self.root.join("kafka.properties")
    }

    fn pid_file(&self) -> PathBuf {
        self.root.join("kafka.pid")
    }

    /// Ends a broker that an owner left behind whose watchdog was killed as well.
    pub(crate) async fn end_orphan(&self) -> Result<(), Error> {
        end_orphan(&self.pid_file(), &self.properties()).await
    }

    /// Formats the data directory, once in its life.
    pub(crate) async fn format(&self, cluster_id: &str, watchdog: &Arc<Watchdog>) -> Result<(), Error> {
        if self.data().exists() {
            return Ok(());
        }
        let fresh = self.root.join("kafka.tmp");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(|source| Error::io("remove", &fresh, source))?;
        }
        self.write_config(&fresh)?;
        let mut java = self.java("64m");
        java.inner().args(["kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config"]);
        java.inner().arg(self.properties());
        let spec = Spec {
            name: "Kafka's storage tool",
            log: self.root.join("kafka-format.log"),
            port: None,
            last_signal: LastSignal::Kill,
        };
        let tool = ServerProcess::spawn(spec, java, watchdog)?;
        tool.await_success(READY_PATIENCE).await?;
        fs::rename(&fresh, self.data()).map_err(|source| Error::io("rename", &fresh, source))
    }

    fn java(&self, heap: &str) -> GatedCommand {
        let mut command = GatedCommand::new(&self.artifacts.java);
        command
            .inner()
            .args([&format!("-Xms{heap}"), &format!("-Xmx{heap}")])
            .args([
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                // The optimising compiler costs more than it gives in a broker's first minutes: on 2 cores
                // half of all the CPU time that the broker took for 400,000 records went into compiling them.
                if self.runs_long { "-XX:+TieredCompilation" } else { "-XX:TieredStopAtLevel=1" },
                "-XX:+ExitOnOutOfMemoryError",
                "-XX:+PerfDisableSharedMem",
            ])
            .args(["-Djava.awt.headless=true", "-Dlog4j2.disableJmx=true"])
            .arg(format!("-Dlog4j2.configurationFile={}", self.root.join("log4j2.properties").display()))
            .args(["-cp", &self.artifacts.class_path])
            .current_dir(&self.root);
        command
    }

    /// See [`crate::Stack::java`].
    pub(crate) fn client_java(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.artifacts.java);
        command.args(["-cp", &self.artifacts.class_path]);
        command
    }

    fn write_config(&self, data: &Path) -> Result<(), Error> {
        let Self { port, controller_port, .. } = self;
        let mut config = SETTINGS.to_owned();
        // A backslash is an escape in Java's properties.
        let data = data.display().to_string().replace('\\', "\\\\");
        let further = |text: fn(&str, u16, u16) -> String| -> String {
            self.listeners
                .iter()
                .map(|(listener, port)| text(&listener.name, *port, listener.advertised_port))
                .collect()
        };
        let listeners = further(|name, port, _| format!(",{name}://127.0.0.1:{port}"));
        let advertised = further(|name, _, advertised| format!(",{name}://127.0.0.1:{advertised}"));
        let protocols = further(|name, _, _| format!(",{name}:PLAINTEXT"));
        write!(
            config,
            "listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}{advertised}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}\n\
             controller.quorum.voters=1@127.0.0.1:{controller_port}\n\
             log.dirs={data}\n"
        )
        .ok();
        for (path, text) in [(self.properties(), config.as_str()), (self.root.join("log4j2.properties"), LOGGING)] {
            fs::write(&path, text).map_err(|source| Error::io("write", &path, source))?;
        }
        Ok(())
    }
}

impl Server for Home {
    const NAME: &'static str = "Kafka";

    fn ports(&mut self) -> Vec<&mut u16> {
        let further = self.listeners.iter_mut().map(|(_, port)| port);
        [&mut self.port, &mut self.controller_port].into_iter().chain(further).collect()
    }

    async fn start(&self, watchdog: &Arc<Watchdog>) -> Result<ServerProcess, Error> {
        self.end_orphan().await?;
        self.write_config(&self.data())?;
        let mut java = self.java("512m");
        java.inner().arg("kafka.Kafka").arg(self.properties());
        let spec = Spec {
            name: Self::NAME,
            log: self.root.join("kafka.log"),
            port: Some(self.port),
            last_signal: LastSignal::Kill,
        };
        let mut process = ServerProcess::spawn(spec, java, watchdog)?;
        fs::write(self.pid_file(), process.pid().to_string())
            .map_err(|source| Error::io("write", &self.pid_file(), source))?;
        let begun = Instant::now();
        while !(process.log_text().contains(STARTED) && answers(self.port).await) {
            process.keep_waiting(begun, READY_PATIENCE).await?;
        }
        process.check_alive()?;
        Ok(process)
    }

    async fn stop(&self, process: ServerProcess) -> Result<(), Error> {
        process.stop(Signal::TERM, STOP_PATIENCE).await
    }
}

/// Whether a broker answers `ApiVersions` without an error on this port.
async fn answers(port: u16) -> bool {
    const CORRELATION: [u8; 4] = *b"hold";
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        // Length, api key 18, version 0, correlation id, no client id.
        let request = [&[0, 0, 0, 10, 0, 18, 0, 0][..], &CORRELATION, &[0xff, 0xff]].concat();
        stream.write_all(&request).await?;
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).await?;
        // Length, correlation id, error code 0.
        std::io::Result::Ok(answer[4..8] == CORRELATION && answer[8..] == [0, 0])
    };
    matches!(timeout(PROBE_PATIENCE, ask).await, Ok(Ok(true)))
}

/// Kafka's first start in this stack, if it is wanted.
pub(crate) async fn launch(
    options: &StackOptions,
    artifacts: &'static Artifacts,
    dir: &DataDir,
    state: &State,
    watchdog: &Arc<Watchdog>,
) -> Result<Option<Slot<Home>>, Error> {
    if !options.kafka {
        return Ok(None);
    }
    let port = options.kafka_port.unwrap_or(state.kafka_port);
    let home = Home::new(dir.path(), artifacts, port, state.controller_port, options);
    // First, so that the remembered ports are free.
    home.end_orphan().await?;
    home.format(&state.cluster_id, watchdog).await?;
    Slot::launch(home, options.kafka_port.is_some(), watchdog).await.map(Some)
}
