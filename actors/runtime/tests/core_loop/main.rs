//! The core loop on the in-memory ports, in paused time: what it promises in normal running, and through each
//! fault.

mod cluster;
mod counter;
mod effects;

mod basics;
mod door;
mod faults;
mod growth;
mod history;
mod look_ups;
mod mutants;
mod narrowing;
mod ownership;
mod panics;
mod progress;
mod routing;
mod simulation;
mod stuck;
mod take_over;
mod timers;
