//! The last claims of one aggregate, in the form in which its row and its place in memory keep them.
//!
//! A new claim goes in at the end, and what no longer fits is pushed out at the front: it goes to the tables
//! of days, by the commit that wrote the new one. So an aggregate of which nothing was ever pushed out has
//! not *spilled*, and a new message of it need not be looked for there (I2). An answer that is too long
//! stands there alone, and is looked for by its repeats. Deliberately absent: for how long a table is kept.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes};
use uuid::Uuid;

use crate::dedup::{ANSWER_LOST, Answer, Claim, ClaimKey, Rejection};

/// Bytes of a ring at most: with them a small aggregate's row still needs no TOAST.
const BYTES_MAX: usize = 1024;
/// Bytes of a reply, or of a rejection's code and text, at most; those of a longer one stand elsewhere.
const TEXT_MAX: usize = 128;

/// The claims as bytes, oldest first. There are none in no bytes; else these are the number of distinct
/// scopes and each of them (16 bytes), and then for each claim
///
/// - its id (16 bytes) and the first 8 bytes of its body's digest;
/// - a byte for the place of its scope (low six bits) and its kind of answer (high two: applied without a
///   reply, applied, rejected, elsewhere);
/// - the version that the answer speaks of, as LEB128;
/// - for the second and third kind the length (1 byte) of the reply, or of `code NUL message`, and that.
///
/// The digest is cut because a sender that finds two bodies with equal halves deceives itself alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ring(Bytes);

/// What a commit makes of an aggregate's claims.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// The ring with the new claims.
    pub ring: Ring,
    /// What is to stand in the tables: what is not in the ring any more, and long answers.
    pub out: Vec<Claim>,
    /// Whether anything is not in the ring any more.
    pub spills: bool,
}

impl Ring {
    /// The most claims that a ring can hold.
    pub const CLAIMS_MAX: usize = 32;

    /// Reads the stored form; `None` if it is none.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let mut entries = Entries::of(&bytes);
        let is_sound = entries.by_ref().all(|entry| entry.claim().is_some()) && entries.rest.is_empty();
        is_sound.then_some(Self(bytes))
    }

    /// The stored form.
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The claim under `key`, if it is in the ring. The answer of one that stands elsewhere is
    /// [`ANSWER_LOST`].
    pub fn find(&self, key: &ClaimKey) -> Option<Claim> {
        Entries::of(&self.0).find(|entry| entry.key == *key)?.claim()
    }

    /// Whether the claim under `key` is in the ring, and its answer elsewhere.
    pub fn is_elsewhere(&self, key: &ClaimKey) -> bool {
        Entries::of(&self.0).any(|entry| entry.kind == ELSEWHERE && entry.key == *key)
    }

    /// All claims, oldest first.
    pub fn claims(&self) -> Vec<Claim> {
        Entries::of(&self.0).filter_map(|entry| entry.claim()).collect()
    }

    /// Adds `claims`, none of which is in the ring, in order. It holds `max` at most.
    #[must_use]
    pub fn push(&self, claims: &[Claim], max: usize) -> Pushed {
        if claims.is_empty() {
            return Pushed { ring: self.clone(), out: Vec::new(), spills: false };
        }
        let all: Vec<Entry<'_>> = Entries::of(&self.0).chain(claims.iter().map(Entry::of)).collect();
        let mut first = all.len().saturating_sub(max.min(Self::CLAIMS_MAX));
        let mut bytes = written(&all[first..]);
        while bytes.len() > BYTES_MAX {
            first += 1;
            bytes = written(&all[first..]);
        }
        let pushed_out = all[..first].iter().filter(|entry| entry.kind != ELSEWHERE).filter_map(Entry::claim);
        let new = all[all.len() - claims.len()..].iter().zip(claims);
        let long = new.filter(|(entry, _)| entry.kind == ELSEWHERE).map(|(_, claim)| claim.clone());
        Pushed { out: pushed_out.chain(long).collect(), ring: Self(bytes.into()), spills: first > 0 }
    }
}

/// The kinds of answer.
const APPLIED: u8 = 0;
const REPLIED: u8 = 1;
const REJECTED: u8 = 2;
const ELSEWHERE: u8 = 3;

/// One claim.
struct Entry<'a> {
    key: ClaimKey,
    /// As much of the digest as is known, the rest of it zero.
    body: Uuid,
    kind: u8,
    version: u64,
    text: Cow<'a, [u8]>,
}

impl<'a> Entry<'a> {
    fn of(claim: &'a Claim) -> Self {
        let (kind, text) = match &claim.answer {
            Answer::Applied { reply, .. } if reply.is_empty() => (APPLIED, Cow::default()),
            Answer::Applied { reply, .. } => (REPLIED, Cow::Borrowed(&reply[..])),
            Answer::Rejected { rejection, .. } => (REJECTED, Cow::Owned(rejection.to_bytes())),
        };
        let (kind, text) = if text.len() > TEXT_MAX { (ELSEWHERE, Cow::default()) } else { (kind, text) };
        Self { key: claim.key, body: claim.body, kind, version: claim.answer.version(), text }
    }

    fn claim(&self) -> Option<Claim> {
        let version = self.version;
        let answer = match self.kind {
            APPLIED | REPLIED => Answer::Applied { version, reply: Bytes::copy_from_slice(&self.text) },
            REJECTED => Answer::Rejected { version, rejection: Rejection::from_bytes(&self.text)? },
            _ => Answer::Rejected { version, rejection: lost() },
        };
        Some(Claim { key: self.key, body: self.body, answer })
    }
}

/// What stands for an answer that stands elsewhere, if it is not there any more.
fn lost() -> Rejection {
    let message = "this was decided, and its answer has not been kept".to_owned();
    Rejection { code: ANSWER_LOST.to_owned(), message }
}

/// Whether a text goes with this kind of answer.
const fn has_text(kind: u8) -> bool {
    matches!(kind, REPLIED | REJECTED)
}

/// The stored form of these claims.
#[expect(clippy::cast_possible_truncation, reason = "32 claims at most, with texts of 128 bytes; LEB128 cuts")]
fn written(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut scopes: Vec<Uuid> = Vec::new();
    for entry in entries {
        if !scopes.contains(&entry.key.scope) {
            scopes.push(entry.key.scope);
        }
    }
    let mut to = Vec::with_capacity(1 + 16 * scopes.len() + 30 * entries.len());
    if !entries.is_empty() {
        to.put_u8(scopes.len() as u8);
    }
    for scope in &scopes {
        to.put_slice(scope.as_bytes());
    }
    for entry in entries {
        let place = scopes.iter().position(|scope| *scope == entry.key.scope).unwrap_or_default();
        to.put_slice(entry.key.id.as_bytes());
        to.put_slice(&entry.body.as_bytes()[..8]);
        to.put_u8(entry.kind << 6 | place as u8);
        let mut version = entry.version;
        while version > 0x7f {
            to.put_u8(version as u8 | 0x80);
            version >>= 7;
        }
        to.put_u8(version as u8);
        if has_text(entry.kind) {
            to.put_u8(entry.text.len() as u8);
            to.put_slice(&entry.text);
        }
    }
    to
}

/// Reads entries one after the other, up to the end or to what is none.
struct Entries<'a> {
    scopes: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let split = bytes.split_first().and_then(|(scopes, rest)| rest.split_at_checked(16 * usize::from(*scopes)));
        let (scopes, rest) = split.unwrap_or((&[], bytes));
        Self { scopes, rest }
    }

    fn read(rest: &mut &'a [u8], scopes: &[u8]) -> Option<Entry<'a>> {
        let mut take = |length: usize| rest.split_off(..length);
        let id = Uuid::from_slice(take(16)?).ok()?;
        let mut body = [0; 16];
        body[..8].copy_from_slice(take(8)?);
        let head = take(1)?[0];
        let place = 16 * usize::from(head & 0x3f);
        let scope = Uuid::from_slice(scopes.get(place..place + 16)?).ok()?;
        let mut version = 0;
        for shift in (0..64).step_by(7) {
            let byte = take(1)?[0];
            version |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let kind = head >> 6;
        let length = if has_text(kind) { take(1)?[0] } else { 0 };
        let text = Cow::Borrowed(take(usize::from(length))?);
        Some(Entry { key: ClaimKey { id, scope }, body: Uuid::from_bytes(body), kind, version, text })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let mut rest = self.rest;
        let entry = Self::read(&mut rest, self.scopes)?;
        self.rest = rest;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(n: u128) -> Uuid {
        Uuid::from_u128(n << 64 | 7)
    }

    /// A claim as a ring gives it back.
    fn claim(n: u128, answer: Answer) -> Claim {
        let key = ClaimKey { id: Uuid::from_u128(n), scope: scope(n % 3) };
        Claim { key, body: Uuid::from_u128(n << 64), answer }
    }

    const fn applied(version: u64) -> Answer {
        Answer::Applied { version, reply: Bytes::new() }
    }

    fn rejected(message: &str) -> Answer {
        let rejection = Rejection { code: "EMPTY".into(), message: message.into() };
        Answer::Rejected { version: 3, rejection }
    }

    fn replied(bytes: usize) -> Answer {
        Answer::Applied { version: 1 << 40, reply: vec![1; bytes].into() }
    }

    fn all_kinds() -> Vec<Claim> {
        let answers = [applied(0), applied(127), applied(128), applied(u64::MAX), rejected("none"), replied(128)];
        (1..).zip(answers).map(|(n, answer)| claim(n, answer)).collect()
    }

    #[test]
    fn ring_gives_back_what_was_pushed() {
        let claims = all_kinds();
        let Pushed { ring, out, spills } = Ring::default().push(&claims, 32);
        assert_eq!((ring.claims(), out, spills), (claims.clone(), vec![], false));
        let ring = Ring::from_bytes(ring.bytes().clone()).expect("a ring");
        for claim in claims {
            assert_eq!(ring.find(&claim.key), Some(claim.clone()));
            let other = ClaimKey { scope: scope(9), ..claim.key };
            assert_eq!(ring.find(&other), None, "another sender's");
        }
        assert_eq!(Ring::default().find(&claim(1, applied(1)).key), None);
    }

    #[test]
    fn oldest_is_pushed_out_first() {
        let claims: Vec<Claim> = (0_u32..40).map(|n| claim(n.into(), applied(n.into()))).collect();
        let mut ring = Ring::default();
        let mut out = Vec::new();
        for some in claims.chunks(7) {
            let pushed = ring.push(some, 10);
            assert_eq!(pushed.spills, !pushed.out.is_empty());
            out.extend(pushed.out);
            ring = pushed.ring;
        }
        assert_eq!((out, ring.claims()), (claims[..30].to_vec(), claims[30..].to_vec()));
        assert_eq!(Ring::default().push(&claims, 100).out, claims[..8], "32 at most");
    }

    #[test]
    fn ring_is_bounded_in_bytes() {
        let claims: Vec<Claim> = (0..20).map(|n| claim(n, replied(100))).collect();
        let Pushed { ring, out, .. } = Ring::default().push(&claims, 32);
        assert!(ring.bytes().len() <= BYTES_MAX && ring.claims().len() >= 7);
        assert_eq!([out, ring.claims()].concat(), claims, "nothing is lost");
        // As many applied commands as it holds claims, all of one sender.
        let one = |n| Claim { key: ClaimKey { id: Uuid::from_u128(n), scope: scope(0) }, ..claim(n, applied(9_999)) };
        let claims: Vec<Claim> = (0..32).map(one).collect();
        assert_eq!(Ring::default().push(&claims, 32).out, []);
    }

    #[test]
    fn long_answers_stand_elsewhere() {
        let (long, longer) = (claim(1, replied(129)), claim(2, rejected(&"x".repeat(123))));
        let Pushed { ring, out, spills } =
            Ring::default().push(&[long.clone(), claim(3, applied(1)), longer.clone()], 32);
        assert_eq!((out, spills), (vec![long.clone(), longer.clone()], false));
        for claim in [&long, &longer] {
            let known = ring.find(&claim.key).expect("in the ring");
            assert!(ring.is_elsewhere(&claim.key) && known.is_repeat(claim.body), "{known:?}");
            assert_eq!(known.answer.version(), claim.answer.version());
            let Answer::Rejected { rejection, .. } = known.answer else { panic!("it stands elsewhere") };
            assert_eq!(rejection.code, ANSWER_LOST);
        }
        assert!(!ring.is_elsewhere(&claim(3, applied(1)).key));
        let Pushed { out, spills, .. } = ring.push(&[claim(4, applied(2))], 1);
        assert_eq!((out, spills), (vec![claim(3, applied(1))], true), "what stands elsewhere is not written again");
        let Pushed { out, spills, .. } = Ring::default().push(std::slice::from_ref(&long), 0);
        assert_eq!((out, spills), (vec![long], true));
    }

    #[test]
    fn scopes_go_with_their_last_claim() {
        let ring = Ring::default().push(&[claim(1, applied(1)), claim(2, applied(2))], 1).ring;
        assert_eq!(ring.bytes().len(), 1 + 16 + 26);
    }

    #[test]
    fn damaged_rings_are_none() {
        let whole = Ring::default().push(&all_kinds(), 32).ring.bytes().clone();
        let ends = (0..whole.len()).filter(|end| Ring::from_bytes(whole.slice(..*end)).is_some()).count();
        assert_eq!(ends, 1 + 6, "cut between claims, and before the first, it is a shorter one");
        let mut strange = whole.to_vec();
        strange[0] = 1;
        assert_eq!(Ring::from_bytes(strange.into()), None, "a place without a scope");
        assert_eq!(Ring::from_bytes(Bytes::from_static(&[40, 1])), None);
        for at in 0..whole.len() {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 0xff;
            if let Some(ring) = Ring::from_bytes(flipped.into()) {
                assert!(ring.claims().len() <= 6);
            }
        }
    }
}
