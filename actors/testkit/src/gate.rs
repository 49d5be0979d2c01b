//! A gate that a test opens: a task that comes to it waits, and the test can wait until tasks have come.
//!
//! Deliberately absent: time. A gate is how a test makes "slow" mean "exactly until I say so".

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

/// Holds back the tasks that pass it until the test lets them through.
#[derive(Clone, Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    arrived: Arc<watch::Sender<usize>>,
}

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self { permits: Arc::new(Semaphore::new(0)), arrived: Arc::new(watch::Sender::new(0)) }
    }

    /// Lets every task through, now and later.
    pub fn open(&self) {
        self.permits.close();
    }

    /// Lets `n` tasks through, waiting ones or later ones.
    pub fn let_through(&self, n: usize) {
        self.permits.add_permits(n);
    }

    /// Waits until `n` tasks have come to the gate in all.
    pub async fn arrivals(&self, n: usize) {
        let mut arrived = self.arrived.subscribe();
        // The sender lives as long as `self`, so the only outcome is that the count was reached.
        let _ = arrived.wait_for(|count| *count >= n).await;
    }

    /// How many tasks have come to the gate.
    pub fn count(&self) -> usize {
        *self.arrived.borrow()
    }

    /// Comes to the gate and waits to be let through.
    pub async fn pass(&self) {
        self.arrived.send_modify(|count| *count += 1);
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn closed_gate_lets_through_as_many_as_the_test_sets() {
        let gate = Gate::closed();
        let passing: Vec<_> = (0..3)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.pass().await })
            })
            .collect();
        gate.arrivals(3).await;
        gate.let_through(2);
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(passing.iter().filter(|task| task.is_finished()).count(), 2);
        gate.open();
        for task in passing {
            task.await.unwrap();
        }
    }
}
