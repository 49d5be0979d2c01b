//! A database restored from an older backup, on the real stack: noticed before anything is served, and
//! recovered by the operator's verb.
//!
//! The real binary serves; the account is the checkers'. Deliberately absent: anything that looks inside the
//! process.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use holdfast::{
    people,
    shelves::{self, Shelf},
};
use holdfast_load_tests::{
    backup,
    checkers::{self, Breach, Target},
    kafka::{self, Ends},
    producer::{self, Ledger, Options},
    work::{Mix, SCARCE_SKU, regulars},
};
use holdfast_stack::{Stack, StackOptions};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_mins(2);

/// Everything that the served process wrote.
type Log = Arc<Mutex<String>>;

/// The contexts that are recovered.
const ORDERING: &str = "orders,inventory";
/// Those that are served: orders asks customers, too.
const SERVED: &str = "orders,inventory,customers";

struct Served {
    process: Child,
    log: Log,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct World {
    stack: Stack,
    target: Target,
    environment: Vec<(&'static str, String)>,
    loads: u64,
}

fn holdfast(environment: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command.envs(environment.iter().map(|(name, value)| (*name, value)));
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl World {
    async fn start() -> Self {
        let stack = Stack::start(StackOptions::default()).await.expect("the stack starts");
        let url = stack.postgres_url("postgres");
        let environment = vec![
            ("HOLDFAST_KAFKA_BROKERS", stack.brokers().to_owned()),
            ("HOLDFAST_DATABASE_URL", url.clone()),
            ("HOLDFAST_KAFKA_SESSION_TIMEOUT", "6s".to_owned()),
            ("HOLDFAST_LEASE", "2s".to_owned()),
            ("HOLDFAST_GRPC_LISTEN", "127.0.0.1:0".to_owned()),
            ("HOLDFAST_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
        ];
        let target = Target::new(stack.brokers(), &url);
        let world = Self { stack, target, environment, loads: 0 };
        for verb in [&["migrate", SERVED][..], &["topics", "apply", SERVED]] {
            assert_eq!(world.run(verb, 0).1, "", "{verb:?}");
        }
        world
    }

    /// Runs a verb; what it wrote to its two outputs.
    fn run(&self, verb: &[&str], code: i32) -> (String, String) {
        let Output { status, stdout, stderr } = holdfast(&self.environment).args(verb).output().expect("it runs");
        let said = (text(&stdout), text(&stderr));
        assert_eq!(status.code(), Some(code), "{verb:?}: {said:?}");
        if verb[0] == "topics" { (said.0, String::new()) } else { said }
    }

    async fn serve(&self) -> Served {
        let mut process = holdfast(&self.environment)
            .args(["serve", SERVED])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let log = Log::default();
        let outputs: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [process.stdout.take().map(|out| Box::new(out) as _), process.stderr.take().map(|out| Box::new(out) as _)];
        for output in outputs.into_iter().flatten() {
            let log = log.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    log.push_str(&line);
                    log.push('\n');
                }
            });
        }
        let mut found = None;
        until("it says where it serves", async || {
            for line in log.lock().unwrap_or_else(PoisonError::into_inner).lines() {
                let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
                let address = |name: &str| line.get("fields")?.get(name)?.as_str()?.parse().ok();
                found = address("grpc").zip(address("http")).or(found);
            }
            found.is_some()
        })
        .await;
        let (grpc, http) = found.expect("it said so");
        Served { process, log, grpc, http }
    }

    /// Fills the shelves and registers customers, once the one node has every partition.
    async fn fill(&self, grpc: SocketAddr) {
        let inventory = self.target.inventory.as_ref().expect("inventory");
        until("it owns inventory", async || {
            checkers::owners(inventory).await.is_ok_and(|owners| owners.get(&grpc.to_string()) == Some(&12))
        })
        .await;
        let shelf = |sku: String, quantity| Shelf { sku, quantity, price_minor: 1_000 };
        let ordinary = (0..100).map(|n| shelf(Mix::sku(n), 1_000_000));
        let shelves = ordinary.chain([shelf(SCARCE_SKU.to_owned(), 10)]);
        let inventory = shelves::inventory(&format!("http://{grpc}")).expect("an address");
        shelves::fill(&inventory, &format!("fill-{}", self.loads), shelves).await.expect("filled");
        let customers = people::customers(&format!("http://{grpc}")).expect("an address");
        people::register(&customers, regulars()).await.expect("registered");
    }

    /// A load with rejections and repeats, and without bad records: those have no aggregate, and so nothing
    /// that shows that a dead letter is a second one.
    async fn load(&mut self, orders: u32) -> Ledger {
        self.loads += 1;
        let mix =
            Mix { unknown_sku: 30, empty: 30, repeated: 50, bad: 0, window: 200, ..Mix::demo(orders, self.loads) };
        producer::produce(self.stack.brokers(), &mix, Options::to("orders.commands"), |_| {}).await.expect("produced")
    }

    async fn settle(&self) {
        checkers::settled(&self.target, PATIENCE, |_| {}).await.expect("comes to rest");
    }

    async fn published(&self) -> u64 {
        let ends = Ends::new(self.stack.brokers()).expect("ends");
        ends.total("orders.events").await.expect("ends") + ends.total("inventory.events").await.expect("ends")
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < give_up, "gave up waiting: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What an HTTP server answers to a GET.
fn get(at: SocketAddr, path: &str) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok::<_, std::io::Error>(text(&answer))
    };
    ask().unwrap_or_default()
}

fn both(mut first: Ledger, second: Ledger) -> Ledger {
    first.records += second.records;
    first.commands.extend(second.commands);
    first
}

impl Served {
    fn ready(&self) -> String {
        get(self.http, "/health/ready")
    }

    fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn stop(mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::TERM).expect("it runs");
        until("it leaves", async || self.process.try_wait().is_ok_and(|left| left.is_some())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_database_halts_and_recovers_without_second_history() {
    let mut world = World::start().await;
    let served = world.serve().await;
    world.fill(served.grpc).await;
    let mut ledger = world.load(600).await;
    world.settle().await;
    let schemas = [world.target.orders.clone(), world.target.inventory.clone().expect("inventory")];
    for schema in &schemas {
        backup::take(schema).await.expect("backed up");
    }
    ledger = both(ledger, world.load(600).await);
    world.fill(served.grpc).await;
    world.settle().await;
    served.stop().await;

    for schema in &schemas {
        backup::restore(schema).await.expect("put back");
    }
    let published = world.published().await;
    let served = world.serve().await;
    until("both contexts say that they are halted", async || served.ready().matches("HISTORY_LOST").count() == 2).await;
    assert!(served.ready().starts_with("HTTP/1.1 503"), "{}", served.ready());
    assert!(get(served.http, "/metrics").contains("holdfast_halted"), "the metric");
    assert!(served.log().contains("history-lost.md"), "the log names the runbook");
    let orders = shelves::inventory(&format!("http://{}", served.grpc)).expect("an address");
    let refused = refusal(&orders).await;
    assert_eq!(
        (refused.code(), holdfast_platform::errors::reason(&refused).as_deref()),
        (tonic::Code::Unavailable, Some("HISTORY_LOST"))
    );
    let more = world.load(100).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.published().await, published, "a halted context published something");

    let (said, _) = world.run(&["recover", ORDERING], 0);
    assert!(said.contains("HISTORY_LOST") && said.contains("--yes") && said.contains("Not recovered"), "{said}");
    assert!(served.ready().contains("HISTORY_LOST"), "a dry run changed something");
    eprintln!("{said}");
    let (said, _) = world.run(&["recover", ORDERING, "--yes", "--json"], 0);
    let folded: Vec<u64> = said
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["events"].as_u64().expect("a number")
        })
        .collect();
    assert!(folded.len() == 2 && folded.iter().all(|events| *events > 100), "{said}");

    // The nodes go on by themselves.
    until("it is ready again", async || served.ready().starts_with("HTTP/1.1 200")).await;
    ledger = both(both(ledger, more), world.load(300).await);
    world.settle().await;
    let report = checkers::account(&world.target, &ledger).await.expect("accounted");
    let answers_lost = report.rejected.get("ANSWER_LOST").copied().unwrap_or(0);
    for (breach, found) in report.violations() {
        // A rejection whose answer was lost with the database stays one, under another name.
        let is_lost_answer = breach == Breach::Unexpected && found.count == answers_lost;
        assert!(is_lost_answer, "{breach:?}: {found:?}\n{report}");
    }
    let (said, _) = world.run(&["recover", ORDERING, "--json"], 0);
    assert!(said.lines().count() == 2 && said.lines().all(|line| line.contains("\"events\":0")), "{said}");
    eprintln!("answers lost: {answers_lost}; {report}");
    served.stop().await;
    world.stack.stop().await.expect("stopped");
}

/// The value of a metric whose labels contain all of these; `None` if there is none.
fn metric(served: &Served, name: &str, labels: &[&str]) -> Option<String> {
    let metrics = get(served.http, "/metrics");
    let line =
        metrics.lines().find(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))?;
    line.rsplit(' ').next().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_topics_and_deleted_records_halt_until_accepted() {
    let mut world = World::start().await;
    let brokers = world.stack.brokers().to_owned();
    let served = world.serve().await;
    world.fill(served.grpc).await;
    let mut ledger = world.load(150).await;
    world.settle().await;
    served.stop().await;

    // Commands: another topic of the same name, with more records than were consumed of the old one.
    kafka::recreate_topic(&brokers, "orders.commands", 12).await.expect("made again");
    ledger = both(ledger, world.load(400).await);
    let before = world.published().await;
    let served = world.serve().await;
    until("its inputs are halted", async || {
        metric(&served, "holdfast_input_halted", &["orders.commands"]).as_deref() == Some("1")
    })
    .await;
    until("the shop is ready all the same", async || served.ready().starts_with("HTTP/1.1 200")).await;
    assert!(served.log().contains("orders.commands was deleted and made again"), "the log says what");
    assert!(served.log().contains("offsets-out-of-range.md"), "and where to read on");
    world.fill(served.grpc).await; // calls, and the other context, go on
    let (said, _) = world.run(&["recover", "orders"], 0);
    assert!(said.contains("orders.commands was deleted and made again"), "{said}");
    let (_, said) = world.run(&["recover", "orders", "--yes"], 1);
    assert!(said.contains("--accept-topics"), "{said}");
    let consumed = world.published().await;
    world.run(&["recover", "orders", "--yes", "--accept-topics"], 0);
    assert!(consumed >= before);
    world.settle().await;
    let report = checkers::account(&world.target, &ledger).await.expect("accounted");
    assert!(report.is_clean(), "{report}");
    served.stop().await;

    // Retention was quicker: records of one partition are gone that were never consumed.
    let gone = world.load(100).await;
    let ends = Ends::new(&brokers).expect("ends").of("orders.commands").await.expect("ends");
    let before = ends.iter().take(1).map(|(partition, end)| (*partition, *end)).collect();
    kafka::delete_records(&brokers, "orders.commands", &before).await.expect("deleted");
    let served = world.serve().await;
    until("that partition is halted", async || {
        let labels = ["orders.commands", "partition=\"0\""];
        metric(&served, "holdfast_input_halted", &labels).as_deref() == Some("1")
    })
    .await;
    until("the log says which", async || served.log().contains("orders.commands-0: offset")).await;
    let (said, _) = world.run(&["recover", "orders"], 0);
    assert!(said.contains("orders.commands-0: offset") && !said.contains("orders.commands-1:"), "{said}");
    world.run(&["recover", "orders", "--yes", "--accept-topics"], 0);
    world.settle().await;
    let report = checkers::account(&world.target, &both(ledger, gone)).await.expect("accounted");
    let lost = report.breaches.get(&Breach::Lost).map_or(0, |found| found.count);
    assert!(lost > 0, "the test deleted nothing");
    served.stop().await;

    // Its own events: the context stands still, and so does the other one's input.
    kafka::recreate_topic(&brokers, "orders.events", 12).await.expect("made again");
    let served = world.serve().await;
    until("orders is halted", async || served.ready().contains("TOPIC_LOST")).await;
    until("inventory's input is halted", async || {
        metric(&served, "holdfast_input_halted", &["inventory", "orders.events"]).as_deref() == Some("1")
    })
    .await;
    world.run(&["recover", ORDERING, "--yes", "--accept-topics"], 0);
    until("it is ready again", async || served.ready().starts_with("HTTP/1.1 200")).await;
    world.load(50).await;
    world.settle().await;
    served.stop().await;
    world.stack.stop().await.expect("stopped");
}

/// The status that a call to a halted context gets.
async fn refusal(inventory: &holdfast_platform::grpc::Peer) -> tonic::Status {
    use holdfast_proto::inventory::v1::{GetReservationRequest, reservation_service_client::ReservationServiceClient};
    let asked =
        GetReservationRequest { order_id: uuid::Uuid::now_v7().to_string(), ..GetReservationRequest::default() };
    let call = |stack| {
        let request = asked.clone();
        async move { ReservationServiceClient::new(stack).get_reservation(request).await }
    };
    inventory.call(call).await.expect_err("it is halted")
}
