//! Hundreds of seeded runs: nodes come, go, crash and lose touch, over a store and a log that fail in every
//! way they know, while commands, repeats, junk, calls and strong reads come in. Then everything heals, and
//! the checker looks at what is left (I1–I5, I7, I8, I10).
//!
//! The seed decides what happens and when, in paused time on one thread. It does not decide ids, the order of
//! hash maps or the branch that a fair `select!` takes, so a failing seed nearly always fails again, and not
//! at the same step. `HOLDFAST_SEED` runs one seed alone. What [`crate::growth`] adds to it: partitions that
//! grow meanwhile, and messages in partitions that are not their home.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use holdfast_core::{PartitionId, Record, dedup::Answer, pool::Pool};
use holdfast_runtime::{Consistency, RouteError, Router, Rules};
use holdfast_testkit::{
    Checker, Dice, Gate, Watch,
    checker::Counts,
    store::{CommitFault, Stage},
};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    cluster::{Cluster, Member, PARTITIONS, call, headers, text},
    growth::{self, Growing},
};

const RUNS: u64 = 200;
const KEYS: u64 = 12;
const STEPS: u32 = 70;
/// Too little for all who want some.
const STOCK: i64 = 60;

fn any_key(dice: &mut Dice) -> String {
    format!("k{}", dice.below(KEYS))
}

#[derive(Clone, Copy, PartialEq)]
enum Standing {
    Up,
    Leaving,
    Dead,
}

/// The answers and versions that callers received, for I1 and I5.
#[derive(Default)]
struct Received {
    answers: BTreeMap<Uuid, Answer>,
    versions: BTreeMap<String, u64>,
    stale_reads: Vec<String>,
}

pub struct Run {
    pub cluster: Cluster,
    watch: Watch,
    pub dice: Dice,
    members: Vec<(Arc<Member>, Standing)>,
    gates: Vec<Gate>,
    sent: Vec<(Uuid, String, &'static str, String)>,
    sequence: u64,
    received: Arc<Mutex<Received>>,
    tasks: JoinSet<()>,
    /// Whether and how partitions grow meanwhile.
    pub growing: Option<Growing>,
    rules: Rules,
}

impl Run {
    fn new(seed: u64, how: How<'_>, sabotage: impl FnOnce(&Cluster)) -> Self {
        let cluster = Cluster::with_partitions(if how.grows.is_some() { growth::FIRST } else { PARTITIONS });
        cluster.store.set_pool("stock", Pool { total: STOCK, held: 0 });
        let (inputs, outputs) = (["counter.commands", "other.events"], ["counter.events", "counter.dlq"]);
        let watch = Watch::install(&cluster.log, &cluster.store, &inputs, &outputs);
        sabotage(&cluster);
        Self {
            cluster,
            watch,
            dice: Dice::new(seed),
            members: Vec::new(),
            gates: Vec::new(),
            sent: Vec::new(),
            sequence: 0,
            received: Arc::default(),
            tasks: JoinSet::new(),
            growing: how.grows.map(Growing::new),
            rules: how.rules,
        }
    }

    async fn start(&mut self) {
        let dice = &mut self.dice;
        let (lanes, batch, live, rows) =
            (dice.pick(&[1, 2, 3]), dice.pick(&[3, 32, 512]), dice.pick(&[6, 50_000]), dice.pick(&[16, 8192]));
        let rules = self.rules;
        let change = |config: &mut holdfast_runtime::Config| {
            (config.lanes, config.batch_items_max, config.live_max, config.relay_rows_max) = (lanes, batch, live, rows);
            (config.producers_max_age, config.rules) = (growth::PRODUCERS_MAX_AGE, rules);
        };
        let member = self.cluster.start_with(change).await;
        self.members.push((Arc::new(member), Standing::Up));
    }

    fn up(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|at| self.members[*at].1 == Standing::Up).collect()
    }

    fn someone(&mut self) -> Option<Arc<Member>> {
        let up = self.up();
        (!up.is_empty()).then(|| self.members[self.dice.pick(&up)].0.clone())
    }

    fn gate(&mut self) -> Gate {
        let gate = Gate::closed();
        self.gates.push(gate.clone());
        gate
    }

    // ---- what comes in

    fn send(&mut self) {
        for _ in 0..=self.dice.below(12) {
            let key = any_key(&mut self.dice);
            let (r#type, body) = match self.dice.below(20) {
                0..10 => ("add", (1 + self.dice.below(9)).to_string()),
                10 => ("charge", (1 + self.dice.below(9)).to_string()),
                11 => ("add", "0".into()),
                12..16 => ("take", (1 + self.dice.below(3)).to_string()),
                16 => ("ask", String::new()),
                17 => ("later", String::new()),
                18 => ("add", self.dice.pick(&["junk", "-1", "\u{0}"]).into()),
                _ => (self.dice.pick(&["panic", "nonsense"]), String::new()),
            };
            let id = self.cluster.send(&key, r#type, &body);
            self.sent.push((id, key, r#type, body));
        }
    }

    /// Sends something again, now and then under another body.
    fn repeat(&mut self) {
        for _ in 0..self.dice.below(8).min(self.sent.len() as u64) {
            let (id, key, r#type, body) = self.sent[self.dice.index(self.sent.len())].clone();
            let body = if self.dice.one_in(8) { "99".into() } else { body };
            self.cluster.send_as(id, &key, r#type, &body);
        }
    }

    fn foreign_events(&mut self) {
        for _ in 0..=self.dice.below(4) {
            let (key, r#type) =
                (any_key(&mut self.dice), self.dice.pick(&["other.added", "other.added", "other.ignored"]));
            self.sequence += 1;
            let sequence = self.sequence - self.dice.below(3).min(self.sequence - 1);
            let headers = headers(Uuid::now_v7(), &key, r#type, "other", Some(sequence));
            self.cluster.append("other.events", &key, headers, &sequence.to_string());
        }
    }

    fn call(&mut self) {
        let Some(member) = self.someone() else { return };
        let (key, received) = (any_key(&mut self.dice), self.received.clone());
        let message = match self.dice.below(8) {
            0 => call(&key, "panic", ""),
            1 => call(&key, "ask", ""),
            2 | 3 => call(&key, "take", "2"),
            4 => call(&key, "add", "0"),
            _ => call(&key, "add", "7"),
        };
        let is_impatient = self.dice.one_in(6);
        self.tasks.spawn(async move {
            let answer = member.node.command(message.clone());
            // One who hangs up may have been served.
            let answer = if is_impatient {
                tokio::time::timeout(Duration::from_millis(5), answer).await.unwrap_or(Err(RouteError::Overloaded))
            } else {
                answer.await
            };
            if let Ok(answer) = answer {
                let mut received = received.lock().expect("nobody panics with it");
                let version = received.versions.entry(key).or_default();
                *version = (*version).max(answer.version());
                received.answers.insert(message.id, answer);
            }
        });
    }

    /// A strong read sees at least the newest version that a caller received before the read began (I5).
    fn read(&mut self) {
        let Some(member) = self.someone() else { return };
        let (key, received) = (any_key(&mut self.dice), self.received.clone());
        self.tasks.spawn(async move {
            let known = received.lock().expect("nobody panics with it").versions.get(&key).copied().unwrap_or(0);
            if let Ok(read) = member.node.read("counter", &key, Consistency::Strong, 0).await {
                let mut received = received.lock().expect("nobody panics with it");
                if read.version < known {
                    received.stale_reads.push(format!("I5: {key} was read at {}, a caller knew {known}", read.version));
                }
                let version = received.versions.entry(key).or_default();
                *version = (*version).max(read.version);
            }
        });
    }

    // ---- what goes wrong

    fn commit_fault(&mut self) {
        let Some(member) = self.someone() else { return };
        for _ in 0..=self.dice.below(3) {
            let stage = self.dice.pick(&[Stage::BeforeFence, Stage::BeforeCommit]);
            let fault = match self.dice.below(7) {
                0 => CommitFault::Unavailable,
                1 | 2 => CommitFault::UnknownNotCommitted,
                3 | 4 => CommitFault::UnknownCommitted,
                5 => CommitFault::Late(stage, self.gate()),
                _ => CommitFault::Slow(stage, self.gate()),
            };
            member.store.next_commit(fault);
        }
    }

    fn port_fault(&mut self) {
        let Some(member) = self.someone() else { return };
        match self.dice.below(12) {
            0 => member.store.set_unavailable(true),
            8 => member.store.set_beat_latency(self.dice.millis(9_000)),
            9 => self.cluster.oracle.answers_lost.store(self.dice.index(3), std::sync::atomic::Ordering::SeqCst),
            1 => member.store.lose_answers(1 + u32::try_from(self.dice.below(3)).expect("small")),
            2 => member.store.set_latency(self.dice.millis(300)),
            3 => member.log.set_unavailable(true),
            4 => member.publisher.fail_after(self.dice.below(20)),
            5 => member.publisher.lose_acks(1),
            6 => member.publisher.leave_zombie(self.gate()),
            7 => member.publisher.hold_sends(Some(self.gate())),
            10 => self.cluster.oracle.takes_ms.store(self.dice.below(2_000), std::sync::atomic::Ordering::SeqCst),
            _ => self.cluster.oracle.is_away.store(self.dice.one_in(2), std::sync::atomic::Ordering::SeqCst),
        }
    }

    fn group_fault(&mut self) {
        let partition = PartitionId(u32::try_from(self.dice.below(u64::from(PARTITIONS))).expect("small"));
        let Some(member) = self.someone() else { return };
        match self.dice.below(6) {
            0 | 1 => self.cluster.group.flip(partition),
            2 => member.membership.set_deaf(true),
            3 => self.cluster.group.expel(&member.membership),
            4 => self.cluster.group.readmit(&member.membership),
            _ => member.membership.set_deaf(false),
        }
    }

    fn crash_or_leave(&mut self) {
        let up = self.up();
        if up.is_empty() {
            return;
        }
        let at = self.dice.pick(&up);
        let (member, group) = (self.members[at].0.clone(), self.cluster.group.clone());
        if self.dice.one_in(2) {
            self.members[at].1 = Standing::Dead;
            member.node.kill();
            group.expel(&member.membership);
        } else {
            self.members[at].1 = Standing::Leaving;
            self.tasks.spawn(async move {
                member.node.stop().await;
                group.expel(&member.membership);
            });
        }
    }

    /// Ends some of what is wrong, and lets a gate's crowd go.
    fn mend(&mut self) {
        if let Some(member) = self.someone() {
            member.store.set_unavailable(false);
            member.log.set_unavailable(false);
        }
        if !self.gates.is_empty() {
            let at = self.dice.index(self.gates.len());
            self.gates.swap_remove(at).open();
        }
    }

    async fn step(&mut self) {
        if self.growing.is_some() && self.dice.one_in(3) {
            self.growth_step();
        }
        match self.dice.below(100) {
            0..34 => self.send(),
            34..42 => self.repeat(),
            42..48 => self.foreign_events(),
            48..56 => self.call(),
            56..62 => self.read(),
            62..70 => self.commit_fault(),
            70..77 => self.port_fault(),
            77..83 => self.group_fault(),
            83..87 => self.crash_or_leave(),
            87..95 => self.mend(),
            _ if self.up().len() < 4 => self.start().await,
            _ => {}
        }
        let pause = self.dice.pick(&[1, 1, 20, 200, 3000]);
        tokio::time::sleep(self.dice.millis(pause)).await;
    }

    async fn heal(&mut self) {
        self.gates.drain(..).for_each(|gate| gate.open());
        self.cluster.oracle.is_away.store(false, std::sync::atomic::Ordering::SeqCst);
        self.cluster.oracle.takes_ms.store(0, std::sync::atomic::Ordering::SeqCst);
        for (member, standing) in &self.members {
            member.store.heal();
            member.publisher.heal();
            member.log.set_unavailable(false);
            member.membership.set_deaf(false);
            if *standing == Standing::Up {
                self.cluster.group.readmit(&member.membership);
            }
        }
        self.cluster.group.let_go();
        if self.up().is_empty() {
            self.start().await;
        }
    }
}

// ---- what is left

async fn comes_to_rest(cluster: &Cluster) -> Result<(), String> {
    let rest = async {
        while !cluster.is_at_rest() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let within = tokio::time::timeout(Duration::from_mins(1), rest).await;
    within.map_err(|_| format!("I8: not converged 60 s after everything healed: {}", cluster.unrest()))
}

/// Events of the counter by the message that caused them, first occurrences.
fn effects(cluster: &Cluster) -> BTreeMap<String, Vec<i64>> {
    let (mut seen, mut effects) = (BTreeSet::new(), BTreeMap::<String, Vec<i64>>::new());
    for record in cluster.log.all_records("counter.events").into_iter().filter(|record| record.key.is_some()) {
        if seen.insert(text(&record, "ce_id")) {
            let value = std::str::from_utf8(record.value.as_deref().unwrap_or_default()).expect("text");
            effects.entry(text(&record, "ce_causationid")).or_default().push(value.parse().expect("a number"));
        }
    }
    effects
}

impl Run {
    /// I2 to the last unit: each message has its one effect and no other, and what is held was granted.
    fn check_effects(&self) -> Vec<String> {
        let (effects, mut wrong, mut granted) = (effects(&self.cluster), Vec::new(), 0);
        let of = |id: &Uuid| effects.get(&id.to_string()).map_or(&[][..], Vec::as_slice);
        for (id, key, r#type, body) in &self.sent {
            let (found, n) = (of(id), body.parse::<i64>());
            let is_right = match (*r#type, n) {
                ("add", Ok(n)) if n > 0 => found == [n],
                ("take", Ok(n)) => found.is_empty() || found == [n],
                ("ask", _) => found == [42],
                ("charge", _) => found == [0],
                // Junk is a dead letter and claims nothing, so that its id may come again with another body.
                ("add", Err(_) | Ok(-1)) => found.is_empty() || found == [99],
                _ => found.is_empty(),
            };
            granted += if *r#type == "take" { found.iter().sum() } else { 0 };
            if !is_right {
                wrong.push(format!("I2: {type} {body:?} to {key} ({id}) had the effects {found:?}"));
            }
        }
        // Only calls to take have the effect 2 and are not in `sent`, but for another context's second event.
        let known: BTreeSet<String> = self.sent.iter().map(|(id, ..)| id.to_string()).collect();
        let foreign = self.cluster.log.all_records("other.events");
        let foreign: BTreeSet<String> = foreign.iter().map(|record| text(record, "ce_id")).collect();
        let grown = self.grown();
        let bank: BTreeSet<String> = self.charges("charged").into_iter().map(|(_, _, cause)| cause).collect();
        let is_call = |cause: &String| [&known, &foreign, &grown, &bank].iter().all(|known| !known.contains(cause));
        granted += effects.iter().filter(|(cause, found)| is_call(cause) && **found == [2]).map(|_| 2).sum::<i64>();
        let held = self.cluster.store.contents().pools["stock"].held;
        if held != granted {
            wrong.push(format!("I2: {held} are held, {granted} were granted"));
        }
        for (id, answer) in &self.received.lock().expect("nobody panics with it").answers {
            let n = of(id).len();
            if n != usize::from(matches!(answer, Answer::Applied { .. })) {
                wrong.push(format!("I1: {n} effects of {id}, whose caller received {answer:?}"));
            }
        }
        wrong
    }

    /// Charges that were begun, or that ended: counter, value, and what caused it.
    fn charges(&self, r#type: &str) -> Vec<(String, i64, String)> {
        let (records, mut seen) = (self.cluster.log.all_records("counter.events"), BTreeSet::new());
        let is_one = |record: &&Record| text(record, "ce_type") == r#type && seen.insert(text(record, "ce_id"));
        let value =
            |record: &Record| String::from_utf8(record.value.as_deref().unwrap_or_default().to_vec()).expect("text");
        let charge = |record: &Record| {
            (text(record, "ce_subject"), value(record).parse().expect("a number"), text(record, "ce_causationid"))
        };
        records.iter().filter(is_one).map(charge).collect()
    }

    /// I2 at the edge: what the bank has given was asked for, and taken in once.
    fn check_bank(&self) -> Vec<String> {
        let given = self.cluster.oracle.bank.lock().expect("nobody panics with it").clone();
        let mut taken: Vec<(String, i64)> = self.charges("charged").into_iter().map(|(key, n, _)| (key, n)).collect();
        let mut given: Vec<(String, i64)> = given.into_iter().map(|((key, _), n)| (key, n)).collect();
        taken.sort();
        given.sort();
        let begun = self.charges("charging").len();
        let is_right = taken == given && begun == given.len();
        if is_right {
            Vec::new()
        } else {
            vec![format!("I2: {begun} charges were begun; the bank gave {given:?}; taken in: {taken:?}")]
        }
    }

    /// I8: what is stored is the fold of what was published.
    fn check_folds(&self) -> Vec<String> {
        let fold = |(key, events): (String, Vec<(u64, String)>)| {
            let sum: i64 = events.iter().filter_map(|(_, body)| body.parse::<i64>().ok()).sum();
            (self.cluster.sum(&key) != Some(sum)).then(|| format!("I8: {key} is not the fold of its events"))
        };
        self.cluster.events().into_iter().filter_map(fold).collect()
    }

    async fn finish(mut self) -> Result<Counts, String> {
        self.heal().await;
        self.finish_growth();
        comes_to_rest(&self.cluster).await?;
        let answered = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_mins(1), answered).await.is_err() {
            return Err("a caller got no answer, or a node did not stop".into());
        }
        // All timers have fired by then, and whatever still travelled has arrived.
        tokio::time::sleep(Duration::from_secs(70)).await;
        comes_to_rest(&self.cluster).await?;
        let acknowledged: Vec<Uuid> =
            self.received.lock().expect("nobody panics with it").answers.keys().copied().collect();
        let checker = Checker::new(&self.cluster.log, &self.cluster.store, "counter", &["counter"]);
        let checker = checker.reading("other.events", &["other.added"]).acknowledged(acknowledged);
        let (counts, found) = checker.settled().watched(&self.watch).check();
        let mut wrong: Vec<String> = found.iter().map(ToString::to_string).collect();
        wrong.append(&mut self.received.lock().expect("nobody panics with it").stale_reads);
        wrong.extend(self.check_effects());
        wrong.extend(self.check_bank());
        wrong.extend(self.check_folds());
        wrong.extend(self.check_growth());
        if !self.cluster.store.contents().timers.is_empty() {
            wrong.push("I7: a timer did not fire".into());
        }
        if wrong.is_empty() { Ok(counts) } else { Err(wrong.join("\n")) }
    }
}

/// What is particular to a run.
#[derive(Clone, Copy, Default)]
pub struct How<'a> {
    /// To which counts partitions grow meanwhile.
    pub grows: Option<&'a [u32]>,
    /// Which rule the nodes break.
    pub rules: Rules,
}

/// One run from its seed.
pub fn run(seed: u64, how: How<'_>, sabotage: impl FnOnce(&Cluster)) -> Result<Counts, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut run = Run::new(seed, how, sabotage);
        for _ in 0..=run.dice.below(3) {
            run.start().await;
        }
        for _ in 0..STEPS {
            run.step().await;
        }
        run.finish().await
    })
}

#[test]
fn whatever_fails_the_invariants_hold_once_it_has_healed() {
    let only = std::env::var("HOLDFAST_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let (first, last) = only.map_or((0, RUNS), |seed| (seed, seed + 1));
    let (began, mut sum) = (Instant::now(), Counts::default());
    for seed in first..last {
        let counts = run(seed, How::default(), |_| {})
            .unwrap_or_else(|wrong| panic!("seed {seed} (HOLDFAST_SEED={seed}):\n{wrong}"));
        sum.consumed += counts.consumed;
        sum.events += counts.events;
        sum.repeats += counts.repeats;
        sum.dead_letters += counts.dead_letters;
    }
    println!("{} runs in {:?}: {sum:?}", last - first, began.elapsed());
    assert!(
        only.is_some() || (sum.events > 10_000 && sum.repeats > 100 && sum.dead_letters > 100),
        "too tame: {sum:?}"
    );
}

/// Runs seeds until one fails, and expects it to say so by `invariant`.
pub fn caught(by: &[&str], how: impl Fn(u64) -> How<'static>, sabotage: impl Fn(&Cluster)) {
    let mut others = Vec::new();
    for seed in 0..150 {
        if let Err(wrong) = run(seed, how(seed), &sabotage) {
            if wrong.lines().any(|line| by.iter().any(|id| line.starts_with(&format!("{id}:")))) {
                return;
            }
            others.push(format!("seed {seed}: {wrong}"));
        }
    }
    panic!("nobody noticed; other complaints: {others:?}");
}

#[test]
fn a_store_without_a_fence_is_caught() {
    caught(&["I4"], |_| How::default(), |cluster| cluster.store.sabotage(|store| store.no_fence = true));
}

#[test]
fn an_offset_stored_before_its_commit_is_caught() {
    caught(&["I7"], |_| How::default(), |cluster| cluster.store.sabotage(|store| store.offsets_first = true));
}

#[test]
fn an_event_published_before_its_commit_is_caught() {
    caught(&["I1"], |_| How::default(), |cluster| cluster.store.publish_first(cluster.log.clone()));
}
