//! What a node's shell can be made to do wrong, to see that a check notices (I9).
//!
//! Invariant: the machine is never touched; only what is made of its actions is. Deliberately absent: rules
//! of the machine that are left out, which are [`holdfast_machine::Rules`].

use holdfast_machine::lane::{Action, Branch};

/// One wrong thing that a node's shell does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// An actor hears nothing of a delivery that did not happen.
    ForgetsUndo,
    /// An actor hears nothing of a delivery that is committed.
    ForgetsAdvance,
    /// An actor advances as the store did not grant it.
    AdvancesOtherBranch,
    /// Callers are answered as the store did not grant it.
    ConcludesOtherBranch,
    /// Callers are answered before their actor advances.
    ConcludesFirst,
    /// Rows go to the relay before the actors advance.
    PublishesFirst,
    /// Rows go to the relay when their commit is sent.
    PublishesBeforeCommit,
    /// Offsets are noted when their commit is sent.
    NotesBeforeCommit,
    /// Callers whose commit has happened are sent to another node.
    DeniesCommitted,
    /// An actor that is let go stays in memory.
    ForgetsPassivate,
    /// A call that is done is not answered.
    ForgetsConclude,
    /// An aggregate comes back into memory without its last claims.
    ForgetsRings,
    /// An aggregate comes back into memory as if none of its claims had been pushed out.
    ForgetsSpills,
    /// What an aggregate has only refused leaves no row.
    ForgetsRefusals,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::ForgetsUndo,
        Self::ForgetsAdvance,
        Self::AdvancesOtherBranch,
        Self::ConcludesOtherBranch,
        Self::ConcludesFirst,
        Self::PublishesFirst,
        Self::PublishesBeforeCommit,
        Self::NotesBeforeCommit,
        Self::DeniesCommitted,
        Self::ForgetsPassivate,
        Self::ForgetsConclude,
        Self::ForgetsRings,
        Self::ForgetsSpills,
        Self::ForgetsRefusals,
    ];

    /// What is made of a machine's actions; what needs the node itself is done there.
    pub(super) fn change(self, actions: &mut Vec<Action>) {
        let mut changed = Vec::with_capacity(actions.len());
        for action in actions.drain(..) {
            match (self, action) {
                (Self::ForgetsUndo, Action::Undo { .. })
                | (Self::ForgetsAdvance, Action::Advance { .. })
                | (Self::ForgetsConclude, Action::Conclude { .. })
                | (Self::ForgetsPassivate, Action::Passivate { .. }) => {}
                (Self::AdvancesOtherBranch, Action::Advance { delivery, branch }) => {
                    changed.push(Action::Advance { delivery, branch: other(branch) });
                }
                (Self::ConcludesOtherBranch, Action::Conclude { delivery, branch, term }) => {
                    changed.push(Action::Conclude { delivery, branch: other(branch), term });
                }
                (Self::ConcludesFirst, action @ Action::Conclude { .. })
                | (Self::PublishesFirst, action @ Action::Publish) => {
                    changed.insert(0, action);
                }
                (Self::PublishesBeforeCommit, action @ Action::Commit { .. }) => {
                    changed.extend([action, Action::Publish]);
                }
                (Self::NotesBeforeCommit, Action::Commit { ask, fences, parts, messages }) => {
                    let notes: Vec<Action> = fences
                        .iter()
                        .flat_map(|fence| fence.consumed.iter().map(move |of| (fence.partition, of)))
                        .map(|(partition, (topic, next))| Action::Note { topic: topic.clone(), partition, next: *next })
                        .collect();
                    changed.push(Action::Commit { ask, fences, parts, messages });
                    changed.extend(notes);
                }
                (_, action) => changed.push(action),
            }
        }
        *actions = changed;
    }
}

const fn other(branch: Branch) -> Branch {
    match branch {
        Branch::Granted => Branch::Refused,
        Branch::Refused => Branch::Granted,
    }
}
