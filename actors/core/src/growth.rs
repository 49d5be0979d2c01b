//! Partition counts that grow while everything runs: what must be waited for, and what may be done next.
//!
//! Upholds I3 and I5 across growth. Three rules, each a pure function of what the store holds:
//!
//! - *records* ([`Growth::ancestors`]): what is read from a partition waits for every lower partition in
//!   which an older record of the same producer and key can lie;
//! - *homes* ([`Growth::serves`]): a home serves the keys that came to it once each earlier home has
//!   acknowledged that they left, and has published everything from before;
//! - *endings* ([`Growth::next`]): a transition is over once nobody sends by the older count any more, and
//!   all that was sent so is consumed.
//!
//! They were model-checked (design.md, "Growing partitions, live"). Deliberately absent: I/O, and clocks:
//! ages come from the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    epoch::{Generation, PartitionRow},
    partition::PartitionId,
};

/// New homes that nobody owns by then come into force all the same.
const OWNED_WITHIN: Duration = Duration::from_secs(15);

/// Everything the store knows of counts, as of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// The counts of each input topic.
    pub topics: BTreeMap<String, Counts>,
    /// The count in force in each generation.
    pub generations: BTreeMap<Generation, u32>,
    /// The outbox head with which a partition acknowledged a generation: from there on it wrote under that
    /// one.
    pub acknowledged: BTreeMap<(PartitionId, Generation), u64>,
    /// All partition rows, in order.
    pub rows: Vec<PartitionRow>,
}

/// The counts that one topic was known to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The count it was first seen with.
    pub first: u32,
    /// What it has grown to since, in order.
    pub steps: Vec<Step>,
}

/// One growth of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The count it grew to.
    pub count: u32,
    /// How long ago that was noticed, by the store's clock.
    pub age: Duration,
    /// Partitions of the older count whose relay has said that it addresses no row by that count any more.
    pub marked: BTreeSet<PartitionId>,
    /// End offsets of all partitions, once nobody sends by the older count; empty before.
    pub ends: Vec<u64>,
    /// Whether everything below `ends` is consumed: the transition is over.
    pub ended: bool,
}

impl Counts {
    /// The newest count.
    pub fn count(&self) -> u32 {
        self.steps.last().map_or(self.first, |step| step.count)
    }

    /// The smallest count by which a producer may still send; `None` outside of transitions.
    pub fn oldest_in_transition(&self) -> Option<u32> {
        let open = self.steps.iter().position(|step| !step.ended)?;
        Some(self.before(open))
    }

    /// The count before the step at `index`.
    fn before(&self, index: usize) -> u32 {
        index.checked_sub(1).and_then(|index| self.steps.get(index)).map_or(self.first, |step| step.count)
    }
}

/// What a context publishes to and reads from, as far as growth is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Topics<'a> {
    /// Its commands topic, whose count becomes the number of homes.
    pub commands: &'a str,
    /// Its events and dead letter topics, which its relays write to: they must have grown before the homes
    /// do.
    pub outputs: [&'a str; 2],
}

/// What can be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A topic has more partitions than is known: record the transition.
    Note {
        /// Which topic.
        topic: String,
        /// Its count now.
        count: u32,
    },
    /// All of the context's own topics have grown: put their count in force.
    Bump {
        /// The generation in force.
        from: Generation,
        /// The next one's count.
        count: u32,
    },
    /// Nobody sends by the count before this one any more: read the topic's end offsets and record them.
    Measure {
        /// Which topic.
        topic: String,
        /// The step, by the count it grew to.
        count: u32,
    },
    /// The transition is over.
    End {
        /// Which topic.
        topic: String,
        /// The step, by the count it grew to.
        count: u32,
    },
}

impl Growth {
    /// The generation in force and its count; generation 0 if nothing was ever registered.
    pub fn current(&self) -> (Generation, u32) {
        self.generations.last_key_value().map_or((Generation(0), 0), |(generation, count)| (*generation, *count))
    }

    /// The count of a generation.
    pub fn count_of(&self, generation: Generation) -> Option<u32> {
        self.generations.get(&generation).copied()
    }

    /// The newest known count of an input topic; 0 if it is not known.
    pub fn topic_count(&self, topic: &str) -> u32 {
        self.topics.get(topic).map_or(0, Counts::count)
    }

    /// Whether a producer may still send to an input topic by an older count.
    pub fn is_in_transition(&self) -> bool {
        self.topics.values().any(|counts| counts.oldest_in_transition().is_some())
    }

    /// The number of steps that have ended. It never falls: a step stays, and does not begin again.
    pub fn ended_steps(&self) -> usize {
        self.topics.values().flat_map(|counts| &counts.steps).filter(|step| step.ended).count()
    }

    fn row(&self, partition: PartitionId) -> Option<&PartitionRow> {
        self.rows.iter().find(|row| row.partition == partition)
    }

    /// The partitions of `topic` that must have committed past their ends before records of `partition` may
    /// be applied: every lower one that is congruent to it by the smallest count in transition. Whatever hash
    /// a producer uses, its older records of a key lie in one of these (counts being multiples); waits go
    /// downwards only, so they form no ring.
    pub fn ancestors(&self, topic: &str, partition: PartitionId) -> Vec<PartitionId> {
        let oldest = self.topics.get(topic).and_then(Counts::oldest_in_transition);
        let Some(oldest) = oldest.filter(|oldest| *oldest > 0) else { return Vec::new() };
        (0..partition.0).filter(|lower| lower % oldest == partition.0 % oldest).map(PartitionId).collect()
    }

    /// Whether each of these partitions has committed past the offset beside it.
    pub fn is_past(&self, topic: &str, ends: &[(PartitionId, u64)]) -> bool {
        ends.iter().all(|(partition, end)| {
            *end == 0 || self.row(*partition).and_then(|row| row.next_offset(topic)).is_some_and(|next| next >= *end)
        })
    }

    /// Whether `home` has acknowledged `generation` or a later one, and published everything that it wrote
    /// before.
    fn has_left(&self, home: PartitionId, generation: Generation) -> bool {
        let acknowledged = self.acknowledged.range((home, generation)..=(home, Generation(u32::MAX))).next();
        acknowledged.is_some_and(|(_, head)| self.row(home).is_some_and(|row| row.outbox_cursor >= *head))
    }

    /// Whether `partition`, whose owner is at `generation`, may serve the keys whose home it is then: each
    /// earlier home has acknowledged the generation in which they left it (or a later one), and published up
    /// to the head it did so with.
    pub fn serves(&self, partition: PartitionId, generation: Generation) -> bool {
        if !self.generations.contains_key(&generation) {
            return false; // the counts of its owner are older than the take-over
        }
        let counts: Vec<(Generation, u32)> =
            self.generations.range(..=generation).map(|(generation, count)| (*generation, *count)).collect();
        // Up to the last count that is no multiple of the one before, a key may have come from anywhere.
        let irregular = counts.windows(2).rposition(|pair| pair[1].1 % pair[0].1.max(1) != 0).map_or(0, |at| at + 1);
        counts.windows(2).enumerate().all(|(at, pair)| {
            let ((_, older), (since, newer)) = (pair[0], pair[1]);
            if at < irregular {
                return (0..older).map(PartitionId).all(|home| home == partition || self.has_left(home, since));
            }
            let before = PartitionId(partition.0 % older.max(1));
            before.0 == partition.0 % newer.max(1) || self.has_left(before, since)
        })
    }

    /// What can be done now. `counts` are those that the log has at this moment, of input and output topics;
    /// `producers_max_age` is how long a producer may go on sending by a count that has changed: the age of
    /// its metadata and its delivery timeout together.
    pub fn next(&self, topics: Topics<'_>, counts: &BTreeMap<String, u32>, producers_max_age: Duration) -> Vec<Act> {
        let mut acts = Vec::new();
        for (topic, known) in &self.topics {
            let count = counts.get(topic).copied().unwrap_or(0);
            if count > known.count() {
                acts.push(Act::Note { topic: topic.clone(), count });
            }
            for (index, step) in known.steps.iter().enumerate().filter(|(_, step)| !step.ended) {
                let (topic, count) = (topic.clone(), step.count);
                if !step.ends.is_empty() {
                    let ends: Vec<_> = (0..).map(PartitionId).zip(step.ends.iter().copied()).collect();
                    if self.is_past(&topic, &ends) {
                        acts.push(Act::End { topic, count });
                    }
                } else if step.age >= producers_max_age && self.relays_moved(topics, &topic, known.before(index), step)
                {
                    acts.push(Act::Measure { topic, count });
                }
            }
        }
        let (from, in_force) = self.current();
        let wanted = self.topic_count(topics.commands);
        let has_grown = |topic: &&str| counts.get(*topic).is_some_and(|count| *count >= wanted);
        if from.0 > 0
            && wanted > in_force
            && topics.outputs.iter().all(has_grown)
            && self.are_owned(topics.commands, wanted)
        {
            acts.push(Act::Bump { from, count: wanted });
        }
        acts
    }

    /// Whether each of `count` homes has an owner, or has had time to get one: until then keys are better off
    /// where they are.
    fn are_owned(&self, commands: &str, count: u32) -> bool {
        let is_owned = |row: &&PartitionRow| row.partition.0 < count && row.token.is_some() && !row.released;
        let age = self.topics.get(commands).and_then(|counts| counts.steps.last()).map(|step| step.age);
        age.is_none_or(|age| age >= OWNED_WITHIN) || self.rows.iter().filter(is_owned).count() == count as usize
    }

    /// Whether no relay can still publish a row into `topic` that was addressed under the count `before` the
    /// step. Our own relays' rows are out once all their homes have acknowledged a generation of the new
    /// count and published up to there; another context's say so by a mark in each partition.
    fn relays_moved(&self, topics: Topics<'_>, topic: &str, before: u32, step: &Step) -> bool {
        let mut older = (0..before).map(PartitionId);
        if topic != topics.commands {
            return older.all(|partition| step.marked.contains(&partition));
        }
        let reached =
            self.generations.iter().find(|(_, count)| **count >= step.count).map(|(generation, _)| *generation);
        reached.is_some_and(|generation| older.all(|home| self.has_left(home, generation)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::Token;

    const COMMANDS: &str = "t.commands";
    const EVENTS: &str = "t.events";
    const FOREIGN: &str = "other.events";
    const AGE: Duration = Duration::from_mins(7);

    fn row(partition: u32, consumed: &[(&str, u64)], cursor: u64) -> PartitionRow {
        PartitionRow {
            outbox_head: cursor,
            outbox_cursor: cursor,
            consumed: consumed.iter().map(|(topic, next)| ((*topic).to_owned(), *next)).collect(),
            ..PartitionRow::new(PartitionId(partition), Generation(1))
        }
    }

    fn step(count: u32) -> Step {
        Step { count, ..Step::default() }
    }

    fn ended(count: u32) -> Step {
        Step { count, ended: true, ..Step::default() }
    }

    fn growth(first: u32, steps: Vec<Step>, generations: &[u32]) -> Growth {
        Growth {
            topics: BTreeMap::from([(COMMANDS.to_owned(), Counts { first, steps })]),
            generations: (1..).map(Generation).zip(generations.iter().copied()).collect(),
            acknowledged: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    fn ids(list: &[u32]) -> Vec<PartitionId> {
        list.iter().copied().map(PartitionId).collect()
    }

    fn acts(growth: &Growth, counts: &[(&str, u32)]) -> Vec<Act> {
        let counts = counts.iter().map(|(topic, count)| ((*topic).to_owned(), *count)).collect();
        growth.next(Topics { commands: COMMANDS, outputs: [EVENTS, EVENTS] }, &counts, AGE)
    }

    #[test]
    fn partition_waits_for_lower_ones_congruent_by_oldest_count() {
        let twice = growth(2, vec![step(4), step(8)], &[2]);
        assert_eq!(twice.ancestors(COMMANDS, PartitionId(7)), ids(&[1, 3, 5]));
        assert_eq!(twice.ancestors(COMMANDS, PartitionId(3)), ids(&[1]));
        assert_eq!(twice.ancestors(COMMANDS, PartitionId(1)), ids(&[]));
        let second = growth(2, vec![ended(4), step(8)], &[2]);
        assert_eq!(second.ancestors(COMMANDS, PartitionId(7)), ids(&[3]));
        // The younger transition may end first; the older one goes on counting.
        let first = growth(2, vec![step(4), ended(8)], &[2]);
        assert_eq!(first.ancestors(COMMANDS, PartitionId(7)), ids(&[1, 3, 5]));
        let over = growth(2, vec![ended(4), ended(8)], &[2]);
        assert_eq!(over.ancestors(COMMANDS, PartitionId(7)), ids(&[]));
    }

    #[test]
    fn partition_is_past_an_end_if_empty_or_committed_up_to_it() {
        let mut growth = growth(2, vec![step(4)], &[2]);
        growth.rows = vec![row(0, &[(COMMANDS, 5)], 0), row(1, &[], 0)];
        let ends = |p0, p1| [(PartitionId(0), p0), (PartitionId(1), p1)];
        assert!(growth.is_past(COMMANDS, &ends(5, 0)));
        assert!(!growth.is_past(COMMANDS, &ends(6, 0)));
        assert!(!growth.is_past(COMMANDS, &ends(5, 1)));
        assert!(!growth.is_past(FOREIGN, &ends(5, 0)), "offsets of another topic say nothing");
    }

    #[test]
    fn new_home_serves_once_earlier_homes_acknowledge_and_publish() {
        let mut growth = growth(1, vec![step(2), step(4)], &[1, 2, 4]);
        growth.rows = vec![row(0, &[], 10), row(1, &[], 3)];
        let (g2, g3) = (Generation(2), Generation(3));
        // Keys of 3 were at home in 0, then in 1.
        assert!(!growth.serves(PartitionId(3), g3));
        growth.acknowledged.insert((PartitionId(1), g3), 3);
        assert!(!growth.serves(PartitionId(3), g3), "the parent alone is not enough");
        growth.acknowledged.insert((PartitionId(0), g2), 11);
        assert!(!growth.serves(PartitionId(3), g3), "acknowledged, and not yet published");
        growth.rows[0].outbox_cursor = 11;
        assert!(growth.serves(PartitionId(3), g3));
        // 2 was 0 until the last step: an older acknowledgement says nothing, a newer one does.
        assert!(!growth.serves(PartitionId(2), g3));
        growth.acknowledged.insert((PartitionId(0), g3), 11);
        assert!(growth.serves(PartitionId(2), g3));
        assert!(growth.serves(PartitionId(0), g3), "who stays where it is waits for nobody");
    }

    #[test]
    fn home_of_unknown_generation_does_not_serve() {
        let growth = growth(1, vec![], &[1]);
        assert!(growth.serves(PartitionId(0), Generation(1)));
        assert!(!growth.serves(PartitionId(1), Generation(2)), "who has to acknowledge it first is not known yet");
    }

    #[test]
    fn an_acknowledgement_may_skip_a_generation() {
        let mut growth = growth(1, vec![step(2), step(4)], &[1, 2, 4]);
        growth.rows = vec![row(0, &[], 1), row(1, &[], 0)];
        growth.acknowledged.insert((PartitionId(0), Generation(3)), 1);
        growth.acknowledged.insert((PartitionId(1), Generation(3)), 0);
        assert!((0..4).all(|partition| growth.serves(PartitionId(partition), Generation(3))));
    }

    #[test]
    fn home_waits_for_all_earlier_ones_if_count_is_no_multiple() {
        let mut growth = growth(4, vec![step(6)], &[4, 6]);
        growth.rows = (0..4).map(|partition| row(partition, &[], 0)).collect();
        let g2 = Generation(2);
        assert!(!growth.serves(PartitionId(0), g2), "keys of 4 may be at home in 0 now");
        for partition in 0..4 {
            assert!(!growth.serves(PartitionId(5), g2));
            growth.acknowledged.insert((PartitionId(partition), g2), 0);
        }
        assert!(growth.serves(PartitionId(5), g2) && growth.serves(PartitionId(0), g2));
    }

    #[test]
    fn a_transition_ends_by_age_then_relays_then_offsets() {
        let mut growth = growth(1, vec![Step { age: AGE, ..step(2) }], &[1, 2]);
        growth.rows = vec![row(0, &[(COMMANDS, 7)], 4), row(1, &[], 0)];
        let counts = [(COMMANDS, 2), (EVENTS, 2)];
        let measure = [Act::Measure { topic: COMMANDS.into(), count: 2 }];
        assert_eq!(acts(&growth, &counts), [], "the relay of 0 may still hold rows of generation 1");
        growth.acknowledged.insert((PartitionId(0), Generation(2)), 5);
        assert_eq!(acts(&growth, &counts), [], "and it has not published them");
        growth.rows[0].outbox_cursor = 5;
        assert_eq!(acts(&growth, &counts), measure);
        growth.topics.get_mut(COMMANDS).unwrap().steps[0].age = AGE.checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(acts(&growth, &counts), [], "a producer may still send by the older count");
        growth.topics.get_mut(COMMANDS).unwrap().steps[0] = Step { age: AGE, ends: vec![8, 0], ..step(2) };
        assert_eq!(acts(&growth, &counts), []);
        growth.rows[0].consumed = vec![(COMMANDS.into(), 8)];
        assert_eq!(acts(&growth, &counts), [Act::End { topic: COMMANDS.into(), count: 2 }]);
    }

    #[test]
    fn foreign_topic_transition_waits_for_marks_of_its_own_relays() {
        let mut growth = growth(2, vec![], &[2]);
        let marked = |list: &[u32]| Step { age: AGE, marked: ids(list).into_iter().collect(), ..step(4) };
        for (marks, is_over) in [(&[][..], false), (&[1], false), (&[0, 1], true)] {
            growth.topics.insert(FOREIGN.into(), Counts { first: 2, steps: vec![marked(marks)] });
            let measure = Act::Measure { topic: FOREIGN.into(), count: 4 };
            assert_eq!(acts(&growth, &[(COMMANDS, 2), (FOREIGN, 4), (EVENTS, 2)]).contains(&measure), is_over);
        }
    }

    #[test]
    fn homes_move_only_when_all_own_topics_have_grown() {
        let mut growth = growth(2, vec![Step { age: OWNED_WITHIN, ..step(4) }], &[2]);
        assert_eq!(acts(&growth, &[(COMMANDS, 4), (EVENTS, 2)]), []);
        assert_eq!(acts(&growth, &[(COMMANDS, 4)]), [], "a count that is not known is none");
        let bump = [Act::Bump { from: Generation(1), count: 4 }];
        assert_eq!(acts(&growth, &[(COMMANDS, 4), (EVENTS, 4)]), bump);
        growth.topics.get_mut(COMMANDS).unwrap().steps[0] = step(4);
        let owned = |home| PartitionRow { token: Some(Token::draw()), released: false, ..row(home, &[], 0) };
        growth.rows = (0..4).map(owned).collect();
        assert_eq!(acts(&growth, &[(COMMANDS, 4), (EVENTS, 4)]), bump);
        growth.rows[3].released = true;
        assert_eq!(acts(&growth, &[(COMMANDS, 4), (EVENTS, 4)]), [], "nobody would serve the keys of home 3");
        let note = Act::Note { topic: COMMANDS.into(), count: 8 };
        assert_eq!(acts(&growth, &[(COMMANDS, 8), (EVENTS, 2)]), [note]);
    }
}
