//! The stack's promises towards its owner: it starts, twice, side by side and after a crash; it keeps data
//! and ports; it refuses to share a directory; and nothing of it survives its owner.
//!
//! This binary is its own owner that gets killed: `lifecycle owner [<data directory>]` starts a stack and
//! waits for its end.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use holdfast_stack::{Error, KafkaListener, Stack, StackOptions};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(OWNER) {
        run(own(arguments.next().as_deref().map(Path::new)));
        return ExitCode::SUCCESS;
    }
    macro_rules! trials {
        ($($law:ident),* $(,)?) => {
            vec![$(Trial::test(stringify!($law), || { run($law()); Ok(()) })),*]
        };
    }
    let mut trials = trials![
        a_temporary_stack_serves_and_leaves_nothing,
        two_stacks_live_side_by_side_and_a_dropped_one_is_gone,
        kept_directory_has_one_owner_and_keeps_ports_and_credentials,
        killed_servers_come_back_on_their_ports,
        a_port_that_was_asked_for_and_is_taken_is_an_error,
        a_server_that_ends_by_itself_is_reported_with_its_log,
        the_shared_stack_is_one_and_the_same,
        a_killed_owner_takes_its_servers_along,
        the_successor_of_a_killed_owner_waits_and_recovers,
        a_further_listener_serves_on_a_port_of_its_own_and_keeps_it,
    ];
    trials.push(Trial::test("starting_and_stopping_may_be_spawned", || {
        starting_and_stopping_may_be_spawned();
        Ok(())
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Each law has a runtime of its own, on the thread of its trial. A law that does not hold panics, which
/// fails its trial.
fn run(law: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(law);
}

fn speaks_kafka(brokers: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(brokers) else { return false };
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 1, 2, 3, 4, 0xff, 0xff]).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).is_ok() && answer[4..] == [1, 2, 3, 4, 0, 0]
}

/// `postgres://user:password@host:port/database` → host:port
fn address(url: &str) -> &str {
    url.split('@').nth(1).unwrap().split('/').next().unwrap()
}

/// Asks whether TLS is offered; only Postgres answers `N` to that.
fn speaks_postgres(url: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address(url)) else { return false };
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).is_ok() && answer == *b"N"
}

fn assert_serves(stack: &Stack) {
    assert!(speaks_kafka(stack.brokers()));
    assert!(speaks_postgres(&stack.postgres_url("postgres")));
}

/// Neither running nor waiting to be reaped.
fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .map_or(true, |stat| stat.rsplit(')').next().unwrap().starts_with(" Z"))
}

fn await_condition(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kept_in(dir: &Path) -> StackOptions {
    StackOptions { data_dir: Some(dir.to_owned()), ..StackOptions::default() }
}

fn kept_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("holdfast-kept-").tempdir().unwrap()
}

fn starting_and_stopping_may_be_spawned() {
    fn spawnable<T: Send>(_: &T) {}
    spawnable(&Stack::start(StackOptions::default()));
    spawnable(&async { Stack::shared_for_tests().await.start_kafka().await });
    spawnable(&async { Stack::start(StackOptions::default()).await?.stop().await });
}

async fn a_temporary_stack_serves_and_leaves_nothing() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    assert_serves(&stack);
    let (kafka, postgres) = (stack.kafka_pid().await.unwrap(), stack.postgres_pid().await.unwrap());
    let dir = stack.data_dir().to_owned();
    stack.stop().await.unwrap();
    assert!(is_gone(kafka) && is_gone(postgres) && !dir.exists());
}

async fn two_stacks_live_side_by_side_and_a_dropped_one_is_gone() {
    let (one, two) = tokio::join!(Stack::start(StackOptions::default()), Stack::start(StackOptions::default()));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.brokers(), two.brokers());
    let (kafka, dir) = (one.kafka_pid().await.unwrap(), one.data_dir().to_owned());
    drop(one);
    assert!(is_gone(kafka) && !dir.exists());
    assert_serves(&two);
}

async fn kept_directory_has_one_owner_and_keeps_ports_and_credentials() {
    let dir = kept_dir();
    let stack = Stack::start(kept_in(dir.path())).await.unwrap();
    let (brokers, url) = (stack.brokers().to_owned(), stack.postgres_url("postgres"));
    let refused = Stack::start(kept_in(dir.path())).await.unwrap_err();
    assert!(matches!(refused, Error::InUse { pid, .. } if pid == std::process::id()), "{refused}");
    stack.stop().await.unwrap();

    let stack = Stack::start(kept_in(dir.path())).await.unwrap();
    assert_eq!((stack.brokers(), stack.postgres_url("postgres")), (brokers.as_str(), url));
    assert_serves(&stack);
    stack.stop().await.unwrap();
}

async fn killed_servers_come_back_on_their_ports() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    stack.kill_kafka().await;
    stack.kill_postgres().await;
    assert!(!speaks_kafka(stack.brokers()) && !speaks_postgres(&stack.postgres_url("postgres")));
    assert_eq!((stack.kafka_pid().await, stack.postgres_pid().await), (None, None));
    stack.start_kafka().await.unwrap();
    stack.start_postgres().await.unwrap();
    assert_serves(&stack);

    stack.stop_kafka().await.unwrap();
    stack.stop_postgres().await.unwrap();
    stack.start_postgres().await.unwrap();
    stack.start_kafka().await.unwrap();
    assert_serves(&stack);
}

async fn a_port_that_was_asked_for_and_is_taken_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = StackOptions { kafka: false, postgres_port: Some(port), ..StackOptions::default() };
    let error = Stack::start(options).await.unwrap_err();
    assert!(matches!(error, Error::PortTaken { port: named, .. } if named == port), "{error}");
}

async fn a_server_that_ends_by_itself_is_reported_with_its_log() {
    let dir = kept_dir();
    let options = StackOptions { kafka: false, ..kept_in(dir.path()) };
    Stack::start(options.clone()).await.unwrap().stop().await.unwrap();
    fs::write(dir.path().join("postgres").join("PG_VERSION"), "9\n").unwrap();
    let error = Stack::start(options).await.unwrap_err();
    assert!(matches!(&error, Error::Exited { tail, .. } if tail.contains("initialized by PostgreSQL")), "{error}");
}

async fn the_shared_stack_is_one_and_the_same() {
    let (one, two) = tokio::join!(Stack::shared_for_tests(), Stack::shared_for_tests());
    assert!(std::ptr::eq(one, two));
    assert_serves(one);
}

/// What this binary is called with to be an owner.
const OWNER: &str = "owner";

/// The process that gets killed. Without a directory the stack is a temporary one.
async fn own(dir: Option<&Path>) {
    let stack = Stack::start(StackOptions { data_dir: dir.map(Into::into), ..StackOptions::default() }).await.unwrap();
    let (kafka, postgres) = (stack.kafka_pid().await.unwrap(), stack.postgres_pid().await.unwrap());
    println!("owned {kafka} {postgres} {}", stack.data_dir().display());
    std::future::pending::<()>().await;
}

/// Starts an owner, kills it with SIGKILL, and returns the pids of what it owned and its data directory.
fn killed_owner(dir: Option<&Path>) -> (u32, u32, PathBuf) {
    let mut owner =
        Command::new(std::env::current_exe().unwrap()).arg(OWNER).args(dir).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let owned = lines.map(Result::unwrap).find_map(|line| Some(line.split_once("owned ")?.1.to_owned())).unwrap();
    let words: Vec<&str> = owned.split(' ').collect();
    owner.kill().unwrap();
    owner.wait().unwrap();
    (words[0].parse().unwrap(), words[1].parse().unwrap(), words[2].into())
}

async fn a_killed_owner_takes_its_servers_along() {
    let (kafka, postgres, dir) = killed_owner(None);
    await_condition("Kafka's end", || is_gone(kafka));
    await_condition("Postgres's end", || is_gone(postgres));
    await_condition("the temporary directory's end", || !dir.exists());
}

async fn the_successor_of_a_killed_owner_waits_and_recovers() {
    let dir = kept_dir();
    let (kafka, postgres, _) = killed_owner(Some(dir.path()));
    // At once: the old servers may still be dying.
    let stack = Stack::start(kept_in(dir.path())).await.unwrap();
    assert!(is_gone(kafka) && is_gone(postgres));
    assert_serves(&stack);
    stack.stop().await.unwrap();
}

async fn a_further_listener_serves_on_a_port_of_its_own_and_keeps_it() {
    let listener = KafkaListener { name: "NODE_1".to_owned(), advertised_port: 9 };
    let stack =
        Stack::start(StackOptions { postgres: false, kafka_listeners: vec![listener], ..StackOptions::default() })
            .await
            .unwrap();
    let at = stack.kafka_listener("NODE_1").unwrap();
    assert_ne!(at.to_string(), stack.brokers());
    assert!(speaks_kafka(&at.to_string()) && speaks_kafka(stack.brokers()));
    assert_eq!(stack.kafka_listener("NODE_2"), None);
    stack.kill_kafka().await;
    assert!(!speaks_kafka(&at.to_string()));
    stack.start_kafka().await.unwrap();
    assert_eq!(stack.kafka_listener("NODE_1"), Some(at));
    await_condition("the listener", || speaks_kafka(&at.to_string()));
    stack.stop().await.unwrap();
}
